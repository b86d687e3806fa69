"""Clients behind trusted proxies: who they are by what the proxies say, and what counts for whom.

A proxy is whoever connects from PROXY; its clients are in networks that nobody has. What a gateway takes for a
request's client is read from its access log.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from contextlib import AsyncExitStack

import pytest

from gatewayx.address import Address, ListenAddress, UnixAddress
from gatewayx.config.rate_kinds import RateBound
from gatewayx.gateway.tokens import ATTEMPTS
from support.batches import BatchClient, job
from support.gateway import eventually, running_gateway
from support.http import HttpClient, get, post
from support.job_servers import hand_worker
from support.nginx import running_nginx
from support.proxied import LOCAL, binary, packed
from support.proxied import line as proxy_line
from support.relaying import relaying, unique_line
from support.times import WAIT_S
from support.tokens import TokenFile, bearer
from support.trusted import (
    BY_FORWARDED,
    BY_NONE,
    BY_X,
    ONE,
    OPTIONS,
    OTHER,
    PER_ADDRESS,
    PROXY,
    SLOW,
    STRANGER,
    change,
    logged,
    of,
    options,
    proxy,
    refused,
)

pytestmark = pytest.mark.anyio

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


class TestBehindAProxyHeader:
    async def test_the_address_that_it_tells_is_the_one_that_is_trusted_or_not(self, embedded, tmp_path):
        settings = {
            "trusted_proxy": ("127.0.0.1", "10.0.0.0/8", "2001:db8:1::/48"),
            "client_address": "x-forwarded-for",
        }
        found = {
            proxy_line("10.0.0.7"): "192.0.2.1",
            packed("2001:db8:1::7"): "192.0.2.1",
            proxy_line("192.0.2.9"): "192.0.2.9",
            packed("2001:db8:2::9"): "2001:db8:2::9",
            # A connection of the proxy's own is its word; one of somebody whom it does not name is nobody's.
            binary(LOCAL, 0): "192.0.2.1",
            b"PROXY UNKNOWN\r\n": "127.0.0.1",
            binary(0x21, 0): "127.0.0.1",
        }
        listen = (ListenAddress("127.0.0.1", 0, proxy=True),)
        async with logged([embedded.address], tmp_path / "log", listen, **settings) as gateway:
            for header, client in found.items():
                async with proxy(gateway.address, None, header) as connection:
                    answer = await connection.ask(options(of(b"6.6.6.6, " + ONE), b"X-Request-Id: mine"))
                    assert (answer.headers[b"x-request-id"] == b"mine") == (client == "192.0.2.1")
            assert await gateway.clients(len(found)) == list(found.values())

    async def test_requests_and_connections_count_as_without_one(self, embedded):
        settings = {"trusted_proxy": ("127.0.0.1", "10.0.0.0/8"), "client_address": "forwarded"}
        listen = (ListenAddress("127.0.0.1", 0, proxy=True),)
        async with AsyncExitStack() as stack:
            worker = await stack.enter_async_context(hand_worker(embedded.address, b"f"))
            gateway = await stack.enter_async_context(
                running_gateway([embedded.address], listen, max_connections_per_address=1, **settings)
            )
            clients = [
                await stack.enter_async_context(proxy(gateway.address, None, proxy_line(host)))
                for host in ("10.0.0.7", "10.0.0.7", "10.0.0.7")
            ]
            clients[0].send(post(b"/f", b"w", b"Forwarded: for=192.0.2.1"))
            handle, *_ = await worker.take()
            assert refused(await clients[1].ask(options(b"Forwarded: for=192.0.2.1")))
            assert not refused(await clients[2].ask(options(b"Forwarded: for=192.0.2.2")))
            own = await stack.enter_async_context(proxy(gateway.address, None, proxy_line("192.0.2.2")))
            assert not refused(await own.ask(options(b"Forwarded: for=192.0.2.1")))
            # An address has so many connections of its own and requests that proxies pass on together.
            async with proxy(gateway.address, None, proxy_line("192.0.2.2")) as further:
                assert (await further.response()).kind() == PER_ADDRESS
            assert refused(await clients[2].ask(options(b"Forwarded: for=192.0.2.2")))
            worker.complete(handle)
            assert (await clients[0].response()).status == 200


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
