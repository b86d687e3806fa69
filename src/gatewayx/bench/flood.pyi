"""Floods: connections that no good client makes; the .pxd has the C-level interface."""

from asyncio import AbstractEventLoop
from typing import Any, final

from gatewayx.net.poller import Polled
from gatewayx.net.sockets import Peer

MIXED: str
KIND_NAMES: tuple[str, ...]
OVERSIZE_BYTES: int
FLOODED_HEADERS: int
PIPELINED_REQUESTS: int

@final
class FloodKind:
    """What one kind of connection sends, and how it behaves."""

    def __init__(self, name: str, manner: int, text: bytes) -> None: ...
    @property
    def name(self) -> str: ...

@final
class FloodConnection(Polled):
    """One hostile client after the other, in one place."""

    def __new__(cls, generator: FloodGenerator) -> FloodConnection: ...

@final
class FloodGenerator:
    """A flood of one kind or of all in turn.

    loop: the running event loop. peer: whom to flood. kinds: what, in turn. connections: open at once at most. rate:
    new ones a second, 0 for as many as go. Call `begin`, `sweep` about every 50 ms, `finish` when the time is over.
    """

    def __init__(
        self, loop: AbstractEventLoop, peer: Peer, kinds: list[FloodKind], *, connections: int, rate: float = 0
    ) -> None: ...
    @property
    def slow(self) -> int: ...
    @property
    def open_now(self) -> int: ...
    @property
    def highest_open(self) -> int: ...
    @property
    def opened(self) -> int: ...
    @property
    def closed_silently(self) -> int: ...
    @property
    def resets(self) -> int: ...
    @property
    def failed(self) -> int: ...
    @property
    def done(self) -> bool:
        """The time is over."""
    def begin(self, begins_ns: int, ends_ns: int) -> None:
        """Flood from one time of the clock to another."""
    def turn(self) -> None:
        """Serve the connections that are ready, and open those that are due."""
    def sweep(self) -> None:
        """What time brings: drops on the slow connections, and the end."""
    def stop(self) -> None:
        """End before the time is over."""
    def finish(self) -> None:
        """Close everything."""
    def snapshot(self) -> dict[str, Any]:
        """What has happened so far, as JSON can hold it."""

def flood_kinds(target: bytes, host: bytes) -> dict[str, FloodKind]:
    """Every kind of flood by name, aimed at a request target of a host."""
