"""An epoll descriptor of ours that the event loop watches as one of its own; the .pxd has the C-level interface."""

from asyncio import AbstractEventLoop
from collections.abc import Callable

class Polled:
    """What owns a socket that a `Poller` watches."""

class Poller:
    """An epoll descriptor that a running loop watches. callback: called with nothing when sockets are ready."""

    def __init__(self, loop: AbstractEventLoop, callback: Callable[[], object]) -> None: ...
    @property
    def descriptor(self) -> int: ...
    def close(self) -> None:
        """Watch no more."""
