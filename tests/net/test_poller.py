"""The poller's promises to those whose sockets it watches, over pairs of sockets without a network between them."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator

import pytest

from gatewayx.core.counters import Counters
from gatewayx.core.turns import Turn
from gatewayx.embedded.job_server import JobServer
from gatewayx.net.listener import Listener
from gatewayx.net.open_files import raise_open_files
from gatewayx.net.poller import TurnPoller
from gatewayx.net.stream import SocketStream, Stream, StreamOwner
from support.gateway import RunningGateway, eventually, running_gateway
from support.http import head, post
from support.job_servers import hand_worker
from support.times import WAIT_S

pytestmark = pytest.mark.anyio

OPTIONS = head(b"OPTIONS", b"*")
# Bounds of a turn (net/poller.pxd).
EVENTS_PER_TURN = 512
TURN_S = 500e-6


class Owner(StreamOwner):
    """Notes what it is told; nobody sends it anything."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def opened(self, stream: Stream) -> int:
        """StreamOwner."""
        return 0

    def ended(self) -> bool:
        """StreamOwner."""
        self.told.append("ended")
        return False

    def lost(self, error: Exception | None) -> int:
        """StreamOwner."""
        self.told.append(error)
        return 0

    def pause_writing(self) -> int:
        """StreamOwner."""
        self.told.append("pause")
        return 0

    def resume_writing(self) -> int:
        """StreamOwner."""
        self.told.append("resume")
        return 0


@pytest.fixture
async def poller() -> AsyncIterator[TurnPoller]:
    """A poller in the test's loop."""
    loop = asyncio.get_running_loop()
    poller = TurnPoller(loop, Turn(loop))
    yield poller
    poller.close()


@pytest.fixture
async def gateway(embedded: JobServer) -> AsyncIterator[RunningGateway]:
    """A gateway that reads from a client no further than one request."""
    async with running_gateway([embedded.address], max_pipelined=1) as gateway:
        yield gateway


def pair(kind: int = socket.AF_UNIX) -> tuple[socket.socket, int]:
    """Two connected sockets: the other side's, and the descriptor for a stream, which is the stream's from then on."""
    if kind == socket.AF_UNIX:
        other, ours = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            other = socket.create_connection(listening.getsockname())
            ours, _ = listening.accept()
    for end in (other, ours):
        end.setblocking(False)
    return other, ours.detach()


def served(gateway: RunningGateway) -> tuple[socket.socket, int]:
    """A client of the gateway, and the descriptor of the gateway's side."""
    other, descriptor = pair(socket.AF_INET)
    SocketStream(gateway.process.poller, descriptor, gateway.process.http.connection()).start()
    return other, descriptor


async def answer(client: socket.socket) -> bytes:
    """What comes next."""
    return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 65536), WAIT_S)


async def test_an_event_of_a_socket_that_was_let_go_reaches_nobody_who_has_its_place(gateway, embedded):
    async with hand_worker(embedded.address, b"f") as worker:
        first, descriptor = served(gateway)
        # With a copy of the descriptor epoll tells of the socket even once the stream has closed its own (epoll(7)).
        copy = os.dup(descriptor)
        first.send(OPTIONS)
        assert b" 204 " in await answer(first)
        gateway.process.http.abort()
        await eventually(lambda: gateway.count("http.connections") == 0)
        # It has the place of the first one, and a hang-up would end what it has under way, for it is not read from.
        second, _ = served(gateway)
        second.send(post(b"/f", b"one") + post(b"/f", b"two"))
        handle, _, _, _ = await worker.take()
        turns = gateway.process.poller.number
        first.close()
        await eventually(lambda: gateway.process.poller.number > turns)
        worker.complete(handle, b"undisturbed")
        assert b"undisturbed" in await answer(second)
        handle, _, _, _ = await worker.take()
        worker.complete(handle, b"undisturbed, too")
        assert b"undisturbed, too" in await answer(second)
        second.close()
        os.close(copy)


async def test_a_turn_ends_though_more_is_ready(gateway):
    count = EVENTS_PER_TURN + 200
    # Both sides of each are in this process, where 1,024 is a usual limit.
    assert raise_open_files(2 * count + 200) >= 2 * count + 200
    clients = [served(gateway)[0] for _ in range(count)]
    await asyncio.sleep(0)
    for client in clients:
        client.send(OPTIONS)
    turns = gateway.process.poller.number
    await gateway.reaches("http.requests_answered", count)
    assert gateway.process.poller.number - turns >= 2
    for client in clients:
        assert b" 204 " in await answer(client)
        client.close()


async def test_those_that_leave_together_let_go_over_turns_and_nobody_is_accepted_before_all_have(poller):
    told: list[object] = []

    class Slow(Owner):
        """Takes a turn's time to learn of its end."""

        def lost(self, error: Exception | None) -> int:
            """StreamOwner."""
            ends_s = time.perf_counter() + TURN_S
            while time.perf_counter() < ends_s:
                pass
            told.append(poller.number)
            return 0

    class Newcomer(Owner):
        """Notes when it is let in."""

        def opened(self, stream: Stream) -> int:
            """StreamOwner."""
            told.append("a newcomer")
            return 0

    bound = socket.create_server(("127.0.0.1", 0))
    bound.setblocking(False)
    listener = Listener(poller, bound, Newcomer, Counters())
    pairs = [pair() for _ in range(5)]
    streams = [SocketStream(poller, descriptor, Slow()) for _, descriptor in pairs]
    for stream in streams:
        stream.start()
    with socket.create_connection(bound.getsockname()):
        for stream in streams:
            stream.abort()
        await eventually(lambda: len(told) == 6)
    *turns, last = told
    assert last == "a newcomer"
    assert turns == sorted(set(turns))
    for other, _ in pairs:
        other.close()
    listener.close()


async def test_the_failure_of_a_write_is_told_at_the_end_of_the_turn(poller):
    other, descriptor = pair()
    owner = Owner()
    stream = SocketStream(poller, descriptor, owner)
    stream.start()
    other.close()
    stream.write(b"nobody reads this")
    stream.write_all([b"nor", b"this"])
    assert owner.told == []
    assert stream.closing()
    await eventually(lambda: owner.told)
    [error] = owner.told
    assert isinstance(error, BrokenPipeError)
    assert poller.watched == 0
    # What is written to one that has failed goes nowhere, as a network's failure comes at any time.
    stream.write(b"late")


@pytest.mark.parametrize("kind", [bytes, bytearray])
async def test_pieces_that_the_kernel_takes_in_part_arrive_whole_and_in_order(poller, kind):
    other, descriptor = pair()
    owner = Owner()
    stream = SocketStream(poller, descriptor, owner, write_high_bytes=100_000)
    stream.start()
    pieces = [kind(bytes([number]) * (1 + 37 * number * number)) for number in range(250)]
    sent = b"".join(pieces)
    stream.write_all(list(pieces[:200]))
    assert owner.told == ["pause"]
    stream.write_all(list(pieces[200:]))
    stream.write_eof()
    assert 0 < stream.pending_bytes() < len(sent)
    received = bytearray()
    while data := await asyncio.wait_for(asyncio.get_running_loop().sock_recv(other, 10_007), WAIT_S):
        received += data
    assert received == sent
    assert stream.pending_bytes() == 0
    assert owner.told == ["pause", "resume"]
    other.close()
    await eventually(lambda: owner.told == ["pause", "resume", "ended", None])


async def test_a_closed_stream_leaves_once_everything_is_sent(poller):
    other, descriptor = pair()
    owner = Owner()
    stream = SocketStream(poller, descriptor, owner)
    stream.start()
    stream.write(bytes(3 << 20))
    stream.close()
    with pytest.raises(RuntimeError, match="closed"):
        stream.write(b"more")
    received = 0
    while data := await asyncio.wait_for(asyncio.get_running_loop().sock_recv(other, 1 << 20), WAIT_S):
        received += len(data)
    assert received == 3 << 20
    await eventually(lambda: owner.told == ["pause", None])
    assert poller.watched == 0
    other.close()
