"""What meets in one turn of the sockets: the test's own system calls happen between two turns of the loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import Callable
from contextvars import Context

import pytest
import uvloop

from gatewayx.net.listener import Listener
from support.gateway import eventually, running_gateway, with_settings
from support.http import HttpClient, head, post
from support.job_servers import hand_worker, nobody_listens
from support.times import WAIT_S

pytestmark = pytest.mark.anyio

OPTIONS = head(b"OPTIONS", b"*")
# Bounds of a turn (net/listener.pxd).
ACCEPTS_PER_TURN = 4


def connected(address: tuple[str, int]) -> socket.socket:
    """A connection that is made at once; the kernel accepts it."""
    client = socket.create_connection(address)
    client.settimeout(WAIT_S)
    return client


async def answers(client: socket.socket, request: bytes = OPTIONS) -> bytes:
    """What the gateway says to one request."""
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(client, request)
    return await asyncio.wait_for(loop.sock_recv(client, 65536), WAIT_S)


@with_settings(max_connections=20)
async def test_who_has_left_makes_room_before_anybody_is_closed_for_newcomers(gateway):
    clients = [connected(gateway.address) for _ in range(20)]
    for client in clients:
        assert b" 204 " in await answers(client)
    for client in clients[15:]:
        client.close()
    newcomers = [connected(gateway.address) for _ in range(5)]
    await gateway.reaches("http.connections_accepted", 25)
    assert gateway.count("http.connections_evicted") == 0
    for client in clients[:15] + newcomers:
        assert b" 204 " in await answers(client)
        client.close()


async def test_many_that_come_at_once_are_accepted_in_several_turns_and_all_answered(gateway):
    count = 80 * ACCEPTS_PER_TURN
    clients = [connected(gateway.address) for _ in range(count)]
    for client in clients:
        client.send(OPTIONS)
    began = gateway.process.poller.number
    await gateway.reaches("http.connections_accepted", count)
    assert gateway.process.poller.number - began >= count // ACCEPTS_PER_TURN
    for client in clients:
        client.setblocking(False)
        assert b" 204 " in await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 65536), WAIT_S)
        client.close()


async def test_an_answer_on_its_way_arrives_though_the_client_sends_fin_while_it_is_not_read_from(gateway, embedded):
    size = 6 << 20
    async with (
        hand_worker(embedded.address, b"f") as worker,
        HttpClient(gateway.address, receive_buffer_bytes=4096) as client,
    ):
        client.writer.transport.pause_reading()
        client.send(post(b"/f", b"large"))
        handle, _, _, _ = await worker.take()
        worker.complete(handle, bytes(size))
        await gateway.reaches("http.unread_connections", 1)
        # Nobody reads this any more: a close would answer it with a reset, and drop what is sent.
        client.send(post(b"/f", b"never read"))
        client.send_eof()
        await asyncio.sleep(0.1)
        client.writer.transport.resume_reading()
        answer = await client.response()
        assert (answer.status, len(answer.body)) == (200, size)
        assert await client.rest() == b""
    assert embedded.submitted == 1


async def test_what_stands_behind_urgent_data_is_read(gateway):
    client = connected(gateway.address)
    assert b" 204 " in await answers(client)
    client.setblocking(True)
    # A read ends at the mark (tcp(7)); the byte itself is no part of the stream.
    client.send(OPTIONS[:20])
    client.send(b"!", socket.MSG_OOB)
    client.send(OPTIONS[20:])
    client.setblocking(False)
    assert b" 204 " in await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 65536), WAIT_S)
    client.close()


async def test_large_bodies_of_many_take_turns_and_arrive_whole(gateway, embedded, samples):
    body = bytes(range(256)) * 8192
    clients = [await HttpClient(gateway.address).connect() for _ in range(8)]
    for client in clients:
        client.send(post(b"/echo", body))
    for client in clients:
        assert (await client.response()).body == body
        await client.close()


async def test_a_listener_that_is_stopped_leaves_who_waits_to_accept_waiting(gateway):
    process = gateway.process
    bound = socket.create_server(("127.0.0.1", 0))
    bound.setblocking(False)
    listener = Listener(process.poller, bound, process.http.connection, process.counted_in)
    listener.stop()
    client = connected(bound.getsockname())
    await asyncio.sleep(0.05)
    assert gateway.count("http.connections") == 0
    assert listener.accept_waiting(process.http.connection)
    assert not listener.accept_waiting(process.http.connection)
    assert b" 204 " in await answers(client)
    client.close()
    listener.close()
    await eventually(lambda: gateway.count("http.connections") == 0)


class CountingLoop(uvloop.Loop):
    """Knows how many callbacks of each name wait in it."""

    def __init__(self) -> None:
        self.queued: Counter[str] = Counter()
        self.most: Counter[str] = Counter()

    def call_soon(
        self, callback: Callable[..., object], *args: object, context: Context | None = None
    ) -> asyncio.Handle:
        """See asyncio.AbstractEventLoop."""
        name = getattr(callback, "__name__", "")

        def run() -> None:
            self.queued[name] -= 1
            callback(*args)

        self.queued[name] += 1
        self.most[name] = max(self.most[name], self.queued[name])
        return super().call_soon(run, context=context)


async def keep_sending(address: tuple[str, int], first: bytes, again: bytes) -> None:
    """Send as fast as the gateway takes it, and read all answers; come again when it closes."""
    loop = asyncio.get_running_loop()

    async def read(client: socket.socket) -> None:
        while await loop.sock_recv(client, 1 << 18):
            pass

    while True:
        with connected(address) as client, contextlib.suppress(ConnectionError):
            client.setblocking(False)
            reading = asyncio.create_task(read(client))
            try:
                await loop.sock_sendall(client, first)
                while not reading.done():
                    await loop.sock_sendall(client, again)
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)


@pytest.mark.parametrize(
    ("first", "again"),
    [
        (b"", OPTIONS * 300),
        # What is left of a refused body is dropped, so each client is ready for as long as it sends.
        (head(b"POST", b"/f", b"X-Gearman-Priority: bad", b"Content-Length: 8388608"), bytes(65536)),
    ],
    ids=["pipelines", "dropped bodies"],
)
def test_the_loop_has_at_most_one_callback_for_the_next_turn_and_one_for_its_end(first, again):
    loop = CountingLoop()

    async def flood() -> None:
        async with running_gateway([nobody_listens()]) as gateway:
            tasks = [asyncio.create_task(keep_sending(gateway.address, first, again)) for _ in range(24)]
            await eventually(lambda: gateway.process.poller.number > 100)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    try:
        loop.run_until_complete(flood())
    finally:
        loop.close()
    ours = {name: most for name, most in loop.most.items() if name in {"_turn", "_resume", "_end"}}
    assert ours
    assert set(ours.values()) == {1}
