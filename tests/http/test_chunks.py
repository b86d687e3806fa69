"""Chunked bodies as tables of bytes: each whole, in pieces, cut anywhere, and with another request behind it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayx.config.settings import Settings
from gatewayx.http.chunks import ChunkedBody
from gatewayx.http.limits import Limits
from gatewayx.http.problems import RequestError
from support.pieces import every_way, in_pieces

# Small, so that a table's row can reach them.
LIMITS = Limits(Settings(max_header_bytes=256, max_headers=8, max_body_bytes=64, max_chunk_extensions_bytes=16))

FOLLOWING = b"GET /following HTTP/1.1\r\nHost: a\r\n\r\n"


def outcome(pieces: Iterable[bytes], limits: Limits = LIMITS) -> object:
    """The data of the chunks and the bytes behind the body, b"" and None while more is needed, or a refusal's kind."""
    chunks = ChunkedBody(limits)
    body = b""
    unused = b""
    for piece in pieces:
        unused += piece
        while not chunks.complete:
            try:
                used, found = chunks.feed(unused, 0)
            except RequestError as error:
                return error.problem.kind
            unused = unused[used:]
            body += found
            if not found:
                break
    return (body, unused) if chunks.complete else (b"", None)


# Name (with the section of RFC 9112), bytes, and their data.
ACCEPTED = {
    "7.1 one chunk": (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
    "7.1 no chunks": (b"0\r\n\r\n", b""),
    "7.1 two chunks": (b"5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n", b"hello!"),
    "7.1 hexadecimal": (b"a\r\n0123456789\r\nB\r\n0123456789a\r\n00\r\n\r\n", b"01234567890123456789a"),
    "7.1 leading zeros": (b"0000000005\r\nhello\r\n000\r\n\r\n", b"hello"),
    "7.1 line ends as data": (b"4\r\n\r\n\r\n\r\n0\r\n\r\n", b"\r\n\r\n"),
    "7.1 data that looks like the end": (b"5\r\n0\r\n\r\n\r\n0\r\n\r\n", b"0\r\n\r\n"),
    "7.1 any byte as data": (b"40\r\n" + bytes(range(0, 256, 4)) + b"\r\n0\r\n\r\n", bytes(range(0, 256, 4))),
    "7.1.1 extensions": (b'5;a=b;c="d"\r\nhello\r\n0;e\r\n\r\n', b"hello"),
    "7.1.1 white space around their signs": (b"5 ; a = b\r\nhello\r\n0\t;e\r\n\r\n", b"hello"),
    "7.1.1 a quoted sign and quote": (b'5;a="\\";\\\\"\r\nhello\r\n0\r\n\r\n', b"hello"),
    "7.1.1 extensions up to the bound": (b"5;1234567\r\nhello\r\n0;1234567\r\n\r\n", b"hello"),
    "7.1.2 trailers": (b"5\r\nhello\r\n0\r\nX: y\r\nZ:\r\n\r\n", b"hello"),
    "7.1.2 names that begin like those of framing": (b"0\r\nContent-Lengths: 1\r\nTransfer-Encodin: x\r\n\r\n", b""),
    "limit: sum of chunks": (b"20\r\n%b\r\n20\r\n%b\r\n0\r\n\r\n" % (b"x" * 32, b"y" * 32), b"x" * 32 + b"y" * 32),
    "limit: zeros of a size": (b"0" * 30 + b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
    "limit: trailer lines": (b"0\r\n" + b"A: b\r\n" * 8 + b"\r\n", b""),
    "limit: trailer bytes": (b"0\r\nA: " + b"x" * 251 + b"\r\n\r\n", b""),
}

MALFORMED = "malformed-request"
HEADERS = "headers-too-large"
BODY = "body-too-large"
EXTENSIONS = "chunk-extensions-too-large"

REFUSED = {
    "7.1 no size": (b"\r\nhello", MALFORMED),
    "7.1 no size but an extension": (b";a=b\r\nhello", MALFORMED),
    "7.1 no hexadecimal": (b"g\r\n", MALFORMED),
    "7.1 negative": (b"-1\r\n", MALFORMED),
    "7.1 signed": (b"+5\r\nhello\r\n0\r\n\r\n", MALFORMED),
    "7.1 0x": (b"0x5\r\nhello\r\n0\r\n\r\n", MALFORMED),
    "7.1 a blank before": (b" 5\r\nhello\r\n0\r\n\r\n", MALFORMED),
    "7.1 a blank behind": (b"5 \r\nhello\r\n0\r\n\r\n", MALFORMED),
    "7.1 an underscore": (b"0_5\r\nhello\r\n0\r\n\r\n", MALFORMED),
    "7.1 bare LF": (b"5\nhello\r\n0\r\n\r\n", MALFORMED),
    "7.1 CR in the size": (b"5\r\r\nhello\r\n0\r\n\r\n", MALFORMED),
    "7.1 beyond 64 bits": (b"10000000000000005\r\nhello\r\n0\r\n\r\n", MALFORMED),
    "7.1 data longer than its size": (b"4\r\nhello\r\n0\r\n\r\n", MALFORMED),
    "7.1 data shorter than its size": (b"6\r\nhello\r\n0\r\n\r\n", MALFORMED),
    "7.1 bare LF behind data": (b"5\r\nhello\n0\r\n\r\n", MALFORMED),
    "7.1 a CR and anything behind data": (b"5\r\nhello\rx0\r\n\r\n", MALFORMED),
    "7.1.1 white space behind an extension": (b"5;a \r\nhello\r\n0\r\n\r\n", MALFORMED),
    "7.1.1 LF in an extension": (b"5;a\nb\r\nhello\r\n0\r\n\r\n", MALFORMED),
    "7.1.1 CR in an extension": (b"5;a\rb\r\nhello\r\n0\r\n\r\n", MALFORMED),
    "7.1.1 NUL in an extension": (b"5;a\0\r\nhello\r\n0\r\n\r\n", MALFORMED),
    "7.1.1 a quote that does not end": (b'5;a="b\r\nhello\r\n0\r\n\r\n', MALFORMED),
    "7.1.2 no colon": (b"0\r\nno trailer\r\n\r\n", MALFORMED),
    "7.1.2 no name": (b"0\r\n: y\r\n\r\n", MALFORMED),
    "7.1.2 obs-fold": (b"0\r\nX: y\r\n z\r\n\r\n", MALFORMED),
    "7.1.2 NUL in a trailer": (b"0\r\nX: \0\r\n\r\n", MALFORMED),
    "7.1.2 bare LF behind a trailer": (b"0\r\nX: y\n\r\n", MALFORMED),
    "7.1.2 bare LF as the empty line": (b"0\r\n\n", MALFORMED),
    "6.3 a length as a trailer": (b"0\r\nContent-Length: 3\r\n\r\n", MALFORMED),
    "6.3 a coding as a trailer": (b"0\r\ntransfer-encoding: chunked\r\n\r\n", MALFORMED),
    "limit: first chunk": (b"41\r\n", BODY),
    "limit: first chunk, huge": (b"fffffffffffffff\r\n", BODY),
    "limit: sum of chunks": (b"20\r\n" + b"x" * 32 + b"\r\n21\r\n", BODY),
    "limit: trailer lines": (b"0\r\n" + b"A: b\r\n" * 9 + b"\r\n", HEADERS),
    "limit: trailer bytes": (b"0\r\nA: " + b"x" * 252 + b"\r\n\r\n", HEADERS),
    "limit: trailer, unfinished": (b"0\r\n" + b"A" * 260, HEADERS),
    "limit: extensions": (b"1;" + b"x" * 40 + b"\r\nx\r\n0\r\n\r\n", EXTENSIONS),
    "limit: extensions, one byte over": (b"1;" + b"x" * 16 + b"\r\nx\r\n0\r\n\r\n", EXTENSIONS),
    "limit: extensions of all chunks": (b"1;1234567\r\nx\r\n" * 6, EXTENSIONS),
    "limit: extensions, unfinished": (b"1;" + b"x" * 40, EXTENSIONS),
    "limit: white space in extensions": (b"1" + b" " * 40 + b";a\r\nx\r\n0\r\n\r\n", EXTENSIONS),
    "limit: white space in extensions, unfinished": (b"1 ;a" + b"\t" * 40, EXTENSIONS),
    "limit: zeros of a size": (b"0" * 60, EXTENSIONS),
    "limit: zeros of a size, before too many digits": (b"0" * 32 + b"1" * 16 + b"\r\n", EXTENSIONS),
    "limit: extensions, before what is malformed": (b"1;" + b"x" * 16 + b"\0\r\n", EXTENSIONS),
    "limit: extensions, before a CR that is not the end": (b"1;" + b"x" * 15 + b"\rx\r\n", EXTENSIONS),
    "limit: extensions, before a bare LF": (b"1;" + b"x" * 16 + b"\n", EXTENSIONS),
    "limit: extensions, behind what is malformed": (b"1 \0" + b"x" * 40 + b"\r\n", MALFORMED),
    "limit: extensions, behind a CR that is not the end": (b"1;" + b"x" * 14 + b"\rx\r\n", MALFORMED),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_data_is_the_same_however_it_is_cut(name):
    data, body = ACCEPTED[name]
    for pieces in every_way(data):
        assert outcome(pieces) == (body, b""), pieces


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_follows_is_left_alone(name):
    data, body = ACCEPTED[name]
    for pieces in every_way(data + FOLLOWING):
        assert outcome(pieces) == (body, FOLLOWING), pieces


@pytest.mark.parametrize("name", ACCEPTED)
def test_a_body_is_not_complete_before_its_last_byte(name):
    data, _ = ACCEPTED[name]
    for cut in range(len(data)):
        assert outcome([data[:cut]]) == (b"", None), data[:cut]


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_for_the_same_however_it_is_cut(name):
    data, kind = REFUSED[name]
    for pieces in every_way(data):
        assert outcome(pieces) == kind, pieces


def test_a_long_size_line_that_comes_byte_by_byte_is_refused_for_what_stands_first():
    limits = Limits(Settings(max_chunk_extensions_bytes=4096))
    good = b"1;" + b"x" * 4095
    for data, kind in (
        (good, None),
        (good + b"x\r\n", EXTENSIONS),
        (good + b"\0\r\n", EXTENSIONS),
        (good[:3000] + b"\0" + good[3000:] + b"\r\n", MALFORMED),
    ):
        expected = (b"", None) if kind is None else kind
        assert outcome([data], limits) == expected
        assert outcome(in_pieces(data, 1), limits) == expected


# Bytes that mean something in a chunked body, so that random sequences come far.
WORDS = st.sampled_from(
    [
        *(
            b"5",
            b"0",
            b"a",
            b"000",
            b"\r\n",
            b"\r",
            b"\n",
            b"hello",
            b"5\r\nhello\r\n",
            b"0\r\n",
            b";",
            b"=",
            b'"',
            b"\\",
        ),
        *(b" ", b"\t", b"x", b"\0", b"\xff", b":", b"X: y\r\n", b"Content-Length: 1\r\n", b"x" * 12, b"0" * 14),
    ]
)
BYTES = st.one_of(st.binary(max_size=60), st.lists(WORDS, max_size=24).map(b"".join))


@given(BYTES, st.lists(st.integers(0, 200), max_size=6))
def test_any_bytes_come_to_the_same_however_they_are_cut(data, cuts):
    whole = outcome([data])
    places = [0, *sorted(cut for cut in cuts if cut <= len(data)), len(data)]
    assert outcome(data[start:end] for start, end in itertools.pairwise(places)) == whole
    assert outcome(in_pieces(data, 1)) == whole
