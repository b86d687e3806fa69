"""Fuzzes the two ways of a head: the referee between http/plain and http/head.

An input is one byte, which chooses the cuts, and what a client sends. What must hold for any bytes, cut in any way:
- what the short way takes, httptools takes: with the same method, target, headers, length, keep-alive, body and end;
- a parser that has both ways and one that has httptools alone come to the same requests, and to the same refusal at the
  same request, in the same words;
- the cuts change neither requests nor refusals, nor who goes the short way.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from gatewayx.config.settings import Settings
from gatewayx.core import metrics
from gatewayx.core.turns import Turn
from gatewayx.gateway.admission import Admission
from gatewayx.gateway.gateway import Gateway
from gatewayx.gearman.pool import Pool
from gatewayx.http.limits import Limits
from gatewayx.http.parser import Event, RequestParser
from gatewayx.http.problems import RequestError
from gatewayx.http.records import Records

# Small, so that an input reaches them.
LIMITS = Limits(
    Settings(
        max_target_bytes=64, max_header_bytes=512, max_headers=12, max_body_bytes=200, max_chunk_extensions_bytes=16
    )
)
# It wants the X-Gearman- headers; nothing else is asked of it, and nothing of its pool.
HANDLER = Gateway(
    Pool.__new__(Pool),
    Admission(),
    content_type=b"text/plain",
    job_timeout_s=1.0,
    records=Records(metrics.alone(), Turn(None)),
)
MAX_CUT_BYTES = 40


class Read(NamedTuple):
    """A request, and the offset behind it."""

    method: int
    path: bytes
    query: bytes | None
    minor_version: int
    keep_alive: bool
    content_length: int
    chunked: bool
    expects_continue: bool
    headers: list[bytes] | None
    body: bytes
    end: int


class Refused(NamedTuple):
    """How the bytes were refused."""

    status: int
    kind: str
    detail: str


class Begun(NamedTuple):
    """Bytes that are the beginning of one more request."""

    size_bytes: int


class Outcome(NamedTuple):
    """What became of the bytes, and how many requests went the short way."""

    reads: list[Read | Refused | Begun]
    short: int


def outcome(pieces: Iterable[bytes], *, httptools_only: bool = False, limits: Limits = LIMITS) -> Outcome:
    """What a connection would see of these pieces. No buffer is larger than what has come, nor lives longer."""
    parser = RequestParser(limits, HANDLER, httptools_only=httptools_only)
    seen: list[Read | Refused | Begun] = []
    # Where the request being read begins.
    begin = 0
    short = 0
    # What came before `tail`.
    start = 0
    tail = b""
    for piece in pieces:
        tail += piece
        offset = 0
        while offset < len(tail):
            try:
                offset = parser.feed(tail, offset)
            except RequestError as error:
                return Outcome([*seen, Refused(error.problem.status, error.problem.kind, error.detail)], short)
            if parser.event == Event.MORE:
                break
            if parser.event == Event.REQUEST_COMPLETE:
                request = parser.request
                assert request is not None
                assert request.body is not None
                seen.append(
                    Read(
                        request.method,
                        request.path,
                        request.query,
                        request.minor_version,
                        request.keep_alive,
                        request.content_length,
                        request.chunked,
                        request.expects_continue,
                        request.headers,
                        request.body,
                        start + offset,
                    )
                )
                begin = start + offset
                short += not parser.handed_over
                if not request.keep_alive:
                    return Outcome(seen, short)
                parser.start_next()
        start += offset
        tail = tail[offset:]
    if parser.request is not None or tail.strip(b"\r\n"):
        # How much of it was used differs between the two ways; where it begins does not.
        seen.append(Begun(start + len(tail) - begin))
    return Outcome(seen, short)


def cut(data: bytes, places: Iterable[int]) -> Iterator[bytes]:
    """The data cut at these places."""
    for begin, end in itertools.pairwise([0, *sorted(set(places) - {0, len(data)}), len(data)]):
        yield data[begin:end]


def judge(data: bytes, places: Iterable[int] = ()) -> Outcome:
    """Read the data in the two ways, whole and cut at these places; fails where they differ.

    Returns what became of it.
    """
    pieces = list(cut(data, places))
    whole = _both_ways([data])
    in_pieces = _both_ways(pieces)
    # The words of a refusal say what was here of the line, and so may differ.
    assert _without_details(in_pieces.reads) == _without_details(whole.reads), f"{pieces}: {in_pieces} is not {whole}"
    assert in_pieces.short == whole.short, f"{pieces}: {in_pieces.short} go the short way, and not {whole.short}"
    return whole


def _both_ways(pieces: list[bytes]) -> Outcome:
    long = outcome(pieces, httptools_only=True)
    assert long.short == 0
    both = outcome(pieces)
    assert both.reads == long.reads, f"{pieces}: {both.reads} is not {long.reads}"
    return both


def _without_details(reads: list[Read | Refused | Begun]) -> list[Read | Refused | Begun]:
    return [read._replace(detail="") if isinstance(read, Refused) else read for read in reads]


def one_input(data: bytes) -> None:
    """Judge what a client sends, whole, byte by byte and cut by chance."""
    if len(data) < 2:
        return
    generator = random.Random(data[0])
    stream = data[1:]
    judge(stream, range(len(stream)))
    places = itertools.accumulate(generator.randint(1, MAX_CUT_BYTES) for _ in stream)
    judge(stream, (place for place in places if place < len(stream)))


HOST = b"Host: h.example:8080\r\n"
PLAIN = (
    b"POST /echo HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nhello",
    b"GET /f?a=%20b?c HTTP/1.1\r\n" + HOST + b"\r\n",
    b"PUT //f HTTP/1.1\r\nhost:[::1]:80\r\nX-Gearman-Unique:  u v\r\nx-gearman-BACKGROUND: true\r\nX:\r\n\r\n",
    b"HEAD / HTTP/1.1\r\nConnection: Keep-Alive\r\n" + HOST + b"\r\n",
    b"OPTIONS /f HTTP/1.1\r\n" + HOST + b"Accept: */*\r\nConnection: close\r\n\r\n",
)
NOT_PLAIN = (
    b"POST /f HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"GET /f HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"DELETE http://h/f?q HTTP/1.1\r\n" + HOST + b"X: \t\xff\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\n" + HOST + b"Upgrade: x\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\nab",
    b"POST /f HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
    b"GET /" + b"t" * 64 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET /f HTTP/1.1\r\n" + HOST + b"A: " + b"a" * 500 + b"\r\n\r\n",
    b"GET /f HTTP/1.1\r\n" + HOST + b"B: b\r\n" * 12 + b"\r\n",
    b"POST /f HTTP/1.1\r\n" + HOST + b"Content-Length: 201\r\n\r\n",
)


def seeds() -> list[bytes]:
    """Inputs to begin with: heads of both kinds, alone and between others, and behind empty lines."""
    heads = (*PLAIN, *NOT_PLAIN)
    inputs = [bytes((number,)) + head for number, head in enumerate(heads)]
    inputs += [bytes((number,)) + PLAIN[0] + head + PLAIN[1] for number, head in enumerate(heads)]
    return [*inputs, b"\0\r\n\r\n" + PLAIN[0] + b"\r\n" + PLAIN[2]]


TOKENS = [
    *(b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b"\0", b"%", b"%41", b"?", b"#", b"/", b"*", b",", b"\x7f", b"\x80"),
    *(b"GET ", b"HEAD ", b"POST ", b"PUT ", b"OPTIONS ", b"CONNECT ", b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b"http://h"),
    *(
        b"Host: a\r\n",
        b"Host:\r\n",
        b"Host: a b\r\n",
        b"Content-Length: ",
        b"Content-Length: +1\r\n",
        b"0",
        b"000000000000001",
    ),
    *(
        b"Connection: close\r\n",
        b"Connection: keep-alive\r\n",
        b"Connection: keep-alive, close\r\n",
        b"Keep-Alive: 1\r\n",
    ),
    *(b"Transfer-Encoding: chunked\r\n", b"TE: trailers\r\n", b"Trailer: X\r\n", b"Upgrade: x\r\n", b"Expect: x\r\n"),
    *(
        b"Proxy-Connection: close\r\n",
        b"HTTP2-Settings: x\r\n",
        b"X-Gearman-Unique: u\r\n",
        b"Accept: */*\r\n",
        b"Accept: text/event-stream\r\n",
        b"Prefer: wait=1\r\n",
        b"X: y\r\n",
        b"\r\n folded\r\n",
    ),
]
