"""Heads of every kind, read by two readers that must agree; the .pxd has the C-level interface."""

from typing import final

from gatewayx.http.limits import Limits
from gatewayx.http.request import RequestHandler

@final
class LlhttpInput:
    """What llhttp is given to read."""

@final
class HeadReader:
    """Reads heads of every kind, one at a time."""

    def __init__(self, limits: Limits, handler: RequestHandler | None = None) -> None: ...
    def on_header(self, name: bytes, value: bytes) -> None: ...
    def on_headers_complete(self) -> None: ...
    def on_body(self, data: bytes) -> None: ...
    def on_message_complete(self) -> None: ...
