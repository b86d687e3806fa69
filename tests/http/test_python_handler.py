"""Handlers in plain Python behind the http room."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gatewayx.config.settings import Settings
from gatewayx.core.budget import ByteBudget
from gatewayx.core.counters import Counters
from gatewayx.core.deadlines import DeadlineWheel
from gatewayx.core.turns import Turn
from gatewayx.http.connection import HttpServer
from gatewayx.http.limits import Limits
from gatewayx.http.python_handler import PlainAnswer, PlainRequest, PythonHandler
from gatewayx.http.response import ResponseBuilder
from gatewayx.net.listener import Listener
from gatewayx.net.poller import TurnPoller
from support.http import HttpClient, get, head, post

pytestmark = pytest.mark.anyio

WANTED = (b"host", b"accept", b"accept-encoding")


class Handler:
    """Answers with what it was asked, and keeps it."""

    def __init__(self) -> None:
        self.asked: list[PlainRequest] = []

    def respond(self, request: PlainRequest) -> PlainAnswer:
        self.asked.append(request)
        if request.path == b"/fails":
            raise ValueError("as asked for")
        return PlainAnswer(200, b"text/plain", request.path, b"X-Further: line\r\n")


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[HttpClient]:
    """A client of it."""
    loop = asyncio.get_running_loop()
    turn = Turn(loop)
    poller = TurnPoller(loop, turn)
    counters = Counters()
    http = HttpServer(
        loop,
        DeadlineWheel(0.1, loop.time()),
        Limits(Settings()),
        PythonHandler(handler.respond, WANTED),
        ResponseBuilder(now_s=time.time()),
        ByteBudget(1 << 20, counters),
        turn,
        counters,
    )
    bound = socket.create_server(("127.0.0.1", 0))
    bound.setblocking(False)
    address = bound.getsockname()
    listener = Listener(poller, bound, http.connection, counters)
    try:
        async with HttpClient(address, is_documented=False) as client:
            yield client
    finally:
        listener.close()
        http.abort()
        await asyncio.sleep(0)
        poller.close()
    assert http.requests_in_flight == 0


@pytest.fixture
def handler() -> Handler:
    """Answers."""
    return Handler()


# A line that is not plain sends the whole head through llhttp.
@pytest.mark.parametrize("more", [(), (b"Cookie: \xe4",), (b"Upgrade: h2c", b"Connection: upgrade")])
async def test_it_is_given_what_it_wants_and_answers(handler, more):
    async with serving(handler) as client:
        accepts = (b"ACCEPT: a/b;q=0.5", b"accept: c/d", b"Accept-Encoding: gzip", b"X-Other: no")
        response = await client.ask(get(b"/path%20?a=b?c", *accepts, *more))
    assert (response.status, response.body) == (200, b"/path%20")
    assert response.headers[b"x-further"] == b"line"
    assert handler.asked == [
        PlainRequest(
            "GET",
            b"/path%20",
            b"a=b?c",
            {b"host": b"gateway", b"accept": b"a/b;q=0.5, c/d", b"accept-encoding": b"gzip"},
        )
    ]


async def test_a_head_has_no_body_and_a_body_is_dropped(handler):
    async with serving(handler) as client:
        assert (await client.ask(head(b"HEAD", b"/x"), to_head=True)).headers[b"content-length"] == b"2"
        assert (await client.ask(post(b"/y", b"body" * 1000))).body == b"/y"
        assert (await client.ask(get(b"/z", version=b"1.0"))).body == b"/z"
    assert [asked.method for asked in handler.asked] == ["HEAD", "POST", "GET"]


async def test_a_method_that_is_not_told_apart_has_no_name_and_delete_is_with_and_without_a_body(handler):
    async with serving(handler) as client:
        await client.ask(head(b"PATCH", b"/x"))
        await client.ask(head(b"DELETE", b"/x"))
        await client.ask(head(b"DELETE", b"/x", b"Content-Length: 4"), b"body")
    assert [asked.method for asked in handler.asked] == ["", "DELETE", "DELETE"]


async def test_one_that_fails_is_logged_and_answered_500(handler, caplog):
    async with serving(handler) as client:
        with caplog.at_level(logging.ERROR):
            assert (await client.ask(get(b"/fails"))).kind() == "internal-error"
        assert (await client.ask(get(b"/x"))).status == 200
    assert "as asked for" in caplog.text


async def test_pipelined_requests_are_answered_in_their_order(handler):
    async with serving(handler) as client:
        client.send(*(get(b"/%d" % number) for number in range(100)))
        assert [(await client.response()).body for _ in range(100)] == [b"/%d" % number for number in range(100)]
