"""Every count of a process, in a C struct; the .pxd has the C-level interface."""

from typing import Any, final

NAMES: tuple[str, ...]
ROW_BYTES: int

@final
class Counters:
    """The counts of one process. memory: a writable buffer of at least ROW_BYTES bytes; None for memory of its own."""

    def __init__(self, memory: Any = None, offset: int = 0) -> None: ...
    def read(self) -> dict[str, int]: ...
    def add(self, name: str, count: int) -> None:
        """Add to a count by its name, for what is not counted on the way of a request. Raises ValueError."""
