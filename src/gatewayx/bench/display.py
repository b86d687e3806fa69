"""What `gatewayx bench` tells while it runs and at its end: on standard error, and lively on a terminal."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Protocol

from gatewayx.bench.units import bytes_text, time_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType
    from rich.live import Live

    from gatewayx.bench.measurement import Progress
    from gatewayx.bench.result import GoodTraffic, Latency, Run, Verdict

# The shortest time between two plain lines; a terminal is drawn at every interval.
LINE_INTERVAL_S = 1.0
BAR_CHARACTERS = 40


class Display(Protocol):
    """Shows how a run goes."""

    def progress(self, progress: Progress) -> None:
        """The end of an interval."""

    def note(self, text: str) -> None:
        """One line that stays."""

    def close(self) -> None:
        """The run is over."""


class PlainDisplay:
    """A line a second on standard error, for logs and pipes."""

    def __init__(self) -> None:
        self._next_at: dict[str, float] = {}

    def progress(self, progress: Progress) -> None:
        """Tell once a second."""
        if progress.at_s < self._next_at.get(progress.name, 0.0) - 0.1:
            return
        self._next_at[progress.name] = progress.at_s + LINE_INTERVAL_S
        point = progress.point
        parts = [
            f"{progress.name} {progress.at_s:5.1f}/{progress.duration_s:.1f} s",
            f"{point.rps:,.0f}/s",
            f"p50 {time_text(point.p50_s)}",
            f"p99 {time_text(point.p99_s)}",
            f"errors {point.errors}",
        ]
        if point.server_memory_bytes is not None:
            parts.append(f"memory {bytes_text(point.server_memory_bytes)}")
        if point.phase == "during" and progress.flood is not None:
            parts.append(f"flood {progress.flood.opened:,} connections")
        self.note("  ".join(parts))

    def note(self, text: str) -> None:
        """Write one line. A closed standard error loses the line, not the result."""
        with contextlib.suppress(OSError):
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Nothing is open."""


class LiveDisplay:
    """A panel on a terminal that is drawn anew."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True)
        self._live: Live | None = None

    def progress(self, progress: Progress) -> None:
        """Draw the panel."""
        if self._live is None:
            from rich.live import Live

            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        self._live.update(self._panel(progress), refresh=True)

    def note(self, text: str) -> None:
        """One line above the panel."""
        self._console.print(text, markup=False, highlight=False)

    def close(self) -> None:
        """Take the panel away."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _panel(self, progress: Progress) -> RenderableType:
        from rich.panel import Panel
        from rich.table import Table
        from rich.text import Text

        point, latency = progress.point, progress.latency
        done = min(1.0, progress.at_s / progress.duration_s)
        filled = round(done * BAR_CHARACTERS)
        table = Table.grid(padding=(0, 3))
        for _ in range(2):
            table.add_column(style="dim")
            table.add_column(justify="right")
        percentiles = {name: latency.percentile_s(value) for name, value in PERCENTILES}
        rows = [
            ("requests/s", f"{point.rps:,.0f}", "errors", f"{point.errors:,}"),
            ("p50", time_text(percentiles["p50"]), "p90", time_text(percentiles["p90"])),
            ("p99", time_text(percentiles["p99"]), "p99.9", time_text(percentiles["p99.9"])),
        ]
        if point.server_memory_bytes is not None:
            start_bytes = progress.memory_start_bytes or point.server_memory_bytes
            grown = point.server_memory_bytes - start_bytes
            share = "" if point.server_cpu_share is None else f"{point.server_cpu_share:.0%}"
            rows.append(
                ("memory", f"{bytes_text(point.server_memory_bytes)} ({bytes_text(grown, signed=True)})", "CPU", share)
            )
        if progress.flood is not None:
            flood = progress.flood
            rows.append(("flood", f"{flood.opened:,} connections", "answers", counts_text(flood.statuses)))
        for row in rows:
            table.add_row(*row)
        bar = Text("\N{BOX DRAWINGS HEAVY HORIZONTAL}" * filled, style="green")
        bar.append("\N{BOX DRAWINGS LIGHT HORIZONTAL}" * (BAR_CHARACTERS - filled), style="dim")
        bar.append(f"  {progress.at_s:.1f} of {progress.duration_s:.1f} s", style="default")
        if point.phase != "load":
            bar.append(f"  {point.phase} the flood", style="yellow")
        whole = Table.grid()
        whole.add_row(bar)
        whole.add_row(table)
        return Panel(whole, title=Text(progress.name), title_align="left", border_style="dim", expand=False)


PERCENTILES = (("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99.9", 99.9))


def display() -> Display:
    """Lively where standard error is a terminal, lines elsewhere."""
    return LiveDisplay() if sys.stderr.isatty() else PlainDisplay()


def summary(run: Run) -> str:
    """What a run found, for people."""
    lines = [
        f"{run.name}: {run.target}",
        f"  {run.rps:,.1f} good answers/s, {run.requests:,} requests in {run.seconds:.1f} s",
    ]
    if run.rate_reached is not None:
        lines.append(f"  rate reached {run.rate_reached:,.1f}/s of {run.settings['rate']:,.1f}/s")
    if run.latency_s is not None and run.latency_uncorrected_s is not None:
        lines.append("  latency       p50       p90       p99     p99.9    p99.99       max      mean")
        if run.rate_reached is None:
            lines.append(f"          {_latency_text(run.latency_s)}")
        else:
            lines.append(f"  from due {_latency_text(run.latency_s)[1:]}")
            lines.append(f"  from sent{_latency_text(run.latency_uncorrected_s)[1:]}")
    lines.append(f"  answers {counts_text(run.statuses) or 'none'}")
    lines.append(f"  errors {counts_text(run.errors) or 'none'}")
    if run.server is not None:
        server = run.server
        per_request = f", {1e6 * server.cpu_s / run.requests:.1f} \N{MICRO SIGN}s a request" if run.requests else ""
        lines.append(f"  server: {server.cpu_s:.2f} s of processor time{per_request}")
        slope = bytes_text(server.memory_slope_bytes_per_s, signed=True)
        lines.append(
            f"  server memory: {bytes_text(server.memory_start_bytes)} at the start, "
            f"{bytes_text(server.memory_peak_bytes)} at most, {bytes_text(server.memory_end_bytes)} at the end, "
            f"slope {slope}/s"
        )
    if run.flood is not None:
        flood = run.flood
        lines.append(f"  flood: {flood.opened:,} connections of {flood.kind}, {flood.rate_reached:,.0f}/s")
        lines.append(
            f"    answered {counts_text(flood.statuses) or 'nothing'}; closed silently {flood.closed_silently:,}, "
            f"reset {flood.resets:,}, not connected {flood.failed:,}"
        )
        for phase, good in (("before", flood.before), ("during", flood.during), ("after", flood.after)):
            lines.append(f"    good traffic {phase:6} {_good_text(good)}")
    if run.bad_response is not None:
        lines.append(f"  the last bad response: {run.bad_response}")
    if run.generator.failed_connects:
        lines.append(f"  connections that failed: {counts_text(run.generator.failed_connects)}")
    if run.server is not None and run.server.ended_at_s is not None:
        lines.append(f"  THE SERVER ENDED after {run.server.ended_at_s:.1f} s")
    lines += [f"  the generator was the limit: {reason}" for reason in run.generator.reasons]
    if run.rate_reached is not None and not run.generator.limited and run.errors.get("not_sent"):
        lines.append("  the target did not keep up: requests were due while every connection waited for an answer")
    for expectation in run.expectations:
        met = "met" if expectation.passed else "FAILED"
        lines.append(f"  {met}: {expectation.text}, measured {_number_text(expectation.measured)}")
    return "\n".join(lines)


def verdict_table(verdicts: Sequence[Verdict]) -> str:
    """The verdicts as a table of text."""
    targets = list(dict.fromkeys(target for verdict in verdicts for target in verdict.measured))
    header = ["", *targets, "ratio", ""]
    rows = [header]
    for verdict in verdicts:
        ratio = "" if verdict.ratio is None else f"{verdict.ratio:.2f}\N{MULTIPLICATION SIGN}"
        rows.append([verdict.name, *(verdict.measured.get(target, "") for target in targets), ratio, verdict.verdict])
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column in (0, len(header) - 1) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def counts_text(counts: dict[str, int]) -> str:
    """Counts by name, the most frequent first."""
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))


def _latency_text(latency: Latency) -> str:
    values = (latency.p50, latency.p90, latency.p99, latency.p999, latency.p9999, latency.max, latency.mean)
    return "".join(f"{time_text(value):>10}" for value in values)


def _good_text(good: GoodTraffic) -> str:
    return (
        f"{good.rps:>10,.0f}/s  p50 {time_text(good.p50_s):>8}  p99 {time_text(good.p99_s):>8}  errors {good.errors:,}"
    )


def _number_text(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.6g}"
