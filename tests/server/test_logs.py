"""The event log: what is escaped, what is limited, and standard error that nobody reads."""

from __future__ import annotations

import fcntl
import logging
import os
import pty
import re
import resource
import select
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import NoReturn

import pytest

from gatewayx.server import logs
from gatewayx.server.standard_error import MAX_RECORD_BYTES, RecordStream, RecordWriter
from support.gearmand import die_with_parent
from support.job_servers import nobody_listens
from support.ports import free_port
from support.times import SOON_S

PIPE_BYTES = 16 * 1024

TIMEOUT_S = 60


def record(message: str, *arguments: object, name: str = "gatewayx", about: str = "") -> logging.LogRecord:
    """A log record."""
    made = logging.LogRecord(name, logging.WARNING, __file__, 1, message, arguments, None)
    if about:
        made.about = about
    return made


def fail(message: str) -> NoReturn:
    """Raise an exception."""
    raise ValueError(message)


class TestEscaping:
    @pytest.mark.parametrize(
        ("raw", "shown"),
        [
            ("two\nlines", r"two\nlines"),
            ("\x1b[2J", r"\x1b[2J"),
            ("\r2026-01-01 INFO forged", r"\r2026-01-01 INFO forged"),
            ("é\u202e", r"\xe9\u202e"),
            ("\udcff", r"\udcff"),
        ],
    )
    def test_what_is_not_printable_is_escaped(self, raw, shown):
        assert logs.Printable("%(levelname)s %(message)s").format(record("said: %s", raw)) == f"WARNING said: {shown}"

    @pytest.mark.parametrize("stack_info", [False, True])
    def test_a_traceback_is_escaped_and_begins_no_line(self, stack_info):
        forged = "2026-01-01 00:00:00,000 INFO forged"
        try:
            fail(f"\x1b[2J\n{forged}\r{forged}\u2028{forged}\x85\udcff")
        except ValueError:
            made = record("failed")
            made.exc_info = sys.exc_info()
            if stack_info:
                made.stack_info = f"Stack (most recent call last):\n{forged}\x1b"
        first, *others = logs.Printable("%(levelname)s %(message)s").format(made).split("\n")
        assert first == "WARNING failed"
        assert others[0] == "    Traceback (most recent call last):"
        assert any(line.strip().startswith("raise ValueError(") for line in others)
        for line in others:
            assert line.startswith("    ")
            assert line.isascii()
            assert line.isprintable()


class TestLimit:
    def test_lines_of_one_kind_are_limited_and_others_are_not(self):
        limit = logs.RateLimit()
        passed = [limit.filter(record("kind %d", number)) for number in range(1000)]
        assert sum(passed) == logs.LINES_PER_INTERVAL
        assert all(passed[: logs.LINES_PER_INTERVAL])
        assert limit.filter(record("another kind"))
        assert limit.filter(record("kind %d", 1, name="another logger"))

    def test_one_line_of_the_program_may_tell_of_many_kinds(self):
        limit = logs.RateLimit()
        for number in range(10 * logs.LINES_PER_INTERVAL):
            assert limit.filter(record("refused: %d", number, about=f"kind {number}"))
        passed = [limit.filter(record("refused: %d", 0, about="kind 0")) for _ in range(logs.LINES_PER_INTERVAL)]
        assert sum(passed) == logs.LINES_PER_INTERVAL - 1

    def test_the_first_line_of_the_next_interval_says_how_many_were_left_out(self, monkeypatch):
        now_s = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: now_s)
        limit = logs.RateLimit()
        for number in range(logs.LINES_PER_INTERVAL + 7):
            limit.filter(record("kind %d", number))
        now_s += logs.INTERVAL_S
        first = record("kind %d", 99)
        assert limit.filter(first)
        assert first.getMessage().startswith("kind 99 (7 more")
        second = record("kind %d", 100)
        assert limit.filter(second)
        assert second.getMessage() == "kind 100"
        assert limit.take_left_out(ended=False) == []

    def test_what_was_left_out_is_told_when_no_line_follows(self, monkeypatch):
        now_s = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: now_s)
        limit = logs.RateLimit()
        for number in range(logs.LINES_PER_INTERVAL + 7):
            limit.filter(record("kind %d", number, about="this"))
        limit.filter(record("another"))
        assert limit.take_left_out() == []
        now_s += logs.INTERVAL_S
        assert limit.take_left_out() == ["7 more lines in 10 s like: kind %d this"]
        assert limit.take_left_out(ended=False) == []
        assert limit.filter(record("kind %d", 1))

    def test_at_the_end_it_is_told_before_the_interval_has_ended(self, monkeypatch):
        monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
        limit = logs.RateLimit()
        for number in range(logs.LINES_PER_INTERVAL + 1):
            limit.filter(record("kind %d", number))
        assert limit.take_left_out(ended=False) == ["1 more lines in 0 s like: kind %d"]

    def test_kinds_are_bounded_and_those_beyond_share_one_whose_lines_are_limited_and_counted(self):
        limit = logs.RateLimit()
        passed = [limit.filter(record(f"kind {number}")) for number in range(2 * logs.MAX_KINDS)]
        assert sum(passed) == logs.MAX_KINDS + logs.LINES_PER_INTERVAL
        assert len(vars(limit)["_kinds"]) <= logs.MAX_KINDS + 1
        [told] = limit.take_left_out(ended=False)
        assert told.startswith(f"{logs.MAX_KINDS - logs.LINES_PER_INTERVAL} more lines")
        assert not vars(limit)["_kinds"]


class Reader:
    """Who reads standard error, once told to. Both ends are here, so that none is ever closed early."""

    def __init__(self, reading: int, writing: int) -> None:
        self.reading = reading
        self.writing = writing

    def fill(self) -> None:
        """Fill what lies between with line ends, through an open file of its own."""
        if stat.S_ISSOCK(os.fstat(self.writing).st_mode):
            with socket.socket(fileno=os.dup(self.writing)) as filler:
                self._fill(lambda: filler.send(b"\n", socket.MSG_DONTWAIT))
            return
        opened = os.open(f"/proc/self/fd/{self.writing}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
        self._fill(lambda: os.write(opened, b"\n" * 64))
        # A terminal has room again once the kernel has passed on what it holds.
        while self._fill(lambda: os.write(opened, b"\n")):
            time.sleep(0.05)
        os.close(opened)

    def _fill(self, write: Callable[[], int]) -> int:
        written = 0
        with suppress(BlockingIOError):
            while True:
                written += write()
        return written

    def is_blocking(self) -> bool:
        """Whether the descriptor is as it was for those who share it."""
        return not fcntl.fcntl(self.writing, fcntl.F_GETFL) & os.O_NONBLOCK

    def read(self) -> bytes:
        """What has come by now."""
        read = b""
        while select.select([self.reading], [], [], 0.05)[0]:
            read += os.read(self.reading, 65536)
        return read

    def until(self, part: bytes) -> bytes:
        """What comes up to `part`."""
        read = b""
        ends_s = time.monotonic() + TIMEOUT_S
        while part not in read:
            assert time.monotonic() < ends_s, read
            read += self.read()
        return read

    def close(self) -> None:
        """Close both ends."""
        os.close(self.reading)
        os.close(self.writing)


def pipe() -> tuple[int, int]:
    """Both ends of a pipe that holds little."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return reading, writing


def sockets() -> tuple[int, int]:
    """Both ends of a connection that holds little."""
    reading, writing = socket.socketpair()
    writing.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PIPE_BYTES)
    return reading.detach(), writing.detach()


OPENERS = {"pipe": pipe, "socket": sockets, "terminal": pty.openpty}


@pytest.fixture(params=OPENERS)
def reader(request: pytest.FixtureRequest) -> Iterator[Reader]:
    """A reader of each sort."""
    made = Reader(*OPENERS[request.param]())
    yield made
    made.close()


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Nothing can be opened."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def shown(read: bytes) -> bytes:
    """What was read without the line ends of `fill`, those of a terminal as any other's."""
    return read.replace(b"\r\n", b"\n").lstrip(b"\n")


def tell_lost(count: int, why: str) -> bytes:
    """The record about lost ones."""
    return f"{count} lost: {why}\n".encode()


@contextmanager
def writing_to(descriptor: int) -> Iterator[RecordWriter]:
    """A writer, closed when it is over."""
    writer = RecordWriter(descriptor, tell_lost)
    try:
        yield writer
    finally:
        writer.close()


# poll(2) tells that a terminal has room, but not for how much: one that cannot be opened is not told apart here.
WRITERS = pytest.mark.parametrize(
    ("reader", "writer"),
    [
        ("pipe", "opened anew"),
        ("pipe", "cannot be opened"),
        ("socket", "opened anew"),
        ("socket", "cannot be opened"),
        ("terminal", "opened anew"),
    ],
    indirect=True,
)


@pytest.fixture
def writer(request: pytest.FixtureRequest, reader: Reader) -> Iterator[RecordWriter]:
    """The writer at a reader's other end, which is opened anew or cannot be."""
    with no_descriptor_left() if request.param == "cannot be opened" else nullcontext():
        made = RecordWriter(reader.writing, tell_lost)
    yield made
    made.close()


class TestStandardError:
    @WRITERS
    def test_what_is_read_loses_nothing(self, reader, writer):
        for number in range(300):
            writer.write(b"%d\n" % number)
            if not number % 10:
                writer.catch_up()
                # A terminal passes on what it is given, at its own pace.
                came = reader.until(b"%d" % number)
                assert came.split() == [b"%d" % n for n in range(max(0, number - 9), number + 1)]
        assert writer.lost == 0
        assert reader.is_blocking()

    @WRITERS
    def test_while_nobody_reads_lines_are_lost_and_that_is_told_first_when_somebody_does(self, reader, writer):
        reader.fill()
        for _ in range(20_000):
            writer.write(b"lost\n")
        writer.catch_up()
        assert writer.lost > 1000
        taken = reader.read()
        writer.write(b"next\n")
        *lines, last = shown(taken + reader.until(b"next") + reader.read()).splitlines()
        # A terminal that was full has room again whenever the kernel has passed on what it holds.
        assert os.isatty(reader.writing) or lines == [b"20000 lost: the reader of standard error did not read"]
        counts = [int(line.split()[0]) for line in lines if line != b"lost"]
        assert lines.count(b"lost") + sum(counts) == 20_000
        assert (lines[-1], last) == (b"%d lost: the reader of standard error did not read" % counts[-1], b"next")
        assert writer.lost == 0
        assert reader.is_blocking()

    @WRITERS
    def test_it_is_told_without_a_further_line(self, reader, writer):
        reader.fill()
        writer.write(b"lost\n")
        reader.read()
        writer.catch_up()
        assert shown(reader.read()) == b"1 lost: the reader of standard error did not read\n"

    @WRITERS
    def test_the_rest_of_a_line_goes_before_anything_else(self, reader, writer):
        # More than any of them holds, so that a part of it stays here.
        long = b"".join(b"%07d\n" % number for number in range(6000))
        reader_got = b""
        writer.write(long)
        writer.write(b"lost\n")
        assert writer.lost == 1
        ends_s = time.monotonic() + TIMEOUT_S
        while b"lost:" not in reader_got:
            assert time.monotonic() < ends_s
            reader_got += reader.read()
            writer.catch_up()
        writer.write(b"next\n")
        reader_got += reader.read()
        assert shown(reader_got) == long + b"1 lost: the reader of standard error did not read\nnext\n"

    def test_a_record_that_is_too_long_is_cut(self, tmp_path):
        path = tmp_path / "log"
        with path.open("wb") as log:
            writer = RecordWriter(log.fileno(), tell_lost)
            writer.write(b"x" * (2 * MAX_RECORD_BYTES) + b"\n")
            writer.write(b"next\n")
        first, second = path.read_bytes().splitlines()
        assert len(first) == MAX_RECORD_BYTES - 1
        assert first.endswith(b" ... (cut)")
        assert second == b"next"

    def test_a_file_gets_what_others_write_to_it_as_well(self, tmp_path):
        path = tmp_path / "log"
        with path.open("wb", buffering=0) as log:
            writer = RecordWriter(log.fileno(), tell_lost)
            writer.write(b"one\n")
            log.write(b"two\n")
            writer.write(b"three\n")
        assert path.read_bytes() == b"one\ntwo\nthree\n"

    def test_a_full_disk_raises_nothing_and_is_told_when_there_is_room(self, tmp_path):
        path = tmp_path / "log"
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        with path.open("wb") as log:
            writer = RecordWriter(log.fileno(), tell_lost)
            # Python ignores SIGXFSZ: write(2) writes what fits, then fails with EFBIG.
            resource.setrlimit(resource.RLIMIT_FSIZE, (6, hard))
            try:
                for line in (b"1\n", b"2\n", b"three\n", b"four\n"):
                    writer.write(line)
                writer.catch_up()
                assert path.read_bytes() == b"1\n2\nth"
                assert writer.lost == 1
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            writer.write(b"five\n")
        told = b"1 lost: standard error could not be written: File too large\n"
        assert path.read_bytes() == b"1\n2\nthree\n" + told + b"five\n"

    def test_a_device_without_room_raises_nothing(self):
        with Path("/dev/full").open("wb") as full:
            writer = RecordWriter(full.fileno(), tell_lost)
            for _ in range(10):
                writer.write(b"lost\n")
            writer.close()
        assert writer.lost == 10

    @pytest.mark.parametrize("opened", [pipe, sockets])
    def test_a_reader_that_is_gone_raises_nothing(self, opened):
        reading, writing = opened()
        writer = RecordWriter(writing, tell_lost)
        os.close(reading)
        for _ in range(10):
            writer.write(b"lost\n")
        writer.close()
        os.close(writing)
        assert writer.lost == 10

    def test_a_descriptor_that_is_closed_raises_nothing(self):
        _, writing = descriptors = os.pipe()
        for descriptor in descriptors:
            os.close(descriptor)
        writer = RecordWriter(writing, tell_lost)
        writer.write(b"lost\n")
        assert writer.lost == 1

    def test_lines_of_several_threads_stay_whole(self, tmp_path):
        path = tmp_path / "log"
        with path.open("wb") as log:
            writer = RecordWriter(log.fileno(), tell_lost)
            threads = [
                threading.Thread(target=lambda mark=mark: [writer.write(mark * 100 + b"\n") for _ in range(200)])
                for mark in (b"a", b"b", b"c")
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        lines = path.read_bytes().splitlines()
        assert len(lines) == 600
        assert set(lines) == {b"a" * 100, b"b" * 100, b"c" * 100}

    def test_what_else_is_written_to_sys_stderr_goes_by_lines_and_is_escaped(self, tmp_path):
        path = tmp_path / "log"
        with path.open("wb") as log:
            stream = RecordStream(RecordWriter(log.fileno(), tell_lost), logs.escaped)
            print("one", "\x1b[2J", file=stream, end="")
            assert path.read_bytes() == b""
            print("\ntwo\nthr", file=stream, end="")
            stream.flush()
        assert path.read_bytes() == b"one \\x1b[2J\ntwo\nthr\n"


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """This process logs as `serve` does, into a file; everything is as before when the test is over."""
    path = tmp_path / "log"
    root, own = logging.getLogger(), logging.getLogger("gatewayx")
    levels = root.level, own.level
    for module, name in ((sys, "stderr"), (sys, "excepthook"), (sys, "unraisablehook"), (threading, "excepthook")):
        monkeypatch.setattr(module, name, getattr(module, name))
    with path.open("wb") as log_file:
        log = logs.configure(log_file.fileno())
        try:
            yield path
        finally:
            log.writer.close()
            logging.captureWarnings(False)
            root.removeHandler(log)
            root.setLevel(levels[0])
            own.setLevel(levels[1])


FORGED = "2026-01-01 00:00:00,000 INFO forged"


class TestProcess:
    def test_whatever_Python_tells_on_standard_error_goes_through_the_log(self, configured):  # noqa: N802
        class Failing:
            def __del__(self):
                raise ValueError(f"in a finalizer\n{FORGED}")

        Failing()
        thread = threading.Thread(target=fail, args=(f"in a thread\n{FORGED}",))
        thread.start()
        thread.join()
        try:
            fail(f"at the end\n{FORGED}")
        except ValueError as error:
            sys.excepthook(type(error), error, error.__traceback__)
        logging.getLogger("asyncio").error("reported by the loop\n%s", FORGED)
        lines = configured.read_text().splitlines()
        for part in ("in a finalizer", "in a thread", "at the end", "reported by the loop"):
            assert sum(part in line for line in lines) >= 1
        assert not [line for line in lines if line.startswith(FORGED)]
        assert any(line.startswith("    ") and "ValueError: in a thread" in line for line in lines)

    def test_what_was_left_out_is_told_at_the_end(self, configured, monkeypatch):
        monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
        logger = logging.getLogger("gatewayx.test")
        for number in range(logs.LINES_PER_INTERVAL + 5):
            logger.warning("line %d", number)
        [log] = [handler for handler in logging.getLogger().handlers if isinstance(handler, logs.EventLog)]
        log.finish()
        assert "5 more lines in 0 s like: line %d" in configured.read_text().splitlines()[-1]


def test_the_gateway_serves_and_stops_while_nobody_reads_its_log(reader):
    listen = ("127.0.0.1", free_port())
    host, port = nobody_listens()
    arguments = ("--listen", f"127.0.0.1:{listen[1]}", "--server", f"{host}:{port}", "--admin", "none")
    with subprocess.Popen(
        [sys.executable, "-m", "gatewayx", "serve", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=reader.writing,
        preexec_fn=die_with_parent,
    ) as process:
        try:
            reader.until(b"listens on")
            reader.fill()
            for _ in range(3):
                process.send_signal(signal.SIGUSR1)
                ask(listen)
                # It is asked for ten times a second; a later one that comes before that is the same one. When one is
                # taken, what was told of the one before it is lost.
                ends_s = time.monotonic() + TIMEOUT_S
                while is_pending(process.pid, signal.SIGUSR1):
                    assert time.monotonic() < ends_s
                    time.sleep(0.01)
            if not os.isatty(reader.writing):
                # A terminal that was full may take a line or two once the kernel has passed on what it holds.
                told = reader.until(b" log lines were lost, since the reader of standard error did not read")
                assert re.search(rb"WARNING [1-3] log lines were lost", told)
            reader.read()
            process.send_signal(signal.SIGUSR1)
            reader.until(b"SIGUSR1")
            reader.fill()
            began_s = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(TIMEOUT_S) == 0
            assert time.monotonic() - began_s < SOON_S
        finally:
            process.kill()
    assert reader.is_blocking()


def is_pending(process_id: int, number: signal.Signals) -> bool:
    """Whether a signal waits to be taken by the process (proc(5), ShdPnd)."""
    status = Path(f"/proc/{process_id}/status").read_text()
    return bool(int(re.search(r"^ShdPnd:\s*([0-9a-f]+)$", status, re.MULTILINE)[1], 16) >> (number - 1) & 1)


def test_a_start_that_fails_ends_while_nobody_reads_why(reader):
    reader.fill()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = subprocess.run(
            [sys.executable, "-m", "gatewayx", "serve", "--listen", f"127.0.0.1:{taken.getsockname()[1]}"],
            stderr=reader.writing,
            timeout=TIMEOUT_S,
            check=False,
        )
    assert result.returncode == 1


def ask(address: tuple[str, int]) -> None:
    """A request that is answered."""
    with socket.create_connection(address, TIMEOUT_S) as client:
        client.sendall(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 204 ")
