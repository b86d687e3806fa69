"""What a client has sent of its next request; the .pxd has the C-level interface."""

from gatewayx.http.clients import Client

TOO_SLOW_FOR_ROOM: str

class ArrivingClient(Client):
    """A client's connection and what has come of its next request."""
