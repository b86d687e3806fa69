"""What is read and dropped after a last answer, so that clients that send on see it."""

from __future__ import annotations

import asyncio
import http.client

import pytest

from support.gateway import with_settings
from support.http import HttpClient, head, post
from support.still import still_gateway
from support.tls_client import CONTEXTS

MEBIBYTE = 1 << 20
POST = post(b"/f", b"workload")
OPTIONS = head(b"OPTIONS", b"*")
CHUNKED = b"Transfer-Encoding: chunked"
EXPECT = b"Expect: 100-continue"


def sized(size_bytes: int, *headers: bytes) -> bytes:
    """The head of a POST to /echo whose body has so many bytes."""
    return head(b"POST", b"/echo", b"Content-Length: %d" % size_bytes, *headers)


@pytest.mark.anyio
class TestABodyTooLarge:
    """After its 413 what still comes is dropped, so that clients that send all of it before they read see the 413."""

    @with_settings(max_body_bytes=MEBIBYTE)
    @pytest.mark.parametrize("size", [2, 20])
    @pytest.mark.parametrize("framing", ["sized", "chunked"])
    @pytest.mark.parametrize("expects", [(), (EXPECT,)], ids=["at-once", "expecting"])
    async def test_a_client_that_sends_all_before_it_reads_sees_it(self, embedded, gateway, size, framing, expects):
        async with HttpClient(gateway.address) as client:
            if framing == "sized":
                await client.send_all(sized(size * MEBIBYTE, *expects))
                pieces = [bytes(MEBIBYTE)] * size
            else:
                await client.send_all(head(b"POST", b"/echo", CHUNKED, *expects))
                pieces = [b"%x\r\n" % MEBIBYTE + bytes(MEBIBYTE) + b"\r\n"] * size + [b"0\r\n\r\n"]
            for piece in pieces:
                await client.send_all(piece)
            answer = await client.response()
            if answer.status == 100:
                answer = await client.response()
            assert (answer.status, answer.kind(), answer.headers[b"connection"]) == (413, "body-too-large", b"close")
            assert await client.rest() == b""
        assert embedded.submitted == 0

    @with_settings(max_body_bytes=MEBIBYTE)
    async def test_http_client_sees_it(self, gateway):
        def ask_as_urllib_does() -> int:
            context = CONTEXTS.get(gateway.address)
            if context is None:
                connection = http.client.HTTPConnection(*gateway.address, timeout=45)
            else:
                connection = http.client.HTTPSConnection(*gateway.address, timeout=45, context=context)
            try:
                connection.request("POST", "/f", bytes(20 * MEBIBYTE), {"Connection": "close"})
                return connection.getresponse().status
            finally:
                connection.close()

        assert await asyncio.to_thread(ask_as_urllib_does) == 413

    @pytest.mark.parametrize("target", [b"/v1/x", b"/echo?q"])
    async def test_so_does_one_whose_body_is_refused_for_another_reason(self, embedded, gateway, target):
        async with HttpClient(gateway.address) as client:
            await client.send_all(head(b"POST", target, b"Connection: close", b"Content-Length: %d" % (8 * MEBIBYTE)))
            for _ in range(8):
                await client.send_all(bytes(MEBIBYTE))
            assert (await client.response()).status in (400, 404)
        assert embedded.submitted == 0

    @with_settings(max_body_bytes=MEBIBYTE)
    async def test_no_more_than_64_mib_is_dropped(self, gateway):
        async with HttpClient(gateway.address) as client:
            await client.send_all(sized(1000 * MEBIBYTE))
            for _ in range(60):
                await client.send_all(bytes(MEBIBYTE))
            with pytest.raises(ConnectionError):
                await client.send_all(bytes(20 * MEBIBYTE))

    def test_it_is_dropped_for_30_s_but_not_for_5_s_without_a_byte(self):
        with still_gateway(max_body_bytes=MEBIBYTE) as gateway:
            steady, silent, expecting = (gateway.client() for _ in range(3))
            steady.send(sized(10 * MEBIBYTE))
            silent.send(sized(10 * MEBIBYTE), bytes(1000))
            expecting.send(sized(10 * MEBIBYTE, EXPECT))
            for passed_s in range(29):
                assert not steady.closed
                assert silent.closed is expecting.closed is (passed_s > 5)
                gateway.pass_time(1)
                steady.send(bytes(1000))
            gateway.pass_time(2)
            assert steady.closed
            assert gateway.count("http.body_lingerers") == 0
            assert [client.responses()[0].status for client in (steady, silent, expecting)] == [413] * 3

    def test_at_most_256_are_dropped_at_once(self):
        with still_gateway(max_body_bytes=MEBIBYTE) as gateway:
            clients = [gateway.client() for _ in range(300)]
            for client in clients:
                client.send(sized(10 * MEBIBYTE))
            gateway.pass_time(1)
            assert gateway.count("http.body_lingerers") == 256
            for client in clients:
                client.send(*[bytes(MEBIBYTE)] * 3)
            assert sum(client.closed for client in clients) == 300 - 256
            gateway.pass_time(2)
            assert gateway.count("http.connections") == 256
            for client in clients:
                client.lose(None)
            assert gateway.count("http.body_lingerers") == 0

    def test_they_are_the_first_to_make_room_then_who_lingers_then_who_is_idle(self):
        with still_gateway(max_body_bytes=MEBIBYTE, max_connections=3) as gateway:
            idle, lingering, dropping = clients = [gateway.client() for _ in range(3)]
            idle.send(OPTIONS)
            lingering.send(b"malformed\r\n")
            dropping.send(sized(10 * MEBIBYTE))
            gateway.loop.settle()
            for client in reversed(clients):
                assert not client.closed
                newcomer = gateway.client()
                newcomer.send(POST)
                gateway.loop.settle()
                assert client.closed
            assert gateway.count("http.connections_evicted") == 3
            refused = gateway.client()
            assert [answer.status for answer in refused.responses()] == [503]
            gateway.loop.settle()
            for _ in range(3):
                gateway.complete(b"")

    def test_a_drain_ends_them(self):
        with still_gateway(max_body_bytes=MEBIBYTE) as gateway:
            client, later = gateway.client(), gateway.client()
            client.send(sized(10 * MEBIBYTE))
            later.send(sized(MEBIBYTE))
            gateway.loop.settle()
            gateway.process.http.drain()
            assert client.closed
            later.send(bytes(MEBIBYTE - 1))
            gateway.process.http.refuse_unfinished()
            gateway.pass_time(0.1)
            assert later.responses()[0].status == 503
            assert gateway.count("http.body_lingerers") == 0
            gateway.pass_time(2.5)
            assert gateway.process.http.emptied.is_set()
