"""The events of a kept job: how they are written, which of them are kept, and what their ids tell."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayx.gateway.events import EventLog, number_of, percent_of, piece_data, read_event_id, status_data
from support.event_streams import Event, EventParser, events_of

JOB = b"k" + b"0123456789" * 4
# As many, and as many bytes, are kept.
MOST = 64
MOST_BYTES = 65_536


def log_of(count: int, data: bytes = b"{}") -> EventLog:
    """A log with so many events."""
    log = EventLog(JOB)
    for _ in range(count):
        log.add(b"status", data)
    return log


def id_of(number: int) -> str:
    """Of an event."""
    return f"{JOB.decode()}.{number}"


class TestReader:
    """The reader of these tests, by the examples of the standard."""

    @pytest.mark.parametrize(
        ("stream", "expected"),
        {
            b"data: YHOO\ndata: +2\ndata: 10\n\n": [("message", "YHOO\n+2\n10", "")],
            b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n": [
                ("message", "first event", "1"),
                ("message", "second event", ""),
            ],
            b"data\n\ndata\ndata\n\ndata:": [("message", "", ""), ("message", "\n", "")],
            b"data:test\r\n\r\ndata: test\r\r": [("message", "test", ""), ("message", "test", "")],
            b"\xef\xbb\xbfevent: add\nid: 7\nid: \0\ndata: x\n\nevent: none\n\n": [("add", "x", "7")],
        }.items(),
    )
    def test_examples(self, stream, expected):
        for size in (1, 2, len(stream)):
            parser = EventParser()
            for start in range(0, len(stream), size):
                parser.feed(stream[start : start + size])
            parser.feed(b" ")
            assert parser.events == [Event(*event) for event in expected]


class TestWriting:
    """An event, and what is in it."""

    def test_an_event(self):
        log = EventLog(JOB)
        assert log.add(b"status", b'{"a":1}') == b"id: " + JOB + b'.1\nevent: status\ndata: {"a":1}\n\n'
        assert events_of(log.add(b"data", b"{}")) == [Event("data", "{}", id_of(2))]

    @pytest.mark.parametrize(
        ("numerator", "denominator", "expected"),
        [
            (b"1", b"4", (1, 4, 25)),
            (b"0", b"4", (0, 4, 0)),
            (b"2", b"3", (2, 3, 66)),
            (b"999", b"1000", (999, 1000, 99)),
            (b"4", b"4", (4, 4, 100)),
            (b"9", b"4", (9, 4, 100)),
            (b"007", b"0100", (7, 100, 7)),
            (b"0", b"0", (0, 0, None)),
            (b"9" * 18, b"9" * 18, (10**18 - 1, 10**18 - 1, 100)),
            (b"9" * 19, b"1", ("9" * 19, 1, None)),
            (b"", b"", ("", "", None)),
            (b"-1", b"2", ("-1", 2, None)),
            (b"1.5", b"2", ("1.5", 2, None)),
            (b" 1", b"2", (" 1", 2, None)),
            ("٣".encode(), b"4", ("\\xd9\\xa3", 4, None)),
            (b"\n\r\x00\xff\\", b'"', ("\\n\\r\\x00\\xff\\\\", '"', None)),
            (b"x" * 100, b"1", ("x" * 64, 1, None)),
        ],
    )
    def test_status(self, numerator, denominator, expected):
        assert (number_of(numerator), number_of(denominator)) == expected[:2]
        assert percent_of(*expected[:2]) == expected[2]
        data = status_data(numerator, denominator)
        assert not {b"\n", b"\r"} & {data[at : at + 1] for at in range(len(data))}
        assert tuple(json.loads(data).values()) == expected

    @pytest.mark.parametrize(
        ("piece", "encoding"),
        [
            (b"", "text"),
            (b"plain", "text"),
            ("ä \U0001f600".encode(), "text"),
            (b"a\nb\r\n\x00\x7f\xe2\x80\xa8", "text"),
            (b"\xff", "base64"),
            # A surrogate, and an overlong slash, are no UTF-8.
            (b"\xed\xa0\x80", "base64"),
            (b"\xc0\xaf", "base64"),
            ("ä".encode()[:1], "base64"),
        ],
    )
    def test_data(self, piece, encoding):
        data = json.loads(piece_data(piece))
        assert data["encoding"] == encoding
        assert (data["data"].encode() if encoding == "text" else base64.b64decode(data["data"])) == piece

    @given(st.binary(max_size=200))
    def test_any_piece_comes_back(self, piece):
        log = EventLog(JOB)
        (event,) = events_of(log.add(b"data", piece_data(piece)))
        found = event.json()
        decoded = found["data"].encode() if found["encoding"] == "text" else base64.b64decode(found["data"])
        assert decoded == piece


class TestKeeping:
    """Which events are there for those who come back."""

    @pytest.mark.parametrize("count", [0, 1, MOST - 1, MOST, MOST + 1, 3 * MOST])
    def test_the_last_ones_are(self, count):
        log = log_of(count)
        first = max(1, count - MOST + 1)
        assert (log.first, log.next) == (first, count + 1)
        for number in range(first, count + 1):
            assert [event.number() for event in events_of(log.event(number))] == [number]
            assert [event.number() for event in events_of(log.events_from(number))] == list(range(number, count + 1))

    def test_no_more_than_so_many_bytes_are(self):
        event_bytes = len(EventLog(JOB).add(b"data", b"x" * 10_000))
        log = log_of(30, b"x" * 10_000)
        assert log.next - log.first == MOST_BYTES // (event_bytes + 1) == 6
        assert log.kept_bytes == sum(len(log.event(number)) for number in range(log.first, log.next)) <= MOST_BYTES

    def test_one_at_the_bound_is_kept_alone(self):
        shortest = len(EventLog(JOB).add(b"data", b"")) + 1
        log = log_of(10)
        log.add(b"data", b"x" * (MOST_BYTES - shortest))
        assert (log.first, log.next, log.kept_bytes) == (11, 12, MOST_BYTES)

    def test_one_above_it_passes(self):
        log = log_of(3)
        event = log.add(b"data", b"x" * MOST_BYTES)
        assert (log.first, log.next, log.kept_bytes, log.held_bytes()) == (5, 5, 0, 0)
        assert log.event(4) == log.events_from(4) == event
        assert events_of(log.gap(2)) == [Event("gap", '{"first":2,"last":3}', id_of(3))]
        log.told()
        assert log.event(4) is None
        assert events_of(log.gap(2)) == [Event("gap", '{"first":2,"last":4}', id_of(4))]
        log.add(b"data", b"{}")
        assert [event.number() for event in events_of(log.events_from(5))] == [5]

    def test_one_that_passes_is_there_until_the_next_one_comes(self):
        log = log_of(1)
        log.add(b"data", b"x" * MOST_BYTES)
        log.add(b"status", b"{}")
        assert (log.first, log.next) == (3, 4)
        assert log.event(2) is None
        assert [event.number() for event in events_of(log.events_from(3))] == [3]

    def test_the_oldest_is_forgotten(self):
        log = log_of(3)
        held = log.held_bytes()
        log.forget_oldest()
        assert log.first == 2
        assert log.held_bytes() < held
        assert events_of(log.gap(1)) == [Event("gap", '{"first":1,"last":1}', id_of(1))]
        log.forget_oldest()
        log.forget_oldest()
        assert (log.first, log.next, log.kept_bytes, log.held_bytes()) == (4, 4, 0, 0)

    @given(st.lists(st.integers(0, 2 * MOST_BYTES), max_size=100))
    def test_what_is_kept_is_bounded_and_the_newest(self, sizes):
        log = EventLog(JOB)
        for size in sizes:
            log.add(b"data", b"x" * size)
        assert log.kept_bytes <= MOST_BYTES
        assert log.next - log.first <= MOST
        assert log.kept_bytes == sum(len(log.event(number)) for number in range(log.first, log.next))
        assert log.next == len(sizes) + 1


class TestIds:
    """What a Last-Event-ID tells."""

    @pytest.mark.parametrize(
        ("text", "expected"),
        {
            b"kabc.1": (b"kabc", 1),
            b"kabc.0": (b"kabc", 0),
            b"k.a.12": (b"k.a", 12),
            b"k." + b"9" * 18: (b"k", 10**18 - 1),
            b"k." + b"9" * 19: None,
            b"": None,
            b".": None,
            b".1": None,
            b"k": None,
            b"k.": None,
            b"k.-1": None,
            b"k.+1": None,
            b"k. 1": None,
            b"k.1 ": None,
            b"k.x": None,
            "k.٣".encode(): None,
            b"\x00\xff.1": (b"\x00\xff", 1),
        }.items(),
    )
    def test_which_are_ids(self, text, expected):
        assert read_event_id(text) == expected

    @given(st.integers(1, 10**6))
    def test_what_was_written_is_read(self, number):
        log = EventLog(JOB)
        (event,) = events_of(log.add(b"x", b"y"))
        assert read_event_id(event.last_id.encode()) == (JOB, 1)
        assert read_event_id(JOB + b".%d" % number) == (JOB, number)
