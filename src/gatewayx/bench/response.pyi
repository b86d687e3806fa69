"""Reads the answers on one connection; the .pxd has the C-level interface."""

from enum import IntFlag
from typing import final

class ReadEvent(IntFlag):
    """What `ResponseReader.read` has found; the .pxd says what each means."""

    NEED_MORE = 0
    BODY = 1
    COMPLETE = 2
    BAD = 3

@final
class ResponseReader:
    """The answers on one connection, one after the other. to_head: they answer HEAD requests."""

    def __init__(self, to_head: bool = False) -> None: ...
    to_head: bool
    @property
    def status(self) -> int: ...
    @property
    def keep_alive(self) -> bool: ...
    @property
    def body_total_bytes(self) -> int: ...
    @property
    def problem(self) -> str | None: ...
    @property
    def consumed(self) -> int: ...

def read_all(
    data: bytes | bytearray, ended: bool = False, to_head: bool = False, piece_bytes: int = 0
) -> tuple[list[tuple[int, bytes, bool]], str | None]:
    """What a connection's bytes mean, given at once or piece by piece: ([(status, body, keep_alive)], problem).

    ended: the connection ends after them. problem is None when they are answers and the last one is complete.
    """
