"""One HTML file that shows measurements: readable anywhere, loading nothing and running nothing.

What comes from the runs is text for HTML alone: curves carry no names in their pictures, the legend stands beside them.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from gatewayx.bench.expectations import Kind, parse
from gatewayx.bench.result import (
    LATENCY_FIGURES,
    Expectation,
    Flood,
    GoodTraffic,
    Latency,
    Point,
    Run,
    Server,
    Verdict,
)
from gatewayx.bench.units import bytes_text, number_text, share_text, time_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NO_PLOTS = "the HTML report needs matplotlib: pip install 'gatewayx[bench]'"

NOTHING = "–"  # noqa: RUF001 - a dash as wide as a digit

# Told apart by the colour-blind too: Okabe and Ito, "Color Universal Design", without the yellow.
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
_PLOT_STYLE: Any = {
    "axes.edgecolor": "#8c959f",
    "axes.grid": True,
    "axes.labelcolor": "#1f2328",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.unicode_minus": False,
    "font.size": 10,
    "grid.color": "#e7ebef",
    "grid.linewidth": 0.8,
    "svg.fonttype": "none",
    "xtick.color": "#59636e",
    "ytick.color": "#59636e",
}

# How far an axis goes beyond its highest value: a line along the frame is hard to see.
HEADROOM = 1.08

# What stands for no time at all on a logarithmic axis.
SHORTEST_S = 1e-6

# Lengths of dashes and gaps in units of the line's width; one more style each time the colours begin again.
_DASHES: tuple[tuple[float, ...], ...] = ((), (4, 1.5), (1, 1.5))

_STYLE = """
:root { color-scheme: light; }
body { margin: 0 auto; padding: 1.5rem 1rem 3rem; max-width: 64rem; background: #fff; color: #1f2328;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { margin: 0 0 .75rem; font-size: 1.6rem; line-height: 1.25; overflow-wrap: anywhere; }
h2 { margin: 2.25rem 0 .5rem; padding-bottom: .25rem; border-bottom: 1px solid #d8dee4; font-size: 1.2rem; }
h3 { margin: 1.25rem 0 .25rem; font-size: 1rem; overflow-wrap: anywhere; }
p { margin: .4rem 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: 0; }
dt, .note { color: #59636e; }
dd { margin: 0; overflow-wrap: anywhere; }
.note { font-size: .87rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: .5rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .75rem; border-bottom: 1px solid #e7ebef; text-align: right; vertical-align: top; }
th:first-child, .text { text-align: left; }
th { font-weight: 600; }
tbody th { font-weight: 400; white-space: nowrap; }
tbody tr.group th { padding-top: .75rem; color: #59636e; font-size: .8rem; font-weight: 600; }
td { white-space: nowrap; }
td.text { min-width: 6rem; max-width: 30rem; white-space: normal; overflow-wrap: anywhere; }
.warning { margin: .75rem 0; padding: .5rem .75rem; border-left: 4px solid #bf8700; background: #fff8e5; }
.failed { color: #b42318; font-weight: 600; }
.plot svg { display: block; width: 100%; min-width: 36rem; height: auto; }
.plot svg text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif !important; }
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; margin: .5rem 0; padding: 0; list-style: none; }
.legend svg { width: 2rem; height: .6rem; margin-right: .4rem; }
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  .scroll { overflow: visible; }
  tr, .plot, .warning { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  .warning, .legend { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""


class ReportError(Exception):
    """The report cannot be drawn or written: the operator's matter. The message is one line."""


def require_plots() -> None:
    """Raise ReportError where matplotlib is missing, so that nobody waits for a run whose report then fails."""
    try:
        import matplotlib.backends.backend_svg
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise ReportError(NO_PLOTS) from None


def write_report(path: Path, runs: Sequence[Run], verdicts: Sequence[Verdict] = ()) -> None:
    """Write the report of at least one run to `path`, over what is there. The same runs give the same bytes.

    Raises ReportError where matplotlib is missing or the file cannot be written.
    """
    if not runs:
        raise ValueError("a report needs a run")
    require_plots()
    sections = [
        _head(runs),
        *(_warning(run) for run in runs if run.generator.limited),
        _verdict_section(verdicts) if len(runs) > 1 else "",
        _expectation_section(runs),
        _run_section(runs),
        _latency_section(runs),
        _timeline_section(runs),
        *(_flood_section(run, run.flood) for run in runs if run.flood),
        _settings_section(runs),
    ]
    title = escape(_title(runs))
    document = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(section for section in sections if section)
        + "\n</body>\n</html>\n"
    )
    try:
        path.write_bytes(document.encode("utf-8", "xmlcharrefreplace"))
    except OSError as error:
        raise ReportError(f"cannot write {path}: {error.strerror}") from None


_KIND_TEXT: Mapping[Kind, Callable[[float], str]] = {
    "time": time_text,
    "share": share_text,
    "count": number_text,
    "rate": number_text,
    "bytes": bytes_text,
}


def measured_text(expectation: Expectation) -> str:
    """What was measured, in the unit that was asked for."""
    if expectation.measured is None:
        return "not measured"
    try:
        kind = parse(expectation.text).kind
    except ValueError:
        return number_text(expectation.measured)
    return _KIND_TEXT[kind](expectation.measured)


def _title(runs: Sequence[Run]) -> str:
    return f"gatewayx bench: {', '.join(_distinct(run.name for run in runs))}"


def _distinct(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def _head(runs: Sequence[Run]) -> str:
    entries = {
        "Date": [run.date for run in runs],
        "Target": [run.target for run in runs],
        "Version": [f"gatewayx {run.version}" for run in runs],
    }
    for key in _distinct(key for run in runs for key in run.machine):
        entries[f"Machine, {key}"] = [str(run.machine[key]) for run in runs if key in run.machine]
    items = (f"<dt>{escape(key)}</dt><dd>{escape(', '.join(_distinct(texts)))}</dd>" for key, texts in entries.items())
    return f"<h1>{escape(_title(runs))}</h1>\n<dl>{''.join(items)}</dl>"


def _warning(run: Run) -> str:
    reasons = escape("; ".join(run.generator.reasons)) or "no reason given"
    return (
        f'<p class="warning" role="note"><strong>The generator limited {escape(run.name)}:</strong> {reasons}. '
        "Its figures tell about the generator and not about the target.</p>"
    )


@dataclass(frozen=True)
class _Row:
    """A name with a text for each column; without texts a heading within the table."""

    name: str
    texts: Sequence[str] = ()


def _table(columns: Sequence[str], rows: Sequence[_Row], *, prose: bool = False) -> str:
    """Everything given is text and escaped here. `prose` is for cells that are read and not compared."""
    cell = '<td class="text">' if prose else "<td>"
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
    body = "\n".join(
        f'<tr><th scope="row">{escape(row.name)}</th>{"".join(f"{cell}{escape(text)}</td>" for text in row.texts)}</tr>'
        if row.texts
        else f'<tr class="group"><th colspan="{len(columns)}">{escape(row.name)}</th></tr>'
        for row in rows
    )
    return f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>'


def _verdict_section(verdicts: Sequence[Verdict]) -> str:
    if not verdicts:
        return ""
    targets = _distinct(target for verdict in verdicts for target in verdict.measured)
    rows = [
        _Row(
            verdict.name,
            [
                *(verdict.measured.get(target, NOTHING) for target in targets),
                NOTHING if verdict.ratio is None else f"{verdict.ratio:.2f}",
                verdict.verdict,
            ],
        )
        for verdict in verdicts
    ]
    note = (
        f'<p class="note">The ratio is {escape(targets[0])} over {escape(targets[1])}.</p>' if len(targets) > 1 else ""
    )
    return "<h2>Verdict</h2>\n" + _table(["", *targets, "Ratio", "Verdict"], rows) + note


_PASSED = "<td>passed</td>"
_FAILED = '<td class="failed">failed</td>'


def _expectation_section(runs: Sequence[Run]) -> str:
    rows = "\n".join(
        f'<tr><th scope="row">{escape(run.name)}</th><td class="text">{escape(expectation.text)}</td>'
        f"<td>{escape(measured_text(expectation))}</td>"
        f"{_PASSED if expectation.passed else _FAILED}</tr>"
        for run in runs
        for expectation in run.expectations
    )
    if not rows:
        return ""
    return (
        '<h2>Expectations</h2>\n<div class="scroll"><table>\n<thead><tr><th>Run</th><th class="text">Expected</th>'
        f"<th>Measured</th><th></th></tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>"
    )


def _run_section(runs: Sequence[Run]) -> str:
    corrected = any(run.rate_reached is not None for run in runs)

    def row(name: str, figure: Callable[[Run], float | None], text: Callable[[float], str]) -> _Row:
        return _Row(name, [_optional(figure(run), text) for run in runs])

    def server_row(name: str, figure: Callable[[Server], float], text: Callable[[float], str]) -> _Row:
        return row(name, lambda run: None if run.server is None else figure(run.server), text)

    def latency_row(name: str, percentile: str, of: Callable[[Run], Latency | None]) -> _Row:
        return _Row(
            name, [_optional(of(run), lambda found: time_text(LATENCY_FIGURES[percentile](found))) for run in runs]
        )

    rows = [
        row("Duration", lambda run: run.seconds, time_text),
        row("Requests", lambda run: run.requests, number_text),
        row("Requests/s", lambda run: run.rps, number_text),
        row("Rate reached, a second", lambda run: run.rate_reached, number_text),
        _Row("Latency, from when a request was due" if corrected else "Latency"),
        *(latency_row(name, name, lambda run: run.latency_s) for name in LATENCY_FIGURES),
    ]
    if corrected:
        rows.append(_Row("Latency, from when a request was sent"))
        rows += [latency_row(name, name, lambda run: run.latency_uncorrected_s) for name in ("p99", "max")]
    rows += [
        _Row("Errors"),
        _Row("all", [_part(run.error_count, run) for run in runs]),
        *_count_rows(runs, lambda run: run.errors),
        _Row("Answers by status"),
        *_count_rows(runs, lambda run: run.statuses),
        _Row("HTTP bytes"),
        row("sent", lambda run: run.bytes.sent, bytes_text),
        row("received", lambda run: run.bytes.received, bytes_text),
        _Row("Server"),
        server_row("processes", lambda server: server.processes, number_text),
        server_row("processor time", lambda server: server.cpu_s, time_text),
        row("of one core", _server_share, share_text),
        server_row("memory, start", lambda server: server.memory_start_bytes, bytes_text),
        server_row("memory, peak", lambda server: server.memory_peak_bytes, bytes_text),
        server_row("memory, end", lambda server: server.memory_end_bytes, bytes_text),
        server_row("memory, growth", lambda server: server.memory_growth_bytes, bytes_text),
        server_row("memory, slope a second", lambda server: server.memory_slope_bytes_per_s, bytes_text),
        _Row("Generator"),
        row("processes", lambda run: run.generator.processes, number_text),
        row("of one core, its busiest process", lambda run: run.generator.cpu_share, share_text),
        row("sent late, p99", lambda run: run.generator.late_p99_s, time_text),
        row("sent late, max", lambda run: run.generator.late_max_s, time_text),
        _Row("limited the run", ["yes" if run.generator.limited else "no" for run in runs]),
    ]
    return "<h2>Runs</h2>\n" + _table(["", *(run.name for run in runs)], rows)


_Figure = TypeVar("_Figure")


def _optional(figure: _Figure | None, text: Callable[[_Figure], str]) -> str:
    return NOTHING if figure is None else text(figure)


def _server_share(run: Run) -> float | None:
    return run.server.cpu_s / run.seconds if run.server and run.seconds > 0 else None


def _part(count: int, run: Run) -> str:
    return (
        f"{number_text(count)} ({share_text(count / run.requests)})" if count and run.requests else number_text(count)
    )


def _count_rows(runs: Sequence[Run], counts: Callable[[Run], Mapping[str, int]]) -> list[_Row]:
    names = sorted({name for run in runs for name in counts(run)})
    return [_Row(name, [_part(counts(run).get(name, 0), run) for run in runs]) for name in names]


def _settings_section(runs: Sequence[Run]) -> str:
    keys = _distinct(key for run in runs for key in run.settings)
    if not keys:
        return ""
    rows = [_Row(key, [_setting_text(run.settings.get(key)) for run in runs]) for key in keys]
    return "<h2>Settings</h2>\n" + _table(["", *(run.name for run in runs)], rows, prose=True)


def _setting_text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or NOTHING
    return NOTHING if value is None else str(value)


def _flood_section(run: Run, flood: Flood) -> str:
    asked = "as many as go" if flood.rate is None else f"{number_text(flood.rate)} a second"
    answers = [(f"answered {status}", count) for status, count in sorted(flood.statuses.items())]
    answers += [("closed silently", flood.closed_silently), ("reset", flood.resets), ("failed", flood.failed)]
    flooding = [
        ("connections", number_text(flood.connections)),
        ("new ones asked for", asked),
        ("new ones reached", f"{number_text(flood.rate_reached)} a second"),
        ("duration", time_text(flood.seconds)),
        ("opened", number_text(flood.opened)),
        ("open at once, at most", number_text(flood.highest_open)),
        ("left open", number_text(flood.left_open)),
    ]
    phases: Sequence[GoodTraffic] = (flood.before, flood.during, flood.after)
    good = [
        _Row("duration", [time_text(phase.seconds) for phase in phases]),
        _Row("requests", [number_text(phase.requests) for phase in phases]),
        _Row("requests/s", [number_text(phase.rps) for phase in phases]),
        _Row("errors", [number_text(phase.errors) for phase in phases]),
        _Row("p50", [_optional(phase.p50_s, time_text) for phase in phases]),
        _Row("p99", [_optional(phase.p99_s, time_text) for phase in phases]),
    ]
    connections = f"{flood.good_connections} connection{'' if flood.good_connections == 1 else 's'}"
    return (
        f"<h2>Flood: {escape(run.name)}</h2>\n<h3>What good clients saw, on {connections}</h3>\n"
        + _table(["", "before", "during", "after"], good)
        + f"\n<h3>The flood, {escape(flood.kind)}</h3>\n"
        + _table(["", ""], [_Row(name, [text]) for name, text in flooding])
        + "\n<h3>What the server answered to it</h3>\n"
        + _table(["", "connections"], [_Row(name, [number_text(count)]) for name, count in answers])
    )


def _latency_section(runs: Sequence[Run]) -> str:
    from matplotlib.ticker import LogLocator, NullLocator

    curves = [(number, _percentile_curve(run.histogram)) for number, run in enumerate(runs)]
    curves = [(number, curve) for number, curve in curves if curve[0]]
    if not curves:
        return ""
    decades = max(1, math.ceil(math.log10(max(curve[0][-1] for _, curve in curves))))
    latencies_ms = [latency_ms for _, curve in curves for latency_ms in curve[1]]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for number, (inverses, curve_ms) in curves:
            axes.plot(inverses, curve_ms, drawstyle="steps-post", **_line(number))
        axes.set(xscale="log", yscale="log", xlim=(1, 10**decades), xlabel="requests", ylabel="latency, ms")
        axes.set_ylim(_rounded_down(min(latencies_ms)), _rounded_up(max(latencies_ms)))
        axes.set_xticks([10**decade for decade in range(decades + 1)], list(map(_percentile_text, range(decades + 1))))
        axes.set_xticks([], minor=True)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=30))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_locator(NullLocator())

    note = "How many of the requests were answered within what time."
    return _plot_section("Latency", note, runs, "Latency by percentile", draw, height=4.2)


def _percentile_curve(histogram: Iterable[tuple[float, int]]) -> tuple[list[float], list[float]]:
    """Steps of 1/(1 - percentile), 1 at least, and of latency in milliseconds; both empty without a request.

    The highest percentile that a number of requests can tell is that of all but one: there the curve ends.
    """
    steps = sorted((latency_s, count) for latency_s, count in histogram if count > 0)
    total = sum(count for _, count in steps)
    inverses, latencies_ms = [], []
    below = 0
    for latency_s, count in steps:
        inverses.append(total / (total - below))
        latencies_ms.append(max(latency_s, SHORTEST_S) * 1000)
        below += count
    if steps:
        inverses.append(float(total))
        latencies_ms.append(latencies_ms[-1])
    return inverses, latencies_ms


def _percentile_text(decade: int) -> str:
    return ("0%", "90%", "99%")[decade] if decade < 3 else f"99.{'9' * (decade - 2)}%"


def _rounded_down(value: float) -> float:
    decade = 10.0 ** math.floor(math.log10(value))
    return max(step * decade for step in (0.5, 1, 2, 5) if step * decade < value)


def _rounded_up(value: float) -> float:
    decade = 10.0 ** math.floor(math.log10(value))
    return min(step * decade for step in (2, 5, 10, 20) if step * decade > value)


def _timeline_section(runs: Sequence[Run]) -> str:
    if not any(run.timeline for run in runs):
        return ""
    panels: list[tuple[str, Callable[[Point], float | None]]] = [
        ("requests/s", lambda point: point.rps),
        ("p99, ms", lambda point: None if point.p99_s is None else point.p99_s * 1000),
        ("server memory, MiB", lambda point: point.server_memory_bytes and point.server_memory_bytes / 1024**2),
    ]
    panels = [(name, of) for name, of in panels if any(of(point) is not None for run in runs for point in run.timeline)]
    floods = {flood for run in runs if (flood := _flood_span(run.timeline)) is not None}

    def draw(figure: Figure) -> None:
        for axes, (name, of) in zip(
            figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0], panels, strict=True
        ):
            for number, run in enumerate(runs):
                times_s = [point.at_s - point.seconds / 2 for point in run.timeline]
                values = [_or_nan(of(point)) for point in run.timeline]
                axes.plot(times_s, values, marker="." if len(values) == 1 else "", **_line(number))
            for start_s, end_s in sorted(floods):
                axes.axvspan(start_s, end_s, color="#d55e00", alpha=0.1, linewidth=0)
            axes.set(ylabel=name, xlim=(0, max(point.at_s for run in runs for point in run.timeline)))
            highest = max(value for run in runs for point in run.timeline if (value := of(point)) is not None)
            axes.set_ylim(0, HEADROOM * highest or 1)
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
        axes.set_xlabel("seconds")

    note = "Each point is one interval." + (" Shaded: while the flood went on." if floods else "")
    return _plot_section("Over time", note, runs, "Over time", draw, height=0.6 + 2 * len(panels))


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _flood_span(timeline: Sequence[Point]) -> tuple[float, float] | None:
    during = [point for point in timeline if point.phase == "during"]
    return (during[0].at_s - during[0].seconds, during[-1].at_s) if during else None


def _line(number: int) -> dict[str, Any]:
    return {"color": _COLORS[number % len(_COLORS)], "linewidth": 1.5, "dashes": _dashes(number)}


def _dashes(number: int) -> tuple[float, ...]:
    return _DASHES[number // len(_COLORS) % len(_DASHES)]


def _plot_section(
    title: str, note: str, runs: Sequence[Run], label: str, draw: Callable[[Figure], None], height: float
) -> str:
    legend = "".join(f"<li>{_sample_line(number)}{escape(run.name)}</li>" for number, run in enumerate(runs))
    return (
        f'<h2>{title}</h2>\n<p class="note">{note}</p>\n<ul class="legend">{legend}</ul>\n'
        f'<div class="plot scroll">{_svg(label, draw, height)}</div>'
    )


def _sample_line(number: int) -> str:
    dashes = " ".join(f"{3 * length:g}" for length in _dashes(number))
    return (
        '<svg viewBox="0 0 32 10" aria-hidden="true"><line x1="0" y1="5" x2="32" y2="5" stroke-width="3" '
        f'stroke="{_COLORS[number % len(_COLORS)]}" stroke-dasharray="{dashes or "none"}"/></svg>'
    )


def _svg(label: str, draw: Callable[[Figure], None], height: float) -> str:
    import matplotlib
    from matplotlib.figure import Figure

    # Whatever style the operator keeps for his own plots stays out.
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({**_PLOT_STYLE, "svg.hashsalt": label})
        figure = Figure(figsize=(9, height), layout="constrained")
        draw(figure)
        file = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", metadata=nothing)
    text = file.getvalue()
    # Groups are named alike in every picture, and a page has each name once.
    picture = re.sub(r'<g id="[^"]*"', "<g", text[text.index("<svg") :])
    return picture.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1).strip()
