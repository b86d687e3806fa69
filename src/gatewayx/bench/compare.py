"""What changed from one measurement to another, and whether the change exceeds the noise.

The noise is that within each run, by batch means: the intervals of its timeline are split into consecutive batches,
nearly independent where neighbouring intervals are not, and the scatter of the batches' means tells how well the run's
own mean is known. It knows nothing of the drift between runs: another placement of
memory, another neighbour on the machine, a warmer processor. A difference within the noise is none; one that exceeds it
is real between these two runs, and only runs repeated in turns tell whether it comes from the change under test.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from gatewayx.bench.result import Point, Run
from gatewayx.bench.units import bytes_text, number_text, share_text, time_text

MOST_BATCHES = 10

# Two-sided, 99 %, by degrees of freedom: NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.2, column 0.995.
_STUDENT_T = {1: 63.657, 2: 9.925, 3: 5.841, 4: 4.604, 5: 4.032, 6: 3.707, 7: 3.499, 8: 3.355, 9: 3.250}

# Of a latency: the width of a bucket of gatewayx.core.histogram. A smaller difference may be rounding alone.
RESOLUTION = 1 / 128

# A run whose end was slow may have lasted longer by this share and still counts as one of the same duration.
DURATION_TOLERANCE = 0.05

BETTER = "better"
WORSE = "worse"
WITHIN_NOISE = "within noise"
UNKNOWN = "-"

# What an interval measured, and how much it weighs in a mean.
_Sample = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """One metric of one run, or a warning about that run, in which case all that measures is None."""

    baseline_name: str
    other_name: str
    run: str
    metric: str = ""
    baseline: float | None = None
    other: float | None = None
    # The other over the baseline.
    ratio: float | None = None
    # The smallest difference that exceeds the noise, in the metric's unit.
    noise: float | None = None
    # BETTER, WORSE, WITHIN_NOISE or UNKNOWN.
    verdict: str = UNKNOWN
    warning: str = ""


@dataclass(frozen=True)
class _Metric:
    name: str
    text: Callable[[float], str]
    figure: Callable[[Run], float | None]
    # Of one interval, with its weight; None where the interval has no figure.
    sample: Callable[[Point], tuple[float, float | None]] | None = None
    more_is_better: bool = False
    resolution: float = 0.0


def comparison(named_runs: Sequence[tuple[str, Sequence[Run]]]) -> list[Line]:
    """Compare the runs of every file with those of the first; a file is its name and its runs.

    Runs are matched by their names, those of one name in their order; a file with one run matches another with one
    whatever their names. Of a flood, requests, latency, errors and processor time are those of good clients during it.
    """
    if not named_runs:
        return []
    (baseline_name, baseline_runs), *others = named_runs
    lines = []
    for other_name, other_runs in others:
        pairs, missing = _match(baseline_runs, other_runs)
        for baseline, other in pairs:
            names = (baseline_name, other_name)
            name = baseline.name if baseline.name == other.name else f"{baseline.name} and {other.name}"
            lines += [_compare(metric, names, name, baseline, other) for metric in _METRICS]
            lines += [Line(*names, name, warning=warning) for warning in _warnings(names, baseline, other)]
        for run, file in [(run, other_name) for run in missing[0]] + [(run, baseline_name) for run in missing[1]]:
            lines.append(Line(baseline_name, other_name, run.name, warning=f"{file} has no run of this name"))
    return lines


def table(lines: Sequence[Line]) -> str:
    """The lines as text for a terminal: one table for each run, its warnings below it."""
    blocks: dict[tuple[str, str, str], list[Line]] = {}
    for line in lines:
        blocks.setdefault((line.baseline_name, line.other_name, line.run), []).append(line)
    return "\n".join(_block(*key, block) for key, block in blocks.items())


def _block(baseline_name: str, other_name: str, run: str, lines: Sequence[Line]) -> str:
    rows: list[Sequence[str]] = [("", "baseline", "other", "ratio", "noise", "")]
    rows += [_cells(line) for line in lines if not line.warning]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    texts = [_printable(f"{run}: {baseline_name} (baseline), {other_name}")]
    if len(rows) > 1:
        for metric, *figures, verdict in rows:
            cells = [f"{figure:>{width}}" for figure, width in zip(figures, widths[1:-1], strict=True)]
            texts.append(f"  {metric:<{widths[0]}}  {'  '.join(cells)}  {verdict}".rstrip())
    texts += [_printable(f"  warning: {line.warning}") for line in lines if line.warning]
    return "\n".join(texts) + "\n"


def _cells(line: Line) -> tuple[str, ...]:
    text = next(metric.text for metric in _METRICS if metric.name == line.metric)
    return (
        line.metric,
        UNKNOWN if line.baseline is None else text(line.baseline),
        UNKNOWN if line.other is None else text(line.other),
        UNKNOWN if line.ratio is None else f"{line.ratio:.3f}",
        UNKNOWN if line.noise is None else f"±{text(line.noise)}",
        line.verdict,
    )


def _printable(text: str) -> str:
    """Names come from files and must not steer the terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _match(baseline: Sequence[Run], others: Sequence[Run]) -> tuple[list[tuple[Run, Run]], tuple[list[Run], list[Run]]]:
    if len(baseline) == len(others) == 1:
        return [(baseline[0], others[0])], ([], [])
    pairs, only_baseline, left = [], [], list(others)
    for run in baseline:
        match = next((other for other in left if other.name == run.name), None)
        if match is None:
            only_baseline.append(run)
        else:
            # By identity: equal runs are still two.
            left = [other for other in left if other is not match]
            pairs.append((run, match))
    return pairs, (only_baseline, left)


def _compare(metric: _Metric, names: tuple[str, str], name: str, baseline: Run, other: Run) -> Line:
    before, after = metric.figure(baseline), metric.figure(other)
    line = Line(*names, name, metric.name, before, after)
    if before is None or after is None:
        return line
    line = replace(line, ratio=after / before if before else None)
    noise, difference_of_means = _noise(metric, baseline, other)
    if noise is None:
        return line
    noise = max(noise, metric.resolution * before)
    # The figure of a run is not the mean of its intervals where it is a percentile: both must have moved alike.
    differences = (after - before, difference_of_means)
    verdict = WITHIN_NOISE
    if min(differences) > noise:
        verdict = BETTER if metric.more_is_better else WORSE
    elif max(differences) < -noise:
        verdict = WORSE if metric.more_is_better else BETTER
    return replace(line, noise=noise, verdict=verdict)


def _noise(metric: _Metric, baseline: Run, other: Run) -> tuple[float | None, float]:
    if metric.sample is None:
        return None, 0.0
    batches = [_batch_means(metric, run) for run in (baseline, other)]
    fewest = min(len(means) for means in batches)
    if fewest < 2:
        return None, 0.0
    squared_errors = [statistics.variance(means) / len(means) for means in batches]
    noise = _STUDENT_T[fewest - 1] * math.sqrt(sum(squared_errors))
    return noise, statistics.fmean(batches[1]) - statistics.fmean(batches[0])


def _batch_means(metric: _Metric, run: Run) -> list[float]:
    samples = _samples(metric, run)
    count = min(MOST_BATCHES, len(samples))
    edges = [len(samples) * number // count for number in range(count + 1)] if count else []
    return [_mean(samples[start:end]) for start, end in pairwise(edges)]


def _samples(metric: _Metric, run: Run) -> list[_Sample]:
    assert metric.sample is not None
    taken = [metric.sample(point) for point in run.timeline if point.phase in ("load", "during")]
    return [(weight, value) for weight, value in taken if weight > 0 and value is not None]


def _mean(samples: Sequence[_Sample]) -> float:
    return sum(weight * value for weight, value in samples) / sum(weight for weight, _ in samples)


def _rps(run: Run) -> float:
    return run.flood.during.rps if run.flood else run.rps


def _p50(run: Run) -> float | None:
    if run.flood:
        return run.flood.during.p50_s
    return run.latency_s.p50 if run.latency_s else None


def _p99(run: Run) -> float | None:
    if run.flood:
        return run.flood.during.p99_s
    return run.latency_s.p99 if run.latency_s else None


def _p999(run: Run) -> float | None:
    return run.latency_s.p999 if run.latency_s and not run.flood else None


def _error_share(run: Run) -> float | None:
    if run.flood:
        during = run.flood.during
        return during.errors / during.requests if during.requests else None
    return run.error_share if run.requests else None


def _cpu_per_request(run: Run) -> float | None:
    if run.flood:
        # The server's total holds the phases around the flood too.
        samples = _samples(_CPU, run)
        return _mean(samples) if samples else None
    sent = run.requests - run.errors.get("not_sent", 0)
    return run.server.cpu_s / sent if run.server and sent > 0 else None


def _interval_error_share(point: Point) -> tuple[float, float | None]:
    return point.requests, point.errors / point.requests if point.requests else None


def _interval_cpu_per_request(point: Point) -> tuple[float, float | None]:
    if point.server_cpu_share is None or not point.requests:
        return 0.0, None
    return point.requests, point.server_cpu_share * point.seconds / point.requests


_CPU = _Metric("CPU/request", time_text, _cpu_per_request, _interval_cpu_per_request)

_METRICS = (
    _Metric("requests/s", number_text, _rps, lambda point: (point.seconds, point.rps), more_is_better=True),
    _Metric("p50", time_text, _p50, lambda point: (point.requests, point.p50_s), resolution=RESOLUTION),
    _Metric("p99", time_text, _p99, lambda point: (point.requests, point.p99_s), resolution=RESOLUTION),
    _Metric("p99.9", time_text, _p999),
    _Metric("errors", share_text, _error_share, _interval_error_share),
    _CPU,
    _Metric("peak memory", bytes_text, lambda run: run.server.memory_peak_bytes if run.server else None),
)


def _warnings(names: tuple[str, str], baseline: Run, other: Run) -> list[str]:
    warnings = [
        *_differences("settings", baseline.settings, other.settings),
        *_differences("machine", baseline.machine, other.machine),
    ]
    if abs(baseline.seconds - other.seconds) > DURATION_TOLERANCE * max(baseline.seconds, other.seconds):
        warnings.append(f"duration differs: {baseline.seconds:.4g} s against {other.seconds:.4g} s")
    for file, run in zip(names, (baseline, other), strict=True):
        if run.generator.limited:
            reasons = "; ".join(run.generator.reasons) or "no reason given"
            warnings.append(f"in {file} the generator limited the run: {reasons}")
    return warnings


def _differences(what: str, baseline: dict[str, object], other: dict[str, object]) -> list[str]:
    different = [
        f"{key} {baseline.get(key, 'not given')} against {other.get(key, 'not given')}"
        for key in sorted({*baseline, *other})
        if baseline.get(key) != other.get(key)
    ]
    return [f"{what} differ{'' if what == 'settings' else 's'}: {', '.join(different)}"] if different else []
