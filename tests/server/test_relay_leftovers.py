"""What killed gateways leave of the sockets among their worker processes, and what of others is not touched."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gatewayx.server import relay_sockets
from gatewayx.server.relay_sockets import HALF_MADE, LEFT, PREFIX
from support.relay_sockets import connected, empty_folder, kind_of, left_behind, names_in, sockets_for

NOBODY = 65534


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where a test has the sockets, if it wants files."""
    with empty_folder(monkeypatch) as folder:
        yield folder


class TestWhatIsLeft:
    @pytest.fixture(autouse=True)
    def _runtime(self, folder, monkeypatch):
        monkeypatch.setenv("RUNTIME_DIRECTORY", str(folder))

    def test_of_a_gateway_that_nobody_has_any_more_is_removed(self, folder):
        left = [left_behind(folder / f"{PREFIX}{'0a' * 8}.{place}") for place in (0, 17)]
        with sockets_for():
            assert not any(path.exists() for path in left)
            assert len(names_in(folder)) == 2

    @pytest.mark.parametrize("queued", [0, 3], ids=["free", "full"])
    def test_of_a_gateway_that_somebody_still_has_stays(self, folder, queued):
        path = folder / f"{PREFIX}{'0a' * 8}.0"
        with socket.socket(socket.AF_UNIX) as other, contextlib.ExitStack() as stack:
            other.bind(str(path))
            other.listen(0)
            for _ in range(queued):
                client = stack.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    client.connect(str(path))
            with sockets_for():
                assert path.is_socket()
            assert names_in(folder) == [path.name]

    def test_of_others_stays(self, folder):
        name = f"{PREFIX}{'0a' * 8}.0"
        for other in (f"{name}{HALF_MADE}", f"x{name}", name[:-1], f"{PREFIX}0a.0", "http.sock"):
            left_behind(folder / other)
        (folder / f"{PREFIX}{'0b' * 8}.0").touch()
        (folder / f"{PREFIX}{'0c' * 8}.0").symlink_to(left_behind(folder / "other"))
        before = names_in(folder)
        with sockets_for():
            assert len(names_in(folder)) == len(before) + 2
        assert names_in(folder) == before

    def test_is_removed_in_bounds(self, folder, monkeypatch):
        monkeypatch.setattr(relay_sockets, "MOST_LEFT", 3)
        for place in range(5):
            left_behind(folder / f"{PREFIX}{'0a' * 8}.{place}")
        with sockets_for():
            assert len(names_in(folder)) == 2 + 2
        monkeypatch.setattr(relay_sockets, "MOST_ENTRIES", 1)
        with sockets_for():
            assert len(names_in(folder)) == 2 + 1
        assert len(names_in(folder)) == 1

    def test_does_not_look_like_a_gateway_that_is_just_starting(self, folder, monkeypatch):
        listen, seen = socket.socket.listen, []

        def look(bound: socket.socket, backlog: int) -> None:
            [name] = names_in(folder)
            seen.append((stat.S_IMODE((folder / name).lstat().st_mode), LEFT.fullmatch(name)))
            listen(bound, backlog)

        monkeypatch.setattr(socket.socket, "listen", look)
        with sockets_for(1):
            # It is closed to others before it listens, and has its name after that.
            assert seen == [(0o600, None)]
            assert LEFT.fullmatch(names_in(folder)[0])

    def test_is_never_that_of_a_gateway_that_starts_at_the_same_time(self, folder):
        program = """
import os, socket
from gatewayx.server.relay_sockets import RelaySockets
for turn in range(100):
    made = RelaySockets(3)
    for place in range(3):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(made.address(place))
    if turn % 2:
        made.close()
    else:
        # As when it is killed.
        for place in range(3):
            made.listening(place).close()
"""
        processes = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(3)]
        try:
            assert [process.wait(timeout=240) for process in processes] == [0, 0, 0]
        finally:
            for process in processes:
                process.kill()
                process.wait()
        with sockets_for():
            assert len(names_in(folder)) == 2


class TestFoldersThatAreLeft:
    @pytest.fixture(autouse=True)
    def _base(self, folder, monkeypatch):
        monkeypatch.setattr(relay_sockets, "BASES", (str(folder),))

    @staticmethod
    def left_in(folder: Path, name: str = f"gatewayx-{'0a' * 8}") -> Path:
        """A folder with two sockets of a gateway that was killed."""
        (folder / name).mkdir(mode=0o700)
        for place in range(2):
            left_behind(folder / name / f"{PREFIX}{'0b' * 8}.{place}")
        return folder / name

    def test_by_a_gateway_that_is_gone_are_removed(self, folder):
        left = self.left_in(folder)
        with sockets_for() as made:
            assert kind_of(made, folder) == "private"
            assert not left.exists()
        assert names_in(folder) == []

    def test_in_another_folder_of_the_environment_stay(self, folder, monkeypatch):
        # It may be another host's as well, and who listens there nobody here can tell.
        monkeypatch.setattr(relay_sockets, "BASES", ())
        monkeypatch.setenv("TMPDIR", str(folder))
        left = self.left_in(folder)
        with sockets_for() as made:
            assert kind_of(made, folder) == "private"
        assert len(list(left.iterdir())) == 2

    def test_by_a_master_whose_worker_processes_still_listen_stay(self, folder):
        with sockets_for() as first:
            before = names_in(folder)
            with sockets_for() as second:
                assert kind_of(second, folder) == "private"
            assert names_in(folder) == before
            connected(first.address(1)).close()

    def test_are_not_those_of_a_gateway_that_is_just_starting(self, folder, monkeypatch):
        # The one has made its folder, and no socket in it, when the other looks.
        make, others = os.mkdir, []

        def start_another(path: str, mode: int) -> None:
            make(path, mode)
            if not others:
                others.append(None)
                with sockets_for():
                    pass

        monkeypatch.setattr(os, "mkdir", start_another)
        with sockets_for() as made:
            assert others
            assert kind_of(made, folder) == "private"

    @pytest.mark.parametrize("kind", ["name", "link", "file", "half-made", "more", "user"])
    def test_by_others_stay(self, folder, monkeypatch, kind):
        left = self.left_in(folder, "other" if kind in ("name", "link") else f"gatewayx-{'0a' * 8}")
        if kind == "link":
            (folder / f"gatewayx-{'0a' * 8}").symlink_to(left)
        elif kind == "file":
            (folder / f"gatewayx-{'0c' * 8}").touch()
        elif kind == "half-made":
            left_behind(left / f"{PREFIX}{'0b' * 8}.2{HALF_MADE}")
        elif kind == "more":
            (left / "precious").touch()
        elif kind == "user":
            if os.geteuid() == 0:
                os.chown(left, NOBODY, NOBODY)
            else:
                monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
        sockets = {str(path.relative_to(folder)) for path in left.iterdir() if LEFT.fullmatch(path.name)}
        before = set(names_in(folder))
        with sockets_for():
            pass
        if kind == "file":
            assert names_in(folder) == [f"gatewayx-{'0c' * 8}"]
        elif kind in ("half-made", "more"):
            assert set(names_in(folder)) == before - sockets
        else:
            assert set(names_in(folder)) == before

    def test_are_removed_in_bounds(self, folder, monkeypatch):
        monkeypatch.setattr(relay_sockets, "MOST_LEFT_FOLDERS", 2)
        for number in range(3):
            self.left_in(folder, f"gatewayx-{number:016x}")
        with sockets_for():
            pass
        assert len(list(folder.iterdir())) == 1
