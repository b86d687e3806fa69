"""Requests in order over each client's connection, and their answers; the .pxd has the C-level interface."""

from typing import final

from gatewayx.http.clients import Clients
from gatewayx.http.piecewise import PiecewiseClient

PLACE_NEEDED: str
TOO_MANY_IN_FLIGHT: str

@final
class HttpServer(Clients):
    """The clients' side of a process; `connection` makes the owner of the stream of an accepted socket."""

    def connection(self, unix_path: str | None = None, is_anybodys: bool = False) -> HttpConnection:
        """The owner of the stream of one accepted socket, of the unix socket with this path if it is one."""

    def relay_connection(self) -> HttpConnection:
        """The owner for a socket that another process of this gateway has connected to."""

    def late_connection(self, unix_path: str | None = None, is_anybodys: bool = False) -> HttpConnection:
        """The owner for a socket that had waited to be accepted when the stop began."""

@final
class HttpConnection(PiecewiseClient):
    """One client and its requests."""

    def hung_up(self) -> int: ...
    def ended(self) -> bool: ...
    def lost(self, error: Exception | None) -> int: ...
    def pause_writing(self) -> int: ...
    def resume_writing(self) -> int: ...
