"""Files of TLS while the gateway runs: the master alone reads them, and sees when they change.

Theory of operation. At each look the master asks what each path leads to now: another file after a link has moved, as
in a Kubernetes secret, or the same one after it was written. All files of one purpose are read together, and what was
read is judged when a second reading, SETTLE_S later, is equal. Whoever renews a certificate writes two files, one after
the other, or takes one away for a moment: a key that is not the certificate's, and a file that is missing, are faults
only after PATIENCE_S. What holds is handed to all processes; what does not changes nothing, and is told of once.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from typing import Generic, NamedTuple, TypeVar

from gatewayx.config.settings import Settings
from gatewayx.errors import StartError
from gatewayx.net.pem import MissingFileError, NoRoomError, OtherKeyError, Pem
from gatewayx.server.board import FilesRead, Reload
from gatewayx.server.expiry import moment
from gatewayx.server.tls_files import (
    ClientFiles,
    JobServerFiles,
    Pair,
    client_paths,
    job_server_paths,
    judged_clients,
    judged_job_servers,
    read_all,
)

logger = logging.getLogger("gatewayx")

# Between two readings that must be equal.
SETTLE_S = 0.1
# So long a fault of which a renewal consists for a moment is not told.
PATIENCE_S = 5.0

Held = TypeVar("Held", ClientFiles, JobServerFiles)
Paths = list[tuple[str, str]]
Contents = Mapping[tuple[str, str], Pem]


class Purpose(NamedTuple, Generic[Held]):
    """What files of TLS are there for."""

    # In the log.
    title: str
    paths: Callable[[Settings], Paths]
    # Raises StartError.
    judged: Callable[[Settings, Contents], Held]


FOR_CLIENTS = Purpose("the certificates for clients", client_paths, judged_clients)
FOR_JOB_SERVERS = Purpose("the certificates for job servers", job_server_paths, judged_job_servers)


class WatchedFiles(Generic[Held]):
    """The files of a purpose, as the master knows them.

    record: where it is told what became of the last reading. held: what the files of these settings hold; None without
    any.
    """

    def __init__(self, purpose: Purpose[Held], record: FilesRead, settings: Settings, held: Held | None) -> None:
        self._purpose: Purpose[Held] = purpose
        self._record = record
        self.held: Held | None = held
        self.take(settings, held)

    def take(self, settings: Settings, held: Held | None) -> None:
        """Go on with this, which was read for these settings."""
        if self.held is not None and held is not None and held != self.held:
            logger.info("%s have changed", self._purpose.title)
        self._settings = settings
        self.held = held
        self._paths = [] if held is None else self._purpose.paths(settings)
        # Of what was judged last. The first look reads anew what may have changed since it was read.
        self._identities: list[tuple[int, ...] | None] = []
        # What was read and is to be read again, or why it could not be, and when; by time.monotonic().
        self._unsettled: Contents | StartError | None = None
        self._due_s = 0.0
        # Since when a fault is not told that may be one of a moment, and when it is looked at again.
        self._faulty_since_s: float | None = None
        self._again_s = float("inf")
        self._told = ""
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
        found = _read(self._paths)
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

    def _judge(self, found: Contents | StartError, now_s: float) -> bool:
        try:
            if isinstance(found, StartError):
                raise found
            held = self._purpose.judged(self._settings, found)
            self._compare_times(held, now_s)
        except StartError as error:
            self._fail(error, now_s, is_read=error is not found)
            return False
        was_told, self._told = self._told, ""
        self._faulty_since_s = None
        self._record.told(Reload.SUCCESSFUL)
        if held == self.held:
            # Only the times of files differ, or they are what they were before a fault.
            if was_told:
                logger.info("%s can be read again, and are what they were", self._purpose.title)
            return False
        self.held = held
        logger.info("%s have changed", self._purpose.title)
        return True

    def _compare_times(self, held: Held, now_s: float) -> None:
        """Refuse a certificate that is not good now in the place of one that is."""
        epoch_s = time.time()
        before = {} if self.held is None else {pair.certificate.path: pair for pair in self.held.pairs}
        for pair in held.pairs:
            old = before.get(pair.certificate.path)
            if old is None or pair.is_good(epoch_s) or not old.is_good(epoch_s):
                continue
            if epoch_s < pair.not_before_s:
                self._again_s = now_s + pair.not_before_s - epoch_s
            raise StartError(_not_good(pair, epoch_s))

    def _fail(self, error: StartError, now_s: float, *, is_read: bool) -> None:
        if isinstance(error, (MissingFileError, OtherKeyError)):
            if self._faulty_since_s is None:
                self._faulty_since_s = now_s
            if now_s < self._faulty_since_s + PATIENCE_S:
                self._again_s = self._faulty_since_s + PATIENCE_S
                return
        elif isinstance(error, NoRoomError) or not is_read:
            # No file changes when there is room again, or when one that is there can be read again.
            self._again_s = now_s + PATIENCE_S
        reason = str(error)
        self._record.told(Reload.FAILED, reason)
        if reason != self._told:
            logger.error("%s stay as they were: %s", self._purpose.title, reason)
        self._told = reason


def _not_good(pair: Pair, epoch_s: float) -> str:
    if epoch_s < pair.not_before_s:
        return f"{pair.certificate} is not good before {moment(pair.not_before_s)}"
    return f"{pair.certificate} has expired on {moment(pair.not_after_s)}"


def _identities(paths: Paths) -> list[tuple[int, ...] | None]:
    """What changes with the file, whichever it is that a path leads to; None where there is none."""
    return [_identity(path) for _, path in paths]


def _identity(path: str) -> tuple[int, ...] | None:
    try:
        found = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        return None
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _read(paths: Paths) -> Contents | StartError:
    try:
        return read_all(paths)
    except StartError as error:
        return error


def _is_same(before: Contents | StartError, found: Contents | StartError) -> bool:
    if isinstance(before, StartError) or isinstance(found, StartError):
        return str(before) == str(found)
    return before == found
