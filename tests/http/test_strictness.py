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
from support.heads import (
    BAD_CHUNKS,
    CHUNKED,
    REFUSED,
    SERVED,
    SHORT_OF_AN_END,
    SMUGGLED,
    in_chunks,
    request,
)
from support.http import HttpClient, Response, ask, head, post

pytestmark = pytest.mark.anyio


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

    @pytest.mark.parametrize(
        "line",
        [
            b"GET /a b HTTP/1.1\n",
            b"GET /a b HTTP/1.1\r\n",
            b"GET  / HTTP/1.1\r\n",
            b"GET / HTTP/1.1 \n",
            b"GET / HTTP/1.11\n",
            b"GET / HTTP/1.1\n",
            b"GET /\n",
            b"GET\n",
            b"G@T / HTTP/1.1\n",
        ],
    )
    def test_a_request_line_is_refused_with_the_same_words(self, line):
        def words(*pieces: bytes) -> str:
            parser = RequestParser(Limits(Settings()))
            try:
                for count in range(1, len(pieces) + 1):
                    # What is not read yet comes again with what follows.
                    parser.feed(b"".join(pieces[:count]), 0)
            except RequestError as error:
                return error.detail
            raise AssertionError("the line was not refused")

        whole = words(line)
        for cut in range(1, len(line)):
            assert words(line[:cut], line[cut:]) == whole, cut
        assert words(*(bytes([byte]) for byte in line)) == whole


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
