"""Values by function: for full names, and for all that begin alike; the .pxd has the C-level interface."""

from collections.abc import Iterable
from typing import final

@final
class FunctionTable:
    """entries: (name, value) pairs, a name as bytes, `*` at its end standing for any rest; no name twice."""

    def __init__(self, entries: Iterable[tuple[bytes, object]] = ()) -> None: ...
    @property
    def empty(self) -> bool: ...
