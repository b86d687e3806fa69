"""Requests in order over each client's connection, and their answers; the .pxd has the C-level interface."""

import asyncio
import logging
from typing import final

from gatewayx.http.arriving import ArrivingClient
from gatewayx.http.clients import Clients

logger: logging.Logger
PLACE_NEEDED: str
CONTINUE: bytes
PROBLEM_CONTENT_TYPE: bytes

@final
class HttpServer(Clients):
    """The clients' side of a process; `connection` is the protocol factory for the loop's create_server()."""

    def connection(self) -> asyncio.BaseProtocol:
        """A protocol for one accepted socket."""

    def late_connection(self) -> asyncio.BaseProtocol:
        """A protocol for a socket that had waited to be accepted when the stop began."""

@final
class HttpConnection(ArrivingClient):
    """One client and its requests."""

    def received(self, data: bytes) -> int: ...
    def ended(self) -> int: ...
    def lost(self, error: Exception | None) -> int: ...
    def pause_writing(self) -> int: ...
    def resume_writing(self) -> int: ...
