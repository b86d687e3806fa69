"""How soon the admin address answers: at rest, while all worker processes are flooded or stopped, and while others ask.

    python benchmarks/admin.py [--questions 500] [--output benchmarks/results] [--strict]

A gateway with as many worker processes as there are processors, in front of a job server that answers at once. One
client asks /livez, /readyz, /status and /metrics in turns, a connection for each question, one every 10 ms whether or
not the last one was answered late. Flooded: two threads of wrk with 256 connections to the gateway, more than the
machine has room for, and 30 connections that send malformed requests. Stopped: SIGSTOP to every worker process.
Scraped: /metrics is asked for in both forms every 0.3 s, and before each time every declared function has jobs. The
client needs a processor as well, so what it measures is the answer and its own waiting; `--client-priority` lets it go
first. As root the admin process has a higher priority than the others, as docs/admin.md tells.

The bar is 50 ms for 99 of 100 answers of each path.
"""

import argparse
import contextlib
import http.client
import json
import os
import re
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from servers import start_gateway, start_null_job_server

from gatewayx.net.ports import free_port
from support import (
    BENCHMARKS,
    HOST,
    BenchmarkError,
    ProcessSet,
    Row,
    at_most,
    information,
    require_programs,
    run_tag,
    run_wrk,
    text_table,
    write_report,
)

PATHS = ("/livez", "/readyz", "/status", "/metrics")
BAR_MS = 50.0
EVERY_S = 0.01
FLOOD_CONNECTIONS = 256
MALFORMED_CONNECTIONS = 30
# They are declared, so /metrics has series of their own for them, as many as there can be.
FUNCTION = "echo"
FUNCTIONS = [FUNCTION, *(f"function-{number}" for number in range(99))]
SCRAPE_EVERY_S = 0.3
FORMS = ("text/plain;version=0.0.4", "application/openmetrics-text;version=1.0.0")


def ask(port: int, path: str, accept: str = "*/*") -> tuple[float, bytes]:
    """How long one answer took, in seconds, from the connect on; and the answer."""
    head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
    began_s = time.perf_counter()
    with socket.create_connection((HOST, port), timeout=10) as connection:
        connection.sendall(head.encode())
        answer = b""
        while piece := connection.recv(1 << 20):
            answer += piece
    return time.perf_counter() - began_s, answer


def measure(port: int, questions: int, expected: Callable[[str], int]) -> dict[str, list[float]]:
    """Milliseconds of each answer, by path; every answer must have the status that is expected of its path."""
    found: dict[str, list[float]] = {path: [] for path in PATHS}
    due_s = time.perf_counter()
    for _ in range(questions):
        for path in PATHS:
            time.sleep(max(0.0, due_s - time.perf_counter()))
            due_s += EVERY_S
            took_s, answer = ask(port, path)
            status = int(answer[9:12] or 0)
            if status != expected(path):
                raise BenchmarkError(f"{path} was answered {status}: {answer[:200]!r}")
            found[path].append(1000 * took_s)
    return found


@contextlib.contextmanager
def flooded(port: int, seconds: float) -> Iterator[list[Any]]:
    """Everything is thrown at the gateway's own address meanwhile."""
    ending = threading.Event()
    loads: list[Any] = []

    def load() -> None:
        url = f"http://{HOST}:{port}/{FUNCTION}"
        loads.append(run_wrk(url, BENCHMARKS / "unique_post.lua", [run_tag()], FLOOD_CONNECTIONS, seconds, threads=2))

    def malformed() -> None:
        while not ending.is_set():
            with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=5) as connection:
                connection.sendall(b"nonsense\r\n\r\n" * 10)
                connection.recv(4096)

    threads = [
        threading.Thread(target=load),
        *(threading.Thread(target=malformed) for _ in range(MALFORMED_CONNECTIONS)),
    ]
    for thread in threads:
        thread.start()
    # wrk connects.
    time.sleep(1.0)
    try:
        yield loads
    finally:
        ending.set()
        for thread in threads:
            thread.join()


@contextlib.contextmanager
def stopped(port: int) -> Iterator[None]:
    """Every worker process is stopped, and the gateway knows it."""
    workers = [worker["pid"] for worker in json.loads(ask(port, "/status")[1].partition(b"\r\n\r\n")[2])["workers"]]
    for process_id in workers:
        os.kill(process_id, signal.SIGSTOP)
    try:
        time.sleep(4.0)
        yield
    finally:
        for process_id in workers:
            os.kill(process_id, signal.SIGCONT)


@contextlib.contextmanager
def scraped(port: int, admin_port: int) -> Iterator[None]:
    """Others ask for /metrics meanwhile, and find all of it changed."""
    ending = threading.Event()

    def scrape() -> None:
        while not ending.wait(SCRAPE_EVERY_S):
            for function in FUNCTIONS:
                connection.request("POST", f"/{function}", b"x")
                connection.getresponse().read()
            for form in FORMS:
                ask(admin_port, "/metrics", form)

    with contextlib.closing(http.client.HTTPConnection(HOST, port, timeout=10)) as connection:
        thread = threading.Thread(target=scrape)
        thread.start()
        try:
            yield
        finally:
            ending.set()
            thread.join()


def rows_of(state: str, found: dict[str, list[float]]) -> list[Row]:
    """A row of the median and one of the 99th percentile for each path."""
    rows = []
    for path, times in found.items():
        ordered = sorted(times)
        rows.append(information(f"{state}, {path}: median", [ordered[len(ordered) // 2]], "ms", ""))
        rows.append(at_most(f"{state}, {path}: p99", [ordered[len(ordered) * 99 // 100]], BAR_MS, "ms", ""))
        rows.append(information(f"{state}, {path}: longest", [ordered[-1]], "ms", ""))
    return rows


def proportional_bytes(process_id: int) -> int:
    """What a process has of the memory, of shared pages its part (Pss)."""
    rollup = Path(f"/proc/{process_id}/smaps_rollup").read_text()
    return int(re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)[1]) * 1024  # type: ignore[index]


def main() -> int:
    """Measure and report; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=500, help="for each path in each state")
    parser.add_argument("--output", type=Path, default=BENCHMARKS / "results")
    parser.add_argument("--client-priority", action="store_true", help="let the client that measures go first; as root")
    parser.add_argument("--strict", action="store_true", help="status 1 when a bar is missed")
    arguments = parser.parse_args()
    require_programs({"wrk": "wrk", "cc": "gcc"})
    found: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as directory, ProcessSet(Path(directory)) as processes:
        _, server_port = start_null_job_server(processes)
        admin_port = free_port()
        workers = len(os.sched_getaffinity(0))
        command = "{python} -m gatewayx serve --listen {listen} --server {server}"
        command += f" --admin {HOST}:{admin_port} --workers {workers}"
        command += "".join(f" --function {function}" for function in FUNCTIONS)
        _, port = start_gateway(processes, command, server_port)
        if arguments.client_priority:
            os.setpriority(os.PRIO_PROCESS, 0, -20)
        time.sleep(2.0)
        seconds = len(PATHS) * arguments.questions * EVERY_S
        found["at rest"] = measure(admin_port, arguments.questions, lambda path: 200)
        with flooded(port, 1.5 * seconds + 2) as loads:
            found["flooded"] = measure(admin_port, arguments.questions, lambda path: 200)
        with stopped(admin_port):
            found["stopped"] = measure(admin_port, arguments.questions, lambda path: 503 if path == "/readyz" else 200)
        with scraped(port, admin_port):
            found["scraped"] = measure(admin_port, arguments.questions, lambda path: 200)
        document = json.loads(ask(admin_port, "/status")[1].partition(b"\r\n\r\n")[2])
        memory = {told["process"]: proportional_bytes(told["pid"]) for told in document["processes"]}
    rows = [row for state, times in found.items() for row in rows_of(state, times)]
    rows.append(information("flooded: requests answered by the gateway", [loads[0].requests_per_s], "/s", ""))
    rows += [information(f"memory (Pss) of {name}", [size / 2**20], "MiB", "") for name, size in memory.items()]
    print(text_table(rows))
    settings = {"questions": arguments.questions, "every_s": EVERY_S, "flood_connections": FLOOD_CONNECTIONS}
    write_report(arguments.output, "admin", "The admin address under strain", rows, settings, found)
    return 1 if arguments.strict and any(row.passed is False for row in rows) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchmarkError as error:
        sys.exit(f"admin: {error}")
