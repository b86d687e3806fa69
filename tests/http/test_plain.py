"""Plain heads: which they are, and the referee, who has httptools read whatever the short way takes."""

from __future__ import annotations

import itertools

import pytest

from fuzz.request_parser import HANDLER, HOST, LIMITS, PLAIN, Read, Refused, cut, judge, outcome
from gatewayx.config.settings import Settings
from gatewayx.http.limits import Limits
from gatewayx.http.parser import Event, RequestParser
from support.gateway import eventually, with_settings
from support.http import HttpClient
from support.pieces import every_way


def head(*lines: bytes, first: bytes = b"GET /f HTTP/1.1") -> bytes:
    """A head with a Host."""
    return b"\r\n".join((first, b"Host: a", *lines, b"", b""))


def host(value: bytes) -> bytes:
    """A head with this Host."""
    return b"GET /f HTTP/1.1\r\nHost:" + value + b"\r\n\r\n"


WANTED = b"X-Gearman-Priority: low"
TARGET_BYTES = bytes(byte for byte in range(0x21, 0x7F) if byte not in b"#%")
TOKEN_BYTES = b"!#$%&'*+-.^_`|~09azAZ"
VALUE_BYTES = bytes(range(0x20, 0x7F))

# By the clauses of the definition (http/plain). LIMITS: 64 bytes of target, 12 header lines of 512 bytes, 200 of body.
SHORT = {
    **{
        f"method {method.decode()}": head(first=method + b" / HTTP/1.1")
        for method in (b"GET", b"HEAD", b"POST", b"PUT")
    },
    "method OPTIONS": head(first=b"OPTIONS /f HTTP/1.1"),
    "empty lines before it": b"\r\n\r\n" + head(),
    "target of one byte": head(first=b"GET / HTTP/1.1"),
    "target of two slashes": head(first=b"GET //a/f HTTP/1.1"),
    "target of every byte": b"".join(
        head(first=b"GET /" + TARGET_BYTES[at : at + 60] + b" HTTP/1.1") for at in range(0, len(TARGET_BYTES), 60)
    ),
    "target percent-encoded": head(first=b"GET /%00%fF?%7e HTTP/1.1"),
    "query": head(first=b"GET /f?a?b HTTP/1.1"),
    "query empty": head(first=b"GET /f? HTTP/1.1"),
    "target at its limit": head(first=b"GET /" + b"t" * 63 + b" HTTP/1.1"),
    "name of every byte": head(TOKEN_BYTES + b": x"),
    "name of one byte": head(b"X: y"),
    "value of every byte": head(b"X:" + VALUE_BYTES + b"."),
    "value empty": head(b"X:", b"Y: ", b"Z:    "),
    "value without and with blanks before it": head(b"X:y", b"X:    y"),
    "Host without a port": host(b"a.example"),
    "Host with an empty port": host(b" a:"),
    "Host of IPv6": host(b" [::ffff:10.0.0.1]:80"),
    "Host at the end": b"GET /f HTTP/1.1\r\nX: y\r\nHOST: a\r\n\r\n",
    "length of 1 digit": head(b"Content-Length: 0"),
    "length of 15 digits": head(b"Content-LENGTH: 000000000000005") + b"hello",
    "length at its limit": head(b"Content-Length: 200") + b"b" * 200,
    "body of line ends": head(b"Content-Length: 4") + b"\r\n\r\n",
    "keep-alive": head(b"Connection: Keep-ALIVE"),
    "close": head(b"connection:cLOSE"),
    "names that almost mean something": head(
        *(b"Hosts: x", b"T: x", b"TF: x", b"Expecu: x", b"Upgradf: x", b"Keep-Alivf: x", b"HTTP2-Settingt: x"),
        *(b"Proxy-Connectiom: x", b"Transfer-Encodinf: x", b"Trailes: x"),
    ),
    "names with an underscore": head(b"content_length: 9", b"transfer_encoding: chunked", b"keep_alive: x"),
    "wanted twice": head(WANTED, WANTED.lower()),
    "as many wanted as there is room": head(*[WANTED] * 8),
    "header lines at their limit": head(*[b"A: b"] * 11),
    "header bytes at their limit": head(b"A: " + b"x" * (512 - 14)),
}
LONG = {
    "method in lower case": head(first=b"get /f HTTP/1.1"),
    "method that is another": head(first=b"DELETE /f HTTP/1.1"),
    "method that begins like one": head(first=b"POSTS /f HTTP/1.1"),
    "method CONNECT": head(first=b"CONNECT a:80 HTTP/1.1"),
    "target in absolute-form": head(first=b"GET http://a/f HTTP/1.1"),
    "target in asterisk-form": head(first=b"OPTIONS * HTTP/1.1"),
    "target empty": head(first=b"GET  HTTP/1.1"),
    **{f"target with {byte!r}": head(first=b"GET /" + byte + b" HTTP/1.1") for byte in (b"#", b"\x7f", b"\x80", b"\t")},
    **{f"target with {text!r}": head(first=b"GET /" + text + b" HTTP/1.1") for text in (b"%", b"%4", b"%4g", b"%g4")},
    "target above its limit": head(first=b"GET /" + b"t" * 64 + b" HTTP/1.1"),
    "target above its limit, unfinished": b"GET /" + b"t" * 64,
    "two blanks behind the target": head(first=b"GET /f  HTTP/1.1"),
    "version 1.0": head(first=b"GET /f HTTP/1.0"),
    "version in lower case": head(first=b"GET /f http/1.1"),
    "version with a blank behind it": head(first=b"GET /f HTTP/1.1 "),
    "no version": head(first=b"GET /f"),
    "LF alone behind the request line": b"GET /f HTTP/1.1\nHost: a\r\n\r\n",
    "LF alone behind a line": b"GET /f HTTP/1.1\r\nHost: a\n\r\n",
    "LF alone at the end": b"GET /f HTTP/1.1\r\nHost: a\r\n\n",
    "CR alone behind a line": b"GET /f HTTP/1.1\r\nHost: a\rX: y\r\n\r\n",
    "CR twice": b"GET /f HTTP/1.1\r\nHost: a\r\r\n\r\n",
    "name empty": head(b": x"),
    "name with a blank behind it": head(b"X : y"),
    "name with a blank before it": head(b" X: y"),
    "name with a NUL": head(b"X\0: y"),
    "no colon": head(b"X"),
    "value with a blank behind it": head(b"X: y "),
    **{
        f"value with {byte!r}": head(b"X: a" + byte + b"b")
        for byte in (b"\0", b"\t", b"\x1f", b"\x7f", b"\x80", b"\xff")
    },
    "value with TAB before it": head(b"X:\ty"),
    "obs-fold": head(b"X: y", b" z"),
    "no Host": b"GET /f HTTP/1.1\r\n\r\n",
    "two Hosts": head(b"Host: a"),
    **{
        f"Host {value!r}": host(value)
        for value in (b"", b" ", b" a b", b" a/b", b" u@a", b" a:65536", b" [::1", b" :80")
    },
    "two lengths": head(b"Content-Length: 1", b"Content-Length: 1") + b"a",
    **{
        f"length {value!r}": head(b"Content-Length:" + value)
        for value in (
            b"",
            b" ",
            b" +1",
            b" -1",
            b" 1,1",
            b" 1 1",
            b" 0x1",
            b" 1.0",
            b" 201",
            b" 0000000000000001",
            b" 9" * 20,
        )
    },
    "two Connections": head(b"Connection: close", b"Connection: close"),
    **{
        f"Connection {value!r}": head(b"Connection:" + value)
        for value in (b"", b" upgrade", b" close, x", b" keep-alive,close", b" closed", b" clos", b" keep-aliv")
    },
    **{
        f"{name.decode()}": head(name + b": x")
        for name in (
            *(b"Transfer-Encoding", b"TE", b"Trailer", b"Upgrade", b"Expect", b"Proxy-Connection", b"Keep-Alive"),
            *(b"HTTP2-Settings", b"tRANSFER-eNCODING", b"te", b"HTTP2-SETTINGS", b"expect"),
        )
    },
    "more wanted than there is room": head(*[WANTED] * 11),
    "header lines above their limit": head(*[b"A: b"] * 12),
    "header bytes above their limit": head(b"A: " + b"x" * (513 - 14)),
    "header bytes above their limit, unfinished": head()[:-2] + b"A: " + b"x" * 520,
}


@pytest.mark.parametrize("name", SHORT)
def test_a_plain_head_goes_the_short_way(name):
    for pieces in every_way(SHORT[name]):
        went = outcome(pieces)
        assert went.short == len(went.reads) > 0, pieces
        assert all(isinstance(read, Read) for read in went.reads), pieces
        assert went.reads == outcome(pieces, httptools_only=True).reads, pieces


@pytest.mark.parametrize("name", LONG)
def test_any_other_goes_the_long_way(name):
    for pieces in every_way(LONG[name]):
        went = outcome(pieces)
        assert went.short == 0, pieces
        assert went.reads == outcome(pieces, httptools_only=True).reads, pieces


def changed(data: bytes) -> set[bytes]:
    """Every change of one byte: to each other value, left out, and each value put before it."""
    changes = {data[:at] + data[at + 1 :] for at in range(len(data))}
    for at, byte in itertools.product(range(len(data) + 1), range(256)):
        one = bytes((byte,))
        changes |= {data[:at] + one + data[at + 1 :], data[:at] + one + data[at:]}
    return changes


@pytest.mark.parametrize("number", range(len(PLAIN)))
def test_whatever_the_short_way_takes_of_single_byte_changes_httptools_takes_alike(number):
    short = long = 0
    for place, data in enumerate(sorted(changed(PLAIN[number]))):
        # Bytes that are changed alike are cut differently.
        went = judge(data, (place % len(data), place * 7 % len(data)))
        short += went.short
        long += any(isinstance(read, Refused) for read in went.reads)
    # Both happen often, so that something is compared.
    assert min(short, long) > 1000


@pytest.mark.parametrize("pairs", [(b"\r", b"\n"), (b" ", b"\t"), (b":", b"\r\n"), (b"\0", b"\xff"), (b"%", b"?")])
def test_so_it_is_with_two_bytes_put_anywhere(pairs):
    data = PLAIN[0]
    for first, second in itertools.combinations_with_replacement(range(len(data)), 2):
        judge(data[:first] + pairs[0] + data[first:second] + pairs[1] + data[second:], (first, second))


def test_an_unfinished_head_is_handed_over_at_its_first_byte_that_is_not_plain():
    data = head(b"X: y", b"Z: \t")
    parser = RequestParser(LIMITS, HANDLER)
    for end in range(1, data.index(b"\t") + 1):
        assert parser.feed(data[:end], 0) == 0
        assert not parser.handed_over
        assert parser.request is None
    used = parser.feed(data[: data.index(b"\t") + 1], 0)
    assert parser.handed_over
    assert used == data.index(b"Z:")
    assert parser.request.path == b"/f"
    parser.feed(data[used:], 0)
    assert parser.event == Event.REQUEST_COMPLETE
    parser.start_next()
    assert parser.feed(head(), 0) == len(head())
    assert not parser.handed_over


@pytest.mark.parametrize("begun", [b"GET /", b"GET /?", b"GET /f HTTP/1.1\r\n", b"GET /f HTTP/1.1\r\nX: "])
def test_what_was_walked_is_not_walked_again(begun):
    parser = RequestParser(Limits(Settings()))
    for walked_bytes in range(1000):
        # A NUL is allowed nowhere in a head.
        assert parser.feed(begun + bytes(walked_bytes) + b"x", 0) == 0
        assert not parser.handed_over


@pytest.mark.anyio
class TestUnfinished:
    """An unfinished plain head is kept by its connection, which must know of it what it knows of others."""

    @with_settings(header_timeout_s=0.3)
    @pytest.mark.parametrize("line", [b"X: y", b"X: \ty"], ids=["plain", "handed over"])
    async def test_half_a_head_of_head_is_refused_without_a_body(self, gateway, line):
        async with HttpClient(gateway.address) as client:
            client.send(b"HEAD /echo HTTP/1.1\r\nHost: a\r\n" + line + b"\r\n")
            answer = await client.response(to_head=True)
            assert (answer.status, answer.headers[b"connection"]) == (408, b"close")
            assert await client.rest() == b""

    async def test_heads_cut_anywhere_are_answered_in_order(self, gateway, samples):
        data = b"".join(
            b"POST /echo HTTP/1.1\r\n" + HOST + b"X: y\r\nContent-Length: 2\r\n\r\n%02d" % number
            for number in range(20)
        )
        async with HttpClient(gateway.address) as client:
            for piece in cut(data, range(0, len(data), 7)):
                client.send(piece)
                await client.writer.drain()
            for number in range(20):
                assert (await client.response()).body == b"%02d" % number

    async def test_half_heads_of_several_clients_do_not_mix(self, gateway, samples):
        heads = [b"GET /echo?%s HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n" % (b"q" * size) for size in (1, 30, 300)]
        async with (
            HttpClient(gateway.address) as one,
            HttpClient(gateway.address) as two,
            HttpClient(gateway.address) as three,
        ):
            clients = (one, two, three)
            sent = 0
            for end in (2, 9, 15, 35, 38):
                for client, data in zip(clients, heads, strict=True):
                    client.send(data[sent:end])
                await eventually(lambda: gateway.count("http.arrivals") == len(clients))
                await gateway.reaches("budget.small_bytes", end * len(clients))
                sent = end
            for client, data in zip(clients, heads, strict=True):
                client.send(data[sent:])
            for client, size in zip(clients, (1, 30, 300), strict=True):
                assert (await client.response()).body == b"q" * size
