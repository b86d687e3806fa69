"""Clients whose connections come through proxies, and begin with a PROXY header."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from gatewayx.address import Address, ListenAddress
from gatewayx.config.rate_kinds import RateBound
from gatewayx.config.settings import Settings
from gatewayx.net.open_files import raise_open_files
from gatewayx.net.proxied import LAST_CALL_S, MOST_WAITING
from gatewayx.server.open_files import open_files_for
from support.gateway import RunningGateway, eventually
from support.http import HttpClient, get, head, post
from support.job_servers import hand_worker
from support.proxied import LOCAL, PROXY, binary, line, line_of, packed, proxied_gateway, summed, value
from support.times import SOON_S, WAIT_S
from support.tls import authority
from support.tls_client import open_tls

pytestmark = pytest.mark.anyio

OPTIONS = head(b"OPTIONS", b"*")
HOST = "192.0.2.1"
HEADERS = {
    "line": (line(HOST), HOST),
    "line of IPv6": (line("2001:db8::1"), "2001:db8::1"),
    "line of nobody": (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
    "binary": (packed(HOST), HOST),
    "binary of IPv6": (packed("2001:db8::1"), "2001:db8::1"),
    "binary with values": (packed(HOST, 4660, value(1, b"http/1.1"), value(5, b"an id"), value(4, b"")), HOST),
    "binary with a checksum": (summed(HOST, 4660, value(2, b"gateway.example")), HOST),
    "the longest": (packed(HOST, 4660, value(0x20, b"\r\n" * 2000), value(4, bytes(62))), HOST),
    "IPv4 as IPv6": (packed(f"::ffff:{HOST}"), HOST),
    "local": (binary(LOCAL, 0), "127.0.0.1"),
    "local with values": (binary(LOCAL, 0x11, packed(HOST)[16:] + value(4, b"rest")), "127.0.0.1"),
    "local of no known family": (binary(LOCAL, 0xFF, b"\r\n" * 100), "127.0.0.1"),
    "of a unix socket": (binary(PROXY, 0x31, b"/run/a" + bytes(210)), "127.0.0.1"),
    "of no family": (binary(PROXY, 0, value(4, b"rest")), "127.0.0.1"),
}
every_header = pytest.mark.parametrize(("header", "host"), HEADERS.values(), ids=HEADERS)
both_ways = pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])


@asynccontextmanager
async def logged_gateway(
    server: tuple[str, int], folder: Path, **settings: object
) -> AsyncIterator[tuple[RunningGateway, Path]]:
    """A gateway for proxies, and its access log."""
    path = folder / "access.log"
    async with proxied_gateway(server, access_log=str(path), **settings) as gateway:
        yield gateway, path


def counted(gateway: RunningGateway, name: str) -> int:
    """A count of this process."""
    return gateway.process.counted_in.read()[name]


def waiting(gateway: RunningGateway) -> int:
    """How many headers are not whole."""
    return gateway.count("proxied.waiting")


async def in_a_turn_of_its_own(gateway: RunningGateway, client: HttpClient, data: bytes) -> None:
    """Send bytes, and return once the gateway's sockets have had a turn."""
    turns = gateway.process.poller.number
    client.writer.write(data)
    await eventually(lambda: gateway.process.poller.number != turns)


async def silent_end(client: HttpClient) -> None:
    """Return once the gateway has closed the connection; fails if it has said anything."""
    with contextlib.suppress(ConnectionResetError):
        assert await client.rest() == b""


class TestHeaders:
    @every_header
    async def test_the_client_is_whom_the_header_tells(self, embedded, tmp_path, header, host):
        async with logged_gateway(embedded.address, tmp_path) as (gateway, log):
            async with HttpClient(gateway.address, begins=header) as client:
                for number in range(3):
                    assert (await client.ask(OPTIONS)).status == 204
                    assert (await line_of(log, number))["client"] == host
            assert counted(gateway, "proxy_headers_refused") == counted(gateway, "proxies_untrusted") == 0

    @every_header
    async def test_the_request_may_be_in_the_same_write(self, embedded, tmp_path, header, host):
        async with logged_gateway(embedded.address, tmp_path) as (gateway, log):
            async with HttpClient(gateway.address) as client:
                client.writer.write(header)
                client.send(OPTIONS * 2)
                assert [(await client.response()).status for _ in range(2)] == [204, 204]
            assert (await line_of(log, 1))["client"] == host

    @every_header
    async def test_it_may_be_cut_anywhere(self, embedded, header, host):
        async with proxied_gateway(embedded.address) as gateway:
            cuts = [*range(1, min(len(header), 240)), *range(240, len(header), 509), len(header)]
            for cut in cuts:
                async with HttpClient(gateway.address) as client:
                    await in_a_turn_of_its_own(gateway, client, header[:cut])
                    assert waiting(gateway) == (cut < len(header))
                    client.writer.write(header[cut:])
                    client.send(OPTIONS)
                    assert (await client.response()).status == 204
            assert counted(gateway, "connections_accepted") == len(cuts)

    @both_ways
    async def test_it_may_come_byte_by_byte(self, embedded, tls):
        async with proxied_gateway(embedded.address, tls=tls) as gateway, HttpClient(gateway.address) as client:
            for byte in summed(HOST):
                await in_a_turn_of_its_own(gateway, client, bytes([byte]))
            if not tls:
                assert (await client.ask(OPTIONS)).status == 204
            else:
                # Plain HTTP where TLS is due is answered so, behind a header too.
                client.writer.write(OPTIONS)
                assert b"urn:gatewayx:plain-http" in await client.rest()

    async def test_nothing_is_read_behind_a_head_that_is_none(self, embedded):
        async with (
            proxied_gateway(embedded.address) as gateway,
            HttpClient(gateway.address, begins=line(HOST)) as client,
        ):
            client.send(b"NONSENSE\r\n\r\n", OPTIONS)
            assert (await client.response()).status == 400
            assert await client.rest() == b""

    async def test_a_second_header_is_no_request(self, embedded):
        async with (
            proxied_gateway(embedded.address) as gateway,
            HttpClient(gateway.address, begins=line(HOST), is_documented=False) as client,
        ):
            client.writer.write(line("192.0.2.2") + OPTIONS)
            assert (await client.response()).status == 400
            assert await client.rest() == b""

    async def test_a_health_check_leaves_no_trace(self, embedded):
        async with proxied_gateway(embedded.address) as gateway:
            for begins in (
                b"",
                binary(LOCAL, 0),
                binary(LOCAL, 0, value(4, b"")),
                b"PROXY UNKNOWN\r\n",
                line(HOST)[:9],
            ):
                async with HttpClient(gateway.address, begins=begins) as client:
                    client.send_eof()
                    await silent_end(client)
            assert counted(gateway, "proxy_headers_refused") == 0
            assert counted(gateway, "requests_refused") == 0
            assert gateway.process.proxies.take_events() == {}


class TestTls:
    @every_header
    async def test_it_stands_before_the_handshake(self, embedded, tmp_path, header, host):
        async with logged_gateway(embedded.address, tmp_path, tls=True) as (gateway, log):
            async with HttpClient(gateway.address, begins=header, context=authority().context()) as client:
                assert (await client.ask(OPTIONS)).status == 204
            assert (await line_of(log))["client"] == host

    @pytest.mark.parametrize("cut", [0, 1, 20, None])
    async def test_the_hello_may_be_in_the_same_write(self, embedded, cut):
        loop = asyncio.get_running_loop()
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        session = authority().context().wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
        async with proxied_gateway(embedded.address, tls=True) as gateway:
            with socket.create_connection(gateway.address) as connected:
                connected.setblocking(False)
                with contextlib.suppress(ssl.SSLWantReadError):
                    session.do_handshake()
                await loop.sock_sendall(connected, packed(HOST) + outgoing.read()[:cut])
                if cut is None:
                    while True:
                        incoming.write(await asyncio.wait_for(loop.sock_recv(connected, 65536), WAIT_S))
                        try:
                            session.do_handshake()
                        except ssl.SSLWantReadError:
                            continue
                        break
                    session.write(OPTIONS)
                    await loop.sock_sendall(connected, outgoing.read())
                    answer = b""
                    while not answer:
                        incoming.write(await asyncio.wait_for(loop.sock_recv(connected, 65536), WAIT_S))
                        with contextlib.suppress(ssl.SSLWantReadError):
                            answer = session.read(65536)
                    assert answer.startswith(b"HTTP/1.1 204 ")
                else:
                    await gateway.reaches("http.connections", 1)

    async def test_tls_without_a_header_is_none(self, embedded):
        async with proxied_gateway(embedded.address, tls=True) as gateway:
            with pytest.raises(ConnectionResetError):
                await HttpClient(gateway.address, context=authority().context()).connect()
            assert counted(gateway, "proxy_headers_refused") == 1


REFUSED = {
    "a request": OPTIONS,
    "a request that begins likewise": post(b"/f", b"body"),
    "TLS": b"\x16\x03\x01\x02\x00\x01",
    "a lone LF": line(HOST).replace(b"\r", b""),
    "a line without end": b"PROXY TCP4 " + b"1" * 100,
    "a line that is too long": b"PROXY UNKNOWN " + b"x" * 100 + b"\r\n",
    "another family's address": line(HOST).replace(b"TCP4", b"TCP6"),
    "an address that is none": b"PROXY TCP4 192.0.2.01 198.51.100.2 1 2\r\n",
    "a port that is none": b"PROXY TCP4 192.0.2.1 198.51.100.2 65536 2\r\n",
    "version 1 in version 2": binary(0x11, 0x11, packed(HOST)[16:]),
    "version 3": binary(0x31, 0x11, packed(HOST)[16:]),
    "no known command": binary(0x22, 0x11, packed(HOST)[16:]),
    "no known family": binary(PROXY, 0x41, packed(HOST)[16:]),
    "no known transport": binary(PROXY, 0x13, packed(HOST)[16:]),
    "too short for its addresses": binary(PROXY, 0x21, packed(HOST)[16:]),
    "too long": binary(PROXY, 0x11, b"", 65535),
    "a value that is cut": packed(HOST, 1, b"\4\xff\xff"),
    "a wrong checksum": summed(HOST)[:-1] + b"\0",
}


class TestWhatIsNoHeader:
    @pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
    async def test_it_is_closed_without_an_answer_and_told_of(self, embedded, data):
        async with proxied_gateway(embedded.address) as gateway:
            for size in (len(data), 1):
                async with HttpClient(gateway.address) as client:
                    for begins in range(0, len(data), size):
                        if client.reader.at_eof() or client.writer.is_closing():
                            break
                        await in_a_turn_of_its_own(gateway, client, data[begins : begins + size])
                    await silent_end(client)
            assert counted(gateway, "proxy_headers_refused") == 2
            [(count, example, peer)] = gateway.process.proxies.take_events().values()
            assert (count, peer) == (2, "127.0.0.1")
            assert example == data[: len(example)] != b""
            assert counted(gateway, "connections_accepted") == 0

    async def test_the_log_tells_of_each_kind_once(self, embedded, caplog):
        async with proxied_gateway(embedded.address) as gateway:
            for data in (b"GET\x1b[31m", b"PUT\r\n", binary(0x55, 1), binary(0x56, 1), binary(0x57, 1)):
                async with HttpClient(gateway.address, begins=data) as client:
                    await silent_end(client)
            with caplog.at_level(logging.WARNING):
                gateway.process.log_refusals()
                gateway.process.log_refusals()
            told = [record.getMessage() for record in caplog.records]
            assert len(told) == 2
            assert told[0].startswith("refused 2 times: the connection does not begin with a PROXY header")
            assert told[0].endswith("for example 127.0.0.1 after 'G'")
            assert told[1].startswith("refused 3 times: a PROXY header of a version or command that is not known")

    async def test_it_has_its_time(self, embedded):
        began = line(HOST)
        async with proxied_gateway(embedded.address, first_byte_timeout_s=0.3) as gateway:
            clients = []
            with gateway.within_a_tick():
                for size in (0, 1, len(began) - 1):
                    clients.append(await HttpClient(gateway.address, begins=began[:size]).connect())
                await eventually(lambda: waiting(gateway) == len(clients))
            loop = asyncio.get_running_loop()
            begins_s = loop.time()
            for client in clients:
                await silent_end(client)
                await client.close()
            assert loop.time() - begins_s < SOON_S
            # Behind its header a client has the same time once more for its first byte.
            async with HttpClient(gateway.address, begins=began) as client:
                assert await client.rest() == b""
            assert counted(gateway, "proxy_headers_refused") == 3
            assert counted(gateway, "connections_accepted") == 1

    async def test_bytes_do_not_give_it_more_time(self, embedded):
        async with proxied_gateway(embedded.address, first_byte_timeout_s=0.5) as gateway:
            async with HttpClient(gateway.address) as client:
                with contextlib.suppress(ConnectionError):
                    for byte in binary(LOCAL, 0, bytes(536)):
                        client.writer.write(bytes([byte]))
                        await client.writer.drain()
                        await asyncio.sleep(0.02)
                        if client.reader.at_eof():
                            break
                assert waiting(gateway) == 0
                await silent_end(client)
            assert counted(gateway, "connections_accepted") == 0

    async def test_the_oldest_makes_room(self, embedded):
        assert raise_open_files(2 * MOST_WAITING + 200) >= 2 * MOST_WAITING + 200
        loop = asyncio.get_running_loop()
        async with proxied_gateway(embedded.address) as gateway:
            with contextlib.ExitStack() as stack:
                sockets = []
                for number in range(MOST_WAITING + 2):
                    connected = stack.enter_context(socket.create_connection(gateway.address))
                    connected.setblocking(False)
                    sockets.append(connected)
                    await eventually(lambda number=number: waiting(gateway) == min(number + 1, MOST_WAITING))
                for connected in sockets[:2]:
                    assert await asyncio.wait_for(loop.sock_recv(connected, 1), WAIT_S) == b""
                assert counted(gateway, "connections_evicted") == 2
                for connected in (sockets[2], sockets[-1]):
                    await loop.sock_sendall(connected, line(HOST) + OPTIONS)
                    answer = await asyncio.wait_for(loop.sock_recv(connected, 1000), WAIT_S)
                    assert answer.startswith(b"HTTP/1.1 204 ")
                assert waiting(gateway) == MOST_WAITING - 2

    def test_files_may_be_open_for_all_that_wait(self):
        settings = Settings(listen=(ListenAddress("127.0.0.1", 0, proxy=True),), trusted_proxy=("127.0.0.1",))
        plain = msgspec.structs.replace(settings, listen=(Address("127.0.0.1", 0),))
        assert open_files_for(settings, 1) - open_files_for(plain, 1) == MOST_WAITING


class TestTrust:
    async def test_nobody_else_is_listened_to(self, embedded, caplog):
        async with proxied_gateway(embedded.address, trusted=("127.0.0.1/32", "::1/128", "unix:")) as gateway:
            for source in ("127.0.0.2", "127.0.0.3"):
                async with HttpClient(gateway.address, source=source) as client:
                    with contextlib.suppress(ConnectionError):
                        client.writer.write(line(HOST) + OPTIONS)
                    await silent_end(client)
            async with HttpClient(gateway.address, source="127.0.0.1", begins=line(HOST)) as client:
                assert (await client.ask(OPTIONS)).status == 204
            assert counted(gateway, "proxies_untrusted") == 2
            assert counted(gateway, "connections_accepted") == 1
            with caplog.at_level(logging.WARNING):
                gateway.process.log_refusals()
            [told] = [record.getMessage() for record in caplog.records]
            assert told.startswith(
                "refused 2 times: a connection of none of the trusted proxies; for example 127.0.0.2 "
            )

    async def test_trust_and_time_may_change(self, embedded):
        async with (
            proxied_gateway(embedded.address) as gateway,
            HttpClient(gateway.address, begins=line(HOST)) as kept,
            HttpClient(gateway.address) as waits,
        ):
            assert (await kept.ask(OPTIONS)).status == 204
            await eventually(lambda: waiting(gateway) == 1)
            settings = msgspec.structs.replace(
                gateway.process.settings, trusted_proxy=("127.0.0.2/32",), first_byte_timeout_s=0.2
            )
            await gateway.process.reconfigure(settings)
            async with HttpClient(gateway.address) as client:
                await silent_end(client)
            async with HttpClient(gateway.address, source="127.0.0.2") as client:
                await silent_end(client)
            assert counted(gateway, "proxies_untrusted") == 1
            # Who is there was let in.
            with gateway.within_a_tick():
                waits.writer.write(line(HOST))
                for client in (waits, kept):
                    assert (await client.ask(OPTIONS)).status == 204
                async with HttpClient(gateway.address, source="127.0.0.2", begins=line(HOST)) as client:
                    assert (await client.ask(OPTIONS)).status == 204

    async def test_other_addresses_expect_no_header(self, embedded):
        async with proxied_gateway(embedded.address) as gateway:
            assert gateway.process.addresses == [ListenAddress(*gateway.address, proxy=True)]
        async with (
            proxied_gateway(embedded.address, listen=(Address("127.0.0.1", 0),)) as gateway,
            HttpClient(gateway.address, is_documented=False) as client,
        ):
            client.writer.write(line(HOST) + OPTIONS)
            assert (await client.response()).status == 400


class TestWhatGoesByTheAddress:
    @both_ways
    async def test_connections_per_address(self, embedded, tls):
        context = authority().context() if tls else None

        def client(header: bytes) -> HttpClient:
            return HttpClient(gateway.address, begins=header, context=context)

        async with (
            proxied_gateway(embedded.address, tls=tls, max_connections_per_address=2) as gateway,
            AsyncExitStack() as stack,
        ):
            for header in (line(HOST), packed(HOST), line("192.0.2.2"), line("2001:db8::1"), line("2001:db8::2")):
                one = await stack.enter_async_context(client(header))
                assert (await one.ask(OPTIONS)).status == 204
            for header in (packed(HOST, 9), packed("2001:db8::3"), packed(f"::ffff:{HOST}")):
                async with client(header) as refused:
                    answer = await refused.response()
                    assert (answer.status, answer.kind()) == (429, "too-many-connections-per-address")
            async with client(packed("2001:db8:0:1::3")) as other:
                assert (await other.ask(OPTIONS)).status == 204

    async def test_the_rate_of_connections(self, embedded):
        async with proxied_gateway(embedded.address, connection_rate=RateBound(0.001, 1)) as gateway:
            for host in (HOST, "192.0.2.2", "2001:db8::1"):
                async with HttpClient(gateway.address, begins=line(host)) as client:
                    assert (await client.ask(OPTIONS)).status == 204
                async with HttpClient(gateway.address, begins=packed(host)) as client:
                    assert (await client.response()).kind() == "connection-rate-exceeded"

    async def test_the_rate_of_requests(self, embedded):
        async with (
            hand_worker(embedded.address, b"f"),
            proxied_gateway(embedded.address, rate=RateBound(0.001, 1)) as gateway,
        ):
            for host in (HOST, "192.0.2.2", "2001:db8::1"):
                async with HttpClient(gateway.address, begins=line(host)) as client:
                    assert (await client.ask(get(b"/"))).status == 404
                    assert (await client.ask(get(b"/"))).kind() == "rate-exceeded"

    async def test_examples_in_the_log(self, embedded, caplog):
        async with proxied_gateway(embedded.address) as gateway:
            async with HttpClient(gateway.address, begins=line(HOST)) as client:
                client.send(b"NONSENSE\r\n\r\n")
                assert (await client.response()).status == 400
            with caplog.at_level(logging.WARNING):
                gateway.process.log_refusals()
            assert f"for example {HOST} after" in caplog.text


class TestStops:
    async def drained(self, gateway: RunningGateway) -> None:
        """Drain the gateway; nothing is left."""
        await asyncio.wait_for(gateway.process.drain(), WAIT_S)
        assert gateway.held() == {}

    async def begun(self, gateway: RunningGateway) -> asyncio.Task[None]:
        """Begin a drain, once a header is waited for."""
        await eventually(lambda: waiting(gateway) == 1)
        stop = asyncio.create_task(self.drained(gateway))
        await eventually(lambda: gateway.process.kept.stopping)
        return stop

    @both_ways
    async def test_who_sends_its_header_in_the_stop_is_served_once(self, embedded, tls):
        async with proxied_gateway(embedded.address, tls=tls, first_byte_timeout_s=3600.0) as gateway:
            connected = socket.create_connection(gateway.address)
            connected.sendall(line(HOST)[:5])
            with gateway.within_a_tick():
                stop = await self.begun(gateway)
                connected.sendall(line(HOST)[5:])
                connected.setblocking(False)
                client = HttpClient(gateway.address)
                if tls:
                    client.reader, client.writer = await open_tls(connected, authority().context(), 1 << 16)
                else:
                    client.reader, client.writer = await asyncio.open_connection(sock=connected)
                answer = await client.ask(OPTIONS)
            assert (answer.status, answer.headers[b"connection"]) == (204, b"close")
            assert await client.rest() == b""
            await client.close()
            await stop

    async def test_who_waited_to_be_accepted_is_served_once(self, embedded):
        async with proxied_gateway(embedded.address) as gateway:
            with contextlib.ExitStack() as stack:
                sockets = [stack.enter_context(socket.create_connection(gateway.address)) for _ in range(100)]
                for number, connected in enumerate(sockets):
                    connected.sendall(line(f"192.0.2.{number}") + OPTIONS)
                await self.drained(gateway)
                for connected in sockets:
                    connected.settimeout(WAIT_S)
                    answer = connected.recv(10_000)
                    assert answer.startswith(b"HTTP/1.1 204 ")
                    assert b"\r\nConnection: close\r\n" in answer
                    assert connected.recv(1) == b""

    async def test_who_waited_to_be_accepted_may_send_its_header_then(self, embedded):
        loop = asyncio.get_running_loop()
        async with proxied_gateway(embedded.address) as gateway:
            with (
                socket.create_connection(gateway.address) as connected,
                socket.create_connection(gateway.address) as silent,
            ):
                connected.setblocking(False)
                silent.setblocking(False)
                with gateway.within_a_tick():
                    stop = asyncio.create_task(self.drained(gateway))
                    await eventually(lambda: gateway.process.kept.stopping and waiting(gateway) == 2)
                    # It waits for them.
                    assert not (await asyncio.wait({stop}, timeout=LAST_CALL_S / 4))[0]
                    for part in (line(HOST), OPTIONS):
                        turns = gateway.process.poller.number
                        await loop.sock_sendall(connected, part)
                        await eventually(lambda turns=turns: gateway.process.poller.number != turns)
                    answer = await asyncio.wait_for(loop.sock_recv(connected, 10_000), WAIT_S)
                assert answer.startswith(b"HTTP/1.1 204 ")
                assert b"\r\nConnection: close\r\n" in answer
                assert await asyncio.wait_for(loop.sock_recv(silent, 1), SOON_S) == b""
            await stop

    async def test_who_sends_none_does_not_hold_it_up(self, embedded):
        async with proxied_gateway(embedded.address, first_byte_timeout_s=3600.0) as gateway:
            loop = asyncio.get_running_loop()
            async with HttpClient(gateway.address) as silent, HttpClient(gateway.address, begins=b"PROXY ") as begun:
                await eventually(lambda: waiting(gateway) == 2)
                begins_s = loop.time()
                await self.drained(gateway)
                assert LAST_CALL_S / 2 < loop.time() - begins_s < SOON_S
                for client in (silent, begun):
                    await silent_end(client)

    async def test_a_close_ends_them_at_once(self, embedded):
        async with proxied_gateway(embedded.address) as gateway, HttpClient(gateway.address) as client:
            await eventually(lambda: waiting(gateway) == 1)
            await gateway.process.close()
            assert waiting(gateway) == 0
            await silent_end(client)
