"""TLS in front of anything that speaks plainly, with certificates made for the test."""

from __future__ import annotations

import atexit
import datetime
import functools
import ssl
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType

import trustme

from support.gearmand import die_with_parent


class Authority:
    """A certificate authority; its files are in `directory`."""

    def __init__(self, directory: Path, name: str = "authority") -> None:
        self.directory = directory
        self.name = name
        self.authority = trustme.CA()
        self.file = directory / f"{name}.pem"
        self.authority.cert_pem.write_to_path(str(self.file))

    def certificate(self, host: str, ends: datetime.datetime | None = None) -> Path:
        """A file with a certificate for a host name or address, and its key. ends: when it ends to be good."""
        path = self.directory / f"{self.name}-{host}.pem"
        self.authority.issue_cert(host, not_after=ends).private_key_and_cert_chain_pem.write_to_path(str(path))
        return path

    def pair(
        self,
        *names: str,
        ends: datetime.datetime | None = None,
        begins: datetime.datetime | None = None,
        key_type: trustme.KeyType = trustme.KeyType.ECDSA,
        common_name: str | None = None,
    ) -> tuple[bytes, bytes]:
        """A certificate for these names and addresses, with those behind it, and its key."""
        made = self.authority.issue_cert(
            *names, not_after=ends, not_before=begins, key_type=key_type, common_name=common_name
        )
        return b"".join(blob.bytes() for blob in made.cert_chain_pems), made.private_key_pem.bytes()

    def context(self) -> ssl.SSLContext:
        """For clients that trust it."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.file)
        return context


@functools.cache
def authority() -> Authority:
    """One of this process, for tests that ask for no other."""
    directory = tempfile.TemporaryDirectory(prefix="gatewayx-authority-")
    atexit.register(directory.cleanup)
    return Authority(Path(directory.name))


class TlsTerminator:
    """A TLS proxy in front of `target`, (host, port), as a process; a context manager. `port`: where it listens on
    127.0.0.1.

    certificate: file of what it shows. clients: only those with a certificate of this authority are let in; None for
    any.
    """

    def __init__(self, target: tuple[str, int], certificate: Path, clients: Authority | None = None) -> None:
        program = Path(__file__).with_name("tls_terminator.py")
        self.command = [sys.executable, str(program), target[0], str(target[1]), str(certificate)]
        if clients is not None:
            self.command.append(str(clients.file))

    def __enter__(self) -> TlsTerminator:
        self.process = subprocess.Popen(
            self.command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, preexec_fn=die_with_parent
        )
        self.port = int(self.process.stdout.readline())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def shake(
    server_context: ssl.SSLContext,
    client_context: ssl.SSLContext,
    name: str | None,
    session: ssl.SSLSession | None = None,
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """A client and a server after their handshake, in memory; a byte was passed on. Raises ssl.SSLError.

    name: that the client asks for. session: that it would take up.
    """
    to_client, to_server, from_client, from_server = (ssl.MemoryBIO() for _ in range(4))
    client = client_context.wrap_bio(to_client, from_client, server_hostname=name, session=session)
    server = server_context.wrap_bio(to_server, from_server, server_side=True)
    waiting = [client, server]
    while waiting:
        for side in tuple(waiting):
            try:
                side.do_handshake()
                waiting.remove(side)
            except ssl.SSLWantReadError:
                pass
            to_server.write(from_client.read())
            to_client.write(from_server.read())
    # In TLS 1.3 sessions come after the handshake, and refusals of the client's certificate.
    server.write(b"x")
    to_client.write(from_server.read())
    assert client.read(1) == b"x"
    return client, server
