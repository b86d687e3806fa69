"""Events as JSON: one object a line, whatever is in it, short enough for a pipe that processes share."""

from __future__ import annotations

import json
import logging
import re
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayx.server import logs
from support.gateway import ServeProcess
from support.job_servers import nobody_listens

PIPE_BUF = 4096
OPERATIONS = Path(__file__).parents[2] / "docs/operations.md"


def fail(message: str) -> NoReturn:
    """Raise an exception."""
    raise ValueError(message)


def record(message: str, *arguments: object, name: str = "gatewayx") -> logging.LogRecord:
    """A log record."""
    made = logging.LogRecord(name, logging.WARNING, __file__, 1, message, arguments, None)
    made.created = 1_780_000_000.1239
    return made


def with_traceback(made: logging.LogRecord, message: str) -> logging.LogRecord:
    """The record with the traceback of an exception."""
    try:
        fail(message)
    except ValueError:
        made.exc_info = sys.exc_info()
    return made


def test_a_line_says_when_how_bad_what_who_and_where():
    line = logs.JsonLines(3).format(record("said: %s", "a\nb\x1b", name="gatewayx.gearman"))
    assert json.loads(line) == {
        "time": "2026-05-28T20:26:40.123Z",
        "level": "warning",
        "message": "said: a\nb\x1b",
        "place": 3,
        "logger": "gatewayx.gearman",
    }
    assert line.isascii()
    assert line.isprintable()


def test_a_traceback_and_a_stack_are_one_text():
    made = with_traceback(record("failed"), "why")
    made.stack_info = "Current thread:\n  File x"
    made.exc_text = "text of another handler"
    found = json.loads(logs.JsonLines().format(made))
    assert found["place"] == "master"
    assert found["message"] == "failed"
    assert found["traceback"].startswith("Traceback (most recent call last):\n")
    assert found["traceback"].endswith("ValueError: why\nCurrent thread:\n  File x")


@settings(deadline=None)
@given(st.text(alphabet=st.characters(), max_size=30), st.text(max_size=30), st.integers(1, 400), st.booleans())
def test_whatever_is_told_is_a_line_of_json_that_a_pipe_takes_whole(message, reason, times, is_traced):
    made = record("%s", message * times, name=reason or "x")
    if is_traced:
        made = with_traceback(made, reason * times)
    line = logs.JsonLines().format(made)
    assert len(line) < PIPE_BUF
    assert line.isascii()
    assert line.isprintable()
    found = json.loads(line)
    whole = (message * times).encode("utf-8", "backslashreplace").decode()
    assert "".join(found).isascii()
    json.dumps(found, ensure_ascii=False).encode("utf-8", "strict")
    if "cut" not in found:
        assert found["message"] == whole
    else:
        assert whole.startswith(found["message"])
    assert ("traceback" in found) is is_traced


def test_of_a_long_traceback_the_end_is_told():
    found = json.loads(logs.JsonLines().format(with_traceback(record("m" * 9000), f"{'x' * 9000}the end")))
    assert found["cut"] is True
    assert set(found["message"]) == {"m"}
    assert len(found["message"]) == logs.MAX_MESSAGE_BYTES
    assert found["traceback"].endswith("xxthe end")


class TestFormat:
    @pytest.fixture
    def log(self, tmp_path):
        with (tmp_path / "log").open("w+b") as file:
            made = logs.EventLog(file.fileno(), "json")
            yield made
            made.writer.close()

    @pytest.fixture
    def lines(self, tmp_path):
        return lambda: (tmp_path / "log").read_text().splitlines()

    def test_it_changes_in_place(self, log, lines):
        log.begin_anew("worker process 2: ", 2)
        log.handle(record("one"))
        log.change("text")
        log.handle(record("two"))
        log.change("json")
        log.handle(record("three"))
        first, second, third = lines()
        assert [json.loads(line)["place"] for line in (first, third)] == [2, 2]
        assert second.endswith("WARNING worker process 2: two")

    def test_lines_past_all_loggers_and_those_that_were_left_out_are_json_too(self, log, lines, monkeypatch):
        monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
        assert json.loads(log.shown("a\x1b[2J"))["message"] == "a\x1b[2J"
        assert json.loads(log.shown("a"))["logger"] == "stderr"
        for number in range(logs.LINES_PER_INTERVAL + 3):
            log.handle(record("line %d", number))
        log.finish()
        assert json.loads(lines()[-1])["message"] == "3 more lines in 0 s like: line %d"

    def test_lost_lines_are_told_in_json_and_counted_once(self, tmp_path, monkeypatch):
        with (tmp_path / "log").open("w+b") as file:
            log = logs.EventLog(file.fileno(), "json")
            send = log.writer._send
            monkeypatch.setattr(log.writer, "_send", lambda data: 0)
            for number in range(3):
                log.handle(record("line %d", number))
            assert log.take_dropped() == 3
            monkeypatch.setattr(log.writer, "_send", send)
            log.tick()
        [told] = (tmp_path / "log").read_text().splitlines()
        assert json.loads(told)["message"].startswith("3 log lines were lost, since ")
        assert log.take_dropped() == 0


def test_every_field_is_documented_in_the_order_of_the_line():
    made = with_traceback(record("m" * 9000), "why")
    documented = OPERATIONS.read_text(encoding="utf-8").partition("`--log-format json`")[2].partition("\n\nSo lines")[0]
    assert re.findall(r"^\| `(\w+)` \|", documented, re.MULTILINE) == [
        *(name for name in json.loads(logs.JsonLines().format(made)) if name not in ("cut", "traceback")),
        "traceback",
        "cut",
    ]


@pytest.mark.anyio
async def test_each_line_of_the_gateway_is_json_with_its_place_until_the_format_changes(tmp_path):
    path = tmp_path / "gatewayx.toml"
    path.write_text('log-format = "json"\n')
    host, port = nobody_listens()
    arguments = ("--listen", "127.0.0.1:0", "--workers", "2", "--server", f"{host}:{port}", "--config", str(path))
    async with ServeProcess(*arguments) as served:
        await served.until("listens on")
        killed = served.workers()[1]
        served.signal_workers(signal.SIGKILL)
        await served.until(f"(pid {killed})")
        path.write_text("")
        served.signal(signal.SIGHUP)
        await served.until("all worker processes have the settings")
        lines = served.lines
    # The master goes on as text at once, and so does each worker process when it has the settings.
    begun = [json.loads(line) for line in lines if line.startswith("{")]
    assert {each["place"] for each in begun} == {"master", 0, 1}
    assert {each["logger"] for each in begun} == {"gatewayx", "gatewayx.gearman"}
    assert any(each["level"] == "error" and f"pid {killed}" in each["message"] for each in begun)
    assert not any("worker process" in each["message"] for each in begun if each["place"] != "master")
    texts = [line for line in lines if not line.startswith("{")]
    assert "SIGHUP: changed: log-format" in [each["message"] for each in begun]
    assert texts[-1].endswith("INFO all worker processes have the settings\n")
