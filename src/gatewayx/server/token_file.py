"""The file of --tokens: what of it is read, at the start and whenever it changes."""

from __future__ import annotations

import time

from gatewayx.config import tokens
from gatewayx.config.settings import Settings
from gatewayx.config.tokens import TokenEntry
from gatewayx.errors import SettingError, StartError
from gatewayx.server.watched_files import SETTLE_S, Paths, Purpose

# So often a file is read in one go that is never the same twice.
MOST_READINGS = 5

# What the tokens are while nobody needs one.
NO_TOKENS: tuple[TokenEntry, ...] = ()


def read_tokens(settings: Settings) -> tuple[TokenEntry, ...] | None:
    """The tokens of the file, which is read until it is the same twice; None without one. Raises StartError."""
    paths = _paths(settings)
    if not paths:
        return None
    content = _read(paths)
    for _ in range(MOST_READINGS):
        time.sleep(SETTLE_S)
        before, content = content, _read(paths)
        if content == before:
            return _judged(settings, content)
    raise StartError(f"tokens = {settings.tokens!a} changes while it is read")


def _paths(settings: Settings) -> Paths:
    return [] if settings.tokens is None else [("tokens", settings.tokens)]


def _read(paths: Paths) -> bytes:
    [(_, path)] = paths
    try:
        return tokens.read(path)
    except SettingError as error:
        raise StartError(str(error)) from None


def _judged(settings: Settings, content: bytes, _before: object = None) -> tuple[TokenEntry, ...]:
    try:
        return tokens.parse(str(settings.tokens), content)
    except SettingError as error:
        raise StartError(str(error)) from None


def _details(entries: tuple[TokenEntry, ...]) -> str:
    return f": {len(entries)} of them"


FOR_TOKENS = Purpose("the tokens", _paths, _read, _judged, _details)
