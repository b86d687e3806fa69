"""Clients that hang up, or close their sending side alone, in whatever state their connection is."""

from __future__ import annotations

import errno

import pytest

from support.gateway import eventually, running_gateway
from support.http import HttpClient, head, post
from support.job_servers import hand_worker
from support.still import still_gateway

pytestmark = pytest.mark.anyio


def reset(client: HttpClient) -> None:
    """Reset the connection."""
    client.reset()


def close_sending(client: HttpClient) -> None:
    """Send FIN."""
    client.send_eof()


async def paused_client(gateway, *requests: bytes) -> HttpClient:
    """A client of which two requests are under way, and that has sent more than the gateway reads until then."""
    client = await HttpClient(gateway.address).connect()
    client.send(*requests)
    await gateway.reaches("http.requests_in_flight", 2)
    # Nobody reads these; the kernel has them.
    client.send(post(b"/f", b"never read"), post(b"/f", b"nor this"))
    await client.writer.drain()
    return client


class TestPaused:
    """Of connections that the gateway does not read from."""

    @pytest.mark.parametrize("how", [close_sending, reset], ids=["fin", "rst"])
    async def test_one_that_is_not_read_from_is_noticed_at_once(self, embedded, how):
        async with running_gateway([embedded.address], max_pipelined=2) as gateway:
            client = await paused_client(gateway, post(b"/f", b"1"), post(b"/f", b"2"))
            how(client)
            await gateway.reaches("http.requests_abandoned", 2)
            await gateway.reaches("pool.cancels_requested", 2)
            await eventually(lambda: gateway.count("http.connections") == 0)
            await client.close()
        assert embedded.submitted == 2

    @pytest.mark.parametrize("how", [close_sending, reset], ids=["fin", "rst"])
    async def test_one_that_does_not_take_its_answers_is_noticed_at_once(self, gateway, embedded, how):
        async with hand_worker(embedded.address, b"f") as worker:
            client = await HttpClient(gateway.address, receive_buffer_bytes=4096).connect()
            client.writer.transport.pause_reading()
            client.send(post(b"/f", b"large"), post(b"/f", b"waits"))
            handle, _, _, _ = await worker.take()
            worker.complete(handle, bytes(6 << 20))
            await gateway.reaches("http.unread_connections", 1)
            how(client)
            await gateway.reaches("http.requests_abandoned", 1)
            await gateway.reaches("pool.cancels_requested", 1)
            # A half-closed client may still take what was written; this one is gone.
            client.reset()
            await eventually(lambda: gateway.count("http.connections") == 0)
            await client.close()


@pytest.mark.parametrize("settings", [{"half_closed": "answer", "max_pipelined": 2}], ids=["answer"])
class TestHalfClosed:
    """With --half-closed answer."""

    async def test_all_that_was_sent_is_answered_also_what_was_not_read_yet(self, gateway, embedded):
        async with hand_worker(embedded.address, b"f") as worker, HttpClient(gateway.address) as client:
            client.send(*(post(b"/f", b"%d" % number) for number in range(5)))
            client.send_eof()
            await gateway.reaches("http.requests_in_flight", 2)
            for number in range(5):
                handle, _, _, workload = await worker.take()
                assert workload == b"%d" % number
                worker.complete(handle, workload)
            answers = [await client.response() for _ in range(5)]
            assert [answer.body for answer in answers] == [b"%d" % number for number in range(5)]
            assert answers[-1].headers[b"connection"] == b"close"
            assert await client.rest() == b""

    @pytest.mark.parametrize(
        "cut",
        [post(b"/f", b"whole")[:-1], post(b"/f", b"whole")[:20], head(b"POST", b"/f", b"Content-Length: 9"), b"GET"],
        ids=["body", "head", "no-body", "request-line"],
    )
    async def test_a_request_that_was_cut_short_is_400_behind_the_others(self, gateway, embedded, cut):
        async with hand_worker(embedded.address, b"f") as worker, HttpClient(gateway.address) as client:
            client.send(post(b"/f", b"whole"), cut)
            client.send_eof()
            handle, _, _, _ = await worker.take()
            worker.complete(handle, b"done")
            assert (await client.response()).body == b"done"
            answer = await client.response()
            assert (answer.status, answer.headers[b"connection"]) == (400, b"close")
            assert "closed its sending side" in answer.problem()["detail"]
            assert await client.rest() == b""
        assert embedded.submitted == 1

    async def test_one_that_has_asked_for_nothing_is_closed_without_an_answer(self, gateway):
        async with HttpClient(gateway.address) as client:
            assert (await client.ask(head(b"OPTIONS", b"*"))).status == 204
            client.send_eof()
            assert await client.rest() == b""

    async def test_a_reset_is_a_hang_up(self, gateway):
        client = await paused_client(gateway, post(b"/f", b"1"), post(b"/f", b"2"))
        client.reset()
        await gateway.reaches("http.requests_abandoned", 2)
        await eventually(lambda: gateway.count("http.connections") == 0)
        await client.close()

    async def test_a_reset_that_comes_before_all_is_read_is_one_too(self, gateway):
        client = await HttpClient(gateway.address).connect()
        # Once it has shaken hands: a reset before that takes all with it.
        assert (await client.ask(head(b"OPTIONS", b"*"))).status == 204
        # The gateway reads no further than two requests.
        client.send(*(post(b"/f", b"%d" % number) for number in range(8)))
        client.reset()
        await gateway.reaches("http.requests_abandoned", 2)
        await eventually(lambda: gateway.count("http.connections") == 0)
        await client.close()

    async def test_one_that_is_reset_after_its_fin_has_hung_up(self, gateway, embedded):
        client = await HttpClient(gateway.address).connect()
        client.send(post(b"/f", b"1"))
        client.send_eof()
        await gateway.reaches("pool.outstanding_jobs", 1)
        client.reset()
        await gateway.reaches("http.requests_abandoned", 1)
        await eventually(lambda: gateway.count("http.connections") == 0)
        await client.close()


def test_one_that_has_closed_its_sending_side_is_not_lingered_for():
    with still_gateway(half_closed="answer") as gateway:
        client = gateway.client()
        client.send(post(b"/f", b"job"))
        client.receive_eof()
        gateway.complete(b"result")
        # Without any time.
        assert [answer.body for answer in client.responses()] == [b"result"]
        assert client.gone
        assert gateway.count("http.connections") == 0


@pytest.mark.parametrize(
    ("room_bytes", "error", "timed_out"),
    [
        (10, TimeoutError(errno.ETIMEDOUT, "Connection timed out"), 1),
        (10, ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), 0),
        (1 << 20, TimeoutError(errno.ETIMEDOUT, "Connection timed out"), 0),
    ],
    ids=["given up", "reset", "given up with all in the kernel"],
)
def test_one_that_the_kernel_gives_up_has_not_read_its_answer_in_time(room_bytes, error, timed_out):
    with still_gateway() as gateway:
        client = gateway.client()
        client.stop_taking(room_bytes)
        client.send(post(b"/f", b"job"))
        gateway.complete(b"result")
        client.lose(error)
        assert gateway.count("http.writes_timed_out") == timed_out
