"""Families of metrics, for prometheus-client's exposition, in parts of which only those are composed that have changed.

An exposition of a hundred functions has thousands of lines, each of which takes prometheus-client 10 microseconds or
more, and nothing else is answered meanwhile. So it composes a line once; later only the value behind it is put anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric


class Part(NamedTuple):
    """Some samples of a family, each of which is a line."""

    # What the samples are of; a family has one part of a name.
    name: str
    # As long as these are equal the lines differ in their values alone.
    labels: object
    # The samples' values, in the order of their lines.
    values: Sequence[float]
    # Makes a family that has these samples alone.
    make: Callable[[], Metric]


class Family(NamedTuple):
    """A family: itself with the samples that stand before all others, and parts with further ones."""

    metric: Metric
    parts: Iterable[Part] = ()


def gauge(name: str, documentation: str, value: float) -> Family:
    """A gauge without labels."""
    return Family(GaugeMetricFamily(name, documentation, value=value))


def labelled(
    kind: type[GaugeMetricFamily | CounterMetricFamily],
    name: str,
    documentation: str,
    labels: Iterable[str],
    rows: Iterable[tuple[tuple[str, ...], float]],
) -> Metric:
    """A metric with these labels and, for each row, the values of the labels and the sample's."""
    made = kind(name, documentation, labels=tuple(labels))
    for values, count in rows:
        made.add_metric(values, count)
    return made
