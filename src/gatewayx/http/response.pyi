"""Response heads and problem+json bodies; the .pxd has the C-level interface."""

from collections.abc import Callable
from typing import final

PROBLEM_CONTENT_TYPE: bytes
CONTINUE: bytes

@final
class ResponseBuilder:
    """Builds responses; one a process.

    empty_error_bodies: answer errors without a body. now_s: seconds since the epoch.
    """

    def __init__(self, *, empty_error_bodies: bool = False, now_s: float = 0) -> None: ...
    empty_error_bodies: bool
    def refresh(self, now_s: float) -> bool:
        """Let Date say now_s, seconds since the epoch; returns whether it changed."""

@final
class RetryAfter:
    """How soon clients may come again that were refused for now; one a process.

    clock: tells monotonic seconds. seed: of the jitter, above 0; None for a random one.
    """

    def __init__(self, clock: Callable[[], float], seed: int | None = None) -> None: ...
    def line(self, kind: str) -> bytes:
        """The header line, with its CRLF, for one more refusal of this kind."""

    def exactly(self, wait_ns: int) -> bytes:
        """The header line, with its CRLF, for one that may come again in so many nanoseconds, and not before."""

def http_date(second: int) -> str:
    """The IMF-fixdate of a second since the epoch (RFC 9110 5.6.7)."""
