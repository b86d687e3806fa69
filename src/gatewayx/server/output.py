"""Where the access log goes: a file or standard output, opened so that no write waits, and opened anew.

Theory of operation. Each process opens it for itself. What cannot be opened, or written, makes nobody wait and ends
nothing: lines are dropped and counted, the event log says so at most once each TELL_EVERY_S, and the next attempt is
made without being asked for.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import select
import socket
import stat
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from gatewayx.core.access_batch import AccessBatch
from gatewayx.errors import StartError

logger = logging.getLogger("gatewayx")

# In the place of a path.
STANDARD_OUTPUT = "-"
STANDARD_OUTPUT_DESCRIPTOR = 1
# As a log that the group may read.
FILE_MODE = 0o640
# After an attempt to open that failed the next one comes so much later.
RETRY_S = 1.0
# Dropped lines are told at most so often.
TELL_EVERY_S = 60.0
# At the end of a process, or of its log, the last lines have so long to be taken, and attempts are made so often.
LAST_WRITES_S = 1.0
LAST_ATTEMPT_S = 0.005
# Bytes that a pipe with any room takes without waiting: PIPE_BUF (pipe(7)).
POLLED_BYTES = 4096

_OPEN_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_SEND_FLAGS = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
# What errors mean here, where the system's words are about something else.
_REASONS = {
    errno.EAGAIN: "its reader does not read, or another process keeps the file locked",
    errno.EPIPE: "nobody reads it",
    errno.ENXIO: "nobody reads it",
}


class Output(NamedTuple):
    """What is open: a descriptor whose write(2) does not wait, or -1 and `send`, which is called instead."""

    descriptor: int
    close: Callable[[], None]
    send: Callable[[bytes], int] | None = None
    is_file: bool = False


def open_output(path: str) -> Output:
    """Open a file, which is made if there is none, or standard output. Raises OSError."""
    if path == STANDARD_OUTPUT:
        return _open_inherited(_standard_output())
    return _opened(os.open(path, _OPEN_FLAGS | os.O_CREAT, FILE_MODE))


def _standard_output() -> int:
    if sys.__stdout__ is None:
        # It was closed at the start, and its number may be that of any other by now.
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    return STANDARD_OUTPUT_DESCRIPTOR


def _opened(descriptor: int) -> Output:
    return Output(descriptor, partial(os.close, descriptor), is_file=stat.S_ISREG(os.fstat(descriptor).st_mode))


def _open_inherited(descriptor: int) -> Output:
    """What an inherited descriptor refers to, opened anew: the O_NONBLOCK of that one is shared with whoever has it."""
    if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        # Such as the journal's, which cannot be opened.
        connected = socket.socket(fileno=os.dup(descriptor))
        return Output(-1, connected.close, lambda batch: connected.send(batch, _SEND_FLAGS))
    try:
        return _opened(os.open(f"/proc/self/fd/{descriptor}", _OPEN_FLAGS))
    except OSError:
        # Such as a pipe or terminal of another user's (sudo, a container), or no /proc.
        own = os.dup(descriptor)
        return Output(-1, partial(os.close, own), partial(_write_polled, own))


def _write_polled(descriptor: int, batch: bytes) -> int:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    if not poll.poll(0):
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return os.write(descriptor, batch[:POLLED_BYTES])


def check(path: str | None) -> None:
    """Find out whether the access log could be opened, without making it. Raises StartError.

    A FIFO need not have its reader yet; to open it would end the reader that it has when it is closed again.
    """
    if path is None:
        return
    try:
        if path == STANDARD_OUTPUT:
            _standard_output()
        elif not Path(path).exists():
            folder = Path(path).parent
            os.close(os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
            _require(folder, os.W_OK | os.X_OK)
        elif Path(path).is_fifo():
            _require(Path(path), os.W_OK)
        else:
            os.close(os.open(path, _OPEN_FLAGS))
    except OSError as error:
        raise StartError(f"access-log = {path!a} cannot be opened: {reason_of(error.errno)}") from error


def _require(path: Path, mode: int) -> None:
    if not os.access(path, mode):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def reason_of(number: int | None) -> str:
    """Why something was not written or opened, by the number of its error."""
    return _REASONS.get(number or 0) or os.strerror(number or errno.EIO)


class AccessOutput:
    """The access log's way out of one process: opens what the lines of a batch are written to, and tells what was lost.

    path: None for no access log.
    """

    def __init__(self, batch: AccessBatch, path: str | None) -> None:
        self._batch = batch
        self._path = path
        # What the lines are written to: None without an access log, and as long as none could be opened.
        self._output: Output | None = None
        # Whether that is what the path names; if not, it is attempted again and again.
        self._is_there = False
        # By time.monotonic(): when it is next attempted, and when dropped lines were told last.
        self._retry_s = 0.0
        self._told_s = float("-inf")
        self._told_dropped = batch.dropped
        self._reason = reason_of(errno.EAGAIN)
        if path is not None and not self._open(path):
            logger.error("the access log %s cannot be opened, %s", path, self._goes_on())

    @property
    def path(self) -> str | None:
        """Where the lines go, or would if it could be opened."""
        return self._path

    @property
    def waits(self) -> bool:
        """Whether lines wait to be written, or an attempt to open is due."""
        return self._batch.held_bytes > 0 or (self._path is not None and not self._is_there)

    async def change(self, path: str | None) -> None:
        """Go on there, or nowhere; until it can be opened, where it was. What waits has LAST_WRITES_S to be written."""
        if path == self._path:
            return
        await self._write_last()
        self._path = path
        self._is_there = False
        if path is None:
            self.close()
        elif not self._open(path):
            logger.error("the access log %s cannot be opened, %s", path, self._goes_on())

    def reopen(self) -> None:
        """Open it anew, as after its file was renamed; if it cannot be opened the old one stays in use."""
        if self._path is not None and not self._open(self._path):
            logger.error("the access log %s cannot be opened anew, %s", self._path, self._goes_on())

    def tick(self, now_s: float) -> None:
        """Write what waits, as far as that needs no waiting; at this time.monotonic()."""
        if self._path is None:
            return
        if not self._is_there and now_s >= self._retry_s:
            self._retry_s = now_s + RETRY_S
            if self._open(self._path):
                logger.info("the access log %s is open", self._path)
        if self._output is not None and not self._batch.flush():
            self._reason = reason_of(self._batch.error)
        if self._batch.dropped > self._told_dropped and now_s - self._told_s >= TELL_EVERY_S:
            self._told_s = now_s
            self._tell_dropped()

    async def finish(self) -> None:
        """Write what is taken within LAST_WRITES_S, count the rest as dropped, and let go."""
        await self._write_last()
        self.close()

    async def _write_last(self) -> None:
        ends_s = time.monotonic() + LAST_WRITES_S
        while self._output is not None and not self._batch.flush():
            if self._batch.error != errno.EAGAIN or time.monotonic() >= ends_s:
                break
            await asyncio.sleep(LAST_ATTEMPT_S)

    def close(self) -> None:
        """Write what can be written at once, count the rest as dropped, and let go."""
        if self._output is not None and not self._batch.flush():
            self._reason = reason_of(self._batch.error)
        self._batch.detach()
        if self._output is not None:
            self._output.close()
            self._output = None
        if self._batch.dropped > self._told_dropped:
            self._tell_dropped()

    def _open(self, path: str) -> bool:
        """Whether it is open now; if not, what was open before stays."""
        try:
            output = open_output(path)
        except OSError as error:
            self._reason = reason_of(error.errno)
            return False
        if self._output is not None:
            # What waits belongs to the old file as long as that takes it.
            self._batch.flush()
        self._batch.attach(output.descriptor, output.send, is_file=output.is_file)
        if self._output is not None:
            self._output.close()
        self._output = output
        self._is_there = True
        return True

    def _goes_on(self) -> str:
        if self._output is None:
            return f"so its lines are dropped: {self._reason}"
        return f"so the one that is open stays in use: {self._reason}"

    def _tell_dropped(self) -> None:
        dropped, self._told_dropped = self._batch.dropped - self._told_dropped, self._batch.dropped
        logger.warning("%d lines of the access log were dropped: %s", dropped, self._reason)
