"""What no client may get past the gateway: each row is what is sent, what must come back, and the rule it breaks.

Every row is sent whole, and again one byte at a time; behind it stands a request that must never be served. What must
come back is the statuses of all answers in order, after which the connection is closed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from gatewayx.config.settings import Settings
from gatewayx.embedded.job_server import JobServer
from gatewayx.embedded.sample_functions import FUNCTIONS
from gatewayx.embedded.worker import Worker
from gatewayx.http.limits import Limits
from gatewayx.http.parser import Event, RequestParser
from gatewayx.http.problems import RequestError
from support.gateway import RunningGateway, running_gateway
from support.http import HttpClient, Response, ask, chunked, head, post

pytestmark = pytest.mark.anyio

SMUGGLED = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nsmuggled"
CHUNKED = b"Transfer-Encoding: chunked"


def request(
    *headers: bytes, body: bytes = b"", line: bytes = b"POST /echo HTTP/1.1", host: bytes = b"Host: a"
) -> bytes:
    """A request of these very lines."""
    return b"\r\n".join((line, host, *headers, b"", b"")) + body


def in_chunks(body: bytes) -> bytes:
    """A request with this as its chunked body, byte by byte."""
    return request(CHUNKED, body=body)


BAD_FRAMING = {
    # RFC 9112 6.1, 6.3; CVE-2019-18277 (HAProxy), CVE-2020-11080 and the like: who reads which length?
    "CL.TE": request(b"Content-Length: 5", CHUNKED, body=b"0\r\n\r\n"),
    "TE.CL": request(CHUNKED, b"Content-Length: 4", body=b"5\r\nhello\r\n0\r\n\r\n"),
    "CL.TE with CL 0": request(b"Content-Length: 0", CHUNKED, body=b"0\r\n\r\n"),
    "two different lengths": request(b"Content-Length: 5", b"Content-Length: 6", body=b"hello!"),
    "two equal lengths": request(b"Content-Length: 5", b"Content-Length: 5", body=b"hello"),
    "listed lengths": request(b"Content-Length: 5, 5", body=b"hello"),
    "length +5": request(b"Content-Length: +5", body=b"hello"),
    "length -5": request(b"Content-Length: -5", body=b"hello"),
    "length 5 0": request(b"Content-Length: 5 0", body=b"hello"),
    "length 0x5": request(b"Content-Length: 0x5", body=b"hello"),
    "length 5.0": request(b"Content-Length: 5.0", body=b"hello"),
    "length 0_5": request(b"Content-Length: 0_5", body=b"hello"),
    "length in quotes": request(b'Content-Length: "5"', body=b"hello"),
    "no length": request(b"Content-Length: ", body=b"hello"),
    "length with a comma behind": request(b"Content-Length: 5,", body=b"hello"),
    "length with a comma before": request(b"Content-Length: ,5", body=b"hello"),
    "length with an exponent": request(b"Content-Length: 5e0", body=b"hello"),
    "length 5h": request(b"Content-Length: 5h", body=b"hello"),
    "length and a semicolon": request(b"Content-Length: 5;", body=b"hello"),
    "length between no-break spaces": request("Content-Length: \u00a05".encode(), body=b"hello"),
    "length behind a vertical tab": request(b"Content-Length: \x0b5", body=b"hello"),
    "superscript length": request("Content-Length: \u2075".encode(), body=b"hello"),
    "one length spelt otherwise": request(b"Content-Length: 5", b"content-LENGTH: 6", body=b"hello!"),
    "length of Arabic digits": request("Content-Length: \u0665".encode(), body=b"hello"),
    "length of fullwidth digits": request("Content-Length: \uff15".encode(), body=b"hello"),
    # 2^64 + 5 wraps to 5 where it is read carelessly.
    "length that wraps": request(b"Content-Length: 18446744073709551621", body=b"hello"),
    "space before the colon": request(b"Content-Length : 5", body=b"hello"),
    "tab before the colon": request(b"Transfer-Encoding\t: chunked", body=chunked(b"x")),
    "vertical tab around the value": request(b"Transfer-Encoding: \x0bchunked", body=chunked(b"x")),
    "form feed behind the value": request(b"Transfer-Encoding: chunked\x0c", body=chunked(b"x")),
    "NUL in a coding": request(b"Transfer-Encoding: chun\x00ked", body=chunked(b"x")),
    "NUL behind a name": request(b"Transfer-Encoding\x00: chunked", body=chunked(b"x")),
    "vertical tab behind a name": request(b"Transfer-Encoding\x0b: chunked", body=chunked(b"x")),
    "white space before a name": request(b" Transfer-Encoding: chunked", body=chunked(b"x")),
    "a name on two lines": request(b"Transfer-\r\nEncoding: chunked", body=chunked(b"x")),
    "a colon on the next line": request(b"Transfer-Encoding\r\n: chunked", body=chunked(b"x")),
    "a coding behind a bare LF": request(b"X-A: a\nTransfer-Encoding: chunked", body=chunked(b"x")),
    "a coding behind a bare CR": request(b"X-A: a\rTransfer-Encoding: chunked", body=chunked(b"x")),
    "an unknown coding and a length": request(b"Transfer-Encoding: gzip", b"Content-Length: 5", body=b"hello"),
    "a length and an unknown coding": request(b"Content-Length: 5", b"Transfer-Encoding: gzip", body=b"hello"),
    "both, and an offered upgrade": request(
        b"Connection: Upgrade", b"Upgrade: h2c", b"Content-Length: 5", CHUNKED, body=b"0\r\n\r\n"
    ),
    "obs-fold": request(b"Transfer-Encoding:\r\n chunked", body=chunked(b"x")),
    "obs-fold in another header": request(b"X-A: 1\r\n Content-Length: 5", body=b"hello"),
    "obs-fold by a tab": request(b"Content-Length:\r\n\t5", body=b"hello"),
    "obs-fold of the Host": request(host=b"Host:\r\n a"),
    "white space before the first header": b"POST /echo HTTP/1.1\r\n Host: a\r\nContent-Length: 0\r\n\r\n",
    "white space alone in a line": request(b"X-A: 1\r\n \r\nContent-Length: 0"),
    "a header without a colon": request(b"Content-Length 5", body=b"hello"),
    "a header without a name": request(b": 5", body=b"hello"),
    "a name with a NUL": request(b"Content\x00-Length: 5", body=b"hello"),
    "a name above ASCII": request("X-\u212aelvin: 5".encode()),
    "a name in quotes": request(b'"X-A": 5'),
    "a name with a space": request(b"X A: 5"),
    "a name with a slash": request(b"X/A: 5"),
    "a value with a NUL": request(b"X-A: a\x00b"),
    "a value with a control byte": request(b"X-A: a\x01b"),
    "a value with DEL": request(b"X-A: a\x7fb"),
    "bare CR in a value": request(b"X-A: a\rContent-Length: 5"),
    "bare LF after a header": request(b"X-A: a\nContent-Length: 0"),
    "bare LF after the request line": b"POST /echo HTTP/1.1\nHost: a\r\nContent-Length: 0\r\n\r\n",
    "bare LFs at the end of the head": b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 0\n\n",
    "two CRs": request(b"X-A: a\r\r\nContent-Length: 0"),
}

# RFC 9112 7.1; CVE-2023-25725 (HAProxy), CVE-2024-23452 (bRPC), CVE-2025-22871 (Go: LF as a chunk's line end)
BAD_CHUNKS = {
    "size 0x5": b"0x5\r\nhello\r\n0\r\n\r\n",
    "size +5": b"+5\r\nhello\r\n0\r\n\r\n",
    "size -1": b"-1\r\nhello\r\n0\r\n\r\n",
    "size 0_2e": b"0_2e\r\n" + bytes(46) + b"\r\n0\r\n\r\n",
    "space before a size": b" 5\r\nhello\r\n0\r\n\r\n",
    "space after a size": b"5 \r\nhello\r\n0\r\n\r\n",
    "tab after a size": b"5\t\r\nhello\r\n0\r\n\r\n",
    "white space before a size and an extension": b" 5;a\r\nhello\r\n0\r\n\r\n",
    "white space after an extension": b"5;a \r\nhello\r\n0\r\n\r\n",
    "white space after a value": b"5;a=b \r\nhello\r\n0\r\n\r\n",
    "white space after a quoted value": b'5;a="b"\t\r\nhello\r\n0\r\n\r\n',
    "white space in an extension's name": b"5;a b\r\nhello\r\n0\r\n\r\n",
    "white space in an extension's value": b"5;a=b c\r\nhello\r\n0\r\n\r\n",
    "white space instead of a name": b"5; \r\nhello\r\n0\r\n\r\n",
    "white space instead of a name before a value": b"5; =b\r\nhello\r\n0\r\n\r\n",
    "white space instead of a value": b"5;a= \r\nhello\r\n0\r\n\r\n",
    "white space within a size": b"0 5;a\r\nhello\r\n0\r\n\r\n",
    "white space and a CR": b"5 \r;a\r\nhello\r\n0\r\n\r\n",
    "white space and an LF": b"5 \n;a\r\nhello\r\n0\r\n\r\n",
    "a fold as white space": b"5;a=\r\n b\r\nhello\r\n0\r\n\r\n",
    "a vertical tab as white space": b"5\x0b;a\r\nhello\r\n0\r\n\r\n",
    "a form feed as white space": b"5;\x0ca\r\nhello\r\n0\r\n\r\n",
    "white space after the last size": b"5\r\nhello\r\n0 \r\n\r\n",
    "no size": b"\r\nhello\r\n0\r\n\r\n",
    "an extension without a size": b";a\r\nhello\r\n0\r\n\r\n",
    "size above 64 bits": b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    "size of fullwidth digits": "\uff15\r\nhello\r\n0\r\n\r\n".encode(),
    "size of a letter that is no digit": b"g\r\nhello\r\n0\r\n\r\n",
    "size of Arabic digits": "\u0665\r\nhello\r\n0\r\n\r\n".encode(),
    "size 5h": b"5h\r\nhello\r\n0\r\n\r\n",
    "size 5.0": b"5.0\r\nhello\r\n0\r\n\r\n",
    "size 5,": b"5,\r\nhello\r\n0\r\n\r\n",
    "size 0X5": b"0X5\r\nhello\r\n0\r\n\r\n",
    "size in quotes": b'"5"\r\nhello\r\n0\r\n\r\n',
    "size of 64 ones": b"ffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    "vertical tab before a size": b"\x0b5\r\nhello\r\n0\r\n\r\n",
    "NUL after a size": b"5\x00\r\nhello\r\n0\r\n\r\n",
    "two CRs after a size": b"5\r\r\nhello\r\n0\r\n\r\n",
    "LF after a size": b"5\nhello\r\n0\r\n\r\n",
    "CR after a size": b"5\rhello\r\n0\r\n\r\n",
    "LF in an extension": b"5;a\nhello\r\n0\r\n\r\n",
    "CR in an extension": b"5;a\rb\r\nhello\r\n0\r\n\r\n",
    "NUL in an extension": b"5;\x00\r\nhello\r\n0\r\n\r\n",
    "an extension without a name": b"5;\r\nhello\r\n0\r\n\r\n",
    "an extension without a value": b"5;a=\r\nhello\r\n0\r\n\r\n",
    "an extension that is no token": b"5;a[=b\r\nhello\r\n0\r\n\r\n",
    "a quoted value that does not end": b'5;a="b\r\nhello\r\n0\r\n\r\n',
    "a quoted value with a control byte": b'5;a="\x01"\r\nhello\r\n0\r\n\r\n',
    "a quoted value that holds a line end": b'5;a="\r\nhello\r\n0\r\n\r\n"\r\n',
    "a quoted value that ends in a backslash": b'5;a="b\\"\r\nhello\r\n0\r\n\r\n',
    "a quoted control byte": b'5;a="\\\x01"\r\nhello\r\n0\r\n\r\n',
    "a quoted value and more": b'5;a="b"c\r\nhello\r\n0\r\n\r\n',
    "an extension of the last chunk with LF": b"5\r\nhello\r\n0;a\n\r\n",
    "no end of the data": b"5\r\nhello0\r\n\r\n",
    "LF after the data": b"5\r\nhello\n0\r\n\r\n",
    "CR after the data": b"5\r\nhello\r0\r\n\r\n",
    "two bytes after the data": b"5\r\nhelloXX0\r\n\r\n",
    "more data than the size": b"5\r\nhello!\r\n0\r\n\r\n",
    "less data than the size": b"5\r\nhell\r\n0\r\n\r\n",
    "an empty line between chunks": b"5\r\nhello\r\n\r\n0\r\n\r\n",
    "a request where the last line should end": b"5\r\nhello\r\n0\r\nPOST /echo HTTP/1.1\r\nHost: a\r\n\r\n",
    "CR instead of the end": b"5\r\nhello\r\n0\r\n\r\r\n",
    "LF at the end": b"5\r\nhello\r\n0\r\n\n",
    "LF after the last size": b"5\r\nhello\r\n0\n\r\n",
    "a trailer without a colon": b"0\r\nX-A\r\n\r\n",
    "a trailer without a name": b"0\r\n: a\r\n\r\n",
    "a trailer that is folded": b"0\r\nX-A: a\r\n b\r\n\r\n",
    "white space before the first trailer": b"0\r\n X-A: a\r\n\r\n",
    "a trailer with a bare CR": b"0\r\nX-A: a\rb\r\n\r\n",
    "a trailer with LF alone": b"0\r\nX-A: a\n\r\n",
    "a trailer with a NUL": b"0\r\nX-A: \x00\r\n\r\n",
    "space before a trailer's colon": b"0\r\nX-A : a\r\n\r\n",
    # RFC 9110 6.5.1
    "a length as a trailer": b"0\r\nContent-Length: 5\r\n\r\n",
    "a coding as a trailer": b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "a length as a trailer, in lower case": b"5\r\nhello\r\n0\r\nX-A: b\r\ncontent-length: 0\r\n\r\n",
}

BAD_HEADS = {
    # RFC 9112 3.2: exactly one Host, and a valid one
    "no Host": (b"POST /echo HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 400),
    "two Hosts": (request(b"Host: b"), 400),
    "two equal Hosts": (request(b"Host: a"), 400),
    "an empty Host": (request(host=b"Host: "), 400),
    "Host with user": (request(host=b"Host: user@a"), 400),
    "Host with a path": (request(host=b"Host: a/b"), 400),
    "Host with a space": (request(host=b"Host: a b"), 400),
    "two Hosts in one": (request(host=b"Host: a, b"), 400),
    "Host with a port that is none": (request(host=b"Host: a:b"), 400),
    "Host with a port too high": (request(host=b"Host: a:65536"), 400),
    "Host with half an escape": (request(host=b"Host: a%2"), 400),
    "Host that is no IPv6 address": (request(host=b"Host: [::1::2]"), 400),
    "Host with an open bracket": (request(host=b"Host: [::1"), 400),
    "Host with IPv6 without brackets": (request(host=b"Host: ::1"), 400),
    "Host above ASCII": (request(host="Host: b\u00fccher".encode()), 400),
    "Host of two colons": (request(host=b"Host: a:1:2"), 400),
    "Host with a signed port": (request(host=b"Host: a:+1"), 400),
    "Host of a port alone": (request(host=b"Host: :80"), 400),
    "Host that is a URI": (request(host=b"Host: http://a"), 400),
    "Host with a query": (request(host=b"Host: a?b"), 400),
    "Host with a fragment": (request(host=b"Host: a#b"), 400),
    "Host with a backslash": (request(host=b"Host: a\\b"), 400),
    "Host with an escape of no digits": (request(host=b"Host: a%zz"), 400),
    "Host with a NUL": (request(host=b"Host: a\x00"), 400),
    "Host in brackets that is IPv4": (request(host=b"Host: [127.0.0.1]"), 400),
    "Host with a zone": (request(host=b"Host: [fe80::1%25lo]"), 400),
    "Host with nine groups": (request(host=b"Host: [1:2:3:4:5:6:7:8:9]"), 400),
    "Host with brackets and more": (request(host=b"Host: [::1]a"), 400),
    "two Hosts in HTTP/1.0": (request(b"host: a", line=b"POST /echo HTTP/1.0"), 400),
    "an invalid Host beside a URI": (request(host=b"Host: a/b", line=b"POST http://a/echo HTTP/1.1"), 400),
    "no Host beside a URI": (b"POST http://a/echo HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 400),
    # RFC 9112 2.3, 3
    "HTTP/9.9": (request(line=b"POST /echo HTTP/9.9"), 505),
    "HTTP/2.0": (request(line=b"POST /echo HTTP/2.0"), 505),
    "HTTP/1.2": (request(line=b"POST /echo HTTP/1.2"), 505),
    "HTTP/0.9": (request(line=b"POST /echo HTTP/0.9"), 505),
    "HTTP/1.\U0001d7d9": (request(line="POST /echo HTTP/1.\U0001d7d9".encode()), 400),
    "HTTP/1.10": (request(line=b"POST /echo HTTP/1.10"), 400),
    "HTTP/1": (request(line=b"POST /echo HTTP/1"), 400),
    "HTTP/01.1": (request(line=b"POST /echo HTTP/01.1"), 400),
    "http/1.1": (request(line=b"POST /echo http/1.1"), 400),
    "HTTPS/1.1": (request(line=b"POST /echo HTTPS/1.1"), 400),
    "no version": (b"POST /echo\r\nHost: a\r\n\r\n", 400),
    "HTTP/0.9 as it was": (b"GET /echo\r\n", 400),
    "HTTP/2 with prior knowledge": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "HTTP/1,1": (request(line=b"POST /echo HTTP/1,1"), 400),
    "HTTP/1.1.1": (request(line=b"POST /echo HTTP/1.1.1"), 400),
    "HTTP/-1.1": (request(line=b"POST /echo HTTP/-1.1"), 400),
    "HTTP 1.1": (request(line=b"POST /echo HTTP 1.1"), 400),
    "HTTP/\uff11.1": (request(line="POST /echo HTTP/\uff11.1".encode()), 400),
    "a tab after the version": (request(line=b"POST /echo HTTP/1.1\t"), 400),
    "two CRs after the version": (request(line=b"POST /echo HTTP/1.1\r"), 400),
    "two spaces before the version": (request(line=b"POST /echo  HTTP/1.1"), 400),
    "a tab before the version": (request(line=b"POST /echo\tHTTP/1.1"), 400),
    "LF before the method": (b"\n" + request(), 400),
    "CR before the method": (b"\r" + request(), 400),
    "white space in the line before": (b" \r\n" + request(), 400),
    "a byte order mark": (b"\xef\xbb\xbf" + request(), 400),
    "a space after the version": (request(line=b"POST /echo HTTP/1.1 "), 400),
    "two spaces after the method": (request(line=b"POST  /echo HTTP/1.1"), 400),
    "a tab after the method": (request(line=b"POST\t/echo HTTP/1.1"), 400),
    "a space before the method": (request(line=b" POST /echo HTTP/1.1"), 400),
    "a space in the target": (request(line=b"POST /ec ho HTTP/1.1"), 400),
    "AAA": (b"AAA\r\n", 400),
    "a TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    # RFC 9110 9.1: methods are case-sensitive
    "a method in lower case": (request(line=b"post /echo HTTP/1.1"), 400),
    "a method nobody knows": (request(line=b"FROB /echo HTTP/1.1"), 400),
    "CONNECT": (b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 405),
    "CONNECT to a path": (b"CONNECT /echo HTTP/1.1\r\nHost: a\r\n\r\n", 405),
    "a method that is the beginning of another": (request(line=b"OPTION * HTTP/1.1"), 400),
    "a method of another protocol": (request(line=b"DESCRIBE /echo HTTP/1.1"), 400),
    "a method without end": (b"A" * 50, 400),
    # RFC 9112 3.2; RFC 3986
    "a fragment": (request(line=b"POST /echo#x HTTP/1.1"), 400),
    "no slash": (request(line=b"POST echo HTTP/1.1"), 400),
    "an asterisk without OPTIONS": (request(line=b"POST * HTTP/1.1"), 400),
    "more than an asterisk": (request(line=b"OPTIONS *a HTTP/1.1"), 400),
    "an authority without CONNECT": (request(line=b"POST a:80 HTTP/1.1"), 400),
    "a backslash for a slash": (request(line=b"POST \\echo HTTP/1.1"), 400),
    "a query alone": (request(line=b"POST ?echo HTTP/1.1"), 400),
    "a fragment alone": (request(line=b"POST # HTTP/1.1"), 400),
    "a URI with one slash": (request(line=b"POST http:/echo HTTP/1.1"), 400),
    "a URI with a port that is none": (request(line=b"POST http://a:b/echo HTTP/1.1"), 400),
    "a URI with a bad address": (request(line=b"POST http://[::1/echo HTTP/1.1"), 400),
    "another scheme": (request(line=b"POST ftp://a/echo HTTP/1.1"), 400),
    "a URI without a host": (request(line=b"POST http:///echo HTTP/1.1"), 400),
    "a URI with a user": (request(line=b"POST http://user@a/echo HTTP/1.1"), 400),
    "NUL in the target": (request(line=b"POST /ec\x00ho HTTP/1.1"), 400),
    "a control byte in the target": (request(line=b"POST /ec\x01ho HTTP/1.1"), 400),
    "DEL in the target": (request(line=b"POST /ec\x7fho HTTP/1.1"), 400),
    "above ASCII in the target": (request(line="POST /\u00e9cho HTTP/1.1".encode()), 400),
    "half an escape in the target": (request(line=b"POST /ech%6 HTTP/1.1"), 400),
    "an escape of no digits": (request(line=b"POST /ech%zz HTTP/1.1"), 400),
    # RFC 9112 6.1: a coding that is not understood; in HTTP/1.0 the framing is faulty
    "gzip": (request(b"Transfer-Encoding: gzip"), 501),
    "gzip, chunked": (request(b"Transfer-Encoding: gzip, chunked"), 501),
    "chunked, gzip": (request(b"Transfer-Encoding: chunked, gzip"), 501),
    "identity": (request(b"Transfer-Encoding: identity"), 501),
    "chunked and nothing": (request(b"Transfer-Encoding: chunked,"), 501),
    "nothing": (request(b"Transfer-Encoding: "), 501),
    "chunked in quotes": (request(b'Transfer-Encoding: "chunked"'), 501),
    "two words": (request(b"Transfer-Encoding: chunked x"), 501),
    "gzip, then chunked": (request(b"Transfer-Encoding: gzip", CHUNKED), 501),
    "chunked, then identity": (request(CHUNKED, b"Transfer-Encoding: identity"), 501),
    "gzip with an offered upgrade": (
        request(b"Connection: Upgrade", b"Upgrade: h2c", b"Transfer-Encoding: gzip"),
        501,
    ),
    "chunked twice": (request(CHUNKED, CHUNKED), 501),
    "xchunked": (request(b"Transfer-Encoding: xchunked"), 501),
    "chunked with a parameter": (request(b"Transfer-Encoding: chunked;a=b"), 501),
    "chunked in HTTP/1.0": (request(CHUNKED, line=b"POST /echo HTTP/1.0", body=chunked(b"x")), 400),
    # RFC 9110 10.1.1
    "an expectation nobody meets": (request(b"Expect: 200-ok", b"Content-Length: 0"), 417),
    "an empty expectation": (request(b"Expect: ", b"Content-Length: 0"), 417),
    "an expectation with a parameter": (request(b"Expect: 100-continue;a=b", b"Content-Length: 0"), 417),
    "an expectation and a bad one": (request(b"Expect: 100-continue, a", b"Content-Length: 5", body=b"hello"), 417),
    # RFC 9112 3, 6585 5, 9110 15.5.14: what is well formed and too much
    "a target too long": (request(line=b"POST /" + b"a" * 9000 + b" HTTP/1.1"), 414),
    "headers too many": (request(*[b"X-A: b"] * 101), 431),
    "a header too large": (request(b"X-A: " + b"b" * 17_000), 431),
    "a length too large": (request(b"Content-Length: 8388609"), 413),
    "a chunk too large": (in_chunks(b"800001\r\nhello"), 413),
    "trailers too many": (in_chunks(b"0\r\n" + b"X-A: b\r\n" * 101 + b"\r\n"), 431),
}

REFUSED = (
    {name: (sent, 400) for name, sent in BAD_FRAMING.items()}
    | {f"chunked: {name}": (in_chunks(body), 400) for name, body in BAD_CHUNKS.items()}
    | BAD_HEADS
)

SERVED = {
    "a URI instead of a path, whose host counts": request(
        b"Content-Length: 5", line=b"POST http://b:80/echo HTTP/1.1", body=b"hello"
    ),
    "Host with IPv6 and port": request(b"Content-Length: 5", host=b"Host: [::1]:80", body=b"hello"),
    "Host with an address of the future": request(b"Content-Length: 5", host=b"Host: [v1.a:b]", body=b"hello"),
    "Host with an escape and an empty port": request(b"Content-Length: 5", host=b"Host: a%2fb:", body=b"hello"),
    "chunk sizes in either case with zeros": in_chunks(b"0005\r\nhello\r\n000\r\n\r\n"),
    "extensions": in_chunks(b'5;a;b=c;d="e \\" ;"\r\nhello\r\n0;f\r\n\r\n'),
    # RFC 9112 7.1.1: BWS, which a recipient must parse
    "white space before an extension": in_chunks(b"5 ;a\r\nhello\r\n0\t;a\r\n\r\n"),
    "white space before an extension's name": in_chunks(b"5; a\r\nhello\r\n0;\ta\r\n\r\n"),
    "white space around an extension's sign": in_chunks(b"5;a = b\r\nhello\r\n0;a\t=\tb\r\n\r\n"),
    "white space around everything": in_chunks(b'5 \t; \ta \t= \t"b c" \t; d ;e= f\r\nhello\r\n0 ; g\r\n\r\n'),
    "white space that says nothing": in_chunks(b"5 ; 0\r\nhello\r\n0 ; 5\r\n\r\n"),
    "trailers, which say nothing": in_chunks(b"5\r\nhello\r\n0\r\nX-Gearman-Background: true\r\nHost: b\r\n\r\n"),
    "an offered upgrade": request(
        b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"Content-Length: 5", body=b"hello"
    ),
    "bytes above ASCII in a value": request(b"X-A: \xe9", b"Content-Length: 5", body=b"hello"),
    "empty lines before": b"\r\n\r\n" + request(b"Content-Length: 5", body=b"hello"),
    # RFC 9110 5.6.3: white space is spaces and tabs
    "white space around a length": request(b"Content-Length:\t 5 \t", body=b"hello"),
    "a length with zeros": request(b"Content-Length: 0000000000000000000000005", body=b"hello"),
    "a coding in capitals": request(b"TRANSFER-ENCODING:CHUNKED ", body=chunked(b"hello")),
    "a name of every sign": request(b"!#$%&'*+-.^_`|~: b", b"Content-Length: 5", body=b"hello"),
    "a value that is empty": request(b"X-A:", b"X-B: ", b"Content-Length: 5", body=b"hello"),
    "names that are nearly a length": request(
        b"Content_Length: 7", b"Content-Lengt: 7", b"Content-Length-X: 7", b"Content-Length: 5", body=b"hello"
    ),
    "trailers that name the connection": in_chunks(b"5\r\nhello\r\n0\r\nConnection: close\r\nUpgrade: x\r\n\r\n"),
    "a trailer with a bad request as its value": in_chunks(b"5\r\nhello\r\n0\r\nX-A: POST / HTTP/1.1\r\n\r\n"),
    "a quoted semicolon in an extension": in_chunks(b'5;a=";\\"";b\r\nhello\r\n0\r\n\r\n'),
    "an offered upgrade with chunks": request(
        b"Connection: Upgrade", b"Upgrade: h2c", CHUNKED, body=b"5\r\nhello\r\n0\r\n\r\n"
    ),
    "an upgrade that the connection does not name": request(b"Upgrade: h2c", b"Content-Length: 5", body=b"hello"),
    "an expectation in capitals": request(b"EXPECT: 100-CONTINUE", b"Content-Length: 5", body=b"hello"),
    "an unknown expectation in HTTP/1.0": request(
        b"Expect: a", b"Connection: keep-alive", b"Content-Length: 5", line=b"POST /echo HTTP/1.0", body=b"hello"
    ),
    # RFC 9112 C.2.2: means nothing, whatever llhttp makes of it
    "Proxy-Connection: close": request(b"Proxy-Connection: close", b"Content-Length: 5", body=b"hello"),
    "Proxy-Connection: close, in chunks": request(b"Proxy-Connection: close", CHUNKED, body=chunked(b"hello")),
    "Proxy-Connection: upgrade": request(
        b"Proxy-Connection: upgrade", b"Upgrade: h2c", b"Content-Length: 5", body=b"hello"
    ),
}

SHORT_OF_AN_END = {
    "sized": post(b"/echo", b"hello"),
    "chunked": in_chunks(b"5\r\nhello\r\n0\r\nX-A: b\r\n\r\n"),
    "query": head(b"GET", b"/echo?hello"),
    "OPTIONS with a body": head(b"OPTIONS", b"/echo", b"Content-Length: 5") + b"hello",
}


# The problem that each status comes with here.
KINDS = {
    400: "malformed-request",
    405: "method-not-allowed",
    413: "body-too-large",
    414: "target-too-long",
    417: "expectation-failed",
    431: "headers-too-large",
    501: "transfer-encoding-not-supported",
    505: "version-not-supported",
}


@pytest.fixture
async def gateway(embedded: JobServer) -> AsyncIterator[RunningGateway]:
    """A gateway before the embedded job server and the sample functions."""
    worker = Worker(embedded.address, FUNCTIONS)
    await worker.start()
    async with running_gateway([embedded.address]) as gateway:
        yield gateway
    await worker.close()


async def final(client: HttpClient) -> Response:
    """The next response that is no interim one."""
    while (response := await client.response()).status < 200:
        pass
    return response


async def sent_in_pieces(client: HttpClient, sent: bytes, size: int) -> None:
    """Send so many bytes at a time, each in a segment of its own as far as the kernel will."""
    client.writer.transport.set_write_buffer_limits(high=0)
    for start in range(0, len(sent), size):
        if client.reader.at_eof() or client.writer.is_closing():
            return
        client.send(sent[start : start + size])
        await asyncio.sleep(0)


pieces = pytest.mark.parametrize("size", [1 << 20, 1], ids=["whole", "byte-by-byte"])


class TestRefused:
    @pieces
    @pytest.mark.parametrize("name", REFUSED)
    async def test_it_is_answered_once_and_nothing_of_it_or_after_it_runs(self, embedded, gateway, name, size):
        sent, status = REFUSED[name]
        async with HttpClient(gateway.address) as client:
            await sent_in_pieces(client, sent + SMUGGLED, size)
            answer = await client.response()
            assert (answer.status, answer.headers[b"connection"]) == (status, b"close")
            assert answer.kind() == KINDS[status]
            assert answer.problem()["detail"]
            assert await client.rest() == b""
        assert embedded.submitted == 0

    @pytest.mark.parametrize("name", REFUSED)
    async def test_behind_good_requests_those_are_answered_first(self, embedded, gateway, name):
        sent, status = REFUSED[name]
        async with HttpClient(gateway.address) as client:
            client.send(post(b"/echo", b"1"), post(b"/reverse", b"23"), sent, SMUGGLED)
            assert [(await client.response()).body for _ in range(2)] == [b"1", b"32"]
            assert (await client.response()).status == status
            assert await client.rest() == b""
        assert embedded.submitted == 2


class TestServed:
    @pieces
    @pytest.mark.parametrize("name", SERVED)
    async def test_what_the_rules_allow_is_served_and_so_is_what_follows(self, gateway, name, size):
        async with HttpClient(gateway.address) as client:
            await sent_in_pieces(client, SERVED[name] + post(b"/reverse", b"abc"), size)
            assert [(await final(client)).body for _ in range(2)] == [b"hello", b"cba"]

    async def test_a_body_that_nobody_asked_for_is_not_the_next_request(self, embedded, gateway):
        # CL.0 (Kettle, "Browser-powered desync attacks", 2022): a path that is answered by its head has a body, too.
        async with HttpClient(gateway.address) as client:
            for line in (b"GET /echo", b"POST /", b"DELETE /echo", b"OPTIONS /echo", b"POST /v1/x", b"POST /echo?x"):
                client.send(request(b"Content-Length: %d" % len(SMUGGLED), line=line + b" HTTP/1.1", body=SMUGGLED))
                assert (await client.response()).status in (204, 400, 404, 405)
            assert (await client.ask(post(b"/echo", b"next"))).body == b"next"
        assert embedded.submitted == 1

    async def test_a_path_that_is_answered_by_its_head_still_needs_a_flawless_body(self, embedded, gateway):
        # The answer is out before the fault: it stays the only one, and the connection ends with it.
        for line, status in ((b"POST /", 404), (b"DELETE /echo", 405), (b"POST /v1/x", 404), (b"POST /echo?x", 400)):
            for body in (b"0x5\r\nhello\r\n0\r\n\r\n", b"5\r\nhello!\r\n0\r\n\r\n", b"0\r\nX-A\r\n\r\n"):
                async with HttpClient(gateway.address) as client:
                    client.send(request(CHUNKED, line=line + b" HTTP/1.1", body=body), SMUGGLED)
                    assert (await client.response()).status == status
                    assert await client.rest() == b""
        assert embedded.submitted == 0

    async def test_OPTIONS_gets_its_2xx_only_for_a_flawless_body(self, embedded, gateway):  # noqa: N802
        for body in BAD_CHUNKS.values():
            async with HttpClient(gateway.address) as client:
                client.send(request(CHUNKED, line=b"OPTIONS * HTTP/1.1", body=body), SMUGGLED)
                assert (await client.response()).status == 400
                assert await client.rest() == b""
        assert embedded.submitted == 0


class TestNeighbours:
    """Parsers go from one client to the next: whatever one sends, the next one finds a clean parser."""

    @pytest.mark.parametrize("name", REFUSED | SERVED)
    async def test_nobody_else_s_request_is_spoiled(self, gateway, name):
        sent = REFUSED[name][0] if name in REFUSED else SERVED[name]
        async with HttpClient(gateway.address) as one:
            one.send(sent)
            await final(one)
        async with HttpClient(gateway.address) as two:
            for _ in range(2):
                assert (await two.ask(post(b"/echo", b"clean"))).body == b"clean"


def outcome(*pieces: bytes) -> list[object]:
    """What a parser makes of these pieces: a tuple for each request, the status that refuses the last one, or None."""
    parser = RequestParser(Limits(Settings()))
    outcomes: list[object] = []
    tail = b""
    try:
        for piece in pieces:
            tail += piece
            offset = 0
            while offset < len(tail):
                offset = parser.feed(tail, offset)
                if parser.event == Event.MORE:
                    break
                if parser.event == Event.REQUEST_COMPLETE:
                    read = parser.request
                    outcomes.append((read.path, read.query, read.body, read.keep_alive, read.content_length))
                    parser.start_next()
            tail = tail[offset:]
    except RequestError as error:
        return [*outcomes, error.problem.status]
    return [*outcomes, None]


class TestCuts:
    @pytest.mark.parametrize("name", REFUSED | SERVED)
    async def test_wherever_the_pieces_are_cut_the_outcome_is_the_same(self, name):
        sent = REFUSED[name][0] if name in REFUSED else SERVED[name]
        whole = outcome(sent + SMUGGLED)
        if name in REFUSED:
            assert whole == [REFUSED[name][1]]
        else:
            assert len(whole) == 3
            assert whole[-1] is None
        # In the long ones the cuts that matter are near the ends.
        for cut in range(1, len(sent)) if len(sent) < 1000 else (*range(1, 300), *range(len(sent) - 300, len(sent))):
            assert outcome(sent[:cut], sent[cut:] + SMUGGLED) == whole, cut
        assert outcome(*(bytes([byte]) for byte in sent + SMUGGLED)) == whole


TOKEN = set(b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
DIGITS = set(b"0123456789")
HEX_DIGITS = DIGITS | set(b"ABCDEFabcdef")
BLANKS = set(b" \t")
# RFC 9110 5.5
FIELD_VALUE = {0x09, *range(0x20, 0x7F), *range(0x80, 0x100)}
VISIBLE = set(range(0x21, 0x7F))

# A request with its last @ as a gap, and which bytes may stand there: all others are refused.
PLACES = {
    "name": (request(b"X-A@: b"), TOKEN | {0x3A}),
    "first of a name": (request(b"@A: b"), TOKEN),
    "value": (request(b"X-A: a@b"), FIELD_VALUE),
    "before a length": (request(b"Content-Length: @0"), DIGITS | BLANKS),
    "behind a length": (request(b"Content-Length: 0@"), DIGITS | BLANKS),
    "within a length": (request(b"Content-Length: 0@0"), DIGITS),
    "before a coding": (request(b"Transfer-Encoding:@chunked", body=b"0\r\n\r\n"), BLANKS),
    "target": (request(line=b"POST /a@b HTTP/1.1"), VISIBLE - set(b"#%")),
    "escape": (request(line=b"POST /a%2@ HTTP/1.1"), HEX_DIGITS),
    "method": (request(line=b"POST@ /a HTTP/1.1"), set()),
    "between target and version": (request(line=b"POST /a@HTTP/1.1"), {0x20}),
    "HTTP's slash": (request(line=b"POST /a HTTP@1.1"), {0x2F}),
    "the version's point": (request(line=b"POST /a HTTP/1@1"), {0x2E}),
    "major version": (request(line=b"POST /a HTTP/@.1"), {0x31}),
    "minor version": (request(line=b"POST /a HTTP/1.@"), {0x30, 0x31}),
    "behind the version": (request(line=b"POST /a HTTP/1.1@"), set()),
    "before the line": (b"@" + request(), set()),
    # RFC 3986 3.2.2: unreserved and sub-delims
    "Host": (request(host=b"Host: a@b"), (TOKEN - set(b"#%^`|")) | set(b"(),;=")),
    "port": (request(host=b"Host: a:8@"), DIGITS | BLANKS),
    "chunk extension": (in_chunks(b"0;@\r\n\r\n"), TOKEN),
    "before an extension's sign": (in_chunks(b"f@;a\r\n\r\n"), HEX_DIGITS | BLANKS),
    "behind an extension's sign": (in_chunks(b"0;@a\r\n\r\n"), TOKEN | BLANKS),
    "before a value's sign": (in_chunks(b"0;a@=b\r\n\r\n"), TOKEN | BLANKS),
    "behind a value's sign": (in_chunks(b"0;a=@b\r\n\r\n"), TOKEN | BLANKS),
    "behind a value": (in_chunks(b"0;a=b@\r\n\r\n"), TOKEN),
    "behind an extension": (in_chunks(b"0;a@\r\n\r\n"), TOKEN),
    "quoted extension": (in_chunks(b'0;a="@"\r\n\r\n'), FIELD_VALUE - set(b'"\\')),
    "escaped extension": (in_chunks(b'0;a="\\@"\r\n\r\n'), FIELD_VALUE),
    "first of a chunk's end": (in_chunks(b"1\r\nx@\n0\r\n\r\n"), {0x0D}),
    "last of a chunk's end": (in_chunks(b"1\r\nx\r@0\r\n\r\n"), {0x0A}),
    "behind a size": (in_chunks(b"f@\r\n\r\n"), HEX_DIGITS),
    "trailer's name": (in_chunks(b"0\r\nX-A@: b\r\n\r\n"), TOKEN | {0x3A}),
    "trailer's value": (in_chunks(b"0\r\nX-A: a@b\r\n\r\n"), FIELD_VALUE),
}


class TestEveryByte:
    @pytest.mark.parametrize("place", PLACES)
    async def test_only_what_the_grammar_allows_may_stand_there(self, place):
        sent, allowed = PLACES[place]
        before, _, behind = sent.rpartition(b"@")
        accepted, cut_otherwise = set(), set()
        for byte in range(256):
            whole = before + bytes([byte]) + behind
            read = outcome(whole)
            # Longer lengths and chunks wait for more: what counts is that nothing is refused.
            if read[-1] is None:
                accepted.add(byte)
            if outcome(*(whole[index : index + 1] for index in range(len(whole)))) != read:
                cut_otherwise.add(byte)
        assert (accepted, cut_otherwise) == (allowed, set())


class TestCutShort:
    @pytest.mark.parametrize("name", SHORT_OF_AN_END)
    async def test_wherever_it_is_cut_it_is_never_submitted_and_never_2xx(self, embedded, gateway, name):
        # RFC 9112 8
        whole = SHORT_OF_AN_END[name]
        for length in range(len(whole)):
            async with HttpClient(gateway.address) as client:
                client.send(whole[:length])
                client.send_eof()
                rest = await client.rest()
            assert b"HTTP/1.1 2" not in rest, length
        assert embedded.submitted == 0
        assert (await ask(gateway.address, whole)).status in (200, 204)


class TestSplitting:
    @pytest.mark.parametrize("unique", [b"a\rX-A: b", b"a\nX-A: b", b"a\x00b", b"a\x0bb", b"a\x7fb"])
    async def test_no_unique_splits_the_answer_s_head(self, embedded, gateway, unique):
        async with HttpClient(gateway.address) as client:
            answer = await client.ask(post(b"/echo", b"x", b"X-Gearman-Unique: " + unique))
            assert answer.status == 400
        assert embedded.submitted == 0

    @pytest.mark.parametrize("path", [b"/a%0d%0aX-A:%20b", b"/a%00", b"/a%0a", b"/%7f"])
    async def test_no_function_does(self, embedded, gateway, path):
        answer = await ask(gateway.address, post(path, b"x"))
        assert (answer.status, answer.kind()) == (400, "malformed-function")
        assert embedded.submitted == 0

    async def test_no_result_does(self, gateway):
        result = b"\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"
        async with HttpClient(gateway.address) as client:
            client.send(post(b"/echo", result), post(b"/reverse", b"abc"))
            assert [(await client.response()).body for _ in range(2)] == [result, b"cba"]


class TestLinger:
    @pytest.mark.parametrize("after_bytes", [0, 1000, 1_000_000, 2_000_000])
    async def test_who_sends_on_within_the_bound_still_reads_the_answer(self, gateway, after_bytes):
        # RFC 9112 9.6
        async with HttpClient(gateway.address) as client:
            await client.send_all(b"AAA\r\n")
            for start in range(0, after_bytes, 50_000):
                await client.send_all(bytes(min(50_000, after_bytes - start)))
            assert (await client.response()).status == 400
            assert await client.rest() == b""


class TestCost:
    """Each time is the best of several, and four times as much may cost ten times as much before it counts."""

    LIMITS = Limits(
        Settings(max_body_bytes=1 << 30, max_header_bytes=1 << 26, max_headers=1 << 20, max_target_bytes=1 << 26)
    )

    def cost_s(self, pieces: list[bytes]) -> float:
        best_s = float("inf")
        for _ in range(3):
            parser = RequestParser(self.LIMITS)
            began_s = time.process_time()
            for piece in pieces:
                offset = 0
                while offset < len(piece):
                    offset = parser.feed(piece, offset)
                    if parser.event == Event.MORE:
                        break
            best_s = min(best_s, time.process_time() - began_s)
        return best_s

    @pytest.mark.parametrize("kind", ["headers", "chunks", "trailers", "extensions"])
    async def test_a_flood_costs_as_much_as_it_has_bytes(self, kind):
        def flood(count: int) -> list[bytes]:
            if kind == "headers":
                return [head(b"POST", b"/f", *[b"a: b"] * count)]
            if kind == "chunks":
                return [head(b"POST", b"/f", CHUNKED), *[b"1\r\nx\r\n" * 100] * (count // 100)]
            if kind == "trailers":
                return [head(b"POST", b"/f", CHUNKED), b"0\r\n", *[b"a: b\r\n" * 100] * (count // 100)]
            return [head(b"POST", b"/f", CHUNKED), *[b"1;a\r\nx\r\n"] * min(count // 4, 1300)]

        few, many = (self.cost_s(flood(count)) for count in (5_000, 20_000))
        assert many < 10 * few + 0.005

    async def test_a_megabyte_in_chunks_of_one_byte_takes_no_second(self):
        # Six bytes each; through Python calls a chunk it took four.
        assert self.cost_s([head(b"POST", b"/f", CHUNKED), *[b"1\r\nx\r\n" * 10_000] * 100]) < 1
