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
