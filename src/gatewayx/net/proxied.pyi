"""Connections that proxies pass on, until their PROXY header is whole; the .pxd has the C-level interface."""

import asyncio
from collections.abc import Callable
from typing import final

from gatewayx.core.counters import Counters
from gatewayx.core.deadlines import DeadlineWheel
from gatewayx.net.networks import Networks
from gatewayx.net.stream import StreamOwner

MOST_WAITING: int
LAST_CALL_S: int

@final
class ProxyServer:
    """PROXY headers for a process.

    wheel: where deadlines hang. counters: where refusals are counted. networks: whose connections are taken. timeout_s:
    for a whole header.
    """

    def __init__(self, wheel: DeadlineWheel, counters: Counters, networks: Networks, timeout_s: float) -> None: ...
    @property
    def networks(self) -> Networks: ...
    @property
    def waiting(self) -> int: ...
    @property
    def emptied(self) -> asyncio.Event: ...
    def change(self, networks: Networks, timeout_s: float) -> None:
        """Be as if it had been made with these; connections that are there have the deadline that they have."""
    def before(
        self, factory: Callable[[bool], StreamOwner], late_factory: Callable[[bool], StreamOwner]
    ) -> Callable[[], StreamOwner]:
        """A factory of those who stand on accepted sockets.

        factory: of those who stand there once the header is whole; is told whether that passes somebody on without
        saying whom, so that the address is the proxy's and the words are not. late_factory: the same in a stop.
        """
    def drain(self) -> None:
        """The stop has begun: a header that is not whole has LAST_CALL_S left, and so has that of a late connection."""
    def abort(self) -> None:
        """Close at once all that wait."""
    def counters(self) -> dict[str, int]:
        """What is held now, by name."""
    def take_events(self) -> dict[str, tuple[int, bytes, str]]:
        """What was refused since the last call: kind to (count, the first bytes of one example, its peer's host).

        The bytes are as they came: whoever shows them escapes them.
        """

@final
class ProxiedConnection(StreamOwner):
    """Stands on the socket until the header is whole, and never after."""

    def __init__(
        self, server: ProxyServer, factory: Callable[[], StreamOwner], late_factory: Callable[[], StreamOwner]
    ) -> None: ...
