"""Job servers behind TLS: reached by it, and never without."""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path

import pytest

from gatewayx.address import ServerAddress
from gatewayx.config.settings import Settings
from gatewayx.errors import StartError
from gatewayx.server.certificates import TlsContexts
from gatewayx.server.tls_files import TlsFiles, read_job_servers
from support.gateway import eventually, running_gateway
from support.http import HttpClient, ask, post
from support.job_servers import hand_worker
from support.tls import Authority, TlsTerminator

pytestmark = pytest.mark.anyio

MEBIBYTE = 1024 * 1024


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """The one that is trusted."""
    return Authority(tmp_path)


@pytest.fixture
def stranger(tmp_path: Path) -> Authority:
    """One that is not."""
    return Authority(tmp_path, "stranger")


def made(ca: str | None, certificate: str | None, key: str | None) -> ssl.SSLContext | None:
    """What the settings of these files make."""
    settings = Settings(
        server=(ServerAddress("localhost", 4730, tls=True),),
        server_ca=ca,
        server_certificate=certificate,
        server_key=key,
    )
    return TlsContexts(settings, TlsFiles(job_servers=read_job_servers(settings))).job_servers


class TestThroughTls:
    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
    async def test_jobs_pass_large_ones_too(self, authority, address, function, host):
        with TlsTerminator(address, authority.certificate(host)) as terminator:
            async with (
                running_gateway([(host, terminator.port, True)], server_ca=str(authority.file)) as gateway,
                hand_worker(address, function) as worker,
                HttpClient(gateway.address) as client,
            ):
                await gateway.reaches("pool.connections", 2)
                for workload in (b"small", bytes(3 * MEBIBYTE)):
                    client.send(post(b"/" + function, workload))
                    handle, _, _, taken = await worker.take()
                    assert taken == workload
                    worker.complete(handle, workload[::-1])
                    assert (await client.response()).body == workload[::-1]

    async def test_an_abandoned_job_is_cancelled_and_signs_of_life_pass(self, authority, tmp_gearmand):
        with TlsTerminator(tmp_gearmand.address, authority.certificate("localhost")) as terminator:
            async with (
                hand_worker(tmp_gearmand.address, b"f"),
                running_gateway(
                    [("localhost", terminator.port, True)],
                    server_ca=str(authority.file),
                    server_check_interval_s=0.1,
                    status_interval_s=0.05,
                    require_worker=True,
                ) as gateway,
            ):
                client = await HttpClient(gateway.address).connect()
                client.send(post(b"/f", b"w"))
                await gateway.reaches("pool.outstanding_jobs", 1)
                client.reset()
                await gateway.reaches("pool.cancels_requested", 1)
                await asyncio.sleep(0.5)
                assert gateway.count("pool.connections") == 2
                # It tells by text that there is no worker.
                asked_for = post(b"/g", b"w", b"X-Gearman-Timeout: 0.1")
                while (kind := (await ask(gateway.address, asked_for)).kind()) != "no-worker":
                    # Not yet.
                    assert kind == "job-timeout"

    async def test_a_client_certificate_is_shown_when_it_is_wanted(self, authority, embedded):
        with TlsTerminator(embedded.address, authority.certificate("localhost"), clients=authority) as terminator:
            async with (
                running_gateway(
                    [("localhost", terminator.port, True)],
                    server_ca=str(authority.file),
                    server_certificate=str(authority.certificate("gateway")),
                ) as gateway,
            ):
                await gateway.reaches("pool.connections", 2)


class TestNotTrusted:
    @pytest.mark.parametrize("wrong", ["authority", "host name", "no client certificate"])
    async def test_it_is_never_connected_and_the_reason_is_logged(self, authority, stranger, embedded, caplog, wrong):
        certificate = authority.certificate("elsewhere.test" if wrong == "host name" else "localhost")
        trusted = stranger if wrong == "authority" else authority
        clients = authority if wrong == "no client certificate" else None
        caplog.set_level(logging.WARNING, "gatewayx")
        with TlsTerminator(embedded.address, certificate, clients) as terminator:
            async with running_gateway([("localhost", terminator.port, True)], server_ca=str(trusted.file)) as gateway:
                await eventually(lambda: f"tls://localhost:{terminator.port} is not connected" in caplog.text)
                # Several more attempts.
                await asyncio.sleep(0.3)
                answer = await ask(gateway.address, post(b"/f", b"w"))
                assert (answer.status, answer.kind()) == (503, "no-job-server")
                assert embedded.submitted == 0
        told = [record.message for record in caplog.records if "is not connected" in record.message]
        # Each reason once: a refusal of the gateway's own certificate comes as an alert or as a reset.
        assert len(set(told)) == len(told) <= 3

    async def test_a_plain_job_server_never_hears_anything_but_TLS(self):  # noqa: N802
        heard: list[bytes] = []

        class Plain(asyncio.Protocol):
            def connection_made(self, transport):
                self.transport = transport

            def data_received(self, data):
                heard.append(data)
                # As a job server and as a text connection would answer.
                self.transport.write(b"ERR UNKNOWN_COMMAND Unknown+server+command\r\n")

        listener = await asyncio.get_running_loop().create_server(Plain, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        async with running_gateway([("127.0.0.1", port, True)]) as gateway:
            await eventually(lambda: len(heard) >= 6)
            assert (await ask(gateway.address, post(b"/f", b"secret"))).kind() == "no-job-server"
        listener.close()
        # A TLS record of the handshake, or of an alert (RFC 8446 5.1).
        assert {data[0] for data in heard} <= {0x16, 0x15}
        assert not any(b"REQ" in data or b"version\n" in data or b"secret" in data for data in heard)


class TestFiles:
    def test_they_are_loaded(self, authority):
        certificate = authority.certificate("gateway")
        for files in (
            (None, None, None),
            (authority.file, None, None),
            (None, certificate, None),
            (None, certificate, certificate),
        ):
            context = made(*(None if path is None else str(path) for path in files))
            assert context.verify_mode == ssl.CERT_REQUIRED
            assert context.check_hostname
            assert context.minimum_version == ssl.TLSVersion.TLSv1_2

    @pytest.mark.parametrize(
        ("ca", "certificate", "key", "told"),
        [
            ("missing", None, None, r"server-ca = '.*missing' cannot be used: No such file or directory"),
            ("nonsense", None, None, r"server-ca = '.*nonsense' cannot be used: "),
            (None, "missing", None, r"server-certificate = '.*missing' cannot be used: No such file or directory"),
            (None, "nonsense", None, r"server-certificate = '.*nonsense' cannot be used: "),
            (None, "good", "nonsense", r"server-key = '.*nonsense' cannot be used: it has no key in PEM"),
            (
                None,
                "good",
                "other",
                r"server-certificate = '.*' with server-key = '.*other.*' cannot be used: the key is not that of",
            ),
            (None, None, "good", r"server-key = '.*' is of no use without server-certificate"),
        ],
    )
    def test_one_that_cannot_be_used_is_named(self, authority, tmp_path, ca, certificate, key, told):
        (tmp_path / "nonsense").write_bytes(b"\x00nonsense")
        paths = {
            None: None,
            "missing": str(tmp_path / "missing"),
            "nonsense": str(tmp_path / "nonsense"),
            "good": str(authority.certificate("gateway")),
            "other": str(authority.certificate("other")),
        }
        with pytest.raises(StartError, match=told) as caught:
            made(paths[ca], paths[certificate], paths[key])
        assert str(caught.value).isprintable()

    async def test_the_gateway_does_not_start_with_one(self, tmp_path):
        with pytest.raises(StartError, match="server-ca"):
            async with running_gateway([ServerAddress("127.0.0.1", 1, tls=True)], server_ca=str(tmp_path / "missing")):
                pass
