"""What --expect asks of a measurement: METRIC OPERATOR VALUE, such as "p99 < 10ms", "errors<=0.1%" or "5xx<1"."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from gatewayx.bench.result import LATENCY_FIGURES, Expectation, GoodTraffic, Run, Server

# In what a metric is measured: seconds, 0 to 1 (of a core: above 1 for several), how often, a second, or bytes.
Kind = Literal["time", "share", "count", "rate", "bytes"]

# How many of each unit make a second: dividing rounds once, so "10ms" is exactly 0.01. Unicode has two mus.
_UNITS_PER_S = {"us": 1e6, "µs": 1e6, "μs": 1e6, "ms": 1e3, "s": 1.0}
_UNIT_BYTES = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}

_OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}

_RUN: Mapping[str, Callable[[Run], float | None]] = {
    "rps": lambda run: run.rps,
    "rate": lambda run: run.rate_reached,
}
_SERVER: Mapping[str, Callable[[Server], int]] = {
    "memory": lambda server: server.memory_peak_bytes,
    "growth": lambda server: server.memory_growth_bytes,
}
_GOOD: Mapping[str, Callable[[GoodTraffic], float | None]] = {
    "good-p99": lambda good: good.p99_s,
    "good-rps": lambda good: good.rps,
}
METRICS = (*LATENCY_FIGURES, "errors", *_RUN, *_SERVER, "cpu", *_GOOD)
"""Every metric by its name; a status such as 503 or 5xx is one as well."""

_EXPECTATION = re.compile(r"([^\s<>=]+)\s*([<>=]+)\s*([^\s<>=].*)")
_STATUS = re.compile(r"[1-5](?:xx|[0-9]{2})")
_VALUE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(\S*)")


@dataclass(frozen=True)
class Expected:
    """One expectation. `value` is in the unit of `kind`: seconds, a share, a count, a second, or bytes."""

    text: str
    metric: str
    operator: str
    value: float
    kind: Kind

    def judge(self, run: Run) -> Expectation:
        """Compare the expectation with a run. A figure that the run did not measure is None and has not passed.

        Shares of errors and of statuses are of all requests; a run without requests has neither them nor counts.
        """
        measured = self._measure(run)
        passed = measured is not None and _OPERATORS[self.operator](measured, self.value)
        return Expectation(self.text, measured, passed)

    def _measure(self, run: Run) -> float | None:
        if self.metric in LATENCY_FIGURES:
            return None if run.latency_s is None else LATENCY_FIGURES[self.metric](run.latency_s)
        if self.metric in _RUN:
            return _RUN[self.metric](run)
        if self.metric in _SERVER:
            return None if run.server is None else _SERVER[self.metric](run.server)
        if self.metric in _GOOD:
            return None if run.flood is None else _GOOD[self.metric](run.flood.during)
        if self.metric == "cpu":
            return None if run.server is None or run.seconds <= 0 else run.server.cpu_s / run.seconds
        if not run.requests:
            return None
        count = run.error_count if self.metric == "errors" else _status_count(run, self.metric)
        return count / run.requests if self.kind == "share" else count


def parse(text: str) -> Expected:
    """Read one expectation. Raises ValueError, whose one line names what is allowed."""
    text = text.strip()
    parts = _EXPECTATION.fullmatch(text)
    if parts is None or parts[2] not in _OPERATORS:
        raise ValueError(f"{text!r} is not METRIC OPERATOR VALUE with one of {' '.join(_OPERATORS)}, like p99<10ms")
    metric, comparison, value_text = parts.groups()
    value, kind = _read_value(metric, value_text)
    return Expected(text, metric, comparison, value, kind)


def _read_value(metric: str, text: str) -> tuple[float, Kind]:
    number, unit = _read_number(text)
    if metric in LATENCY_FIGURES or metric == "good-p99":
        if number is not None and unit in _UNITS_PER_S:
            return number / _UNITS_PER_S[unit], "time"
        raise ValueError(f"{metric} is compared with a time in us, µs, ms or s, like 10ms, not with {text!r}")
    if metric in _SERVER:
        if number is not None and unit in _UNIT_BYTES:
            return number * _UNIT_BYTES[unit], "bytes"
        raise ValueError(f"{metric} is compared with a size in B, KiB, MiB or GiB, like 64MiB, not with {text!r}")
    if metric in _RUN or metric == "good-rps":
        if number is not None and not unit:
            return number, "rate"
        raise ValueError(f"{metric} is compared with a number a second, like 1000, not with {text!r}")
    if metric == "cpu":
        if number is not None and unit in ("", "%"):
            return number / 100 if unit else number, "share"
        raise ValueError(f"cpu is compared with a share of one core, like 50% or 0.5, not with {text!r}")
    if metric == "errors" or _STATUS.fullmatch(metric):
        if number is not None and unit == "%":
            return number / 100, "share"
        if number is not None and not unit and number.is_integer():
            return number, "count"
        raise ValueError(f"{metric} is compared with a count, like 1, or a share, like 0.1%, not with {text!r}")
    raise ValueError(f"{metric!r} is no metric: {', '.join(METRICS)}, or a status like 503 or 5xx")


def _read_number(text: str) -> tuple[float | None, str]:
    parts = _VALUE.fullmatch(text)
    if parts is None or not math.isfinite(number := float(parts[1])):
        return None, ""
    return number, parts[2]


def _status_count(run: Run, status: str) -> int:
    if status.endswith("xx"):
        return sum(count for answered, count in run.statuses.items() if answered[:1] == status[0])
    return run.statuses.get(status, 0)
