"""How connections end: an answer that has begun arrives whole, and what came last is served or told."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gatewayx.net.listener import Listener
from support.gateway import RunningGateway, with_settings
from support.http import HttpClient, ask, head, post
from support.times import NOT_BEFORE, SOON_S, WAIT_S

pytestmark = pytest.mark.anyio

MEBIBYTE = 1 << 20
POST = post(b"/by-hand", b"workload")
OPTIONS = head(b"OPTIONS", b"*")
# So much the kernel takes off the gateway's hands although the client reads nothing; more waits in the gateway.
KERNEL_BYTES = 192 * 1024


@asynccontextmanager
async def deaf_client(gateway: RunningGateway, worker, result: bytes, *headers: bytes) -> AsyncIterator[HttpClient]:
    """A client that does not read yet, to which this result is on its way."""
    async with HttpClient(gateway.address, receive_buffer_bytes=4096) as deaf:
        deaf.writer.transport.pause_reading()
        deaf.send(post(b"/by-hand", b"workload", *headers))
        handle, _, _, _ = await worker.take()
        worker.complete(handle, result)
        await gateway.reaches("http.requests_answered", 1)
        yield deaf


async def reads_slowly(client: HttpClient, result: bytes) -> None:
    """The client reads now, and all of the result arrives."""
    client.writer.transport.resume_reading()
    assert (await client.response()).body == result


class TestAnswersArriveWhole:
    @pytest.mark.parametrize("size_bytes", [KERNEL_BYTES, 6 * MEBIBYTE], ids=["in-the-kernel", "in-the-gateway"])
    @pytest.mark.parametrize("sends_on", [b"", OPTIONS], ids=["silent", "sends-on"])
    async def test_through_a_drain(self, gateway, worker, size_bytes, sends_on):
        result = bytes(size_bytes)
        async with deaf_client(gateway, worker, result) as deaf:
            gateway.process.http.drain()
            await asyncio.sleep(0.05)
            deaf.send(sends_on)
            await asyncio.sleep(0.05)
            assert not gateway.process.http.emptied.is_set()
            await reads_slowly(deaf, result)
            if sends_on:
                # The answer to the request before was made before the drain, and does not say that it is the last one.
                answer = await deaf.response()
                assert (answer.status, answer.headers[b"connection"]) == (204, b"close")
            assert await deaf.rest() == b""
        await asyncio.wait_for(gateway.process.http.emptied.wait(), WAIT_S)
        assert gateway.count("http.writes_timed_out") == 0

    @pytest.mark.parametrize("sends", [b"GET /by-hand HTTP/1.1\r\nHost: ", head(b"POST", b"/f", b"Content-Length: 9")])
    async def test_through_a_drain_with_another_request_arriving(self, gateway, worker, sends):
        result = bytes(6 * MEBIBYTE)
        async with deaf_client(gateway, worker, result) as deaf:
            deaf.send(sends)
            await asyncio.sleep(0.05)
            gateway.process.http.drain()
            gateway.process.http.refuse_unfinished()
            await asyncio.sleep(0.05)
            await reads_slowly(deaf, result)
            answer = await deaf.response()
            assert (answer.status, answer.kind(), answer.headers[b"connection"]) == (503, "stopping", b"close")

    @with_settings(keepalive_timeout_s=0.2)
    async def test_through_the_end_of_keep_alive(self, gateway, worker):
        result = bytes(KERNEL_BYTES)
        async with deaf_client(gateway, worker, result) as deaf:
            await asyncio.sleep(0.6)
            deaf.send(b"\r\n", OPTIONS)
            await asyncio.sleep(0.05)
            await reads_slowly(deaf, result)

    @with_settings(max_connections=1)
    async def test_through_an_eviction(self, gateway, worker):
        result = bytes(KERNEL_BYTES)
        async with deaf_client(gateway, worker, result) as deaf:
            assert (await ask(gateway.address, OPTIONS)).status == 204
            assert gateway.count("http.connections_evicted") == 1
            assert gateway.count("http.refused_connections") == 1
            deaf.send(OPTIONS)
            await asyncio.sleep(0.05)
            await reads_slowly(deaf, result)
            assert await deaf.rest() == b""

    @with_settings(max_connections=1)
    async def test_one_that_takes_its_answer_from_the_gateway_is_not_evicted(self, gateway, worker):
        result = bytes(6 * MEBIBYTE)
        async with deaf_client(gateway, worker, result) as deaf:
            assert (await ask(gateway.address, OPTIONS)).status == 503
            await reads_slowly(deaf, result)

    @pytest.mark.parametrize("size_bytes", [KERNEL_BYTES, 6 * MEBIBYTE], ids=["in-the-kernel", "in-the-gateway"])
    async def test_to_a_client_that_sends_on_after_its_last_request(self, gateway, worker, size_bytes):
        result = bytes(size_bytes)
        async with deaf_client(gateway, worker, result, b"Connection: close") as deaf:
            deaf.send(bytes(8 * MEBIBYTE))
            await asyncio.sleep(0.3)
            await reads_slowly(deaf, result)

    @pytest.mark.parametrize("size_bytes", [KERNEL_BYTES, 6 * MEBIBYTE], ids=["in-the-kernel", "in-the-gateway"])
    @pytest.mark.parametrize("headers", [(), (b"Connection: close",)], ids=["keep-alive", "close"])
    async def test_to_a_client_that_closes_its_sending_side(self, gateway, worker, size_bytes, headers):
        result = bytes(size_bytes)
        async with deaf_client(gateway, worker, result, *headers) as deaf:
            deaf.send_eof()
            await asyncio.sleep(0.1)
            gateway.process.http.drain()
            await reads_slowly(deaf, result)
            assert await deaf.rest() == b""

    @with_settings(write_timeout_s=1)
    async def test_but_no_longer_than_its_client_takes_any_of_it(self, gateway, worker):
        began_s = time.monotonic()
        async with deaf_client(gateway, worker, bytes(6 * MEBIBYTE)):
            gateway.process.http.drain()
            await asyncio.wait_for(gateway.process.http.emptied.wait(), WAIT_S)
            assert time.monotonic() - began_s >= NOT_BEFORE * 0.9
            assert gateway.count("http.writes_timed_out") == 1


@asynccontextmanager
async def late_listener(gateway: RunningGateway) -> AsyncIterator[tuple[str, int]]:
    """The address of a listener whose connections had waited when the stop began."""
    process = gateway.process
    bound = socket.create_server(("127.0.0.1", 0))
    bound.setblocking(False)
    listener = Listener(process.poller, bound, process.http.late_connection, process.counted_in)
    yield bound.getsockname()
    listener.close()


class TestLastCalls:
    @pytest.mark.parametrize("drains", ["before", "after"])
    async def test_a_late_connection_is_served_one_request(self, embedded, gateway, worker, drains):
        async with late_listener(gateway) as address:
            if drains == "before":
                gateway.process.http.drain()
            # However long it takes, the second in which it must begin is not over.
            with gateway.within_a_tick():
                client = await HttpClient(address).connect()
                await gateway.reaches("http.connections_accepted", 1)
                if drains == "after":
                    gateway.process.http.drain()
                client.send(POST, POST)
                handle, _, _, _ = await worker.take()
            await worker.no_job()
            assert not gateway.process.http.emptied.is_set()
            worker.complete(handle, b"result")
            answer = await client.response()
            assert (answer.status, answer.body, answer.headers[b"connection"]) == (200, b"result", b"close")
            assert await client.rest() == b""
            await client.close()
            await asyncio.wait_for(gateway.process.http.emptied.wait(), WAIT_S)
        assert embedded.submitted == 1

    @pytest.mark.parametrize("refused", [post(b"/"), head(b"DELETE", b"/f"), OPTIONS])
    async def test_whatever_the_answer_it_is_the_last(self, embedded, gateway, samples, refused):
        async with late_listener(gateway) as address:
            with gateway.within_a_tick():
                client = await HttpClient(address).connect()
                client.send(refused, post(b"/echo", b"behind"))
                assert (await client.response()).headers[b"connection"] == b"close"
            assert await client.rest() == b""
            await client.close()
        assert embedded.submitted == 0

    async def test_its_request_may_come_in_pieces(self, gateway, samples):
        async with late_listener(gateway) as address, HttpClient(address) as client:
            gateway.process.http.drain()
            with gateway.within_a_tick():
                for piece in (
                    b"\r\n",
                    b"POST /ec",
                    b"ho HTTP/1.1\r\nHost: a\r\nContent-",
                    b"Length: 4\r\n\r\n",
                    b"late",
                ):
                    client.send(piece)
                    await asyncio.sleep(0.02)
                answer = await client.response()
            assert (answer.body, answer.headers[b"connection"]) == (b"late", b"close")

    @pytest.mark.parametrize("sent", [b"", b"\r\n"], ids=["silent", "empty-line"])
    async def test_one_that_sends_nothing_is_closed_after_a_second(self, gateway, sent):
        began_s = time.monotonic()
        async with late_listener(gateway) as address, HttpClient(address) as client:
            gateway.process.http.drain()
            client.send(sent)
            assert await client.rest() == b""
            assert NOT_BEFORE * 0.9 <= time.monotonic() - began_s < SOON_S
            await asyncio.wait_for(gateway.process.http.emptied.wait(), WAIT_S)
        assert gateway.count("http.requests_refused") == 0

    async def test_one_accepted_just_before_the_stop_is_as_late(self, gateway, samples):
        async with HttpClient(gateway.address) as client, HttpClient(gateway.address) as silent:
            await gateway.reaches("http.connections_accepted", 2)
            with gateway.within_a_tick():
                gateway.process.http.drain()
                await asyncio.sleep(0.05)
                answer = await client.ask(post(b"/echo", b"late"))
            assert (answer.body, answer.headers[b"connection"]) == (b"late", b"close")
            assert await silent.rest() == b""

    async def test_a_request_that_the_kernel_has_already_is_served(self, gateway, samples):
        async with HttpClient(gateway.address) as client, HttpClient(gateway.address) as idle:
            for one in (client, idle):
                assert (await one.ask(OPTIONS)).status == 204
            client.send(post(b"/echo", b"on its way"))
            gateway.process.http.drain()
            answer = await client.response()
            assert (answer.body, answer.headers[b"connection"]) == (b"on its way", b"close")
            assert await idle.rest() == b""

    async def test_those_that_have_sent_nothing_are_told_nothing_at_the_end(self, gateway):
        async with HttpClient(gateway.address) as silent, HttpClient(gateway.address) as sending:
            await gateway.reaches("http.connections_accepted", 2)
            sending.send(b"POST /f")
            await gateway.reaches("http.arrivals", 1)
            gateway.process.http.drain()
            gateway.process.http.refuse_unfinished()
            assert await silent.rest() == b""
            assert (await sending.response()).status == 503
