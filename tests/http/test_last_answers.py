"""Which answer of a connection is the last one: nothing behind it is run, and no second one is given.

RFC 9112 9.6: a server that sends "close" must not process requests that come after it on the connection.
"""

from __future__ import annotations

import asyncio

import pytest

from support.gateway import RunningGateway, with_settings
from support.http import HttpClient, chunked, head, post
from support.still import StillGateway, still_gateway

CHUNKED = b"Transfer-Encoding: chunked"
EXPECT = b"Expect: 100-continue"
BEHIND = post(b"/echo", b"behind")
HELLO = b"Content-Length: 5"

# Requests whose answer is the last one, or the connection lives: status, and what follows the head.
REFUSED = [
    pytest.param(head(b"POST", b"/v1/x", EXPECT, HELLO) + b"hello", 404, id="expecting-body-here"),
    pytest.param(head(b"POST", b"/v1/x", EXPECT, CHUNKED) + chunked(b"hello"), 404, id="expecting-chunks-here"),
    pytest.param(head(b"POST", b"/v1/x", EXPECT, CHUNKED) + b"5\r\nhel", 404, id="expecting-half-here"),
    pytest.param(head(b"POST", b"/echo", b"X-Gearman-Priority: odd", EXPECT, HELLO) + b"hello", 400, id="bad-header"),
    pytest.param(head(b"DELETE", b"/echo", EXPECT, HELLO) + b"hello", 405, id="bad-method"),
    pytest.param(head(b"POST", b"/v1/x", b"Connection: close", HELLO) + b"hello", 404, id="close"),
    pytest.param(head(b"POST", b"/v1/x", b"Connection: close", HELLO) + b"hel", 404, id="close-half-a-body"),
    pytest.param(head(b"POST", b"/v1/x", CHUNKED, b"Connection: close") + b"5\r\nhello\r\n", 404, id="close-chunks"),
    pytest.param(head(b"POST", b"/v1/x", HELLO, version=b"1.0") + b"hello", 404, id="1.0"),
    pytest.param(head(b"POST", b"/v1/x", HELLO, version=b"1.0") + b"hel", 404, id="1.0-half-a-body"),
    pytest.param(head(b"OPTIONS", b"*", b"Connection: close"), 204, id="close-without-a-body"),
    pytest.param(head(b"POST", b"/echo", b"Content-Length: 9999999999"), 413, id="too-large"),
    pytest.param(head(b"POST", b"/echo", CHUNKED) + b"fffffffff\r\n", 413, id="chunk-too-large"),
    pytest.param(head(b"POST", b"/echo", CHUNKED) + b"x\r\n", 400, id="malformed-chunk"),
    pytest.param(b"GET / HTTP/1.1\r\n\r\n", 400, id="malformed-head"),
]


@pytest.mark.anyio
class TestNothingBehindTheLastAnswer:
    @pytest.mark.parametrize("before", [b"", post(b"/echo", b"before")], ids=["alone", "pipelined"])
    @pytest.mark.parametrize(("request_bytes", "status"), REFUSED)
    @pytest.mark.parametrize("cut", ["whole", "by-request", "by-byte"])
    async def test_is_run(self, embedded, gateway, client, samples, before, request_bytes, status, cut):
        sent = before + request_bytes + BEHIND + BEHIND
        if cut == "whole":
            client.send(sent)
        elif cut == "by-request":
            for piece in (before, request_bytes, BEHIND, BEHIND):
                client.send(piece)
                await asyncio.sleep(0.005)
        else:
            client.writer.transport.set_write_buffer_limits(high=0)
            for start in range(len(sent)):
                client.send(sent[start : start + 1])
                await asyncio.sleep(0)
        answers = [await client.response() for _ in range(2 if before else 1)]
        assert answers[-1].status == status
        if answers[-1].headers.get(b"connection") == b"close":
            assert await client.rest() == b""
            await asyncio.sleep(0.02)
            assert embedded.submitted == bool(before)
        else:
            # The body had come although the client could have waited: the connection is in no doubt.
            assert [(await client.response()).body for _ in range(2)] == [b"behind"] * 2
            assert embedded.submitted == bool(before) + 2

    @with_settings(max_held_bytes=262_144)
    async def test_is_run_after_a_body_outgrew_its_room(self, embedded, gateway, client, samples):
        assert (await client.ask(head(b"POST", b"/echo", CHUNKED, EXPECT))).status == 100
        client.send(chunked(bytes(300_000)), BEHIND)
        answer = await client.response()
        assert answer.status in (503, 413)
        if answer.headers.get(b"connection") == b"close":
            assert await client.rest() == b""
            assert embedded.submitted == 0
        else:
            assert (await client.response()).body == b"behind"
            assert embedded.submitted == 1

    @pytest.mark.parametrize(
        ("request_bytes", "rest"),
        [
            (head(b"POST", b"/v1/x", HELLO) + b"hel", b"lo"),
            (head(b"POST", b"/v1/x", CHUNKED) + b"5\r\nhel", b"lo\r\n0\r\n\r\n"),
        ],
        ids=["sized", "chunked"],
    )
    async def test_is_run_when_a_drain_began_in_a_body_that_is_answered(
        self, embedded, gateway, worker, client, request_bytes, rest
    ):
        client.send(post(b"/by-hand", b"before"), request_bytes)
        first, _, _, _ = await worker.take()
        gateway.process.http.drain()
        # The answer to the body does not say that it is the last one, so the next request has one that does.
        client.send(rest, post(b"/by-hand", b"last"), BEHIND)
        last, _, _, workload = await worker.take()
        assert workload == b"last"
        for handle in (first, last):
            worker.complete(handle, b"result")
        answers = [await client.response() for _ in range(3)]
        assert [answer.status for answer in answers] == [200, 404, 200]
        assert [answer.headers.get(b"connection") for answer in answers] == [None, None, b"close"]
        assert await client.rest() == b""
        assert embedded.submitted == 2

    async def test_is_run_when_the_drain_makes_it_the_last_one(self, embedded, gateway, worker, client):
        client.send(post(b"/by-hand", b"first"))
        handle, _, _, _ = await worker.take()
        gateway.process.http.drain()
        client.send(BEHIND)
        await asyncio.sleep(0.05)
        worker.complete(handle, b"result")
        answer = await client.response()
        assert (answer.body, answer.headers[b"connection"]) == (b"result", b"close")
        assert await client.rest() == b""
        assert embedded.submitted == 1

    async def test_a_client_that_was_told_to_go_on_keeps_its_connection(self, gateway: RunningGateway, client, samples):
        assert (await client.ask(head(b"POST", b"/echo?q", EXPECT, HELLO))).status == 400
        assert await client.rest() == b""
        async with HttpClient(gateway.address) as another:
            assert (await another.ask(head(b"POST", b"/echo", EXPECT, HELLO))).status == 100
            another.send(b"hello", BEHIND)
            assert [(await another.response()).body for _ in range(2)] == [b"hello", b"behind"]


def refuse_promptly(gateway: StillGateway, count: int) -> None:
    """So many malformed requests, each of a client of its own that leaves, without any time."""
    for _ in range(count):
        client = gateway.client()
        client.send(b"malformed\r\n")
        gateway.loop.settle()
        client.lose(None)


class TestARefusalThatWaits:
    """Beyond 64 a tick they do; nothing else may happen to the connection meanwhile."""

    @pytest.mark.parametrize("before_s", [number / 100 for number in range(0, 30, 3)])
    @pytest.mark.parametrize(
        "half",
        [b"GE", head(b"POST", b"/f", CHUNKED), head(b"POST", b"/f", CHUNKED) + b"1\r\nx"],
        ids=["head", "body", "body-begun"],
    )
    def test_has_no_deadline_beside_it(self, half, before_s):
        with still_gateway(header_timeout_s=5, body_timeout_s=5, body_rate_grace_s=5) as gateway:
            client = gateway.client()
            client.send(post(b"/f", b"job"), half)
            gateway.pass_time(5.2 - before_s)
            if gateway.count("http.requests_refused"):
                # It was late already.
                return
            refuse_promptly(gateway, 64)
            refused = gateway.count("http.requests_refused")
            client.send(b"\0\r\n")
            assert gateway.count("http.refusals_delayed") == 1
            gateway.pass_time(1)
            assert gateway.count("http.requests_refused") == refused + 1
            gateway.complete(b"result")
            gateway.pass_time(0.1)
            first, second = client.responses()
            assert (first.status, first.body, second.status) == (200, b"result", 400)

    def test_does_not_hold_up_the_answers_before_it(self):
        with still_gateway() as gateway:
            client = gateway.client()
            client.send(post(b"/f", b"job"))
            refuse_promptly(gateway, 64)
            client.send(b"\0\r\n")
            gateway.complete(b"result")
            assert [answer.status for answer in client.responses()] == [200]
            gateway.pass_time(0.1)
            assert [answer.status for answer in client.responses()] == [200, 400]

    def test_one_timer_serves_all_of_them(self):
        def looks(gateway: StillGateway) -> int:
            handles = [*gateway.loop._ready, *gateway.loop._scheduled]
            return sum("_answer_waiting" in repr(handle._callback) for handle in handles if not handle._cancelled)

        with still_gateway() as gateway:
            clients = []
            refuse_promptly(gateway, 64)
            for _ in range(10):
                # A turn answers 16; the next one comes while the look after them is due.
                for _ in range(16):
                    clients.append(gateway.client())
                    clients[-1].send(b"malformed\r\n")
                assert looks(gateway) == 1
                gateway.loop.now_s += 0.051
                gateway.loop.turn()
                assert looks(gateway) <= 1
                late = gateway.client()
                refuse_promptly(gateway, 64)
                late.send(b"malformed\r\n")
                clients.append(late)
                assert looks(gateway) <= 1
            gateway.pass_time(1)
            assert looks(gateway) == 0
            assert all([answer.status for answer in client.responses()] == [400] for client in clients)


class TestTheTimeOfAHead:
    @pytest.mark.parametrize("pauses", [0, 1, 30])
    def test_goes_on_after_each_pause(self, pauses):
        with still_gateway(header_timeout_s=10, job_timeout_s=1000) as gateway:
            client = gateway.client()
            client.send(post(b"/f", b"job") * pauses, b"GET /f HTTP/1.1\r\nHost")
            gateway.pass_time(5)
            for _ in range(pauses):
                # It does not read; the gateway waits for that, and does not count the time.
                client.stop_taking(0)
                gateway.complete(bytes(100_000))
                gateway.pass_time(5)
                client.take()
                gateway.pass_time(0.05)
            # Times are counted in ticks of 0.1 s.
            gateway.pass_time(4.2 - 0.05 * pauses)
            assert gateway.count("http.requests_refused") == 0
            gateway.pass_time(1.6)
            assert client.responses()[-1].status == 408
