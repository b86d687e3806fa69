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
from functools import partial
from pathlib import Path

from clients import ClosingClient, KeepAliveClient, NativeSequentialClient, open_idle_connections, post_head
from plugin_report import (
    CONNECTIONS,
    Results,
    Settings,
    Turn,
    describe,
    rows_of,
    write_reports,
)
from servers import (
    GATEWAY_COMMAND,
    start_echo_workers,
    start_gateway,
    start_gearmand,
    start_nginx,
    start_raw_worker,
)

from support import (
    BENCHMARKS,
    HOST,
    KIB,
    MIB,
    AnswerChecker,
    BenchmarkError,
    Load,
    Process,
    ProcessSet,
    Watch,
    function_status,
    in_turns,
    median_of,
    raise_open_file_limit,
    require_programs,
    run_command,
    run_tag,
    run_wrk,
    wait_until_drained,
    wait_until_quiet,
)

WORKLOAD_FUNCTION = "echo"
QUEUE_FUNCTION = "queue"
LARGE_FUNCTION = "echo-large"
PIPELINED_FUNCTION = "echo-pipelined"
PIPELINED_GRABS = 16
MAX_REPEATS = 8
WARM_UP_S = 1.0
SECTIONS = ("foreground", "background", "memory", "large")
Turns = list[Callable[[], None]]


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
