"""What the headers of a request ask of the form of its answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayx.gateway.preferences import Preferred, preferred, tag_matches

NOTHING = Preferred(False, -1.0, False, None, None)
# RFC 9110 5.6.2.
TOKENS = st.text("!#$%&'*+-.^_`|~09azAZ", min_size=1, max_size=8).map(str.encode)
QUOTED = st.binary(max_size=8).map(
    lambda text: b'"' + bytes(byte for byte in text if byte >= 0x20 and byte not in b'"\\\x7f') + b'"'
)
BLANKS = st.sampled_from([b"", b" ", b"\t", b" \t "])


def prefer(*lines: bytes, is_post: bool = True) -> tuple[bool, float]:
    """What these lines of Prefer ask for."""
    found = preferred([text for line in lines for text in (b"Prefer", line)], is_post)
    assert found[2:] == NOTHING[2:]
    return found.respond_async, found.wait_s


def accepts_events(*lines: bytes) -> bool:
    """Whether these lines of Accept ask for events."""
    found = preferred([text for line in lines for text in (b"Accept", line)])
    assert found._replace(wants_events=False) == NOTHING
    return found.wants_events


class TestPrefer:
    """Prefer, as RFC 7240 has it."""

    @pytest.mark.parametrize(
        ("lines", "expected"),
        {
            (): (False, -1),
            (b"",): (False, -1),
            (b"respond-async",): (True, -1),
            (b"RESPOND-async",): (True, -1),
            (b"respond-async, wait=10",): (True, 10),
            (b'respond-async, Wait="10"',): (True, 10),
            (b"wait=10,respond-async",): (True, 10),
            (b"respond-async", b"wait=10"): (True, 10),
            (b"respond-async;wait=10",): (True, -1),
            (b'respond-async; foo="a, b"; bar , wait = 7',): (True, 7),
            (b"respond-async=",): (True, -1),
            (b'respond-async=""',): (True, -1),
            (b"respond-async=false",): (False, -1),
            (b"respond-async=false, respond-async",): (False, -1),
            (b"respond-async, respond-async=false",): (True, -1),
            (b"wait=0",): (False, 0),
            (b"wait=007",): (False, 7),
            (b"wait=1, wait=2",): (False, 1),
            (b"wait=1", b"wait=2"): (False, 1),
            (b"wait=soon, wait=2",): (False, -1),
            (b"wait",): (False, -1),
            (b"wait=",): (False, -1),
            (b'wait=""',): (False, -1),
            (b"wait=-1",): (False, -1),
            (b"wait=1.5",): (False, -1),
            (b'wait=" 5"',): (False, -1),
            (b"wait=" + b"9" * 400,): (False, 1e15),
            (b",, ,respond-async,\t,",): (True, -1),
            (b"handling=lenient, respond-async, return=minimal",): (True, -1),
            (b'x="respond-async, wait=3"',): (False, -1),
            (b'x="\\", respond-async, wait=3"',): (False, -1),
            (b'x="open, respond-async',): (False, -1),
            (b'wait="5\\"',): (False, -1),
            (b"respond-async wait=3",): (False, -1),
            (b"respond-async; =3",): (False, -1),
            (b"respond-async;;foo;",): (True, -1),
            (b"(respond-async), wait=3",): (False, 3),
            (b"respond-asynch, xwait=3, wai=4",): (False, -1),
        }.items(),
    )
    def test_what_is_preferred(self, lines, expected):
        assert prefer(*lines) == expected

    def test_only_a_post_prefers(self):
        assert prefer(b"respond-async, wait=1", is_post=False) == (False, -1)

    @given(
        st.lists(st.tuples(TOKENS, st.none() | TOKENS | QUOTED, BLANKS, BLANKS), max_size=5),
        st.integers(0, 5),
    )
    def test_among_any_others(self, others, place):
        elements = [
            before + name + (b"" if value is None else b"=" + value) + after
            for name, value, before, after in others
            if name.lower() not in (b"wait", b"respond-async")
        ]
        elements[place:place] = [b"respond-async", b"wait=3"]
        assert prefer(b",".join(elements)) == (True, 3)
        assert prefer(*elements) == (True, 3)

    @given(st.lists(st.binary(max_size=40), max_size=3))
    def test_of_any_bytes_no_more_than_the_words_are_taken(self, lines):
        found = prefer(*lines)
        text = b"".join(lines).lower()
        assert not found[0] or b"respond-async" in text
        assert found[1] == -1 or b"wait" in text


class TestAccept:
    """Accept: events are for who names them."""

    @pytest.mark.parametrize(
        "lines",
        [
            (b"text/event-stream",),
            (b"Text/Event-Stream",),
            (b"text/html, text/event-stream",),
            (b"text/html", b"text/event-stream"),
            (b"text/event-stream;q=0.5, */*",),
            (b"text/event-stream; charset=utf-8 ;q=0.001",),
            (b'text/event-stream; a="q=0, ;q=0"',),
            (b"text/event-stream;q=0, text/event-stream",),
            (b",text/event-stream,",),
        ],
    )
    def test_who_names_them(self, lines):
        assert accepts_events(*lines)

    @pytest.mark.parametrize(
        "lines",
        [
            (),
            (b"*/*",),
            (b"text/*, */*;q=0.8, application/json",),
            (b"text/event-stream;q=0",),
            (b"text/event-stream ; q=0.000",),
            (b"text/event-stream;Q=0.0",),
            (b"text/event-stream;q",),
            (b"text/event-stream;q=",),
            (b"text/event-streams, xtext/event-stream",),
            (b'text/html;a="text/event-stream", */*',),
            (b'text/html;a=", text/event-stream',),
            (b"text/event-stream x",),
            (b"text/event-stream; a=(",),
        ],
    )
    def test_who_does_not(self, lines):
        assert not accepts_events(*lines)

    @given(st.lists(st.binary(max_size=40), max_size=3))
    def test_any_bytes_are_read(self, lines):
        assert not accepts_events(*lines) or b"text/event-stream" in b"".join(lines).lower()


class TestEventIdAndTags:
    """Last-Event-ID and If-None-Match."""

    def test_last_event_id(self):
        assert preferred([b"last-event-id", b" kabc.7\t"]).event_id == b"kabc.7"
        assert preferred([b"Last-Event-ID", b""]).event_id == b""
        assert preferred([b"Last-Event-ID", b"k" * 128]).event_id == b"k" * 128

    def test_one_that_is_none_of_ours(self):
        assert preferred([b"Last-Event-ID", b"k" * 129]).event_id == b""
        assert preferred([b"Last-Event-ID", b"k.1", b"LAST-EVENT-ID", b"k.1"]).event_id == b""

    def test_tags_of_several_lines_are_one_list(self):
        assert preferred([b"If-None-Match", b'"a"', b"if-none-match", b'W/"b" ']).tags == b'"a", W/"b"'

    @pytest.mark.parametrize(
        "name", [b"Last-Event-I", b"Last-Event-IDs", b"If-None-Matcx", b"If_None-Match", b"Acceptx"]
    )
    def test_other_names(self, name):
        assert preferred([name, b"text/event-stream"]) == NOTHING

    @pytest.mark.parametrize(
        ("tags", "expected"),
        {
            b'"5"': True,
            b'W/"5"': True,
            b'w/"5"': False,
            b"*": True,
            b" * ": True,
            b'"4", "5"': True,
            b'"4","5"': True,
            b',, "4" ,\tW/"5",': True,
            b'"4, 5"': False,
            b'"a, "5"': False,
            b"5": False,
            b"": False,
            b'"': False,
            b"W/": False,
            b'"5': False,
            b'"55", "5 "': False,
            b'5, "5"': True,
            b'"4", *': False,
        }.items(),
    )
    def test_which_match(self, tags, expected):
        assert tag_matches(tags, b'"5"') is expected

    @given(st.binary(max_size=30))
    def test_any_bytes_are_compared(self, tags):
        assert not tag_matches(tags, b'"5"') or b'"5"' in tags or tags.strip(b" \t") == b"*"
