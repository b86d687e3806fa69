"""Handlers in plain Python behind our own http room; the .pxd has the C-level interface."""

import logging
from collections.abc import Callable, Iterable
from typing import NamedTuple, final

from gatewayx.http.request import BodySource, RequestHandler

logger: logging.Logger

class PlainRequest(NamedTuple):
    """What a handler in Python sees of a request."""

    method: str
    path: bytes
    query: bytes
    headers: dict[bytes, bytes]

class PlainAnswer(NamedTuple):
    """What it answers; to HEAD the body is left out by the connection."""

    status: int
    content_type: bytes
    body: bytes | PlainPieces
    header_lines: bytes = b""

@final
class PlainPieces(BodySource):
    """A body that comes in pieces; each call of a method is about the one request whose answer it is.

    body_bytes: what Content-Length says; -1 for a body that ends when `end` says so. first: what leaves in one write
    with the head; None for nothing. on_wanted: called when the client takes the next piece; None for nobody.
    """

    def __init__(
        self, body_bytes: int = -1, first: bytes | None = None, on_wanted: Callable[[], object] | None = None
    ) -> None: ...
    @property
    def body_bytes(self) -> int: ...
    @property
    def first(self) -> bytes | None: ...
    @property
    def times_wanted(self) -> int: ...
    @property
    def abandoned(self) -> bool: ...
    def give(self, piece: bytes) -> bool:
        """Give the next piece, once any was wanted; returns whether the one after it is."""

    def end(self) -> None:
        """Say that the whole of a body without a length was given."""

    def waiting_bytes(self) -> int:
        """What was given that the kernel has not taken yet."""

    def take_back(self) -> bool:
        """Say that the rest never comes; returns whether another answer could be given."""

class PythonHandler(RequestHandler):
    """Lets `respond` answer each request.

    respond: takes a PlainRequest and returns a PlainAnswer; an exception is logged and answered 500. wanted_headers:
    names of headers in lower case.
    """

    def __init__(self, respond: Callable[[PlainRequest], PlainAnswer], wanted_headers: Iterable[bytes]) -> None: ...
