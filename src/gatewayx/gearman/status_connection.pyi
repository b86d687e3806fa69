"""What one job server knows of a job by its unique; the .pxd has the C-level interface."""

import asyncio
from collections.abc import Callable
from typing import final

from gatewayx.core.turns import Turn
from gatewayx.gearman.admin import Cancellation, ServerStatus
from gatewayx.gearman.upstream import UpstreamConnection

@final
class StatusConnection(UpstreamConnection):
    """A connection for questions alone. loop: the event loop. turn: where questions are written."""

    def __init__(self, loop: asyncio.AbstractEventLoop, turn: Turn) -> None: ...
    @property
    def unanswered(self) -> str | None: ...
    @property
    def idle_s(self) -> float: ...
    def check(self, silence_s: float) -> None:
        """Close when nothing came for silence_s though an answer is due."""

@final
class StatusAsker:
    """Asks one job server.

    loop: the event loop. turn: where questions are written. status: what its text connection has told. connect: called
    with this object when a connection is wanted; it calls came_up() or failed(), once.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        turn: Turn,
        status: ServerStatus,
        connect: Callable[[StatusAsker], None],
    ) -> None: ...
    def new_connection(self) -> StatusConnection:
        """One that is to be connected."""

    def came_up(self, connection: StatusConnection) -> None:
        """This one is up: what waits is asked over it."""

    def failed(self, reason: str) -> None:
        """None comes up: what waits is told so."""

@final
class BackgroundCancellation(Cancellation):
    """A background job that is to be taken out of the queue."""
