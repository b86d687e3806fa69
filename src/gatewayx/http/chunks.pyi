"""Chunked bodies; the .pxd has the C-level interface."""

from typing import final

from gatewayx.http.limits import Limits

@final
class ChunkedBody:
    """One chunked body.

    limits: what its chunks, extensions and trailers may take. is_endless: but for the data of the chunks.
    """

    def __init__(self, limits: Limits, is_endless: bool = False) -> None: ...
    @property
    def complete(self) -> bool: ...
    def feed(self, data: bytes, offset: int) -> tuple[int, bytes]:
        """Read on; returns the offset of the first unused byte, and the piece of data."""
