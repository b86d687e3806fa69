"""The life of a connection to a job server; the .pxd has the C-level interface."""

import asyncio
from enum import IntEnum

from gatewayx.core.turns import Turn
from gatewayx.net.stream import StreamOwner

WRITE_HIGH_WATER_BYTES: int

class UpstreamState(IntEnum):
    """What a connection to a job server is."""

    CONNECTING = 0
    GREETING = 1
    UP = 2
    RETIRED = 3
    CLOSED = 4

TRANSITIONS: dict[UpstreamState, tuple[UpstreamState, ...]]

class UpstreamConnection(StreamOwner):
    """A connection to a job server, to be given to create_connection() as the owner of a TransportStream.

    loop: the event loop. turn: where what was gathered in a turn of it is written. title: what messages call it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, turn: Turn, title: str = "connection") -> None: ...
    @property
    def state(self) -> UpstreamState: ...
    @property
    def peer(self) -> tuple[object, ...] | None: ...
    @property
    def close_reason(self) -> str | None: ...
    @property
    def hung_up_unanswered(self) -> bool: ...
    @property
    def came_up(self) -> asyncio.Future[None]: ...
    @property
    def gone(self) -> asyncio.Future[None]: ...
    @property
    def up(self) -> bool: ...
    @property
    def closed(self) -> bool: ...
    def change(self, state: UpstreamState) -> int:
        """Go to a state that may follow the present one. Raises StateError."""

    def close(self, reason: str) -> None:
        """Close at once; what is under way over the connection is lost."""
