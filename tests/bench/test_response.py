"""The reader of answers as tables of bytes: each whole, in pieces, cut anywhere, and with another answer behind it."""

from __future__ import annotations

import pytest

from gatewayx.bench.response import read_all

MAX_HEAD_BYTES = 65536

FOLLOWING = b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\nfollowing"
FOLLOWING_OUTCOME = (404, b"following", True)

EVERY_BYTE = bytes(range(256))


def answer(*lines: bytes, body: bytes = b"", first: bytes = b"HTTP/1.1 200 OK") -> bytes:
    """A head and what follows it."""
    return b"\r\n".join((first, *lines, b"", b"")) + body


SIZED = b"Content-Length: 5"
CHUNKED = b"Transfer-Encoding: chunked"
ONE_CHUNK = b"5\r\nhello\r\n0\r\n\r\n"
HELLO = (200, b"hello", True)
EMPTY = (200, b"", True)

# Name (with the section of RFC 9112 unless another is named), bytes, the answers in them.
ANSWERS = {
    "6.3 length": (answer(SIZED, body=b"hello"), [HELLO]),
    "6.3 zero length": (answer(b"Content-Length: 0"), [EMPTY]),
    "6.3 length with zeros before it": (answer(b"Content-Length: 0005", body=b"hello"), [HELLO]),
    "5 name of any case, blanks around the value": (answer(b"cOnTeNt-lEnGtH:\t 5 \t", body=b"hello"), [HELLO]),
    "5 no blank before the value": (answer(b"Content-Length:5", body=b"hello"), [HELLO]),
    "5 headers whose names begin alike": (
        answer(b"Content-Length-Of: 7", b"Connections: close", b"Transfer-Encodings: x", SIZED, body=b"hello"),
        [HELLO],
    ),
    "5 header without a value": (answer(b"X-Empty:", SIZED, body=b"hello"), [HELLO]),
    "any byte in a body": (answer(b"Content-Length: 256", body=EVERY_BYTE), [(200, EVERY_BYTE, True)]),
    "NUL and 0xff in a body": (answer(SIZED, body=b"\0\xff\0\xff\n"), [(200, b"\0\xff\0\xff\n", True)]),
    "a body that looks like an answer": (
        answer(b"Content-Length: %d" % len(FOLLOWING), body=FOLLOWING),
        [(200, FOLLOWING, True)],
    ),
    "4 no reason": (answer(SIZED, first=b"HTTP/1.1 200 ", body=b"hello"), [HELLO]),
    "4 no blank for a reason": (answer(SIZED, first=b"HTTP/1.1 200", body=b"hello"), [HELLO]),
    "4 a reason in another script": (
        answer(SIZED, first=b"HTTP/1.1 500 \xff\xfe", body=b"hello"),
        [(500, b"hello", True)],
    ),
    "7.1 one chunk": (answer(CHUNKED, body=ONE_CHUNK), [HELLO]),
    "7.1 no chunks": (answer(CHUNKED, body=b"0\r\n\r\n"), [EMPTY]),
    "7.1 chunks, letters of any case": (
        answer(b"TRANSFER-ENCODING: Chunked", body=b"A\r\n0123456789\r\n0a\r\nabcdefghij\r\n000\r\n\r\n"),
        [(200, b"0123456789abcdefghij", True)],
    ),
    "7.1 line ends in a chunk": (answer(CHUNKED, body=b"5\r\n\r\n0\r\n\r\n0\r\n\r\n"), [(200, b"\r\n0\r\n", True)]),
    "7.1 any byte in a chunk": (
        answer(CHUNKED, body=b"100\r\n%b\r\n0\r\n\r\n" % EVERY_BYTE),
        [(200, EVERY_BYTE, True)],
    ),
    "7.1.1 extensions": (
        answer(CHUNKED, body=b'2;a\r\nhe\r\n3;a="b;c";d=e\r\nllo\r\n0;last\r\n\r\n'),
        [HELLO],
    ),
    "7.1.1 blanks before an extension": (answer(CHUNKED, body=b"5 \t;a=b\r\nhello\r\n0\r\n\r\n"), [HELLO]),
    "7.1.2 trailers": (
        answer(CHUNKED, body=b"5\r\nhello\r\n0\r\nX-Sum: 1\r\nContent-Length: 9\r\n\r\n"),
        [HELLO],
    ),
    "6.3 204 has no body": (answer(first=b"HTTP/1.1 204 No Content"), [(204, b"", True)]),
    "6.3 304 has no body": (answer(SIZED, first=b"HTTP/1.1 304 Not Modified"), [(304, b"", True)]),
    "6.3 304 of what is chunked": (answer(CHUNKED, first=b"HTTP/1.1 304 Not Modified"), [(304, b"", True)]),
    "9.3 close": (answer(b"Connection: close", SIZED, body=b"hello"), [(200, b"hello", False)]),
    "9.3 close of any case": (answer(b"CONNECTION: ClOsE", SIZED, body=b"hello"), [(200, b"hello", False)]),
    "9.3 close in a list": (answer(b"Connection: a,\tclose ,b", SIZED, body=b"hello"), [(200, b"hello", False)]),
    "9.3 close after keep-alive": (
        answer(b"Connection: keep-alive, close", SIZED, body=b"hello"),
        [(200, b"hello", False)],
    ),
    "9.3 close outweighs a later keep-alive": (
        answer(b"Connection: close", b"Connection: keep-alive", SIZED, body=b"hello"),
        [(200, b"hello", False)],
    ),
    "9.3 words that hold close": (answer(b"Connection: closed, x-close", SIZED, body=b"hello"), [HELLO]),
    "9.3 keep-alive needs no saying": (answer(b"Connection: keep-alive", SIZED, body=b"hello"), [HELLO]),
    "9.3 1.0 with keep-alive": (
        answer(b"Connection: Keep-Alive", SIZED, first=b"HTTP/1.0 200 OK", body=b"hello"),
        [HELLO],
    ),
    "9.3 1.0 with a length": (answer(SIZED, first=b"HTTP/1.0 200 OK", body=b"hello"), [(200, b"hello", False)]),
    "9110 15.2 100 before it": (answer(first=b"HTTP/1.1 100 Continue") + answer(SIZED, body=b"hello"), [HELLO]),
    "9110 15.2 several interim answers": (
        answer(first=b"HTTP/1.1 100 Continue")
        + answer(b"Link: </a>", first=b"HTTP/1.1 103 Early Hints") * 2
        + answer(CHUNKED, body=ONE_CHUNK),
        [HELLO],
    ),
    "9.3.2 pipelined": (
        answer(SIZED, body=b"hello")
        + answer(CHUNKED, body=ONE_CHUNK)
        + answer(first=b"HTTP/1.1 204 No Content")
        + answer(b"Content-Length: 0")
        + answer(b"Content-Length: 1", first=b"HTTP/1.1 503 Busy", body=b"!"),
        [HELLO, HELLO, (204, b"", True), EMPTY, (503, b"!", True)],
    ),
    "a head of 64 KiB": (
        answer(b"X: ".ljust(MAX_HEAD_BYTES - len(answer(SIZED)) - 2, b"x"), SIZED, body=b"hello"),
        [HELLO],
    ),
}

# The same of an answer that ends with the connection.
UNTIL_CLOSE = {
    "6.3 1.0 until the end": (answer(first=b"HTTP/1.0 200 OK", body=b"hello"), [(200, b"hello", False)]),
    "6.3 1.1 until the end": (answer(body=b"hello"), [(200, b"hello", False)]),
    "6.3 nothing until the end": (answer(first=b"HTTP/1.0 200 OK"), [(200, b"", False)]),
    "6.3 keep-alive cannot be kept": (
        answer(b"Connection: keep-alive", first=b"HTTP/1.0 200 OK", body=b"hello"),
        [(200, b"hello", False)],
    ),
    "6.3 any byte until the end": (answer(body=EVERY_BYTE), [(200, EVERY_BYTE, False)]),
    "after another": (answer(SIZED, body=b"hello") + answer(body=FOLLOWING), [HELLO, (200, FOLLOWING, False)]),
}

# Answers to HEAD, which have no body.
TO_HEAD = {
    "length": (answer(SIZED), [EMPTY]),
    "chunked": (answer(CHUNKED), [EMPTY]),
    "neither": (answer(), [EMPTY]),
    "1.0": (answer(SIZED, first=b"HTTP/1.0 200 OK"), [(200, b"", False)]),
    "several": (answer(SIZED) * 3, [EMPTY] * 3),
}

LINE = "no status line of HTTP/1"
HEADER = "a header line without a name"
LENGTH = "a Content-Length that is no length"
ENCODING = "a Transfer-Encoding that is not chunked"
SIZE = "a chunk size that is none"
BARE_HEADER = "a header line without CRLF"
BARE_CHUNK = "a line of a chunked body without CRLF"
ENDLESS = "a head or line that does not end"

# Name, bytes, what is wrong.
BAD = {
    "not HTTP": (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", LINE),
    "0.9": (b"hello, this is the whole of it\r\n\r\n", LINE),
    "2.0": (answer(SIZED, first=b"HTTP/2.0 200 OK", body=b"hello"), LINE),
    "2": (answer(SIZED, first=b"HTTP/2 200 OK", body=b"hello"), LINE),
    "1.2": (answer(SIZED, first=b"HTTP/1.2 200 OK", body=b"hello"), LINE),
    "1.10": (answer(SIZED, first=b"HTTP/1.10 200 OK", body=b"hello"), LINE),
    "small letters": (answer(SIZED, first=b"http/1.1 200 OK", body=b"hello"), LINE),
    "two blanks": (answer(SIZED, first=b"HTTP/1.1  200 OK", body=b"hello"), LINE),
    "no status": (answer(SIZED, first=b"HTTP/1.1 OK", body=b"hello"), LINE),
    "status of two digits": (answer(SIZED, first=b"HTTP/1.1 20 OK", body=b"hello"), LINE),
    "status of four digits": (answer(SIZED, first=b"HTTP/1.1 2000 OK", body=b"hello"), LINE),
    "status with a letter": (answer(SIZED, first=b"HTTP/1.1 2x0 OK", body=b"hello"), LINE),
    "status below 100": (answer(SIZED, first=b"HTTP/1.1 099 OK", body=b"hello"), LINE),
    "a blank before it": (b" " + answer(SIZED, body=b"hello"), LINE),
    "an empty line before it": (b"\r\n\r\n" + answer(SIZED, body=b"hello"), LINE),
    "more body than the length": (answer(SIZED, body=b"hello you there!!\r\n\r\n"), LINE),
    "a body after 204": (answer(first=b"HTTP/1.1 204 No Content", body=b"hello, you there\r\n\r\n"), LINE),
    "101": (answer(b"Upgrade: x", first=b"HTTP/1.1 101 Switching"), "101 without an Upgrade"),
    "LF after the status line": (b"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n", "a status line without CRLF"),
    "LF after a header": (answer(b"X: y\nContent-Length: 0"), BARE_HEADER),
    "header without a colon": (answer(b"X-Nothing", SIZED, body=b"hello"), HEADER),
    "header without a name": (answer(b": x", SIZED, body=b"hello"), HEADER),
    "blank before the colon": (answer(b"Content-Length : 5", body=b"hello"), HEADER),
    "tab before the colon": (answer(b"Transfer-Encoding\t: chunked", body=ONE_CHUNK), HEADER),
    "a line that goes on": (answer(b"Transfer-Encoding: chunked,", b" gzip: x", body=ONE_CHUNK), ENCODING),
    "a length that goes on": (answer(SIZED, b" 6:", body=b"hello"), HEADER),
    "two lengths": (answer(SIZED, b"Content-Length: 6", body=b"hello!"), LENGTH),
    "two lengths alike": (answer(SIZED, SIZED, body=b"hello"), LENGTH),
    "two lengths of 0": (answer(b"Content-Length: 0", b"Content-Length: 0"), LENGTH),
    "list of lengths": (answer(b"Content-Length: 5, 5", body=b"hello"), LENGTH),
    "length and chunked": (answer(SIZED, CHUNKED, body=ONE_CHUNK), "both Content-Length and Transfer-Encoding"),
    "chunked and length": (answer(CHUNKED, SIZED, body=ONE_CHUNK), "both Content-Length and Transfer-Encoding"),
    "empty length": (answer(b"Content-Length:", body=b"hello"), LENGTH),
    "blank length": (answer(b"Content-Length:  \t", body=b"hello"), LENGTH),
    "signed length": (answer(b"Content-Length: +5", body=b"hello"), LENGTH),
    "negative length": (answer(b"Content-Length: -5", body=b"hello"), LENGTH),
    "hexadecimal length": (answer(b"Content-Length: 0x5", body=b"hello"), LENGTH),
    "length with a fraction": (answer(b"Content-Length: 5.0", body=b"hello"), LENGTH),
    "length of two words": (answer(b"Content-Length: 5 5", body=b"hello"), LENGTH),
    "length beyond 64 bits": (answer(b"Content-Length: 18446744073709551621", body=b"hello"), LENGTH),
    "length of a thousand digits": (answer(b"Content-Length: " + b"1" * 1000, body=b"hello"), LENGTH),
    "gzip": (answer(b"Transfer-Encoding: gzip", body=b"hello"), ENCODING),
    "gzip in chunks": (answer(b"Transfer-Encoding: gzip, chunked", body=ONE_CHUNK), ENCODING),
    "chunks in gzip": (answer(b"Transfer-Encoding: chunked, gzip", body=ONE_CHUNK), ENCODING),
    "chunked twice": (answer(b"Transfer-Encoding: chunked, chunked", body=ONE_CHUNK), ENCODING),
    "chunked in two headers": (answer(CHUNKED, CHUNKED, body=ONE_CHUNK), ENCODING),
    "chunked and gzip in two headers": (answer(CHUNKED, b"Transfer-Encoding: gzip", body=ONE_CHUNK), ENCODING),
    "chunked with a parameter": (answer(b"Transfer-Encoding: chunked;q=1", body=ONE_CHUNK), ENCODING),
    "xchunked": (answer(b"Transfer-Encoding: xchunked", body=ONE_CHUNK), ENCODING),
    "no encoding": (answer(b"Transfer-Encoding:", body=ONE_CHUNK), ENCODING),
    "6.1 chunked in 1.0": (answer(CHUNKED, first=b"HTTP/1.0 200 OK", body=ONE_CHUNK), ENCODING),
    "no chunk size": (answer(CHUNKED, body=b"\r\nhello\r\n0\r\n\r\n"), SIZE),
    "chunk size 0x5": (answer(CHUNKED, body=b"0x5\r\nhello\r\n0\r\n\r\n"), SIZE),
    "signed chunk size": (answer(CHUNKED, body=b"+5\r\nhello\r\n0\r\n\r\n"), SIZE),
    "negative chunk size": (answer(CHUNKED, body=b"-5\r\nhello\r\n0\r\n\r\n"), SIZE),
    "chunk size with a line of its own": (answer(CHUNKED, body=b"5_0\r\nhello\r\n0\r\n\r\n"), SIZE),
    "blank before a chunk size": (answer(CHUNKED, body=b" 5\r\nhello\r\n0\r\n\r\n"), SIZE),
    "only an extension": (answer(CHUNKED, body=b";a=b\r\nhello\r\n0\r\n\r\n"), SIZE),
    "chunk size that is a word": (answer(CHUNKED, body=b"five\r\nhello\r\n0\r\n\r\n"), SIZE),
    "chunk size beyond 64 bits": (answer(CHUNKED, body=b"10000000000000005\r\nhello\r\n0\r\n\r\n"), SIZE),
    "CR in a chunk size": (answer(CHUNKED, body=b"5\r;a\r\nhello\r\n0\r\n\r\n"), SIZE),
    "NUL in a chunk size": (answer(CHUNKED, body=b"5\0\r\nhello\r\n0\r\n\r\n"), SIZE),
    "chunk longer than its size": (answer(CHUNKED, body=b"4\r\nhello\r\n0\r\n\r\n"), "a chunk longer than its size"),
    "chunk shorter than its size": (answer(CHUNKED, body=b"5\r\nhell\r\n0\r\n\r\n"), BARE_CHUNK),
    "LF after a chunk size": (answer(CHUNKED, body=b"5\nhello\r\n0\r\n\r\n"), BARE_CHUNK),
    "LF after a chunk": (answer(CHUNKED, body=b"5\r\nhello\n0\r\n\r\n"), BARE_CHUNK),
    "LF after a trailer": (answer(CHUNKED, body=b"5\r\nhello\r\n0\r\nX: y\n\r\n"), BARE_CHUNK),
    "LF after the last chunk": (answer(CHUNKED, body=b"5\r\nhello\r\n0\r\n\n"), BARE_CHUNK),
    "head over 64 KiB": (
        answer(b"X: ".ljust(MAX_HEAD_BYTES - len(answer(SIZED)) - 1, b"x"), SIZED, body=b"hello"),
        ENDLESS,
    ),
    "head of many headers": (answer(*[b"X: y"] * 12000, SIZED, body=b"hello"), ENDLESS),
    "head without an end": (b"HTTP/1.1 200 OK\r\nX: " + b"x" * MAX_HEAD_BYTES, ENDLESS),
    "head of line feeds": (b"HTTP/1.1 200 OK" + b"\n" * MAX_HEAD_BYTES, ENDLESS),
    "chunk extension over 64 KiB": (answer(CHUNKED, body=b"5;%b\r\nhello\r\n" % (b"x" * MAX_HEAD_BYTES)), ENDLESS),
    "trailer over 64 KiB": (answer(CHUNKED, body=b"0\r\nX: %b\r\n\r\n" % (b"x" * MAX_HEAD_BYTES)), ENDLESS),
}

CUT_OFF = "an answer that is cut off"

# Longer ones take long byte by byte, and have nothing new to say.
SHORT_BYTES = 2048
PIECES = (0, 1, 2, 3, 7)


def pieces_of(data: bytes) -> tuple[int, ...]:
    """In pieces of how many bytes it is given; 0 is whole."""
    return PIECES if len(data) <= SHORT_BYTES else (0, 7, 1000, MAX_HEAD_BYTES - 1)


def rows(table: dict) -> pytest.MarkDecorator:
    """A test for each row of a table."""
    return pytest.mark.parametrize("row", table.values(), ids=table.keys())


@rows(ANSWERS)
def test_answer_is_understood_whole_and_in_pieces(row):
    data, expected = row
    for piece_bytes in pieces_of(data):
        assert read_all(data, piece_bytes=piece_bytes) == (expected, None)


@rows(ANSWERS)
def test_answer_that_follows_is_not_touched(row):
    data, expected = row
    for piece_bytes in pieces_of(data):
        found = read_all(data + FOLLOWING, piece_bytes=piece_bytes)
        assert found == ([*expected, FOLLOWING_OUTCOME], None)


@rows(ANSWERS)
def test_end_of_the_connection_adds_no_answer(row):
    data, expected = row
    assert read_all(data, ended=True) == (expected, None)


@rows({name: row for name, row in ANSWERS.items() if len(row[0]) <= SHORT_BYTES and len(row[1]) == 1})
def test_answer_cut_off_anywhere_is_none(row):
    data, _ = row
    last = data.rindex(b"HTTP/1.1 ") if data.count(b"HTTP/1.1 ") > 1 and b" 100 " in data else 0
    for cut in range(last + 1, len(data)):
        for ended in (False, True):
            assert read_all(data[:cut], ended=ended) == ([], CUT_OFF), data[:cut]


@rows(UNTIL_CLOSE)
def test_answer_without_a_length_ends_with_the_connection(row):
    data, expected = row
    for piece_bytes in PIECES:
        assert read_all(data, ended=True, piece_bytes=piece_bytes) == (expected, None)
        assert read_all(data, piece_bytes=piece_bytes) == (expected[:-1], CUT_OFF)


@rows(TO_HEAD)
def test_answer_to_head_ends_with_its_head(row):
    data, expected = row
    for piece_bytes in PIECES:
        assert read_all(data, to_head=True, piece_bytes=piece_bytes) == (expected, None)
        found = read_all(data + answer(SIZED), to_head=True, piece_bytes=piece_bytes)
        assert found == ([*expected, EMPTY], None)


@rows(BAD)
def test_bad_answer_is_told_from_a_good_one_whole_and_in_pieces(row):
    data, problem = row
    for piece_bytes in pieces_of(data):
        for ended in (False, True):
            assert read_all(data, ended=ended, piece_bytes=piece_bytes)[1] == problem, piece_bytes


@rows(BAD)
def test_bad_answer_behind_a_good_one_leaves_the_good_one(row):
    data, problem = row
    answers, found = read_all(answer(SIZED, body=b"hello") + data)
    assert answers[0] == HELLO
    assert found == problem


def test_head_may_be_cut_anywhere_and_come_with_what_follows():
    data = answer(b"Server: x", SIZED, body=b"hello")
    for piece_bytes in range(1, len(data) + 1):
        assert read_all(data * 2, piece_bytes=piece_bytes) == ([HELLO, HELLO], None)


def test_nothing_is_no_answer_and_no_problem():
    assert read_all(b"") == ([], None)
    assert read_all(b"", ended=True) == ([], None)


def test_large_body_is_read_in_any_pieces():
    body = bytes(range(251)) * 4000
    for data in (
        answer(b"Content-Length: %d" % len(body), body=body),
        answer(CHUNKED, body=b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)),
    ):
        for piece_bytes in (0, 4096, 65537):
            assert read_all(data, piece_bytes=piece_bytes) == ([(200, body, True)], None)
