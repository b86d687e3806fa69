"""What a client has sent of its next request; the .pxd has the C-level interface."""

from typing import final

from gatewayx.http.clients import Client

TOO_SLOW_FOR_ROOM: str

@final
class Unfinished:
    """What is known of a request that came in pieces; the .pxd says what each field means."""

class ArrivingClient(Client):
    """A client's connection and what has come of its next request."""
