"""The same floods of malformed and hostile connections against gatewayx and gearmand's HTTP plugin, in one run.

    python benchmarks/malformed_flood.py [--rounds 5] [--only share,steady,...] [--workers 1] [--strict]

Starts one gearmand with its HTTP plugin, two echo workers and a gateway, all on loopback, lets flood.c loose on each in
turns, and measures good traffic, memory and log meanwhile. The sections are share, steady, each, slow, declared,
slow-readers, bodies and mixed; what every row means is in benchmarks/README.md.
"""

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from flood_bodies import LARGE_BYTES
from flood_watch import Flood, Newcomers, Sampler
from servers import (
    GATEWAY_COMMAND,
    compile_program,
    start_echo_workers,
    start_gateway,
    start_gearmand,
    start_nginx_that_waits,
)

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
SECTIONS = ("share", "steady", "each", "slow", "declared", "slow-readers", "bodies", "mixed")
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
# Beside a flood's own connections there is room for good ones, where it is not the bound that is looked at.
GATEWAY = "{python} -m gatewayx serve --listen {listen} --server {server} --max-connections 12000"
STEADY_RATE = 5000
# A turn that others disturb is repeated, so often at most.
MAX_ATTEMPTS = 4
# Heads a second that declare MAX_BODY_BYTES and send nothing; the gateway ends each after its --body-rate-grace.
DECLARED_RATE = 500
DECLARED_WAIT_S = 10
# Clients that take an answer of LARGE_BYTES byte by byte: so many new ones a second, and open at once at most.
SLOW_READER_RATE = 20
SLOW_READERS = 400
# From the start of a flood to good traffic: as many heads are declared as ever will be, or as many bytes are unread.
LEAD_S = {"declared": DECLARED_WAIT_S + 1, "slow-reader": 14}
SMALL_BYTES = 16 * KIB
# What newcomers ask: path and body. Small ones, and ones that need more room than any flood may leave.
SMALL_REQUESTS = (("/echo", 20), ("/sink", SMALL_BYTES), ("/echo", SMALL_BYTES))
ALL_REQUESTS = (*SMALL_REQUESTS, ("/sink", MIB), ("/large", 0))
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
    workers: int


@dataclass
class Results:
    """What was measured, by section."""

    rows: list[Row] = field(default_factory=list)
    raw: dict[str, Any] = field(default_factory=dict)


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
        self._plugin, self._server_port, self._plugin_port = start_gearmand(processes, "-t 4")
        start_echo_workers(processes, self._server_port, FUNCTION, 2)
        self._gateway, self._gateway_port = self._start_gateway(GATEWAY)
        self._targets = {self._plugin_port: self._plugin, self._gateway_port: self._gateway}

    def _start_gateway(self, command: str) -> tuple[Process, int]:
        return start_gateway(self._processes, f"{command} --workers {self.settings.workers}", self._server_port)

    def _flood(self, port: int, kind: str, connections: int, seconds: float, rate: float = 0, count: int = 0) -> Flood:
        return Flood(self._program, port, kind, connections, seconds, rate, count)

    def _turn(self, port: int, kind: str, connections: int, rate: float = 0) -> dict[str, Any]:
        """Good traffic alone, during a flood of the kind, and after it; again while others disturb it."""
        duration_s = self.settings.duration_s

        def measure() -> dict[str, Any]:
            # Sampling takes processor time itself, so the calm has it too.
            with Sampler(self._targets[port]):
                calm = good_traffic(port, duration_s)
            flood = self._flood(port, kind, connections, duration_s + 1, rate=rate)
            with flood, Sampler(self._targets[port]) as sampler:
                time.sleep(0.5)
                during = good_traffic(port, duration_s)
            return {
                "calm": asdict(calm),
                "during": asdict(during),
                "flood": flood.report,
                "share": during.requests_per_s / calm.requests_per_s,
                "p99_ratio": during.latency_p99_s / calm.latency_p99_s,
                "memory_bytes": sampler.samples,
            }

        return {**self._undisturbed(kind, measure), "after": asdict(good_traffic(port, 1))}

    def _undisturbed(self, name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What `measure` returns, measured again while others disturb it, with the disturbance."""
        for attempt in range(MAX_ATTEMPTS):
            wait_until_quiet(self._processes, self.settings.max_disturbance)
            watch = Watch(self._processes)
            measured = measure()
            disturbance = watch.stop()[1].share
            if disturbance <= self.settings.max_disturbance:
                break
            print(f"{name}: others used {disturbance:.0%} of the machine, attempt {attempt + 1} of {MAX_ATTEMPTS}")
        return {**measured, "disturbance": disturbance}

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
        """As many heads that never end as there may be connections; then heads and bodies at a byte a second."""
        count = self.settings.slow_heads
        gateway, port = self._start_gateway(GATEWAY_COMMAND)
        try:
            calm = good_traffic(port, self.settings.duration_s)
            resting_bytes = gateway.memory().private_bytes
            flood = self._flood(port, "held-head", count, 20, rate=5000, count=count)
            with flood:
                time.sleep(count / 5000 + 1)
                each = (gateway.memory().private_bytes - resting_bytes) / count
                with Newcomers(port, SMALL_REQUESTS[:1]) as newcomers:
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
        self.results.raw["slow"] = {
            "calm": asdict(calm),
            "during": asdict(during),
            "newcomers": newcomers.answers,
            "flood": report,
            "drips": drips,
        }
        too_slow = report["statuses"].get("408", 0)
        ended = report["opened"] - report["left_open"] - report["failed"]
        self.results.rows += [
            at_most("slow heads held open: private memory each", [each / KIB], 3, " KiB", f"{count} heads"),
            at_least(
                "slow heads: answered 408 on time, or gone to make room",
                [ended / count],
                1,
                "",
                f"within {report['seconds']:.1f} s, {too_slow:,} of them 408",
            ),
            at_most(
                "slow heads: good requests refused",
                [newcomers.refused() + during.errors["status"]],
                0,
                "",
                f"{newcomers.answers.total()} newcomers: {dict(newcomers.answers)}",
            ),
            information(
                "slow heads: kept connections that made room just when their next request left",
                [during.errors["read"] + during.errors["write"]],
                "",
                f"of {during.requests:,} requests",
            ),
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

    def declared(self) -> None:
        """Heads that declare a large body and send nothing of it, many a second."""
        turns = self._beside_nginx("declared", 10_000, DECLARED_RATE, ALL_REQUESTS)
        reached = all(
            turn[target]["flood"]["opened"] / turn[target]["flood"]["seconds"] > 0.98 * DECLARED_RATE
            for turn in turns
            for target in turn
        )
        self.results.rows += beside_nginx_rows(f"{DECLARED_RATE} declared bodies a second", turns, reached)

    def slow_readers(self) -> None:
        """Many clients that take a large answer byte by byte."""
        turns = self._beside_nginx("slow-reader", SLOW_READERS, SLOW_READER_RATE, SMALL_REQUESTS)
        self.results.rows += beside_nginx_rows("answers taken byte by byte", turns, True)

    def _beside_nginx(
        self, kind: str, connections: int, rate: float, requests: Sequence[tuple[str, int]]
    ) -> list[dict[str, Any]]:
        """Good traffic at a gateway during a flood at it, and during the same flood at an nginx, in turns."""
        duration_s = self.settings.duration_s
        gateway, gateway_port = self._start_gateway(GATEWAY_COMMAND)
        nginx, nginx_port = start_nginx_that_waits(self._processes, LARGE_BYTES, DECLARED_WAIT_S)
        worker = self._start_sink()
        turns: list[dict[str, Any]] = []

        def measure(port: int) -> dict[str, Any]:
            flood = self._flood(port, kind, connections, LEAD_S[kind] + duration_s + 1, rate=rate)
            with flood:
                time.sleep(LEAD_S[kind])
                with Newcomers(gateway_port, requests) as newcomers:
                    during = good_traffic(gateway_port, duration_s)
            return {
                "during": asdict(during),
                "newcomers": newcomers.answers,
                "refused": newcomers.refused() + during.error_count,
                "flood": flood.report,
                "private_bytes": gateway.memory().private_bytes,
            }

        try:
            for number in range(self.settings.rounds):
                turn: dict[str, Any] = {}
                targets = [("gateway", gateway_port), ("nginx", nginx_port)]
                for target, port in targets[:: -1 if number % 2 else 1]:
                    turn[target] = self._undisturbed(kind, partial(measure, port))
                turns.append(turn)
                told = ", ".join(
                    f"at {name} p99 {1e3 * found['during']['latency_p99_s']:.2f} ms, {found['refused']} refused"
                    for name, found in turn.items()
                )
                print(f"{kind}, round {number + 1}: {told}", flush=True)
        finally:
            self._processes.stop(worker)
            self._processes.stop(nginx)
            self._processes.stop(gateway)
        self.results.raw[kind] = turns
        return turns

    def _start_sink(self) -> Process:
        """A worker that drops what it gets (`sink`), or gives much (`large`)."""
        worker = self._processes.start(
            "sink", [sys.executable, str(BENCHMARKS / "flood_bodies.py"), "worker", HOST, str(self._server_port)]
        )
        wait_for_workers(self._server_port, "sink", 1)
        return worker

    def bodies(self) -> None:
        """Many clients that send bodies up to the limit, half of it first, the rest after a pause."""
        gateway, port = self._start_gateway(GATEWAY)
        worker = self._start_sink()
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
        gateway, port = self._start_gateway(GATEWAY)
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


def beside_nginx_rows(name: str, turns: list[dict[str, Any]], reached: bool) -> list[Row]:
    """The rows of a flood whose cost is compared with that of the same flood at an nginx."""
    answers: Counter[str] = Counter()
    statuses: Counter[str] = Counter()
    for turn in turns:
        answers.update(turn["gateway"]["newcomers"])
        statuses.update(turn["gateway"]["flood"]["statuses"])
    others = {answer: count for answer, count in answers.items() if not answer.startswith("200 ")}
    errors = [turn["gateway"]["during"]["errors"] for turn in turns]
    refused = sum(turn["gateway"]["refused"] for turn in turns)
    asked = answers.total() + sum(turn["gateway"]["during"]["requests"] for turn in turns)
    ratios = [turn["gateway"]["during"]["latency_p99_s"] / turn["nginx"]["during"]["latency_p99_s"] for turn in turns]
    lowest, highest = (1e3 * pick(turn["nginx"]["during"]["latency_p99_s"] for turn in turns) for pick in (min, max))
    detail = f"of {asked:,}, among them {answers.total():,} newcomers"
    if refused:
        detail += f": newcomers {others or 'all served'}, wrk {errors}"
    return [
        at_most(f"{name}: good requests refused", [refused], 0, "", detail),
        at_most(
            f"{name}: p99 against the same flood at nginx",
            ratios,
            1.2,
            TIMES,
            f"nginx {lowest:.2f} to {highest:.2f} ms",
            reached,
        ),
        information(
            f"{name}: flooding clients",
            [sum(turn["gateway"]["flood"]["opened"] for turn in turns)],
            "",
            f"answers {dict(statuses)}, "
            f"memory at most {max(turn['gateway']['private_bytes'] for turn in turns) / MIB:.0f} MiB",
        ),
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
    parser.add_argument("--workers", type=int, default=1, help="worker processes of each gateway")
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
        arguments.workers,
    )
    require_programs({"gearmand": "gearman-job-server", "wrk": "wrk", "nginx": "nginx-light", "cc": "gcc"})
    raise_open_file_limit(16_000)
    with tempfile.TemporaryDirectory() as directory, ProcessSet(Path(directory)) as processes:
        comparison = Comparison(processes, settings)
        for section in sections:
            getattr(comparison, section.replace("-", "_"))()
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
