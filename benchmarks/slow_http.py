"""slowhttptest, in each of its modes, against the gateway in front of the embedded job server.

    python benchmarks/slow_http.py [--connections 1000] [--seconds 30] [--strict]

Its verdict ("service available", told every five seconds from a probe of its own), how its connections ended, and what
good requests saw meanwhile go to results/slow_http.md and .json.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from servers import GATEWAY_COMMAND, start_gateway

from gatewayx.bench.measurement import machine as machine_description
from gatewayx.net.ports import free_port
from support import (
    BENCHMARKS,
    HOST,
    AnswerChecker,
    BenchmarkError,
    ProcessSet,
    markdown_table,
    now_text,
    package_versions,
    raise_open_file_limit,
    require_programs,
    source_revision,
    wait_for_workers,
)

FUNCTION = "echo"
MODES = {
    "slow headers (slowloris)": ["-H", "-i", "1", "-x", "24"],
    "slow body": ["-B", "-i", "1", "-s", "8192", "-t", "POST", "-x", "10"],
    "range": ["-R", "-a", "10", "-b", "3000", "-t", "HEAD"],
    "slow read": ["-X", "-w", "512", "-y", "1024", "-n", "5", "-z", "32", "-k", "3"],
}
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def run_mode(port: int, options: list[str], connections: int, seconds: int) -> dict[str, Any]:
    """One run of slowhttptest, with good requests beside it."""
    # The workload of a GET is its query; a POST may have none.
    url = f"http://{HOST}:{port}/{FUNCTION}" + ("" if "POST" in options else "?x")
    command = ["slowhttptest", *options, "-c", str(connections), "-r", "200", "-l", str(seconds), "-p", "2", "-u", url]
    checker = AnswerChecker(port, f"/{FUNCTION}", background=False)
    with checker.running() as checked:
        completed = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=False)
    output = COLOUR.sub("", completed.stdout + completed.stderr)
    verdicts = re.findall(r"service available:\s*(YES|NO)", output)
    if not verdicts:
        raise BenchmarkError(f"slowhttptest told no verdict: {output[-500:]}")
    counts = {name: int(count) for name, count in re.findall(r"^(\w[\w ]*\w):\s+(\d+)\s*$", output, re.MULTILINE)}
    exit_status = re.search(r"Exit status:\s*(.+)", output)
    return {
        "available": verdicts.count("YES"),
        "unavailable": verdicts.count("NO"),
        "exit_status": exit_status[1].strip() if exit_status else "",
        "last_counts": counts,
        "good_answers": checked.answers,
        "wrong_answers": checked.wrong_count,
        "wrong": checked.wrong,
    }


def main() -> int:
    """Measure and report; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--output", type=Path, default=BENCHMARKS / "results")
    parser.add_argument("--strict", action="store_true", help="status 1 when the service was once not available")
    arguments = parser.parse_args()
    require_programs({"slowhttptest": "slowhttptest"})
    raise_open_file_limit(16_000)
    results = {}
    with tempfile.TemporaryDirectory() as directory, ProcessSet(Path(directory)) as processes:
        job_server_port = free_port()
        command = [sys.executable, str(BENCHMARKS / "embedded_job_server.py"), HOST, str(job_server_port)]
        processes.start("job-server", command).wait_until_listening(job_server_port)
        wait_for_workers(job_server_port, FUNCTION, 1)
        _, port = start_gateway(processes, GATEWAY_COMMAND, job_server_port)
        for name, options in MODES.items():
            results[name] = run_mode(port, options, arguments.connections, arguments.seconds)
            print(f"{name}: {results[name]}", flush=True)
    good = all(not result["unavailable"] and not result["wrong_answers"] for result in results.values())
    measured = {
        "date": now_text(),
        "revision": source_revision(),
        "machine": machine_description(),
        "versions": package_versions("uvloop", "httptools", "gatewayx"),
        "connections": arguments.connections,
        "seconds": arguments.seconds,
        "modes": results,
    }
    table = markdown_table(
        ("mode", "service available", "not available", "ended as", "good requests answered", "wrong"),
        [
            (
                name,
                str(result["available"]),
                str(result["unavailable"]),
                result["exit_status"],
                str(result["good_answers"]),
                str(result["wrong_answers"]),
            )
            for name, result in results.items()
        ],
    )
    machine = measured["machine"]
    text = (
        "# slowhttptest\n\n"
        f"Measured {measured['date']} at {measured['revision']}, {machine['cores']} cores ({machine['processor']}), "
        f"with {arguments.connections} connections for {arguments.seconds} s a mode. Verdicts are slowhttptest's own, "
        "one every five seconds; good requests were sent every 50 ms beside it and their answers compared.\n\n"
        f"{table}\n"
    )
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "slow_http.json").write_text(json.dumps(measured, indent=1) + "\n")
    (arguments.output / "slow_http.md").write_text(text)
    return 0 if good or not arguments.strict else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchmarkError as error:
        sys.exit(f"slow_http: {error}")
