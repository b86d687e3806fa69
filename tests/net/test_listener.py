"""What a listener does with connections that the machine cannot take: neither spinning nor silence."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from gatewayx.core.counters import Counters
from gatewayx.core.turns import Turn
from gatewayx.net.listener import Listener
from gatewayx.net.poller import TurnPoller
from gatewayx.net.stream import SocketStream, Stream, StreamOwner
from support.gateway import eventually
from support.times import WAIT_S

pytestmark = pytest.mark.anyio

DESCRIPTORS = Path("/proc/self/fd")


class Greeter(StreamOwner):
    """Says one word to whoever is let in, and does what else the test asks for when a client's word comes."""

    def __init__(self, heard: Callable[[], None] = lambda: None) -> None:
        self.heard = heard

    def opened(self, stream: Stream) -> int:
        """StreamOwner."""
        stream.write(b"in")
        return 0

    def ended(self) -> bool:
        """StreamOwner."""
        self.heard()
        return False

    def lost(self, error: Exception | None) -> int:
        """StreamOwner."""
        return 0


class Place:
    """A poller with one listener, in the test's loop."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        before = epoll_descriptors()
        self.poller = TurnPoller(loop, Turn(loop))
        [self.epoll] = epoll_descriptors() - before
        self.counters = Counters()
        bound = socket.create_server(("127.0.0.1", 0))
        bound.setblocking(False)
        self.address = bound.getsockname()
        self.listener = Listener(self.poller, bound, Greeter, self.counters)

    def unserved(self) -> int:
        """How many connections were closed without service."""
        return self.counters.read()["connections_unserved"]

    def close(self) -> None:
        """Listen no more."""
        self.listener.close()
        self.poller.close()


def descriptors() -> set[Path]:
    """All of this process's."""
    return set(DESCRIPTORS.iterdir())


def epoll_descriptors() -> set[int]:
    """Of these, those of epoll."""
    found = set()
    for link in descriptors():
        with contextlib.suppress(FileNotFoundError):
            if "[eventpoll]" in str(link.readlink()):
                found.add(int(link.name))
    return found


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    """A place at which the test listens."""
    place = Place()
    yield place
    place.close()


def connected(place: Place) -> socket.socket:
    """A client that the kernel has let in."""
    client = socket.create_connection(place.address)
    client.setblocking(False)
    return client


async def word(client: socket.socket) -> bytes:
    """What the client is told, empty if it is closed."""
    return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 100), WAIT_S)


@contextlib.contextmanager
def no_descriptor_left() -> Iterator[None]:
    """As if every descriptor of the process were taken."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.open("/dev/null", os.O_RDONLY)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_those_for_whom_there_is_no_descriptor_wait_and_are_served_if_one_comes(place):
    client = connected(place)
    with no_descriptor_left():
        await eventually(lambda: place.listener.waits)
        turns = place.poller.number
        # Nothing is heard of it: the level that stays would be told of in every turn.
        await asyncio.sleep(0.05)
        assert place.poller.number == turns
        place.listener.resume()
        assert not place.listener.waits
        await eventually(lambda: place.listener.waits)
    place.listener.resume()
    assert await word(client) == b"in"
    assert place.unserved() == 0
    client.close()


async def test_those_who_have_waited_in_vain_are_turned_away_until_there_is_a_descriptor(place):
    clients = [connected(place) for _ in range(10)]
    before = descriptors()
    with no_descriptor_left():

        def all_gone() -> bool:
            place.listener.resume()
            return place.unserved() == len(clients)

        await eventually(all_gone)
    assert descriptors() == before
    for client in clients:
        assert await word(client) == b""
        client.close()
    newcomer = connected(place)
    place.listener.resume()
    assert await word(newcomer) == b"in"
    assert place.unserved() == len(clients)
    newcomer.close()


async def test_one_that_cannot_be_watched_is_closed_and_counted_and_the_next_is_served(place, caplog):
    kept = os.dup(place.epoll)
    nothing = os.open("/dev/null", os.O_RDONLY)

    def break_the_poller() -> None:
        # epoll_ctl fails from here on, and the turn that has begun ends with an accept.
        os.dup2(nothing, place.epoll)

    other, ours = socket.socketpair()
    ours.setblocking(False)
    SocketStream(place.poller, ours.detach(), Greeter(break_the_poller)).start()
    # Both are ready in the same turn, since the loop does not run in between.
    newcomer = connected(place)
    other.shutdown(socket.SHUT_WR)
    try:
        await eventually(lambda: place.unserved() == 1)
    finally:
        os.dup2(kept, place.epoll)
        os.close(kept)
        os.close(nothing)
    assert await word(newcomer) == b""
    assert caplog.records == []
    served = connected(place)
    assert await word(served) == b"in"
    served.close()
    newcomer.close()
    other.close()
