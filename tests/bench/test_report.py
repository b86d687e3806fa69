"""The HTML report: what it shows, that it stands alone, and that no text of a run becomes markup."""

import sys
from html.parser import HTMLParser

import pytest

from gatewayx.bench.report import (
    NOTHING,
    ReportError,
    bytes_text,
    measured_text,
    number_text,
    require_plots,
    share_text,
    time_text,
    write_report,
)
from gatewayx.bench.result import Expectation, Verdict
from support.bench_runs import make_flood, make_flood_run, make_generator, make_good, make_point, make_points, make_run

HOSTILE = '</title></style><script>alert("1")</script><img src=http://example.net/x onerror=a()>&amp;$x_{$'

# Elements that have no end, in HTML.
VOID = {"meta", "br", "hr", "img", "link", "input"}


class Page(HTMLParser):
    """What a reader of the page has before him. Fails on elements that are not closed in their order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.pictures: list[list[str]] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attributes]
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        elif tag == "svg":
            self.pictures.append([])
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if "td" in self._open or "th" in self._open:
            self.tables[-1][-1][-1] += data
        if "svg" in self._open and "text" in self._open:
            self.pictures[-1].append(data)
        if "style" not in self._open:
            self.texts.append(data)

    @property
    def text(self) -> str:
        """All text but that of styles."""
        return "".join(self.texts)

    def row(self, name: str) -> list[str]:
        """The cells of the first row of this name."""
        return next(row[1:] for table in self.tables for row in table if row and row[0] == name)

    def values(self, attribute: str) -> list[str]:
        """Of every attribute of this name."""
        return [value for _, name, value in self.attributes if name == attribute]


@pytest.fixture
def report(tmp_path):
    """Writes a report and reads it again."""

    def write(*runs, verdicts=()):
        path = tmp_path / "report.html"
        write_report(path, runs, verdicts)
        return Page(path.read_text(encoding="utf-8"))

    return write


def hostile_run(number):
    """A run each of whose texts is an attack."""
    limited = make_generator(limited=True, reasons=[HOSTILE])
    return make_flood_run(
        f"{HOSTILE}{number}",
        target=HOSTILE,
        settings={HOSTILE: HOSTILE, "headers": [HOSTILE]},
        date=HOSTILE,
        version=HOSTILE,
        machine={HOSTILE: {HOSTILE: HOSTILE}},
        statuses={HOSTILE: 1},
        errors={HOSTILE: 1},
        generator=limited,
        flood=make_flood(kind=HOSTILE, statuses={HOSTILE: 1}),
        expectations=[Expectation(HOSTILE, 1.0, False)],
    )


RUNS = {
    "one": [make_run()],
    "several": [make_run(name) for name in ("a", "b", "c")],
    "flood": [make_flood_run()],
    "hostile": [hostile_run(1), hostile_run(2)],
}


@pytest.mark.parametrize("runs", RUNS.values(), ids=RUNS)
def test_a_page_stands_alone(report, runs):
    page = report(*runs, verdicts=[Verdict(HOSTILE, {HOSTILE: HOSTILE, "b": HOSTILE}, None, HOSTILE)])
    assert not {"script", "img", "link", "iframe", "object", "embed", "image", "base", "form"} & set(page.tags)
    assert page.values("src") == []
    assert all(value.startswith("#") for name in ("href", "xlink:href") for value in page.values(name))
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    loading = [value for _, _, value in page.attributes if "url(" in value and "url(#" not in value]
    assert loading == []


def test_styles_load_nothing(tmp_path):
    write_report(tmp_path / "report.html", [make_flood_run()])
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "@import" not in text
    assert text.count("url(") == text.count("url(#")
    assert "<!DOCTYPE svg" not in text
    assert "<?xml" not in text


def test_no_text_of_a_run_becomes_markup(report):
    page = report(
        hostile_run(1), hostile_run(2), verdicts=[Verdict(HOSTILE, {HOSTILE: HOSTILE, "b": HOSTILE}, None, HOSTILE)]
    )
    plain = report(make_flood_run())
    assert set(page.tags) <= {*plain.tags, "strong"}
    # Every place of the page where a text of a run is shown shows it as it is.
    assert page.text.count(HOSTILE) > 40
    assert page.text.count("<script>") == page.text.count(HOSTILE)


def test_references_within_the_pictures_lead_to_one_element_each(report):
    page = report(make_flood_run(), make_run())
    names = page.values("id")
    assert len(names) == len(set(names))
    used = [value.removeprefix("#") for value in page.values("xlink:href")]
    used += [value[5:-1] for _, name, value in page.attributes if name == "clip-path"]
    assert used
    assert set(used) <= set(names)


@pytest.mark.parametrize("runs", RUNS.values(), ids=RUNS)
def test_the_same_runs_give_the_same_bytes(tmp_path, runs):
    paths = [tmp_path / "one.html", tmp_path / "two.html"]
    for path in paths:
        write_report(path, runs)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_the_head_tells_when_where_and_what(report):
    text = report(make_run(), make_run("other", date="2026-02-02")).text
    for expected in (
        "gatewayx bench: load, other",
        "2026-01-02T03:04:05+00:00, 2026-02-02",
        "gatewayx 1.2.3",
        "A processor",
        "http://127.0.0.1:8080/echo",
    ):
        assert expected in text
    assert text.count("gatewayx 1.2.3") == 1


@pytest.fixture(scope="module")
def side_by_side(tmp_path_factory) -> Page:
    """The page of two runs that differ, which takes long to draw."""
    limited = make_generator(cpu_share=0.99, limited=True, reasons=["a core was busy"])
    other = make_run("b", rps=1500.2, rate_reached=1400.0, errors={"timeout": 200}, server=None, generator=limited)
    path = tmp_path_factory.mktemp("side-by-side") / "report.html"
    write_report(path, [make_run("a"), other], ())
    return Page(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("row", "cells"),
    [
        ("Requests/s", ["998", "1,500"]),
        ("Rate reached, a second", [NOTHING, "1,400"]),
        ("p50", ["1 ms", "1 ms"]),
        ("p90", ["2 ms", "2 ms"]),
        ("p99", ["5 ms", "5 ms"]),
        ("p99.9", ["10 ms", "10 ms"]),
        ("p99.99", ["20 ms", "20 ms"]),
        ("max", ["50 ms", "50 ms"]),
        ("all", ["50 (0.25%)", "200 (1%)"]),
        ("status", ["50 (0.25%)", "0"]),
        ("timeout", ["0", "200 (1%)"]),
        ("200", ["19,950 (99.8%)", "19,950 (99.8%)"]),
        ("503", ["50 (0.25%)", "50 (0.25%)"]),
        ("processor time", ["10 s", NOTHING]),
        ("of one core", ["50%", NOTHING]),
        ("memory, start", ["40.0 MiB", NOTHING]),
        ("memory, peak", ["64.0 MiB", NOTHING]),
        ("memory, end", ["48.0 MiB", NOTHING]),
        ("of one core, its busiest process", ["30%", "99%"]),
        ("limited the run", ["no", "yes"]),
        ("connections", ["64", "64"]),
    ],
)
def test_runs_stand_side_by_side(side_by_side, row, cells):
    assert side_by_side.row(row) == cells


def test_a_generator_that_limited_a_run_is_warned_of(report):
    limited = make_generator(limited=True, reasons=["a core was busy", "sent late"])
    text = report(make_run(), make_run("slow", generator=limited)).text
    assert text.count("The generator limited") == 1
    assert "The generator limited slow: a core was busy; sent late." in text


def test_a_run_on_its_own_terms_is_not_warned_of(report):
    assert "The generator limited" not in report(make_run()).text


def test_several_runs_have_their_verdicts(report):
    verdicts = [
        Verdict("p99", {"gateway": "5 ms", "plugin": "10 ms"}, 0.5, "better"),
        Verdict("memory", {"gateway": "1 MiB"}, None, "cannot be told"),
    ]
    page = report(make_run("gateway"), make_run("plugin"), verdicts=verdicts)
    assert page.tables[0] == [
        ["", "gateway", "plugin", "Ratio", "Verdict"],
        ["p99", "5 ms", "10 ms", "0.50", "better"],
        ["memory", "1 MiB", NOTHING, NOTHING, "cannot be told"],
    ]
    assert "The ratio is gateway over plugin." in page.text


def test_expectations_are_shown_in_the_unit_they_ask_in(report):
    expectations = [
        Expectation("p99<4ms", 0.005, False),
        Expectation("errors<1%", 0.0025, True),
        Expectation("memory<1GiB", None, False),
    ]
    page = report(make_run(expectations=expectations))
    assert page.tables[0][1:] == [
        ["load", "p99<4ms", "5 ms", "failed"],
        ["load", "errors<1%", "0.25%", "passed"],
        ["load", "memory<1GiB", "not measured", "failed"],
    ]


def test_a_flood_has_before_during_and_after_and_what_was_answered(report):
    page = report(make_flood_run(flood=make_flood(during=make_good(rps=10.0, requests=0, p50_s=None, p99_s=None))))
    tables = {table[0][-1]: table for table in page.tables}
    assert ["requests/s", "1,000", "10", "1,000"] in tables["after"]
    assert ["p99", "5 ms", NOTHING, "5 ms"] in tables["after"]
    answered = tables["connections"]
    assert answered[1:] == [["answered 503", "2,500"], ["closed silently", "400"], ["reset", "90"], ["failed", "10"]]
    assert page.row("new ones asked for") == ["as many as go"]
    assert page.row("opened") == ["12,000"]
    assert "Shaded: while the flood went on." in page.text


def test_without_a_flood_nothing_is_said_of_one(report):
    assert "flood" not in report(make_run()).text.lower()


def test_the_latency_axis_is_labelled_with_percentiles(report):
    page = report(make_run(histogram=[(0.001, 99_990), (0.1, 10)]))
    labels = [label for picture in page.pictures for label in picture]
    for percentile in ("0%", "90%", "99%", "99.9%", "99.99%"):
        assert percentile in labels
    assert "latency, ms" in labels
    assert {"1", "100"} <= set(labels)


def test_every_run_has_a_curve_and_a_legend(report):
    runs = [make_run(f"run {number}") for number in range(9)]
    page = report(*runs)
    lines = [
        (stroke, dashes) for stroke, dashes in zip(page.values("stroke"), page.values("stroke-dasharray"), strict=True)
    ]
    assert len(lines) == 2 * len(runs)
    assert len(set(lines)) == len(runs)


def test_what_a_picture_shows_is_what_was_measured(report):
    labels = {label for picture in report(make_run()).pictures for label in picture}
    assert {"requests/s", "p99, ms", "server memory, MiB", "seconds"} <= labels
    sparse = make_run(timeline=make_points(server_memory_bytes=None), histogram=[])
    labels = {label for picture in report(sparse).pictures for label in picture}
    assert "requests/s" in labels
    assert "server memory, MiB" not in labels
    assert "latency, ms" not in labels


@pytest.mark.parametrize(
    "changes",
    [
        {"timeline": [], "histogram": []},
        {"timeline": [make_point()], "histogram": [(0.001, 1)]},
        {"timeline": [make_point(requests=0, rps=0.0, p50_s=None, p99_s=None)], "histogram": [(0.0, 5), (1.0, 0)]},
        {"histogram": [(3600.0, 1), (1e-7, 1)]},
        {"histogram": [(0.01, 10**9)]},
        {"requests": 0, "rps": 0.0, "latency_s": None, "latency_uncorrected_s": None, "statuses": {}, "errors": {}},
        {"seconds": 0.0},
        {"settings": {}, "machine": {}, "server": None},
        {"name": ""},
        {"name": "_hidden"},
        {"name": "日本語 \U0001f600"},
    ],
    ids=str,
)
def test_odd_runs_are_drawn_too(report, changes):
    assert report(make_run(**changes)).row("Duration")


def test_a_report_needs_a_run(tmp_path):
    with pytest.raises(ValueError, match="needs a run"):
        write_report(tmp_path / "report.html", [])


def test_without_matplotlib_the_report_says_what_to_install(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    told = r"^the HTML report needs matplotlib: pip install 'gatewayx\[bench\]'$"
    with pytest.raises(ReportError, match=told):
        require_plots()
    with pytest.raises(ReportError, match=told):
        write_report(tmp_path / "report.html", [make_run()])
    assert list(tmp_path.iterdir()) == []


def test_with_matplotlib_nothing_is_required():
    require_plots()


def test_a_file_that_cannot_be_written_is_told_in_one_line(tmp_path):
    with pytest.raises(ReportError, match=r"^cannot write \S*report\.html: No such file or directory$"):
        write_report(tmp_path / "missing" / "report.html", [make_run()])


def test_no_style_of_the_operator_reaches_the_pictures(tmp_path):
    import matplotlib

    paths = [tmp_path / "one.html", tmp_path / "two.html"]
    write_report(paths[0], [make_run()])
    with matplotlib.rc_context({"axes.facecolor": "black", "text.usetex": True, "lines.linewidth": 9}):
        write_report(paths[1], [make_run()])
        assert matplotlib.rcParams["axes.facecolor"] == "black"
    assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize(
    ("text", "value", "expected"),
    [
        (number_text, 0, "0"),
        (number_text, 1234567, "1,234,567"),
        (number_text, 99.96, "100.0"),
        (number_text, 12.34, "12.3"),
        (number_text, 1.234, "1.23"),
        (number_text, 0.01234, "0.0123"),
        (number_text, -12.34, "-12.3"),
        (time_text, 0.0, "0 s"),
        (time_text, 0.0000015, "1.50 µs"),
        (time_text, 0.9996, "1,000 ms"),
        (time_text, 0.0123, "12.3 ms"),
        (time_text, 61.5, "61.5 s"),
        (bytes_text, 0, "0 B"),
        (bytes_text, 1023, "1023 B"),
        (bytes_text, 1024, "1.0 KiB"),
        (bytes_text, -3 * 1024**2, "-3.0 MiB"),
        (bytes_text, 5 * 1024**3, "5.0 GiB"),
        (share_text, 0.0, "0%"),
        (share_text, 0.00123, "0.123%"),
        (share_text, 2.5, "250%"),
    ],
)
def test_figures_are_written_with_three_digits_in_a_fitting_unit(text, value, expected):
    assert text(value) == expected


def test_what_was_measured_for_an_expectation_nobody_can_read_is_a_bare_number():
    assert measured_text(Expectation("of another version", 12.34, True)) == "12.3"
