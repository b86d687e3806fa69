"""Batches of lines: whole ones, by several processes, on pipes and files that are slow, full or gone."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
import select
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayx.core.access_batch import FILE_PIECE, HELD, PIECE, AccessBatch
from gatewayx.core.access_line import LINE_BYTES, line_of
from gatewayx.core.counters import Counters
from support.gearmand import die_with_parent
from support.times import SOON_S

PROCESSES = 4
LINES = 200_000
TYPICAL = {
    "id": b"4f2k9x7d2m1q8z6r5t3w0v000001",
    "client": b"192.0.2.17:41234",
    "method": b"POST",
    "path": b"/resize-image",
    "function": b"resize-image",
    "status": 200,
    "outcome": b"ok",
    "bytes_in": 512,
    "bytes_out": 2048,
    "duration_ns": 41_234_567,
    "job_ns": 40_100_200,
    "server": b"127.0.0.1:4730",
    "handle": b"H:worker-1:12345",
}


def read_all(descriptor: int) -> bytes:
    """What a pipe holds now."""
    found = b""
    while select.select([descriptor], [], [], 0)[0] and (piece := os.read(descriptor, 1 << 20)):
        found += piece
    return found


def requests(lines: bytes) -> list[int]:
    """The numbers of the lines; fails if one is not whole."""
    assert not lines or lines.endswith(b"\n")
    return [json.loads(line)["request"] for line in lines.splitlines()]


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """The reading and the writing end of a pipe that does not block."""
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    yield reading, writing
    os.close(reading)
    os.close(writing)


def opened(path: Path) -> int:
    """A file to append to."""
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


class Script:
    """In the place of write(2): takes so many bytes of each batch, or raises an OSError of this number."""

    def __init__(self, *outcomes: int | OSError) -> None:
        self.outcomes = list(outcomes)
        self.taken = b""
        self.batches: list[bytes] = []

    def __call__(self, batch: bytes) -> int:
        self.batches.append(batch)
        outcome = self.outcomes.pop(0) if self.outcomes else len(batch)
        if isinstance(outcome, OSError):
            raise outcome
        part = batch[: max(1, outcome % (len(batch) + 1))]
        self.taken += part
        return len(part)


def test_lines_wait_until_a_batch_is_full_or_a_flush(pipe):
    reading, writing = pipe
    batch = AccessBatch()
    batch.attach(writing)
    batch.add_lines(3, **TYPICAL)
    assert read_all(reading) == b""
    assert batch.held_bytes == len(b"".join(line_of(request=number, **TYPICAL) for number in range(3)))
    assert batch.flush()
    assert read_all(reading) == b"".join(line_of(request=number, **TYPICAL) for number in range(3))
    count = PIECE // len(line_of(**TYPICAL)) + 2
    batch.add_lines(count, **TYPICAL)
    first = read_all(reading)
    assert PIECE - 500 < len(first) <= PIECE
    assert batch.flush()
    assert requests(first + read_all(reading)) == list(range(count))
    assert (batch.held_bytes, batch.dropped, batch.error) == (0, 0, 0)


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 6000), max_size=30),
    st.lists(
        st.integers(1, 9000) | st.sampled_from([errno.EAGAIN, errno.EPIPE, errno.ENOSPC]).map(OSError), max_size=40
    ),
)
def test_batches_are_whole_lines_and_what_was_begun_goes_on_where_it_ended(sizes, outcomes):
    script = Script(*outcomes)
    batch = AccessBatch()
    batch.attach(-1, script)
    for number, size in enumerate(sizes):
        batch.add_line(path=b"p" * size, request=number)
        if size % 5 == 0:
            batch.flush()
    for _ in range(len(outcomes) + 1):
        if batch.flush():
            break
    assert batch.held_bytes == batch.dropped == 0
    assert script.taken == b"".join(line_of(path=b"p" * size, request=number) for number, size in enumerate(sizes))
    assert all(len(part) <= PIECE and part.endswith(b"\n") for part in script.batches)


def test_what_a_stopped_reader_leaves_is_bounded_and_the_rest_is_dropped_and_counted(pipe):
    reading, writing = pipe
    counters = Counters()
    batch = AccessBatch(counters)
    batch.attach(writing)
    count = 3 * HELD // len(line_of(**TYPICAL))
    batch.add_lines(count, **TYPICAL)
    assert not batch.flush()
    assert batch.error == errno.EAGAIN
    # What the pipe took is room again once a quarter was written.
    assert HELD * 3 // 4 - LINE_BYTES <= batch.held_bytes <= HELD
    assert counters.read()["log_lines_dropped"] == batch.dropped > 0
    found = b""
    while not batch.flush() or select.select([reading], [], [], 0)[0]:
        found += read_all(reading)
    assert len(requests(found)) + batch.dropped == count
    assert requests(found) == list(range(len(requests(found))))
    # And it goes on.
    batch.add_lines(1, **TYPICAL)
    assert batch.flush()
    assert requests(read_all(reading)) == [0]


def test_a_reader_that_is_slow_gets_whole_lines_in_their_order(pipe):
    reading, writing = pipe
    batch = AccessBatch()
    batch.attach(writing)
    found = b""
    for number in range(40_000):
        batch.add_line(request=number, **TYPICAL)
        if number % 64 == 0:
            found += os.read(reading, 1000) if select.select([reading], [], [], 0)[0] else b""
    while not batch.flush() or select.select([reading], [], [], 0)[0]:
        found += read_all(reading)
    numbers = requests(found)
    assert numbers == sorted(set(numbers))
    assert len(numbers) + batch.dropped == 40_000
    assert batch.dropped


def test_a_pipe_without_a_reader_keeps_lines_for_the_next_one(tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    writing = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    batch = AccessBatch()
    batch.attach(writing)
    os.close(reading)
    batch.add_lines(100, **TYPICAL)
    assert not batch.flush()
    assert batch.error == errno.EPIPE
    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    assert batch.flush()
    assert requests(read_all(reading)) == list(range(100))
    os.close(reading)
    os.close(writing)


def in_child(work: Callable[[], None]) -> int:
    """A process that does this."""
    process_id = os.fork()
    if process_id == 0:
        die_with_parent()
        exit_code = 1
        try:
            work()
            exit_code = 0
        finally:
            os._exit(exit_code)
    return process_id


def write_lines(descriptor: int, place: int, count: int, *, is_file: bool) -> None:
    """Write so many lines with the number of a process, waiting where the access log would drop them."""
    batch = AccessBatch()
    batch.attach(descriptor, is_file=is_file)
    fields = TYPICAL | {"connection": place}
    for number in range(count):
        batch.add_line(request=number, **fields)
        while batch.held_bytes > HELD // 2 and not batch.flush():
            time.sleep(0.001)
    while not batch.flush():
        time.sleep(0.001)
    assert batch.dropped == 0


def check_all_are_whole(data: bytes, count: int) -> None:
    """Each process's lines are there once and in their order."""
    next_numbers: Counter[int] = Counter()
    for line in data.splitlines(keepends=True):
        found = json.loads(line)
        place, number = found["connection"], found["request"]
        assert line == line_of(request=number, **(TYPICAL | {"connection": place}))
        assert number == next_numbers[place]
        next_numbers[place] += 1
    assert next_numbers == dict.fromkeys(range(PROCESSES), count)


def test_lines_of_four_processes_in_one_pipe_are_never_mixed(tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    def write(place: int) -> None:
        writing = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK)
        write_lines(writing, place, LINES // PROCESSES, is_file=False)

    holding = os.open(path, os.O_WRONLY)
    began_s = time.monotonic()
    children = [in_child(lambda place=place: write(place)) for place in range(PROCESSES)]
    os.close(holding)
    os.set_blocking(reading, True)
    pieces = []
    while piece := os.read(reading, 1 << 20):
        pieces.append(piece)
        if len(pieces) == 1:
            began_s = time.monotonic()
    took_s = time.monotonic() - began_s
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * PROCESSES
    os.close(reading)
    check_all_are_whole(b"".join(pieces), LINES // PROCESSES)
    print(f"{LINES / took_s:,.0f} lines a second")


def test_lines_of_four_processes_in_one_file_are_never_mixed(tmp_path):
    path = tmp_path / "log"
    children = [
        in_child(lambda place=place: write_lines(opened(path), place, LINES // PROCESSES // 4, is_file=True))
        for place in range(PROCESSES)
    ]
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * PROCESSES
    check_all_are_whole(path.read_bytes(), LINES // PROCESSES // 4)


class TestFullFile:
    """A bound on the size of files stands for a full disk: a write up to it is cut, the next one fails."""

    @pytest.fixture
    def bound(self) -> Iterator[Callable[[int], None]]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)

    @pytest.mark.parametrize("most_bytes", [1, 5000, 5001, 100_000])
    def test_no_line_is_torn_nor_doubled_and_another_process_writes_behind_whole_ones(
        self, tmp_path, bound, most_bytes
    ):
        path = tmp_path / "log"
        batches = [AccessBatch(), AccessBatch()]
        descriptors = [opened(path), opened(path)]
        for batch, descriptor in zip(batches, descriptors, strict=True):
            batch.attach(descriptor, is_file=True)
        bound(most_bytes)
        for number in range(1000):
            for place, batch in enumerate(batches):
                batch.add_line(request=number, **(TYPICAL | {"connection": place}))
        for batch in batches:
            assert not batch.flush()
            assert batch.flush() is False
            assert batch.error == errno.EFBIG
        requests(path.read_bytes())
        bound(resource.RLIM_INFINITY)
        # The one that was not cut is the first to find room.
        for batch in reversed(batches):
            assert batch.flush()
        found = Counter(
            (each["connection"], each["request"]) for each in map(json.loads, path.read_text().splitlines())
        )
        assert found == {(place, number): 1 for place in range(2) for number in range(1000)}
        for descriptor in descriptors:
            os.close(descriptor)


def test_a_file_that_another_one_holds_is_not_waited_for(tmp_path):
    descriptors = [opened(tmp_path / "log"), opened(tmp_path / "log")]
    batch = AccessBatch()
    batch.attach(descriptors[0], is_file=True)
    batch.add_lines(3 * FILE_PIECE // 300, **TYPICAL)
    fcntl.flock(descriptors[1], fcntl.LOCK_EX)
    began_s = time.monotonic()
    assert not batch.flush()
    assert time.monotonic() - began_s < SOON_S
    assert batch.error == errno.EAGAIN
    fcntl.flock(descriptors[1], fcntl.LOCK_UN)
    assert batch.flush()
    assert requests((tmp_path / "log").read_bytes()) == list(range(3 * FILE_PIECE // 300))
    for descriptor in descriptors:
        os.close(descriptor)


def test_without_anything_to_write_to_lines_are_dropped_and_counted():
    batch = AccessBatch()
    batch.add_lines(7, **TYPICAL)
    assert (batch.held_bytes, batch.dropped) == (0, 7)
    assert batch.flush()


def test_what_waits_goes_to_the_next_place_except_the_rest_of_a_line_that_was_begun():
    script = Script(100, OSError(errno.EAGAIN))
    following = Script()
    batch = AccessBatch()
    batch.attach(-1, script)
    batch.add_lines(5, **TYPICAL)
    assert not batch.flush()
    batch.attach(-1, following)
    assert batch.dropped == 1
    assert batch.flush()
    assert requests(following.taken) == [1, 2, 3, 4]


def test_what_waits_at_the_end_is_counted_as_dropped():
    batch = AccessBatch()
    batch.attach(-1, Script(OSError(errno.EPIPE)))
    batch.add_lines(5, **TYPICAL)
    assert not batch.flush()
    batch.detach()
    batch.add_lines(2, **TYPICAL)
    assert (batch.held_bytes, batch.dropped) == (0, 7)
