"""Tokens that are tried by the hundred thousand: what others notice, and whether the time of an answer tells anything.

    python benchmarks/tokens.py [--rounds 3] [--duration 5] [--tries 60000] [--output benchmarks/results] [--strict]

A gateway with one worker process and one token, in front of a job server that answers at once.

**Others.** wrk sends good requests over 8 connections: alone, beside 8 more connections that try a token with each
request which nobody has tried before, and beside 8 more that send good requests as well. All come from one address, and
none of the good requests may be refused.

**Time.** One connection asks with tokens that nobody has, of four kinds in random order: the good one with its first
random letter changed, with its last one, with the first of its checksum, and random ones. A good request before each
of them keeps the good token in the gateway's memory. What an answer takes is compared between kinds by Welch's t, after
the slowest tenth, which is the machine's, was left out: as dudect does, which finds a difference from 4.5 on.
"""

import argparse
import math
import random
import socket
import statistics
import string
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from servers import GATEWAY_COMMAND, start_gateway, start_null_job_server
from shapes import TOKEN, TOKENS, WITH_TOKEN, head_format

from support import (
    BENCHMARKS,
    HOST,
    TIMES,
    BenchmarkError,
    Load,
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

CONNECTIONS = 8
MOST_T = 4.5
KEPT_PART = 0.9
LETTERS = string.ascii_letters + string.digits + "-_"
KINDS = ("first letter", "last letter", "checksum", "random")
# Of the 55 letters of a token: where the random ones begin, and where the checksum does.
FIRST, CHECKSUM = 4, 47


def wrong(kind: str) -> str:
    """A token that nobody has."""
    if kind == "random":
        return "gwx_" + "".join(random.choices(LETTERS, k=51))
    place = {"first letter": FIRST, "last letter": CHECKSUM - 1, "checksum": CHECKSUM}[kind]
    return f"{TOKEN[:place]}{random.choice(LETTERS.replace(TOKEN[place], ''))}{TOKEN[place + 1 :]}"


def load(port: int, head: str, duration_s: float) -> Load:
    """Requests with this head, as many as fit."""
    return run_wrk(
        f"http://{HOST}:{port}/echo", BENCHMARKS / "unique_post.lua", [run_tag(), "head", head], CONNECTIONS, duration_s
    )


def beside(port: int, other: str | None, duration_s: float) -> tuple[Load, Load | None]:
    """Good requests while others are sent with this head; None for no others."""
    good = head_format(WITH_TOKEN, True, port)
    found: list[Load] = []
    thread = None
    if other is not None:
        thread = threading.Thread(target=lambda: found.append(load(port, other, duration_s)))
        thread.start()
    others = load(port, good, duration_s)
    if thread is not None:
        thread.join()
    if others.error_count:
        raise BenchmarkError(f"good requests were refused: {others.errors}")
    return others, found[0] if found else None


def answer(connection: socket.socket, request: bytes) -> int:
    """How long an answer takes, in nanoseconds."""
    began_ns = time.perf_counter_ns()
    connection.sendall(request)
    received = connection.recv(65536)
    took_ns = time.perf_counter_ns() - began_ns
    if b"\r\n\r\n" not in received:
        raise BenchmarkError("an answer in pieces")
    return took_ns


def times(port: int, tries: int) -> dict[str, list[int]]:
    """What answers to each kind of wrong token take."""
    head = head_format(WITH_TOKEN, True, port).replace("Content-Length: 20", "Content-Length: 0")
    found: dict[str, list[int]] = {kind: [] for kind in KINDS}
    with socket.create_connection((HOST, port), timeout=30) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(tries):
            kind = random.choice(KINDS)
            request = head.replace(TOKEN, wrong(kind)).encode()
            answer(connection, head.encode())
            found[kind].append(answer(connection, request))
    return found


def welch(one: Sequence[int], other: Sequence[int]) -> float:
    """By how much two means differ, in standard errors."""
    spread = statistics.variance(one) / len(one) + statistics.variance(other) / len(other)
    return (statistics.fmean(one) - statistics.fmean(other)) / math.sqrt(spread)


def kept(found: dict[str, list[int]]) -> dict[str, list[int]]:
    """The times without the slowest of all kinds together."""
    together = sorted(took for each in found.values() for took in each)
    most = together[int(len(together) * KEPT_PART)]
    return {kind: [took for took in each if took <= most] for kind, each in found.items()}


def rows_of_times(found: dict[str, list[int]]) -> list[Row]:
    """The first kind against each of the others."""
    left = kept(found)
    medians = ", ".join(f"{kind} {statistics.median(each) / 1000:.2f} µs" for kind, each in left.items())
    rows = [
        information("an answer to a token that nobody has", [statistics.median(left[KINDS[0]]) / 1000], " µs", medians)
    ]
    for kind in KINDS[1:]:
        t = abs(welch(left[KINDS[0]], left[kind]))
        detail = f"{len(left[KINDS[0]]):,} and {len(left[kind]):,} answers"
        rows.append(at_most(f"{KINDS[0]} wrong against {kind}: |t|", [t], MOST_T, "", detail))
    return rows


def main() -> int:
    """Measure and report; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--duration", type=float, default=5.0, help="seconds of each load")
    parser.add_argument("--tries", type=int, default=60_000, help="answers whose time is taken")
    parser.add_argument("--output", type=Path, default=BENCHMARKS / "results", help="directory of the results")
    parser.add_argument("--strict", action="store_true", help="status 1 when a bar is missed")
    arguments = parser.parse_args()
    alone: list[float] = []
    shares: list[float] = []
    p99_ms: dict[str, list[float]] = {"alone": [], "tokens tried": [], "good requests": []}
    tried = 0
    try:
        require_programs({"wrk": "wrk", "cc": "gcc"})
        with tempfile.TemporaryDirectory(prefix="tokens-") as name, ProcessSet(Path(name)) as processes:
            path = Path(name) / "tokens.toml"
            path.write_text(TOKENS, encoding="utf-8")
            path.chmod(0o600)
            _, server_port = start_null_job_server(processes)
            _, port = start_gateway(processes, f"{GATEWAY_COMMAND} --tokens {path}", server_port)
            good = head_format(WITH_TOKEN, True, port)
            # The places of ten digits that no other request has.
            unknown = good.replace(TOKEN, f"{TOKEN[:-20]}%s%s")
            for _ in range(arguments.rounds):
                nobody, _ = beside(port, None, arguments.duration)
                tokens, tries = beside(port, unknown, arguments.duration)
                requests, _ = beside(port, good, arguments.duration)
                alone.append(nobody.requests_per_s)
                shares.append(tokens.requests_per_s / requests.requests_per_s)
                for title, found in (("alone", nobody), ("tokens tried", tokens), ("good requests", requests)):
                    p99_ms[title].append(found.latency_p99_s * 1000)
                tried += tries.requests if tries is not None else 0
            found = times(port, arguments.tries)
    except BenchmarkError as error:
        print(f"tokens: {error}", file=sys.stderr)
        return 1
    rows = [
        information("good requests alone", alone, "/s", ""),
        information("tokens tried beside good requests", [tried], "", "all of them answered 401 or 429"),
        information("good requests beside tokens that are tried, against beside good ones", shares, TIMES, ""),
        *(information(f"good requests, beside {title}: p99", ms, " ms", "") for title, ms in p99_ms.items()),
        *rows_of_times(found),
    ]
    print(text_table(rows))
    settings = {"rounds": arguments.rounds, "duration_s": arguments.duration, "tries": arguments.tries}
    raw = {kind: statistics.quantiles(each, n=20) for kind, each in found.items()}
    write_report(arguments.output, "tokens", "Tokens that are tried", rows, settings, raw)
    return 1 if arguments.strict and any(row.passed is False for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
