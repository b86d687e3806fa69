"""What pages of allowed origins are told: preflights, and the lines that let them see every answer, also refusals."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from gatewayx.gateway import cors
from gatewayx.http.problems import ALLOW
from support.gateway import RunningGateway, running_gateway
from support.http import HttpClient, Response, ask, chunked, get, head, post
from support.job_servers import nobody_listens
from support.pieces import every_way
from support.relaying import relaying, unique_line

pytestmark = pytest.mark.anyio

APP = b"https://app.example"
ORIGIN = b"Origin: https://app.example"
FOREIGN = b"Origin: https://evil.example"
ORIGINS = ("https://app.example", "https://other.example")
EXPOSED = {header.name for header in cors.EXPOSED_HEADERS}
# A line with which no head is read the short way.
LONG_WAY = b"TE: trailers"

METHOD = b"Access-Control-Request-Method: "
HEADERS = b"Access-Control-Request-Headers: "


@pytest.fixture
async def gateway(embedded) -> AsyncIterator[RunningGateway]:
    """A gateway for the pages of two origins."""
    async with running_gateway([embedded.address], origin=ORIGINS, function=("f",), max_body_bytes=100) as gateway:
        yield gateway


@pytest.fixture
async def client(gateway: RunningGateway) -> AsyncIterator[HttpClient]:
    """A client of it."""
    async with HttpClient(gateway.address) as client:
        yield client


def names(value: bytes) -> set[str]:
    """The elements of a list."""
    return set(value.decode().split(", "))


def is_seen(answer: Response, origin: bytes = APP) -> bool:
    """Whether pages of the origin see the answer, with all that they may."""
    assert b"access-control-allow-credentials" not in answer.headers
    assert answer.headers[b"vary"] == b"Origin"
    if b"access-control-allow-origin" not in answer.headers:
        assert b"access-control-expose-headers" not in answer.headers
        return False
    assert names(answer.headers[b"access-control-expose-headers"]) == EXPOSED
    return answer.headers[b"access-control-allow-origin"] == origin


def preflight(*headers: bytes, method: bytes = b"POST", origin: bytes = ORIGIN) -> bytes:
    """What a browser asks before it sends what is not simple."""
    return head(b"OPTIONS", b"/f", b"Accept: */*", METHOD + method, *headers, origin, b"Sec-Fetch-Site: cross-site")


class TestPreflights:
    # What is asked with, and whether it may be.
    @pytest.mark.parametrize(
        ("method", "headers", "may"),
        [
            (b"POST", (), True),
            (b"PUT", (), True),
            (b"GET", (), True),
            (b"HEAD", (), True),
            (b"DELETE", (), True),
            (b"PATCH", (), False),
            (b"post", (), False),
            (b"", (), False),
            (b"POST", (b"content-type",), True),
            (b"POST", (b"authorization,content-type,x-gearman-background,x-gearman-priority",), True),
            (b"POST", (b"X-Gearman-Unique , X-GEARMAN-Timeout\t,, x-request-id,traceparent,tracestate",), True),
            (b"POST", (b"prefer,x-gearman-stream,LAST-event-id,if-none-match",), True),
            (b"POST", (b"content-type,idempotency-key",), True),
            (b"POST", (b"idempotency-keys",), False),
            (b"POST", (b"",), True),
            (b"POST", (b"x-gearman-other",), False),
            (b"POST", (b"content-type,cookie",), False),
            (b"POST", (b"*",), False),
            (b"POST", (b"content-type x-gearman-unique",), False),
            (b"POST", (b"content-type", b"content-type"), True),
        ],
    )
    @pytest.mark.parametrize("way", [(), (LONG_WAY,)], ids=["short", "long"])
    async def test_a_browser_learns_what_may_be_asked(self, embedded, client, method, headers, may, way):
        answer = await client.ask(preflight(*(HEADERS + header for header in headers), *way, method=method))
        assert answer.headers[b"access-control-allow-origin"] == APP
        assert names(answer.headers[b"vary"]) == {
            "Origin",
            "Access-Control-Request-Method",
            "Access-Control-Request-Headers",
        }
        if may:
            assert (answer.status, answer.body) == (204, b"")
            assert names(answer.headers[b"access-control-allow-methods"]) == set(cors.METHODS)
            allowed = {header.name for header in cors.REQUEST_HEADERS}
            assert names(answer.headers[b"access-control-allow-headers"]) == allowed
            assert int(answer.headers[b"access-control-max-age"]) == cors.MAX_AGE_S
        else:
            assert (answer.status, answer.kind()) == (403, "preflight-refused")
            assert not {b"access-control-allow-methods", b"access-control-allow-headers"} & set(answer.headers)
            assert b"access-control-max-age" not in answer.headers
        assert embedded.submitted == 0

    @pytest.mark.parametrize("origin", [FOREIGN, b"Origin: null"])
    async def test_of_another_origin_it_is_refused(self, client, origin):
        answer = await client.ask(preflight(origin=origin))
        assert (answer.status, answer.kind()) == (403, "foreign-page")
        assert not [name for name in answer.headers if name.startswith(b"access-control")]

    async def test_any_page_learns_it_with_an_asterisk(self, embedded):
        async with running_gateway([embedded.address], origin=("*",)) as gateway:
            answer = await ask(gateway.address, preflight(origin=FOREIGN))
        assert (answer.status, answer.headers[b"access-control-allow-origin"]) == (204, b"*")
        assert b"access-control-allow-methods" in answer.headers

    async def test_an_OPTIONS_that_is_no_preflight_is_answered_as_ever(self, client):  # noqa: N802
        for headers in ((ORIGIN,), (METHOD + b"POST",)):
            answer = await client.ask(head(b"OPTIONS", b"/f", *headers))
            assert (answer.status, b"allow" in answer.headers) == (204, True)
            assert b"access-control-allow-methods" not in answer.headers
            assert is_seen(answer) == (ORIGIN in headers)

    async def test_it_is_answered_without_a_word_about_origins_where_none_are_set(self, embedded):
        async with running_gateway([embedded.address]) as gateway:
            answer = await ask(gateway.address, preflight())
        assert (answer.status, b"allow" in answer.headers) == (204, True)
        assert not [name for name in answer.headers if name.startswith(b"access-control")]

    async def test_wherever_it_is_cut_the_answer_is_the_same(self, client):
        sent = preflight(HEADERS + b"content-type")
        for pieces in every_way(sent):
            for piece in pieces:
                client.send(piece)
                # The gateway, which is in the same loop, reads it.
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            answer = await client.response()
            assert (answer.status, answer.headers[b"access-control-allow-origin"]) == (204, APP)

    def test_the_methods_are_those_that_are_served(self):
        # DELETE is for jobs alone, and what a function's path allows says nothing of them.
        *methods, of_jobs = cors.METHODS
        assert of_jobs == "DELETE"
        assert f"Allow: {', '.join(methods)}\r\n".encode() == ALLOW


# Requests that are refused by the head or the body, and the answer's status; the last header line so far is not known.
REFUSED = {
    "no such function": (post(b"/unknown", b"", ORIGIN), 404),
    "no function": (post(b"/", b"", ORIGIN), 404),
    "bad header": (post(b"/f", b"", ORIGIN, b"X-Gearman-Priority: none"), 400),
    "GET with a body": (get(b"/f", ORIGIN, b"Content-Length: 3") + b"abc", 400),
    "POST with a query": (post(b"/f?q", b"", ORIGIN), 400),
    "method": (head(b"PATCH", b"/f", ORIGIN), 405),
    "CONNECT": (head(b"CONNECT", b"a:1", ORIGIN), 405),
    "too large by its head": (head(b"POST", b"/f", ORIGIN, b"Content-Length: 101"), 413),
    "too large by its chunks": (
        head(b"POST", b"/f", ORIGIN, b"Transfer-Encoding: chunked") + b"65\r\n" + bytes(101),
        413,
    ),
    "bad chunk": (head(b"POST", b"/f", ORIGIN, b"Transfer-Encoding: chunked") + b"x\r\n", 400),
    "two lengths": (head(b"POST", b"/f", ORIGIN, b"Content-Length: 1", b"Content-Length: 2") + b"a", 400),
    "no Host": (b"POST /f HTTP/1.1\r\nOrigin: https://app.example\r\n\r\n", 400),
    "bad name": (head(b"POST", b"/f", ORIGIN, b"A: b", b"Bad Name: x"), 400),
    "expectation": (head(b"POST", b"/f", ORIGIN, b"Expect: other", b"Content-Length: 1"), 417),
    "header too large": (head(b"POST", b"/f", ORIGIN, b"A: b", b"X: " + b"x" * 20_000), 431),
    "too many headers": (head(b"POST", b"/f", ORIGIN, *[b"X: x"] * 200), 431),
    "trailers too large": (
        head(b"POST", b"/f", ORIGIN, b"Transfer-Encoding: chunked") + b"0\r\nX: " + b"x" * 20_000,
        431,
    ),
    "coding": (head(b"POST", b"/f", ORIGIN, b"Transfer-Encoding: gzip"), 501),
}
# The same where Origin was not read before it was clear.
REFUSED_BEFORE = {
    "no HTTP": (b"AAA\r\n\r\n", 400),
    "target too long": (get(b"/" + b"x" * 9000, ORIGIN), 414),
    "version": (get(b"/f", ORIGIN, version=b"2.0"), 505),
    "header too large before Origin": (post(b"/f", b"", b"X: " + b"x" * 20_000, ORIGIN), 431),
}


class TestRefusals:
    @pytest.mark.parametrize("name", REFUSED)
    async def test_pages_see_why_they_are_refused(self, embedded, gateway, name):
        sent, status = REFUSED[name]
        answer = await ask(gateway.address, sent)
        assert (answer.status, is_seen(answer)) == (status, True)
        assert answer.problem()["detail"]
        answer = await ask(gateway.address, sent.replace(b"app.example", b"evil.example"))
        assert not is_seen(answer)
        assert embedded.submitted == 0

    @pytest.mark.parametrize("name", REFUSED_BEFORE)
    async def test_those_of_a_single_origin_do_before_it_is_known_who_asks(self, embedded, gateway, name):
        sent, status = REFUSED_BEFORE[name]
        answer = await ask(gateway.address, sent)
        assert (answer.status, is_seen(answer)) == (status, False)
        async with running_gateway([embedded.address], origin=ORIGINS[:1]) as single:
            answer = await ask(single.address, sent)
            assert (answer.status, is_seen(answer)) == (status, True)
            assert not is_seen(await ask(single.address, REFUSED["bad header"][0].replace(b"app", b"evil")))
        async with running_gateway([embedded.address], origin=("*",)) as open_to_all:
            answer = await ask(open_to_all.address, sent)
            assert (answer.status, is_seen(answer, b"*")) == (status, True)

    @pytest.mark.parametrize("way", [(), (LONG_WAY, b"X: x")], ids=["short", "long"])
    async def test_a_head_too_slow(self, embedded, way):
        sent = head(b"POST", b"/f", ORIGIN, *way)[:-2]
        async with running_gateway([embedded.address], origin=ORIGINS, header_timeout_s=0.1) as gateway:
            for received in (sent, sent + b"X: unfinished"):
                answer = await ask(gateway.address, received)
                assert (answer.kind(), is_seen(answer)) == ("head-too-slow", True)
            # One that began behind another request.
            async with HttpClient(gateway.address) as client:
                client.send(head(b"OPTIONS", b"*"), b"\r\n", sent)
                assert (await client.response()).status == 204
                answer = await client.response()
                assert (answer.kind(), is_seen(answer)) == ("head-too-slow", True)

    async def test_a_body_too_slow(self, embedded):
        async with running_gateway([embedded.address], origin=ORIGINS, body_timeout_s=0.1) as gateway:
            answer = await ask(gateway.address, head(b"POST", b"/f", ORIGIN, b"Content-Length: 5") + b"part")
        assert (answer.kind(), is_seen(answer)) == ("body-too-slow", True)

    @pytest.mark.parametrize("rest", [b"", b"X: unfinished", b"Content-Length: 5\r\n\r\npart"])
    async def test_a_stop(self, gateway, rest):
        async with HttpClient(gateway.address) as client:
            client.send(head(b"POST", b"/f", ORIGIN)[:-2], rest)
            await gateway.reaches("http.arrivals", 1)
            gateway.process.http.drain()
            gateway.process.http.refuse_unfinished()
            answer = await client.response()
            assert (answer.kind(), is_seen(answer)) == ("stopping", True)

    @pytest.mark.parametrize("rest", [b"", b"X: unfinished", b"Content-Length: 5\r\n\r\npart"])
    async def test_one_that_makes_room_for_others(self, embedded, rest):
        async with (
            running_gateway([embedded.address], origin=ORIGINS, max_connections=1) as gateway,
            HttpClient(gateway.address) as client,
        ):
            client.send(head(b"POST", b"/f", ORIGIN)[:-2], rest)
            await gateway.reaches("http.arrivals", 1)
            # Nothing has to have come from it for a second.
            other = await ask(gateway.address, head(b"OPTIONS", b"*"))
            while other.status == 503:
                await asyncio.sleep(0.05)
                other = await ask(gateway.address, head(b"OPTIONS", b"*"))
            assert other.status == 204
            answer = await client.response()
            assert (answer.kind(), is_seen(answer)) == ("too-many-connections", True)

    @pytest.mark.parametrize(("origin", "seen"), [(ORIGINS[:1], APP), (("*",), b"*"), (ORIGINS, None)])
    async def test_a_connection_too_many(self, embedded, origin, seen):
        async with (
            running_gateway([embedded.address], origin=origin, max_connections_per_address=1) as gateway,
            HttpClient(gateway.address) as first,
        ):
            assert (await first.ask(head(b"OPTIONS", b"*"))).status == 204
            async with HttpClient(gateway.address) as second:
                answer = await second.response()
        assert answer.kind() == "too-many-connections-per-address"
        assert is_seen(answer, seen or APP) == (seen is not None)

    async def test_a_client_that_closes_within_its_head(self, embedded):
        async with (
            running_gateway([embedded.address], origin=ORIGINS, half_closed="answer") as gateway,
            HttpClient(gateway.address) as client,
        ):
            client.send(head(b"POST", b"/f", ORIGIN)[:-2])
            client.send_eof()
            answer = await client.response()
        assert (answer.kind(), is_seen(answer)) == ("malformed-request", True)


@pytest.mark.usefixtures("samples")
class TestAnswers:
    # Requests of a job, and the answer's status.
    @pytest.mark.parametrize(
        ("sent", "status"),
        [
            (post(b"/echo", b"work", ORIGIN), 200),
            (head(b"HEAD", b"/echo?work", ORIGIN), 200),
            (head(b"POST", b"/echo", ORIGIN, b"Transfer-Encoding: chunked") + chunked(b"work"), 200),
            (post(b"/echo", b"work", ORIGIN, b"X-Gearman-Background: true"), 200),
            (post(b"/fail", b"work", ORIGIN), 500),
            (post(b"/exception", b"work", ORIGIN), 500),
            (post(b"/nobody", b"work", ORIGIN, b"X-Gearman-Timeout: 0.1"), 504),
        ],
    )
    async def test_of_jobs_that_end_well_and_otherwise(self, embedded, sent, status):
        async with running_gateway([embedded.address], origin=ORIGINS) as gateway:
            for line, seen in ((ORIGIN, True), (b"X: y", False)):
                answer = await ask(gateway.address, sent.replace(ORIGIN, line), to_head=sent.startswith(b"HEAD"))
                # Without a page, too: whoever keeps the answer must know that a page gets another one.
                assert (answer.status, is_seen(answer)) == (status, seen)

    async def test_without_a_job_server(self):
        async with running_gateway([nobody_listens()], origin=ORIGINS) as gateway:
            answer = await ask(gateway.address, post(b"/f", b"", ORIGIN))
        assert (answer.status, is_seen(answer)) == (503, True)

    async def test_pipelined_requests_have_each_their_own(self, embedded):
        sent = [post(b"/echo", b"", line) for line in (ORIGIN, b"X: y", FOREIGN, b"Origin: https://other.example")]
        async with (
            running_gateway([embedded.address], origin=ORIGINS) as gateway,
            HttpClient(gateway.address) as client,
        ):
            client.send(*sent)
            answers = [await client.response() for _ in sent]
        assert [answer.status for answer in answers] == [200, 200, 403, 200]
        allowed = [answer.headers.get(b"access-control-allow-origin") for answer in answers]
        assert allowed == [APP, None, None, b"https://other.example"]
        assert embedded.submitted == 3

    async def test_whichever_worker_process_has_answered(self, embedded):
        async with AsyncExitStack() as stack:
            gateway = await stack.enter_async_context(relaying([embedded.address], "--origin", "https://app.example"))
            relayed = set()
            for client in await gateway.clients(stack):
                was_relayed, answer = await gateway.asked(client, post(b"/echo", b"work", ORIGIN, unique_line(b"cors")))
                relayed.add(was_relayed)
                assert (answer.status, answer.body, is_seen(answer)) == (200, b"work", True)
            assert relayed == {True, False}
