"""Who may use the sockets that worker processes have among each other; the test's process is the master."""

from __future__ import annotations

import errno
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gatewayx.server.relay_sockets import RelaySockets
from support.relay_sockets import (
    KINDS,
    Visit,
    become_a_grandchild,
    connected,
    empty_folder,
    ended,
    fork,
    sockets_of,
    visit,
)

NOBODY = 65534


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where a test has the sockets, if it wants files."""
    with empty_folder(monkeypatch) as folder:
        yield folder


class TestPeers:
    @pytest.fixture(params=KINDS)
    def made(self, request, folder, monkeypatch) -> Iterator[RelaySockets]:
        with sockets_of(request.param, folder, monkeypatch) as made:
            yield made

    def test_a_worker_process_is_ours(self, made):
        assert visit(made) == Visit(True, 0)

    def test_another_user_s_process_gets_nothing(self, made, monkeypatch):
        if os.geteuid() == 0:
            found = visit(made, lambda: os.setuid(NOBODY))
            is_file = isinstance(made.address(1), str)
            assert found == (Visit(None, errno.EACCES) if is_file else Visit(False, 0))
        else:
            # Only root can be another: it is this process that says so of itself.
            monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
            assert visit(made) == Visit(False, 0)

    def test_another_user_s_process_gets_nothing_though_it_finds_the_files_open(self, made, monkeypatch):
        if isinstance(made.address(1), str):
            Path(made.address(1)).chmod(0o777)
            Path(made.address(1)).parent.chmod(0o755)
        if os.geteuid() == 0:
            assert visit(made, lambda: os.setuid(NOBODY)) == Visit(False, 0)
        else:
            monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
            assert visit(made) == Visit(False, 0)

    def test_a_process_of_another_parent_is_not_ours(self, made):
        assert visit(made, become_a_grandchild) == Visit(False, 0)

    def test_a_process_of_another_group_is_not_ours(self, made):
        assert visit(made, lambda: os.setpgid(0, 0)) == Visit(False, 0)

    @pytest.mark.parametrize("hides", ["readlink", "open"])
    def test_the_group_decides_where_proc_does_not_show_the_parent(self, made, monkeypatch, hides):
        def hide(*_: object) -> None:
            raise FileNotFoundError(errno.ENOENT, "hidden")

        monkeypatch.setattr(*((os, "readlink") if hides == "readlink" else ("builtins.open",)), hide)
        assert visit(made, become_a_grandchild) == Visit(True, 0)
        assert visit(made, lambda: os.setpgid(0, 0)) == Visit(False, 0)

    def test_proc_of_another_namespace_tells_nothing(self, made, monkeypatch):
        monkeypatch.setattr(os, "readlink", lambda _: "1")
        assert visit(made, become_a_grandchild) == Visit(True, 0)

    def test_a_process_that_has_ended_is_not_ours(self, made):
        assert ended(fork(lambda: connected(made.address(0)))) == 0
        connection, _ = made.listening(0).accept()
        with connection:
            assert not made.peer_is_ours(connection)

    def test_a_process_without_a_number_here_is_not_ours(self, made):
        class FromElsewhere(socket.socket):
            def getsockopt(self, *_: int) -> bytes:
                return struct.pack("iII", 0, os.geteuid(), os.getegid())

        with FromElsewhere(socket.AF_UNIX) as connection:
            assert not made.peer_is_ours(connection)

    @pytest.mark.parametrize("family", [socket.AF_UNIX, socket.AF_INET])
    def test_nobody_is_not_ours(self, made, family):
        with socket.socket(family) as connection:
            assert not made.peer_is_ours(connection)
        assert not made.peer_is_ours(connection)

    def test_the_master_s_socket_is_known_to_who_connects(self, made):
        def look() -> None:
            with connected(made.address(0)) as connection:
                os._exit(10 if made.peer_is_ours(connection) else 11)

        assert ended(fork(look)) == 10

    def test_a_stranger_s_socket_is_known_to_who_connects(self, made):
        def look() -> None:
            with socket.socket(socket.AF_UNIX) as bound:
                # The kernel finds a name.
                bound.bind("")
                told, tells = os.pipe()
                stranger = os.fork()
                if stranger == 0:
                    bound.listen()
                    os.write(tells, b"!")
                    signal.pause()
                os.read(told, 1)
                with connected(bound.getsockname()) as connection:
                    is_ours = made.peer_is_ours(connection)
                os.kill(stranger, signal.SIGKILL)
                os._exit(10 if is_ours else 11)

        assert ended(fork(look)) == 11

    def test_worker_processes_know_each_other_and_go_on_when_the_master_is_gone(self, folder):
        program = """
import os, socket
from gatewayx.server.relay_sockets import RelaySockets
made, master = RelaySockets(2), os.getpid()
told, tells = os.pipe()
if os.fork() == 0:
    for _ in range(2):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(made.address(0))
            client.recv(1)
        while os.getppid() == master:
            os.sched_yield()
    os._exit(0)
if os.fork() == 0:
    os.close(told)
    made.listening(0).setblocking(True)
    for step in range(2):
        connection, _ = made.listening(0).accept()
        print(step, os.getppid() == master, made.peer_is_ours(connection), flush=True)
        connection.close()
        os.write(tells, b"!")
        while os.getppid() == master:
            os.sched_yield()
    os._exit(0)
os.read(told, 1)
os._exit(0)
"""
        # Where other gateways have their folders, they would connect to find out whether anybody listens.
        environment = {**os.environ, "RUNTIME_DIRECTORY": str(folder)}
        told = subprocess.run(
            [sys.executable, "-c", program], env=environment, check=True, capture_output=True, text=True, timeout=240
        )
        assert told.stdout == "0 True True\n1 False True\n"
