"""Job servers behind TLS: reached by it, and never without."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import re
import socket
import ssl
import threading
from pathlib import Path

import pytest

from gatewayx.address import ServerAddress
from gatewayx.config.settings import Settings
from gatewayx.embedded import encode
from gatewayx.errors import StartError
from gatewayx.gearman import keeper
from gatewayx.gearman.tls import told
from gatewayx.server.certificates import TlsContexts
from gatewayx.server.tls_files import TlsFiles, read_job_servers
from support.gateway import eventually, running_gateway
from support.http import HttpClient, ask, post
from support.job_servers import hand_worker
from support.times import WAIT_S
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


YESTERDAY = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=1)


class Refusing:
    """Begins TLS with whoever connects and tells by an alert what is wrong; a context manager. port: on 127.0.0.1."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self.serve)

    def serve(self) -> None:
        """Until the listener is shut down."""
        while True:
            try:
                accepted, _ = self.listener.accept()
            except OSError:
                return
            accepted.settimeout(WAIT_S)
            with contextlib.suppress(OSError):
                self.meet(accepted)
            accepted.close()

    def meet(self, accepted: socket.socket) -> None:
        """Shake hands, and read until the other side leaves. Raises OSError."""
        with self.context.wrap_socket(accepted, server_side=True) as secured:
            while secured.recv(65536):
                pass

    def __enter__(self) -> Refusing:
        self.thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.listener.close()


class RefusingTwo(Refusing):
    """The same, which lets in who comes after the first two, and tells nobody what it wants of them before.

    greetings: what those send first.
    """

    def __init__(self, context: ssl.SSLContext, afterwards: ssl.SSLContext) -> None:
        super().__init__(context)
        self.afterwards = afterwards
        self.refused = 0
        self.greetings: list[bytes] = []
        self.let_in: list[ssl.SSLSocket] = []

    def meet(self, accepted: socket.socket) -> None:
        """See Refusing."""
        context = self.context if self.refused < 2 else self.afterwards
        self.refused += 1
        secured = context.wrap_socket(accepted, server_side=True)
        self.let_in.append(secured)
        self.greetings.append(secured.recv(65536))

    def __exit__(self, *exception: object) -> None:
        super().__exit__(*exception)
        for secured in self.let_in:
            secured.close()


def verifying(authority: Authority) -> ssl.SSLContext:
    """For job servers that want certificates of this authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.certificate("localhost"))
    context.load_verify_locations(authority.file)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


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

                def reconnects() -> int:
                    [told] = dict(gateway.process.places[0].servers.read()).values()
                    return told.reconnects

                async def last() -> None:
                    """Connections live for longer than silent ones may; a machine that stands still may cost some."""
                    lost = -1
                    while lost != reconnects():
                        lost = reconnects()
                        await asyncio.sleep(0.5)

                await asyncio.wait_for(last(), WAIT_S)
                await gateway.reaches("pool.connections", 2)
                # It tells by text that there is no worker.
                asked_for = post(b"/g", b"w", b"X-Gearman-Timeout: 0.1")
                while (kind := (await ask(gateway.address, asked_for)).kind()) != "no-worker":
                    # Not yet.
                    assert kind in ("job-timeout", "no-job-server")

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


class TestRefused:
    """Handshakes that a certificate has failed, as OpenSSL fails them."""

    def why(self, server_context: ssl.SSLContext, client_context: ssl.SSLContext) -> str:
        """What is told of the error on the client's side, which is the gateway's."""
        to_client, to_server, from_client, from_server = (ssl.MemoryBIO() for _ in range(4))
        client = client_context.wrap_bio(to_client, from_client, server_hostname="localhost")
        server = server_context.wrap_bio(to_server, from_server, server_side=True)
        steps = [client.do_handshake, lambda: client.read(1)]
        with pytest.raises(ssl.SSLError) as caught:  # noqa: PT012 (which step fails depends on the version)
            for _ in range(10):
                with contextlib.suppress(ssl.SSLWantReadError):
                    steps[0]()
                    steps.pop(0)
                to_server.write(from_client.read())
                with contextlib.suppress(ssl.SSLError):
                    server.do_handshake()
                to_client.write(from_server.read())
        return told(caught.value)

    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    @pytest.mark.parametrize(
        ("shown", "reason"),
        [
            ("none", "wants a certificate of the gateway|perhaps for want of a certificate of the gateway"),
            ("stranger's", "refuses the gateway's certificate: its authority is not known"),
            ("expired", "refuses the gateway's certificate: it has expired"),
        ],
    )
    def test_for_what_the_gateway_shows(self, authority, stranger, version, shown, reason):
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(authority.certificate("localhost"))
        server.load_verify_locations(authority.file)
        server.verify_mode = ssl.CERT_REQUIRED
        client = authority.context()
        client.minimum_version = client.maximum_version = version
        if shown == "stranger's":
            client.load_cert_chain(stranger.certificate("gateway"))
        elif shown == "expired":
            client.load_cert_chain(authority.certificate("gateway", YESTERDAY))
        assert re.search(reason, self.why(server, client))

    @pytest.mark.parametrize(
        ("shown", "reason"),
        [
            ("stranger's", "(self-signed certificate|unable to get local issuer certificate)"),
            ("expired", "certificate has expired"),
            ("other", "Hostname mismatch, certificate is not valid for 'localhost'"),
        ],
    )
    def test_for_what_the_job_server_shows(self, authority, stranger, shown, reason):
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate = {
            "stranger's": lambda: stranger.certificate("localhost"),
            "expired": lambda: authority.certificate("localhost", YESTERDAY),
            "other": lambda: authority.certificate("other.test"),
        }[shown]()
        server.load_cert_chain(certificate)
        assert re.match(f"the job server's certificate is not trusted: {reason}", self.why(server, authority.context()))

    async def test_it_stands_in_the_log(self, authority, stranger, caplog):
        caplog.set_level(logging.WARNING, "gatewayx")
        # asyncio's server closes without an alert.
        with Refusing(verifying(authority)) as refusing:
            async with running_gateway(
                [("localhost", refusing.port, True)],
                server_ca=str(authority.file),
                server_certificate=str(stranger.certificate("gateway")),
            ):
                await eventually(lambda: "the job server refuses the gateway's certificate" in caplog.text)


class HangingUp(Refusing):
    """Shakes hands, and leaves with what comes first; greetings: that."""

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(context)
        self.greetings: list[bytes] = []

    def meet(self, accepted: socket.socket) -> None:
        """See Refusing."""
        with self.context.wrap_socket(accepted, server_side=True) as secured:
            self.greetings.append(secured.recv(65536))


class TestOptionAfterRefusal:
    """A job server that has refused the certificate has hung up as well, and not on OPTION_REQ."""

    async def test_a_refusal_that_is_told_is_not_taken_for_one_of_the_option(self, authority, stranger):
        lets_in = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        lets_in.load_cert_chain(authority.certificate("localhost"))
        # Of a job server the text connection is begun first, and then the one for jobs: both are refused.
        with RefusingTwo(verifying(authority), lets_in) as server:
            async with running_gateway(
                [("localhost", server.port, True)],
                connections_per_server=1,
                server_ca=str(authority.file),
                server_certificate=str(stranger.certificate("gateway")),
            ):
                await eventually(lambda: any(greeting.startswith(b"\0REQ") for greeting in server.greetings))
                [greeting] = [greeting for greeting in server.greetings if greeting.startswith(b"\0REQ")]
                assert greeting.startswith(encode.option_req(b"exceptions"))

    async def test_it_is_sent_again_with_another_certificate(self, authority, monkeypatch):
        waits: list[float] = []

        def long_wait(most_s: float) -> float:
            waits.append(most_s)
            return 3600.0

        # Nothing but the change ends the waits after the first attempts.
        monkeypatch.setattr(keeper, "random_part", long_wait)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(authority.certificate("localhost"))
        with HangingUp(context) as server:

            def of_jobs() -> list[bytes]:
                return [greeting for greeting in server.greetings if greeting.startswith(b"\0REQ")]

            async with running_gateway(
                [("localhost", server.port, True)], connections_per_server=1, server_ca=str(authority.file)
            ) as gateway:
                await eventually(lambda: len(waits) == 2)
                gateway.process.pool.change_tls(authority.context())
                await eventually(lambda: len(of_jobs()) == 2)
        assert [greeting.startswith(encode.option_req(b"exceptions")) for greeting in of_jobs()] == [True, True]


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
