"""The ways in which bytes may be cut before they arrive."""

from __future__ import annotations

from collections.abc import Iterable


def in_pieces(data: bytes, size: int) -> list[bytes]:
    """The data cut into pieces of `size` bytes."""
    return [data[start : start + size] for start in range(0, len(data), size)]


def every_way(data: bytes) -> Iterable[list[bytes]]:
    """The data whole, byte by byte, in pieces of 3 and of 7 bytes, and cut in two at every place."""
    yield [data]
    for size in (1, 3, 7):
        yield in_pieces(data, size)
    for cut in range(1, len(data)):
        yield [data[:cut], data[cut:]]
