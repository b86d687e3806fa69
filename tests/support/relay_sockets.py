"""The sockets of the relay for tests: a folder for them, of which kind they are, processes that connect to them."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import select
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from gatewayx.server import relay_sockets
from gatewayx.server.relay_sockets import LEFT, RelaySockets
from support.times import WAIT_S

KINDS = ("runtime", "private", "abstract")


@contextlib.contextmanager
def empty_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a short path and open for all to enter; the environment and `BASES` name no other.

    What is made there is not for others to write, whatever this process's umask is.
    """
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    monkeypatch.delenv("TMPDIR", raising=False)
    monkeypatch.setattr(relay_sockets, "BASES", ())
    before = os.umask(0o022)
    try:
        with tempfile.TemporaryDirectory(prefix="gx", dir="/tmp") as made:
            Path(made).chmod(0o755)
            yield Path(made)
    finally:
        os.umask(before)


@contextlib.contextmanager
def sockets_for(places: int = 2) -> Iterator[RelaySockets]:
    """Sockets of this process, which are closed in the end."""
    made = RelaySockets(places)
    try:
        yield made
    finally:
        made.close()


@contextlib.contextmanager
def sockets_of(kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RelaySockets]:
    """Sockets with names of this kind."""
    if kind != "abstract":
        monkeypatch.setenv("RUNTIME_DIRECTORY" if kind == "runtime" else "TMPDIR", str(folder))
    with sockets_for() as made:
        assert kind_of(made, folder) == kind
        yield made


def kind_of(made: RelaySockets, folder: Path) -> str:
    """Of which kind the names are, all of them, of which those that are files stand in this folder."""
    addresses = [made.address(place) for place in range(2)]
    assert len(set(addresses)) == 2
    if all(isinstance(address, bytes) for address in addresses):
        assert all(re.fullmatch(rb"\0gatewayx-relay-[0-9a-f]{32}\.[01]", address) for address in addresses)
        return "abstract"
    assert all(LEFT.fullmatch(Path(address).name) for address in addresses)
    [parent] = {Path(address).parent for address in addresses}
    if parent == folder:
        return "runtime"
    assert re.fullmatch(r"gatewayx-[0-9a-f]{16}", parent.name)
    assert parent.parent == folder
    return "private"


def names_in(folder: Path) -> list[str]:
    """Everything below a folder."""
    return sorted(str(found.relative_to(folder)) for found in folder.rglob("*"))


def left_behind(path: Path) -> Path:
    """A socket on which nobody listens any more."""
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))
        bound.listen()
    return path


def connected(address: str | bytes) -> socket.socket:
    """A connection there."""
    client = socket.socket(socket.AF_UNIX)
    client.connect(address)
    return client


def is_refused(path: Path) -> bool:
    """Whether nobody listens there."""
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == errno.ECONNREFUSED


def fork(function: Callable[[], object]) -> int:
    """The process id of a child that does this; its exit code is 0, or the number of an OSError."""
    process_id = os.fork()
    if process_id:
        return process_id
    exit_code = 255
    try:
        function()
        exit_code = 0
    except OSError as error:
        exit_code = error.errno
    finally:
        os._exit(exit_code)


def ended(process_id: int) -> int:
    """The exit code of a child, once it has ended."""
    return os.waitstatus_to_exitcode(os.waitpid(process_id, 0)[1])


class Visit(NamedTuple):
    """What became of a process that connects: whether it was found to be ours, None if it could not; and why not."""

    is_ours: bool | None
    error: int


def visit(made: RelaySockets, prepare: Callable[[], object] = lambda: None) -> Visit:
    """A child of this process, which is the master, does this and connects."""

    def connect() -> None:
        prepare()
        with connected(made.address(1)) as client:
            # It stays for as long as it is looked at.
            client.recv(1)

    process_id = fork(connect)
    is_ours = None
    end = os.pidfd_open(process_id)
    try:
        ready, _, _ = select.select([made.listening(1), end], [], [], WAIT_S)
        if made.listening(1) in ready:
            connection, _ = made.listening(1).accept()
            with connection:
                is_ours = made.peer_is_ours(connection)
    finally:
        os.close(end)
        if not ready:
            os.kill(process_id, signal.SIGKILL)
    return Visit(is_ours, ended(process_id))


def become_a_grandchild() -> None:
    """Go on in a child of this process, whose exit code becomes this one's."""
    process_id = os.fork()
    if process_id:
        os._exit(ended(process_id))
