"""Many small jobs in a batch beside as many requests of their own: processor time and rate.

    python benchmarks/batch.py [--rounds 5] [--duration 4] [--output benchmarks/results] [--strict]
    python benchmarks/batch.py --instructions [--symbols 20]

Background jobs with 20-byte workloads. Single ones are POSTs of wrk with one thread and 64 kept connections; batches
have 1,000 lines and come over 4 connections (CLIENTS), each of which sends the next when it has the last line's answer.
Each load in its turn goes to one gateway, in front of a gearmand without workers that keeps the jobs, and of a job
server that answers at once. Every line's answer is looked at: it is that of a job that was queued.

The bars, which are medians of the rounds' own ratios: a job in a batch costs at most half the gateway's processor time
of a single one; and batches pass at 2.5 times the rate of single ones, or at what gearmand can take: then its processor
time is told, which is nearly all of a processor.

`--instructions` counts what user space costs with callgrind instead, for a request and for a line.
"""

import argparse
import select
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clients import open_connection
from profile_gateway import Bench, callgrind_command, count_instructions, print_shares, shares
from servers import GATEWAY_COMMAND, start_gateway, start_null_job_server, start_plain_gearmand
from shapes import SMALL, head_format

from gatewayx.net.ports import free_port
from support import (
    BENCHMARKS,
    HOST,
    TIMES,
    BenchmarkError,
    Process,
    ProcessSet,
    Row,
    at_least,
    at_most,
    in_turns,
    information,
    require_programs,
    run_tag,
    run_wrk,
    text_table,
    write_report,
)

CONNECTIONS = 64
CLIENTS = 4
LINES = 1000
QUEUED = b'"status":200,"command":"JOB_CREATED"'
END = b"0\r\n\r\n"
# A gearmand that uses so much of a processor takes no more: one of its threads does all that is done for a job.
ALL_OF_A_PROCESSOR = 0.85


def batch_request() -> bytes:
    """A whole request with LINES jobs."""
    tag = run_tag()
    lines = [f'{{"function":"echo","workload":"{tag}{number:012d}","background":true}}\n' for number in range(LINES)]
    body = "".join(lines)
    return f"POST /v1/batch HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


class BatchClient:
    """One connection that sends one batch after the other."""

    def __init__(self, port: int) -> None:
        self.connection: socket.socket = open_connection(port)
        self.request = batch_request()
        self.queued = 0
        self.tail = b""

    def send(self) -> None:
        """Send a batch; all of the one before was answered."""
        self.queued = 0
        self.tail = b""
        self.connection.sendall(self.request)

    def has_ended(self) -> bool:
        """Read what is here; whether that is all of the answer."""
        received = self.connection.recv(1 << 20)
        if not received:
            raise BenchmarkError("the gateway closed a connection under load")
        # What was cut between two reads is not counted twice: no line is so short.
        data = self.tail + received
        self.queued += data.count(QUEUED) - self.tail.count(QUEUED)
        self.tail = data[-len(QUEUED) + 1 :]
        if not data.endswith(END):
            return False
        if self.queued != LINES:
            raise BenchmarkError(f"{LINES - self.queued} lines of a batch were not queued: {data[-300:]!r}")
        return True


class BatchClients:
    """Some connections that send batches."""

    def __init__(self, port: int, count: int) -> None:
        self.poller = select.epoll()
        self.clients = {}
        for _ in range(count):
            client = BatchClient(port)
            self.clients[client.connection.fileno()] = client
            self.poller.register(client.connection.fileno(), select.EPOLLIN)

    def load(self, goes_on: Callable[[int], bool]) -> int:
        """Send batches as long as it goes on, of so many lines so far; returns how many were answered."""
        lines = 0
        waiting = set(self.clients)
        for client in self.clients.values():
            client.send()
        while waiting:
            events = self.poller.poll(60)
            if not events:
                raise BenchmarkError("a batch was not answered within a minute")
            for descriptor, _ in events:
                if not self.clients[descriptor].has_ended():
                    continue
                lines += LINES
                if goes_on(lines):
                    self.clients[descriptor].send()
                else:
                    waiting.discard(descriptor)
        return lines


@dataclass(frozen=True)
class Turn:
    """What one load has come to."""

    jobs_per_s: float
    gateway_us: float
    """Processor time of the gateway for a job."""
    server_share: float
    """Of one processor, what the job server used."""


class Stand:
    """A gateway in front of a job server, and both loads."""

    def __init__(self, name: str, gateway: Process, port: int, server: Process) -> None:
        self.name = name
        self.gateway = gateway
        self.port = port
        self.server = server
        self.found: dict[str, list[Turn]] = {"single": [], "batch": []}

    def single(self, duration_s: float) -> int:
        """Requests of their own."""
        words = [run_tag(), "head", head_format(SMALL, True, self.port)]
        load = run_wrk(
            f"http://{HOST}:{self.port}/echo", BENCHMARKS / "unique_post.lua", words, CONNECTIONS, duration_s
        )
        if load.error_count:
            raise BenchmarkError(f"errors under load: {load.errors}")
        return load.requests

    def batch(self, duration_s: float) -> int:
        """Batches."""
        ends_s = time.monotonic() + duration_s
        return BatchClients(self.port, CLIENTS).load(lambda _: time.monotonic() < ends_s)

    def turn(self, kind: str, duration_s: float) -> None:
        """Measure one load."""
        load = self.single if kind == "single" else self.batch
        load(0.5 if kind == "batch" else 1.0)
        began_s = time.monotonic()
        gateway_s, server_s = self.gateway.cpu_time_s(), self.server.cpu_time_s()
        jobs = load(duration_s)
        took_s = time.monotonic() - began_s
        turn = Turn(
            jobs / took_s,
            1e6 * (self.gateway.cpu_time_s() - gateway_s) / jobs,
            (self.server.cpu_time_s() - server_s) / took_s,
        )
        self.found[kind].append(turn)
        print(
            f"{self.name}, {kind}: {turn.jobs_per_s:,.0f} jobs/s, {turn.gateway_us:.2f} µs of the gateway a job, "
            f"job server {100 * turn.server_share:.0f} %",
            flush=True,
        )

    def rows(self) -> list[Row]:
        """How batches stand to single requests."""
        pairs = list(zip(self.found["single"], self.found["batch"], strict=True))
        cost = [batch.gateway_us / single.gateway_us for single, batch in pairs]
        rate = [batch.jobs_per_s / single.jobs_per_s for single, batch in pairs]
        shares_used = sorted(batch.server_share for _, batch in pairs)
        used = shares_used[len(shares_used) // 2]
        said = f"the job server used {100 * used:.0f} % of a processor"
        rows = [
            at_most(f"{self.name}: processor time of a job in a batch against a single one", cost, 0.5, TIMES, ""),
            information(f"{self.name}: single", [turn.gateway_us for turn in self.found["single"]], " µs", ""),
            information(f"{self.name}: in a batch", [turn.gateway_us for turn in self.found["batch"]], " µs", ""),
            information(f"{self.name}: single, jobs a second", [turn.jobs_per_s for turn, _ in pairs], "/s", ""),
            information(f"{self.name}: in batches, jobs a second", [turn.jobs_per_s for _, turn in pairs], "/s", ""),
        ]
        title = f"{self.name}: rate of batches against single ones"
        if used >= ALL_OF_A_PROCESSOR:
            return [*rows, information(title, rate, TIMES, f"{said}, and takes no more")]
        return [*rows, at_least(title, rate, 2.5, TIMES, said)]


def measure(arguments: argparse.Namespace) -> tuple[list[Row], dict[str, Any]]:
    """Processor time and rate of both, in turns."""
    with tempfile.TemporaryDirectory(prefix="batch-") as name, ProcessSet(Path(name)) as processes:
        gearmand_port = free_port()
        gearmand = start_plain_gearmand(processes, gearmand_port)
        null, null_port = start_null_job_server(processes)
        stands = [
            Stand("gearmand", *start_gateway(processes, arguments.gateway_command, gearmand_port), gearmand),
            Stand("answered at once", *start_gateway(processes, arguments.gateway_command, null_port), null),
        ]
        for number in range(arguments.rounds):
            print(f"round {number + 1}", flush=True)
            for stand in stands:
                in_turns(
                    [lambda kind=kind, stand=stand: stand.turn(kind, arguments.duration) for kind in stand.found],
                    number,
                )
        rows = [row for stand in stands for row in stand.rows()]
        raw = {
            stand.name: {kind: [vars(turn) for turn in turns] for kind, turns in stand.found.items()}
            for stand in stands
        }
        return rows, raw


def instructions(arguments: argparse.Namespace) -> tuple[list[Row], dict[str, Any]]:
    """What a request and a line cost in user space."""
    raw: dict[str, Any] = {}
    for kind in ("single", "batch"):
        with tempfile.TemporaryDirectory(prefix="batch-") as name, ProcessSet(Path(name)) as processes:
            _, server_port = start_null_job_server(processes)
            command = callgrind_command(Path(name), arguments.gateway_command)
            gateway, port = start_gateway(processes, command, server_port)
            bench = Bench(processes, gateway, port, head_format(SMALL, True, port))
            if kind == "single":
                bench.load(1.0)
                found = count_instructions(bench, lambda bench=bench: bench.load(arguments.duration).requests)
            else:
                clients = BatchClients(port, CLIENTS)
                clients.load(lambda _: False)
                found = count_instructions(
                    bench, lambda clients=clients: clients.load(lambda lines: lines < 40 * LINES)
                )
        components, symbols, jobs = found
        print(f"\n{kind}: {components.total() / jobs:,.0f} instructions a job, of {jobs:,}", flush=True)
        print_shares("by component", shares(components, 1 / jobs)[:12])
        if arguments.symbols:
            print_shares("by function", shares(symbols, 1 / jobs)[: arguments.symbols])
        raw[kind] = {"jobs": jobs, "components": components}
    each = {kind: found["components"].total() / found["jobs"] for kind, found in raw.items()}
    rows = [
        information("single: instructions a job", [each["single"]], "", ""),
        information("batch: instructions a job", [each["batch"]], "", ""),
        information("batch against single", [each["batch"] / each["single"]], TIMES, "system calls are not counted"),
    ]
    return rows, raw


def main() -> int:
    """Measure and report; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--duration", type=float, default=4.0, help="seconds of each load")
    parser.add_argument("--instructions", action="store_true", help="count instructions instead")
    parser.add_argument("--symbols", type=int, default=0, help="with --instructions, show so many functions")
    parser.add_argument("--gateway-command", default=GATEWAY_COMMAND)
    parser.add_argument("--output", type=Path, default=BENCHMARKS / "results", help="directory of the results")
    parser.add_argument("--strict", action="store_true", help="status 1 when a bar is missed")
    arguments = parser.parse_args()
    programs = {"wrk": "wrk", "cc": "gcc"}
    programs |= {"valgrind": "valgrind"} if arguments.instructions else {"gearmand": "gearman-job-server"}
    try:
        require_programs(programs)
        rows, raw = instructions(arguments) if arguments.instructions else measure(arguments)
    except BenchmarkError as error:
        print(f"batch: {error}", file=sys.stderr)
        return 1
    print(text_table(rows))
    settings = {"rounds": arguments.rounds, "duration_s": arguments.duration, "lines": LINES, "clients": CLIENTS}
    name = "batch_instructions" if arguments.instructions else "batch"
    write_report(arguments.output, name, "Jobs in batches and one by one", rows, settings, raw)
    return 1 if arguments.strict and any(row.passed is False for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
