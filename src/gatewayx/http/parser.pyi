"""The parser that turns a client's bytes into requests; the .pxd has the C-level interface."""

from enum import IntEnum
from typing import final

from gatewayx.http.limits import Limits
from gatewayx.http.request import Request, RequestHandler

class Event(IntEnum):
    """What the last bytes came to."""

    MORE = 0
    HEAD_COMPLETE = 1
    REQUEST_COMPLETE = 2

@final
class RequestParser:
    """Turns bytes into requests, one at a time.

    limits: what a request may take. handler: asked which headers to keep; None keeps none. httptools_only: for the
    referee, which compares the two ways of a head: no head goes the short way.
    """

    def __init__(
        self, limits: Limits, handler: RequestHandler | None = None, *, httptools_only: bool = False
    ) -> None: ...
    @property
    def limits(self) -> Limits: ...
    @property
    def request(self) -> Request | None: ...
    @property
    def handed_over(self) -> bool:
        """Whether the head is not plain: HeadReader reads it."""

    @property
    def event(self) -> Event: ...
    def feed(self, data: bytes, offset: int) -> int:
        """Read on; returns the offset of the first unused byte. Raises RequestError."""

    def start_next(self) -> int:
        """Forget the request that was read and be ready for another one."""

    def release(self) -> None:
        """Break the reference cycle with httptools; the parser is of no use afterwards."""
