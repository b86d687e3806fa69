"""Who stands on a proxy's socket until its header is whole: what it hands over, and in a stop."""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest

from gatewayx.core.counters import Counters
from gatewayx.core.deadlines import DeadlineWheel
from gatewayx.core.turns import Turn
from gatewayx.net.listener import Listener
from gatewayx.net.networks import Networks
from gatewayx.net.poller import TurnPoller
from gatewayx.net.proxied import LAST_CALL_S, ProxyServer
from gatewayx.net.stream import Stream, StreamOwner
from support.gateway import eventually
from support.proxied import LOCAL, PROXY, binary, line, packed
from support.times import WAIT_S

pytestmark = pytest.mark.anyio

HEADER = line("192.0.2.1", 4660)
TICK_S = 0.1
TIMEOUT_S = 5.0


class Next(StreamOwner):
    """The owner after the header; notes what it is told, and does at once what `does` says.

    is_unnamed: the proxy passes somebody on and does not say whom.
    """

    def __init__(self, does: str, *, is_unnamed: bool) -> None:
        self.does = does
        self.is_unnamed = is_unnamed
        self.told: list[object] = []

    def opened(self, stream: Stream) -> int:
        """StreamOwner."""
        self.told.append(("opened", stream.peer()))
        if self.does == "fail":
            raise ValueError("it cannot be opened")
        if self.does:
            getattr(stream, self.does)()
        return 0

    def take(self, data: bytes) -> None:
        """StreamOwner."""
        self.told.append(data)

    def ended(self) -> bool:
        """StreamOwner."""
        self.told.append("ended")
        return False

    def lost(self, error: Exception | None) -> int:
        """StreamOwner."""
        self.told.append("lost")
        return 0


class Stage:
    """A listener for proxies in the test's loop. does: of the owners after headers."""

    def __init__(self, does: str = "") -> None:
        loop = asyncio.get_running_loop()
        self.poller = TurnPoller(loop, Turn(loop))
        self.wheel = DeadlineWheel(TICK_S, 0.0)
        self.counters = Counters()
        self.server = ProxyServer(self.wheel, self.counters, Networks(["127.0.0.1"]), TIMEOUT_S)
        self.owners: list[Next] = []
        self.late: list[Next] = []
        bound = socket.create_server(("127.0.0.1", 0))
        bound.setblocking(False)
        self.address = bound.getsockname()
        factory = self.server.before(
            functools.partial(made, self.owners, does), functools.partial(made, self.late, does)
        )
        self.listener = Listener(self.poller, bound, factory, self.counters)

    def pass_time(self, now_s: float) -> None:
        """Let it be so late by the clock of deadlines, which began at 0."""
        self.wheel.advance(now_s)
        while self.wheel.fire(100):
            pass

    @contextmanager
    def connected(self) -> Iterator[socket.socket]:
        """A proxy's connection, from 127.0.0.1."""
        with socket.create_connection(self.address) as connected:
            connected.setblocking(False)
            yield connected


def made(owners: list[Next], does: str, is_unnamed: bool) -> Next:
    """One more owner."""
    owners.append(Next(does, is_unnamed=is_unnamed))
    return owners[-1]


@asynccontextmanager
async def staged(does: str = "") -> AsyncIterator[Stage]:
    """A stage; nothing waits at its end, and no deadline is armed."""
    stage = Stage(does)
    yield stage
    await eventually(lambda: stage.server.waiting == 0)
    assert (stage.wheel.armed, stage.server.counters()) == (0, {"waiting": 0})
    stage.listener.close()
    await asyncio.sleep(0)
    stage.poller.close()


async def is_closed(connected: socket.socket) -> bool:
    """Whether it ends without a byte; with a reset where the gateway has not read all."""
    try:
        return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(connected, 1), WAIT_S) == b""
    except ConnectionResetError:
        return True


class TestHandingOver:
    @pytest.mark.parametrize("behind", [b"", b"GET / HTTP/1.1\r\n", b"PROXY TCP4 "])
    async def test_the_next_owner_gets_the_stream_and_what_is_left(self, behind):
        async with staged() as stage:
            with stage.connected() as connected:
                connected.sendall(HEADER + behind)
                told = [("opened", ("192.0.2.1", 4660))] + [behind] * bool(behind)
                await eventually(lambda: [owner.told for owner in stage.owners] == [told])
                assert stage.wheel.armed == 0
                connected.sendall(b"more")
                connected.shutdown(socket.SHUT_WR)
                await eventually(lambda: stage.owners[0].told == [*told, b"more", "ended", "lost"])

    @pytest.mark.parametrize(
        ("header", "is_unnamed"),
        [
            (HEADER, False),
            (packed("2001:db8::1"), False),
            (binary(LOCAL, 0), False),
            (binary(LOCAL, 0x31, bytes(216)), False),
            (b"PROXY UNKNOWN\r\n", True),
            (binary(PROXY, 0), True),
            (binary(PROXY, 0x31, bytes(216)), True),
        ],
    )
    async def test_it_knows_whether_somebody_is_passed_on_of_whom_nothing_is_said(self, header, is_unnamed):
        async with staged() as stage:
            with stage.connected() as connected:
                connected.sendall(header)
                await eventually(lambda: stage.owners)
                assert stage.owners[0].is_unnamed is is_unnamed

    @pytest.mark.parametrize("does", ["close", "abort", "pause", "fail"])
    async def test_one_that_wants_nothing_gets_nothing(self, does):
        async with staged(does) as stage:
            with stage.connected() as connected:
                connected.sendall(HEADER + b"left")
                await eventually(lambda: stage.owners and "lost" in stage.owners[0].told)
                assert stage.owners[0].told == [("opened", ("192.0.2.1", 4660)), "lost"]
                assert await is_closed(connected)

    async def test_nobody_comes_after_what_is_no_header(self):
        async with staged() as stage:
            for data in (b"GET ", HEADER[:-1] + b"\r"):
                with stage.connected() as connected:
                    connected.sendall(data)
                    assert await is_closed(connected)
            assert stage.owners == []
            assert stage.counters.read()["proxy_headers_refused"] == 2


class TestTime:
    async def test_the_whole_header_has_its_time(self):
        async with staged() as stage:
            with stage.connected() as connected:
                connected.sendall(HEADER[:10])
                await eventually(lambda: stage.server.waiting == 1)
                stage.pass_time(TIMEOUT_S - TICK_S)
                assert stage.server.waiting == 1
                connected.sendall(HEADER[10:20])
                stage.pass_time(TIMEOUT_S + 2 * TICK_S)
                assert stage.server.waiting == 0
                assert await is_closed(connected)
            assert stage.counters.read()["proxy_headers_refused"] == 1
            [(kind, told)] = stage.server.take_events().items()
            assert kind == "a connection whose PROXY header is not whole in time"
            # The second part need not have been read.
            assert told in ((1, HEADER[:10], "127.0.0.1"), (1, HEADER[:20], "127.0.0.1"))

    async def test_none_that_comes_is_told_of_without_an_example(self):
        async with staged() as stage:
            with stage.connected() as connected:
                await eventually(lambda: stage.server.waiting == 1)
                stage.pass_time(TIMEOUT_S + 2 * TICK_S)
                assert await is_closed(connected)
            assert stage.counters.read()["proxy_headers_refused"] == 1
            assert list(stage.server.take_events().values()) == [(1, b"", "127.0.0.1")]


class TestStop:
    async def test_one_is_emptied_while_nobody_waits(self):
        async with staged() as stage:
            assert not stage.server.emptied.is_set()
            stage.server.drain()
            assert stage.server.emptied.is_set()
            with stage.connected() as connected:
                await eventually(lambda: stage.server.waiting == 1)
                assert not stage.server.emptied.is_set()
                connected.sendall(HEADER)
                await asyncio.wait_for(stage.server.emptied.wait(), WAIT_S)
            # Whoever comes after the header in a stop is another one.
            assert (len(stage.owners), len(stage.late)) == (0, 1)

    @pytest.mark.parametrize("before", [True, False], ids=["there before it", "accepted in it"])
    async def test_a_header_has_a_second_from_then_on(self, before):
        async with staged() as stage:
            if not before:
                stage.server.drain()
            with stage.connected() as connected:
                await eventually(lambda: stage.server.waiting == 1)
                if before:
                    stage.server.drain()
                    assert not stage.server.emptied.is_set()
                stage.pass_time(LAST_CALL_S - TICK_S)
                assert stage.server.waiting == 1
                stage.pass_time(LAST_CALL_S + 2 * TICK_S)
                assert stage.server.emptied.is_set()
                assert await is_closed(connected)
            # It is the stop that ends it.
            assert stage.counters.read()["proxy_headers_refused"] == 0

    async def test_an_abort_ends_all(self):
        async with staged() as stage:
            with stage.connected() as one, stage.connected() as two:
                one.sendall(HEADER[:5])
                await eventually(lambda: stage.server.waiting == 2)
                stage.server.abort()
                assert stage.server.waiting == 0
                assert await is_closed(one)
                assert await is_closed(two)
