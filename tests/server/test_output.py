"""Where the access log goes: what is opened and how, what happens when that fails, and what the log says of it."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import logging
import os
import pty
import select
import socket
import stat
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gatewayx.core.access_batch import HELD, AccessBatch
from gatewayx.core.access_line import line_of
from gatewayx.errors import StartError
from gatewayx.server import output
from gatewayx.server.output import RETRY_S, TELL_EVERY_S, AccessOutput

LINE = {"path": b"/f", "status": 200, "outcome": b"ok"}
# More than is held for a reader.
MANY = 2 * HELD // len(line_of(**LINE))


def requests(lines: str) -> list[int]:
    """The numbers of whole lines."""
    assert not lines or lines.endswith("\n")
    return [json.loads(line)["request"] for line in lines.splitlines()]


@pytest.fixture
def batch() -> AccessBatch:
    """The lines of a process."""
    return AccessBatch()


@pytest.fixture
def opened(batch: AccessBatch) -> Iterator[Callable[[str | None], AccessOutput]]:
    """Makes the way out of the batch; closed in the end."""
    made: list[AccessOutput] = []

    def make(path: Path | str | None) -> AccessOutput:
        made.append(AccessOutput(batch, None if path is None else str(path)))
        return made[-1]

    yield make
    for each in made:
        each.close()


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the event log was told."""
    return [record.getMessage() for record in caplog.records]


class TestFile:
    def test_it_is_made_for_its_owner_and_group_and_appended_to(self, tmp_path, batch, opened):
        path = tmp_path / "log"
        before = os.umask(0)
        try:
            out = opened(path)
        finally:
            os.umask(before)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        batch.add_lines(3, **LINE)
        assert out.waits
        out.tick(0)
        assert not out.waits
        path.write_text("")
        batch.add_lines(2, **LINE)
        out.tick(0)
        # As after `copytruncate`: nothing is written where the end was before.
        assert requests(path.read_text()) == [0, 1]

    def test_its_descriptor_is_neither_inherited_nor_waited_for(self, tmp_path):
        found = output.open_output(str(tmp_path / "log"))
        flags = fcntl.fcntl(found.descriptor, fcntl.F_GETFL)
        assert flags & os.O_APPEND
        assert flags & os.O_NONBLOCK
        assert fcntl.fcntl(found.descriptor, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
        assert found.is_file
        found.close()

    def test_opened_anew_what_waits_goes_to_the_old_file_and_what_comes_to_the_new_one(self, tmp_path, batch, opened):
        path = tmp_path / "log"
        out = opened(path)
        batch.add_lines(5, **LINE)
        path.rename(tmp_path / "old")
        out.reopen()
        batch.add_lines(4, **LINE)
        out.tick(0)
        assert requests((tmp_path / "old").read_text()) == list(range(5))
        assert requests(path.read_text()) == list(range(4))
        assert batch.dropped == 0

    def test_one_that_cannot_be_opened_anew_stays_in_use(self, tmp_path, batch, opened, caplog):
        path = tmp_path / "folder" / "log"
        path.parent.mkdir()
        out = opened(path)
        path.parent.rename(tmp_path / "moved")
        out.reopen()
        batch.add_lines(2, **LINE)
        out.tick(0)
        assert requests((tmp_path / "moved" / "log").read_text()) == [0, 1]
        assert told(caplog) == [
            f"the access log {path} cannot be opened anew, so the one that is open stays in use: "
            "No such file or directory"
        ]

    def test_another_one_takes_its_place_as_soon_as_it_can_be_opened(self, tmp_path, batch, opened, caplog):
        out = opened(tmp_path / "one")
        batch.add_lines(1, **LINE)
        asyncio.run(out.change(str(tmp_path / "two")))
        batch.add_lines(2, **LINE)
        asyncio.run(out.change(str(tmp_path / "none" / "three")))
        batch.add_lines(3, **LINE)
        out.tick(0)
        assert out.path == str(tmp_path / "none" / "three")
        assert requests((tmp_path / "one").read_text()) == [0]
        assert requests((tmp_path / "two").read_text()) == [0, 1, 0, 1, 2]
        assert told(caplog) == [
            f"the access log {tmp_path}/none/three cannot be opened, so the one that is open stays in use: "
            "No such file or directory"
        ]
        asyncio.run(out.change(None))
        batch.add_lines(1, **LINE)
        assert batch.dropped == 1
        assert not out.waits

    def test_one_that_cannot_be_opened_is_tried_again_and_what_is_lost_is_told(self, tmp_path, batch, opened, caplog):
        path = tmp_path / "folder" / "log"
        out = opened(path)
        assert out.waits
        batch.add_lines(7, **LINE)
        out.tick(100)
        path.parent.mkdir()
        out.tick(100 + RETRY_S / 2)
        batch.add_lines(2, **LINE)
        out.tick(100 + RETRY_S)
        batch.add_lines(3, **LINE)
        out.tick(101 + RETRY_S)
        assert requests(path.read_text()) == [0, 1, 2]
        assert batch.dropped == 9
        assert told(caplog) == [
            f"the access log {path} cannot be opened, so its lines are dropped: No such file or directory",
            "7 lines of the access log were dropped: No such file or directory",
            f"the access log {path} is open",
        ]
        out.tick(100 + TELL_EVERY_S)
        assert told(caplog)[3:] == ["2 lines of the access log were dropped: No such file or directory"]

    def test_one_that_cannot_be_opened_where_there_was_none_is_tried_again(self, tmp_path, batch, opened, caplog):
        path = tmp_path / "folder" / "log"
        out = opened(None)
        out.tick(0)
        asyncio.run(out.change(str(path)))
        batch.add_lines(2, **LINE)
        path.parent.mkdir()
        out.tick(RETRY_S)
        batch.add_lines(3, **LINE)
        out.tick(RETRY_S)
        assert requests(path.read_text()) == [0, 1, 2]
        assert batch.dropped == 2
        assert told(caplog)[:2] == [
            f"the access log {path} cannot be opened, so its lines are dropped: No such file or directory",
            f"the access log {path} is open",
        ]


class TestFullDisk:
    def test_lines_beyond_the_bound_are_dropped_and_told_once_a_minute(self, batch, opened, caplog):
        out = opened("/dev/full")
        batch.add_lines(MANY, **LINE)
        out.tick(0)
        assert 0 < batch.held_bytes <= HELD
        dropped = batch.dropped
        for second in range(1, int(TELL_EVERY_S)):
            batch.add_lines(2, **LINE)
            out.tick(second)
        assert told(caplog) == [f"{dropped} lines of the access log were dropped: No space left on device"]
        out.close()
        assert batch.dropped == MANY + 2 * (int(TELL_EVERY_S) - 1)
        assert told(caplog)[1:] == [
            f"{batch.dropped - dropped} lines of the access log were dropped: No space left on device"
        ]


class TestFifo:
    @pytest.fixture
    def fifo(self, tmp_path: Path) -> Path:
        path = tmp_path / "fifo"
        os.mkfifo(path)
        return path

    def test_one_without_a_reader_is_waited_for_and_lines_are_dropped_meanwhile(self, fifo, batch, opened, caplog):
        output.check(str(fifo))
        out = opened(fifo)
        batch.add_lines(2, **LINE)
        out.tick(0)
        assert told(caplog) == [
            f"the access log {fifo} cannot be opened, so its lines are dropped: nobody reads it",
            "2 lines of the access log were dropped: nobody reads it",
        ]
        reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        out.tick(RETRY_S)
        batch.add_lines(3, **LINE)
        out.tick(RETRY_S)
        assert requests(os.read(reading, 65536).decode()) == [0, 1, 2]
        os.close(reading)

    def test_one_without_a_reader_that_others_lead_to_is_waited_for_and_no_line_is_lost(
        self, tmp_path, fifo, batch, opened, caplog
    ):
        out = opened(tmp_path / "log")
        asyncio.run(out.change(str(fifo)))
        batch.add_lines(2, **LINE)
        assert out.waits
        out.tick(0)
        assert out.waits
        assert requests((tmp_path / "log").read_text()) == [0, 1]
        reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        out.tick(RETRY_S)
        batch.add_lines(3, **LINE)
        out.tick(RETRY_S)
        assert requests(os.read(reading, 65536).decode()) == [0, 1, 2]
        assert requests((tmp_path / "log").read_text()) == [0, 1]
        assert batch.dropped == 0
        assert not out.waits
        assert told(caplog) == [
            f"the access log {fifo} cannot be opened, so the one that is open stays in use: nobody reads it",
            f"the access log {fifo} is open",
        ]
        os.close(reading)

    def test_a_reader_that_leaves_and_comes_back_has_what_was_held(self, fifo, batch, opened):
        reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        out = opened(fifo)
        os.close(reading)
        batch.add_lines(5, **LINE)
        out.tick(0)
        assert out.waits
        reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        out.tick(1)
        assert requests(os.read(reading, 65536).decode()) == list(range(5))
        assert batch.dropped == 0
        os.close(reading)

    def test_to_check_it_does_not_end_its_reader(self, fifo):
        reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        writing = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        os.close(writing)
        assert select.select([reading], [], [], 0)[0]
        os.close(reading)
        reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        output.check(str(fifo))
        poll = select.poll()
        poll.register(reading, select.POLLIN)
        assert poll.poll(0) == []
        os.close(reading)


class TestStandardOutput:
    """Standard output of each sort, which others share: it stays blocking, and nobody waits for its reader."""

    @pytest.fixture(params=["pipe", "pipe that cannot be opened", "socket", "terminal", "file"])
    def ends(self, request, tmp_path, monkeypatch) -> Iterator[tuple[int, int]]:
        if request.param == "socket":
            reading, writing = (each.detach() for each in socket.socketpair())
        elif request.param == "terminal":
            reading, writing = pty.openpty()
            attributes = termios.tcgetattr(writing)
            attributes[1] &= ~termios.OPOST
            termios.tcsetattr(writing, termios.TCSANOW, attributes)
        elif request.param == "file":
            writing = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
            reading = os.open(tmp_path / "log", os.O_RDONLY)
        else:
            reading, writing = os.pipe()
        if request.param == "pipe that cannot be opened":
            real_open = os.open

            def refuse(path: str, *arguments: int) -> int:
                if str(path).startswith("/proc/self/fd/"):
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
                return real_open(path, *arguments)

            monkeypatch.setattr(os, "open", refuse)
        monkeypatch.setattr(output, "STANDARD_OUTPUT_DESCRIPTOR", writing)
        yield reading, writing
        os.close(reading)
        os.close(writing)

    def test_a_reader_that_stops_is_not_waited_for_and_gets_whole_lines_again(self, ends, batch, opened):
        reading, writing = ends
        out = opened("-")
        assert not fcntl.fcntl(writing, fcntl.F_GETFL) & os.O_NONBLOCK
        batch.add_lines(MANY, **LINE)
        out.tick(0)
        found = b""
        while not batch.flush() or select.select([reading], [], [], 0.05)[0]:
            piece = os.read(reading, 1 << 20)
            found += piece
            if not piece:
                break
        numbers = requests(found.decode())
        assert numbers == sorted(set(numbers))
        assert len(numbers) + batch.dropped == MANY
        assert not fcntl.fcntl(writing, fcntl.F_GETFL) & os.O_NONBLOCK

    def test_one_that_is_closed_is_told(self):
        code = "from gatewayx.server import output; output.check('-')"
        done = subprocess.run(
            ["sh", "-c", f'exec "{sys.executable}" -c "{code}" >&-'], capture_output=True, check=False
        )
        assert b"access-log = '-' cannot be opened: Bad file descriptor" in done.stderr


@pytest.mark.anyio
class TestEnd:
    async def test_a_reader_that_is_slow_and_a_lock_of_another_process_are_waited_for(
        self, tmp_path, batch, opened, monkeypatch
    ):
        monkeypatch.setattr(output, "LAST_WRITES_S", 45.0)
        path = tmp_path / "log"
        out = opened(path)
        other = os.open(path, os.O_WRONLY | os.O_APPEND)
        fcntl.flock(other, fcntl.LOCK_EX)
        batch.add_lines(3, **LINE)
        ending = asyncio.create_task(out.finish())
        await asyncio.sleep(0)
        assert not ending.done()
        fcntl.flock(other, fcntl.LOCK_UN)
        await asyncio.wait_for(ending, 45)
        os.close(other)
        assert requests(path.read_text()) == [0, 1, 2]
        assert batch.dropped == 0

    @pytest.mark.parametrize("path", ["/dev/full", "pipe"])
    async def test_one_that_takes_nothing_ends_it_all_the_same(self, path, batch, opened, monkeypatch, caplog):
        monkeypatch.setattr(output, "LAST_WRITES_S", 0.05)
        reading, writing = os.pipe2(os.O_NONBLOCK)
        monkeypatch.setattr(output, "STANDARD_OUTPUT_DESCRIPTOR", writing)
        while True:
            try:
                os.write(writing, b"\n" * 4096)
            except BlockingIOError:
                break
        out = opened("-" if path == "pipe" else path)
        batch.add_lines(3, **LINE)
        await asyncio.wait_for(out.finish(), 10)
        assert batch.dropped == 3
        assert told(caplog)[0].startswith("3 lines of the access log were dropped: ")
        os.close(reading)
        os.close(writing)


class TestCheck:
    def test_what_can_be_opened_passes_and_nothing_is_made(self, tmp_path, monkeypatch):
        (tmp_path / "there").touch()
        for path in (None, "-", "/dev/null", str(tmp_path / "there"), str(tmp_path / "none")):
            output.check(path)
        monkeypatch.chdir(tmp_path)
        output.check("none")
        assert list(tmp_path.iterdir()) == [tmp_path / "there"]

    @pytest.mark.parametrize(
        ("path", "reason"),
        [
            ("folder", "Is a directory"),
            ("none/log", "No such file or directory"),
            ("file/log", "Not a directory"),
            ("socket", "nobody reads it"),
        ],
    )
    def test_what_cannot_is_told_with_the_name_of_the_setting(self, tmp_path, path, reason):
        (tmp_path / "folder").mkdir()
        (tmp_path / "file").touch()
        with socket.socket(socket.AF_UNIX) as unread:
            unread.bind(str(tmp_path / "socket"))
            with pytest.raises(StartError) as raised:
                output.check(str(tmp_path / path))
        assert str(raised.value) == f"access-log = '{tmp_path / path}' cannot be opened: {reason}"

    def test_a_folder_that_may_not_be_written_is_told(self, tmp_path, monkeypatch):
        # Root may write everywhere.
        monkeypatch.setattr(os, "access", lambda path, mode: False)
        with pytest.raises(StartError, match="Permission denied"):
            output.check(str(tmp_path / "log"))


@pytest.fixture(autouse=True)
def _told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
