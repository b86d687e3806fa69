"""One, two and four worker processes, and how evenly the kernel gives them their clients.

The gateway stands in front of a job server that answers every submit at once (null_job_server.c), with 64 connections
of wrk for each worker process, background jobs of 20 unique bytes. Processor time is that of all its processes.
Instructions are user-space ones by callgrind, of all worker processes: the difference of two runs by the difference of
their requests, so that what a start takes does not count. Requests a second from one to two worker processes grow as
far as the cores allow, which wrk and the job server use as well. Imbalance is the busiest place's connections by the
mean, of connections that are opened at once and kept, for which the kernel chooses a place each (SO_REUSEPORT).

A request with a client's unique is relayed if another place owns that, as one of two places does for one half of them.
What a relayed one takes of both processes comes from one client's requests, each with a unique of its own, one after
the other, which is the dearest: nothing gathers in a turn.

    python benchmarks/workers.py [--rounds 2] [--duration 2] [--output benchmarks/results]
"""

import re
import socket
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from claims import FUNCTION, Bars, Found, Options, main
from clients import KeptConnections
from servers import GATEWAY_COMMAND, start_gateway, start_null_job_server
from shapes import OWN_UNIQUES, SMALL, RequestSeries, head_format

from support import (
    BENCHMARKS,
    HOST,
    TIMES,
    BenchmarkError,
    Load,
    Process,
    ProcessSet,
    Row,
    at_most,
    information,
    median_of,
    run_tag,
    run_wrk,
)

COUNTS = (1, 2, 4)
CONNECTIONS_EACH = 64
IMBALANCE_PLACES = 4
IMBALANCE_CONNECTIONS = (64, 1024)
# Callgrind slows the gateway down: requests of a short and of a long run.
COUNTED_S = (2.0, 6.0)
COUNTED_REQUESTS = (640, 8640)
START_TIMEOUT_S = 120.0


def command_for(count: int) -> str:
    """`serve` with so many worker processes."""
    return f"{GATEWAY_COMMAND} --workers {count}"


def load(port: int, connections: int, duration_s: float, threads: int = 1) -> Load:
    """Background jobs on so many connections."""
    arguments = [run_tag(), "head", head_format(SMALL, True, port)]
    url = f"http://{HOST}:{port}/{FUNCTION}"
    found = run_wrk(url, BENCHMARKS / "unique_post.lua", arguments, connections, duration_s, threads)
    if any(found.errors.values()):
        raise BenchmarkError(f"wrk had errors: {found.errors}")
    return found


def throughput(options: Options) -> dict[int, list[tuple[float, float]]]:
    """By worker processes: requests a second and processor time a request, of each round."""
    found: dict[int, list[tuple[float, float]]] = {count: [] for count in COUNTS}
    with tempfile.TemporaryDirectory() as directory, ProcessSet(Path(directory)) as processes:
        _, server_port = start_null_job_server(processes)
        gateways = {count: start_gateway(processes, command_for(count), server_port) for count in COUNTS}
        for number in range(options.rounds):
            for count in COUNTS if number % 2 else COUNTS[::-1]:
                gateway, port = gateways[count]
                before_s = gateway.cpu_time_s()
                measured = load(port, CONNECTIONS_EACH * count, options.duration_s)
                used_s = gateway.cpu_time_s() - before_s
                found[count].append((measured.requests_per_s, used_s / measured.requests))
                print(f"{count} worker processes: {measured.requests_per_s:,.0f}/s", flush=True)
    return found


def many_clients(count: int, duration_s: float) -> Callable[[int], int]:
    """A load of so many worker processes' clients, which returns the number of requests."""
    return lambda port: load(port, CONNECTIONS_EACH * count, duration_s).requests


def one_client(requests: int) -> Callable[[int], int]:
    """A load of requests with uniques of their own, one after the other."""

    def ask(port: int) -> int:
        return KeptConnections(port, 1, RequestSeries(head_format(OWN_UNIQUES, True, port), run_tag())).load(requests)

    return ask


def instructions(count: int, loads: Sequence[Callable[[int], int]]) -> float:
    """Of user space a request, of so many worker processes together, by a short and a long load."""
    totals: list[tuple[int, int]] = []
    for ask in loads:
        with tempfile.TemporaryDirectory() as directory, ProcessSet(Path(directory)) as processes:
            _, server_port = start_null_job_server(processes)
            output = f"--callgrind-out-file={directory}/callgrind.out.%p"
            gateway, port = start_slowly(
                processes, f"valgrind --tool=callgrind {output} {command_for(count)}", server_port
            )
            requests = ask(port)
            master = gateway.pid
            processes.stop(gateway)
            dumps = [path for path in Path(directory).glob("callgrind.out.*") if path.suffix != f".{master}"]
            if len(dumps) != count:
                raise BenchmarkError(f"{len(dumps)} worker processes were counted, not {count}")
            totals.append((sum(total_of(path) for path in dumps), requests))
    (short, few), (long, many) = totals
    return (long - short) / (many - few)


def start_slowly(processes: ProcessSet, command: str, server_port: int) -> tuple[Process, int]:
    """A gateway whose worker processes all have begun, however long that takes."""
    gateway, port = start_gateway(processes, command, server_port)
    ends_s = time.monotonic() + START_TIMEOUT_S
    while b"listens on" not in gateway.log.read_bytes():
        if time.monotonic() > ends_s:
            raise BenchmarkError("the gateway did not start under callgrind")
        time.sleep(0.2)
    return gateway, port


def total_of(dump: Path) -> int:
    """All instructions of a callgrind dump."""
    found = re.search(r"^(?:summary|totals): (\d+)", dump.read_text(errors="replace"), re.MULTILINE)
    if found is None:
        raise BenchmarkError(f"{dump.name} has no sum")
    return int(found[1])


def imbalance(options: Options) -> dict[int, list[float]]:
    """By connections: the busiest place's by the mean, of each round."""
    found: dict[int, list[float]] = {count: [] for count in IMBALANCE_CONNECTIONS}
    with tempfile.TemporaryDirectory() as directory, ProcessSet(Path(directory)) as processes:
        _, server_port = start_null_job_server(processes)
        gateway, port = start_gateway(processes, command_for(IMBALANCE_PLACES), server_port)
        workers = [pid for pid in gateway.members() if pid != gateway.pid]
        for count in IMBALANCE_CONNECTIONS:
            for _ in range(5 * options.rounds):
                at_rest = [descriptors(pid) for pid in workers]
                with ExitStack() as stack:
                    for _ in range(count):
                        stack.enter_context(socket.create_connection((HOST, port)))
                    time.sleep(0.3)
                    held = [descriptors(pid) - before for pid, before in zip(workers, at_rest, strict=True)]
                time.sleep(0.3)
                found[count].append(max(held) * len(held) / count)
    return found


def descriptors(pid: int) -> int:
    """What a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def measure(processes: ProcessSet, options: Options) -> Found:
    """All of it."""
    rates = throughput(options)
    counted = {count: instructions(count, [many_clients(count, each) for each in COUNTED_S]) for count in COUNTS}
    at_home, half_away = (instructions(count, [one_client(each) for each in COUNTED_REQUESTS]) for count in (1, 2))
    away = 2 * half_away - at_home
    uneven = imbalance(options)
    rows: list[Row] = []
    for count in COUNTS:
        name = f"{count} worker process{'es' if count > 1 else ''}"
        rows.append(information(f"{name}: throughput", [rate for rate, _ in rates[count]], "/s", ""))
        rows.append(
            information(f"{name}: processor time a request", [1e6 * each for _, each in rates[count]], "µs", "")
        )
        rows.append(information(f"{name}: instructions a request", [counted[count]], "", ""))
        if count > 1:
            rows.append(at_most(f"{name}: instructions against one", [counted[count] / counted[1]], 1.05, TIMES, ""))
    rows.append(information("a request with a unique, at its owner: instructions", [at_home], "", ""))
    rows.append(information("a relayed request: instructions of both processes", [away], "", ""))
    rows.append(at_most("a relayed request: instructions against one that is not", [away / at_home], 2.2, TIMES, ""))
    ratio = [two / one for (one, _), (two, _) in zip(rates[1], rates[2], strict=True)]
    rows.append(information("throughput of two against one", ratio, TIMES, ""))
    for connections, found in uneven.items():
        rows.append(
            information(
                f"{connections} connections, {IMBALANCE_PLACES} places: the busiest by the mean", found, TIMES, ""
            )
        )
    panels = [
        Bars(
            "Throughput",
            "requests a second",
            {"gatewayx": {str(count): median_of([rate for rate, _ in rates[count]]) for count in COUNTS}},
        ),
        Bars("Instructions", "a request", {"gatewayx": {str(count): counted[count] for count in COUNTS}}),
    ]
    return Found(
        rows, panels, {"rates": rates, "instructions": counted, "relayed": (at_home, away), "imbalance": uneven}
    )


if __name__ == "__main__":
    main("workers", "Worker processes", __doc__ or "", {"wrk": "wrk", "cc": "gcc", "valgrind": "valgrind"}, measure)
