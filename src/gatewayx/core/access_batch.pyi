"""Lines of the access log that are not written yet; the .pxd has the C-level interface."""

from collections.abc import Callable
from typing import Any, final

from gatewayx.core.counters import Counters

HELD: int
PIECE: int
FILE_PIECE: int

@final
class AccessBatch:
    """The lines of one process. counters: where it counts those that are dropped; None for counters of its own."""

    def __init__(self, counters: Counters | None = None) -> None: ...
    @property
    def held_bytes(self) -> int:
        """What waits to be written."""
    @property
    def dropped(self) -> int:
        """Lines that were dropped, in this process and in those that had its place before."""
    @property
    def error(self) -> int:
        """The number of the error of the last attempt to write; 0 if it succeeded."""
    def attach(self, descriptor: int, send: Callable[[bytes], int] | None = None, *, is_file: bool = False) -> None:
        """Write there from now on; what has waited goes there, but for the rest of a line that was begun elsewhere."""
    def detach(self) -> None:
        """Write nowhere from now on: what waits, and each further line, is dropped."""
    def flush(self) -> bool:
        """Write what waits, as far as that needs no waiting; returns whether nothing is left."""
    def add_line(self, **fields: Any) -> None:
        """Take a line as access_line.line_of() makes it; for tests."""
    def add_lines(self, count: int, **fields: Any) -> None:
        """The same line so often, but for `request`, which counts up from 0; for tests and measurements."""
