"""Standard error for a process that serves: no write waits for the reader, and lost lines are counted.

A pipe, terminal or socket whose reader has stopped is full after a while, and a write(2) to it waits for ever. To make
the descriptor non-blocking is no way out: that is a property of what it refers to, which the shell and the siblings of
the process share.
"""

from __future__ import annotations

import errno
import io
import os
import select
import socket
import stat
import threading
from collections.abc import Callable
from functools import partial

# A longer record is cut. The rest of one record may wait to be written; further records are lost meanwhile.
MAX_RECORD_BYTES = 64 * 1024
CUT = b" ... (cut)\n"
# Bytes that a pipe with any room takes without waiting: PIPE_BUF (pipe(7)).
POLLED_BYTES = 4096
NOT_READ = "the reader of standard error did not read"

_OPEN_FLAGS = os.O_WRONLY | os.O_NONBLOCK | os.O_APPEND | os.O_NOCTTY | os.O_CLOEXEC
_SEND_FLAGS = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL


class RecordWriter:
    """Writes records, each of one or more whole lines, to a descriptor; may be used from any thread.

    tell_lost: makes the record that says how many were lost and why; it is written once there is room again, before
    any other.
    """

    def __init__(self, descriptor: int, tell_lost: Callable[[int, str], bytes]) -> None:
        # A descriptor or socket that the writer has opened itself; None while it uses `descriptor`.
        self._opened: socket.socket | int | None = None
        self._send = self._sender(descriptor)
        self._tell_lost = tell_lost
        # The rest of a record of which a part was written; no other record may be written before it.
        self._rest = b""
        self._lost = 0
        # All that were lost, and never fewer.
        self.dropped = 0
        self._why = NOT_READ
        self._lock = threading.RLock()
        self._writing = False

    @property
    def lost(self) -> int:
        """Records that were lost and of which nothing was told yet."""
        return self._lost

    def begin_anew(self) -> None:
        """Forget what is not written yet."""
        with self._lock:
            self._rest = b""
            self._lost = 0

    def write(self, record: bytes) -> None:
        """Write a record, which ends with a line end, or count it as lost. Raises nothing."""
        with self._lock:
            # A finalizer may run and write in the middle of a write.
            if self._writing or not self._catch_up() or not self._begin(record):
                self._lost += 1
                self.dropped += 1

    def catch_up(self) -> None:
        """Write what is left, if there is room now."""
        with self._lock:
            if not self._writing:
                self._catch_up()

    def close(self) -> None:
        """Close what was opened; nothing can be written any more."""
        if isinstance(self._opened, int):
            os.close(self._opened)
        elif self._opened is not None:
            self._opened.close()
        self._opened = None

    def _sender(self, descriptor: int) -> Callable[[bytes], int]:
        """What writes bytes and returns how many, or raises OSError, BlockingIOError where it would have to wait."""
        try:
            mode = os.fstat(descriptor).st_mode
            if stat.S_ISREG(mode) or stat.S_ISBLK(mode):
                return partial(os.write, descriptor)
            if stat.S_ISSOCK(mode):
                self._opened = connected = socket.socket(fileno=os.dup(descriptor))
                return lambda data: connected.send(data, _SEND_FLAGS)
            # A file that is opened anew is this process's alone, and so is its O_NONBLOCK.
            self._opened = opened = os.open(f"/proc/self/fd/{descriptor}", _OPEN_FLAGS)
            return partial(os.write, opened)
        except OSError:
            # Such as a pipe or terminal of another user's (sudo, a container), or no /proc.
            return partial(_write_polled, descriptor)

    def _catch_up(self) -> bool:
        if self._rest:
            self._rest = self._rest[self._write(self._rest) :]
            if self._rest:
                return False
        if not self._lost:
            return True
        told = self._lost
        if not self._begin(self._tell_lost(told, self._why)):
            return False
        self._lost -= told
        return not self._rest

    def _begin(self, record: bytes) -> bool:
        """Write a record as far as there is room, and keep its rest; False if there was none at all."""
        if len(record) > MAX_RECORD_BYTES:
            record = record[: MAX_RECORD_BYTES - len(CUT)] + CUT
        written = self._write(record)
        self._rest = record[written:] if written else b""
        return written > 0

    def _write(self, data: bytes) -> int:
        """Return how many bytes could be written."""
        written = 0
        self._writing = True
        try:
            while written < len(data) and (sent := self._send(data[written:])):
                written += sent
        except BlockingIOError:
            self._why = NOT_READ
        except OSError as error:
            self._why = f"standard error could not be written: {os.strerror(error.errno or 0)}"
        finally:
            self._writing = False
        return written


class RecordStream(io.TextIOBase):
    """In the place of sys.stderr: what Python and libraries write there, line by line through a RecordWriter.

    escape: what is written of a line, without a line end.
    """

    encoding = "utf-8"

    def __init__(self, writer: RecordWriter, escape: Callable[[str], str]) -> None:
        self._writer = writer
        self._escape = escape
        self._line = ""

    def writable(self) -> bool:
        """See io.IOBase."""
        return True

    def write(self, text: str) -> int:
        """See io.TextIOBase."""
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._write_line(line)
        if len(self._line) > MAX_RECORD_BYTES:
            self.flush()
        return len(text)

    def flush(self) -> None:
        """Write what has no line end yet, and end its line."""
        line, self._line = self._line, ""
        if line:
            self._write_line(line)

    def _write_line(self, line: str) -> None:
        self._writer.write(f"{self._escape(line)}\n".encode("ascii", "backslashreplace"))


def _write_polled(descriptor: int, data: bytes) -> int:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    if not poll.poll(0):
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return os.write(descriptor, data[:POLLED_BYTES])
