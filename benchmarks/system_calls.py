"""System calls a request, counted with strace: receives, sends, waits, and changes of what is waited for.

    python benchmarks/system_calls.py [--requests 20000] [--connections 64] [--strict]

64 connections or as many as asked for, each with one request at a time, in front of a job server that answers at once
and of gearmand with two libgearman workers. They are open and warm before anything is counted, so that `epoll_ctl` must
not be called at all.
Prints the table of benchmarks/README.md. strace slows the gateway down, which lets more work gather in a turn of its
loop than otherwise.
"""

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

from clients import KeptConnections
from profile_gateway import CONNECTIONS, count_system_calls, start
from servers import GATEWAY_COMMAND
from shapes import RequestSeries

from support import BenchmarkError, ProcessSet, markdown_table, now_text, require_programs, run_tag, source_revision

KINDS = {
    "receives": ("read", "readv", "recv", "recvfrom", "recvmsg", "recvmmsg"),
    "sends": ("write", "writev", "send", "sendto", "sendmsg", "sendmmsg"),
    "epoll_wait": ("epoll_wait", "epoll_pwait", "epoll_pwait2"),
    "epoll_ctl": ("epoll_ctl",),
}
WARM_UP_REQUESTS = 2000


def measure(background: bool, with_gearmand: bool, arguments: argparse.Namespace) -> tuple[Counter[str], int]:
    """Calls by name, and the requests that they were for."""
    with tempfile.TemporaryDirectory(prefix="system-calls-") as name, ProcessSet(Path(name)) as processes:
        bench = start(processes, background, arguments.gateway_command, with_gearmand)
        client = KeptConnections(bench.port, arguments.connections, RequestSeries(bench.head, run_tag()))
        client.load(WARM_UP_REQUESTS)
        return count_system_calls(bench, lambda: client.load(arguments.requests))


def cells(calls: Counter[str], requests: int) -> list[str]:
    """A call's share of a request by kind; a count that has to be 0 is shown as it is."""
    known = {name for names in KINDS.values() for name in names}
    counts = {kind: sum(calls[name] for name in names) for kind, names in KINDS.items()}
    others = {name: count / requests for name, count in calls.most_common() if name not in known}
    told = ", ".join(f"{name} {share:.3f}" for name, share in others.items() if share >= 0.0005)
    return [
        *(f"{count / requests:.3f}" for kind, count in counts.items() if kind != "epoll_ctl"),
        str(counts["epoll_ctl"]),
        told,
    ]


def main() -> int:
    """Count and print; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20_000, help="of each kind")
    parser.add_argument("--connections", type=int, default=CONNECTIONS)
    parser.add_argument("--gateway-command", default=GATEWAY_COMMAND)
    parser.add_argument("--strict", action="store_true", help="status 1 when epoll_ctl was called")
    arguments = parser.parse_args()
    lines = []
    epoll_ctl_calls = 0
    try:
        require_programs({"wrk": "wrk", "strace": "strace", "cc": "gcc", "gearmand": "gearman-job-server"})
        for with_gearmand in (False, True):
            for background in (True, False):
                calls, requests = measure(background, with_gearmand, arguments)
                epoll_ctl_calls += calls["epoll_ctl"]
                job_server = "gearmand" if with_gearmand else "answers at once"
                kind = "background" if background else "foreground"
                lines.append([f"{kind}, {job_server}", f"{requests:,}", *cells(calls, requests)])
    except BenchmarkError as error:
        print(f"system_calls: {error}", file=sys.stderr)
        return 1
    header = ("jobs, job server", "requests", "receives", "sends", "epoll_wait", "epoll_ctl, in all", "others")
    print(f"Measured {now_text()} at {source_revision()}, calls a request:\n\n{markdown_table(header, lines)}")
    return 1 if arguments.strict and epoll_ctl_calls else 0


if __name__ == "__main__":
    sys.exit(main())
