"""The PROXY header by which a proxy tells whose connection it passes on; the .pxd has the C-level interface."""

from typing import final

MOST_LINE_BYTES: int
MOST_REST_BYTES: int

class ProxyError(Exception):
    """What came is no PROXY header: the fault of whoever has sent it."""

@final
class ProxyHeader:
    """The header of one connection."""

    def __init__(self) -> None: ...
    @property
    def is_complete(self) -> bool: ...
    @property
    def host(self) -> str | None: ...
    @property
    def port(self) -> int: ...
    @property
    def is_proxys_own(self) -> bool: ...
    def feed(self, data: bytes) -> int:
        """Take bytes; how many of them belong to the header. Raises ProxyError."""
