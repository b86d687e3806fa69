"""What one client may hold, what all of them together may, and what they are told beyond it."""

from __future__ import annotations

import asyncio
import logging
import socket
import time

import pytest

from gatewayx.server import logs
from support.gateway import eventually, with_settings
from support.http import HttpClient, ask, head, post
from support.still import still_gateway
from support.times import NOT_BEFORE, SOON_S, WAIT_S

pytestmark = pytest.mark.anyio

POST = post(b"/by-hand", b"workload")
OPTIONS = head(b"OPTIONS", b"*")
CHUNKED = b"Transfer-Encoding: chunked"


def sized(size_bytes: int, *headers: bytes) -> bytes:
    """The head of a POST to /echo whose body has so many bytes."""
    return head(b"POST", b"/echo", b"Content-Length: %d" % size_bytes, *headers)


async def is_refused(client: HttpClient, status: int, kind: str) -> None:
    """The next answer is this one, says when to try again, and is the last."""
    answer = await client.response()
    assert (answer.status, answer.kind(), answer.headers[b"connection"]) == (status, kind, b"close")
    assert int(answer.headers[b"retry-after"]) >= 1
    assert await client.rest() == b""


class TestConnections:
    @with_settings(max_connections=2)
    async def test_the_longest_idle_is_closed_to_make_room(self, gateway):
        async with HttpClient(gateway.address) as one, HttpClient(gateway.address) as two:
            for client in (one, two, one):
                assert (await client.ask(OPTIONS)).status == 204
            async with HttpClient(gateway.address) as three:
                assert (await three.ask(OPTIONS)).status == 204
                assert await two.rest() == b""
                assert (await one.ask(OPTIONS)).status == 204
        assert gateway.count("http.connections_evicted") == 1
        assert gateway.count("http.connections_refused") == 0

    @with_settings(max_connections=2)
    async def test_one_that_has_sent_nothing_is_idle_since_it_came(self, gateway):
        async with HttpClient(gateway.address) as silent, HttpClient(gateway.address) as two:
            assert (await two.ask(OPTIONS)).status == 204
            assert (await ask(gateway.address, OPTIONS)).status == 204
            assert await silent.rest() == b""
            assert (await two.ask(OPTIONS)).status == 204

    @with_settings(max_connections=3)
    async def test_many_at_once_evict_no_more_than_there_is_room_needed(self, gateway, worker):
        async with HttpClient(gateway.address) as busy, HttpClient(gateway.address) as idle:
            busy.send(POST)
            handle, _, _, _ = await worker.take()
            assert (await idle.ask(OPTIONS)).status == 204
            newcomers = [HttpClient(gateway.address) for _ in range(2)]
            await asyncio.gather(*(newcomer.connect() for newcomer in newcomers))
            assert [(await newcomer.ask(OPTIONS)).status for newcomer in newcomers] == [204, 204]
            assert gateway.count("http.connections_evicted") == 1
            assert await idle.rest() == b""
            for newcomer in newcomers:
                await newcomer.close()
            worker.complete(handle, b"served")
            assert (await busy.response()).body == b"served"

    @pytest.mark.needs_plain("nobody sends a request before he is accepted")
    @with_settings(max_connections=4)
    async def test_one_whose_request_has_come_but_is_not_read_yet_is_not_idle(self, gateway):
        # All of them stand in the accept queue before the gateway accepts the first.
        sockets = []
        for _ in range(8):
            connected = socket.create_connection(tuple(gateway.address))
            connected.sendall(OPTIONS)
            connected.setblocking(False)
            sockets.append(connected)
        loop = asyncio.get_running_loop()
        answers = [await asyncio.wait_for(loop.sock_recv(connected, 12), WAIT_S) for connected in sockets]
        assert set(answers) <= {b"HTTP/1.1 204", b"HTTP/1.1 503"}
        assert answers[:4] == [b"HTTP/1.1 204"] * 4
        for connected in sockets:
            connected.close()

    @with_settings(max_connections=2)
    @pytest.mark.parametrize("early", [b"", POST], ids=["silent", "request-already-sent"])
    async def test_if_none_is_idle_a_further_one_is_503_and_closed(self, embedded, gateway, worker, early):
        async with HttpClient(gateway.address) as one, HttpClient(gateway.address) as two:
            for client in (one, two):
                client.send(POST)
            handles = [(await worker.take())[0] for _ in range(2)]
            async with HttpClient(gateway.address) as three:
                three.send(early)
                await is_refused(three, 503, "too-many-connections")
            assert gateway.count("http.connections_refused") == 1
            assert embedded.submitted == 2
            for handle in handles:
                worker.complete(handle, b"served")
            assert [(await client.response()).body for client in (one, two)] == [b"served"] * 2
        assert gateway.count("http.connections_evicted") == 0

    @pytest.mark.needs_plain("those beyond the bound are closed before they have shaken hands")
    @with_settings(max_connections=1)
    async def test_refused_ones_linger_up_to_a_bound_and_leave_nothing(self, gateway, worker):
        async with HttpClient(gateway.address) as busy:
            busy.send(POST)
            handle, _, _, _ = await worker.take()
            with gateway.within_a_tick():
                refused = [await HttpClient(gateway.address).connect() for _ in range(300)]
                answers = [await client.response() for client in refused]
                assert {answer.status for answer in answers} == {503}
                assert gateway.count("http.refused_connections") == 256
            for client in refused:
                await client.close()
            worker.complete(handle)
            assert (await busy.response()).status == 200

    @with_settings(max_connections_per_address=2)
    async def test_one_address_too_many_is_429_and_others_are_let_in(self, gateway):
        async with HttpClient(gateway.address) as one, HttpClient(gateway.address) as two:
            for client in (one, two):
                assert (await client.ask(OPTIONS)).status == 204
            async with HttpClient(gateway.address) as three:
                await is_refused(three, 429, "too-many-connections-per-address")
            async with HttpClient(gateway.address, source="127.0.0.2") as elsewhere:
                assert (await elsewhere.ask(OPTIONS)).status == 204
                assert gateway.count("http.addresses") == 2
            await two.close()
            await eventually(lambda: gateway.count("http.connections") == 1)
            assert (await ask(gateway.address, OPTIONS)).status == 204


class TestTimes:
    @with_settings(first_byte_timeout_s=0.2, header_timeout_s=3600)
    async def test_the_first_byte_has_a_time_of_its_own(self, gateway):
        began_s = time.monotonic()
        async with HttpClient(gateway.address) as client:
            assert await client.rest() == b""
            assert time.monotonic() - began_s >= NOT_BEFORE * 0.2

    @with_settings(min_body_rate_bytes=1000, body_rate_grace_s=0.3)
    @pytest.mark.parametrize("framing", [b"Content-Length: 100000", CHUNKED], ids=["sized", "chunked"])
    async def test_a_body_that_only_trickles_is_408_and_closed(self, embedded, client, framing):
        began_s = time.monotonic()
        client.send(head(b"POST", b"/echo", framing))
        response = asyncio.create_task(client.response())
        while not response.done():
            client.send(b"1\r\nx\r\n" if framing == CHUNKED else b"x")
            await asyncio.sleep(0.02)
        answer = await response
        assert (answer.status, answer.kind(), answer.headers[b"connection"]) == (408, "body-too-slow", b"close")
        assert NOT_BEFORE * 0.3 <= time.monotonic() - began_s < SOON_S
        assert embedded.submitted == 0

    def test_a_body_that_keeps_the_rate_may_take_its_time(self):
        with still_gateway(min_body_rate_bytes=1000, body_rate_grace_s=0.2, body_timeout_s=0.5) as gateway:
            client = gateway.client()
            client.send(sized(4000))
            for _ in range(16):
                client.send(bytes(250))
                gateway.pass_time(0.06)
            gateway.complete(b"served")
            assert [answer.body for answer in client.responses()] == [b"served"]

    @with_settings(min_body_rate_bytes=0, body_rate_grace_s=0.2)
    async def test_without_a_rate_a_body_may_trickle(self, client, samples):
        client.send(sized(30))
        for _ in range(30):
            client.send(b"x")
            await asyncio.sleep(0.02)
        assert (await client.response()).status == 200

    @with_settings(header_timeout_s=0.4)
    async def test_heads_that_are_late_together_are_all_answered(self, gateway):
        clients = [await HttpClient(gateway.address).connect() for _ in range(200)]
        for client in clients:
            client.send(b"GET /f HTT")
        answers = await asyncio.gather(*(client.response() for client in clients))
        assert {answer.status for answer in answers} == {408}
        for client in clients:
            await client.close()


class TestPipelining:
    async def test_a_buffer_full_of_requests_is_cut_up(self, embedded, gateway, client, worker):
        client.send(*(post(b"/by-hand", b"%d" % number) for number in range(1000)))
        await gateway.reaches("pool.outstanding_jobs", 64)
        await eventually(lambda: embedded.submitted >= 64)
        await asyncio.sleep(0.05)
        assert embedded.submitted == 64
        for number in range(1000):
            handle, _, _, workload = await worker.take()
            worker.complete(handle, workload)
            assert (await client.response()).body == b"%d" % number
        assert gateway.count("http.requests_answered") == 1000


class TestRefusals:
    async def test_one_is_prompt_and_those_of_a_flood_come_later_but_not_together(self, gateway):
        assert (await ask(gateway.address, b"AAA\r\n")).status == 400
        assert gateway.count("http.refusals_delayed") == 0
        clients = [await HttpClient(gateway.address).connect() for _ in range(300)]
        await gateway.reaches("http.connections_accepted", 301)
        waited_s = []

        async def refused(client):
            # Not the loop's time, which stands still for a turn.
            sent_s = time.monotonic()
            client.send(b"AAA\r\n")
            assert (await client.response()).status == 400
            waited_s.append(time.monotonic() - sent_s)

        with gateway.within_a_tick():
            await asyncio.gather(*(refused(client) for client in clients))
        delayed = gateway.count("http.refusals_delayed")
        # The first one may have had a tick of its own.
        assert delayed in (301 - 64, 300 - 64)
        assert sum(waited >= 0.045 for waited in waited_s) >= delayed
        for client in clients:
            assert await client.rest() == b""
            await client.close()
        await gateway.let_go()

    async def test_one_that_waits_is_forgotten_with_its_client(self, gateway):
        clients = [await HttpClient(gateway.address).connect() for _ in range(100)]
        await gateway.reaches("http.connections_accepted", 100)
        with gateway.within_a_tick():
            for client in clients:
                client.send(b"AAA\r\n")
            await gateway.reaches("http.refusals_delayed", 100 - 64)
        for client in clients:
            client.reset()
        await gateway.let_go()

    async def test_one_that_waits_behind_good_requests_keeps_its_place(self, gateway, worker):
        clients = [await HttpClient(gateway.address).connect() for _ in range(100)]
        good = await HttpClient(gateway.address).connect()
        for client in clients:
            client.send(b"AAA\r\n")
        good.send(OPTIONS, POST, b"AAA\r\n", OPTIONS)
        handle, _, _, _ = await worker.take()
        assert (await good.response()).status == 204
        worker.complete(handle, b"served")
        assert (await good.response()).body == b"served"
        assert (await good.response()).status == 400
        assert await good.rest() == b""
        for client in (*clients, good):
            await client.close()


class TestEvents:
    async def test_what_is_refused_is_logged_once_a_kind_with_a_count_and_an_escaped_example(self, gateway, caplog):
        for _ in range(20):
            await ask(gateway.address, b"G\x1b[31mT / HTTP/1.1\r\n\r\n")
        for _ in range(3):
            await ask(gateway.address, b"GET / HTTP/3.0\r\n\r\n")
        with caplog.at_level(logging.WARNING):
            gateway.process.log_refusals()
            gateway.process.log_refusals()
        lines = [logs.Printable("%(message)s").format(record) for record in caplog.records]
        assert len(lines) == 2
        assert lines[0].startswith("refused 20 times: malformed-request; for example 127.0.0.1 after ")
        assert lines[0].endswith(r"'G\x1b[31mT / HTTP/1.1\r\n\r\n'")
        assert lines[1].startswith("refused 3 times: version-not-supported; ")
