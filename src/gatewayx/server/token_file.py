"""The file of --tokens while the gateway runs: the master alone reads it, and sees when it changes.

Theory of operation. At each look the master asks what the path leads to now: another file after a link has moved, as in
a Kubernetes secret, or the same one after it was written. Half a file can be a sound one, so what was read is judged
when a second reading, SETTLE_S later, is equal. What holds is handed to all processes; what does not changes nothing,
and is told of once.
"""

from __future__ import annotations

import logging
import time
from typing import NamedTuple

from gatewayx.config import tokens
from gatewayx.config.tokens import Reading, TokenEntry
from gatewayx.errors import SettingError, StartError
from gatewayx.server.board import Board, Reload

logger = logging.getLogger("gatewayx")

# Between two readings that must be equal.
SETTLE_S = 0.1
# After so long a file that could not be read is tried again: nothing of it changes when there is a descriptor again.
PATIENCE_S = 5.0
# So often a file is read in one go that is never the same twice.
MOST_READINGS = 5

# What the tokens are while nobody needs one.
NO_TOKENS: tuple[TokenEntry, ...] = ()


class Judged(NamedTuple):
    """A file that holds."""

    reading: Reading
    entries: tuple[TokenEntry, ...]


def read_judged(path: str) -> Judged:
    """Read the file, twice and until it is the same. Raises StartError."""
    try:
        reading = tokens.read(path)
        for _ in range(MOST_READINGS):
            time.sleep(SETTLE_S)
            before, reading = reading, tokens.read(path)
            if reading == before:
                return Judged(reading, tokens.parse(path, reading.content))
    except SettingError as error:
        raise StartError(str(error)) from None
    raise StartError(f"tokens = {path!a} changes while it is read")


class TokenFile:
    """The file, as the master knows it.

    path: None for no file. board: where it is told what became of the last reading. Raises StartError.
    """

    def __init__(self, path: str | None, board: Board) -> None:
        self._record = board.tokens
        self.entries = NO_TOKENS
        self._path: str | None = None
        # Of what was judged last, whether it held or not; None for no file at all.
        self._identity: tuple[int, ...] | None = None
        self._content: bytes | None = None
        # What was read and is to be read again, or why it could not be, and when; by time.monotonic().
        self._unsettled: Reading | str | None = None
        self._due_s = 0.0
        # When one that could not be read is tried again, and the fault that was told last.
        self._again_s = float("inf")
        self._told = ""
        self.take(path, None if path is None else read_judged(path))

    def take(self, path: str | None, judged: Judged | None) -> None:
        """Go on with this file, which was read for settings that are new."""
        if judged is not None and self._content not in (None, judged.reading.content):
            logger.info("the tokens have changed: %d of them", len(judged.entries))
        self._path = path
        self._unsettled = None
        self._again_s = float("inf")
        self._told = ""
        self.entries = NO_TOKENS if judged is None else judged.entries
        self._identity = None if judged is None else judged.reading.identity
        self._content = None if judged is None else judged.reading.content
        self._record.told(Reload.NONE if judged is None else Reload.SUCCESSFUL)

    def refuse(self, reason: str) -> None:
        """The file of settings that do not hold does not, either; the next look tells of the one that is watched."""
        self._record.told(Reload.FAILED, reason)
        if self._path is not None:
            self._told = reason
            self._again_s = 0.0

    def look(self, now_s: float) -> bool:
        """Whether the tokens are others than at the last look; now_s: by time.monotonic()."""
        path = self._path
        if path is None:
            return False
        before = self._unsettled
        if before is None:
            if now_s < self._again_s and tokens.identity_of(path) == self._identity:
                return False
        elif now_s < self._due_s:
            return False
        identity = tokens.identity_of(path)
        found = _read(path)
        if found != before:
            self._unsettled = found
            self._due_s = now_s + SETTLE_S
            return False
        self._unsettled = None
        # One that could not be read is known as what stood there before: what takes its place meanwhile is another.
        self._identity = found.identity if isinstance(found, Reading) else identity
        self._again_s = float("inf") if isinstance(found, Reading) else now_s + PATIENCE_S
        return self._judge(path, found)

    def pause_s(self, now_s: float) -> float:
        """How long the next look may wait."""
        return max(0.0, (self._again_s if self._unsettled is None else self._due_s) - now_s)

    def _judge(self, path: str, found: Reading | str) -> bool:
        reason = found
        if isinstance(found, Reading):
            if found.content == self._content:
                # Only its times differ, or it is what it was before a fault.
                self._record.told(Reload.SUCCESSFUL)
                self._told = ""
                return False
            try:
                self.entries = tokens.parse(path, found.content)
            except SettingError as error:
                reason = str(error)
            else:
                self._content = found.content
                self._record.told(Reload.SUCCESSFUL)
                self._told = ""
                logger.info("the tokens have changed: %d of them", len(self.entries))
                return True
        reason = str(reason)
        self._record.told(Reload.FAILED, reason)
        if reason != self._told:
            logger.error("the tokens stay as they were: %s", reason)
        self._told = reason
        return False


def _read(path: str) -> Reading | str:
    try:
        return tokens.read(path)
    except SettingError as error:
        return str(error)
