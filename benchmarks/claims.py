"""What the scripts of `make bench` share: runs of `gatewayx bench`, pictures, and one form for every claim.

A claim is a script with one JSON, one table and one picture in results/. run_all.py runs them all.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support import (
    BENCHMARKS,
    DIE_WITH_SCRIPT,
    HOST,
    BenchmarkError,
    ProcessSet,
    Row,
    Watch,
    raise_open_file_limit,
    require_programs,
    run_tag,
    run_wrk,
    text_table,
    wait_until_quiet,
    write_report,
)

FUNCTION = "echo"
GEARMAND = "-t 4"
MAX_DISTURBANCE = 0.05
# A turn that others disturb is repeated, so often at most.
MAX_ATTEMPTS = 2
QUIET_TIMEOUT_S = 10.0
COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown")

Run = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """How thoroughly to measure."""

    rounds: int
    duration_s: float


@dataclass(frozen=True)
class Panel:
    """One of a picture's plots: lines of (x, y) by name."""

    title: str
    x_label: str
    y_label: str
    lines: Mapping[str, Sequence[tuple[float, float]]]
    x_scale: str = "log"
    y_scale: str = "log"


@dataclass(frozen=True)
class Bars:
    """One of a picture's plots: a group of bars for each category, one of each series."""

    title: str
    y_label: str
    series: Mapping[str, Mapping[str, float]]
    y_scale: str = "linear"


@dataclass(frozen=True)
class Found:
    """What a script has measured: rows of the table, the picture, and everything behind them."""

    rows: list[Row]
    panels: Sequence[Panel | Bars]
    raw: Any


def bench(processes: ProcessSet, command: str, port: int, *arguments: str, pid: int | None = None) -> Run:
    """One undisturbed run of `gatewayx bench` against FUNCTION of a port; arguments as on its command line."""
    words = [sys.executable, "-m", "gatewayx", "bench", command, f"http://{HOST}:{port}/{FUNCTION}", *arguments]
    words += ["--pid", str(pid)] if pid is not None else []
    for attempt in range(MAX_ATTEMPTS):
        wait_until_quiet(processes, MAX_DISTURBANCE, QUIET_TIMEOUT_S)
        watch = Watch(processes)
        try:
            completed = subprocess.run(
                [*DIE_WITH_SCRIPT, *words, "--json", "-"], capture_output=True, text=True, timeout=300, check=False
            )
        except subprocess.TimeoutExpired:
            raise BenchmarkError(f"a run of {command} did not end: {' '.join(arguments)}") from None
        if completed.returncode:
            raise BenchmarkError(completed.stderr.strip().splitlines()[-1])
        _, disturbance = watch.stop()
        if disturbance.share <= MAX_DISTURBANCE or attempt == MAX_ATTEMPTS - 1:
            break
    run: Run = json.loads(completed.stdout)
    run["disturbance"] = disturbance.share
    # Curves are not drawn from them, and they are most of the file.
    del run["histogram"], run["timeline"]
    return run


def load_arguments(connections: int, duration_s: float, body_bytes: int = 20, check: str = "echo") -> list[str]:
    """Of a run with unique bodies."""
    return [
        *("--connections", str(connections), "--duration", str(duration_s)),
        *("--body-size", str(body_bytes), "--unique-bodies", "--check", check),
    ]


def wrk_requests_per_s(
    port: int, connections: int, duration_s: float, kind: str = "foreground", body_bytes: int = 20
) -> float:
    """The same load by wrk, whose numbers are not ours."""
    script = BENCHMARKS / "unique_post.lua"
    arguments = [run_tag(), kind, str(body_bytes)]
    return run_wrk(f"http://{HOST}:{port}/{FUNCTION}", script, arguments, connections, duration_s).requests_per_s


def p99_ms(run: Run) -> float:
    """Milliseconds; not a number where nothing was answered."""
    return 1e3 * float(run["latency_s"]["p99"]) if run["latency_s"] else math.nan


def error_count(run: Run) -> int:
    """Requests without a good answer."""
    return sum(run["errors"].values())


def remarks(runs: Sequence[Run]) -> str:
    """What must be known of figures beside them: errors, and a generator that was the limit."""
    told = []
    if errors := sum(map(error_count, runs)):
        told.append(f"{errors:,} errors")
    if any(run["generator"]["limited"] for run in runs):
        reasons = sorted({reason for run in runs for reason in run["generator"]["reasons"]})
        told.append(f"limited: {reasons[0]}")
    return f" ({'; '.join(told)})" if told else ""


def fail_on_errors(name: str, run: Run) -> None:
    """Nothing is told of a load that was not answered rightly."""
    if error_count(run):
        raise BenchmarkError(f"{name}: errors {run['errors']}, answers {run['statuses']}")


def draw(path: Path, panels: Sequence[Panel | Bars]) -> None:
    """One picture of plots side by side; the same data give the same file."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        raise BenchmarkError("the pictures need matplotlib: pip install --group bench") from None
    figure = Figure(figsize=(5.2 * len(panels), 4), layout="constrained")
    for number, panel in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), number + 1)
        if isinstance(panel, Panel):
            for colour, (name, points) in zip(COLOURS, panel.lines.items(), strict=False):
                axes.plot(*zip(*points, strict=True), marker="o", markersize=4, color=colour, label=name)
            ticks = sorted({x for points in panel.lines.values() for x, _ in points})
            axes.set_xscale(panel.x_scale)
            axes.set_xlabel(panel.x_label)
            axes.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks], rotation=45 if len(ticks) > 6 else 0)
            axes.minorticks_off()
        else:
            width = 0.8 / len(panel.series)
            for index, (colour, (name, values)) in enumerate(zip(COLOURS, panel.series.items(), strict=False)):
                places = [place + (index - (len(panel.series) - 1) / 2) * width for place in range(len(values))]
                axes.bar(places, list(values.values()), width, color=colour, label=name)
            categories = list(next(iter(panel.series.values())))
            axes.set_xticks(range(len(categories)), categories, rotation=45, ha="right", fontsize="small")
        axes.set_yscale(panel.y_scale)
        axes.set_title(panel.title, fontsize="medium")
        axes.set_ylabel(panel.y_label)
        if panel.y_scale == "linear":
            axes.set_ylim(bottom=0)
        axes.grid(visible=True, alpha=0.3)
        axes.legend(fontsize="small")
    with rc_context({"svg.hashsalt": "gatewayx"}):
        figure.savefig(path, metadata={"Date": None})


def main(
    name: str,
    title: str,
    document: str,
    programs: Mapping[str, str],
    measure: Callable[[ProcessSet, Options], Found],
) -> None:
    """The whole of a script: reads its flags, measures, writes results/NAME.json, .md and .svg."""
    meaning = " ".join(document.partition("\n\n")[2].partition("\n\n    python")[0].split())
    parser = argparse.ArgumentParser(description=document, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--duration", type=float, default=2.0, help="seconds of load a turn")
    parser.add_argument("--output", type=Path, default=BENCHMARKS / "results", help="directory of the results")
    arguments = parser.parse_args()
    options = Options(arguments.rounds, arguments.duration)
    try:
        require_programs(programs)
        raise_open_file_limit(12_000)
        with tempfile.TemporaryDirectory(prefix=f"{name}-") as directory, ProcessSet(Path(directory)) as processes:
            found = measure(processes, options)
        picture = f"{name}.svg"
        arguments.output.mkdir(parents=True, exist_ok=True)
        draw(arguments.output / picture, found.panels)
    except BenchmarkError as error:
        sys.exit(f"{name}: {error}")
    print(text_table(found.rows))
    settings = {"rounds": options.rounds, "duration_s": options.duration_s}
    write_report(arguments.output, name, title, found.rows, settings, found.raw, picture=picture, meaning=meaning)
