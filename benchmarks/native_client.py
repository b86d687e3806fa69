"""The native baseline: one process that keeps foreground jobs in flight on pipelined Gearman connections.

The most a gateway could do if HTTP cost nothing, so it is built to leave gearmand and the workers as the limit: plain
sockets and epoll, everything that arrived parsed in one loop, one send for all the jobs that took its place, one clock
reading for a batch, garbage collection off. Every job has a workload and a unique of its own, and a result that is
not its own workload counts as wrong (the workers echo).

Prints one line of JSON: jobs a second and latency percentiles, from the submit's send to the arrival of the result.
"""

import argparse
import gc
import json
import select
import socket
import sys
import time
from dataclasses import asdict, dataclass

from packets import HEADER, REQUEST_MAGIC, PacketType

RECEIVE_BYTES = 256 * 1024
WORKLOAD_BYTES = 20
ANSWER_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Outcome:
    """What one run of the native client measured."""

    duration_s: float
    jobs: int
    jobs_per_s: float
    wrong_results: int
    latency_p50_s: float
    latency_p99_s: float
    latency_max_s: float


class PipelinedConnection:
    """One connection to the job server that always has the same number of jobs in flight."""

    def __init__(self, host: str, port: int, function: str, run_tag: str) -> None:
        self.socket = socket.create_connection((host, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.latencies_s: list[float] = []
        self.wrong_results = 0
        self._run_tag = run_tag.encode()
        self._submitted = 0
        self._unread = b""
        # JOB_CREATED answers come in the order of the submits; a job is known by its handle from then on.
        self._awaiting_handle: list[tuple[bytes, float]] = []
        self._in_flight: dict[bytes, tuple[bytes, float]] = {}
        # Every submit has the same size, so a template with one hole makes the whole packet.
        unique_and_workload_bytes = 2 * WORKLOAD_BYTES
        data_bytes = len(function) + 1 + unique_and_workload_bytes + 1
        header = HEADER.pack(REQUEST_MAGIC, PacketType.SUBMIT_JOB, data_bytes)
        self._submit_start = header + function.encode() + b"\0"

    def submit(self, count: int) -> None:
        """Sends `count` new jobs in one write."""
        packets = []
        submitted_at_s = time.perf_counter()
        for number in range(self._submitted, self._submitted + count):
            workload = b"%b%012d" % (self._run_tag, number)
            packets.append(b"%b%b\0%b" % (self._submit_start, workload, workload))
            self._awaiting_handle.append((workload, submitted_at_s))
        self._submitted += count
        self.socket.sendall(b"".join(packets))

    def receive(self) -> int:
        """Reads what has arrived and returns how many jobs ended in it."""
        received = self.socket.recv(RECEIVE_BYTES)
        if not received:
            raise ConnectionError("the job server closed the connection")
        now_s = time.perf_counter()
        data = self._unread + received if self._unread else received
        end = len(data)
        start = 0
        completed = 0
        created = 0
        while end - start >= HEADER.size:
            _, packet_type, data_bytes = HEADER.unpack_from(data, start)
            body_start = start + HEADER.size
            next_start = body_start + data_bytes
            if next_start > end:
                break
            if packet_type == PacketType.JOB_CREATED:
                self._in_flight[data[body_start:next_start]] = self._awaiting_handle[created]
                created += 1
            elif packet_type == PacketType.WORK_COMPLETE:
                handle, _, result = data[body_start:next_start].partition(b"\0")
                workload, submitted_at_s = self._in_flight.pop(handle)
                self.latencies_s.append(now_s - submitted_at_s)
                if result != workload:
                    self.wrong_results += 1
                completed += 1
            else:
                raise ConnectionError(f"unexpected packet of type {packet_type}: {data[body_start:next_start]!r}")
            start = next_start
        del self._awaiting_handle[:created]
        self._unread = data[start:]
        return completed


def run(connections: list[PipelinedConnection], in_flight: int, duration_s: float) -> Outcome:
    """Keeps `in_flight` jobs outstanding over all connections for `duration_s` seconds."""
    poller = select.epoll()
    by_descriptor = {connection.socket.fileno(): connection for connection in connections}
    for descriptor in by_descriptor:
        poller.register(descriptor, select.EPOLLIN)
    started_at_s = time.perf_counter()
    for connection in connections:
        connection.submit(in_flight // len(connections))
    jobs = 0
    while time.perf_counter() - started_at_s < duration_s:
        events = poller.poll(ANSWER_TIMEOUT_S)
        if not events:
            raise TimeoutError(f"no result within {ANSWER_TIMEOUT_S} s")
        for descriptor, _ in events:
            connection = by_descriptor[descriptor]
            completed = connection.receive()
            jobs += completed
            if completed:
                connection.submit(completed)
    elapsed_s = time.perf_counter() - started_at_s
    latencies_s = sorted(latency_s for connection in connections for latency_s in connection.latencies_s)
    return Outcome(
        duration_s=elapsed_s,
        jobs=jobs,
        jobs_per_s=jobs / elapsed_s,
        wrong_results=sum(connection.wrong_results for connection in connections),
        latency_p50_s=latencies_s[len(latencies_s) // 2],
        latency_p99_s=latencies_s[len(latencies_s) * 99 // 100],
        latency_max_s=latencies_s[-1],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default="127.0.0.1:4730", metavar="HOST:PORT")
    parser.add_argument("--function", default="echo")
    parser.add_argument("--connections", type=int, default=2)
    parser.add_argument("--in-flight", type=int, default=64, help="jobs outstanding, over all connections")
    parser.add_argument("--duration", type=float, default=5.0, help="seconds")
    parser.add_argument("--run-tag", required=True, help="seven characters that no other run on this server uses")
    arguments = parser.parse_args()
    if len(arguments.run_tag) != WORKLOAD_BYTES - 13:
        parser.error("--run-tag must have seven characters")
    host, _, port = arguments.server.rpartition(":")
    connections = [
        PipelinedConnection(host, int(port), arguments.function, f"{arguments.run_tag}{number}")
        for number in range(arguments.connections)
    ]
    gc.disable()
    outcome = run(connections, arguments.in_flight, arguments.duration)
    json.dump(asdict(outcome), sys.stdout)
    print()


if __name__ == "__main__":
    main()
