"""The request parser as tables of bytes: each whole, in pieces, cut anywhere, and with other requests around it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayx.config.settings import Settings
from gatewayx.http.limits import Limits
from gatewayx.http.parser import Event, RequestParser
from gatewayx.http.problems import RequestError
from support.pieces import every_way, in_pieces

# Small, so that a table's row can reach them.
LIMITS = Limits(
    Settings(max_target_bytes=64, max_header_bytes=256, max_headers=8, max_body_bytes=64, max_chunk_extensions_bytes=16)
)

GET, HEAD, POST, PUT, OPTIONS, DELETE, OTHER = range(7)

FOLLOWING = b"GET /following HTTP/1.1\r\nHost: a\r\n\r\n"
FOLLOWING_OUTCOME = {"method": GET, "path": b"/following", "query": None, "minor": 1, "keeps": True, "body": b""}


def outcome(pieces: Iterable[bytes], limits: Limits = LIMITS) -> list[object]:
    """What a connection would see: requests as dicts, then how it ended if it ended, or whether a request is begun."""
    parser = RequestParser(limits)
    seen: list[object] = []
    data = b""
    for piece in pieces:
        data += piece
        offset = 0
        while offset < len(data):
            try:
                offset = parser.feed(data, offset)
            except RequestError as error:
                return [*seen, (error.problem.status, error.problem.kind)]
            if parser.event == Event.MORE:
                break
            if parser.event == Event.REQUEST_COMPLETE:
                request = parser.request
                seen.append(
                    {
                        "method": request.method,
                        "path": request.path,
                        "query": request.query,
                        "minor": request.minor_version,
                        "keeps": request.keep_alive,
                        "body": request.body,
                    }
                )
                if not request.keep_alive:
                    return seen
                parser.start_next()
        data = data[offset:]
    if parser.request is not None or data.strip(b"\r\n"):
        seen.append("begun")
    return seen


def head(*lines: bytes, first: bytes = b"POST /f HTTP/1.1") -> bytes:
    """A head with a Host."""
    return b"\r\n".join((first, b"Host: a", *lines, b"", b""))


SIZED = b"Content-Length: 5"
CHUNKED = b"Transfer-Encoding: chunked"
UPGRADE = (b"Connection: Upgrade", b"Upgrade: h2c")
ONE_CHUNK = b"5\r\nhello\r\n0\r\n\r\n"

# Name (with the section of RFC 9112 unless another is named), bytes, and what is not as in a plain POST /f.
ACCEPTED = {
    "2.1 no body": (head(), {}),
    "2.2 empty lines before it": (b"\r\n\r\n" + head(), {}),
    "2.3 HTTP/1.0": (b"POST /f HTTP/1.0\r\n\r\n", {"minor": 0, "keeps": False}),
    "3.1 GET": (head(first=b"GET /f HTTP/1.1"), {"method": GET}),
    "3.1 HEAD": (head(first=b"HEAD /f HTTP/1.1"), {"method": HEAD}),
    "3.1 PUT": (head(first=b"PUT /f HTTP/1.1"), {"method": PUT}),
    "3.1 OPTIONS": (head(first=b"OPTIONS /f HTTP/1.1"), {"method": OPTIONS}),
    "3.1 DELETE": (head(first=b"DELETE /f HTTP/1.1"), {"method": DELETE}),
    "3.1 PATCH": (head(first=b"PATCH /f HTTP/1.1"), {"method": OTHER}),
    "3.1 M-SEARCH": (head(first=b"M-SEARCH /f HTTP/1.1"), {"method": OTHER}),
    "3.2.1 root": (head(first=b"POST / HTTP/1.1"), {"path": b"/"}),
    "3.2.1 query": (head(first=b"POST /f?a=b HTTP/1.1"), {"query": b"a=b"}),
    "3.2.1 empty query": (head(first=b"POST /f? HTTP/1.1"), {"query": b""}),
    "3.2.1 question marks in the query": (head(first=b"POST /f?a?b? HTTP/1.1"), {"query": b"a?b?"}),
    "3.2.1 percent-encoded": (head(first=b"POST /%66%2f%00?%41 HTTP/1.1"), {"path": b"/%66%2f%00", "query": b"%41"}),
    "3.2.1 every kind of byte": (
        head(first=b"POST /!$&'()*+,-.:;=@[]_~\"<>\\^`{|} HTTP/1.1"),
        {"path": b"/!$&'()*+,-.:;=@[]_~\"<>\\^`{|}"},
    ),
    "3.2.1 two slashes": (head(first=b"POST //b/f HTTP/1.1"), {"path": b"//b/f"}),
    "3.2.1 looks like absolute-form": (head(first=b"POST /http://b/f HTTP/1.1"), {"path": b"/http://b/f"}),
    "3.2.2 absolute-form": (head(first=b"POST http://b.example:80/f?q HTTP/1.1"), {"query": b"q"}),
    "3.2.2 absolute-form, https": (head(first=b"POST HTTPS://b/f HTTP/1.1"), {}),
    "3.2.2 absolute-form, IPv6": (head(first=b"POST http://[::1]:80/f HTTP/1.1"), {}),
    "3.2.2 absolute-form without a path": (head(first=b"POST http://b HTTP/1.1"), {"path": b""}),
    "3.2.2 absolute-form, query without a path": (
        head(first=b"POST http://b?q HTTP/1.1"),
        {"path": b"", "query": b"q"},
    ),
    "3.2.4 asterisk-form": (head(first=b"OPTIONS * HTTP/1.1"), {"method": OPTIONS, "path": b"*"}),
    "3.2 Host with a port": (b"POST /f HTTP/1.1\r\nHost: b.example:8080\r\n\r\n", {}),
    "3.2 Host without a blank": (b"POST /f HTTP/1.1\r\nHost:b\r\n\r\n", {}),
    "3.2 Host of IPv6": (b"POST /f HTTP/1.1\r\nHost: [::ffff:10.0.0.1]:80 \r\n\r\n", {}),
    "3.2 Host with an empty port (RFC 3986 3.2.3)": (b"POST /f HTTP/1.1\r\nHost: b:\r\n\r\n", {}),
    "3.2 HTTP/1.0 with Host": (head(first=b"POST /f HTTP/1.0"), {"minor": 0, "keeps": False}),
    "5 empty value": (head(b"X:"), {}),
    "5 blanks around a value": (head(b"X: \t a \t b \t "), {}),
    "5 bytes above 127 (RFC 9110 5.5)": (head(b"X: \xc3\xa9\xff"), {}),
    "5 any token as a name": (head(b"!#$%&'*+-.^_`|~09az: x"), {}),
    "6.2 sized": (head(SIZED) + b"hello", {"body": b"hello"}),
    "6.2 sized, name and blanks": (head(b"CONTENT-length: \t5 \t") + b"hello", {"body": b"hello"}),
    "6.2 leading zeros (RFC 9110 8.6)": (head(b"Content-Length: 005") + b"hello", {"body": b"hello"}),
    "6.2 length 0": (head(b"Content-Length: 0"), {}),
    "6.2 a body that looks like a request": (
        head(b"Content-Length: %d" % len(FOLLOWING)) + FOLLOWING,
        {"body": FOLLOWING},
    ),
    "6.2 a body of line ends": (head(SIZED) + b"\r\n\r\n\n", {"body": b"\r\n\r\n\n"}),
    "7.1 chunked": (head(CHUNKED) + ONE_CHUNK, {"body": b"hello"}),
    "7.1 however spelt": (head(b"transfer-encoding:  ChunkeD ") + ONE_CHUNK, {"body": b"hello"}),
    "7.1.1 extensions": (head(CHUNKED) + b'5;a=b;c="d"\r\nhello\r\n0;e\r\n\r\n', {"body": b"hello"}),
    "7.1.2 trailers": (head(CHUNKED) + b"5\r\nhello\r\n0\r\nX: y\r\nZ:\r\n\r\n", {"body": b"hello"}),
    "7.1.2 trailers are not merged (RFC 9110 6.5.1)": (
        head(CHUNKED) + b"0\r\nHost: b\r\nConnection: close\r\nExpect: x\r\n\r\n",
        {},
    ),
    "7.1.2 an upgrade as trailers": (head(CHUNKED) + b"0\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", {}),
    "9.3 HTTP/1.0 keep-alive": (head(b"Connection: Keep-Alive", first=b"POST /f HTTP/1.0"), {"minor": 0}),
    "9.3 HTTP/1.0 sized": (
        head(SIZED, first=b"POST /f HTTP/1.0") + b"hello",
        {"minor": 0, "keeps": False, "body": b"hello"},
    ),
    "9.6 close": (head(b"Connection: close"), {"keeps": False}),
    "9.6 close with a body": (head(b"Connection: close", SIZED) + b"hello", {"keeps": False, "body": b"hello"}),
    "9.6 close with chunks": (head(b"Connection: close", CHUNKED) + ONE_CHUNK, {"keeps": False, "body": b"hello"}),
    "9.6 close in a list": (head(b"Connection: x, Close"), {"keeps": False}),
    "RFC 9110 7.8 upgrade": (head(*UPGRADE), {}),
    "RFC 9110 7.8 upgrade, sized": (head(*UPGRADE, SIZED) + b"hello", {"body": b"hello"}),
    "RFC 9110 7.8 upgrade, length 0": (head(*UPGRADE, b"Content-Length: 0"), {}),
    "RFC 9110 7.8 upgrade, chunked": (head(*UPGRADE, CHUNKED) + ONE_CHUNK, {"body": b"hello"}),
    "RFC 9110 7.8 upgrade and close": (
        head(b"Connection: Upgrade, close", b"Upgrade: x", SIZED) + b"hello",
        {"keeps": False, "body": b"hello"},
    ),
    "RFC 9110 7.8 upgrade on HTTP/1.0": (
        head(*UPGRADE, SIZED, first=b"POST /f HTTP/1.0") + b"hello",
        {"minor": 0, "keeps": False, "body": b"hello"},
    ),
    "RFC 9110 7.8 Upgrade without Connection": (head(b"Upgrade: h2c", SIZED) + b"hello", {"body": b"hello"}),
    "RFC 9110 10.1.1 expectation": (head(b"expect: 100-Continue", SIZED) + b"hello", {"body": b"hello"}),
    "RFC 9110 10.1.1 expectation on HTTP/1.0": (
        head(b"Expect: anything", first=b"POST /f HTTP/1.0"),
        {"minor": 0, "keeps": False},
    ),
    "limit: target": (head(first=b"POST /" + b"x" * 63 + b" HTTP/1.1"), {"path": b"/" + b"x" * 63}),
    "limit: header lines": (head(*[b"A: b"] * 7), {}),
    "limit: header bytes": (head(b"A: " + b"x" * 242), {}),
    "limit: sized body": (head(b"Content-Length: 64") + b"x" * 64, {"body": b"x" * 64}),
    "limit: chunked body": (
        head(CHUNKED) + b"20\r\n" + b"x" * 32 + b"\r\n20\r\n" + b"y" * 32 + b"\r\n0\r\n\r\n",
        {"body": b"x" * 32 + b"y" * 32},
    ),
}

MALFORMED = (400, "malformed-request")
TARGET = (414, "target-too-long")
HEADERS = (431, "headers-too-large")
BODY = (413, "body-too-large")
VERSION = (505, "version-not-supported")
CODING = (501, "transfer-encoding-not-supported")
EXTENSIONS = (400, "chunk-extensions-too-large")

REFUSED = {
    "3 no blank": (b"AAA\r\n", MALFORMED),
    "3 no target": (b"GET\r\n", MALFORMED),
    "3 no version": (b"GET /\r\n\r\n", MALFORMED),
    "3 a blank at the end": (b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", MALFORMED),
    "3 a blank before": (b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", MALFORMED),
    "3 two blanks": (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", MALFORMED),
    "3 a tab": (b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", MALFORMED),
    "3 a tab before the version": (b"GET /\tHTTP/1.1\r\nHost: a\r\n\r\n", MALFORMED),
    "3 TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n", MALFORMED),
    "3 NUL": (b"\0\r\n", MALFORMED),
    "3 a response": (b"HTTP/1.1 200 OK\r\n\r\n", MALFORMED),
    "2.2 bare LF": (b"GET / HTTP/1.1\nHost: a\n\n", MALFORMED),
    "2.2 bare LF after the Host": (b"GET / HTTP/1.1\r\nHost: a\n\r\n", MALFORMED),
    "2.2 bare LF as the empty line": (b"GET / HTTP/1.1\r\nHost: a\r\n\n", MALFORMED),
    "2.2 bare CR": (b"GET / HTTP/1.1\rHost: a\r\n\r\n", MALFORMED),
    "2.2 a bare LF before": (b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", MALFORMED),
    "2.3 HTTP/9.9": (b"GET / HTTP/9.9\r\nHost: a\r\n\r\n", VERSION),
    "2.3 HTTP/2.0": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", VERSION),
    "2.3 HTTP/1.2": (b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", VERSION),
    "2.3 HTTP/0.9": (b"GET / HTTP/0.9\r\nHost: a\r\n\r\n", VERSION),
    "2.3 lower case": (b"GET / http/1.1\r\nHost: a\r\n\r\n", MALFORMED),
    "2.3 two digits": (b"GET / HTTP/1.10\r\nHost: a\r\n\r\n", MALFORMED),
    "2.3 two digits before": (b"GET / HTTP/11.1\r\nHost: a\r\n\r\n", MALFORMED),
    "2.3 one digit": (b"GET / HTTP/1\r\nHost: a\r\n\r\n", MALFORMED),
    "2.3 letters": (b"GET / HTTP/x.y\r\nHost: a\r\n\r\n", MALFORMED),
    "2.3 a comma": (b"GET / HTTP/1,1\r\nHost: a\r\n\r\n", MALFORMED),
    "2.3 another name": (b"GET / HTTPS/1.1\r\nHost: a\r\n\r\n", MALFORMED),
    "2.3 ICY": (b"GET / ICY/1.1\r\nHost: a\r\n\r\n", MALFORMED),
    "2.3 SIP": (b"OPTIONS / SIP/2.0\r\nHost: a\r\n\r\n", MALFORMED),
    "3.1 unknown method": (b"FOO / HTTP/1.1\r\nHost: a\r\n\r\n", MALFORMED),
    "3.1 lower case": (b"get / HTTP/1.1\r\nHost: a\r\n\r\n", MALFORMED),
    "3.1 longer than one": (b"GETS / HTTP/1.1\r\nHost: a\r\n\r\n", MALFORMED),
    "3.1 very long": (b"A" * 33, MALFORMED),
    "3.1 no token": (b"GE(T / HTTP/1.1\r\nHost: a\r\n\r\n", MALFORMED),
    "3.2 relative": (b"GET f HTTP/1.1\r\nHost: a\r\n\r\n", MALFORMED),
    "3.2 a fragment": (b"GET /f#g HTTP/1.1\r\nHost: a\r\n\r\n", MALFORMED),
    "3.2 a blank in it": (b"GET /f g HTTP/1.1\r\nHost: a\r\n\r\n", MALFORMED),
    "3.2 NUL": (b"GET /f\0 HTTP/1.1\r\nHost: a\r\n\r\n", MALFORMED),
    "3.2 DEL": (b"GET /f\x7f HTTP/1.1\r\nHost: a\r\n\r\n", MALFORMED),
    "3.2 not ASCII": (b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", MALFORMED),
    "3.2 a lone percent": (b"GET /% HTTP/1.1\r\nHost: a\r\n\r\n", MALFORMED),
    "3.2 half percent-encoded": (b"GET /%4 HTTP/1.1\r\nHost: a\r\n\r\n", MALFORMED),
    "3.2 not percent-encoded": (b"GET /%4g HTTP/1.1\r\nHost: a\r\n\r\n", MALFORMED),
    "3.2 not percent-encoded in the query": (b"GET /f?%zz HTTP/1.1\r\nHost: a\r\n\r\n", MALFORMED),
    "3.2.2 another scheme": (b"GET ftp://b/f HTTP/1.1\r\nHost: a\r\n\r\n", MALFORMED),
    "3.2.2 no host": (b"GET http:///f HTTP/1.1\r\nHost: a\r\n\r\n", MALFORMED),
    "3.2.2 nothing": (b"GET http:// HTTP/1.1\r\nHost: a\r\n\r\n", MALFORMED),
    "3.2.2 userinfo (RFC 9110 4.2.4)": (b"GET http://b@c/f HTTP/1.1\r\nHost: a\r\n\r\n", MALFORMED),
    "3.2.2 a port of letters": (b"GET http://b:c/f HTTP/1.1\r\nHost: a\r\n\r\n", MALFORMED),
    "3.2.3 authority-form": (b"GET b:80 HTTP/1.1\r\nHost: a\r\n\r\n", MALFORMED),
    "3.2.3 CONNECT": (b"CONNECT b:80 HTTP/1.1\r\nHost: b:80\r\n\r\n", (405, "method-not-allowed")),
    "3.2.4 asterisk-form of another method": (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", MALFORMED),
    "3.2 no Host": (b"GET / HTTP/1.1\r\n\r\n", MALFORMED),
    "3.2 no Host but another": (b"GET / HTTP/1.1\r\nX: y\r\n\r\n", MALFORMED),
    "3.2 absolute-form without Host": (b"GET http://b/ HTTP/1.1\r\n\r\n", MALFORMED),
    "3.2 two Hosts": (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", MALFORMED),
    "3.2 two equal Hosts": (b"GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", MALFORMED),
    "3.2 two Hosts on HTTP/1.0": (b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", MALFORMED),
    "3.2 two Hosts in one": (b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", MALFORMED),
    "3.2 Host with a path": (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", MALFORMED),
    "3.2 Host with a blank": (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", MALFORMED),
    "3.2 Host with userinfo": (b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", MALFORMED),
    "3.2 Host with a port of letters": (b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", MALFORMED),
    "3.2 Host with half an IPv6": (b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", MALFORMED),
    "3.2 Host not ASCII": (b"GET / HTTP/1.1\r\nHost: \xc3\xa9\r\n\r\n", MALFORMED),
    "3.2 Host empty": (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", MALFORMED),
    "3.2 Host of a port alone": (b"GET / HTTP/1.1\r\nHost: :80\r\n\r\n", MALFORMED),
    "5.1 a blank before the colon": (head(b"X : y"), MALFORMED),
    "5.1 a blank before the colon of a length": (head(b"Content-Length : 5") + b"hello", MALFORMED),
    "5.1 a tab before the colon": (head(b"Transfer-Encoding\t: chunked") + ONE_CHUNK, MALFORMED),
    "5.1 no name": (head(b": y"), MALFORMED),
    "5.1 no colon": (head(b"X"), MALFORMED),
    "5.1 no token": (head(b"X(: y"), MALFORMED),
    "5.1 NUL in a name": (head(b"X\0: y"), MALFORMED),
    "5.2 obs-fold": (head(b"X: y", b" z"), MALFORMED),
    "5.2 a blank before the first": (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", MALFORMED),
    "RFC 9110 5.5 NUL in a value": (head(b"X: a\0b"), MALFORMED),
    "RFC 9110 5.5 CR in a value": (head(b"X: a\rb"), MALFORMED),
    "RFC 9110 5.5 LF in a value": (head(b"X: a\nb: c"), MALFORMED),
    "RFC 9110 5.5 control in a value": (head(b"X: a\x01b"), MALFORMED),
    "RFC 9110 5.5 DEL in a value": (head(b"X: a\x7fb"), MALFORMED),
    "6.3 two lengths": (head(SIZED, b"Content-Length: 6") + b"hello!", MALFORMED),
    "6.3 two equal lengths": (head(SIZED, SIZED) + b"hello", MALFORMED),
    "6.3 a list of lengths": (head(b"Content-Length: 5, 5") + b"hello", MALFORMED),
    "6.2 signed": (head(b"Content-Length: +5") + b"hello", MALFORMED),
    "6.2 negative": (head(b"Content-Length: -1"), MALFORMED),
    "6.2 hexadecimal": (head(b"Content-Length: 0x5") + b"hello", MALFORMED),
    "6.2 decimal point": (head(b"Content-Length: 5.0") + b"hello", MALFORMED),
    "6.2 a blank inside": (head(b"Content-Length: 1 0") + b"0123456789", MALFORMED),
    "6.2 an underscore": (head(b"Content-Length: 1_0") + b"0123456789", MALFORMED),
    "6.2 empty": (head(b"Content-Length:"), MALFORMED),
    "6.2 beyond 64 bits": (head(b"Content-Length: 18446744073709551621") + b"hello", MALFORMED),
    "6.2 on a GET too": (head(b"Content-Length: x", first=b"GET / HTTP/1.1"), MALFORMED),
    "6.1 gzip": (head(b"Transfer-Encoding: gzip"), CODING),
    "6.1 identity": (head(b"Transfer-Encoding: identity"), CODING),
    "6.1 gzip, chunked": (head(b"Transfer-Encoding: gzip, chunked") + ONE_CHUNK, CODING),
    "6.1 chunked, gzip": (head(b"Transfer-Encoding: chunked, gzip") + ONE_CHUNK, CODING),
    "6.1 chunked twice": (head(b"Transfer-Encoding: chunked, chunked") + ONE_CHUNK, CODING),
    "6.1 chunked in two lines": (head(CHUNKED, CHUNKED) + ONE_CHUNK, CODING),
    "6.1 gzip, chunked in two lines": (head(b"Transfer-Encoding: gzip", CHUNKED) + ONE_CHUNK, CODING),
    "6.1 chunked, gzip in two lines": (head(CHUNKED, b"Transfer-Encoding: gzip") + ONE_CHUNK, CODING),
    "6.1 with a parameter": (head(b"Transfer-Encoding: chunked;q=1") + ONE_CHUNK, CODING),
    "6.1 quoted": (head(b'Transfer-Encoding: "chunked"') + ONE_CHUNK, CODING),
    "6.1 almost": (head(b"Transfer-Encoding: xchunked") + ONE_CHUNK, CODING),
    "6.1 a list with nothing": (head(b"Transfer-Encoding: ,chunked") + ONE_CHUNK, CODING),
    "6.1 empty": (head(b"Transfer-Encoding:"), CODING),
    "6.1 with a vertical tab": (head(b"Transfer-Encoding: \x0bchunked") + ONE_CHUNK, MALFORMED),
    "6.1 with a length": (head(CHUNKED, SIZED) + ONE_CHUNK, MALFORMED),
    "6.1 behind a length": (head(SIZED, CHUNKED) + ONE_CHUNK, MALFORMED),
    "6.1 with a length of 0": (head(b"Content-Length: 0", CHUNKED) + ONE_CHUNK, MALFORMED),
    "6.1 unknown with a length": (head(b"Transfer-Encoding: gzip", SIZED) + b"hello", MALFORMED),
    "6.1 unknown behind a length": (head(SIZED, b"Transfer-Encoding: gzip") + b"hello", MALFORMED),
    "6.1 on HTTP/1.0": (head(CHUNKED, first=b"POST /f HTTP/1.0") + ONE_CHUNK, MALFORMED),
    "6.1 unknown on HTTP/1.0": (head(b"Transfer-Encoding: gzip", first=b"POST /f HTTP/1.0"), MALFORMED),
    "7.1 no size": (head(CHUNKED) + b"\r\nhello", MALFORMED),
    "7.1 data longer than its size": (head(CHUNKED) + b"4\r\nhello\r\n0\r\n\r\n", MALFORMED),
    "7.1.2 malformed trailer": (head(CHUNKED) + b"0\r\nno trailer\r\n\r\n", MALFORMED),
    "RFC 9110 10.1.1 another expectation": (head(b"Expect: 200-ok", SIZED), (417, "expectation-failed")),
    "RFC 9110 10.1.1 two expectations": (head(b"Expect: 100-continue, x", SIZED), (417, "expectation-failed")),
    "limit: target": (b"GET /" + b"x" * 64 + b" HTTP/1.1\r\nHost: a\r\n\r\n", TARGET),
    "limit: target, unfinished": (b"GET /" + b"x" * 64, TARGET),
    "limit: target in absolute-form": (b"GET http://b/" + b"x" * 64 + b" HTTP/1.1\r\nHost: a\r\n\r\n", TARGET),
    "limit: query": (b"GET /?" + b"x" * 63 + b" HTTP/1.1\r\nHost: a\r\n\r\n", TARGET),
    "limit: header lines": (head(*[b"A: b"] * 8), HEADERS),
    "limit: header bytes": (head(b"A: " + b"x" * 243), HEADERS),
    "limit: header line, unfinished": (head()[:-2] + b"A: " + b"x" * 250, HEADERS),
    "limit: header name, unfinished": (head()[:-2] + b"A" * 250, HEADERS),
    "limit: sized body": (head(b"Content-Length: 65"), BODY),
    "limit: sized body, huge": (head(b"Content-Length: 999999999999999999"), BODY),
    "limit: sized body, 19 digits": (head(b"Content-Length: 1000000000000000000"), BODY),
    "limit: sum of chunks": (head(CHUNKED) + b"20\r\n" + b"x" * 32 + b"\r\n21\r\n", BODY),
    "limit: extensions": (head(CHUNKED) + b"1;" + b"x" * 40 + b"\r\nx\r\n0\r\n\r\n", EXTENSIONS),
}


def plain(changes: dict[str, object]) -> dict[str, object]:
    """A plain POST /f as an outcome, changed."""
    return {"method": POST, "path": b"/f", "query": None, "minor": 1, "keeps": True, "body": b""} | changes


@pytest.mark.parametrize("name", ACCEPTED)
def test_it_is_accepted_however_it_is_cut(name):
    data, changes = ACCEPTED[name]
    for pieces in every_way(data):
        assert outcome(pieces) == [plain(changes)], pieces


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_follows_it_is_another_request(name):
    data, changes = ACCEPTED[name]
    expected = [plain(changes)]
    if expected[0]["keeps"]:
        expected += [FOLLOWING_OUTCOME] * 2
    for pieces in every_way(data + FOLLOWING * 2):
        assert outcome(pieces) == expected, pieces


@pytest.mark.parametrize("name", ACCEPTED)
def test_it_is_not_complete_before_its_last_byte(name):
    data, _ = ACCEPTED[name]
    for cut in range(1, len(data)):
        assert outcome([data[:cut]]) in ([], ["begun"]), data[:cut]


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_however_it_is_cut(name):
    data, refusal = REFUSED[name]
    for pieces in every_way(data):
        assert outcome(pieces) == [refusal], pieces


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_between_good_ones_too(name):
    data, refusal = REFUSED[name]
    for pieces in ([FOLLOWING + data + FOLLOWING], in_pieces(FOLLOWING + data + FOLLOWING, 1)):
        assert outcome(pieces) == [FOLLOWING_OUTCOME, refusal], pieces


@pytest.mark.parametrize(
    ("lines", "expects"),
    [((b"Expect: 100-continue", SIZED), True), ((SIZED,), False), ((b"Expect: 100-CONTINUE", CHUNKED), True)],
)
def test_a_head_is_told_before_its_body(lines, expects):
    parser = RequestParser(LIMITS)
    data = head(*lines)
    assert parser.feed(data, 0) == len(data)
    assert parser.event == Event.HEAD_COMPLETE
    assert parser.request.expects_continue == expects
    assert parser.request.path == b"/f"
    assert parser.request.chunked == (CHUNKED in lines)
    assert parser.request.content_length == (5 if SIZED in lines else -1)


def test_nothing_is_read_beyond_a_request():
    parser = RequestParser(LIMITS)
    data = head(SIZED) + b"hello"
    assert parser.feed(data + FOLLOWING, 0) == len(data)
    assert parser.event == Event.REQUEST_COMPLETE
    parser.start_next()
    assert parser.feed(data + FOLLOWING, len(data)) == len(data + FOLLOWING)
    assert parser.request.path == b"/following"


def test_a_refusal_names_no_raw_bytes():
    for data, _ in REFUSED.values():
        parser = RequestParser(LIMITS)
        with pytest.raises(RequestError) as refused:
            _feed_all(parser, data)
        assert refused.value.detail.isascii()
        assert refused.value.detail.isprintable()


def _feed_all(parser: RequestParser, data: bytes) -> None:
    """Feed the data up to a refusal."""
    offset = 0
    while offset < len(data):
        offset = parser.feed(data, offset)
        assert parser.event != Event.MORE


# Bytes that mean something, so that random sequences come far.
WORDS = st.sampled_from(
    [
        *(
            b"GET / HTTP/1.1\r\n",
            b"POST /f HTTP/1.1\r\n",
            b"POST /f HTTP/1.0\r\n",
            b"Host: a\r\n",
            b"\r\n",
            b"\n",
            b"\r",
        ),
        *(
            b"Content-Length: 5\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"Connection: close\r\n",
            b"Expect: 100-continue\r\n",
        ),
        *(b"Connection: Upgrade\r\nUpgrade: x\r\n", b"hello", b"5\r\nhello\r\n", b"0\r\n\r\n", b"0\r\n", b"X: y\r\n"),
        *(b"5;x=y\r\n", b"\0", b" ", b":", b"%", b"?", b"\xff", b"Content-Length: 70\r\n", head(SIZED), head(CHUNKED)),
    ]
)
BYTES = st.one_of(st.binary(max_size=300), st.lists(WORDS, max_size=20).map(b"".join))


@given(BYTES, st.lists(st.integers(0, 400), max_size=6))
def test_any_bytes_end_in_requests_or_a_refusal_however_they_are_cut(data, cuts):
    whole = outcome([data])
    places = [0, *sorted(cut for cut in cuts if cut <= len(data)), len(data)]
    assert outcome(data[start:end] for start, end in itertools.pairwise(places)) == whole
    assert outcome(in_pieces(data, 1)) == whole
