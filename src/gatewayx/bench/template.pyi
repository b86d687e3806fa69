"""The request that the load generator sends again and again; the .pxd has the C-level interface."""

from typing import final

CHECKS: dict[str, int]
LEAST_UNIQUE_BYTES: int

@final
class RequestTemplate:
    """The request that is sent again and again.

    head: request line and headers without Content-Length and the empty line, each with its CRLF. body: None for a
    request without one. tag: if not empty, each body is unique: it begins with the start of the tag and a number, in
    place of its own first bytes. check: one of CHECKS. Raises ValueError if the body is too short to be unique.
    """

    def __init__(self, head: bytes, body: bytes | None, tag: bytes, check: str) -> None: ...
    @property
    def body_bytes(self) -> int: ...
    @property
    def to_head(self) -> bool: ...
