"""gatewayx against gearmand's HTTP plugin, nginx and a native client, on one machine in one run.

    python benchmarks/plugin_comparison.py [--rounds 3] [--duration 5] [--output benchmarks/results] [--strict]

Starts one gearmand with its HTTP plugin, workers, the gateway and nginx, all on loopback, and measures them in turns.
What every row means is in benchmarks/README.md. A turn that others on the machine disturbed is repeated.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from clients import ClosingClient, KeepAliveClient, NativeSequentialClient, open_idle_connections, post_head
from servers import (
    GATEWAY_COMMAND,
    start_echo_workers,
    start_gateway,
    start_gearmand,
    start_nginx,
    start_raw_worker,
)

from gatewayx.bench.measurement import machine as machine_description
from support import (
    BENCHMARKS,
    HOST,
    KIB,
    MIB,
    TIMES,
    AnswerChecker,
    BenchmarkError,
    Checked,
    Disturbance,
    Load,
    Process,
    ProcessSet,
    Row,
    Watch,
    at_least,
    at_most,
    function_status,
    in_turns,
    information,
    markdown_table,
    measured_rows_markdown,
    median_of,
    now_text,
    package_versions,
    program_version,
    raise_open_file_limit,
    require_programs,
    run_command,
    run_tag,
    run_wrk,
    source_revision,
    text_table,
    wait_until_drained,
    wait_until_quiet,
)

WORKLOAD_FUNCTION = "echo"
QUEUE_FUNCTION = "queue"
LARGE_FUNCTION = "echo-large"
CONNECTIONS = 64
PIPELINED_FUNCTION = "echo-pipelined"
PIPELINED_GRABS = 16
IN_FLIGHT_AT_END = CONNECTIONS
MAX_REPEATS = 8
WARM_UP_S = 1.0
SECTIONS = ("foreground", "background", "memory", "large")
Turns = list[Callable[[], None]]


@dataclass(frozen=True)
class Settings:
    """What one run was asked to do; goes into the results."""

    rounds: int
    duration_s: float
    workers: int
    connections: int
    idle_connections: int
    large_payload_bytes: int
    large_requests: int
    max_disturbance: float
    gearmand_options: str
    gateway_command: str
    sections: tuple[str, ...]


@dataclass
class Turn:
    """One target under load once."""

    target: str
    round: int
    load: Load
    cpu_s: dict[str, float]
    """Processor seconds by process name."""
    disturbance: Disturbance
    checked: Checked | None = None
    queued_jobs: int | None = None
    """Background jobs the job server had after the turn; each answered request must be among them."""

    def cpu_per_request_s(self) -> float:
        return self.cpu_s[self.target] / self.load.requests

    def problems(self) -> list[str]:
        """Why the answers of this turn were not all right."""
        found = []
        if self.load.error_count:
            found.append(f"{self.target}, round {self.round}: {self.load.errors}")
        if self.checked and self.checked.wrong_count:
            found.append(f"{self.target}, round {self.round}: wrong answers, first {self.checked.wrong[0]}")
        if self.queued_jobs is not None:
            answered = self.load.requests + (self.checked.answers if self.checked else 0)
            # A load that ends leaves requests unanswered whose jobs may have been queued all the same.
            if not answered <= self.queued_jobs <= answered + IN_FLIGHT_AT_END + 1:
                found.append(f"{self.target}, round {self.round}: {answered} answered, {self.queued_jobs} jobs queued")
        return found


@dataclass
class Results:
    """Everything that was measured, round by round."""

    foreground: list[Turn] = field(default_factory=list)
    foreground_pipelined: list[Turn] = field(default_factory=list)
    """With a worker that asks for jobs ahead: then the workers are not the limit."""
    background: list[Turn] = field(default_factory=list)
    background_consumed: list[Turn] = field(default_factory=list)
    discarded: list[Turn] = field(default_factory=list)
    """Turns that others on the machine disturbed and that were repeated."""
    memory_per_connection_bytes: dict[str, list[float]] = field(default_factory=dict)
    resident_bytes: dict[str, list[int]] = field(default_factory=dict)
    large_s: dict[str, list[float]] = field(default_factory=dict)
    """Median time of each round, by client."""


def report_progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Comparison:
    """The servers of the load rows, started once, and the turns against them."""

    def __init__(self, processes: ProcessSet, settings: Settings) -> None:
        self.settings = settings
        self.results = Results()
        self._processes = processes
        _, self._server_port, plugin_port = start_gearmand(processes, settings.gearmand_options)
        start_echo_workers(processes, self._server_port, WORKLOAD_FUNCTION, settings.workers)
        self.gateway, gateway_port = start_gateway(processes, settings.gateway_command, self._server_port)
        nginx_port = start_nginx(processes)[1] if "background" in settings.sections else 0
        self._ports = {"plugin": plugin_port, "gateway": gateway_port, "nginx": nginx_port}

    def run(self) -> None:
        """Every section, round by round."""
        if "foreground" in self.settings.sections:
            self._foreground(WORKLOAD_FUNCTION, self.results.foreground)
            worker = start_raw_worker(self._processes, self._server_port, PIPELINED_FUNCTION, PIPELINED_GRABS)
            self._foreground(PIPELINED_FUNCTION, self.results.foreground_pipelined)
            self._processes.stop(worker)
        if "background" in self.settings.sections:
            in_turns(self._background_turns(0, WARM_UP_S), 0)
            for number in range(self.settings.rounds):
                in_turns(self._background_turns(number, self.settings.duration_s, self.results.background), number)
                in_turns(self._consumed_turns(number), number)
        if "large" in self.settings.sections:
            worker = start_raw_worker(self._processes, self._server_port, LARGE_FUNCTION, grabs=1)
            for number in range(self.settings.rounds):
                self._large_round(number)
            self._processes.stop(worker)
        self.results.resident_bytes["after all load"] = [self.gateway.memory().resident_bytes]

    def _foreground(self, function: str, kept: list[Turn]) -> None:
        in_turns(self._foreground_turns(function, 0, WARM_UP_S), 0)
        for number in range(self.settings.rounds):
            in_turns(self._foreground_turns(function, number, self.settings.duration_s, kept), number)

    def _foreground_turns(
        self, function: str, round_number: int, duration_s: float, kept: list[Turn] | None = None
    ) -> Turns:
        measures = [
            partial(self._http_turn, "plugin", round_number, duration_s, background=False, function=function),
            partial(self._http_turn, "gateway", round_number, duration_s, background=False, function=function),
            partial(self._native_turn, round_number, duration_s, function),
        ]
        return [partial(self._undisturbed, kept, measure) for measure in measures]

    def _background_turns(self, round_number: int, duration_s: float, kept: list[Turn] | None = None) -> Turns:
        measures = [
            partial(self._http_turn, target, round_number, duration_s, background=True, function=QUEUE_FUNCTION)
            for target in ("plugin", "gateway", "nginx")
        ]
        return [partial(self._undisturbed, kept, measure) for measure in measures]

    def _consumed_turns(self, round_number: int) -> Turns:
        """Background jobs that the libgearman workers take while they are submitted."""
        duration_s = self.settings.duration_s
        measures = [
            partial(self._http_turn, target, round_number, duration_s, background=True, function=WORKLOAD_FUNCTION)
            for target in ("plugin", "gateway")
        ]
        return [partial(self._undisturbed, self.results.background_consumed, measure) for measure in measures]

    def _undisturbed(self, kept: list[Turn] | None, measure: Callable[[], Turn]) -> None:
        """Repeats a turn that others disturbed: whatever the outcome was, it counts only what the machine did."""
        for attempt in range(MAX_REPEATS + 1):
            wait_until_quiet(self._processes, self.settings.max_disturbance)
            turn = measure()
            report_progress(describe(turn))
            if kept is None:
                return
            if turn.disturbance.share <= self.settings.max_disturbance or attempt == MAX_REPEATS:
                kept.append(turn)
                return
            self.results.discarded.append(turn)

    def _http_turn(self, target: str, round_number: int, duration_s: float, background: bool, function: str) -> Turn:
        port = self._ports[target]
        arguments = [run_tag(), "background" if background else "foreground"]
        # nginx answers nothing that could be compared.
        checker = AnswerChecker(port, f"/{function}", background) if target != "nginx" else None
        watch = Watch(self._processes)
        url = f"http://{HOST}:{port}/{function}"
        with checker.running() if checker else nullcontext():
            load = run_wrk(url, BENCHMARKS / "unique_post.lua", arguments, self.settings.connections, duration_s)
        cpu_s, disturbance = watch.stop()
        turn = Turn(target, round_number, load, cpu_s, disturbance, checker.checked if checker else None)
        if function == QUEUE_FUNCTION and target != "nginx":
            turn.queued_jobs = function_status(self._server_port, QUEUE_FUNCTION).jobs
            self._drain_queue()
        wait_until_drained(self._server_port, function)
        return turn

    def _native_turn(self, round_number: int, duration_s: float, function: str) -> Turn:
        watch = Watch(self._processes)
        command = [sys.executable, str(BENCHMARKS / "native_client.py"), "--server", f"{HOST}:{self._server_port}"]
        command += ["--function", function, "--in-flight", str(self.settings.connections)]
        command += ["--duration", str(duration_s), "--run-tag", run_tag()[:7]]
        outcome = json.loads(run_command(command, timeout_s=duration_s + 30).stdout)
        cpu_s, disturbance = watch.stop()
        load = Load(
            duration_s=outcome["duration_s"],
            requests=outcome["jobs"],
            requests_per_s=outcome["jobs_per_s"],
            latency_p50_s=outcome["latency_p50_s"],
            latency_p99_s=outcome["latency_p99_s"],
            latency_max_s=outcome["latency_max_s"],
            errors={"wrong": outcome["wrong_results"]},
        )
        wait_until_drained(self._server_port, function)
        return Turn("native", round_number, load, cpu_s, disturbance)

    def _drain_queue(self) -> None:
        worker = start_raw_worker(self._processes, self._server_port, QUEUE_FUNCTION, grabs=64)
        wait_until_drained(self._server_port, QUEUE_FUNCTION)
        self._processes.stop(worker)

    def _large_round(self, round_number: int) -> None:
        """One client at a time echoes large payloads, a request through each way in turn."""
        payload_bytes = self.settings.large_payload_bytes
        clients: dict[str, Callable[[bytes], tuple[float, bytes]]] = {
            "gateway": KeepAliveClient(self._ports["gateway"], LARGE_FUNCTION).post,
            "native": NativeSequentialClient(self._server_port, LARGE_FUNCTION).submit,
            "plugin": ClosingClient(self._ports["plugin"], LARGE_FUNCTION).post,
        }
        times_s: dict[str, list[float]] = {name: [] for name in clients}
        for number in range(self.settings.large_requests + 2):
            for name, send in clients.items():
                payload = os.urandom(payload_bytes)
                elapsed_s, answer = send(payload)
                if answer != payload:
                    raise BenchmarkError(f"{name} answered {len(answer)} other bytes to {payload_bytes}")
                # The first ones grow buffers and open connections.
                if number >= 2:
                    times_s[name].append(elapsed_s)
        for name, values_s in times_s.items():
            self.results.large_s.setdefault(name, []).append(median_of(values_s))
        medians = ", ".join(f"{name} {1e3 * median_of(values_s):.2f} ms" for name, values_s in times_s.items())
        report_progress(f"large round {round_number}: {medians}")


def describe(turn: Turn) -> str:
    load = turn.load
    cpu_s = ", ".join(f"{name} {time_s / load.duration_s:.2f}" for name, time_s in turn.cpu_s.items() if time_s > 0.01)
    return (
        f"{turn.target} round {turn.round}: {load.requests_per_s:,.0f}/s, p50 {1e3 * load.latency_p50_s:.2f} ms, "
        f"p99 {1e3 * load.latency_p99_s:.2f} ms, errors {load.error_count}; cores: {cpu_s}; "
        f"others {turn.disturbance.share:.0%}"
    )


def memory_per_connection_bytes(process: Process, port: int, count: int, sent: bytes, answered: bool) -> float:
    """Private memory that each further open connection costs a process that has served a few already."""
    for connection in open_idle_connections(port, 32, sent, answered):
        connection.close()
    time.sleep(0.3)
    before = process.memory().private_bytes
    connections = open_idle_connections(port, count, sent, answered)
    after = process.memory().private_bytes
    for connection in connections:
        connection.close()
    return (after - before) / count


def measure_memory(processes: ProcessSet, settings: Settings, results: Results) -> None:
    request = post_head(WORKLOAD_FUNCTION, 20) + b"x" * 20
    half_a_request = request[: len(request) // 2]
    cases: list[tuple[str, bytes, bool]] = [
        ("gateway, one request answered", request, True),
        ("gateway, half a request sent", half_a_request, False),
        ("plugin, nothing sent", b"", False),
        ("plugin, half a request sent", half_a_request, False),
    ]
    for number in range(settings.rounds):
        for name, sent, answered in cases:
            with ProcessSet(processes.directory) as fresh:
                server, server_port, http_port = start_gearmand(fresh, settings.gearmand_options)
                start_echo_workers(fresh, server_port, WORKLOAD_FUNCTION, 1)
                process, port = server, http_port
                if name.startswith("gateway"):
                    process, port = start_gateway(fresh, settings.gateway_command, server_port)
                    time.sleep(1.0)
                    at_rest_bytes = process.memory().resident_bytes
                    results.resident_bytes.setdefault("after start", []).append(at_rest_bytes)
                per_connection = memory_per_connection_bytes(process, port, settings.idle_connections, sent, answered)
                results.memory_per_connection_bytes.setdefault(name, []).append(per_connection)
                report_progress(f"memory round {number}: {name}: {per_connection / KIB:.2f} KiB a connection")


def foreground_rows(results: Results) -> list[Row]:
    turns = results.foreground
    valid = not problems_of(turns, "gateway")
    name = "foreground, 64 connections:"
    throughput = against(turns, "gateway", "plugin", requests_per_s)
    p99 = against(turns, "gateway", "plugin", latency_p99_s)
    native = against(turns, "gateway", "native", requests_per_s)
    return [
        at_least(f"{name} throughput against the plugin", throughput, 2.2, TIMES, rates(turns, "plugin"), valid),
        at_most(f"{name} p99 against the plugin", p99, 0.5, TIMES, latencies(turns, "plugin"), valid),
        at_least(f"{name} throughput against a native client", native, 0.9, TIMES, rates(turns, "native"), valid),
    ]


def pipelined_rows(results: Results) -> list[Row]:
    """No bars: how far each gets when the workers are not the limit."""
    turns = results.foreground_pipelined
    name = "foreground, one pipelining worker:"
    throughput = against(turns, "gateway", "plugin", requests_per_s)
    p99 = against(turns, "gateway", "plugin", latency_p99_s)
    native = against(turns, "gateway", "native", requests_per_s)
    return [
        information(f"{name} throughput against the plugin", throughput, TIMES, rates(turns, "plugin")),
        information(f"{name} p99 against the plugin", p99, TIMES, latencies(turns, "plugin")),
        information(f"{name} throughput against a native client", native, TIMES, rates(turns, "native")),
    ]


def background_rows(results: Results) -> list[Row]:
    turns, consumed = results.background, results.background_consumed
    valid = not problems_of(turns, "gateway")
    cpu_us = {
        target: 1e6 * median_of(values_of(turns, target, Turn.cpu_per_request_s)) for target in ("gateway", "nginx")
    }
    cpu = f"gateway {cpu_us['gateway']:.2f} µs, nginx {cpu_us['nginx']:.2f} µs; {rates(turns, 'nginx')}"
    throughput = against(turns, "gateway", "plugin", requests_per_s)
    nginx = against(turns, "gateway", "nginx", Turn.cpu_per_request_s)
    return [
        at_least(
            "background, 64 connections: throughput against the plugin",
            throughput,
            6,
            TIMES,
            rates(turns, "plugin"),
            valid,
        ),
        at_most(
            "background: processor time a request in the gateway",
            [1e6 * value_s for value_s in values_of(turns, "gateway", Turn.cpu_per_request_s)],
            12,
            " µs",
            "",
            valid,
        ),
        at_most("background: processor time a request against nginx `return 200`", nginx, 1.3, TIMES, cpu, valid),
        information(
            "background, while the workers take the jobs: throughput against the plugin",
            against(consumed, "gateway", "plugin", requests_per_s),
            TIMES,
            rates(consumed, "plugin"),
        ),
    ]


def memory_rows(results: Results) -> list[Row]:
    sizes_kib = {
        name: [value / KIB for value in values] for name, values in results.memory_per_connection_bytes.items()
    }
    idle_kib = sizes_kib["gateway, one request answered"]
    plugin_idle_kib = sizes_kib["plugin, nothing sent"]
    half_kib = sizes_kib["gateway, half a request sent"]
    plugin_half_kib = median_of(sizes_kib["plugin, half a request sent"])
    return [
        at_most(
            "idle connection: private memory against the plugin",
            [gateway / plugin for gateway, plugin in zip(idle_kib, plugin_idle_kib, strict=True)],
            0.5,
            TIMES,
            f"gateway after one answer {median_of(idle_kib):.2f} KiB, "
            f"plugin with nothing sent {median_of(plugin_idle_kib):.2f} KiB",
        ),
        at_most("idle keep-alive connection: private memory", idle_kib, 3, " KiB", ""),
        information("half-sent request: private memory", half_kib, " KiB", f"plugin {plugin_half_kib:.2f} KiB"),
    ]


def resident_rows(results: Results) -> list[Row]:
    return [
        at_most(f"process at rest, {name}: resident memory", [size / MIB for size in sizes_bytes], 30, " MiB", "")
        for name, sizes_bytes in results.resident_bytes.items()
    ]


def large_row(results: Results) -> Row:
    ratios = [
        gateway / native for gateway, native in zip(results.large_s["gateway"], results.large_s["native"], strict=True)
    ]
    detail = ", ".join(f"{name} {1e3 * median_of(times_s):.2f} ms" for name, times_s in results.large_s.items())
    return at_most("1 MiB echo, one client: time against a native client", ratios, 1.5, TIMES, detail)


def values_of(turns: list[Turn], target: str, value: Callable[[Turn], float]) -> list[float]:
    """One value a round, in the order of the rounds."""
    return [value(turn) for turn in turns if turn.target == target]


def against(turns: list[Turn], target: str, other: str, value: Callable[[Turn], float]) -> list[float]:
    """Each round's ratio: turns of one round are neighbours in time, and the machine's speed drifts."""
    pairs = zip(values_of(turns, target, value), values_of(turns, other, value), strict=True)
    return [numerator / denominator for numerator, denominator in pairs]


def rates(turns: list[Turn], other: str) -> str:
    medians = {target: median_of(values_of(turns, target, requests_per_s)) for target in ("gateway", other)}
    return ", ".join(f"{target} {median:,.0f}/s" for target, median in medians.items())


def latencies(turns: list[Turn], other: str) -> str:
    medians = {target: median_of(values_of(turns, target, latency_p99_s)) for target in ("gateway", other)}
    return ", ".join(f"{target} {1e3 * median:.2f} ms" for target, median in medians.items())


def requests_per_s(turn: Turn) -> float:
    return turn.load.requests_per_s


def latency_p99_s(turn: Turn) -> float:
    return turn.load.latency_p99_s


def problems_of(turns: list[Turn], target: str | None = None) -> list[str]:
    return [problem for turn in turns if target in (None, turn.target) for problem in turn.problems()]


def rows_of(results: Results) -> list[Row]:
    rows: list[Row] = []
    if results.foreground:
        rows += foreground_rows(results)
        rows += pipelined_rows(results)
    if results.background:
        rows += background_rows(results)
    if results.memory_per_connection_bytes:
        rows += memory_rows(results)
    rows += resident_rows(results)
    if results.large_s:
        rows.append(large_row(results))
    return rows


def versions() -> dict[str, str]:
    return {
        "gatewayx": source_revision(),
        **package_versions("uvloop", "httptools"),
        "gearmand": program_version("gearmand", "--version"),
        "wrk": program_version("wrk", "-v"),
        "nginx": program_version("nginx", "-v"),
    }


def turn_lines(turns: list[Turn]) -> list[list[str]]:
    return [
        [
            turn.target,
            str(turn.round + 1),
            f"{turn.load.requests_per_s:,.0f}",
            f"{1e3 * turn.load.latency_p50_s:.2f}",
            f"{1e3 * turn.load.latency_p99_s:.2f}",
            f"{1e6 * turn.cpu_per_request_s():.2f}" if turn.cpu_s.get(turn.target) else "",
            str(turn.load.error_count),
            f"{turn.disturbance.share:.1%}",
        ]
        for turn in sorted(turns, key=lambda turn: (turn.target, turn.round))
    ]


def markdown_report(description: dict[str, Any], rows: list[Row], results: Results) -> str:
    machine = description["machine"]
    settings = description["settings"]
    header = ("target", "round", "a second", "p50 ms", "p99 ms", "CPU µs a request", "errors", "others' share of CPU")
    parts = [
        "# gatewayx against gearmand's HTTP plugin",
        f"{description['date']}. {machine['cores']} cores ({machine['processor']}), "
        f"{machine['memory_bytes'] / 1024 / MIB:.1f} GiB, Linux {machine['kernel']}, everything on this one machine. "
        + ", ".join(f"{name} {version}" for name, version in description["versions"].items())
        + f". Medians of {settings['rounds']} rounds of {settings['duration_s']:g} s. "
        "What the rows mean: [README](../README.md).",
        measured_rows_markdown(rows),
    ]
    kinds = (
        ("Foreground", results.foreground),
        ("Foreground, one pipelining worker", results.foreground_pipelined),
        ("Background", results.background),
        ("Background, while the workers take the jobs", results.background_consumed),
    )
    for name, turns in kinds:
        if turns:
            parts += [f"## {name}, every round", markdown_table(header, turn_lines(turns))]
    if results.discarded:
        parts.append(
            f"{len(results.discarded)} turns were repeated because others used more than "
            f"{settings['max_disturbance']:.0%} of the machine meanwhile."
        )
    if description["problems"]:
        parts += ["## Wrong answers and errors", "\n".join(f"- {problem}" for problem in description["problems"])]
    return "\n\n".join(parts) + "\n"


def write_reports(directory: Path, settings: Settings, rows: list[Row], results: Results) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    problems = problems_of(
        results.foreground + results.foreground_pipelined + results.background + results.background_consumed
    )
    description: dict[str, Any] = {
        "date": now_text(),
        "machine": machine_description(),
        "versions": versions(),
        "settings": asdict(settings),
        "problems": problems,
    }
    document = {**description, "rows": [asdict(row) for row in rows], "rounds": asdict(results)}
    (directory / "plugin_comparison.json").write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    (directory / "plugin_comparison.md").write_text(markdown_report(description, rows, results))
    print(text_table(rows))
    for problem in problems:
        print(f"problem: {problem}")
    missed = sum(row.passed is False for row in rows)
    print(f"{missed} bars missed" if missed else "all bars met", f"(results in {directory})")


def parse_arguments() -> tuple[Settings, Path, bool]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--duration", type=float, default=5.0, help="seconds of load a turn")
    parser.add_argument("--workers", type=int, default=2, help="libgearman workers")
    parser.add_argument("--output", type=Path, default=BENCHMARKS / "results", help="directory of the results")
    parser.add_argument("--strict", action="store_true", help="exit 1 when a bar is missed")
    parser.add_argument("--only", action="append", choices=SECTIONS, help="measure only this; may be repeated")
    parser.add_argument("--idle-connections", type=int, default=2000)
    parser.add_argument("--large-requests", type=int, default=40, help="1 MiB echoes a round and client")
    parser.add_argument(
        "--max-disturbance", type=float, default=0.05, help="repeat a turn when others used more of the machine"
    )
    parser.add_argument("--gearmand-options", default="-t 4 --hashtable-buckets 1000003")
    parser.add_argument("--gateway-command", default=GATEWAY_COMMAND)
    arguments = parser.parse_args()
    settings = Settings(
        rounds=arguments.rounds,
        duration_s=arguments.duration,
        workers=arguments.workers,
        connections=CONNECTIONS,
        idle_connections=arguments.idle_connections,
        large_payload_bytes=MIB,
        large_requests=arguments.large_requests,
        max_disturbance=arguments.max_disturbance,
        gearmand_options=arguments.gearmand_options,
        gateway_command=arguments.gateway_command,
        sections=tuple(section for section in SECTIONS if section in (arguments.only or SECTIONS)),
    )
    return settings, arguments.output, arguments.strict


def main() -> int:
    settings, output, strict = parse_arguments()
    try:
        require_programs(
            {
                "gearmand": "gearman-job-server",
                "wrk": "wrk",
                "nginx": "nginx-light",
                "cc": "gcc",
                "setpriv": "util-linux",
            }
        )
        raise_open_file_limit(settings.idle_connections + 1000)
        with tempfile.TemporaryDirectory(prefix="plugin-comparison-") as name:
            with ProcessSet(Path(name)) as processes:
                comparison = Comparison(processes, settings)
                comparison.run()
                results = comparison.results
            if "memory" in settings.sections:
                with ProcessSet(Path(name)) as processes:
                    measure_memory(processes, settings, results)
    except BenchmarkError as error:
        print(f"plugin_comparison: {error}", file=sys.stderr)
        return 1
    rows = rows_of(results)
    write_reports(output, settings, rows, results)
    return 1 if strict and any(row.passed is False for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
