"""Where the records of TLS end, in bytes as they come; the .pxd has the C-level interface."""

from collections.abc import Iterable

def record_ends(pieces: Iterable[bytes]) -> list[int]:
    """How many records end in each of these pieces of a connection's bytes; for tests."""
