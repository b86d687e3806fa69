"""Accepts connections in bounded batches, and survives the want of descriptors; the .pxd has the C-level interface."""

import logging
import socket
from collections.abc import Callable
from typing import final

from gatewayx.core.counters import Counters
from gatewayx.net.poller import Polled, TurnPoller
from gatewayx.net.stream import StreamOwner
from gatewayx.net.tls import HandshakeLine

logger: logging.Logger

@final
class Listener(Polled):
    """Accepts the connections of a socket that listens, non-blocking, which is the listener's from here on.

    factory: makes the owner of an accepted connection's stream. counters: where connections are counted that could not
    be served. line: where their TLS handshakes wait; None for no TLS. Raises OSError if it cannot be watched.
    """

    def __init__(
        self,
        poller: TurnPoller,
        bound: socket.socket,
        factory: Callable[[], StreamOwner],
        counters: Counters,
        line: HandshakeLine | None = None,
    ) -> None: ...
    @property
    def waits(self) -> bool: ...
    def resume(self) -> None:
        """Accept again after a want of descriptors or memory; nothing happens if there was none."""
    def stop(self) -> None:
        """Accept no more by itself; the kernel still lets connections in, for accept_waiting() to take."""
    def accept_waiting(self, factory: Callable[[], StreamOwner]) -> bool:
        """Accept one connection that waits, for the owner that `factory` makes; whether there was one.

        Raises OSError.
        """
    def close(self) -> None:
        """Listen no more; the kernel resets the connections that wait."""
