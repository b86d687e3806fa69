"""The same floods of malformed and hostile connections against gatewayx and gearmand's HTTP plugin, in one run.

    python benchmarks/malformed_flood.py [--rounds 5] [--only share,steady,each,slow,bodies,mixed] [--strict]

Starts one gearmand with its HTTP plugin, two echo workers and a gateway, all on loopback, lets flood.c loose on each in
turns, and measures good traffic, memory and log meanwhile. What every row means is in benchmarks/README.md.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from servers import compile_program, start_echo_workers, start_gateway, start_gearmand

from support import (
    BENCHMARKS,
    HOST,
    KIB,
    MIB,
    TIMES,
    BenchmarkError,
    Load,
    Process,
    ProcessSet,
    Row,
    Watch,
    at_least,
    at_most,
    information,
    raise_open_file_limit,
    require_programs,
    run_command,
    run_tag,
    run_wrk,
    text_table,
    wait_for_workers,
    wait_until_quiet,
    write_report,
)

FUNCTION = "echo"
GOOD_CONNECTIONS = 8
FLOODING_CLIENTS = 32
SECTIONS = ("share", "steady", "each", "slow", "bodies", "mixed")
SLOW_KINDS = ("slow-head", "slow-body")
# In the section `each`: every kind of flood.c, and how many connections it has open at most.
KINDS = {
    "bad-line": 32,
    "bad-version": 32,
    "bad-chunk": 32,
    "nul": 32,
    "header-flood": 32,
    "oversize": 32,
    "half-head": 32,
    "connect": 32,
    "requests-and-leave": 32,
    "slow-head": 500,
    "slow-body": 500,
    "no-read": 200,
}
# Beside the flood's own connections there must be room for good ones: nothing idle is to be closed for them.
GATEWAY = "{python} -m gatewayx serve --listen {listen} --server {server} --max-connections 12000"
SAMPLE_S = 0.1
STEADY_RATE = 5000
# A turn that others disturb is repeated, so often at most.
MAX_ATTEMPTS = 4
MAX_BODY_BYTES = 8 * MIB
BODY_CLIENTS = 1000
HELD_BYTES = 256 * MIB


@dataclass(frozen=True)
class Settings:
    """What one run was asked to do; goes into the results."""

    rounds: int
    duration_s: float
    mixed_connections: int
    slow_heads: int
    body_clients: int
    sections: tuple[str, ...]
    max_disturbance: float


@dataclass
class Results:
    """What was measured, by section."""

    rows: list[Row] = field(default_factory=list)
    raw: dict[str, Any] = field(default_factory=dict)


class Sampler:
    """Private memory of a process every SAMPLE_S seconds while a `with` block runs."""

    def __init__(self, process: Process) -> None:
        self.samples: list[tuple[float, int]] = []
        self._process = process
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        began_s = time.monotonic()
        while not self._ended.wait(SAMPLE_S):
            self.samples.append((time.monotonic() - began_s, self._process.memory().private_bytes))

    def peak_bytes(self) -> int:
        """The highest sample."""
        return max(private for _, private in self.samples)

    def __enter__(self) -> "Sampler":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._thread.join()


class Flood:
    """One run of flood.c beside whatever the `with` block does; `report` is what it printed."""

    def __init__(
        self,
        program: Path,
        port: int,
        kind: str,
        connections: int,
        seconds: float,
        rate: float = 0,
        count: int = 0,
    ) -> None:
        arguments = [str(port), kind, str(connections), str(rate), str(count), str(seconds)]
        self._command = [str(program), *arguments]
        self.seconds = seconds
        self.report: dict[str, Any] = {}

    def __enter__(self) -> "Flood":
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, *exception: object) -> None:
        output, _ = self._process.communicate(timeout=self.seconds + 60)
        if self._process.returncode:
            raise BenchmarkError(f"the flood ended with status {self._process.returncode}")
        self.report = json.loads(output)


def good_traffic(port: int, duration_s: float) -> Load:
    """GOOD_CONNECTIONS clients as fast as they are answered."""
    url = f"http://{HOST}:{port}/{FUNCTION}"
    return run_wrk(url, BENCHMARKS / "unique_post.lua", [run_tag()], GOOD_CONNECTIONS, duration_s)


class Comparison:
    """The processes, and one method a section."""

    def __init__(self, processes: ProcessSet, settings: Settings) -> None:
        self.settings = settings
        self.results = Results()
        self._processes = processes
        self._program = compile_program(processes, "flood.c")
        self._plugin, self._server_port, self._plugin_port = start_gearmand(
            processes, "-t 4 --hashtable-buckets 1000003"
        )
        start_echo_workers(processes, self._server_port, FUNCTION, 2)
        self._gateway, self._gateway_port = start_gateway(processes, GATEWAY, self._server_port)
        self._targets = {self._plugin_port: self._plugin, self._gateway_port: self._gateway}

    def _flood(self, port: int, kind: str, connections: int, seconds: float, **more: float) -> Flood:
        return Flood(self._program, port, kind, connections, seconds, **more)

    def _turn(self, port: int, kind: str, connections: int, rate: float = 0) -> dict[str, Any]:
        """Good traffic alone, during a flood of the kind, and after it; again while others disturb it."""
        duration_s = self.settings.duration_s
        for attempt in range(MAX_ATTEMPTS):
            wait_until_quiet(self._processes, self.settings.max_disturbance)
            watch = Watch(self._processes)
            # Sampling takes processor time itself, so the calm has it too.
            with Sampler(self._targets[port]):
                calm = good_traffic(port, duration_s)
            flood = self._flood(port, kind, connections, duration_s + 1, rate=rate)
            with flood, Sampler(self._targets[port]) as sampler:
                time.sleep(0.5)
                during = good_traffic(port, duration_s)
            disturbance = watch.stop()[1].share
            if disturbance <= self.settings.max_disturbance:
                break
            print(f"{kind}: others used {disturbance:.0%} of the machine, attempt {attempt + 1} of {MAX_ATTEMPTS}")
        return {
            "calm": asdict(calm),
            "during": asdict(during),
            "after": asdict(good_traffic(port, 1)),
            "flood": flood.report,
            "share": during.requests_per_s / calm.requests_per_s,
            "p99_ratio": during.latency_p99_s / calm.latency_p99_s,
            "memory_bytes": sampler.samples,
            "disturbance": disturbance,
        }

    def share(self) -> None:
        """What 32 clients that send AAA as fast as they can leave of the good traffic."""
        rounds: list[dict[str, Any]] = []
        for number in range(self.settings.rounds):
            turn: dict[str, Any] = {}
            targets = [("plugin", self._plugin_port), ("gateway", self._gateway_port)]
            for target, port in targets[:: -1 if number % 2 else 1]:
                turn[target] = self._turn(port, "bad-line", FLOODING_CLIENTS)
            rounds.append(turn)
            print(f"share, round {number + 1}: " + ", ".join(f"{name} {turn[name]['share']:.2f}" for name in turn))
        self.results.raw["share"] = rounds
        gateway = [turn["gateway"]["share"] for turn in rounds]
        plugin = [turn["plugin"]["share"] for turn in rounds]
        p99 = [
            turn["gateway"]["during"]["latency_p99_s"] / turn["plugin"]["during"]["latency_p99_s"] for turn in rounds
        ]
        clean = all(not any(turn["gateway"]["during"]["errors"].values()) for turn in rounds)
        detail = f"{FLOODING_CLIENTS} clients, {GOOD_CONNECTIONS} good connections"
        self.results.rows += [
            at_least("AAA flood: share of good traffic kept", gateway, 0.30, "", detail, clean),
            information("AAA flood: share that the plugin keeps", plugin, "", ""),
            at_least(
                "AAA flood: share against the plugin's",
                [ours / theirs for ours, theirs in zip(gateway, plugin, strict=True)],
                2.5,
                TIMES,
                "",
                clean,
            ),
            at_most("AAA flood: p99 against the plugin's", p99, 0.5, TIMES, "", clean),
        ]

    def steady(self) -> None:
        """5,000 malformed connections a second of mixed kinds."""
        rounds = []
        for number in range(self.settings.rounds):
            turn = {
                target: self._turn(port, "mixed", 4000, rate=STEADY_RATE)
                for target, port in (("gateway", self._gateway_port), ("plugin", self._plugin_port))
            }
            rounds.append(turn)
            told = ", ".join(f"{name} {turn[name]['p99_ratio']:.2f}" for name in turn)
            print(f"steady, round {number + 1}: p99 against its calm one: {told}")
        self.results.raw["steady"] = rounds
        ratios = {name: [turn[name]["p99_ratio"] for turn in rounds] for name in ("gateway", "plugin")}
        reached = all(
            turn["gateway"]["flood"]["opened"] / turn["gateway"]["flood"]["seconds"] > 0.98 * STEADY_RATE
            for turn in rounds
        )
        self.results.rows += [
            at_most(
                "5,000 malformed connections a second: p99", ratios["gateway"], 2, TIMES, "of the calm p99", reached
            ),
            information("5,000 malformed connections a second: p99 of the plugin", ratios["plugin"], TIMES, ""),
        ]

    def each(self) -> None:
        """Every kind of flood by itself, as fast as it goes, against both."""
        found: dict[str, dict[str, Any]] = {}
        for kind, connections in KINDS.items():
            found[kind] = {
                "plugin": self._turn(self._plugin_port, kind, connections),
                "gateway": self._turn(self._gateway_port, kind, connections),
            }
            rows = [each_row(kind, target, turn) for target, turn in found[kind].items()]
            self.results.rows += rows
            print(text_table(rows), flush=True)
        self.results.raw["each"] = found

    def slow(self) -> None:
        """Many heads that never end, held open; then byte-drip of heads and bodies."""
        count = self.settings.slow_heads
        gateway, port = start_gateway(self._processes, GATEWAY, self._server_port)
        try:
            calm = good_traffic(port, self.settings.duration_s)
            resting_bytes = gateway.memory().private_bytes
            flood = self._flood(port, "held-head", count, 20, rate=5000, count=count)
            with flood:
                time.sleep(count / 5000 + 1)
                each = (gateway.memory().private_bytes - resting_bytes) / count
                during = good_traffic(port, 12)
            drips = {}
            for kind in SLOW_KINDS:
                drip = self._flood(port, kind, 1000, 25, rate=2000, count=1000)
                with drip:
                    pass
                drips[kind] = drip.report
        finally:
            self._processes.stop(gateway)
        report = flood.report
        self.results.raw["slow"] = {"calm": asdict(calm), "during": asdict(during), "flood": report, "drips": drips}
        closed = report["statuses"].get("408", 0)
        self.results.rows += [
            at_most("slow heads held open: private memory each", [each / KIB], 3, " KiB", f"{count} heads"),
            at_least("slow heads: answered 408 on time", [closed / count], 1, "", f"within {report['seconds']:.1f} s"),
            at_most(
                "slow heads: p99 while they are held and closed",
                [during.latency_p99_s / calm.latency_p99_s],
                2,
                TIMES,
                "of the calm p99",
            ),
            *(
                at_least(f"{kind}, a byte a second: answered 408", [found["statuses"].get("408", 0) / 1000], 1, "", "")
                for kind, found in drips.items()
            ),
        ]

    def bodies(self) -> None:
        """Many clients that send bodies up to the limit, half of it first, the rest after a pause."""
        gateway, port = start_gateway(self._processes, GATEWAY, self._server_port)
        worker = self._processes.start(
            "sink", [sys.executable, str(BENCHMARKS / "flood_bodies.py"), "worker", HOST, str(self._server_port)]
        )
        wait_for_workers(self._server_port, "sink", 1)
        try:
            resting_bytes = gateway.memory().private_bytes
            clients = [sys.executable, str(BENCHMARKS / "flood_bodies.py"), "clients", HOST, str(port)]
            with Sampler(gateway) as sampler:
                completed = run_command([*clients, str(self.settings.body_clients), str(MAX_BODY_BYTES)], timeout_s=300)
            report = json.loads(completed.stdout)
        finally:
            self._processes.stop(worker)
            self._processes.stop(gateway)
        grown = sampler.peak_bytes() - resting_bytes
        self.results.raw["bodies"] = {"resting_bytes": resting_bytes, "peak_growth_bytes": grown, "clients": report}
        served = report["statuses"].get("200", 0)
        count = self.settings.body_clients
        self.results.rows += [
            at_most(
                "bodies of 8 MiB: memory above rest, of the byte bound",
                [grown / HELD_BYTES],
                1.1,
                "",
                f"{count} clients",
            ),
            at_least(
                "bodies of 8 MiB: clients served in the end",
                [served / count],
                1,
                "",
                f"{report['refused']} times 503 on the way, {report['seconds']:.0f} s",
            ),
        ]

    def mixed(self) -> None:
        """A million malformed connections of all quick kinds in turn."""
        count = self.settings.mixed_connections
        gateway, port = start_gateway(self._processes, GATEWAY, self._server_port)
        try:
            with self._flood(port, "mixed", 2000, 900, count=min(50_000, count)):
                pass
            time.sleep(3)
            before_bytes = gateway.memory().private_bytes
            flood = self._flood(port, "mixed", 2000, 900, count=count)
            with Sampler(gateway) as sampler, flood:
                pass
            time.sleep(3)
            grown = gateway.memory().private_bytes - before_bytes
            served = good_traffic(port, 1)
        finally:
            self._processes.stop(gateway)
        log_bytes = gateway.log.stat().st_size
        self.results.raw["mixed"] = {
            "flood": flood.report,
            "growth_bytes": grown,
            "peak_growth_bytes": sampler.peak_bytes() - before_bytes,
            "log_bytes": log_bytes,
        }
        detail = f"{flood.report['opened']} connections in {flood.report['seconds']:.0f} s after the first 50,000"
        self.results.rows += [
            at_most(
                "malformed connections: private memory grown", [grown / MIB], 1, " MiB", detail, served.requests > 0
            ),
            information("malformed connections: peak", [(sampler.peak_bytes() - before_bytes) / MIB], " MiB", ""),
            at_most("malformed connections: log", [log_bytes / KIB], 256, " KiB", ""),
        ]


def each_row(kind: str, target: str, turn: dict[str, Any]) -> Row:
    """The share of good traffic that a kind of flood leaves, with what else there is to say."""
    flood, during = turn["flood"], turn["during"]
    memory_bytes = [size_bytes for _, size_bytes in turn["memory_bytes"]]
    detail = (
        f"{flood['opened'] / flood['seconds']:,.0f} connections/s, good p99 {1e3 * during['latency_p99_s']:.2f} ms "
        f"(calm {1e3 * turn['calm']['latency_p99_s']:.2f}), "
        f"memory {memory_bytes[0] / MIB:.1f} to at most {max(memory_bytes) / MIB:.1f} MiB"
    )
    return information(f"{kind}, {target}: share of good traffic kept", [turn["share"]], "", detail)


def main() -> int:
    """Measure and report; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--duration", type=float, default=4.0, help="seconds of good traffic in each turn")
    parser.add_argument("--mixed-connections", type=int, default=1_000_000)
    parser.add_argument("--slow-heads", type=int, default=10_000)
    parser.add_argument("--body-clients", type=int, default=BODY_CLIENTS)
    parser.add_argument(
        "--max-disturbance", type=float, default=0.05, help="repeat a turn when others used more of the machine"
    )
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, separated by commas")
    parser.add_argument("--output", type=Path, default=BENCHMARKS / "results")
    parser.add_argument("--strict", action="store_true", help="status 1 when a bar is missed")
    arguments = parser.parse_args()
    sections = tuple(arguments.only.split(","))
    if not set(sections) <= set(SECTIONS):
        parser.error(f"the sections are {', '.join(SECTIONS)}")
    settings = Settings(
        arguments.rounds,
        arguments.duration,
        arguments.mixed_connections,
        arguments.slow_heads,
        arguments.body_clients,
        sections,
        arguments.max_disturbance,
    )
    require_programs({"gearmand": "gearman-job-server", "wrk": "wrk", "cc": "gcc"})
    raise_open_file_limit(16_000)
    with tempfile.TemporaryDirectory() as directory, ProcessSet(Path(directory)) as processes:
        comparison = Comparison(processes, settings)
        for section in sections:
            getattr(comparison, section)()
            print(text_table(comparison.results.rows), flush=True)
    results = comparison.results
    write_report(arguments.output, "malformed_flood", "Malformed floods", results.rows, asdict(settings), results.raw)
    missed = [row for row in results.rows if row.passed is False]
    return 1 if missed and arguments.strict else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchmarkError as error:
        sys.exit(f"malformed_flood: {error}")
