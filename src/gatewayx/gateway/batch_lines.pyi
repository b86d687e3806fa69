"""The lines of a batch: what each asks for. Bytes in, values out."""

from typing import final

MOST_LINE_BYTES: int
MOST_ID_BYTES: int
MOST_PARTS: int

def lines_of(body: bytes) -> list[tuple[int, bytes]]:
    """All lines of a body that are not blank, each with its number, from 1 on and blank ones counted."""

def path_of_function(function: bytes) -> bytes:
    """The path that names the function, percent-encoded."""

@final
class LineJob:
    """What the line asks for that was read last."""

    def __init__(self) -> None: ...
    @property
    def id(self) -> bytes | None: ...
    @property
    def fault(self) -> str | None: ...
    @property
    def function(self) -> bytes: ...
    @property
    def workload(self) -> bytes: ...
    @property
    def unique(self) -> bytes | None: ...
    @property
    def priority(self) -> int: ...
    @property
    def background(self) -> bool: ...
    @property
    def timeout_s(self) -> float: ...
    def read(self, line: bytes) -> None:
        """Read a line of at least one byte; `fault` says whether it is a job."""
