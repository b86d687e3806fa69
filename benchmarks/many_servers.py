"""One gateway in front of one and of four job servers: is more at least as fast?

    python benchmarks/many_servers.py [--rounds 5] [--duration 4] [--output benchmarks/results] [--strict]

Two gateways, one with one gearmand and four echo workers, one with four gearmands and a worker for each, loaded by wrk
in turns. The workers are as many in both, so that only the job servers differ. What the rows mean is in
benchmarks/README.md.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from servers import start_echo_workers, start_gateway, start_plain_gearmand

from support import (
    BENCHMARKS,
    HOST,
    TIMES,
    BenchmarkError,
    ProcessSet,
    Row,
    Watch,
    at_least,
    free_port,
    information,
    machine_description,
    measured_rows_markdown,
    now_text,
    package_versions,
    program_version,
    require_programs,
    run_tag,
    run_wrk,
    source_revision,
    text_table,
    wait_until_quiet,
)

FUNCTION = "echo"
WORKERS = 4
CONNECTIONS = 64
COUNTS = (1, 4)
KINDS = ("foreground", "background")
MAX_ATTEMPTS = 4
# As in plugin_comparison.py: the default of 991 buckets measures gearmand's hash chains.
GEARMAND = "-t 2 --hashtable-buckets 1000003"


def start(processes: ProcessSet, count: int) -> int:
    """A gateway with so many job servers; its port."""
    ports = [free_port() for _ in range(count)]
    for port in ports:
        start_plain_gearmand(processes, port, GEARMAND)
        start_echo_workers(processes, port, FUNCTION, WORKERS // count)
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
    found: dict[str, dict[int, list[dict[str, Any]]]] = {kind: {count: [] for count in COUNTS} for kind in KINDS}
    with tempfile.TemporaryDirectory() as directory, ProcessSet(Path(directory)) as processes:
        gateways = {count: start(processes, count) for count in COUNTS}
        for number in range(arguments.rounds):
            for kind in KINDS:
                for count in COUNTS[:: -1 if number % 2 else 1]:
                    # Background jobs go to a function without workers: they would go on after their turn.
                    function = FUNCTION if kind == "foreground" else f"queued-{number}-{count}"
                    tag = [run_tag()] + (["background"] if kind == "background" else [])
                    for _ in range(MAX_ATTEMPTS):
                        wait_until_quiet(processes, arguments.max_disturbance)
                        watch = Watch(processes)
                        url = f"http://{HOST}:{gateways[count]}/{function}"
                        load = run_wrk(url, BENCHMARKS / "unique_post.lua", tag, CONNECTIONS, arguments.duration)
                        used_s, disturbance = watch.stop()
                        if disturbance.share <= arguments.max_disturbance:
                            break
                    if load.error_count:
                        raise BenchmarkError(f"{kind}, {count} job servers: {load.errors}")
                    found[kind][count].append(
                        {"load": asdict(load), "processor_s": used_s, "disturbance": disturbance.share}
                    )
                told = ", ".join(
                    f"{count} job servers {found[kind][count][-1]['load']['requests_per_s']:,.0f}/s" for count in COUNTS
                )
                print(f"round {number + 1}, {kind}: {told}", flush=True)
    rows: list[Row] = []
    for kind in KINDS:
        speeds = {count: [turn["load"]["requests_per_s"] for turn in found[kind][count]] for count in COUNTS}
        rows += [information(f"{kind}, {count} job servers", speeds[count], "/s", "") for count in COUNTS]
        ratios = [many / one for one, many in zip(speeds[COUNTS[0]], speeds[COUNTS[1]], strict=True)]
        rows.append(at_least(f"{kind}: four job servers against one", ratios, 1, TIMES, "", True))
    print(text_table(rows))
    machine = machine_description()
    measured = {
        "date": now_text(),
        "revision": source_revision(),
        "machine": machine,
        "versions": package_versions("uvloop", "httptools", "gatewayx")
        | {"gearmand": program_version("gearmand", "-V")},
        "rows": [asdict(row) for row in rows],
        "turns": found,
    }
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "many_servers.json").write_text(json.dumps(measured, indent=1) + "\n")
    told = ", ".join(f"{name} {version}" for name, version in measured["versions"].items())
    (arguments.output / "many_servers.md").write_text(
        "# One job server and four\n\n"
        f"Measured {measured['date']} at {measured['revision']}, {machine['cores']} cores ({machine['processor']}), "
        f"{machine['memory_bytes'] / 2**30:.1f} GiB, Linux {machine['kernel']}, {told}.\n\n"
        f"{measured_rows_markdown(rows)}\n"
    )
    return 1 if arguments.strict and any(row.passed is False for row in rows) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchmarkError as error:
        sys.exit(f"many_servers: {error}")
