"""One kept job that is asked for by everybody: how often a second.

    python benchmarks/kept_polls.py [--rounds 3] [--duration 4] [--output benchmarks/results] [--strict]

A gateway with one worker process in front of a gearmand without workers: the job is queued, and stays it. wrk with one
thread and 64 connections sends `GET /v1/jobs/<id>`, each answered by the job as JSON; the same with a token; with the
ETag of the answer before it, answered 304; and `/result` of a job that has ended with 20 bytes. Then two worker
processes, of which one keeps the job: what comes over connections that the kernel gives to the other one is relayed,
which is about half of all.

The bar is 10,000 a second of each. Processor time is that of all processes of the gateway.
"""

import argparse
import http.client
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from servers import GATEWAY_COMMAND, start_echo_workers, start_gateway, start_plain_gearmand
from shapes import TOKEN, TOKENS

from gatewayx.net.ports import free_port
from support import (
    BENCHMARKS,
    HOST,
    BenchmarkError,
    Load,
    Process,
    ProcessSet,
    Row,
    at_least,
    information,
    require_programs,
    run_wrk,
    text_table,
    write_report,
)

CONNECTIONS = 64
BAR = 10_000
AUTHORIZATION = ("Authorization", f"Bearer {TOKEN}")


class Client:
    """One connection to a gateway."""

    def __init__(self, port: int, *headers: tuple[str, str]) -> None:
        self.connection = http.client.HTTPConnection(HOST, port, timeout=30)
        self.headers = dict(headers)

    def ask(self, method: str, target: str, **headers: str) -> http.client.HTTPResponse:
        """The answer, whose body was read."""
        body = b"x" * 20 if method == "POST" else None
        self.connection.request(method, target, body=body, headers={**self.headers, **headers})
        answer = self.connection.getresponse()
        answer.read()
        return answer

    def submit(self, function: str) -> str:
        """Where a job is that is kept."""
        answer = self.ask("POST", f"/{function}", Prefer="respond-async")
        if answer.status != 202:
            raise BenchmarkError(f"a job was not kept: {answer.status}")
        return str(answer.headers["Location"])

    def ended(self, target: str) -> None:
        """Return once the job has ended."""
        self.connection.request("GET", f"{target}?wait=30", headers=self.headers)
        job = json.loads(self.connection.getresponse().read())
        if job["state"] != "succeeded":
            raise BenchmarkError(f"the job is {job['state']}")


def polls(port: int, target: str, *headers: tuple[str, str], duration_s: float) -> Load:
    """Connections that ask for it all the time; none of the answers may be an error."""
    words = [target, *(word for header in headers for word in header)]
    found = run_wrk(f"http://{HOST}:{port}/", BENCHMARKS / "poll.lua", words, CONNECTIONS, duration_s)
    if found.error_count:
        raise BenchmarkError(f"{target}: {found.errors}")
    return found


def processor_us(gateway: Process, load: Load, before_s: float) -> float:
    """Processor time of all processes for a request."""
    return 1e6 * (gateway.cpu_time_s() - before_s) / load.requests


def main() -> int:
    """Measure and report; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--duration", type=float, default=4.0, help="seconds of each load")
    parser.add_argument("--output", type=Path, default=BENCHMARKS / "results", help="directory of the results")
    parser.add_argument("--strict", action="store_true", help="status 1 when a bar is missed")
    arguments = parser.parse_args()
    found: dict[str, list[dict[str, Any]]] = {}
    try:
        require_programs({"gearmand": "gearman-job-server", "wrk": "wrk", "cc": "gcc"})
        with tempfile.TemporaryDirectory(prefix="kept-polls-") as name, ProcessSet(Path(name)) as processes:
            tokens = Path(name) / "tokens.toml"
            tokens.write_text(TOKENS, encoding="utf-8")
            tokens.chmod(0o600)
            server_port = free_port()
            start_plain_gearmand(processes, server_port)
            start_echo_workers(processes, server_port, "echo", 1)
            one, one_port = start_gateway(processes, GATEWAY_COMMAND, server_port)
            tokened, tokened_port = start_gateway(processes, f"{GATEWAY_COMMAND} --tokens {tokens}", server_port)
            two, two_port = start_gateway(processes, f"{GATEWAY_COMMAND} --workers 2", server_port)
            client = Client(one_port)
            queued, done = client.submit("nobody"), client.submit("echo")
            client.ended(done)
            tag = str(client.ask("GET", queued).headers["ETag"])
            tokened_job = Client(tokened_port, AUTHORIZATION).submit("nobody")
            far = Client(two_port).submit("nobody")
            cases: list[tuple[str, Process, int, str, tuple[tuple[str, str], ...]]] = [
                ("the job", one, one_port, queued, ()),
                ("not modified since", one, one_port, queued, (("If-None-Match", tag),)),
                ("the result", one, one_port, f"{done}/result", ()),
                ("the job, with a token", tokened, tokened_port, tokened_job, (AUTHORIZATION,)),
                ("the job, at two processes, about half relayed", two, two_port, far, ()),
            ]
            for number in range(arguments.rounds):
                for title, gateway, port, target, headers in cases[:: -1 if number % 2 else 1]:
                    before_s = gateway.cpu_time_s()
                    load = polls(port, target, *headers, duration_s=arguments.duration)
                    used_us = processor_us(gateway, load, before_s)
                    found.setdefault(title, []).append(asdict(load) | {"processor_us": used_us})
                    print(f"round {number + 1}, {title}: {load.requests_per_s:,.0f}/s, {used_us:.1f} µs", flush=True)
    except BenchmarkError as error:
        print(f"kept_polls: {error}", file=sys.stderr)
        return 1
    rows = rows_of(found)
    print(text_table(rows))
    settings = {"rounds": arguments.rounds, "duration_s": arguments.duration, "connections": CONNECTIONS}
    write_report(arguments.output, "kept_polls", "One kept job that everybody asks for", rows, settings, found)
    return 1 if arguments.strict and any(row.passed is False for row in rows) else 0


def rows_of(found: dict[str, list[dict[str, Any]]]) -> Sequence[Row]:
    """Of each case: how often a second, how long an answer takes, and what it costs."""
    rows = []
    for title, turns in found.items():
        rows.append(at_least(title, [turn["requests_per_s"] for turn in turns], BAR, "/s", ""))
        rows.append(information(f"{title}: p99", [1000 * turn["latency_p99_s"] for turn in turns], " ms", ""))
        rows.append(information(f"{title}: processor time", [turn["processor_us"] for turn in turns], " µs", ""))
    return rows


if __name__ == "__main__":
    sys.exit(main())
