"""One gateway in front of one and of four job servers: is more at least as fast?

    python benchmarks/many_servers.py [--rounds 5] [--duration 4] [--output benchmarks/results] [--strict]

Gateways in front of one and of four gearmands, each with two echo workers, loaded by wrk in turns; and, without a bar,
in front of one with all eight. What the rows mean is in benchmarks/README.md.
"""

import argparse
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from servers import start_echo_workers, start_gateway, start_plain_gearmand

from gatewayx.net.ports import free_port
from support import (
    BENCHMARKS,
    HOST,
    TIMES,
    BenchmarkError,
    ProcessSet,
    Row,
    Watch,
    at_least,
    information,
    require_programs,
    run_tag,
    run_wrk,
    text_table,
    wait_until_quiet,
    write_report,
)

FUNCTION = "echo"
WORKERS_EACH = 2
CONNECTIONS = 64
COUNTS = (1, 4)
KINDS = ("foreground", "background")
MAX_ATTEMPTS = 4
GEARMAND = "-t 4"


def start(processes: ProcessSet, count: int, workers_each: int = WORKERS_EACH) -> int:
    """A gateway with so many job servers; its port."""
    ports = [free_port() for _ in range(count)]
    for port in ports:
        start_plain_gearmand(processes, port, GEARMAND)
        start_echo_workers(processes, port, FUNCTION, workers_each)
    servers = " ".join(f"--server {HOST}:{port}" for port in ports)
    return start_gateway(processes, "{python} -m gatewayx serve --listen {listen} " + servers, ports[0])[1]


def main() -> int:
    """Measure and report; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--duration", type=float, default=4.0)
    parser.add_argument("--max-disturbance", type=float, default=0.05)
    parser.add_argument("--output", type=Path, default=BENCHMARKS / "results")
    parser.add_argument("--strict", action="store_true", help="status 1 when a bar is missed")
    arguments = parser.parse_args()
    require_programs({"gearmand": "gearman-job-server", "wrk": "wrk", "cc": "gcc"})
    all_workers = f"one with {COUNTS[1] * WORKERS_EACH} workers"
    subjects = {"one": (COUNTS[0], WORKERS_EACH), "four": (COUNTS[1], WORKERS_EACH)}
    subjects[all_workers] = (COUNTS[0], COUNTS[1] * WORKERS_EACH)
    found: dict[str, dict[str, list[dict[str, Any]]]] = {kind: {name: [] for name in subjects} for kind in KINDS}
    with tempfile.TemporaryDirectory() as directory, ProcessSet(Path(directory)) as processes:
        gateways = {name: start(processes, *subject) for name, subject in subjects.items()}
        for number in range(arguments.rounds):
            for kind in KINDS:
                for name in list(subjects)[:: -1 if number % 2 else 1]:
                    if kind == "background" and name == all_workers:
                        continue
                    # Background jobs go to a function without workers: they would go on after their turn.
                    function = FUNCTION if kind == "foreground" else f"queued-{number}-{name}"
                    tag = [run_tag()] + (["background"] if kind == "background" else [])
                    for _ in range(MAX_ATTEMPTS):
                        wait_until_quiet(processes, arguments.max_disturbance)
                        watch = Watch(processes)
                        url = f"http://{HOST}:{gateways[name]}/{function}"
                        load = run_wrk(url, BENCHMARKS / "unique_post.lua", tag, CONNECTIONS, arguments.duration)
                        used_s, disturbance = watch.stop()
                        if disturbance.share <= arguments.max_disturbance:
                            break
                    if load.error_count:
                        raise BenchmarkError(f"{kind}, {name}: {load.errors}")
                    found[kind][name].append(
                        {"load": asdict(load), "processor_s": used_s, "disturbance": disturbance.share}
                    )
                speeds = {name: turns[-1]["load"]["requests_per_s"] for name, turns in found[kind].items() if turns}
                told = ", ".join(f"{name} {speed:,.0f}/s" for name, speed in speeds.items())
                print(f"round {number + 1}, {kind}: {told}", flush=True)
    rows: list[Row] = []
    for kind in KINDS:
        rates = {
            name: [turn["load"]["requests_per_s"] for turn in turns] for name, turns in found[kind].items() if turns
        }
        rows += [information(f"{kind}, {name}", values, "/s", "") for name, values in rates.items()]
        ratios = [four / one for one, four in zip(rates["one"], rates["four"], strict=True)]
        rows.append(at_least(f"{kind}: four job servers against one", ratios, 1, TIMES, ""))
    print(text_table(rows))
    settings = {"rounds": arguments.rounds, "duration_s": arguments.duration, "gearmand": GEARMAND}
    write_report(arguments.output, "many_servers", "One job server and four", rows, settings, found)
    return 1 if arguments.strict and any(row.passed is False for row in rows) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchmarkError as error:
        sys.exit(f"many_servers: {error}")
