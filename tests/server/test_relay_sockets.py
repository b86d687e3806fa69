"""The sockets that worker processes have among each other: where they are, how they are guarded, and that they go."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gatewayx.errors import StartError
from gatewayx.server import relay_sockets
from gatewayx.server.relay_sockets import FILE_RANDOM_BYTES, HALF_MADE, LEFT, PREFIX, RelaySockets
from support.gateway import ServeProcess, eventually
from support.relay_sockets import (
    KINDS,
    Visit,
    connected,
    empty_folder,
    ended,
    fork,
    is_refused,
    kind_of,
    names_in,
    sockets_for,
    sockets_of,
    visit,
)

NOBODY = 65534
# A folder that belongs to every process that looks, and in which even root can make nothing.
UNWRITABLE = "/proc/self"
MAX_PATH_BYTES = 107
NAME_BYTES = len(f"{PREFIX}{'0' * 2 * FILE_RANDOM_BYTES}.0{HALF_MADE}")
CLONE_NEWNS = 0x20000
CLONE_NEWUSER = 0x10000000
# An exit code that no program of these tests has otherwise.
NOT_PERMITTED = 77


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where a test has the sockets, if it wants files."""
    with empty_folder(monkeypatch) as folder:
        yield folder


class TestRuntimeDirectory:
    def test_has_the_sockets_which_all_listen_and_go_in_the_end(self, folder, monkeypatch):
        monkeypatch.setenv("RUNTIME_DIRECTORY", str(folder))
        with sockets_for(12) as made:
            assert len(names_in(folder)) == 12
            for place in range(12):
                with connected(made.address(place)) as client:
                    client.sendall(b"%d" % place)
                    accepted, _ = made.listening(place).accept()
                    with accepted:
                        assert accepted.recv(9) == b"%d" % place
                assert not made.listening(place).getblocking()
        assert names_in(folder) == []

    @pytest.mark.parametrize("umask", [0, 0o022, 0o777])
    def test_lets_only_this_user_use_them_whatever_the_umask(self, folder, monkeypatch, umask):
        monkeypatch.setenv("RUNTIME_DIRECTORY", str(folder))
        before = os.umask(umask)
        try:
            with sockets_for() as made:
                for place in range(2):
                    found = Path(made.address(place)).lstat()
                    assert stat.S_ISSOCK(found.st_mode)
                    assert stat.S_IMODE(found.st_mode) == 0o600
        finally:
            os.umask(before)

    @pytest.mark.parametrize("mode", [0o700, 0o750, 0o755, 0o2755])
    def test_is_the_first_of_several(self, folder, monkeypatch, mode):
        folder.chmod(mode)
        monkeypatch.setenv("RUNTIME_DIRECTORY", f"{folder}:/nowhere")
        with sockets_for() as made:
            assert kind_of(made, folder) == "runtime"

    def test_may_be_a_link(self, folder, monkeypatch):
        (folder / "private").mkdir()
        (folder / "link").symlink_to("private")
        monkeypatch.setenv("RUNTIME_DIRECTORY", str(folder / "link"))
        with sockets_for() as made:
            assert kind_of(made, folder / "link") == "runtime"
            assert len(names_in(folder / "private")) == 2

    @pytest.mark.parametrize("mode", [0o770, 0o720, 0o702, 0o777, 0o1777])
    def test_is_not_used_when_others_may_write_there(self, folder, monkeypatch, mode):
        open_to_others = folder / "open"
        open_to_others.mkdir()
        open_to_others.chmod(mode)
        monkeypatch.setenv("RUNTIME_DIRECTORY", str(open_to_others))
        with sockets_for() as made:
            assert kind_of(made, folder) == "abstract"
            assert names_in(folder) == ["open"]

    def test_is_not_used_when_it_is_another_user_s(self, folder, monkeypatch):
        other = folder / "other"
        other.mkdir()
        if os.geteuid() == 0:
            os.chown(other, NOBODY, NOBODY)
        else:
            monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
        monkeypatch.setenv("RUNTIME_DIRECTORY", str(other))
        with sockets_for() as made:
            assert kind_of(made, folder) == "abstract"
            assert names_in(folder) == ["other"]

    @pytest.mark.parametrize("value", ["", ":{}", "relative", "./{}", "{}/none", "{}/file", UNWRITABLE])
    def test_that_does_not_do_is_passed_over(self, folder, monkeypatch, value):
        monkeypatch.chdir(folder)
        (folder / "relative").mkdir(mode=0o700)
        (folder / "file").touch(mode=0o700)
        monkeypatch.setenv("RUNTIME_DIRECTORY", value.format(folder))
        monkeypatch.setenv("TMPDIR", str(folder))
        with sockets_for() as made:
            assert kind_of(made, folder) == "private"
        assert names_in(folder) == ["file", "relative"]

    @pytest.mark.parametrize(("beyond", "kind"), [(0, "runtime"), (1, "private"), (100, "private")])
    def test_is_passed_over_when_its_path_is_too_long_for_a_socket(self, folder, monkeypatch, beyond, kind):
        length = MAX_PATH_BYTES - NAME_BYTES - len("/") + beyond
        long = folder / "d".ljust(length - len(f"{folder}/"), "d")
        long.mkdir(mode=0o700)
        monkeypatch.setenv("RUNTIME_DIRECTORY", str(long))
        monkeypatch.setenv("TMPDIR", str(folder))
        with sockets_for() as made:
            assert kind_of(made, long if kind == "runtime" else folder) == kind
        assert names_in(folder) == [long.name]

    def test_has_none_of_them_when_it_cannot_have_all(self, folder, monkeypatch):
        # The number of the eleventh place has two digits.
        length = MAX_PATH_BYTES - NAME_BYTES - len("/")
        long = folder / "d".ljust(length - len(f"{folder}/"), "d")
        long.mkdir(mode=0o700)
        monkeypatch.setenv("RUNTIME_DIRECTORY", str(long))
        with sockets_for(10) as made:
            assert kind_of(made, long) == "runtime"
        with sockets_for(11) as made:
            assert kind_of(made, long) == "abstract"
            assert made.address(10).endswith(b".10")
            assert names_in(long) == []

    def test_may_be_gone_before_the_end(self, folder, monkeypatch):
        runtime = folder / "runtime"
        runtime.mkdir()
        monkeypatch.setenv("RUNTIME_DIRECTORY", str(runtime))
        with sockets_for() as made:
            for place in range(2):
                Path(made.address(place)).unlink()
            runtime.rmdir()
        assert names_in(folder) == []


class TestPrivateFolder:
    def test_is_for_this_user_alone_and_goes_in_the_end(self, folder, monkeypatch):
        monkeypatch.setenv("TMPDIR", str(folder))
        before = os.umask(0)
        try:
            with sockets_for() as made:
                assert kind_of(made, folder) == "private"
                private = Path(made.address(0)).parent
                assert stat.S_IMODE(private.lstat().st_mode) == 0o700
                assert {stat.S_IMODE(found.lstat().st_mode) for found in private.iterdir()} == {0o600}
        finally:
            os.umask(before)
        assert names_in(folder) == []

    @pytest.mark.parametrize("temporary", ["", "relative", "{}/none", "{}/file", UNWRITABLE, "{}/" + 100 * "d"])
    def test_is_in_the_first_that_can_be_had(self, folder, monkeypatch, temporary):
        monkeypatch.chdir(folder)
        for name in ("relative", "second", 100 * "d"):
            (folder / name).mkdir()
        (folder / "file").touch()
        before = names_in(folder)
        monkeypatch.setenv("TMPDIR", temporary.format(folder))
        monkeypatch.setattr(relay_sockets, "BASES", (UNWRITABLE, str(folder / "second"), str(folder)))
        with sockets_for() as made:
            assert kind_of(made, folder / "second") == "private"
        assert names_in(folder) == before

    @pytest.mark.parametrize(
        ("mode", "kind"),
        [(0o700, "private"), (0o1777, "private"), (0o1770, "private"), (0o777, "abstract"), (0o770, "abstract")],
    )
    def test_is_not_where_others_could_put_another_in_its_place(self, folder, monkeypatch, mode, kind):
        folder.chmod(mode)
        monkeypatch.setenv("TMPDIR", str(folder))
        with sockets_for() as made:
            assert kind_of(made, folder) == kind

    def test_is_not_in_a_folder_of_another_user_but_root(self, folder, monkeypatch):
        base = folder / "base"
        base.mkdir()
        if os.geteuid() == 0:
            os.chown(base, NOBODY, NOBODY)
        else:
            monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
        monkeypatch.setenv("TMPDIR", str(base))
        with sockets_for() as made:
            assert kind_of(made, base) == "abstract"
            assert names_in(folder) == ["base"]

    def test_is_not_on_a_file_system_that_has_no_modes(self, folder, monkeypatch):
        made_by_system = os.mkdir

        def without_modes(path: str, mode: int) -> None:
            made_by_system(path, mode)
            Path(path).chmod(0o755)

        monkeypatch.setattr(os, "mkdir", without_modes)
        monkeypatch.setenv("TMPDIR", str(folder))
        with sockets_for() as made:
            assert kind_of(made, folder) == "abstract"
            assert names_in(folder) == []

    def test_keeps_what_somebody_else_has_put_there(self, folder, monkeypatch):
        monkeypatch.setenv("TMPDIR", str(folder))
        with sockets_for() as made:
            private = Path(made.address(0)).parent
            (private / "precious").touch()
        assert names_in(folder) == [private.name, f"{private.name}/precious"]


# Makes what these folders are read-only, for itself alone, and then the sockets.
READ_ONLY = f"""
import ctypes, os, sys
libc = ctypes.CDLL(None)
user = 0 if os.geteuid() == 0 else {CLONE_NEWUSER}
PRIVATE, BIND, REMOUNT, READ_ONLY, RECURSIVE = 1 << 18, 1 << 12, 1 << 5, 1, 1 << 14
def mount(source, target, flags):
    if libc.mount(source, target.encode(), None, flags, None) != 0:
        os._exit({NOT_PERMITTED})
if libc.unshare({CLONE_NEWNS} | user) != 0:
    os._exit({NOT_PERMITTED})
mount(None, "/", PRIVATE | RECURSIVE)
for folder in sys.argv[1:]:
    mount(folder.encode(), folder, BIND | RECURSIVE)
    # Without privileges those flags have to stay which are the same in both calls: nosuid, nodev, noexec.
    mount(None, folder, REMOUNT | BIND | READ_ONLY | os.statvfs(folder).f_flag & 0b1110)
from gatewayx.server.relay_sockets import RelaySockets
made = RelaySockets(2)
print([made.address(place) for place in range(2)])
made.close()
"""


def kinds_of_read_only() -> list[str]:
    """Folders that are read-only for one process are for root, or for whom else the machine lets have them."""
    tried = subprocess.run([sys.executable, "-c", READ_ONLY, "/"], check=False, capture_output=True)
    return ["answers"] if tried.returncode == NOT_PERMITTED else ["answers", "mounts"]


class TestReadOnly:
    @pytest.mark.parametrize("by", kinds_of_read_only())
    @pytest.mark.parametrize("kind", ["private", "abstract"])
    def test_file_systems_leave_names_that_need_none(self, folder, monkeypatch, by, kind):
        read_only = ["/", "/run", "/tmp", *(["/dev/shm"] if kind == "abstract" else [])]
        if by == "mounts":
            program = [sys.executable, "-c", READ_ONLY, *read_only]
            environment = {**os.environ, "RUNTIME_DIRECTORY": str(folder)}
            told = subprocess.run(program, env=environment, check=True, capture_output=True, text=True).stdout
            assert told.startswith("['/dev/shm/gatewayx-" if kind == "private" else r"[b'\x00gatewayx-relay-")
            return
        writable = folder / "writable"
        writable.mkdir()
        self._answer_for_read_only(monkeypatch, [writable] if kind == "private" else [])
        monkeypatch.setenv("RUNTIME_DIRECTORY", str(folder))
        monkeypatch.setattr(relay_sockets, "BASES", (str(folder), str(writable)))
        with sockets_for() as made:
            assert kind_of(made, writable) == kind
        assert names_in(folder) == ["writable"]

    @staticmethod
    def _answer_for_read_only(monkeypatch: pytest.MonkeyPatch, writable: list[Path]) -> None:
        make, bind = os.mkdir, socket.socket.bind

        def refuse(path: str | bytes) -> None:
            is_file = isinstance(path, str)
            if is_file and not any(Path(path).is_relative_to(folder) for folder in writable):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS))

        def mkdir(path: str, mode: int) -> None:
            refuse(path)
            make(path, mode)

        def bind_there(bound: socket.socket, address: str | bytes) -> None:
            refuse(address)
            bind(bound, address)

        monkeypatch.setattr(os, "mkdir", mkdir)
        monkeypatch.setattr(socket.socket, "bind", bind_there)


class TestEnd:
    @pytest.mark.parametrize("kind", KINDS)
    def test_of_a_forked_process_leaves_the_files_to_the_master(self, folder, monkeypatch, kind):
        with sockets_of(kind, folder, monkeypatch) as made:
            before = names_in(folder)
            assert ended(fork(made.close)) == 0
            assert names_in(folder) == before
            assert visit(made) == Visit(True, 0)
            made.close()
            made.close()
        assert names_in(folder) == []

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("call", ["socket", "listen"])
    def test_of_a_start_that_fails_leaves_nothing_and_says_why(self, folder, monkeypatch, kind, call):
        if kind != "abstract":
            monkeypatch.setenv("RUNTIME_DIRECTORY" if kind == "runtime" else "TMPDIR", str(folder))
        calls = []

        def fail(*_: object) -> None:
            calls.append(names_in(folder))
            raise OSError(errno.ENOBUFS, "No buffer space available")

        class Failing(socket.socket):
            pass

        setattr(Failing, "__init__" if call == "socket" else call, fail)
        Failing.__del__ = lambda _: None
        monkeypatch.setattr(socket, "socket", Failing)
        with pytest.raises(StartError) as caught:
            RelaySockets(2)
        assert str(caught.value) == "worker processes cannot have sockets: No buffer space available"
        assert len(calls) == (1 if kind == "abstract" else 2)
        assert names_in(folder) == []

    def test_of_a_start_that_fails_half_way_leaves_no_socket_open(self, folder, monkeypatch):
        bind, names = socket.socket.bind, []

        def bind_one(bound: socket.socket, address: bytes) -> None:
            names.append(address)
            if len(names) == 2:
                raise OSError(errno.ENOBUFS, "No buffer space available")
            bind(bound, address)

        monkeypatch.setattr(socket.socket, "bind", bind_one)
        with pytest.raises(StartError), sockets_for():
            pass
        with socket.socket(socket.AF_UNIX) as client:
            assert client.connect_ex(names[0]) == errno.ECONNREFUSED


@pytest.mark.anyio
class TestServe:
    @pytest.fixture
    def arguments(self, embedded) -> tuple[str, ...]:
        return ("--listen", "127.0.0.1:0", "--server", f"127.0.0.1:{embedded.address[1]}", "--workers")

    @pytest.fixture(autouse=True)
    def _runtime(self, folder, monkeypatch):
        monkeypatch.setenv("RUNTIME_DIRECTORY", str(folder))

    async def test_there_is_one_for_each_of_several_worker_processes_until_the_end(self, folder, arguments):
        async with ServeProcess(*arguments, "3") as served:
            await served.until("listens on")
            names = names_in(folder)
            assert [name.rpartition(".")[2] for name in names] == ["0", "1", "2"]
            assert all(LEFT.fullmatch(name) for name in names)
            before = served.workers()
            os.kill(before[1], signal.SIGSTOP)
            with contextlib.closing(connected(str(folder / names[1]))) as client:
                # Who waits there waits for the next one.
                os.kill(before[1], signal.SIGKILL)
                await eventually(lambda: len(served.workers()) == 3 and before[1] not in served.workers())
                client.setblocking(False)
                # Who gets to it may have found out that it is a stranger; it was not reset.
                with contextlib.suppress(BlockingIOError):
                    assert client.recv(1) == b""
            assert names_in(folder) == names
            served.signal(signal.SIGTERM)
            assert await served.ended() == 0
        assert names_in(folder) == []

    async def test_there_is_none_for_one_worker_process(self, folder, arguments):
        async with ServeProcess(*arguments, "1") as served:
            await served.until("listens on")
            assert names_in(folder) == []

    async def test_two_gateways_share_a_folder(self, folder, arguments):
        async with ServeProcess(*arguments, "2") as first, ServeProcess(*arguments, "2") as second:
            for served in (first, second):
                await served.until("listens on")
            assert len(names_in(folder)) == 4
            first.signal(signal.SIGTERM)
            assert await first.ended() == 0
            for name in names_in(folder):
                connected(str(folder / name)).close()
            assert len(names_in(folder)) == 2

    @pytest.mark.parametrize("runtime", [True, False], ids=["runtime", "private"])
    async def test_nothing_is_left_when_the_start_fails(self, folder, arguments, monkeypatch, runtime):
        if not runtime:
            monkeypatch.delenv("RUNTIME_DIRECTORY")
            monkeypatch.setenv("TMPDIR", str(folder))
        cannot_fork = f"""
import os, pathlib
def fork():
    raise OSError(11, f"{{len([*pathlib.Path({str(folder)!r}).rglob('*.[0-9]')])}} sockets")
os.fork = fork
"""
        async with ServeProcess(*arguments, "2", before=cannot_fork) as served:
            assert await served.ended() == 1
        assert served.lines[-1] == "gatewayx: a worker process cannot be started: 2 sockets\n"
        assert names_in(folder) == []

    async def test_nothing_is_left_when_a_second_signal_ends_it(self, folder, arguments):
        async with ServeProcess(*arguments, "2", "--shutdown-delay", "3600") as served:
            await served.until("listens on")
            served.signal(signal.SIGTERM)
            await served.until("stopping in 3600 s")
            assert len(names_in(folder)) == 2
            served.signal(signal.SIGTERM)
            assert await served.ended() == 1
        assert names_in(folder) == []

    async def test_what_a_killed_one_leaves_goes_with_the_next(self, folder, arguments):
        async with ServeProcess(*arguments, "3") as served:
            await served.until("listens on")
            left = names_in(folder)
            workers = served.workers()
            served.signal(signal.SIGSTOP)
            for process_id in (*workers, served.process.pid):
                os.kill(process_id, signal.SIGKILL)
            await served.ended()
        assert names_in(folder) == left
        # The last one of them may be a moment behind.
        await eventually(lambda: all(is_refused(folder / name) for name in left))
        async with ServeProcess(*arguments, "2") as served:
            await served.until("listens on")
            assert len(names_in(folder)) == 2
            assert not set(left) & set(names_in(folder))
