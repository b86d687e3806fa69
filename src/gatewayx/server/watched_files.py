"""Files that settings name while the gateway runs: the master alone reads them, and sees when they change.

Theory of operation. At each look the master asks what each path leads to now: another file after a link has moved, as
in a Kubernetes secret, or the same one after it was written. All files of one purpose are read together, and as half a
file can be a sound one, what was read is judged when a second reading, SETTLE_S later, is equal. Whoever renews a
certificate writes two files, one after the other, or takes one away for a moment: a key that is not the certificate's,
and a file of TLS that is missing, are faults only after PATIENCE_S. What holds is handed to all processes; what does
not changes nothing, and is told of once.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

from gatewayx.config.settings import Settings
from gatewayx.errors import StartError
from gatewayx.net.pem import MissingFileError, NoRoomError, OtherKeyError
from gatewayx.server.board import FilesRead, Reload

logger = logging.getLogger("gatewayx")

# Between two readings that must be equal.
SETTLE_S = 0.1
# So long a fault of which a renewal consists for a moment is not told; what could not be read is read again after it.
PATIENCE_S = 5.0

# What is read of the files, comparable; and what they hold, likewise.
Content = TypeVar("Content")
Held = TypeVar("Held")
# Each as (setting, path).
Paths = list[tuple[str, str]]


class NotYetError(StartError):
    """What files hold cannot be used yet. wait_s: how long not."""

    def __init__(self, reason: str, wait_s: float) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class Purpose(NamedTuple, Generic[Content, Held]):
    """What files are there for. What reads and judges raises StartError."""

    # In the log, where there are several of them.
    title: str
    paths: Callable[[Settings], Paths]
    read: Callable[[Paths], Content]
    # Of what was read, for these settings, in the place of what the files held before; None if there were none.
    judged: Callable[[Settings, Content, Held | None], Held]
    # What the log tells of those that have changed, beyond that.
    details: Callable[[Held], str] = lambda _held: ""


class WatchedFiles(Generic[Content, Held]):
    """The files of a purpose, as the master knows them.

    record: where it is told what became of the last reading. held: what the files of these settings hold; None without
    any.
    """

    def __init__(
        self, purpose: Purpose[Content, Held], record: FilesRead, settings: Settings, held: Held | None
    ) -> None:
        self._purpose: Purpose[Content, Held] = purpose
        self._record = record
        self.held: Held | None = held
        self.take(settings, held)

    def take(self, settings: Settings, held: Held | None) -> None:
        """Go on with this, which was read for these settings."""
        if self.held is not None and held is not None and held != self.held:
            self._tell_change(held)
        self._settings = settings
        self.held = held
        self._paths = [] if held is None else self._purpose.paths(settings)
        # Of what was judged last. The first look reads anew what may have changed since it was read.
        self._identities: list[tuple[int, ...] | None] = []
        # What was read and is to be read again, or why it could not be, and when; by time.monotonic().
        self._unsettled: Content | StartError | None = None
        self._due_s = 0.0
        # Since when a fault is not told that may be one of a moment, and when it is looked at again.
        self._faulty_since_s: float | None = None
        self._again_s = float("inf")
        # The fault that was told last, and whether it was found at a look.
        self._told = ""
        self._is_faulty = False
        self._record.told(Reload.NONE if not self._paths else Reload.SUCCESSFUL)

    def leave(self) -> None:
        """In a child: let go of what was read."""
        self.held = self._unsettled = None

    def refuse(self, reason: str) -> None:
        """The files of settings that do not hold do not, either; the next look tells of those that are watched."""
        self._record.told(Reload.FAILED, reason)
        if self._paths:
            self._told = reason
            self._again_s = 0.0

    def look(self, now_s: float) -> bool:
        """Whether the files hold something else than at the last look; now_s: by time.monotonic()."""
        if not self._paths:
            return False
        before = self._unsettled
        if before is None:
            if now_s < self._again_s and self._identities == _identities(self._paths):
                return False
        elif now_s < self._due_s:
            return False
        # One that changes after this is another one at the next look.
        identities = _identities(self._paths)
        found = self._read()
        if before is None or not _is_same(before, found):
            self._unsettled = found
            self._due_s = now_s + SETTLE_S
            return False
        self._unsettled = None
        self._identities = identities
        self._again_s = float("inf")
        return self._judge(found, now_s)

    def pause_s(self, now_s: float) -> float:
        """How long the next look may wait."""
        due_s = self._again_s if self._unsettled is None else self._due_s
        return max(0.0, due_s - now_s)

    def _read(self) -> Content | StartError:
        try:
            return self._purpose.read(self._paths)
        except StartError as error:
            return error

    def _judge(self, found: Content | StartError, now_s: float) -> bool:
        try:
            if isinstance(found, StartError):
                raise found
            held = self._purpose.judged(self._settings, found, self.held)
        except StartError as error:
            self._fail(error, now_s, is_read=error is not found)
            return False
        was_faulty, self._is_faulty = self._is_faulty, False
        self._told = ""
        self._faulty_since_s = None
        self._record.told(Reload.SUCCESSFUL)
        if held == self.held:
            # Only the times of files differ, or they are what they were before a fault.
            if was_faulty:
                logger.info("%s can be read again, and are what they were", self._purpose.title)
            return False
        self.held = held
        self._tell_change(held)
        return True

    def _tell_change(self, held: Held) -> None:
        logger.info("%s have changed%s", self._purpose.title, self._purpose.details(held))

    def _fail(self, error: StartError, now_s: float, *, is_read: bool) -> None:
        if isinstance(error, (MissingFileError, OtherKeyError)):
            if self._faulty_since_s is None:
                self._faulty_since_s = now_s
            if now_s < self._faulty_since_s + PATIENCE_S:
                self._again_s = self._faulty_since_s + PATIENCE_S
                return
        elif isinstance(error, NotYetError):
            self._again_s = now_s + error.wait_s
        elif isinstance(error, NoRoomError) or not is_read:
            # No file changes when there is room again, or when one that is there can be read again.
            self._again_s = now_s + PATIENCE_S
        self._is_faulty = True
        reason = str(error)
        self._record.told(Reload.FAILED, reason)
        if reason != self._told:
            logger.error("%s stay as they were: %s", self._purpose.title, reason)
        self._told = reason


def _identities(paths: Paths) -> list[tuple[int, ...] | None]:
    """What changes with the file, whichever it is that a path leads to; None where there is none."""
    return [_identity(path) for _, path in paths]


def _identity(path: str) -> tuple[int, ...] | None:
    try:
        found = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        return None
    # Who owns it and who may write to it is in its times of change too.
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _is_same(before: object, found: object) -> bool:
    if isinstance(before, StartError) or isinstance(found, StartError):
        return str(before) == str(found)
    return before == found
