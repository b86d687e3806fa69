"""What is exposed: its form, its names, and how names from strangers stand in it."""

from __future__ import annotations

import gzip
import re
import subprocess

import pytest
from prometheus_client.exposition import generate_latest as text_exposition
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.exposition import generate_latest as open_metrics_exposition
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open_metrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.registry import Collector

from gatewayx.admin import exposition as exposition_module
from gatewayx.admin.exposition import CONTENT_TYPES, Exposition
from gatewayx.admin.families import Part
from gatewayx.admin.metrics import GatewayFamilies
from gatewayx.admin.request_metrics import RequestFamilies
from gatewayx.admin.text import text_of
from gatewayx.admin.view import FunctionView
from gatewayx.http.python_handler import PlainAnswer, PlainRequest
from support.admin import samples_of
from support.rows import BOUNDS_S, OUTCOMES, Rows
from support.views import job_server, view

OPEN_METRICS = b"application/openmetrics-text;version=1.0.0"
# Names that strangers may choose.
HOSTILE = (
    b'a"b',
    b"a\\b",
    b"a\nb",
    b"\xff\xfe",
    "gr\u00f6\u00dfe".encode(),
    b'"} 1\ngatewayx_forged{x="',
    b'"} 1\rgatewayx_forged{x="',
    b"\\n",
    b"a\r#",
    b"a\x0b#",
    b"a\x0c#",
    "a\u0085#".encode(),
    "a\u2028#".encode(),
    b"a\\x0a",
    b"a\x1b[2J",
    b"",
)


class Several(Collector):
    """A collector of these metrics."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> list[Metric]:
        """See Collector."""
        return self._metrics


class Clock:
    """Tells a time that a test changes."""

    now_s = 0.0
    step_s = 0.0

    def __call__(self) -> float:
        self.now_s += self.step_s
        return self.now_s


def exposition(rows: Rows, gateway=None, clock=None, processor_clock=None) -> Exposition:
    """An exposition of these counts and a gateway that is well."""
    well = view() if gateway is None else gateway
    makers = (GatewayFamilies(lambda: well), RequestFamilies(rows, OUTCOMES, BOUNDS_S))
    return Exposition(makers, clock or Clock(), processor_clock or Clock())


def ask(exposed: Exposition, **headers: bytes) -> PlainAnswer:
    """An answer of it."""
    named = {name.replace("_", "-").encode(): value for name, value in headers.items()}
    return exposed.answer(PlainRequest("GET", b"/metrics", b"", named))


def promtool(text: bytes) -> str:
    """What Debian's promtool complains of."""
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
    return (checked.stdout + checked.stderr).decode()


def test_promtool_has_nothing_to_complain_of():
    assert promtool(ask(exposition(Rows(b"resize"))).body) == ""


def test_promtool_has_nothing_to_complain_of_in_hostile_names():
    names = {name: FunctionView(1, 0, 1) for name in HOSTILE}
    server = job_server()._replace(functions=names, version='1.1"\\\n')
    body = ask(exposition(Rows(*HOSTILE), view(job_servers=[server]))).body
    assert promtool(body) == ""
    assert b"gatewayx_forged{" not in re.sub(rb'"(?:[^"\\]|\\.)*"', b"", body)


def test_of_a_job_server_of_which_nothing_is_known_yet_it_is_not_said_that_it_is_down():
    servers = [job_server()._replace(is_known=False, is_up=False), job_server("down:1", is_up=False)]
    samples = samples_of(ask(exposition(Rows(), view(job_servers=servers))).body.decode())
    of_exporter = {key: value for key, value in samples.items() if key[0].startswith("gearman_")}
    assert of_exporter == {("gearman_up", frozenset({("server", "down:1")})): 0}


def test_both_forms_say_the_same():
    exposed = exposition(Rows(*HOSTILE))
    text = ask(exposed)
    open_metrics = ask(exposed, accept=OPEN_METRICS)
    assert (text.content_type, open_metrics.content_type) == CONTENT_TYPES
    assert open_metrics.body.endswith(b"# EOF\n")
    assert open_metrics.body.count(b"# EOF") == 1

    def values(families) -> dict:
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in families
            for sample in family.samples
        }

    by_text = values(parse_text(text.body.decode()))
    assert by_text == values(parse_open_metrics(open_metrics.body.decode()))
    functions = {dict(labels)["function"] for name, labels in by_text if name == "gatewayx_http_requests_total"}
    assert functions == {"_other", *(text_of(name) for name in HOSTILE)}
    assert len(functions) == 1 + len(HOSTILE)


@pytest.mark.parametrize("form", [b"text/plain", OPEN_METRICS])
def test_no_name_makes_a_line_of_its_own(form):
    plain = ask(exposition(Rows(*(b"a%d" % number for number in range(len(HOSTILE))))), accept=form).body
    hostile = ask(exposition(Rows(*HOSTILE)), accept=form).body
    assert hostile.count(b"\n") == plain.count(b"\n")
    assert len(hostile.decode().splitlines()) == len(plain.decode().splitlines())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (b"a\r\n\x00\x7f", r"a\x0d\x0a\x00\x7f"),
        ("\u0085\u2028\u2029\u00e9".encode(), r"\xc2\x85\xe2\x80\xa8\xe2\x80\xa9" + "\u00e9"),
        (b"\\x0a\\n\xff", r"\x5cx0a\n\xff"),
    ],
)
def test_what_could_be_taken_for_something_else_is_escaped(name, text):
    assert text_of(name) == text


def test_it_is_compressed_on_demand():
    exposed = exposition(Rows(b"resize"))
    plain = ask(exposed, accept_encoding=b"identity")
    packed = ask(exposed, accept_encoding=b"gzip")
    assert gzip.decompress(packed.body) == plain.body
    assert b"Content-Encoding: gzip\r\n" in packed.header_lines
    assert b"Content-Encoding" not in plain.header_lines
    for answer in (plain, packed):
        assert b"Vary: Accept, Accept-Encoding\r\n" in answer.header_lines


def test_only_what_has_changed_is_composed_anew_and_all_of_it_is_right():
    rows = Rows(b"a", b"b")
    exposed = exposition(rows)
    for form in (b"text/plain", OPEN_METRICS):
        for count in (3, 3, 4, 5):
            rows.count = count
            found = ask(exposed, accept=form).body.decode().removesuffix("# EOF\n")
            samples = samples_of(found)
            for function in ("_other", "a", "b"):
                labels = frozenset({("function", function), ("server", "127.0.0.1:4730"), ("result", "complete")})
                assert samples["gatewayx_jobs_total", labels] == count
                assert (
                    samples["gatewayx_http_request_duration_seconds_count", frozenset({("function", function)})]
                    == count
                )


@pytest.mark.parametrize("form", [b"text/plain", OPEN_METRICS])
def test_the_lines_are_those_of_prometheus_client_whatever_has_changed(form):
    rows = Rows(*HOSTILE)
    gateways = [
        view(job_servers=[job_server(a=FunctionView(number, 1, 2)), job_server("b:1", b=FunctionView(2, 1, number))])
        for number in range(3)
    ]
    # Another function in the place of one, and a job server that is gone.
    gateways.append(view(job_servers=[job_server(c=FunctionView(9, 8, 7))]))
    exposed = Exposition(
        [GatewayFamilies(lambda: gateways[min(rows.count, 3)]), RequestFamilies(rows, OUTCOMES, BOUNDS_S)],
        Clock(),
        Clock(),
    )
    generate = open_metrics_exposition if form == OPEN_METRICS else text_exposition
    for rows.count in (0, 1, 2, 3, 12_345_678):
        whole = []
        for maker in (GatewayFamilies(lambda: gateways[min(rows.count, 3)]), RequestFamilies(rows, OUTCOMES, BOUNDS_S)):
            for family in maker.families():
                metric = family.metric
                for part in family.parts:
                    metric.samples += part.make().samples
                whole.append(metric)
        assert ask(exposed, accept=form).body == generate(Several(whole))


@pytest.mark.parametrize("is_prepared", [True, False])
def test_a_line_is_composed_once(monkeypatch, is_prepared):
    rows = Rows(b"a", b"b")
    exposed = exposition(rows)
    made = []
    composed = exposition_module._composed
    monkeypatch.setattr(exposition_module, "_composed", lambda *of: made.append(bool(of[0].samples)) or composed(*of))
    if is_prepared:
        for number, _ in enumerate(exposed.prepare()):
            assert len(made) == number + 1
        assert all(made)
    else:
        ask(exposed)
    monkeypatch.setattr(Part, "make", property(lambda part: pytest.fail(f"{part.name} is composed again")))
    for rows.count in (4, 5):
        for form in (b"text/plain", OPEN_METRICS):
            assert ask(exposed, accept=form).body.count(f" {rows.count}.0\n".encode()) > 3


def test_who_asks_again_while_it_would_be_composed_all_the_time_gets_the_last_one():
    rows, clock, processor_clock = Rows(), Clock(), Clock()
    exposed = exposition(rows, clock=clock, processor_clock=processor_clock)
    # Each look at the clock takes a moment, so composing took one.
    processor_clock.step_s = 1.0
    ask(exposed)
    processor_clock.step_s = 0.0
    asked = rows.asked
    for compressed in (b"gzip", b"identity"):
        ask(exposed, accept_encoding=compressed)
    assert rows.asked == asked
    clock.now_s += 9.9
    ask(exposed)
    assert rows.asked == asked
    clock.now_s += 0.2
    rows.count = 9
    assert b"9.0" in ask(exposed).body
    assert b" 9.0\n" in gzip.decompress(ask(exposed, accept_encoding=b"gzip").body)


def test_one_that_took_long_as_the_process_did_not_run_is_composed_again():
    rows, clock = Rows(), Clock()
    exposed = exposition(rows, clock=clock)
    clock.step_s = 1.0
    ask(exposed)
    rows.count = 9
    assert b" 9.0\n" in ask(exposed).body


@pytest.mark.parametrize("form", [b"text/plain", OPEN_METRICS])
def test_nothing_of_the_python_process_itself_is_exposed(form):
    names = set(re.findall(rb"^# TYPE (\S+)", ask(exposition(Rows()), accept=form).body, re.MULTILINE))
    assert {name.partition(b"_")[0] for name in names} == {b"gatewayx", b"gearman"}
