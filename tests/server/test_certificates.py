"""Certificates of a whole gateway: several processes that show the same ones, whatever becomes of the files."""

from __future__ import annotations

import asyncio
import datetime
import re
import shutil
import signal
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from support.admin import AdminAddress, admin_of, until
from support.gateway import ServeProcess, eventually
from support.http import HttpClient, head, post
from support.job_servers import hand_worker
from support.times import SOON_S
from support.tls import Authority, TlsTerminator
from support.tls_client import open_tls
from support.tls_sessions import visit

pytestmark = pytest.mark.anyio

# Instead of five seconds, after which a fault is told that may be one of a moment.
PATIENCE_S = 0.5
LISTENS_ON = re.compile(r"listens on https://([0-9.]+):([0-9]+)")
HAVE_THEM = "all worker processes have the certificates"
# So many clients, of which the kernel gives each of two processes some: all to one in one of 10^6 runs.
CLIENTS = 20
# A client whose certificate is not trusted hears an alert, or a reset that overtakes it.
REFUSED = r"ALERT|alert|reset|closed without"
PROBE = head(b"OPTIONS", b"*")


class Files:
    """A certificate and its key, and an authority of clients."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        self.authority = authority
        self.certificate, self.key = folder / "tls.crt", folder / "tls.key"
        self.renew()

    def renew(self, **how: object) -> int:
        """Write a new pair; returns the serial number that is shown of it."""
        certificate, key = self.authority.pair("127.0.0.1", **how)
        self.write(certificate, key)
        return serial_of(certificate)

    def write(self, certificate: bytes, key: bytes) -> None:
        """Write both, in place."""
        self.certificate.write_bytes(certificate)
        self.key.write_bytes(key)

    @property
    def arguments(self) -> tuple[str, ...]:
        """What names them."""
        return ("--tls-certificate", str(self.certificate), "--tls-key", str(self.key))


def serial_of(certificate: bytes) -> int:
    """The serial number of a certificate in PEM."""
    from cryptography import x509

    return x509.load_pem_x509_certificate(certificate).serial_number


@pytest.fixture
def files(tmp_path) -> Files:
    """A pair that holds."""
    return Files(tmp_path, Authority(tmp_path))


class Served:
    """A gateway with TLS, its admin address, and where it listens."""

    def __init__(self, process: ServeProcess, admin: AdminAddress, listens: tuple[str, int], files: Files) -> None:
        self.process = process
        self.admin = admin
        self.listens = listens
        self.files = files

    async def serials(self, context: ssl.SSLContext | None = None, name: str = "127.0.0.1") -> set[int]:
        """Of the certificates that new clients are shown by all processes, which ask for this name."""

        async def serial() -> int:
            connected = socket.create_connection(self.listens)
            connected.setblocking(False)
            reader, writer = await open_tls(connected, context or self.files.authority.context(), 65536, name)
            writer.write(PROBE)
            assert b" 204 " in await reader.readline()
            shown = writer.protocol.session.getpeercert()
            writer.close()
            return int(shown["serialNumber"], 16)

        return set(await asyncio.gather(*(serial() for _ in range(CLIENTS))))

    async def is_well(self, purpose: str = "clients") -> bool:
        """Whether the files held when they were read last."""
        return await self.admin.metric("gatewayx_tls_files_last_read_successful", purpose=purpose) == 1

    async def becomes(self, *, well: bool, purpose: str = "clients") -> None:
        """Return once the metrics, which are as old as a moment, tell so."""

        async def is_told() -> bool:
            return await self.is_well(purpose) is well

        await until(is_told)


@asynccontextmanager
async def serving(
    server: tuple[str, int] | str, files: Files, *arguments: str, workers: int = 2
) -> AsyncIterator[Served]:
    """A gateway with these files."""
    address = server if isinstance(server, str) else f"{server[0]}:{server[1]}"
    more = ("--server", address, "--listen", "https://127.0.0.1:0", "--admin", "127.0.0.1:0", "--workers", str(workers))
    before = f"from gatewayx.server import watched_files\nwatched_files.PATIENCE_S = {PATIENCE_S}"
    async with ServeProcess(*more, *files.arguments, *arguments, before=before) as process:
        process.listens_on = LISTENS_ON
        admin = await admin_of(process)
        yield Served(process, admin, process.listens, files)


class TestRenewal:
    @pytest.mark.parametrize("by_signal", [False, True])
    async def test_new_clients_of_every_process_are_shown_the_new_one(self, embedded, files, by_signal):
        async with serving(embedded.address, files) as served:
            processes = served.process.all()
            async with HttpClient(served.listens, context=files.authority.context()) as old:
                renewed = files.renew()
                if by_signal:
                    served.process.signal(signal.SIGHUP)
                    await served.process.until("all worker processes have the settings")
                else:
                    began_s = time.monotonic()
                    await served.process.until(HAVE_THEM)
                    assert time.monotonic() - began_s < SOON_S
                assert await served.serials() == {renewed}
                # Whoever was there goes on.
                assert (await old.ask(PROBE)).status == 204
            assert served.process.all() == processes

    async def test_processes_that_are_forked_later_have_it_too(self, embedded, files):
        async with serving(embedded.address, files) as served:
            renewed = files.renew()
            await served.process.until(HAVE_THEM)
            before = set(served.process.workers())
            served.process.signal_workers(signal.SIGKILL)

            async def are_new() -> bool:
                return None not in await served.admin.workers() and not before & set(await served.admin.workers())

            await until(are_new)
            await eventually(lambda: len(served.process.workers()) == len(before))
            assert await served.serials() == {renewed}

    async def test_no_request_fails_meanwhile(self, embedded, files):
        async with serving(embedded.address, files) as served, hand_worker(embedded.address, b"f"):
            context = files.authority.context()
            asked = 0
            is_over = False

            async def ask_on() -> None:
                nonlocal asked
                while not is_over:
                    async with HttpClient(served.listens, context=context) as client:
                        for _ in range(3):
                            assert (await client.ask(PROBE)).status == 204
                            asked += 1

            async def keep_on() -> None:
                nonlocal asked
                async with HttpClient(served.listens, context=context) as client:
                    while not is_over:
                        assert (await client.ask(post(b"/f", b"x", b"X-Gearman-Background: true"))).status == 200
                        asked += 1

            asking = [asyncio.create_task(how()) for how in (ask_on, ask_on, keep_on, keep_on)]
            for kind in (trustme.KeyType.ECDSA, trustme.KeyType.RSA, trustme.KeyType.ECDSA):
                before = asked
                renewed = files.renew(key_type=kind)
                await served.process.until(HAVE_THEM)
                await eventually(lambda before=before: asked > before + CLIENTS)
                assert await served.serials() == {renewed}
            is_over = True
            await asyncio.gather(*asking)

    async def test_sessions_are_taken_up_in_every_process_whichever_gave_them(self, embedded, files):
        workers = 4
        async with serving(embedded.address, files, workers=workers) as served:
            context = files.authority.context()
            request = head(b"OPTIONS", b"*", b"Connection: close")

            def visits(session: ssl.SSLSession | None) -> list[bool]:
                return [visit(served.listens, context, request, session).is_resumed for _ in range(2 * CLIENTS)]

            async def accepted() -> list[int]:
                return [worker["pid"] for worker in (await served.admin.status())["workers"]]

            assert len(await accepted()) == workers
            given = (await asyncio.to_thread(visit, served.listens, context, request)).session
            assert all(await asyncio.to_thread(visits, given))
            for kind in (trustme.KeyType.ECDSA, trustme.KeyType.RSA):
                files.renew(key_type=kind)
                await served.process.until(HAVE_THEM)
                assert all(await asyncio.to_thread(visits, given))
                # And those of now.
                given = (await asyncio.to_thread(visit, served.listens, context, request)).session
                assert all(await asyncio.to_thread(visits, given))

    async def test_a_folder_that_is_swapped_by_its_link_is_followed(self, embedded, tmp_path):
        # As Kubernetes mounts a secret: files by links through ..data, which is a link that is renamed.
        first = tmp_path / "..first"
        first.mkdir()
        made = Files(first, Authority(tmp_path))
        data = tmp_path / "..data"
        data.symlink_to(first.name)
        for name in ("tls.crt", "tls.key"):
            (tmp_path / name).symlink_to(f"..data/{name}")
        made.certificate, made.key = tmp_path / "tls.crt", tmp_path / "tls.key"
        async with serving(embedded.address, made) as served:
            second = tmp_path / "..second"
            second.mkdir()
            certificate, key = made.authority.pair("127.0.0.1")
            (second / "tls.crt").write_bytes(certificate)
            (second / "tls.key").write_bytes(key)
            (tmp_path / "..data_tmp").symlink_to(second.name)
            (tmp_path / "..data_tmp").replace(data)
            shutil.rmtree(first)
            await served.process.until(HAVE_THEM)
            assert await served.serials() == {serial_of(certificate)}
            await served.becomes(well=True)


class TestFaults:
    @pytest.mark.parametrize("kind", ["other key", "nonsense", "removed", "expired"])
    async def test_what_does_not_hold_changes_nothing_until_it_does(self, embedded, files, kind):
        async with serving(embedded.address, files) as served:
            [serial] = await served.serials()
            await served.becomes(well=True)
            if kind == "other key":
                files.key.write_bytes(files.authority.pair("127.0.0.1")[1])
            elif kind == "nonsense":
                files.certificate.write_bytes(b"nonsense")
            elif kind == "removed":
                files.certificate.unlink()
            else:
                now = datetime.datetime.now(datetime.timezone.utc)
                files.renew(begins=now - datetime.timedelta(days=2), ends=now - datetime.timedelta(days=1))
            told = await served.process.until("the certificates for clients stay as they were: tls-certificate = ")
            assert " ERROR " in told
            await served.becomes(well=False)
            document = (await served.admin.status())["tls_files"]["clients"]
            assert document["result"] == "failed"
            assert "tls-certificate = " in document["detail"]
            assert await served.serials() == {serial}
            renewed = files.renew()
            await served.process.until(HAVE_THEM)
            await served.becomes(well=True)
            assert (await served.admin.status())["tls_files"]["clients"]["detail"] == ""
            assert await served.serials() == {renewed}

    async def test_at_sighup_a_fault_is_that_of_the_reload(self, embedded, files):
        async with serving(embedded.address, files) as served:
            [serial] = await served.serials()
            files.certificate.write_bytes(b"nonsense")
            served.process.signal(signal.SIGHUP)
            await served.process.until("SIGHUP: no setting changes: tls-certificate = ")

            async def is_told() -> bool:
                return await served.admin.metric("gatewayx_config_last_reload_successful") == 0

            await until(is_told)
            await served.becomes(well=False)
            assert await served.serials() == {serial}

    async def test_keys_are_never_told(self, embedded, files):
        async with serving(embedded.address, files) as served:
            files.key.write_bytes(files.key.read_bytes()[:100])
            await served.process.until("the certificates for clients stay as they were")
            parts = [line for line in files.key.read_text().splitlines() if "-----" not in line and line]
            assert parts
            told = "".join(served.process.lines) + (await served.admin.ask("/status")).body.decode()
            assert not any(part in told for part in parts)


class TestNames:
    async def test_the_one_that_is_asked_for_is_shown_by_every_process(self, embedded, files, tmp_path):
        other = files.authority.pair("other.test", "*.wild.test")
        for name, content in zip(("other.crt", "other.key"), other, strict=True):
            (tmp_path / name).write_bytes(content)
        more = ("--tls-certificate", str(tmp_path / "other.crt"), "--tls-key", str(tmp_path / "other.key"))
        async with serving(embedded.address, files, *more) as served:
            assert await served.serials() == {serial_of(files.certificate.read_bytes())}
            for name in ("other.test", "a.wild.test"):
                assert await served.serials(name=name) == {serial_of(other[0])}

    async def test_one_that_is_no_text_fails_the_handshake_and_fills_no_log(self, embedded, files):
        async with serving(embedded.address, files) as served:
            # From now on a context is chosen by name.
            files.renew()
            await served.process.until(HAVE_THEM)
            before = len(served.process.lines)
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            client = files.authority.context().wrap_bio(incoming, outgoing, server_hostname="aaaaaa.test")
            with pytest.raises(ssl.SSLWantReadError):
                client.do_handshake()
            hello = outgoing.read().replace(b"aaaaaa.test", b"aa\xff\xfe\r\n.test")
            for _ in range(CLIENTS):
                reader, writer = await asyncio.open_connection(*served.listens)
                writer.write(hello)
                # An alert, and the end.
                assert (await reader.read())[:1] == b"\x15"
                writer.close()

            async def are_counted() -> bool:
                return await served.admin.metric("gatewayx_tls_handshakes_total", result="failed") == CLIENTS

            await until(are_counted)
            served.process.signal(signal.SIGTERM)
            await served.process.ended()
            # Before, the new key may have been long behind its certificate.
            assert not any("Traceback" in line or " ERROR " in line for line in served.process.lines[before:])

    async def test_handshakes_that_do_not_go_on_are_told_of_every_process(self, embedded, files):
        # They wait until they are told of.
        async with serving(embedded.address, files, "--first-byte-timeout", "600") as served:
            client = files.authority.context().wrap_bio(ssl.MemoryBIO(), outgoing := ssl.MemoryBIO())
            with pytest.raises(ssl.SSLWantReadError):
                client.do_handshake()

            async def are(count: int) -> bool:
                return await served.admin.metric("gatewayx_tls_handshakes_in_flight") == count

            hello = outgoing.read()
            writers = [(await asyncio.open_connection(*served.listens))[1] for _ in range(CLIENTS)]
            for writer in writers:
                writer.write(hello)
            await until(lambda: are(CLIENTS))
            for writer in writers:
                writer.close()
            await until(lambda: are(0))


class TestAuthoritiesOfClients:
    async def test_others_are_trusted_from_then_on_and_the_old_ones_not(self, embedded, files, tmp_path):
        old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
        trusted = tmp_path / "clients.pem"
        trusted.write_bytes(old.file.read_bytes())
        async with serving(embedded.address, files, "--tls-client-ca", str(trusted)) as served:
            contexts = {}
            for authority in (old, new):
                context = contexts[authority] = files.authority.context()
                context.load_cert_chain(authority.certificate("shop.test"))
            request = head(b"OPTIONS", b"*", b"Connection: close")
            given = (await asyncio.to_thread(visit, served.listens, contexts[old], request)).session
            assert await served.serials(contexts[old])
            with pytest.raises(OSError, match=REFUSED):
                await asyncio.to_thread(visit, served.listens, contexts[new], request)
            trusted.write_bytes(new.file.read_bytes())
            await served.process.until(HAVE_THEM)
            assert await served.serials(contexts[new])
            for session in (None, given):
                for _ in range(CLIENTS):
                    with pytest.raises(OSError, match=REFUSED):
                        await asyncio.to_thread(visit, served.listens, contexts[old], request, session)


class TestExpiry:
    async def test_it_is_told_in_the_log_in_metrics_and_in_the_status(self, embedded, files):
        ends = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0) + datetime.timedelta(
            days=10, hours=1
        )
        files.renew(ends=ends)
        async with serving(embedded.address, files) as served:
            told = [line for line in served.process.lines if "expires in 10 days" in line]
            assert len(told) == 1
            assert f"tls-certificate = '{files.certificate}' (for 127.0.0.1)" in told[0]
            labels = {"purpose": "clients", "certificate": str(files.certificate)}
            not_after = "gatewayx_tls_certificate_not_after_seconds"
            assert await served.admin.metric(not_after, **labels) == ends.timestamp()
            [shown] = (await served.admin.status())["certificates"]
            assert (shown["purpose"], shown["file"], shown["names"]) == (
                "clients",
                str(files.certificate),
                ["127.0.0.1"],
            )
            assert shown["not_after"] == ends.strftime("%Y-%m-%dT%H:%M:%S.000Z")
            later = ends + datetime.timedelta(days=1)
            files.renew(ends=later)
            await served.process.until(HAVE_THEM)

            async def is_told() -> bool:
                return await served.admin.metric(not_after, **labels) == later.timestamp()

            await until(is_told)


class TestJobServers:
    async def test_a_renewed_authority_and_certificate_are_used_at_once(self, embedded, files, tmp_path):
        old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
        trusted, own = tmp_path / "trusted.pem", tmp_path / "own.pem"
        trusted.write_bytes(old.file.read_bytes())
        own.write_bytes(old.certificate("gateway").read_bytes())
        with TlsTerminator(embedded.address, new.certificate("localhost"), clients=new) as terminator:
            more = ("--server-ca", str(trusted), "--server-certificate", str(own))
            async with serving(f"tls://localhost:{terminator.port}", files, *more) as served:
                told = await until_reason(served.admin, "certificate is not trusted")
                assert "self-signed" in told or "unable to get local issuer" in told
                await served.process.has_said("certificate is not trusted")
                # Its own one is not trusted yet.
                trusted.write_bytes(new.file.read_bytes())
                await served.process.until(HAVE_THEM)
                await until_reason(served.admin, "certificate")
                own.write_bytes(new.certificate("gateway").read_bytes())
                await served.process.until(HAVE_THEM)

                async def is_up() -> bool:
                    [server] = (await served.admin.status())["job_servers"]
                    return server["up"] and server["connections"] > 0

                await until(is_up)
                await served.becomes(well=True, purpose="job-servers")
                purposes = [shown["purpose"] for shown in (await served.admin.status())["certificates"]]
                assert purposes == ["clients", "job-servers", "job-server-authorities"]
                own.write_bytes(b"nonsense")
                await served.process.until("the certificates for job servers stay as they were: server-certificate = ")
                await served.becomes(well=False, purpose="job-servers")
                assert await served.is_well("clients")


async def until_reason(admin: AdminAddress, part: str) -> str:
    """Why the job server is not up, once that has this part."""
    found = ""

    async def is_told() -> bool:
        nonlocal found
        [server] = (await admin.status())["job_servers"]
        found = server["reason"]
        return part in found

    await until(is_told)
    return found
