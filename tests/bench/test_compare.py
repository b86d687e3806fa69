"""Comparison of measurements: which runs are matched, and when a difference exceeds the noise."""

import math

import pytest

from gatewayx.bench.compare import MOST_BATCHES, comparison, table
from support.bench_runs import (
    make_flood,
    make_flood_run,
    make_generator,
    make_good,
    make_latency,
    make_point,
    make_points,
    make_run,
    make_server,
)


def verdicts(baseline, other):
    """Of every metric, by its name."""
    lines = comparison([("a.json", [baseline]), ("b.json", [other])])
    return {line.metric: line.verdict for line in lines if not line.warning}


def warnings(baseline, other):
    """Every warning about two runs."""
    return [line.warning for line in comparison([("a.json", [baseline]), ("b.json", [other])]) if line.warning]


def line_of(metric, baseline, other):
    """The line of one metric."""
    lines = comparison([("a.json", [baseline]), ("b.json", [other])])
    return next(line for line in lines if line.metric == metric)


def scaled(scale, spread=0.01, **changes):
    """A run with `scale` times the usual requests, latency and processor time."""
    server = make_server(cpu_s=10 * scale)
    timeline = make_points(60, spread, scale)
    return make_run(
        **{
            "rps": 1000 * scale,
            "latency_s": make_latency(0.001 * scale),
            "server": server,
            "timeline": timeline,
            **changes,
        }
    )


def test_every_metric_is_compared_with_the_baseline():
    lines = comparison([("a.json", [scaled(1.0)]), ("b.json", [scaled(1.5)])])
    found = {line.metric: (line.baseline, line.other, line.ratio) for line in lines}
    assert found == {
        "requests/s": pytest.approx((1000, 1500, 1.5)),
        "p50": pytest.approx((0.001, 0.0015, 1.5)),
        "p99": pytest.approx((0.005, 0.0075, 1.5)),
        "p99.9": pytest.approx((0.01, 0.015, 1.5)),
        "errors": pytest.approx((0.0025, 0.0025, 1.0)),
        "CPU/request": pytest.approx((0.0005, 0.00075, 1.5)),
        "peak memory": pytest.approx((64 * 1024**2, 64 * 1024**2, 1.0)),
    }


@pytest.mark.parametrize(
    ("scale", "spread", "expected"),
    [
        (1.5, 0.01, ("better", "worse")),
        (0.5, 0.01, ("worse", "better")),
        (1.0, 0.01, ("within noise", "within noise")),
        (1.02, 0.3, ("within noise", "within noise")),
        (0.98, 0.3, ("within noise", "within noise")),
    ],
)
def test_a_difference_has_a_verdict_where_it_exceeds_the_noise(scale, spread, expected):
    # Batches of two in a swing of three intervals: their means scatter.
    found = verdicts(
        scaled(1.0, timeline=make_points(20, spread)), scaled(scale, timeline=make_points(20, spread, scale))
    )
    more, less = expected
    assert found["requests/s"] == more
    assert (found["p50"], found["p99"], found["CPU/request"]) == (less, less, less)


def test_what_has_no_intervals_has_no_verdict_however_large_the_difference():
    other = make_run(latency_s=make_latency(1.0), server=make_server(memory_peak_bytes=10**12))
    found = verdicts(make_run(), other)
    assert (found["p99.9"], found["peak memory"]) == ("-", "-")


@pytest.mark.parametrize(
    ("factors", "student_t"),
    [
        # The t table's ends and what is beyond: at most ten batches.
        ([1.0, 1.1], 63.657),
        ([1.0, 1.1, 1.0], 9.925),
        ([1.0, 1.1] * 5, 3.250),
        ([1.0] * 3 + [1.1] * 3 + [1.0] * 3 + [1.1] * 3 + [1.0] * 18, 3.250),
    ],
)
def test_noise_is_student_t_times_the_standard_error_of_the_means_of_batches(factors, student_t):
    timeline = [make_point(number + 1.0, rps=1000 * factor) for number, factor in enumerate(factors)]
    run = make_run(timeline=timeline)
    count = min(MOST_BATCHES, len(factors))
    size = len(factors) // count
    means = [1000 * sum(factors[start : start + size]) / size for start in range(0, len(factors), size)]
    mean = sum(means) / count
    squared_error = sum((value - mean) ** 2 for value in means) / (count - 1) / count
    assert line_of("requests/s", run, run).noise == pytest.approx(student_t * math.sqrt(2 * squared_error))


def test_the_run_with_fewer_batches_decides_how_sure_one_can_be():
    few, many = make_run(timeline=make_points(3)), make_run(timeline=make_points(61))
    assert line_of("requests/s", few, many).noise == line_of("requests/s", many, few).noise
    assert line_of("requests/s", few, many).noise > 9.925 * 1000 * 0.01 / math.sqrt(3)


def test_swings_slower_than_an_interval_are_noise_that_intervals_alone_would_hide():
    # Forty intervals at one speed and forty at another: neighbours tell the same thing twice.
    slow = [make_point(number + 1.0, rps=1000 if number // 40 % 2 else 1100) for number in range(80)]
    fast = [make_point(number + 1.0, rps=1000 if number % 2 else 1100) for number in range(80)]
    steady = make_run(rps=1080, timeline=[make_point(number + 1.0, rps=1080) for number in range(80)])
    assert verdicts(make_run(rps=1050, timeline=slow), steady)["requests/s"] == "within noise"
    assert verdicts(make_run(rps=1050, timeline=fast), steady)["requests/s"] == "better"


def test_a_short_last_interval_weighs_as_little_as_it_lasted():
    timeline = [make_point(number + 1.0) for number in range(19)]
    timeline.append(make_point(19.01, seconds=0.01, requests=1, rps=100.0))
    assert line_of("requests/s", make_run(timeline=timeline), make_run(timeline=timeline)).noise < 10


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_intervals_tell_nothing(count):
    found = verdicts(make_run(timeline=make_points(count)), make_run(rps=1.0))
    assert set(found.values()) == {"-"}


def test_intervals_without_an_answer_are_left_out():
    timeline = [*make_points(10), make_point(11.0, requests=0, rps=0.0, p50_s=None, p99_s=None, server_cpu_share=None)]
    found = verdicts(make_run(timeline=timeline), make_run(timeline=timeline))
    assert found["p99"] == found["CPU/request"] == "within noise"


def test_a_latency_that_differs_by_less_than_the_histogram_can_tell_is_within_the_noise():
    steady = {"timeline": [make_point(number + 1.0) for number in range(10)]}
    closer = {"timeline": [make_point(number + 1.0, p50_s=0.001005) for number in range(10)]}
    found = verdicts(make_run(**steady), make_run(latency_s=make_latency(0.001005), **closer))
    assert found["p50"] == "within noise"


def test_a_percentile_moved_by_one_stall_is_within_the_noise():
    stall = make_points(60)
    stall[30] = make_point(31.0, p99_s=2.0)
    slow = make_latency()
    slow.p99 = 0.5
    assert (
        verdicts(make_run(timeline=make_points(60)), make_run(latency_s=slow, timeline=stall))["p99"] == "within noise"
    )


def test_the_share_of_errors_is_compared():
    steady = [make_point(number + 1.0, errors=2 + number % 2) for number in range(20)]
    failing = [make_point(number + 1.0, errors=99 + number % 2) for number in range(20)]
    baseline = make_run(errors={"status": 50}, timeline=steady)
    assert verdicts(baseline, make_run(errors={"status": 1990}, timeline=failing))["errors"] == "worse"
    assert verdicts(baseline, baseline)["errors"] == "within noise"


def test_no_ratio_is_given_to_a_baseline_of_zero():
    assert line_of("errors", make_run(errors={}), make_run()).ratio is None


def test_what_one_run_did_not_measure_cannot_be_told():
    found = verdicts(make_run(), make_run(server=None, latency_s=None))
    assert [metric for metric, verdict in found.items() if verdict != "-"] == ["requests/s", "errors"]


def test_requests_never_sent_cost_the_server_nothing():
    run = make_run(requests=20_000, errors={"not_sent": 10_000}, server=make_server(cpu_s=10.0))
    assert line_of("CPU/request", run, run).baseline == pytest.approx(0.001)


def test_of_a_flood_good_clients_during_it_are_compared():
    calm, hurt = make_flood_run(), make_flood_run(flood=make_flood(during=make_good(rps=100.0, errors=50, p99_s=1.0)))
    lines = {line.metric: line for line in comparison([("a", [calm]), ("b", [hurt])])}
    assert (lines["requests/s"].baseline, lines["requests/s"].other) == (800.0, 100.0)
    assert (lines["p99"].baseline, lines["p99"].other) == (0.02, 1.0)
    assert lines["errors"].other == 0.01
    assert lines["p99.9"].baseline is None
    assert lines["CPU/request"].baseline == pytest.approx(0.0005, rel=0.02)


def test_only_intervals_of_the_load_or_during_a_flood_make_the_noise():
    run = make_flood_run()
    wild = [make_point(point.at_s, rps=point.at_s * 1e6, phase=point.phase) for point in run.timeline]
    mixed = [calm if calm.phase == "during" else other for calm, other in zip(run.timeline, wild, strict=True)]
    assert line_of("requests/s", run, run) == line_of("requests/s", make_flood_run(timeline=mixed), run)


@pytest.mark.parametrize(
    ("baseline", "other", "pairs"),
    [
        (["a", "b"], ["b", "a"], {("a", "a"), ("b", "b")}),
        (["a"], ["b"], {("a", "b")}),
        (["a", "b"], ["b"], {("b", "b")}),
        (["a", "b"], ["c"], set()),
        (["a"], ["b", "a"], {("a", "a")}),
    ],
)
def test_runs_are_matched_by_name_or_where_each_file_has_but_one(baseline, other, pairs):
    lines = comparison(
        [
            ("A", [make_run(name, rps=1000.0 + ord(name)) for name in baseline]),
            ("B", [make_run(name, rps=1000.0 + ord(name)) for name in other]),
        ]
    )
    found = {
        (chr(int(line.baseline) - 1000), chr(int(line.other) - 1000)) for line in lines if line.metric == "requests/s"
    }
    assert found == pairs


def test_runs_of_one_name_are_matched_in_their_order():
    runs = [make_run("a", rps=1.0), make_run("a", rps=2.0)]
    lines = comparison([("A", runs), ("B", runs)])
    assert [(line.baseline, line.other) for line in lines if line.metric == "requests/s"] == [(1, 1), (2, 2)]


def test_a_run_without_its_like_is_told_of():
    lines = comparison([("A", [make_run("a"), make_run("b")]), ("B", [make_run("b"), make_run("c")])])
    told = {(line.run, line.warning) for line in lines if line.warning}
    assert told == {("a", "B has no run of this name"), ("c", "A has no run of this name")}


def test_every_file_is_compared_with_the_first():
    lines = comparison([("A", [make_run(rps=1.0)]), ("B", [make_run(rps=2.0)]), ("C", [make_run(rps=3.0)])])
    assert [(line.baseline_name, line.other_name, line.ratio) for line in lines if line.metric == "requests/s"] == [
        ("A", "B", 2.0),
        ("A", "C", 3.0),
    ]


@pytest.mark.parametrize("files", [[], [("A", [])], [("A", [make_run()])], [("A", []), ("B", [])]])
def test_nothing_to_compare_gives_no_lines(files):
    assert comparison(files) == []
    assert table(comparison(files)) == ""


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        (
            {"settings": {"connections": 8, "duration": 20, "body": "hello"}},
            "settings differ: connections 64 against 8",
        ),
        (
            {"settings": {"connections": 64, "duration": 20, "rate": 9}},
            "settings differ: body hello against not given, rate not given against 9",
        ),
        (
            {"machine": {"cpu": "A processor", "cores": 4, "kernel": "6.1"}},
            "machine differs: cores 8 against 4",
        ),
        ({"seconds": 10.0}, "duration differs: 20 s against 10 s"),
        (
            {"generator": make_generator(limited=True, reasons=["one core was busy", "sent late"])},
            "in b.json the generator limited the run: one core was busy; sent late",
        ),
    ],
)
def test_what_makes_a_comparison_doubtful_is_told(changes, warning):
    assert warnings(make_run(), make_run(**changes)) == [warning]


def test_a_limited_baseline_is_told_of_too():
    limited = make_run(generator=make_generator(limited=True))
    assert warnings(limited, make_run()) == ["in a.json the generator limited the run: no reason given"]


def test_runs_alike_give_no_warning_even_if_one_ended_a_little_later():
    assert warnings(make_run(), make_run(seconds=20.3)) == []


def test_the_table_has_a_row_for_each_metric_and_the_warnings_below():
    lines = comparison([("a.json", [make_run()]), ("b.json", [make_run(seconds=10.0)])])
    heading, columns, *rows, warning = table(lines).splitlines()
    assert heading == "load: a.json (baseline), b.json"
    assert columns.split() == ["baseline", "other", "ratio", "noise"]
    assert [row.split("  ")[1].strip() for row in rows] == [line.metric for line in lines if not line.warning]
    assert rows[3].split() == ["p99.9", "10", "ms", "10", "ms", "1.000", "-", "-"]
    assert rows[0].endswith("within noise")
    assert warning == "  warning: duration differs: 20 s against 10 s"


def test_names_cannot_steer_the_terminal():
    lines = comparison([("a\x1b[2J", [make_run("\x1b]0;x\x07")]), ("b", [make_run("\x1b]0;x\x07", seconds=1.0)])])
    assert all(character.isprintable() or character == "\n" for character in table(lines))
