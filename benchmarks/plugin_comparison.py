"""gatewayx against gearmand's HTTP plugin, nginx and a native client, on one machine in one run.

    python benchmarks/plugin_comparison.py [--rounds 3] [--duration 5] [--output benchmarks/results] [--strict]

Starts one gearmand with its HTTP plugin, workers, the gateway and nginx, all on loopback, and measures them in turns.
What every row means is in benchmarks/README.md. A turn that others on the machine disturbed is repeated.
"""

import argparse
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from clients import ClosingClient, KeepAliveClient, NativeSequentialClient, open_idle_connections, post_head
from plugin_report import (
    MANY_CONNECTIONS,
    Results,
    Settings,
    rows_of,
    write_reports,
)
from servers import (
    GATEWAY_COMMAND,
    start_echo_workers,
    start_gateway,
    start_gearmand,
    start_nginx,
    start_plain_gearmand,
    start_raw_worker,
)
from turns import CONNECTIONS, Turn, native_turn, sequential_turn, undisturbed, wrk_turn

from gatewayx.net.ports import free_port
from support import (
    BENCHMARKS,
    KIB,
    MIB,
    REPOSITORY,
    BenchmarkError,
    Process,
    ProcessSet,
    function_status,
    in_turns,
    median_of,
    raise_open_file_limit,
    require_programs,
    run_tag,
    source_revision,
    wait_until_drained,
)

WORKLOAD_FUNCTION = "echo"
QUEUE_FUNCTION = "queue"
LARGE_FUNCTION = "echo-large"
SINGLE_FUNCTION = "echo-single"
PIPELINED_FUNCTION = "echo-pipelined"
PIPELINED_GRABS = 16
MAX_REPEATS = 8
WARM_UP_S = 1.0
SECTIONS = ("foreground", "background", "single", "memory", "large", "against")
# Those that share one gearmand and one gateway.
SHARED = ("foreground", "background", "single", "large")
WITH_NGINX = ("gateway", "nginx")
Turns = list[Callable[[], None]]


def report_progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Comparison:
    """The servers of the load rows, started once, and the turns against them."""

    def __init__(self, processes: ProcessSet, settings: Settings, results: Results) -> None:
        self.settings = settings
        self.results = results
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
                many = self.results.background_many
                turns = self._background_turns(number, self.settings.duration_s, many, MANY_CONNECTIONS, WITH_NGINX)
                in_turns(turns, number)
                in_turns(self._consumed_turns(number), number)
        if "single" in self.settings.sections:
            start_echo_workers(self._processes, self._server_port, SINGLE_FUNCTION, 1)
            for number in range(self.settings.rounds):
                in_turns(self._single_turns(number), number)
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
        turn = partial(self._http_turn, background=False, function=function)
        measures = [
            partial(turn, "plugin", round_number, duration_s),
            partial(turn, "gateway", round_number, duration_s),
            partial(self._native_turn, round_number, duration_s, function, self.settings.connections),
        ]
        return [partial(self._undisturbed, kept, measure) for measure in measures]

    def _background_turns(
        self,
        round_number: int,
        duration_s: float,
        kept: list[Turn] | None = None,
        connections: int = CONNECTIONS,
        targets: Sequence[str] = ("plugin", "gateway", "nginx"),
    ) -> Turns:
        turn = partial(self._http_turn, background=True, function=QUEUE_FUNCTION, connections=connections)
        measures = [partial(turn, target, round_number, duration_s) for target in targets]
        return [partial(self._undisturbed, kept, measure) for measure in measures]

    def _consumed_turns(self, round_number: int) -> Turns:
        """Background jobs that the libgearman workers take while they are submitted."""
        turn = partial(self._http_turn, background=True, function=WORKLOAD_FUNCTION)
        measures = [partial(turn, target, round_number, self.settings.duration_s) for target in ("plugin", "gateway")]
        return [partial(self._undisturbed, self.results.background_consumed, measure) for measure in measures]

    def _single_turns(self, round_number: int) -> Turns:
        duration_s = self.settings.duration_s
        kinds: dict[str, type[KeepAliveClient | ClosingClient]] = {"gateway": KeepAliveClient, "plugin": ClosingClient}
        measures = []
        for target, kind in kinds.items():
            connect = partial(kind, self._ports[target], SINGLE_FUNCTION)
            measures.append(partial(sequential_turn, self._processes, target, round_number, connect, duration_s))
        measures.append(partial(self._native_turn, round_number, duration_s, SINGLE_FUNCTION, 1))
        return [partial(self._undisturbed, self.results.single, measure) for measure in measures]

    def _undisturbed(self, kept: list[Turn] | None, measure: Callable[[], Turn]) -> None:
        """A turn that counts when there is a list of those; what warms up is not repeated."""
        repeats = MAX_REPEATS if kept is not None else 0
        turn, discarded = undisturbed(self._processes, self.settings.max_disturbance, repeats, measure)
        if kept is not None:
            kept.append(turn)
            self.results.discarded += discarded

    def _http_turn(
        self,
        target: str,
        round_number: int,
        duration_s: float,
        background: bool,
        function: str,
        connections: int = CONNECTIONS,
    ) -> Turn:
        kind = "background" if background else "foreground"
        # nginx answers nothing that could be compared.
        port, check = self._ports[target], target != "nginx"
        turn = wrk_turn(self._processes, target, round_number, port, function, [kind], connections, duration_s, check)
        if function == QUEUE_FUNCTION and target != "nginx":
            turn.queued_jobs = function_status(self._server_port, QUEUE_FUNCTION).jobs
            self._drain_queue()
        wait_until_drained(self._server_port, function)
        return turn

    def _native_turn(self, round_number: int, duration_s: float, function: str, in_flight: int) -> Turn:
        turn = native_turn(self._processes, round_number, self._server_port, function, in_flight, duration_s)
        wait_until_drained(self._server_port, function)
        return turn

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


def memory_per_connection_bytes(
    process: Process, port: int, filling: int, count: int, answered: bytes, unanswered: bytes
) -> float:
    """Private memory that each further open connection costs a process that holds `filling` ones already.

    Each has had an answer to the first bytes, if any, and has then sent the second ones.
    """

    def opened(number: int) -> list[socket.socket]:
        connections = open_idle_connections(port, number, answered, bool(answered))
        for connection in connections:
            connection.sendall(unanswered)
        time.sleep(0.5)
        return connections

    connections = opened(filling)
    before = process.memory().private_bytes
    connections += opened(count)
    after = process.memory().private_bytes
    for connection in connections:
        connection.close()
    return (after - before) / count


def measure_memory(processes: ProcessSet, settings: Settings, results: Results) -> None:
    request = post_head(WORKLOAD_FUNCTION, 20) + b"x" * 20
    half_a_head = request[: len(request) // 2]
    cases: list[tuple[str, bytes, bytes]] = [
        ("gateway, one request answered", request, b""),
        ("gateway, one request answered, half a head sent", request, half_a_head),
        ("plugin, nothing sent", b"", b""),
        ("plugin, half a head sent", b"", half_a_head),
    ]
    filling, count = settings.filling_connections, settings.idle_connections
    options = f"{settings.gearmand_options} --file-descriptors {filling + count + 1000}"
    for number in range(settings.rounds):
        for name, answered, unanswered in cases:
            with ProcessSet(processes.directory) as fresh:
                server, server_port, http_port = start_gearmand(fresh, options)
                start_echo_workers(fresh, server_port, WORKLOAD_FUNCTION, 1)
                process, port = server, http_port
                if name.startswith("gateway"):
                    process, port = start_gateway(fresh, settings.gateway_command, server_port)
                    time.sleep(1.0)
                    at_rest_bytes = process.memory().resident_bytes
                    results.resident_bytes.setdefault("after start", []).append(at_rest_bytes)
                each_bytes = memory_per_connection_bytes(process, port, filling, count, answered, unanswered)
                results.memory_per_connection_bytes.setdefault(name, []).append(each_bytes)
                report_progress(f"memory round {number}: {name}: {each_bytes / KIB:.2f} KiB a connection")


def measure_against(processes: ProcessSet, settings: Settings, results: Results, other: Path) -> None:
    """The gateway of these sources and of others, in turns, each with a gearmand and workers of its own."""
    clones = {"gateway": REPOSITORY, "before": other}
    for number in range(settings.rounds):
        in_turns(
            [partial(against_turn, processes, settings, results, number, *clone) for clone in clones.items()], number
        )


def against_turn(
    processes: ProcessSet, settings: Settings, results: Results, number: int, target: str, clone: Path
) -> None:
    with ProcessSet(processes.directory) as fresh:
        server_port = free_port()
        start_plain_gearmand(fresh, server_port, settings.gearmand_options)
        start_echo_workers(fresh, server_port, WORKLOAD_FUNCTION, settings.workers)
        start_echo_workers(fresh, server_port, SINGLE_FUNCTION, 1)
        gateway, port = start_gateway(fresh, settings.gateway_command, server_port, clone, target)
        time.sleep(1.0)
        resident_bytes = gateway.memory().resident_bytes

        def load(kind: str, function: str, duration_s: float) -> Turn:
            turn = wrk_turn(fresh, target, number, port, function, [kind], CONNECTIONS, duration_s, check=True)
            if kind == "background":
                turn.queued_jobs = function_status(server_port, function).jobs
            return turn

        connect = partial(KeepAliveClient, port, SINGLE_FUNCTION)
        load("foreground", WORKLOAD_FUNCTION, WARM_UP_S)
        duration_s = settings.duration_s
        before = results.before
        kinds: list[tuple[list[Turn], Callable[[], Turn]]] = [
            (before.single, lambda: sequential_turn(fresh, target, number, connect, duration_s)),
            (before.foreground, lambda: load("foreground", WORKLOAD_FUNCTION, duration_s)),
            # Its jobs stay in the queue, so it is the last, and a turn that is repeated has a function of its own.
            (before.background, lambda: load("background", f"{QUEUE_FUNCTION}-{run_tag()}", duration_s)),
        ]
        for kept, measure in kinds:
            turn, discarded = undisturbed(fresh, settings.max_disturbance, MAX_REPEATS, measure)
            kept.append(turn)
            results.discarded += discarded
        before.resident_bytes.setdefault(target, []).append(resident_bytes)


def parse_arguments() -> tuple[Settings, argparse.Namespace]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--duration", type=float, default=5.0, help="seconds of load a turn")
    parser.add_argument("--workers", type=int, default=2, help="libgearman workers")
    parser.add_argument("--output", type=Path, default=BENCHMARKS / "results", help="directory of the results")
    parser.add_argument("--strict", action="store_true", help="exit 1 when a bar is missed")
    parser.add_argument("--only", action="append", choices=SECTIONS, help="measure only this; may be repeated")
    parser.add_argument("--idle-connections", type=int, default=2000, help="whose memory is measured")
    parser.add_argument("--filling-connections", type=int, default=4000, help="held open before them")
    parser.add_argument("--large-requests", type=int, default=40, help="1 MiB echoes a round and client")
    parser.add_argument(
        "--max-disturbance", type=float, default=0.05, help="repeat a turn when others used more of the machine"
    )
    parser.add_argument("--gearmand-options", default="-t 4")
    parser.add_argument("--gateway-command", default=GATEWAY_COMMAND)
    parser.add_argument(
        "--against", type=Path, metavar="DIRECTORY", help="a built clone of another commit, to compare the gateway with"
    )
    arguments = parser.parse_args()
    sections = tuple(section for section in SECTIONS if section in (arguments.only or SECTIONS))
    if arguments.against is None:
        if arguments.only and "against" in arguments.only:
            parser.error("--only against needs --against DIRECTORY")
        sections = tuple(section for section in sections if section != "against")
    elif not (arguments.against / "src" / "gatewayx").is_dir():
        parser.error(f"no sources of a gateway in {arguments.against}")
    settings = Settings(
        rounds=arguments.rounds,
        duration_s=arguments.duration,
        workers=arguments.workers,
        connections=CONNECTIONS,
        idle_connections=arguments.idle_connections,
        filling_connections=arguments.filling_connections,
        large_payload_bytes=MIB,
        large_requests=arguments.large_requests,
        max_disturbance=arguments.max_disturbance,
        gearmand_options=arguments.gearmand_options,
        gateway_command=arguments.gateway_command,
        against=source_revision(arguments.against) if arguments.against else "",
        sections=sections,
    )
    return settings, arguments


def main() -> int:
    settings, arguments = parse_arguments()
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
        raise_open_file_limit(settings.idle_connections + settings.filling_connections + 2000)
        with tempfile.TemporaryDirectory(prefix="plugin-comparison-") as name:
            results = Results()
            if set(SHARED) & set(settings.sections):
                with ProcessSet(Path(name)) as processes:
                    Comparison(processes, settings, results).run()
            if "memory" in settings.sections:
                with ProcessSet(Path(name)) as processes:
                    measure_memory(processes, settings, results)
            if "against" in settings.sections:
                with ProcessSet(Path(name)) as processes:
                    measure_against(processes, settings, results, arguments.against.absolute())
    except BenchmarkError as error:
        print(f"plugin_comparison: {error}", file=sys.stderr)
        return 1
    rows = rows_of(results)
    write_reports(arguments.output, settings, rows, results)
    return 1 if arguments.strict and any(row.passed is False for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
