"""What is bounded of clients behind trusted proxies: requests in flight, and who holds most of what is unfinished."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

from gatewayx.config.rate_kinds import RateBound
from support.gateway import eventually, running_gateway
from support.http import HttpClient, get, head, post
from support.job_servers import hand_worker
from support.trusted import (
    BY_X,
    ONE,
    OPTIONS,
    OTHER,
    PER_ADDRESS,
    PROXY,
    SLOW,
    STRANGER,
    change,
    of,
    options,
    proxy,
    refused,
)

pytestmark = pytest.mark.anyio


class TestInFlight:
    async def test_connections_of_a_proxy_do_not_count_and_requests_do(self, embedded):
        bounds = {"max_connections_per_address": 2, "connection_rate": RateBound(SLOW, 1)}
        async with AsyncExitStack() as stack:
            worker = await stack.enter_async_context(hand_worker(embedded.address, b"f"))
            gateway = await stack.enter_async_context(running_gateway([embedded.address], **bounds, **BY_X))
            clients = [await stack.enter_async_context(proxy(gateway.address)) for _ in range(6)]
            for client in clients[:2]:
                client.send(post(b"/f", b"w", of(ONE)))
            handles = [(await worker.take())[0] for _ in range(2)]
            for client in clients[2:5]:
                assert refused(await client.ask(post(b"/f", b"w", of(ONE))))
            # Others are not held up, nor are those whom the proxy itself asks for.
            for address in (OTHER, b"2001:db8::1", b"unknown"):
                assert not refused(await clients[2].ask(options(of(address))))
            worker.complete(handles[0])
            assert (await clients[0].response()).status == 200
            assert not refused(await clients[2].ask(options(of(ONE))))
            worker.complete(handles[1])
            assert (await clients[1].response()).status == 200
            await eventually(lambda: gateway.count("http.addresses") == 0)
            # A stranger counts as ever.
            async with proxy(gateway.address, STRANGER) as stranger, proxy(gateway.address, STRANGER) as further:
                assert (await stranger.ask(OPTIONS)).status == 204
                assert (await further.response()).kind() == "connection-rate-exceeded"

    @pytest.mark.parametrize("together", [True, False])
    async def test_pipelined_requests_are_several_and_the_connection_goes_on(self, embedded, together):
        async with (
            hand_worker(embedded.address, b"f") as worker,
            running_gateway([embedded.address], max_connections_per_address=1, **BY_X) as gateway,
            proxy(gateway.address) as client,
        ):
            body = b"w" * 20_000
            requests = [
                post(b"/f", b"first", of(ONE)),
                post(b"/f", body, of(ONE)),
                head(b"POST", b"/f", of(ONE), b"Transfer-Encoding: chunked") + b"3\r\nabc\r\n0\r\n\r\n",
                post(b"/f", b"second", of(OTHER)),
            ]
            if together:
                client.send(*requests)
            else:
                for begins in range(0, len(b"".join(requests)), 1000):
                    client.send(b"".join(requests)[begins : begins + 1000])
                    await client.writer.drain()
            jobs = [await worker.take() for _ in range(2)]
            assert sorted(workload for _, _, _, workload in jobs) == [b"first", b"second"]
            for handle, *_ in jobs:
                worker.complete(handle)
            assert [refused(await client.response()) for _ in range(4)] == [False, True, True, False]
            assert not refused(await client.ask(options(of(ONE))))
            assert (gateway.count("http.addresses"), embedded.submitted) == (0, 2)

    async def test_who_waits_to_send_its_body_is_told_before_it_does(self, embedded):
        async with (
            hand_worker(embedded.address, b"f") as worker,
            running_gateway([embedded.address], max_connections_per_address=1, **BY_X) as gateway,
            proxy(gateway.address) as client,
            proxy(gateway.address) as waiting,
        ):
            client.send(post(b"/f", b"first", of(ONE)))
            handle, *_ = await worker.take()
            waiting.send(head(b"POST", b"/f", of(ONE), b"Expect: 100-continue", b"Content-Length: 100"))
            assert refused(await waiting.response())
            worker.complete(handle)
            assert (await client.response()).status == 200

    @pytest.mark.parametrize(
        "end",
        ["answer", "hang-up", "body cut", "body refused", "rate", "timeout", "drain", "slow reader", "no function"],
    )
    async def test_what_a_request_has_taken_comes_back_however_it_ends(self, embedded, end):
        settings: dict[str, object] = {"max_connections_per_address": 1, "max_body_bytes": 100_000}
        if end == "rate":
            settings["rate"] = RateBound(SLOW, 1)
        if end == "timeout":
            settings["job_timeout_s"] = 0.05
        async with AsyncExitStack() as stack:
            worker = await stack.enter_async_context(hand_worker(embedded.address, b"f"))
            gateway = await stack.enter_async_context(running_gateway([embedded.address], **settings, **BY_X))
            client = await stack.enter_async_context(
                HttpClient(gateway.address, source=PROXY, receive_buffer_bytes=4096)
            )
            if end in ("answer", "hang-up", "timeout", "slow reader"):
                # Its time is not over before it was seen.
                with gateway.within_a_tick():
                    client.send(post(b"/f", b"w", of(ONE)))
                    handle, *_ = await worker.take()
                    assert gateway.count("http.addresses") == 1
                if end == "hang-up":
                    await client.close()
                elif end == "timeout":
                    assert (await client.response()).status == 504
                else:
                    worker.complete(handle, b"r" * (8_000_000 if end == "slow reader" else 1))
                if end == "slow reader":
                    await gateway.reaches("budget.results_bytes", 1_000_000)
                    # Until its client has the answer it is in flight.
                    assert gateway.count("http.addresses") == 1
                if end in ("answer", "slow reader"):
                    assert (await client.response()).status == 200
            elif end == "body cut":
                client.send(post(b"/f", b"w" * 100, of(ONE))[:-1])
                await gateway.reaches("http.addresses", 1)
                await client.close()
            elif end == "body refused":
                client.send(head(b"POST", b"/f", of(ONE), b"Transfer-Encoding: chunked"), b"x\r\n")
                assert (await client.response()).status == 400
            elif end == "rate":
                client.send(options(of(ONE)), options(of(ONE)))
                assert [(await client.response()).status for _ in range(2)] == [204, 429]
            elif end == "drain":
                client.send(post(b"/f", b"w" * 100, of(ONE))[:-1])
                await gateway.reaches("http.addresses", 1)
                gateway.process.http.drain()
                gateway.process.http.refuse_unfinished()
                assert (await client.response()).status == 503
            else:
                assert (await client.ask(get(b"/", of(ONE)))).status == 404
            await eventually(lambda: gateway.count("http.addresses") == 0)

    async def test_a_bound_that_is_set_while_requests_run_and_proxies_that_are_trusted_no_more(self, embedded):
        async with (
            hand_worker(embedded.address, b"f") as worker,
            running_gateway([embedded.address], max_connections_per_address=1, **BY_X) as gateway,
            proxy(gateway.address) as client,
            proxy(gateway.address) as further,
        ):
            client.send(post(b"/f", b"w", of(ONE)))
            handle, *_ = await worker.take()
            assert refused(await further.ask(options(of(ONE))))
            await change(gateway, max_connections_per_address=2)
            assert not refused(await further.ask(options(of(ONE))))
            await change(gateway, max_connections_per_address=1)
            assert refused(await further.ask(options(of(ONE))))
            await change(gateway, trusted_proxy=(STRANGER,))
            assert not refused(await further.ask(options(of(ONE))))
            async with proxy(gateway.address) as third, proxy(gateway.address) as fourth:
                # These connections count for the address that was a proxy's.
                assert (await third.ask(OPTIONS)).status == 204
                assert (await fourth.response()).kind() == PER_ADDRESS
            worker.complete(handle)
            assert (await client.response()).status == 200


class TestWhoHoldsMost:
    async def test_unfinished_bodies_are_their_clients_and_heads_are_nobodys(self, embedded):
        async with AsyncExitStack() as stack:
            gateway = await stack.enter_async_context(running_gateway([embedded.address], **BY_X))
            clients = [await stack.enter_async_context(proxy(gateway.address)) for _ in range(6)]
            # Of the last one the proxy tells nobody: it is its own.
            for client, address in zip(clients, (ONE, OTHER, ONE, b"unknown"), strict=False):
                client.send(post(b"/f", b"w" * 100, of(address))[:-1])
            await gateway.reaches("http.arrivals", 4)
            assert gateway.count("http.senders") == 3
            for client in clients[4:]:
                client.send(options(of(b"6.6.6.6"))[:-1])
            await gateway.reaches("http.arrivals", 6)
            assert gateway.count("http.senders") == 4
            stranger = await stack.enter_async_context(proxy(gateway.address, STRANGER))
            stranger.send(options(of(ONE))[:-1])
            await gateway.reaches("http.arrivals", 7)
            assert gateway.count("http.senders") == 5


class TestTheLogOfEvents:
    async def test_names_the_client_of_a_refused_request(self, embedded):
        async with (
            hand_worker(embedded.address, b"f") as worker,
            running_gateway(
                [embedded.address], max_connections_per_address=1, max_body_bytes=100_000, **BY_X
            ) as gateway,
        ):
            async with proxy(gateway.address) as client, proxy(gateway.address) as further:
                client.send(post(b"/f", b"w", of(ONE)))
                handle, *_ = await worker.take()
                assert refused(await further.ask(get(b"/path", of(ONE))))
                worker.complete(handle)
                assert (await client.response()).status == 200
                client.send(head(b"POST", b"/f", of(OTHER), b"Transfer-Encoding: chunked"), b"x\r\n")
                assert (await client.response()).status == 400
                first = gateway.process.http.take_events()
                further.send(b"GET / HTTP/1.1\r\n%b\r\n\r\n" % of(ONE))
                assert (await further.response()).status == 400
            events = gateway.process.http.take_events()
            assert first[PER_ADDRESS] == (1, b"/path", "192.0.2.1")
            assert first["malformed-request"][2] == "192.0.2.2"
            assert events["malformed-request"][2] == PROXY
