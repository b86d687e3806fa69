"""A log-linear histogram of times; the .pxd has the C-level interface."""

from collections.abc import Iterable
from typing import final

TICKS_PER_HALF_DISTANCE: int

@final
class Histogram:
    """Counts times by bucket. 35 KB, whatever is recorded."""

    def __init__(self) -> None: ...
    @property
    def count(self) -> int: ...
    @property
    def min_s(self) -> float:
        """The lowest value, exactly; 0 without any."""
    @property
    def max_s(self) -> float:
        """The highest value, exactly; 0 without any."""
    @property
    def mean_s(self) -> float:
        """The exact mean; 0 without values."""
    def clear(self) -> None:
        """Forget every value."""
    def record_s(self, value_s: float) -> None:
        """Count a time in seconds. Raises ValueError for 285 years and more, and for NaN."""
    def add(self, other: Histogram) -> None:
        """Count every value of another histogram as well."""
    def percentile_s(self, percentile: float) -> float:
        """The value that so many percent (0 to 100) of all values do not exceed; 0 without values."""
    def buckets(self) -> list[tuple[float, int]]:
        """The middle of every bucket that has values, in seconds, and their count, in order."""
    def state(self) -> list[float]:
        """All of it as numbers: [lowest_ns, highest_ns, sum_ns, bucket, count, bucket, count …]."""
    def add_state(self, state: Iterable[float]) -> None:
        """Count every value that a `state` holds. Raises ValueError for what no state is, and counts none of it."""
    def percentile_distribution(self) -> str:
        """HdrHistogram's text of the whole distribution (.hgrm), in milliseconds: what its plotter reads."""
