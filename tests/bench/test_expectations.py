"""Expectations of a measurement: what can be asked, what is refused, and how a run is judged."""

import pytest

from gatewayx.bench.expectations import METRICS, parse
from support.bench_runs import make_flood, make_flood_run, make_good, make_run, make_server

MIB = 1024**2


@pytest.mark.parametrize(
    ("text", "metric", "operator", "value", "kind"),
    [
        ("p50<500us", "p50", "<", 0.0005, "time"),
        ("p90<500µs", "p90", "<", 0.0005, "time"),
        ("p90<500μs", "p90", "<", 0.0005, "time"),
        ("p99 <= 10 ms", "p99", "<=", 0.01, "time"),
        ("p99.9>1s", "p99.9", ">", 1.0, "time"),
        ("  p99.99\t>=  1.5s ", "p99.99", ">=", 1.5, "time"),
        ("max<2s", "max", "<", 2.0, "time"),
        ("mean<2ms", "mean", "<", 0.002, "time"),
        ("errors<0.1%", "errors", "<", 0.001, "share"),
        ("errors<=0", "errors", "<=", 0, "count"),
        ("rps>1000", "rps", ">", 1000, "rate"),
        ("rate>=999.5", "rate", ">=", 999.5, "rate"),
        ("memory<64MiB", "memory", "<", 64 * MIB, "bytes"),
        ("memory<2GiB", "memory", "<", 2048 * MIB, "bytes"),
        ("growth<=512KiB", "growth", "<=", MIB / 2, "bytes"),
        ("growth<=0B", "growth", "<=", 0, "bytes"),
        ("cpu<50%", "cpu", "<", 0.5, "share"),
        ("cpu<0.5", "cpu", "<", 0.5, "share"),
        ("good-p99<20ms", "good-p99", "<", 0.02, "time"),
        ("good-rps>100", "good-rps", ">", 100, "rate"),
        ("5xx<1", "5xx", "<", 1, "count"),
        ("503<0.1%", "503", "<", 0.001, "share"),
    ],
)
def test_an_expectation_is_read_into_the_unit_it_is_measured_in(text, metric, operator, value, kind):
    expected = parse(text)
    assert (expected.metric, expected.operator, expected.value, expected.kind) == (metric, operator, value, kind)
    assert expected.text == text.strip()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "METRIC OPERATOR VALUE with one of < <= > >="),
        ("p99", "METRIC OPERATOR VALUE"),
        ("p99<", "METRIC OPERATOR VALUE"),
        ("<10ms", "METRIC OPERATOR VALUE"),
        ("p99=10ms", "METRIC OPERATOR VALUE"),
        ("p99==10ms", "METRIC OPERATOR VALUE"),
        ("p99=<10ms", "METRIC OPERATOR VALUE"),
        ("p99<<10ms", "METRIC OPERATOR VALUE"),
        ("p99\n<\n10ms\n<\n20ms", "METRIC OPERATOR VALUE"),
        ("p95<10ms", "p50, p90, p99, p99.9, p99.99, max, mean, errors, rps"),
        ("P99<10ms", "is no metric"),
        ("6xx<1", "a status like 503 or 5xx"),
        ("5x<1", "is no metric"),
        ("5000<1", "is no metric"),
        ("p99<10", "a time in us, µs, ms or s"),
        ("p99<10MS", "a time in us, µs, ms or s"),
        ("p99<-1ms", "a time in us, µs, ms or s"),
        ("p99<nan", "a time in us, µs, ms or s"),
        ("p99<" + "9" * 400 + "s", "a time in us, µs, ms or s"),
        ("p99<\u0661ms", "a time in us, µs, ms or s"),
        ("good-p99<1%", "a time in us, µs, ms or s"),
        ("errors<0.5", "a count, like 1, or a share, like 0.1%"),
        ("errors<1ms", "a count, like 1, or a share, like 0.1%"),
        ("503<1.5", "a count, like 1, or a share, like 0.1%"),
        ("rps>1k", "a number a second"),
        ("good-rps>1%", "a number a second"),
        ("rate>fast", "a number a second"),
        ("memory<64", "B, KiB, MiB or GiB"),
        ("memory<64MB", "B, KiB, MiB or GiB"),
        ("growth<1%", "B, KiB, MiB or GiB"),
        ("cpu<1s", "like 50% or 0.5"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line_that_names_what_is_allowed(text, told):
    with pytest.raises(ValueError, match=r"^[^\n]*$") as refused:
        parse(text)
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("text", "measured", "passed"),
    [
        ("p50<1ms", 0.001, False),
        ("p50<=1ms", 0.001, True),
        ("p50>1ms", 0.001, False),
        ("p50>=1ms", 0.001, True),
        ("p90<3ms", 0.002, True),
        ("p99<4ms", 0.005, False),
        ("p99.9<=10ms", 0.01, True),
        ("p99.99<=20ms", 0.02, True),
        ("max<=50ms", 0.05, True),
        ("mean<1ms", 0.0012, False),
        ("errors<=0.25%", 0.0025, True),
        ("errors<50", 50, False),
        ("rps>997", 997.5, True),
        ("memory<=64MiB", 64 * MIB, True),
        ("growth<1MiB", MIB, False),
        ("cpu<=50%", 0.5, True),
        ("5xx<1", 50, False),
        ("503<=0.25%", 0.0025, True),
        ("2xx>99%", 0.9975, True),
        ("404<1", 0, True),
    ],
)
def test_a_run_is_judged_by_what_it_measured(text, measured, passed):
    expectation = parse(text).judge(make_run())
    assert (expectation.text, expectation.measured, expectation.passed) == (text, measured, passed)


@pytest.mark.parametrize(
    ("text", "measured", "passed"),
    [("good-p99<20ms", 0.02, False), ("good-p99<=20ms", 0.02, True), ("good-rps>700", 800, True)],
)
def test_good_traffic_is_judged_by_what_it_saw_during_the_flood(text, measured, passed):
    expectation = parse(text).judge(make_flood_run())
    assert (expectation.measured, expectation.passed) == (measured, passed)


def test_the_rate_is_the_one_that_was_reached():
    assert parse("rate>=500").judge(make_run(rate_reached=499.0)).measured == 499.0


def test_a_server_may_use_more_than_one_core():
    run = make_run(server=make_server(cpu_s=50.0))
    assert parse("cpu<200%").judge(run).measured == 2.5


NOTHING = {"latency_s": None, "server": None, "flood": None, "requests": 0, "statuses": {}, "errors": {}}


# Without answers there is still a rate of answers: none a second.
@pytest.mark.parametrize("metric", [*(metric for metric in METRICS if metric != "rps"), "5xx", "200"])
@pytest.mark.parametrize("operator", ["<", ">="])
def test_what_a_run_did_not_measure_does_not_pass(metric, operator):
    value = {"rate": "1", "good-rps": "1", "memory": "1B", "growth": "1B", "cpu": "1", "errors": "1%"}.get(
        metric, "1" if metric in ("5xx", "200") else "1s"
    )
    expectation = parse(f"{metric}{operator}{value}").judge(make_run(**NOTHING))
    assert expectation.measured is None
    assert expectation.passed is False


def test_good_clients_without_an_answer_have_no_percentile_and_do_not_pass():
    run = make_flood_run(flood=make_flood(during=make_good(requests=0, rps=0.0, p99_s=None)))
    assert parse("good-p99<1s").judge(run).passed is False
    assert parse("good-rps>0").judge(run).measured == 0.0
