"""What the master knows and the admin process tells, in the memory that the processes of a gateway share.

A replaced admin process knows all at once, and the master needs no loop to be asked. Each word of eight bytes has one
writer at a time, so that none is torn; texts are guarded by a number that is odd while they are written.
"""

from __future__ import annotations

import enum
import mmap
import time

# The text of the last reload that failed, and of the last reading of each kind of files.
MAX_DETAIL_BYTES = 1024
WORD_BYTES = 8
CACHE_LINE_BYTES = 64

NANOSECONDS = 1_000_000_000


class Phase(enum.IntEnum):
    """What the master knows of a child."""

    # There is none: it has ended, and the next one is not forked yet.
    AWAY = 0
    # It is forked and has not said that it serves.
    STARTING = 1
    # It has.
    READY = 2
    # It did not turn its loop, and is being ended.
    ABORTED = 3


class Restart(enum.IntEnum):
    """Why a child ended that was not asked to."""

    # By a signal that is none of the following.
    CRASH = 0
    # The master ended it, since its loop did not turn.
    HANG = 1
    # By SIGKILL, which is what the kernel does for want of memory.
    OOM = 2
    # By itself: it could not begin, or it failed.
    EXIT = 3


class Reload(enum.IntEnum):
    """What has become of the last SIGHUP, or the last reading of files."""

    NONE = 0
    SUCCESSFUL = 1
    # Nothing has changed.
    FAILED = 2
    # Not every process has taken the settings.
    PARTLY = 3


# The words of a child's record, and where the restarts begin, one for each reason.
_PROCESS_ID, _PHASE, _SINCE_NS, _BEGUN_NS, _ENDED_CPU_NS, _SHOWN_CPU_NS, _BEAT_NS, _RESTARTS = range(8)
_RECORD_WORDS = _RESTARTS + len(Restart)
# The words of the gateway's own.
(
    _STARTED_NS,
    _MASTER_ID,
    _MASTER_BEAT_NS,
    _TOLD_START,
    _DRAINING_NS,
    _RELOAD,
    _RELOAD_NS,
    _RELOADED_NS,
    _DETAIL_NUMBER,
    _DETAIL_SIZE,
    _MASTER_SHOWN_CPU_NS,
    _DROPPED_LINES,
    _ADMIN_DROPPED_LINES,
    _FILES,
) = range(14)
# The words of a record of files, and how many such records there are: tokens, and certificates for clients and for job
# servers.
_RESULT, _AT_NS, _SUCCESSFUL_NS, _FILES_DETAIL_NUMBER, _FILES_DETAIL_SIZE, _FILES_WORDS = range(6)
_FILES_RECORDS = 3
_CHECKS = _FILES + _FILES_RECORDS * _FILES_WORDS
# The checks of the admin process, a word each: its state in the lowest bit, and since when.
MAX_CHECKS = 16
_GATEWAY_WORDS = _CHECKS + MAX_CHECKS


def _aligned(size_bytes: int) -> int:
    return -size_bytes // CACHE_LINE_BYTES * -CACHE_LINE_BYTES


_RECORD_BYTES = _aligned(_RECORD_WORDS * WORD_BYTES)
_GATEWAY_BYTES = _aligned(_GATEWAY_WORDS * WORD_BYTES + (1 + _FILES_RECORDS) * MAX_DETAIL_BYTES)


def board_bytes(places: int) -> int:
    """What the memory of a board for so many places takes."""
    return _GATEWAY_BYTES + (places + 1) * _RECORD_BYTES


class Record:
    """One child of the master, a worker process or the admin process, and those that were there before it."""

    def __init__(self, memory: mmap.mmap, offset: int) -> None:
        self._words = memoryview(memory)[offset : offset + _RECORD_WORDS * WORD_BYTES].cast("Q")

    @property
    def process_id(self) -> int:
        """Who is there; 0 for nobody."""
        return self._words[_PROCESS_ID]

    @property
    def phase(self) -> Phase:
        """What the master knows of it."""
        return Phase(self._words[_PHASE])

    @property
    def since_s(self) -> float:
        """Since when that is so, in seconds since the epoch."""
        return self._words[_SINCE_NS] / NANOSECONDS

    @property
    def begun_s(self) -> float:
        """When the process that is there was forked, in seconds since the epoch; 0 for nobody."""
        return self._words[_BEGUN_NS] / NANOSECONDS

    def set_phase(self, phase: Phase, process_id: int = 0) -> None:
        """For the master: it is this from now on, and `process_id` is there if that is not 0."""
        now_ns = time.time_ns()
        self._words[_SINCE_NS] = now_ns
        if process_id or phase is Phase.AWAY:
            self._words[_PROCESS_ID] = process_id
            self._words[_BEGUN_NS] = now_ns if process_id else 0
        self._words[_PHASE] = phase

    def count_restart(self, reason: Restart) -> None:
        """For the master: one has ended for this reason."""
        self._words[_RESTARTS + reason] += 1

    @property
    def restarts(self) -> dict[str, int]:
        """How many have ended, by reason; the counts never fall."""
        return {reason.name.lower(): self._words[_RESTARTS + reason] for reason in Restart}

    def add_cpu(self, used_s: float) -> None:
        """For the master: one has ended that had used so much of the processors' time."""
        self._words[_ENDED_CPU_NS] += int(used_s * NANOSECONDS)

    @property
    def ended_cpu_s(self) -> float:
        """What those have used that have ended; to be read before it is looked who lives.

        So one that ends meanwhile is for a moment in neither, and never in both: the master adds it to those that have
        ended once it is no more the living one.
        """
        return self._words[_ENDED_CPU_NS] / NANOSECONDS

    def shown_cpu_s(self, used_s: float) -> float:
        """For the admin process: what all of them have used. It never falls."""
        self._words[_SHOWN_CPU_NS] = max(self._words[_SHOWN_CPU_NS], int(used_s * NANOSECONDS))
        return self._words[_SHOWN_CPU_NS] / NANOSECONDS

    def beat(self, now_s: float) -> None:
        """For a child without a place, and at its fork for the master: its loop has turned; by time.monotonic()."""
        self._words[_BEAT_NS] = int(now_s * NANOSECONDS)

    @property
    def beat_s(self) -> float:
        """When it last did; 0 if never."""
        return self._words[_BEAT_NS] / NANOSECONDS


class Detail:
    """A text with one writer, guarded by a number that is odd while it is written.

    words: the board's; number and size: which of them are its own. text: room for MAX_DETAIL_BYTES.
    """

    def __init__(self, words: memoryview, number: int, size: int, text: memoryview) -> None:
        self._words = words
        self._number = number
        self._size = size
        self._text = text

    def write(self, detail: str) -> None:
        """It is this from now on, as much of it as there is room for."""
        encoded = detail.encode("utf-8", "replace")[:MAX_DETAIL_BYTES]
        self._words[self._number] += 1
        self._text[: len(encoded)] = encoded
        self._words[self._size] = len(encoded)
        self._words[self._number] += 1

    def read(self) -> str:
        """What it is; empty while it is being written."""
        number = self._words[self._number]
        detail = bytes(self._text[: self._words[self._size]])
        if number % 2 or self._words[self._number] != number:
            return ""
        return detail.decode("utf-8", "replace")


class FilesRead:
    """What has become of the last reading of some files. Only the master writes.

    words: _FILES_WORDS of them. text: room for MAX_DETAIL_BYTES.
    """

    def __init__(self, words: memoryview, text: memoryview) -> None:
        self._words = words
        self._detail = Detail(words, _FILES_DETAIL_NUMBER, _FILES_DETAIL_SIZE, text)

    def told(self, result: Reload, detail: str = "") -> None:
        """They were read, with this result; NONE if there are no such files any more."""
        now_ns = time.time_ns()
        self._detail.write(detail)
        self._words[_RESULT] = result
        self._words[_AT_NS] = now_ns
        if result is Reload.SUCCESSFUL:
            self._words[_SUCCESSFUL_NS] = now_ns

    @property
    def result(self) -> Reload:
        """What has become of that; NONE while there are no such files."""
        return Reload(self._words[_RESULT])

    @property
    def at_s(self) -> float:
        """When that was, in seconds since the epoch; 0 for never."""
        return self._words[_AT_NS] / NANOSECONDS

    @property
    def successful_s(self) -> float:
        """When they were read and held, in seconds since the epoch; 0 for never."""
        return self._words[_SUCCESSFUL_NS] / NANOSECONDS

    @property
    def detail(self) -> str:
        """Why it failed; empty if it did not, or while that is being written."""
        return self._detail.read()


class Board:
    """The gateway as its master knows it. Only the master writes, but for what the admin process shows.

    memory: zeros at first. offset: where board_bytes() begin in it.
    """

    def __init__(self, memory: mmap.mmap, places: int, offset: int) -> None:
        self._words = memoryview(memory)[offset : offset + _GATEWAY_WORDS * WORD_BYTES].cast("Q")
        detail_at = offset + _GATEWAY_WORDS * WORD_BYTES
        details = memoryview(memory)[detail_at : detail_at + (1 + _FILES_RECORDS) * MAX_DETAIL_BYTES]
        self._detail = Detail(self._words, _DETAIL_NUMBER, _DETAIL_SIZE, details[:MAX_DETAIL_BYTES])
        self.tokens, self.client_certificates, self.job_server_certificates = (
            FilesRead(
                self._words[_FILES + number * _FILES_WORDS :][:_FILES_WORDS],
                details[(1 + number) * MAX_DETAIL_BYTES :][:MAX_DETAIL_BYTES],
            )
            for number in range(_FILES_RECORDS)
        )
        records_at = offset + _GATEWAY_BYTES
        records = [Record(memory, records_at + number * _RECORD_BYTES) for number in range(places + 1)]
        self.workers = records[:places]
        self.admin = records[places]

    def begin(self, master_id: int) -> None:
        """The master has begun."""
        now_ns = time.time_ns()
        self._words[_STARTED_NS] = now_ns
        self._words[_MASTER_ID] = master_id
        # The settings of the start were read as well.
        self._words[_RELOADED_NS] = now_ns

    @property
    def started_s(self) -> float:
        """When the master began, in seconds since the epoch."""
        return self._words[_STARTED_NS] / NANOSECONDS

    @property
    def master_id(self) -> int:
        """The master's process id."""
        return self._words[_MASTER_ID]

    def beat(self, now_s: float) -> None:
        """The master has looked at everything; by time.monotonic()."""
        self._words[_MASTER_BEAT_NS] = int(now_s * NANOSECONDS)

    @property
    def beat_s(self) -> float:
        """When it last did."""
        return self._words[_MASTER_BEAT_NS] / NANOSECONDS

    @property
    def has_started(self) -> bool:
        """Whether each place has had its first worker process or failed to, and one serves or has served."""
        return self._words[_TOLD_START] != 0

    def start(self) -> None:
        """That is so from now on."""
        self._words[_TOLD_START] = 1

    @property
    def draining_s(self) -> float:
        """Since when it is told to stop, in seconds since the epoch; 0 if it is not."""
        return self._words[_DRAINING_NS] / NANOSECONDS

    def drain(self) -> None:
        """It is told to stop."""
        self._words[_DRAINING_NS] = time.time_ns()

    def reloaded(self, result: Reload, detail: str = "") -> None:
        """The settings were read again, with this result."""
        now_ns = time.time_ns()
        self._detail.write(detail)
        self._words[_RELOAD] = result
        self._words[_RELOAD_NS] = now_ns
        if result is Reload.SUCCESSFUL:
            self._words[_RELOADED_NS] = now_ns

    @property
    def reload(self) -> Reload:
        """What has become of the last reload."""
        return Reload(self._words[_RELOAD])

    @property
    def reload_s(self) -> float:
        """When that was, in seconds since the epoch; 0 for never."""
        return self._words[_RELOAD_NS] / NANOSECONDS

    @property
    def reloaded_s(self) -> float:
        """When the settings were read last that all processes have, in seconds since the epoch."""
        return self._words[_RELOADED_NS] / NANOSECONDS

    @property
    def reload_detail(self) -> str:
        """Why the last reload failed; empty if it did not, or while that is being written."""
        return self._detail.read()

    def add_dropped(self, lines: int, *, of_admin: bool = False) -> None:
        """The master, or the admin process, has dropped so many more lines of its event log."""
        self._words[_ADMIN_DROPPED_LINES if of_admin else _DROPPED_LINES] += lines

    @property
    def dropped_lines(self) -> int:
        """How many they have."""
        return self._words[_DROPPED_LINES] + self._words[_ADMIN_DROPPED_LINES]

    def recall(self, number: int) -> tuple[bool, float] | None:
        """For the admin process: the state of its check of this number, and since when, in seconds since the epoch."""
        noted = self._words[_CHECKS + number]
        return (noted % 2 == 1, (noted // 2) / 1e6) if noted else None

    def note(self, number: int, since_s: float, *, is_ok: bool) -> None:
        """For the admin process: its check has this state since then."""
        self._words[_CHECKS + number] = int(since_s * 1e6) * 2 + is_ok

    def master_cpu_s(self, used_s: float) -> float:
        """For the admin process: what the master has used. It never falls."""
        self._words[_MASTER_SHOWN_CPU_NS] = max(self._words[_MASTER_SHOWN_CPU_NS], int(used_s * NANOSECONDS))
        return self._words[_MASTER_SHOWN_CPU_NS] / NANOSECONDS
