"""Writing to a connection that is gone does nothing under every loop, as asyncio's own transports have it.

uvloop's raise RuntimeError instead, from the moment when the reset that has arrived was handled: a race that a test
would lose on a busy machine alone. That the connection is gone is what drain() and the reader tell.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Have every StreamWriter do so."""
    patch = pytest.MonkeyPatch()
    for name in ("write", "writelines", "write_eof"):
        patch.setattr(asyncio.StreamWriter, name, unless_lost(getattr(asyncio.StreamWriter, name)))
    config.add_cleanup(patch.undo)


def write(transport: asyncio.Transport, data: bytes) -> None:
    """The same for a transport."""
    if not transport.is_closing():
        transport.write(data)


def unless_lost(write: Callable[..., None]) -> Callable[..., None]:
    """The method, which does nothing once the transport is closed or about to be."""

    @functools.wraps(write)
    def writing(writer: asyncio.StreamWriter, *arguments: object) -> None:
        if not writer.is_closing():
            write(writer, *arguments)

    return writing
