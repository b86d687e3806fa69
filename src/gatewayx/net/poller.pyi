"""An epoll descriptor of ours that the event loop watches as one of its own; the .pxd has the C-level interface."""

import logging
from asyncio import AbstractEventLoop
from collections.abc import Callable
from typing import final

from gatewayx.core.turns import Turn

logger: logging.Logger

class Polled:
    """What owns a socket that a `Poller` watches."""

class Poller:
    """An epoll descriptor that a running loop watches. callback: called with nothing when sockets are ready."""

    def __init__(self, loop: AbstractEventLoop, callback: Callable[[], object]) -> None: ...
    @property
    def descriptor(self) -> int: ...
    @property
    def watched(self) -> int: ...
    def close(self) -> None:
        """Watch no more."""

@final
class TurnPoller(Poller):
    """The poller of a process that serves; what its sockets gather is written by `turn`."""

    # Called before the next turn, once.
    before_turn: Callable[[], object] | None
    before_turn_from_ns: int
    def __init__(self, loop: AbstractEventLoop, turn: Turn) -> None: ...
    @property
    def number(self) -> int: ...
