"""Handlers in plain Python behind our own http room; the .pxd has the C-level interface."""

import logging
from collections.abc import Callable, Iterable
from typing import NamedTuple

from gatewayx.http.request import RequestHandler

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
    body: bytes
    header_lines: bytes = b""

class PythonHandler(RequestHandler):
    """Lets `respond` answer each request.

    respond: takes a PlainRequest and returns a PlainAnswer; an exception is logged and answered 500. wanted_headers:
    names of headers in lower case.
    """

    def __init__(self, respond: Callable[[PlainRequest], PlainAnswer], wanted_headers: Iterable[bytes]) -> None: ...
