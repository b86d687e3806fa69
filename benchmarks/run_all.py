"""`make bench`: every claim of the project, measured anew, and results/README.md from what they wrote.

python benchmarks/run_all.py [--only NAME …] [--write-only] [--output benchmarks/results]
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from support import BENCHMARKS, Row, measured_rows_markdown

CLAIMS = {
    "connections": ("--rounds", "2", "--duration", "2"),
    "gateway_alone": ("--rounds", "3", "--duration", "2"),
    "floods": ("--rounds", "1", "--duration", "2"),
    "payloads": ("--rounds", "2", "--duration", "2"),
    "idle_connections": ("--rounds", "1", "--duration", "2"),
    "job_servers": ("--rounds", "2", "--duration", "2"),
}
"""Scripts and their flags; together they take less than a quarter of an hour on two cores."""

OTHERS = {
    "plugin_comparison": "the gateway's first bars: plugin, native client, nginx, memory",
    "instructions": "instructions a request, by kind of request",
    "instructions_lockstep": "the same over one connection",
    "malformed_flood": "floods by a flooder in C, good traffic by wrk",
    "malformed_flood_steady": "5,000 malformed connections a second",
    "malformed_flood_declared": "declared bodies and slow readers, beside the same floods at nginx",
    "slow_http": "slowhttptest in all its modes",
    "failover": "a job server that dies and comes back",
    "many_servers": "one job server and four, with wrk",
    "kept_polls": "one kept job that everybody asks for: plainly, with a token, through the relay",
    "batch": "many jobs in a batch beside as many requests of their own: processor time and rate",
    "batch_instructions": "what a line costs in user space beside a request",
}


def summary(directory: Path) -> str:
    """results/README.md: each claim's picture, table, machine, date, versions and meaning."""
    parts = [
        "# Results\n",
        "`make bench` measures everything on this page anew. The rows are medians; lowest and highest round and what\n"
        "is behind them stand at the end of each row. Each section says where and when it was measured.\n",
    ]
    for name in CLAIMS:
        path = directory / f"{name}.json"
        if not path.exists():
            continue
        told = json.loads(path.read_text())
        machine, versions = told["machine"], told["versions"]
        parts.append(f"## {told['title']}\n")
        parts.append(told["meaning"] + "\n")
        parts.append(f"![{told['title']}]({told['picture']})\n")
        parts.append(measured_rows_markdown([Row(**row) for row in told["rows"]]) + "\n")
        parts.append(
            f"Measured {told['date']} at {told['revision']} on {machine['cores']} cores ({machine['processor']}), "
            f"{machine['memory_bytes'] / 2**30:.1f} GiB, Linux {machine['kernel']}, "
            + ", ".join(f"{program} {version}" for program, version in versions.items())
            + f"; {told['settings']['rounds']} rounds of {told['settings']['duration_s']:g} s. "
            f"[All numbers]({name}.json), [script](../{name}.py).\n"
        )
    parts.append("## Measured one by one\n")
    parts += [f"- [{name}]({name}.md): {what}" for name, what in OTHERS.items() if (directory / f"{name}.md").exists()]
    return "\n".join(parts) + "\n"


def main() -> int:
    """Run the scripts one after the other; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=tuple(CLAIMS), help="only this; may be repeated")
    parser.add_argument("--write-only", action="store_true", help="only write README.md again")
    parser.add_argument("--output", type=Path, default=BENCHMARKS / "results")
    arguments = parser.parse_args()
    began_s = time.monotonic()
    failed = []
    for name in [] if arguments.write_only else arguments.only or CLAIMS:
        print(f"== {name}", flush=True)
        command = [sys.executable, str(BENCHMARKS / f"{name}.py"), *CLAIMS[name], "--output", str(arguments.output)]
        if subprocess.run(command, check=False).returncode:
            failed.append(name)
    (arguments.output / "README.md").write_text(summary(arguments.output))
    print(f"{arguments.output / 'README.md'} after {time.monotonic() - began_s:.0f} s")
    if failed:
        print(f"not measured: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
