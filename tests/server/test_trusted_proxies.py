"""Clients behind trusted proxies: who they are by what the proxies say, what counts for whom, how requests are named.

A proxy is whoever connects from PROXY; its clients are in networks that nobody has. What a gateway takes for a
request's client is read from its access log.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from gatewayx.address import Address, UnixAddress
from gatewayx.config.rate_kinds import RateBound
from gatewayx.core.access_line import in_sample
from gatewayx.gateway.tokens import ATTEMPTS
from support.batches import BatchClient, job
from support.gateway import WAIT_S, RunningGateway, eventually, running_gateway
from support.http import REQUEST_ID, HttpClient, Response, get, head, post
from support.job_servers import hand_worker
from support.nginx import running_nginx
from support.relaying import relaying, unique_line
from support.tokens import TokenFile, bearer

pytestmark = pytest.mark.anyio

PROXY = "127.0.0.2"
STRANGER = "127.0.0.3"
OPTIONS = head(b"OPTIONS", b"*")
# So slow that nothing comes back while a test runs.
SLOW = 0.01
ONE = b"192.0.2.1"
OTHER = b"192.0.2.2"
BY_X = {"trusted_proxy": (f"{PROXY}/32", "10.0.0.0/8"), "client_address": "x-forwarded-for"}
BY_FORWARDED = {**BY_X, "client_address": "forwarded"}
BY_NONE = {**BY_X, "client_address": "connection"}
PER_ADDRESS = "too-many-connections-per-address"


def options(*headers: bytes) -> bytes:
    """A request that needs no job."""
    return head(b"OPTIONS", b"*", *headers)


def of(client: bytes) -> bytes:
    """The line by which a proxy says whose request it is."""
    return b"X-Forwarded-For: " + client


class Logged:
    """A gateway and its access log."""

    def __init__(self, gateway: RunningGateway, path: Path) -> None:
        self.gateway = gateway
        self.address = gateway.address
        self.path = path

    async def lines(self, count: int) -> list[dict[str, object]]:
        """The lines, once there are so many."""
        await eventually(lambda: self.path.exists() and self.path.read_bytes().count(b"\n") >= count)
        found = [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]
        assert len(found) == count
        return found

    async def clients(self, count: int) -> list[str | None]:
        """Whose requests there were, in the order in which they were answered."""
        return [line.get("client") for line in await self.lines(count)]


@asynccontextmanager
async def logged(
    servers: Sequence[tuple[str, int]],
    path: Path,
    listen: Sequence[object] = (Address("127.0.0.1", 0),),
    **settings: object,
) -> AsyncIterator[Logged]:
    """A gateway with an access log."""
    async with running_gateway(servers, tuple(listen), access_log=str(path), **settings) as gateway:
        yield Logged(gateway, path)


def proxy(address: tuple[str, int] | str, source: str | None = PROXY) -> HttpClient:
    """A connection of the proxy."""
    return HttpClient(address, source=source, names_requests=True)


FORMS = {
    "X-Forwarded-For": (b"X-Forwarded-For: 6.6.6.6, 192.0.2.1, 10.0.0.1",),
    "X-Forwarded-For of several lines": (
        b"X-Forwarded-For: 6.6.6.6",
        b"x-forwarded-for: 192.0.2.1",
        b"X-Forwarded-For: 10.0.0.1:80",
    ),
    "Forwarded": (b'Forwarded: for=6.6.6.6, for="192.0.2.1:47011";proto=https, for=10.0.0.1',),
    "Forwarded of several lines": (b'Forwarded: for="6.6.6.6', b"FORWARDED: for=192.0.2.1"),
    "both": (b"Forwarded: for=192.0.2.1", b"X-Forwarded-For: 192.0.2.1"),
    "malformed": (b"Forwarded: for=192.0.2.1, for=unknown", b"X-Forwarded-For: 192.0.2.1, unknown"),
    "others": (b"X-Real-IP: 192.0.2.1", b"Via: 192.0.2.1", b"X-Forwarded-Host: 192.0.2.1", b"Client-IP: 192.0.2.1"),
}
READ = {
    "x-forwarded-for": {"X-Forwarded-For", "X-Forwarded-For of several lines", "both"},
    "forwarded": {"Forwarded", "Forwarded of several lines", "both"},
    "connection": set(),
}


class TestWhoTheClientIs:
    @pytest.mark.parametrize("source", READ)
    async def test_only_a_trusted_proxy_is_believed_and_only_the_header_that_is_set(self, embedded, tmp_path, source):
        settings = {**BY_X, "client_address": source}
        expected = []
        async with logged([embedded.address], tmp_path / "log", **settings) as gateway:
            for host in (PROXY, STRANGER):
                async with proxy(gateway.address, host) as client:
                    for name, lines in FORMS.items():
                        assert (await client.ask(options(*lines))).status == 204
                        expected.append("192.0.2.1" if host == PROXY and name in READ[source] else host)
            assert await gateway.clients(len(expected)) == expected

    async def test_a_unix_socket_is_trusted_only_where_it_is_named(self, embedded, tmp_path):
        one, other = str(tmp_path / "one"), str(tmp_path / "other")
        listen = (UnixAddress(one), UnixAddress(other), Address("127.0.0.1", 0))
        trusted = {
            ("unix:",): ("192.0.2.1", "192.0.2.1"),
            (f"unix:{one}",): ("192.0.2.1", None),
            (f"unix:{other}", "127.0.0.1"): (None, "192.0.2.1"),
            ("127.0.0.1",): (None, None),
        }
        async with logged([embedded.address], tmp_path / "log", listen, **BY_X) as gateway:
            expected: list[str | None] = []
            async with AsyncExitStack() as stack:
                # What changes holds for connections that are there as well.
                clients = [await stack.enter_async_context(proxy(path, None)) for path in (one, other)]
                for networks, found in trusted.items():
                    await change(gateway.gateway, trusted_proxy=networks)
                    for client in clients:
                        assert (await client.ask(options(of(ONE)))).status == 204
                    expected += found
                    assert await gateway.clients(len(expected)) == expected

    async def test_changes_hold_for_the_next_request_of_a_connection(self, embedded, tmp_path):
        lines = (of(ONE), b"Forwarded: for=192.0.2.2", b"X-Request-Id: mine")
        changes = [
            ({}, PROXY, False),
            (BY_X, "192.0.2.1", True),
            (BY_FORWARDED, "192.0.2.2", True),
            (BY_NONE, PROXY, True),
            ({**BY_X, "trusted_proxy": (STRANGER,)}, PROXY, False),
            (BY_X, "192.0.2.1", True),
            ({"trusted_proxy": (), "client_address": "connection"}, PROXY, False),
        ]
        async with logged([embedded.address], tmp_path / "log") as gateway, proxy(gateway.address) as client:
            for settings, _, is_named in changes:
                await change(gateway.gateway, **settings)
                answer = await client.ask(options(*lines))
                assert (answer.headers[b"x-request-id"] == b"mine") == is_named
            assert await gateway.clients(len(changes)) == [found for _, found, _ in changes]

    async def test_each_request_of_a_connection_has_its_own_however_they_come(self, embedded, tmp_path):
        addresses = [b"192.0.2.%d" % number for number in range(10)]
        requests = b"".join(options(of(address)) if number % 3 else OPTIONS for number, address in enumerate(addresses))
        expected = [address.decode() if number % 3 else PROXY for number, address in enumerate(addresses)]
        async with logged([embedded.address], tmp_path / "log", **BY_X) as gateway:
            async with proxy(gateway.address) as client:
                client.send(requests)
                for _ in addresses:
                    assert (await client.response()).status == 204
            async with proxy(gateway.address) as client:
                for begins in range(0, len(requests), 7):
                    client.send(requests[begins : begins + 7])
                    await client.writer.drain()
                for _ in addresses:
                    assert (await client.response()).status == 204
            assert await gateway.clients(2 * len(expected)) == expected * 2

    async def test_a_head_that_the_long_way_reads_tells_the_same(self, embedded, tmp_path):
        # A tab in a value is none of a plain head, nor are more lines than a plain one keeps.
        heads = [options(b"X-Forwarded-For:\t6.6.6.6 ,\t192.0.2.1"), options(*[of(b"6.6.6.6")] * 50, of(ONE))]
        async with logged([embedded.address], tmp_path / "log", **BY_X) as gateway, proxy(gateway.address) as client:
            for request in heads:
                assert (await client.ask(request)).status == 204
            assert await gateway.clients(2) == ["192.0.2.1"] * 2

    async def test_a_head_that_is_no_request_is_told_of_by_its_connection(self, embedded, tmp_path):
        async with logged([embedded.address], tmp_path / "log", **BY_X) as gateway:
            for refused in (
                b"GET / HTTP/1.1\r\n%b\r\nA b\r\n\r\n" % of(ONE),
                b"GET / HTTP/1.1\r\n%b\r\n\r\n" % of(ONE),
            ):
                async with proxy(gateway.address) as client:
                    assert (await client.ask(refused)).status == 400
            assert await gateway.clients(2) == [PROXY] * 2


async def change(gateway: RunningGateway, **settings: object) -> None:
    """Have the gateway take these settings."""
    await gateway.process.reconfigure(msgspec.structs.replace(gateway.process.settings, **settings))


class TestRates:
    async def test_requests_count_for_their_client_whoever_passes_them_on(self, embedded):
        async with (
            running_gateway([embedded.address], rate=RateBound(SLOW, 1), **BY_X) as gateway,
            proxy(gateway.address) as client,
        ):
            client.send(*(options(of(address)) for address in (ONE, OTHER, ONE, b"6.6.6.6, " + OTHER)))
            answers = [await client.response() for _ in range(4)]
            assert [answer.status for answer in answers] == [204, 204, 429, 429]
            assert (await client.ask(OPTIONS)).status == 204
            assert (await client.ask(OPTIONS)).status == 429
            async with proxy(gateway.address) as further:
                assert (await further.ask(options(of(ONE)))).status == 429
                # A /64 is one client (RFC 4291).
                assert (await further.ask(options(of(b"2001:db8::1")))).status == 204
                assert (await further.ask(options(of(b"[2001:db8::2]:80")))).status == 429
                assert (await further.ask(options(of(b"2001:db8:0:1::1")))).status == 204
                assert (await further.ask(options(of(b"::ffff:192.0.2.1")))).status == 429

    async def test_a_stranger_counts_for_itself_whatever_it_sends(self, embedded):
        async with running_gateway([embedded.address], rate=RateBound(SLOW, 1), **BY_X) as gateway:
            async with proxy(gateway.address, STRANGER) as client:
                assert (await client.ask(options(of(ONE)))).status == 204
                for address in (ONE, OTHER):
                    assert (await client.ask(options(of(address)))).status == 429
            async with proxy(gateway.address) as client:
                assert (await client.ask(options(of(ONE)))).status == 204
                assert (await client.ask(options(of(STRANGER.encode())))).status == 429

    async def test_unknown_tokens_count_for_whose_they_are(self, embedded, tmp_path):
        file = TokenFile(tmp_path / "tokens")
        file.write(file.table("known"))
        async with (
            running_gateway([embedded.address], tokens=str(file.path), **BY_X) as gateway,
            proxy(gateway.address) as client,
        ):
            client.send(*(options(of(ONE), bearer("unknown")) for _ in range(ATTEMPTS + 1)))
            answers = [await client.response() for _ in range(ATTEMPTS + 1)]
            assert [answer.status for answer in answers] == [401] * ATTEMPTS + [429]
            assert (await client.ask(options(of(OTHER), bearer("unknown")))).status == 401
            assert (await client.ask(options(of(ONE), file.line("known")))).status == 204

    async def test_lines_of_a_batch_count_for_its_client(self, embedded):
        async with running_gateway([embedded.address], rate=RateBound(SLOW, 3), **BY_X) as gateway:
            async with BatchClient(gateway.address, source=PROXY) as client:
                lines = await client.run(*[job("f", "w", background=True)] * 4, headers=(of(ONE),))
                assert [lines[number].status for number in (1, 2, 3, 4)] == [200, 200, 200, 429]
            async with proxy(gateway.address) as client:
                assert (await client.ask(options(of(ONE)))).status == 429
                assert (await client.ask(options(of(OTHER)))).status == 204
                assert (await client.ask(OPTIONS)).status == 204


def refused(answer: Response) -> bool:
    """Whether it was refused since too much of its client is in flight."""
    assert answer.status in (200, 204, 429), answer
    if answer.status == 429:
        assert answer.kind() == PER_ADDRESS
        assert "in flight" in answer.problem()["detail"]
        assert 1 <= int(answer.headers[b"retry-after"]) <= 3
    return answer.status == 429


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


class TestNames:
    NAMED = (b"a", b"4bf92f3577b34da6a3ce929d0e0e4736", b"Az09._~:/+=@-", b"n" * 128)
    UNNAMED = (b"", b"n" * 129, b"a b", b'a"b', b"a,b", b"a%0d", b"\xff")

    @pytest.mark.parametrize("source", [BY_X, BY_FORWARDED, BY_NONE], ids=["x", "forwarded", "connection"])
    async def test_a_proxys_are_taken_and_nobody_elses(self, embedded, tmp_path, source):
        async with logged([embedded.address], tmp_path / "log", server_timing=True, **source) as gateway:
            expected = []
            for host in (PROXY, STRANGER):
                async with proxy(gateway.address, host) as client:
                    for name in (*self.NAMED, *self.UNNAMED):
                        answer = await client.ask(get(b"/", b"x-request-ID: " + name))
                        told = answer.headers[b"x-request-id"]
                        # The instance is what the answer is called (support.http).
                        assert answer.problem()["status"] == 404
                        taken = host == PROXY and name in self.NAMED
                        assert (told == name) == taken
                        assert taken or REQUEST_ID.fullmatch(told)
                        expected.append((told.decode(), None if taken else name))
            lines = await gateway.lines(len(expected))
        for line, (told, name) in zip(lines, expected, strict=True):
            assert line["id"] == told
            assert ("client_id" in line) == (name is not None)
            assert "cut" not in line or len(name or b"") > 100

    async def test_several_lines_name_nothing(self, embedded):
        async with running_gateway([embedded.address], **BY_NONE) as gateway, proxy(gateway.address) as client:
            answer = await client.ask(options(b"X-Request-Id: a", b"X-Request-Id: a"))
            assert REQUEST_ID.fullmatch(answer.headers[b"x-request-id"])

    async def test_they_are_whichever_request_has_them_however_they_come(self, embedded):
        names = [b"name-%d" % number for number in range(10)]
        requests = b"".join(get(b"/", b"X-Request-Id: " + name, of(ONE)) + OPTIONS for name in names)
        async with running_gateway([embedded.address], **BY_X) as gateway:
            for piece_bytes in (len(requests), 11):
                async with proxy(gateway.address) as client:
                    for begins in range(0, len(requests), piece_bytes):
                        client.send(requests[begins : begins + piece_bytes])
                        await client.writer.drain()
                    for name in names:
                        answer = await client.response()
                        assert (answer.headers[b"x-request-id"], answer.kind()) == (name, "no-function")
                        assert REQUEST_ID.fullmatch((await client.response()).headers[b"x-request-id"])

    async def test_a_job_with_a_key_is_answered_by_the_name_of_its_request(self, embedded):
        async with (
            running_gateway([embedded.address], job_timeout_s=0.05, cancel_abandoned=False, **BY_NONE) as gateway,
            proxy(gateway.address) as client,
        ):
            key = b"Idempotency-Key: 8e03978e-40d5-43dd-bc93-6894a57f9324"
            answer = await client.ask(post(b"/f", b"w", key, b"X-Request-Id: of-a-key"))
            assert (answer.kind(), answer.headers[b"x-request-id"]) == ("job-timeout", b"of-a-key")

    async def test_a_sample_is_of_names(self, embedded, tmp_path):
        names = [f"name-{number}" for number in range(200)]
        async with logged([embedded.address], tmp_path / "log", access_log_sample=0.5, **BY_NONE) as gateway:
            sampled = [name for name in names if in_sample(name.encode(), 0.5)]
            async with proxy(gateway.address) as client:
                client.send(*(options(b"X-Request-Id: " + name.encode()) for name in names))
                for _ in names:
                    assert (await client.response()).status == 204
            assert [line["id"] for line in await gateway.lines(len(sampled))] == sampled
        assert 0 < len(sampled) < 200


class TestSeveralProcesses:
    async def test_a_relayed_request_is_its_clients_and_has_the_name_that_its_proxy_has_given_it(
        self, embedded, tmp_path
    ):
        path = tmp_path / "log"
        arguments = ("--trusted-proxy", "127.0.0.1", "--client-address", "x-forwarded-for", "--access-log", str(path))
        told = {}
        relayed = 0
        async with (
            relaying([embedded.address], *arguments, "--job-timeout", "0.2") as gateway,
            AsyncExitStack() as stack,
        ):
            clients = await gateway.clients(stack)
            for number in range(8):
                for client in clients:
                    client.names_requests = True
                    name = b"%d-%d" % (number, clients.index(client)) + b"x" * (124 if number % 2 else 0)
                    address = b"2001:db8::%d" % number if number % 3 else b"192.0.2.%d" % number
                    was_relayed, answer = await gateway.asked(
                        client, post(b"/f", b"w", unique_line(b"u-%d" % number), b"X-Request-Id: " + name, of(address))
                    )
                    relayed += was_relayed
                    # The owner writes the problem, and whoever has its client the header.
                    assert (answer.status, answer.kind(), answer.headers[b"x-request-id"]) == (504, "job-timeout", name)
                    told[name.decode()] = address.decode()
            await eventually(lambda: path.read_bytes().count(b"\n") >= len(told))
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        assert {line["id"]: line["client"] for line in lines} == told
        assert 0 < relayed < len(told)

    async def test_requests_in_flight_are_counted_in_all_of_them_and_none_is_left_of_one_that_is_killed(self, embedded):
        arguments = (
            "--trusted-proxy",
            "127.0.0.1",
            "--client-address",
            "forwarded",
            "--max-connections-per-address",
            "2",
        )
        request = post(b"/f", b"w", b"Forwarded: for=192.0.2.1")
        other = options(b"Forwarded: for=192.0.2.2")
        async with (
            hand_worker(embedded.address, b"f") as worker,
            relaying([embedded.address], *arguments) as gateway,
            AsyncExitStack() as stack,
        ):
            clients = await gateway.clients(stack)
            for client in clients:
                client.send(request)
            handles = [(await worker.take())[0] for _ in clients]
            further = [await stack.enter_async_context(HttpClient(gateway.address)) for _ in range(4)]
            for client in further:
                assert refused(await client.ask(request))
                assert not refused(await client.ask(other))
            os.kill(gateway.first_workers[0], signal.SIGKILL)
            await gateway.served.until("ended by SIGKILL")
            async with HttpClient(gateway.address) as client:
                # One of the two is in flight.
                client.send(request)
                handle, *_ = await worker.take()
                async with HttpClient(gateway.address) as last:
                    assert refused(await last.ask(request))
                for each in (*handles, handle):
                    worker.complete(each)
                assert (await client.response()).status == 200
            await eventually(lambda: gateway.memory.shared.addresses.keys() == 0)


class TestNginxInFront:
    async def test_its_clients_are_told_apart_and_its_names_are_taken(self, session_gearmand, function, tmp_path):
        lines = (
            "http://gatewayx; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; "
            "proxy_set_header X-Request-Id $request_id"
        )
        settings = {"trusted_proxy": ("127.0.0.1",), "client_address": "x-forwarded-for"}
        async with (
            hand_worker(session_gearmand.address, function) as worker,
            logged([session_gearmand.address], tmp_path / "log", rate=RateBound(SLOW, 2), **settings) as gateway,
        ):
            with running_nginx(tmp_path, gateway.address, lines) as port:
                names = set()
                for source in (PROXY, STRANGER):
                    async with HttpClient(
                        ("127.0.0.1", port), source=source, names_requests=True, is_documented=False
                    ) as client:
                        client.send(post(b"/" + function, b"w", of(b"6.6.6.6"), b"X-Request-Id: forged"))
                        handle, *_ = await worker.take()
                        worker.complete(handle, b"result")
                        answer = await nginx_answer(client)
                        assert (answer[0], answer[1]) == (200, b"result")
                        names.add(answer[2])
                        client.send(get(b"/", of(b"127.0.0.1, 6.6.6.6, 127.0.0.1")))
                        assert (await nginx_answer(client))[0] == 404
                        # However it forges, it is who it is.
                        client.send(get(b"/", of(b"6.6.6.7")))
                        assert (await nginx_answer(client))[0] == 429
                assert await gateway.clients(6) == [PROXY] * 3 + [STRANGER] * 3
                assert {line["id"].encode() for line in await gateway.lines(6)} >= names
                assert all(re.fullmatch(rb"[0-9a-f]{32}", name) for name in names)


async def nginx_answer(client: HttpClient) -> tuple[int, bytes, bytes]:
    """The status, body and name of an answer that nginx has passed on."""
    raw = await asyncio.wait_for(client.reader.readuntil(b"\r\n\r\n"), WAIT_S)
    headers = dict(line.lower().split(b": ", 1) for line in raw.split(b"\r\n")[1:-2])
    body = await asyncio.wait_for(client.reader.readexactly(int(headers[b"content-length"])), WAIT_S)
    return int(raw.split()[1]), body, headers[b"x-request-id"]
