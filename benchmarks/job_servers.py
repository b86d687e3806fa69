"""One gateway in front of 1 to 8 gearmands.

Each gearmand has two libgearman workers. 64 connections, jobs of 20 unique bytes; background jobs go to a function
that nobody works on. On a machine with cores for all of them more job servers bring more. On two cores their
processes take the cores from each other: look at the gateway's processor time a job. `wrk` is the foreground
throughput by wrk.

    python benchmarks/job_servers.py [--rounds 2] [--duration 2] [--output benchmarks/results]
"""

from claims import (
    FUNCTION,
    GEARMAND,
    Found,
    Options,
    Panel,
    Run,
    bench,
    fail_on_errors,
    load_arguments,
    main,
    p99_ms,
    wrk_requests_per_s,
)
from servers import start_echo_workers, start_gateway, start_plain_gearmand

from gatewayx.net.ports import free_port
from support import HOST, TIMES, Process, ProcessSet, Row, information, median_of

COUNTS = (1, 2, 4, 8)
CONNECTIONS = 64
WORKERS_EACH = 2
# Background jobs have no workers: they would go on after their turn.
KINDS: dict[str, list[str]] = {"foreground": [], "background": ["--background"]}


def start(processes: ProcessSet, count: int, *, working: bool) -> tuple[Process, int]:
    """A gateway with so many job servers, with workers or without."""
    ports = [free_port() for _ in range(count)]
    for port in ports:
        start_plain_gearmand(processes, port, GEARMAND)
        if working:
            start_echo_workers(processes, port, FUNCTION, WORKERS_EACH)
    servers = " ".join(f"--server {HOST}:{port}" for port in ports)
    return start_gateway(processes, "{python} -m gatewayx serve --listen {listen} " + servers, ports[0])


def measure(processes: ProcessSet, options: Options) -> Found:
    """Every number of job servers in turns, each with processes of its own, so that none waits beside another."""
    runs: dict[str, dict[int, list[Run]]] = {kind: {count: [] for count in COUNTS} for kind in KINDS}
    by_wrk: dict[int, float] = {}
    for number in range(options.rounds):
        for kind, more in KINDS.items():
            for count in COUNTS[:: -1 if number % 2 else 1]:
                with ProcessSet(processes.directory) as fresh:
                    gateway, port = start(fresh, count, working=kind == "foreground")
                    check = "echo" if kind == "foreground" else "framing"
                    arguments = [*load_arguments(CONNECTIONS, options.duration_s, check=check), *more]
                    run = bench(fresh, "run", port, *arguments, pid=gateway.pid)
                    fail_on_errors(f"{kind}, {count} job servers", run)
                    runs[kind][count].append(run)
                    print(f"{count} job servers, {kind}: {run['rps']:,.0f}/s, p99 {p99_ms(run):.2f} ms", flush=True)
                    if kind == "foreground" and number == 0:
                        by_wrk[count] = wrk_requests_per_s(port, CONNECTIONS, options.duration_s)
    rows: list[Row] = []
    for kind, by_count in runs.items():
        for count in COUNTS:
            ratios = [more["rps"] / one["rps"] for more, one in zip(by_count[count], by_count[1], strict=True)]
            found = by_count[count]
            p99 = median_of([p99_ms(run) for run in found])
            detail = f"{median_of([run['rps'] for run in found]):,.0f}/s, p99 {p99:.2f} ms"
            cpu_us = median_of([1e6 * run["server"]["cpu_s"] / run["requests"] for run in found])
            detail += f", the gateway's processor time {cpu_us:.1f} µs a job"
            detail += f"; by wrk {by_wrk[count]:,.0f}/s" if kind == "foreground" else ""
            rows.append(information(f"{kind}, {count} job servers: against one", ratios, TIMES, detail))
    panels = [
        Panel(
            "Throughput",
            "job servers",
            "jobs a second",
            {
                kind: [(float(count), median_of([run["rps"] for run in found])) for count, found in by_count.items()]
                for kind, by_count in runs.items()
            },
            y_scale="linear",
        ),
        Panel(
            "p99",
            "job servers",
            "milliseconds",
            {
                kind: [(float(count), median_of([p99_ms(run) for run in found])) for count, found in by_count.items()]
                for kind, by_count in runs.items()
            },
            y_scale="linear",
        ),
    ]
    return Found(rows, panels, {"runs": runs, "wrk": by_wrk})


if __name__ == "__main__":
    main(
        "job_servers",
        "1 to 8 job servers behind one gateway",
        __doc__ or "",
        {"gearmand": "gearman-job-server", "wrk": "wrk", "cc": "gcc"},
        measure,
    )
