"""Gateways of several worker processes behind proxies that send PROXY headers: HAProxy, nginx, and by hand."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import starmap
from pathlib import Path

import pytest

from gatewayx.net.proxied import LAST_CALL_S
from support.admin import TOLD, AdminAddress, until
from support.gateway import ServeProcess, eventually
from support.haproxy import running_haproxy
from support.http import HttpClient, head, post
from support.job_servers import hand_worker, nobody_listens
from support.nginx import running_stream_nginx
from support.proxied import line, line_of, lines_of, packed
from support.tls import authority
from support.tls_client import open_tls

pytestmark = pytest.mark.anyio

OPTIONS = head(b"OPTIONS", b"*")
# Where the clients of a proxy connect from, which itself connects from 127.0.0.1.
CLIENTS = ("127.0.0.5", "127.0.0.6")
TLS_OPTIONS = {"plain": {" check-ssl verify none": ""}, "tls": {}}
VERSIONS = {
    "version-1": {"send-proxy-v2": "send-proxy"},
    "version-2": {},
    "checksum": {"send-proxy-v2": "send-proxy-v2 proxy-v2-options crc32c"},
}


class ProxiedProcess(ServeProcess):
    """A gateway of two worker processes that expects PROXY headers of 127.0.0.1."""

    listens_on = re.compile(r"listens on proxy(?:\+https)?://([0-9.]+):([0-9]+)")


@asynccontextmanager
async def serving(
    folder: Path, *arguments: str, tls: bool = False, server: tuple[str, int] | None = None
) -> AsyncIterator[tuple[ProxiedProcess, Path]]:
    """Such a gateway, and its access log."""
    log = folder / "access.log"
    host, port = nobody_listens() if server is None else server
    scheme = "proxy+https" if tls else "proxy"
    certificate = ("--tls-certificate", str(authority().certificate("127.0.0.1"))) if tls else ()
    async with ProxiedProcess(
        *("--listen", f"{scheme}://127.0.0.1:0", "--trusted-proxy", "127.0.0.1", "--workers", "2"),
        *("--server", f"{host}:{port}", "--access-log", str(log), *certificate, *arguments),
    ) as served:
        await served.address()
        yield served, log


async def ask_of(address: tuple[str, int], source: str, *, tls: bool) -> None:
    """Ask twice over one connection from this host."""
    context = authority().context() if tls else None
    async with HttpClient(address, source=source, context=context) as client:
        for _ in range(2):
            assert (await client.ask(OPTIONS)).status == 204


both_ways = pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])


class TestProxies:
    @both_ways
    @pytest.mark.parametrize("options", VERSIONS.values(), ids=VERSIONS)
    async def test_haproxy(self, tmp_path, tls, options):
        changes = TLS_OPTIONS["tls" if tls else "plain"] | options
        async with serving(tmp_path, tls=tls) as (served, log):
            with running_haproxy(tmp_path, served.listens, changes) as address:
                for source in CLIENTS:
                    await ask_of(address, source, tls=tls)
                # A check of its own comes with LOCAL or UNKNOWN, and stands in the log as the proxy's.
                await eventually(lambda: "127.0.0.1" in {each["client"] for each in lines_of(log)})
                await eventually(
                    lambda: [sum(each["client"] == source for each in lines_of(log)) for source in CLIENTS] == [2, 2]
                )
                assert "DOWN" not in await asyncio.to_thread((tmp_path / "haproxy.log").read_text)

    async def test_haproxy_that_tells_all_it_knows_of_its_client_s_tls(self, tmp_path):
        changes = {
            "bind :443": f"bind :443 ssl crt {authority().certificate('127.0.0.1')}",
            "default_backend gateways": "unique-id-format %[uuid()]\n    default_backend gateways",
            " check-ssl verify none": "",
            "send-proxy-v2": "send-proxy-v2-ssl-cn proxy-v2-options "
            "crc32c,unique-id,authority,ssl,cert-cn,cert-key,cert-sig,ssl-cipher",
        }
        async with serving(tmp_path) as (served, log):
            with running_haproxy(tmp_path, served.listens, changes) as address:
                await ask_of(address, CLIENTS[0], tls=True)
                await eventually(lambda: CLIENTS[0] in {each["client"] for each in lines_of(log)})

    @both_ways
    async def test_nginx(self, tmp_path, tls):
        async with serving(tmp_path, tls=tls) as (served, log):
            with running_stream_nginx(tmp_path, served.listens) as port:
                for number, source in enumerate(CLIENTS):
                    await ask_of(("127.0.0.1", port), source, tls=tls)
                    for index in (0, 1):
                        assert (await line_of(log, 2 * number + index))["client"] == source


class TestProcesses:
    async def test_a_bound_of_an_address_holds_for_all_of_them(self, tmp_path):
        async with (
            serving(tmp_path, "--max-connections-per-address", "8") as (served, _),
            AsyncExitStack() as stack,
        ):
            for number in range(16):
                header = (line if number % 2 else packed)("192.0.2.1" if number < 8 else "2001:db8::1", number)
                client = await stack.enter_async_context(HttpClient(served.listens, begins=header))
                assert (await client.ask(OPTIONS)).status == 204
            for header in (line("192.0.2.1"), packed("2001:db8::2")) * 4:
                async with HttpClient(served.listens, begins=header) as client:
                    assert (await client.response()).kind() == "too-many-connections-per-address"
            async with HttpClient(served.listens, begins=line("192.0.2.2")) as client:
                assert (await client.ask(OPTIONS)).status == 204

    async def test_what_is_refused_is_counted_of_all_of_them(self, tmp_path):
        async with serving(tmp_path, "--admin", "127.0.0.1:0") as (served, _):
            host, port = TOLD.search("".join(served.lines)).groups()
            admin = AdminAddress((host, int(port)))
            for _ in range(8):
                async with HttpClient(served.listens, begins=OPTIONS) as client:
                    assert await client.rest() == b""
                async with HttpClient(served.listens, source="127.0.0.2") as client:
                    assert await client.rest() == b""

            async def are_counted() -> bool:
                reasons = ("proxy-headers", "untrusted-proxies")
                return {await admin.metric("gatewayx_refusals_total", reason=reason) for reason in reasons} == {8}

            await until(are_counted)

    async def test_those_that_wait_are_told_of_all_of_them(self, tmp_path):
        # They wait until they are told of.
        async with serving(tmp_path, "--admin", "127.0.0.1:0", "--first-byte-timeout", "600") as (served, _):
            host, port = TOLD.search("".join(served.lines)).groups()
            admin = AdminAddress((host, int(port)))

            async def are(**states: int) -> bool:
                told = [await admin.metric("gatewayx_connections", state=state) for state in ("proxy-header", "open")]
                return told == [states["waiting"], states["open"]]

            async with AsyncExitStack() as stack:
                header = line("192.0.2.1")
                clients = [
                    await stack.enter_async_context(HttpClient(served.listens, begins=header[:-1])) for _ in range(8)
                ]
                await until(lambda: are(waiting=8, open=0))
                for client in clients[:3]:
                    client.writer.write(header[-1:])
                await until(lambda: are(waiting=5, open=3))
            await until(lambda: are(waiting=0, open=0))

    async def test_trust_changes_with_the_settings(self, tmp_path):
        file = tmp_path / "settings.toml"
        file.write_text('trusted-proxy = ["127.0.0.2"]', encoding="utf-8")
        async with ProxiedProcess(
            *("--listen", "proxy://127.0.0.1:0", "--workers", "2", "--config", str(file)),
            *("--server", "{}:{}".format(*nobody_listens())),
        ) as served:
            await served.address()

            async def is_let_in(source: str) -> bool:
                async with HttpClient(served.listens, source=source) as client:
                    client.writer.write(line("192.0.2.1"))
                    client.send(OPTIONS)
                    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                        return (await client.response()).status == 204
                    return False

            for _ in range(8):
                assert (await is_let_in("127.0.0.2"), await is_let_in("127.0.0.3")) == (True, False)
            file.write_text('trusted-proxy = ["127.0.0.3"]', encoding="utf-8")
            served.signal(signal.SIGHUP)
            await served.until("trusted-proxy")
            await served.until("all worker processes have the settings")
            for _ in range(8):
                assert (await is_let_in("127.0.0.2"), await is_let_in("127.0.0.3")) == (False, True)

    @both_ways
    async def test_who_waits_to_be_accepted_in_a_stop_is_served_once(self, tmp_path, tls):
        # They have a second for what they do not send at once, in which handshakes take their time.
        hosts = {f"192.0.2.{number}" for number in range(12 if tls else 100)}
        async with serving(tmp_path, tls=tls) as (served, log):
            served.signal_workers(signal.SIGSTOP)
            waiting, late = {}, set()
            for host in hosts:
                connected = socket.create_connection(served.listens)
                connected.sendall(line(host) if tls else line(host) + OPTIONS)
                connected.setblocking(False)
                waiting[host] = connected
            served.signal(signal.SIGTERM)
            went_on_s = time.monotonic()
            served.signal_workers(signal.SIGCONT)

            async def ask_on(host: str, connected: socket.socket) -> None:
                client = HttpClient(served.listens)
                async with AsyncExitStack() as opened:
                    try:
                        if tls:
                            client.reader, client.writer = await open_tls(connected, authority().context(), 1 << 16)
                            opened.push_async_exit(client)
                            client.send(OPTIONS)
                        else:
                            client.reader, client.writer = await asyncio.open_connection(sock=connected)
                            opened.push_async_exit(client)
                            client.sent.feed(OPTIONS)
                        assert (await client.response()).status == 204
                    except (OSError, EOFError):
                        # Whoever takes so long for a handshake is closed, as this process is that has stood still.
                        assert tls
                        assert time.monotonic() - went_on_s > LAST_CALL_S / 2
                        late.add(host)
                        return
                    assert await client.rest() == b""

            await asyncio.gather(*starmap(ask_on, waiting.items()))
            assert await served.ended() == 0
            assert hosts - late <= {each["client"] for each in lines_of(log)} <= hosts
        assert not [each for each in served.lines if "Traceback" in each or "ERROR" in each]

    async def test_headers_of_proxies_go_on_from_there(self, tmp_path):
        trusted = ("--trusted-proxy", "10.0.0.0/8")
        async with serving(tmp_path, *trusted, "--client-address", "x-forwarded-for") as (served, log):
            told = ((b"10.0.0.1", "192.0.2.9"), (b"192.0.2.1", "192.0.2.1"))
            for number, (host, client_host) in enumerate(told):
                async with HttpClient(served.listens, begins=line(host.decode())) as client:
                    request = head(b"OPTIONS", b"*", b"X-Forwarded-For: 203.0.113.1, 192.0.2.9")
                    assert (await client.ask(request)).status == 204
                assert (await line_of(log, number))["client"] == client_host

    async def test_jobs_of_many_clients(self, embedded, tmp_path):
        async with (
            hand_worker(embedded.address, b"f") as worker,
            serving(tmp_path, server=embedded.address) as (served, log),
            AsyncExitStack() as stack,
        ):
            clients = []
            for number in range(20):
                header = (line if number % 2 else packed)(f"192.0.2.{number}")
                client = await stack.enter_async_context(HttpClient(served.listens, begins=header))
                client.send(post(b"/f", b"%d" % number, b"X-Gearman-Unique: job-%d" % number))
                clients.append(client)
            for _ in clients:
                handle, *_ = await worker.take()
                worker.complete(handle, b"done")
            for client in clients:
                assert (await client.response()).body == b"done"
            await line_of(log, 19)
            assert {each["client"] for each in lines_of(log)} == {f"192.0.2.{number}" for number in range(20)}
