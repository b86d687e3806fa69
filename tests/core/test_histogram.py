"""The histogram of times, against exact sorted values and against the package hdrhistogram."""

from __future__ import annotations

import io
import json
import math
import random
import re
from collections.abc import Iterable
from fractions import Fraction
from itertools import pairwise
from types import SimpleNamespace

import hdrh.iterators
import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given
from hypothesis import strategies as st

from gatewayx.core.histogram import Histogram

US = 1_000
MS = 1_000_000
S = 1_000_000_000
LOWEST_NS = US
HIGHEST_NS = 3600 * S

# What the histogram promises, and what HdrHistogram with three significant figures does.
RELATIVE_ERROR = 0.005
HDR_RELATIVE_ERROR = 0.001
PERCENTILES = ["0", "50", "90", "99", "99.9", "99.99", "100"]

PARTS = 128
PART_BITS = 7
BUCKETS = 33 * PARTS
BORDERS_NS = [
    border_ns
    for exponent in range(9, 42)
    for part in range(PARTS)
    if LOWEST_NS < (border_ns := (PARTS + part) << (exponent - PART_BITS)) < HIGHEST_NS
]

times_ns = st.integers(0, 2 * HIGHEST_NS) | st.floats(0, math.log(2 * HIGHEST_NS)).map(lambda log: int(math.exp(log)))


def histogram_of(values_ns: Iterable[int]) -> Histogram:
    """Return a histogram of these times."""
    histogram = Histogram()
    for value_ns in values_ns:
        histogram.record_s(value_ns / S)
    return histogram


def hdr_histogram_of(values_ns: Iterable[int]) -> HdrHistogram:
    """Return HdrHistogram's of these times."""
    histogram = HdrHistogram(1, HIGHEST_NS, 3)
    for value_ns in values_ns:
        assert histogram.record_value(value_ns)
    return histogram


def nearest_rank(values_ns: list[int], percentile: str) -> int:
    """Return the lowest of the sorted values that at least so many percent of them do not exceed."""
    return values_ns[max(math.ceil(Fraction(percentile) * len(values_ns) / 100), 1) - 1]


def log_uniform(generator: random.Random, count: int) -> list[int]:
    """Return random times of which every power of two within the range has as many."""
    low, high = math.log(LOWEST_NS), math.log(HIGHEST_NS)
    values_ns = (round(math.exp(generator.uniform(low, high))) for _ in range(count))
    return [min(max(value_ns, LOWEST_NS), HIGHEST_NS) for value_ns in values_ns]


def samples(name: str) -> list[int]:
    """Return 10,000 sorted times of the distribution of this name."""
    generator = random.Random(name)
    match name:
        case "log-uniform":
            values_ns = log_uniform(generator, 10_000)
        case "log-normal":
            values_ns = [round(2 * MS * generator.lognormvariate(0, 1)) for _ in range(10_000)]
        case "two humps":
            values_ns = [
                round(abs(generator.gauss(*generator.choice([(MS, 50 * US), (S, 50 * MS)])))) for _ in range(10_000)
            ]
        case "uniform":
            values_ns = [generator.randint(LOWEST_NS, S) for _ in range(10_000)]
        case "one outlier":
            values_ns = [*(generator.randint(90 * US, 110 * US) for _ in range(9_999)), 30 * S]
    return sorted(values_ns)


SAMPLES = ["log-uniform", "log-normal", "two humps", "uniform", "one outlier"]


def assert_told_within_the_promised_error(values_ns: Iterable[int]) -> None:
    histogram = Histogram()
    for value_ns in values_ns:
        histogram.clear()
        # Between two others: the lowest and the highest are exact, which hides the error.
        for recorded_s in (0, value_ns / S, 2 * HIGHEST_NS / S):
            histogram.record_s(recorded_s)
        assert abs(histogram.percentile_s(50) * S - value_ns) <= RELATIVE_ERROR * value_ns, value_ns


class TestError:
    def test_is_within_the_promise_at_and_beside_every_border_of_a_bucket(self) -> None:
        assert len(BORDERS_NS) > 4000
        assert_told_within_the_promised_error(
            border_ns + step_ns
            for border_ns in BORDERS_NS
            for step_ns in (-1, 0, 1)
            if border_ns + step_ns >= LOWEST_NS
        )

    def test_is_within_the_promise_at_both_ends_of_the_range(self) -> None:
        assert_told_within_the_promised_error([LOWEST_NS, LOWEST_NS + 1, HIGHEST_NS - 1, HIGHEST_NS])

    def test_is_within_the_promise_anywhere(self) -> None:
        assert_told_within_the_promised_error(log_uniform(random.Random(1), 10_000))

    @given(st.integers(LOWEST_NS, HIGHEST_NS))
    def test_is_within_the_promise_for_any_value(self, value_ns: int) -> None:
        assert_told_within_the_promised_error([value_ns])

    def test_is_the_same_for_the_middle_of_a_bucket_as_for_its_values(self) -> None:
        for value_ns in log_uniform(random.Random(2), 2_000):
            [(middle_s, count)] = histogram_of([value_ns]).buckets()
            assert count == 1
            assert abs(middle_s * S - value_ns) <= RELATIVE_ERROR * value_ns


class TestBuckets:
    def test_a_border_is_told_from_what_is_below_it(self) -> None:
        for border_ns in BORDERS_NS:
            assert [count for _, count in histogram_of([border_ns, border_ns - 1]).buckets()] == [1, 1]

    def test_all_between_two_borders_is_one_bucket(self) -> None:
        for border_ns, next_border_ns in pairwise(BORDERS_NS):
            assert [count for _, count in histogram_of([border_ns, next_border_ns - 1]).buckets()] == [2]

    def test_are_in_order_and_count_every_value(self) -> None:
        values_ns = samples("log-uniform")
        buckets = histogram_of(values_ns).buckets()
        assert buckets == sorted(buckets)
        assert sum(count for _, count in buckets) == len(values_ns)

    def test_are_none_without_values(self) -> None:
        assert Histogram().buckets() == []


class TestOutsideOfTheRange:
    @pytest.mark.parametrize(
        ("outside_ns", "bound_ns"),
        [
            (0, LOWEST_NS),
            (1, LOWEST_NS),
            (LOWEST_NS - 1, LOWEST_NS),
            (HIGHEST_NS + 1, HIGHEST_NS),
            (2 * HIGHEST_NS, HIGHEST_NS),
            (1000 * HIGHEST_NS, HIGHEST_NS),
        ],
    )
    def test_a_value_counts_as_the_nearest_bound(self, outside_ns: int, bound_ns: int) -> None:
        assert histogram_of([outside_ns]).buckets() == histogram_of([bound_ns]).buckets()

    @pytest.mark.parametrize(
        ("values_ns", "bound_ns"), [([1, 2, S], LOWEST_NS), ([S, 2 * HIGHEST_NS, 3 * HIGHEST_NS], HIGHEST_NS)]
    )
    def test_a_percentile_is_the_bound(self, values_ns: list[int], bound_ns: int) -> None:
        assert histogram_of(values_ns).percentile_s(50) * S == pytest.approx(bound_ns, rel=RELATIVE_ERROR)

    def test_no_percentile_is_outside_of_what_was_recorded(self) -> None:
        below, above = histogram_of([10, 20, 30]), histogram_of([2 * HIGHEST_NS, 3 * HIGHEST_NS, 4 * HIGHEST_NS])
        assert [below.percentile_s(percentile) * S for percentile in (0, 50, 100)] == pytest.approx([10, 30, 30])
        assert [above.percentile_s(percentile) for percentile in (0, 50, 100)] == [7200, 7200, 14400]

    def test_count_lowest_highest_and_mean_are_exact(self) -> None:
        histogram = histogram_of([10, 5 * MS, 7 * HIGHEST_NS])
        assert histogram.count == 3
        assert histogram.min_s == 10 / S
        assert histogram.max_s == 7 * 3600
        assert histogram.mean_s == (10 + 5 * MS + 7 * HIGHEST_NS) / 3 / S

    def test_a_negative_time_counts_as_0(self) -> None:
        histogram = Histogram()
        histogram.record_s(-1.5)
        assert histogram.state() == histogram_of([0]).state()

    @pytest.mark.parametrize("value_s", [math.nan, math.inf, -math.inf, 1e10, -1e10])
    def test_what_no_nanoseconds_can_hold_is_refused(self, value_s: float) -> None:
        histogram = histogram_of([MS])
        before = histogram.state()
        with pytest.raises(ValueError, match="not a time"):
            histogram.record_s(value_s)
        assert histogram.state() == before

    @given(st.lists(times_ns, min_size=1, max_size=50))
    def test_whatever_is_recorded_count_lowest_highest_and_mean_are_exact(self, values_ns: list[int]) -> None:
        histogram = histogram_of(values_ns)
        assert histogram.count == len(values_ns)
        assert histogram.min_s == min(values_ns) / S
        assert histogram.max_s == max(values_ns) / S
        assert histogram.mean_s == sum(values_ns) / len(values_ns) / S


class TestPercentiles:
    @pytest.mark.parametrize("name", SAMPLES)
    def test_are_the_nearest_rank(self, name: str) -> None:
        values_ns = samples(name)
        histogram = histogram_of(values_ns)
        for percentile in PERCENTILES:
            exact_ns = nearest_rank(values_ns, percentile)
            assert histogram.percentile_s(float(percentile)) * S == pytest.approx(exact_ns, rel=RELATIVE_ERROR), (
                percentile
            )

    @pytest.mark.parametrize("name", SAMPLES)
    def test_are_those_of_hdrhistogram(self, name: str) -> None:
        values_ns = samples(name)
        histogram = histogram_of(values_ns)
        expected = hdr_histogram_of(values_ns).get_percentile_to_value_dict(
            [float(percentile) for percentile in PERCENTILES]
        )
        assert {percentile: histogram.percentile_s(percentile) * S for percentile in expected} == pytest.approx(
            expected, rel=RELATIVE_ERROR + HDR_RELATIVE_ERROR
        )

    @pytest.mark.parametrize("name", SAMPLES)
    def test_0_and_100_are_exact(self, name: str) -> None:
        values_ns = samples(name)
        histogram = histogram_of(values_ns)
        assert histogram.percentile_s(0) == histogram.min_s == values_ns[0] / S
        assert histogram.percentile_s(100) == histogram.max_s == values_ns[-1] / S

    @pytest.mark.parametrize("percentile", PERCENTILES)
    def test_are_0_without_values(self, percentile: str) -> None:
        histogram = Histogram()
        assert histogram.percentile_s(float(percentile)) == 0
        assert (histogram.count, histogram.min_s, histogram.max_s, histogram.mean_s) == (0, 0, 0, 0)

    @pytest.mark.parametrize("percentile", PERCENTILES)
    def test_of_one_value_are_that_value(self, percentile: str) -> None:
        assert histogram_of([12_345_678]).percentile_s(float(percentile)) == 0.012345678

    @pytest.mark.parametrize(
        ("count", "percentile", "rank"),
        [
            (2, "0", 1),
            (2, "50", 1),
            (2, "50.1", 2),
            (2, "99", 2),
            (10, "0", 1),
            (10, "10", 1),
            (10, "10.1", 2),
            (10, "30", 3),
            (10, "70", 7),
            (10, "90", 9),
            (10, "90.1", 10),
            (10, "99", 10),
            (1000, "50", 500),
            (1000, "55", 550),
            (1000, "90", 900),
            (1000, "99", 990),
            (1000, "99.9", 999),
            (1000, "99.99", 1000),
            (1000, "100", 1000),
        ],
    )
    def test_of_few_values_are_the_nearest_rank(self, count: int, percentile: str, rank: int) -> None:
        # Doubling shows a rank that is off by one, but 1,000 times it would leave the range.
        values_ns = [step * MS if count > 10 else MS * 2**step for step in range(1, count + 1)]
        assert nearest_rank(values_ns, percentile) == values_ns[rank - 1]
        told_ns = histogram_of(values_ns).percentile_s(float(percentile)) * S
        assert told_ns == pytest.approx(values_ns[rank - 1], rel=RELATIVE_ERROR)

    @pytest.mark.parametrize("count", [1, 2, 3, 7, 10, 100, 999, 1000, 1001, 10_000, 100_000])
    @pytest.mark.parametrize("percentile", PERCENTILES)
    def test_tell_the_last_of_many_low_values_from_the_first_high_one(self, count: int, percentile: str) -> None:
        rank = max(math.ceil(Fraction(percentile) * count / 100), 1)
        [bucket] = histogram_of([MS]).state()[3::2]
        [high_bucket] = histogram_of([S]).state()[3::2]
        for low_count, expected_ns in ((rank, MS), (rank - 1, S)):
            high_count = count - low_count
            histogram = Histogram()
            histogram.add_state(
                [MS if low_count else S, S if high_count else MS, 0.0, bucket, low_count, high_bucket, high_count]
            )
            assert histogram.percentile_s(float(percentile)) * S == pytest.approx(expected_ns, rel=RELATIVE_ERROR)

    @pytest.mark.parametrize("percentile", [-0.001, -1, 100.001, 1000, math.nan, math.inf, -math.inf])
    @pytest.mark.parametrize("values_ns", [[], [MS]])
    def test_out_of_range_are_refused(self, values_ns: list[int], percentile: float) -> None:
        with pytest.raises(ValueError, match="a percentile is 0 to 100"):
            histogram_of(values_ns).percentile_s(percentile)

    @given(
        st.lists(st.integers(LOWEST_NS, HIGHEST_NS), min_size=1, max_size=50),
        st.decimals(0, 100, places=3).map(str),
    )
    def test_of_any_values_are_the_nearest_rank(self, values_ns: list[int], percentile: str) -> None:
        told_ns = histogram_of(values_ns).percentile_s(float(percentile)) * S
        assert told_ns == pytest.approx(nearest_rank(sorted(values_ns), percentile), rel=RELATIVE_ERROR)


class TestMerging:
    @given(st.lists(st.lists(times_ns, max_size=20), max_size=5))
    def test_by_add_equals_recording_all_in_one(self, parts: list[list[int]]) -> None:
        merged = Histogram()
        for part in parts:
            merged.add(histogram_of(part))
        assert merged.state() == histogram_of(value_ns for part in parts for value_ns in part).state()
        assert merged.count == sum(map(len, parts))

    @given(st.lists(st.lists(times_ns, max_size=20), max_size=5))
    def test_by_state_equals_recording_all_in_one(self, parts: list[list[int]]) -> None:
        merged = Histogram()
        for part in parts:
            merged.add_state(json.loads(json.dumps(histogram_of(part).state())))
        assert merged.state() == histogram_of(value_ns for part in parts for value_ns in part).state()
        assert merged.count == sum(map(len, parts))

    def test_leaves_the_other_as_it_was(self) -> None:
        other = histogram_of([MS, S])
        before = other.state()
        merged = histogram_of([US])
        merged.add(other)
        merged.add(other)
        assert other.state() == before
        assert merged.state() == histogram_of([US, MS, S, MS, S]).state()

    def test_with_itself_doubles_every_count(self) -> None:
        histogram = histogram_of([MS, S])
        histogram.add(histogram)
        assert histogram.state() == histogram_of([MS, S, MS, S]).state()

    def test_with_an_empty_one_changes_nothing(self) -> None:
        histogram = histogram_of([MS, S])
        before = histogram.state()
        histogram.add(Histogram())
        histogram.add_state(Histogram().state())
        assert histogram.state() == before

    @pytest.mark.parametrize("other", [None, [], 1])
    def test_with_what_is_no_histogram_is_refused(self, other: object) -> None:
        with pytest.raises(TypeError):
            Histogram().add(other)

    @pytest.mark.parametrize(
        "state",
        [
            None,
            5,
            "",
            "abc",
            b"abc",
            [],
            [MS],
            [MS, S],
            [MS, S, 1.0, 1000],
            [MS, S, 1.0, 1000, 1, 1100],
            [MS, S, 1.0, -1, 1],
            [MS, S, 1.0, BUCKETS, 1],
            [MS, S, 1.0, 2**31, 1],
            [MS, S, 1.0, 2**64, 1],
            [MS, S, 1.0, 1000, -1],
            [MS, S, 1.0, 1000, 2**63],
            [MS, S, 1.0, 1000, 2**62, 1000, 2**62],
            [MS, S, 1.0, 1000, 2**62, 1001, 2**62],
            [MS, S, 1.0, 1000, 2**63 - 1],
            [MS, S, 1.0, 1000, 1, 1100, -1],
            [MS, S, 1.0, 1000, 1, BUCKETS, 1],
            [MS, S, 1.0, 1000, 1, "1100", 1],
            [MS, S, 1.0, 1000, 1, 1100, None],
            [MS, S, 1.0, 1000, 1, 1100, 1.5],
            [MS, S, 1.0, 1000, 1, 1100.0, 1],
            [MS, S, None, 1000, 1],
            [MS, S, "1", 1000, 1],
            [MS, S, math.nan, 1000, 1],
            [MS, S, math.inf, 1000, 1],
            [MS, S, -1.0, 1000, 1],
            [S, MS, 1.0, 1000, 1],
            [-1, MS, 1.0, 1000, 1],
            [MS, 2**63, 1.0, 1000, 1],
            [0.5, MS, 1.0, 1000, 1],
            [None, None, 1.0, 1000, 1],
            [MS, S, 1.0],
            [MS, S, 1.0, 1000, 0],
        ],
        ids=repr,
    )
    def test_with_what_is_no_state_is_refused_and_changes_nothing(self, state: object) -> None:
        histogram = histogram_of([2 * MS, 3 * MS])
        before = histogram.state()
        with pytest.raises(ValueError, match="not a histogram's state"):
            histogram.add_state(state)
        assert histogram.state() == before
        assert histogram.count == 2


class TestClear:
    def test_forgets_every_value(self) -> None:
        histogram = histogram_of(samples("log-uniform"))
        histogram.clear()
        assert histogram.state() == Histogram().state() == [0, 0, 0.0]
        assert (histogram.count, histogram.min_s, histogram.max_s, histogram.mean_s) == (0, 0, 0, 0)
        assert histogram.percentile_s(50) == 0
        assert histogram.buckets() == []

    def test_what_follows_is_as_in_a_new_one(self) -> None:
        histogram = histogram_of([US, S])
        histogram.clear()
        histogram.record_s(0.25)
        assert histogram.state() == histogram_of([250 * MS]).state()


def hdr_text(values_ns: Iterable[int]) -> list[str]:
    """Return the lines of HdrHistogram's own text in milliseconds."""
    out = io.BytesIO()
    hdr_histogram_of(values_ns).output_percentile_distribution(out, float(MS))
    return out.getvalue().decode().split("\n")


def text(values_ns: Iterable[int]) -> list[str]:
    """Return the lines of the text."""
    return histogram_of(values_ns).percentile_distribution().split("\n")


def rows(lines: list[str]) -> list[list[float]]:
    """Return the numbers between header and footer as a plotter reads them."""
    return [[float(column) for column in line.split()] for line in lines[2:] if line and not line.startswith("#")]


def footer(lines: list[str]) -> dict[str, float]:
    """Return the fields of the footer."""
    fields = re.findall(r"(\w+) *= *([\d.]+)[,\]]", "\n".join(line for line in lines if line.startswith("#")))
    return {name: float(number) for name, number in fields}


def apart() -> list[int]:
    """Return times of which none shares a bucket with a different one, in either histogram."""
    generator = random.Random(3)
    values_ns = [round(MS * 1.05**step) for step in range(300)]
    return [value_ns for value_ns in values_ns for _ in range(generator.choice([1, 2, 20]))]


DISTRIBUTIONS = {
    "no value": [],
    "one value": [5 * MS],
    "one value 1,000 times": [5 * MS] * 1000,
    "two values": [MS, S],
    "most at the highest": [MS] * 10 + [S] * 990,
    "most at the lowest": [MS] * 9_999 + [S],
    "values apart": apart(),
}


@pytest.fixture(params=DISTRIBUTIONS)
def values_ns(request: pytest.FixtureRequest) -> list[int]:
    """Sorted times."""
    return DISTRIBUTIONS[request.param]


@pytest.fixture
def steps_of_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let hdrhistogram make the steps of HdrHistogram in Java, C and JavaScript: it alone does not round down.

    `percentileReportingTicks` of Java's PercentileIterator: `(long) (Math.log(…) / Math.log(2)) + 1`.
    """
    rounding_down = SimpleNamespace(pow=lambda base, exponent: base ** math.floor(exponent), log=math.log2)
    monkeypatch.setattr(hdrh.iterators, "math", rounding_down)


class TestPercentileDistribution:
    @pytest.mark.usefixtures("steps_of_the_reference")
    def test_is_line_by_line_that_of_hdrhistogram(self, values_ns: list[int]) -> None:
        lines, expected = text(values_ns), hdr_text(values_ns)
        assert len(lines) == len(expected)
        assert lines[:2] == expected[:2]
        for line, expected_line in zip(lines[2:], expected[2:], strict=True):
            if line.startswith("#") or not line:
                assert re.sub("= *[0-9.]+", "=", line) == re.sub("= *[0-9.]+", "=", expected_line)
                continue
            assert line[12:] == expected_line[12:]
            assert float(line[:12]) == pytest.approx(float(expected_line[:12]), rel=RELATIVE_ERROR + HDR_RELATIVE_ERROR)

    def test_has_the_count_of_hdrhistogram_at_equal_percentiles(self, values_ns: list[int]) -> None:
        counts = {percentile: count for _, percentile, count, *_ in rows(text(values_ns))}
        expected = {percentile: count for _, percentile, count, *_ in rows(hdr_text(values_ns))}
        common = counts.keys() & expected.keys()
        assert common >= ({0, 1} if values_ns else set())
        assert {percentile: counts[percentile] for percentile in common} == {
            percentile: expected[percentile] for percentile in common
        }

    def test_has_the_footer_of_hdrhistogram(self, values_ns: list[int]) -> None:
        fields, expected = footer(text(values_ns)), footer(hdr_text(values_ns))
        assert list(fields) == list(expected) == ["Mean", "StdDeviation", "Max", "TotalCount", "Buckets", "SubBuckets"]
        assert fields["TotalCount"] == expected["TotalCount"] == len(values_ns)
        for name in ("Mean", "Max"):
            assert fields[name] == pytest.approx(expected[name], rel=HDR_RELATIVE_ERROR)
        mean_ns = sum(values_ns) / max(len(values_ns), 1)
        exact_ns = math.sqrt(sum((value_ns - mean_ns) ** 2 for value_ns in values_ns) / max(len(values_ns), 1))
        # The error of a value, not of the deviation: of equal values that is 0.
        assert fields["StdDeviation"] == pytest.approx(exact_ns / MS, abs=RELATIVE_ERROR * (mean_ns + exact_ns) / MS)

    @pytest.mark.parametrize("name", SAMPLES)
    def test_starts_at_0_rises_and_ends_at_1(self, name: str) -> None:
        values_ns = samples(name)
        columns = list(zip(*(row[:3] for row in rows(text(values_ns))), strict=True))
        assert all(list(column) == sorted(column) for column in columns)
        assert columns[1][0] == 0
        assert columns[1][-1] == 1
        assert columns[2][-1] == len(values_ns)
        assert len(set(columns[1])) == len(columns[1])

    @pytest.mark.parametrize("name", SAMPLES)
    def test_tells_the_value_at_each_percentile_and_count(self, name: str) -> None:
        values_ns = samples(name)
        for line in text(values_ns)[2:-5]:
            value_ms, percentile, count, inverse = line.split()
            # Three decimals are written.
            told = pytest.approx(float(value_ms), abs=RELATIVE_ERROR * float(value_ms) + 0.0005)
            assert nearest_rank(values_ns, str(Fraction(percentile) * 100)) / MS == told
            assert values_ns[int(count) - 1] / MS == told
            assert int(count) >= math.ceil(Fraction(percentile) * len(values_ns))
            assert float(inverse) == pytest.approx(1 / (1 - float(percentile)), abs=0.006)

    def test_ends_with_the_exact_highest_value_and_no_fourth_column(self) -> None:
        lines = text([MS, 123_456_000])
        assert lines[-5] == "     123.456 1.000000000000          2"
        assert lines[-1] == ""

    def test_halves_the_step_with_what_is_left_to_1(self) -> None:
        percentiles = [percentile for _, percentile, *_ in rows(text(samples("log-uniform")))]
        assert percentiles[:15] == [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.775, 0.8, 0.825, 0.85]

    def test_of_no_values_has_header_and_footer_only(self) -> None:
        lines = text([])
        assert lines[:2] == ["       Value     Percentile TotalCount 1/(1-Percentile)", ""]
        assert all(line.startswith("#[") for line in lines[2:5])
        assert lines[5:] == [""]

    def test_tells_no_value_outside_of_what_was_recorded(self) -> None:
        lowest_ns, highest_ns = 1_023_999, 1_024_001
        for value_ms, *_ in rows(text([lowest_ns] * 5 + [highest_ns] * 5)):
            assert value_ms == 1.024
        assert {value_ms for value_ms, *_ in rows(text([2 * HIGHEST_NS, 2 * HIGHEST_NS]))} == {7_200_000}
