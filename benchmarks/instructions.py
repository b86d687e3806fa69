"""Instructions a request: what user space costs, counted with callgrind, so that a busy machine changes little.

    python benchmarks/instructions.py [--duration 4] [--only NAME …] [--symbols 20] [--strict]
    python benchmarks/instructions.py --lockstep [--depth 32]

The gateway stands in front of a job server that answers at once and is loaded by wrk with 64 connections, a fresh
gateway for each kind of request. How many requests gather in a turn of the loop is then the machine's doing.
`--lockstep` sends a number of requests over one connection instead, one after the other or `--depth` at a time: two
runs of one build differ least. The bars are for 64 connections.
"""

import argparse
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clients import KeptConnections
from profile_gateway import CONNECTIONS, Bench, callgrind_command, count_instructions, print_shares, shares, start
from servers import GATEWAY_COMMAND
from shapes import BROWSER, NEVER_REPEATING, OWN_UNIQUES, SMALL, TOKENS, WITH_TOKEN, RequestSeries

from support import (
    BENCHMARKS,
    TIMES,
    BenchmarkError,
    ProcessSet,
    Row,
    at_most,
    information,
    require_programs,
    text_table,
    write_report,
)

WARM_UP_REQUESTS = 640
# The parts that are asked once a request. How often the loop turns for it, on which the others depend, differs from run
# to run by more than what is added to a request.
OWN = ("gatewayx core.rates", "gatewayx gateway.", "gatewayx http.")


@dataclass(frozen=True)
class Case:
    """One kind of request."""

    shape: str
    background: bool
    bar: float | None = None
    """Instructions at most."""
    small_bar: float | None = None
    """At most so many times those of the small request for the same kind of job."""
    tokens: str = ""
    """What the file of tokens says; none without it."""
    flags: str = ""
    """Further flags of the gateway."""
    most_beside: float | None = None
    """So many instructions of OWN more than the small request for the same kind of job at most."""


CASES = {
    "background": Case(SMALL, background=True, bar=7500),
    "background-never-repeating": Case(NEVER_REPEATING, background=True, bar=8500),
    "background-own-uniques": Case(OWN_UNIQUES, background=True),
    "background-browser": Case(BROWSER, background=True),
    "background-browser-origin": Case(
        BROWSER, background=True, flags=" --origin https://app.example.com --host 127.0.0.1"
    ),
    "background-origin": Case(SMALL, background=True, flags=" --origin https://app.example.com --host 127.0.0.1"),
    "background-access-log": Case(SMALL, background=True, flags=" --access-log /dev/null"),
    "background-rate": Case(SMALL, background=True, flags=" --rate 1000000/s", most_beside=200),
    "background-rates": Case(
        SMALL, background=True, flags=" --rate 1000000/s --function-rate *=1000000/s", most_beside=400
    ),
    "background-token": Case(WITH_TOKEN, background=True, tokens=TOKENS, most_beside=1100),
    "background-token-limited": Case(
        WITH_TOKEN,
        background=True,
        tokens=TOKENS
        + 'functions = ["echo"]\nrate = 1000000\nmax_jobs = 10000\nhighest_priority = "normal"\nexpires = 2999-01-01\n',
    ),
    "background-all-of-who-may": Case(
        WITH_TOKEN,
        background=True,
        tokens=TOKENS + "rate = 1000000\n",
        flags=" --rate 1000000/s --origin https://app.example",
        most_beside=1200,
    ),
    "foreground": Case(SMALL, background=False),
    "foreground-browser": Case(BROWSER, background=False, small_bar=1.5),
}


@dataclass(frozen=True)
class Counted:
    """What one kind of request has cost."""

    requests: int
    components: Counter[str]
    symbols: Counter[str]

    def each(self) -> float:
        return self.components.total() / self.requests

    def own(self) -> float:
        """Those of OWN, for each request."""
        return sum(count for name, count in self.components.items() if name.startswith(OWN)) / self.requests


def count(case: Case, arguments: argparse.Namespace) -> Counted:
    """A fresh gateway under callgrind, warm before anything is counted."""
    with tempfile.TemporaryDirectory(prefix="instructions-") as name, ProcessSet(Path(name)) as processes:
        flags = case.flags
        if case.tokens:
            path = Path(name) / "tokens.toml"
            path.write_text(case.tokens, encoding="utf-8")
            path.chmod(0o600)
            flags += f" --tokens {path}"
        command = callgrind_command(Path(name), arguments.gateway_command + flags)
        bench = start(processes, case.background, command, with_gearmand=False, shape=case.shape)
        if arguments.lockstep:
            return lockstep(bench, arguments.requests, arguments.depth)
        components, symbols, requests = count_instructions(
            bench, lambda: bench.load(arguments.duration, arguments.connections).requests
        )
        return Counted(requests, components, symbols)


def lockstep(bench: Bench, requests: int, depth: int) -> Counted:
    """One connection, whose requests are the same in every run."""
    client = KeptConnections(bench.port, 1, RequestSeries(bench.head, "00000000"), depth)
    client.load(WARM_UP_REQUESTS)
    components, symbols, answered = count_instructions(bench, lambda: client.load(requests))
    return Counted(answered, components, symbols)


def rows_of(counted: dict[str, Counted], with_bars: bool) -> list[Row]:
    """A row for each kind, and for each how it stands to the small request."""
    rows: list[Row] = []
    for name, found in counted.items():
        case = CASES[name]
        most = shares(found.components, 1 / found.requests)[:6]
        detail = ", ".join(f"{share.name} {share.per_request:,.0f}" for share in most)
        title = f"{name}: instructions a request"
        if case.bar is not None and with_bars:
            rows.append(at_most(title, [found.each()], case.bar, "", detail))
        else:
            rows.append(information(title, [found.each()], "", detail))
        small = counted.get("background" if case.background else "foreground")
        if small is None or small is found:
            continue
        if case.most_beside is not None:
            title = f"{name}: beside the small request"
            rows.append(at_most(title, [found.own() - small.own()], case.most_beside, "", ""))
        title = f"{name}: against the small request"
        if case.small_bar is not None:
            rows.append(at_most(title, [found.each() / small.each()], case.small_bar, TIMES, ""))
        else:
            rows.append(information(title, [found.each() / small.each()], TIMES, ""))
    return rows


def main() -> int:
    """Count and report; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=tuple(CASES), help="only this; may be repeated")
    parser.add_argument("--duration", type=float, default=4.0, help="seconds of load")
    parser.add_argument("--connections", type=int, default=CONNECTIONS, help="of wrk; the bars are for 64")
    parser.add_argument("--lockstep", action="store_true", help="a number of requests over one connection")
    parser.add_argument("--requests", type=int, default=3200, help="so many in lockstep")
    parser.add_argument("--depth", type=int, default=1, help="sent at once in lockstep")
    parser.add_argument("--symbols", type=int, default=0, help="show so many functions, too")
    parser.add_argument("--gateway-command", default=GATEWAY_COMMAND)
    parser.add_argument("--output", type=Path, default=BENCHMARKS / "results", help="directory of the results")
    parser.add_argument("--strict", action="store_true", help="status 1 when a bar is missed")
    arguments = parser.parse_args()
    counted: dict[str, Counted] = {}
    try:
        require_programs({"wrk": "wrk", "valgrind": "valgrind", "cc": "gcc"})
        for name in arguments.only or CASES:
            found = counted[name] = count(CASES[name], arguments)
            print(f"\n{name}: {found.each():,.0f} instructions a request, of {found.requests:,}", flush=True)
            print_shares("by component", shares(found.components, 1 / found.requests))
            if arguments.symbols:
                print_shares("by function", shares(found.symbols, 1 / found.requests)[: arguments.symbols])
    except BenchmarkError as error:
        print(f"instructions: {error}", file=sys.stderr)
        return 1
    rows = rows_of(counted, with_bars=not arguments.lockstep and arguments.connections == CONNECTIONS)
    print(f"\n{text_table(rows)}")
    settings: dict[str, Any] = {"connections": arguments.connections, "duration_s": arguments.duration}
    if arguments.lockstep:
        settings = {"connections": 1, "requests": arguments.requests, "depth": arguments.depth}
    raw = {
        name: {"requests": found.requests, "components": found.components, "symbols": found.symbols}
        for name, found in counted.items()
    }
    report = "instructions_lockstep" if arguments.lockstep else "instructions"
    write_report(arguments.output, report, "Instructions a request", rows, settings, raw)
    return 1 if arguments.strict and any(row.passed is False for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
