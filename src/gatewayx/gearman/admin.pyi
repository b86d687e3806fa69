"""The text protocol of a job server; the .pxd has the C-level interface."""

import asyncio
from typing import final

from gatewayx.core.counters import Counters
from gatewayx.core.turns import Turn
from gatewayx.gearman.upstream import UpstreamConnection

@final
class FunctionStatus:
    """One function at one job server, as its last `status` said."""

    @property
    def queued(self) -> int: ...
    @property
    def running(self) -> int: ...
    @property
    def workers(self) -> int: ...
    @property
    def busy_since(self) -> int: ...

@final
class ServerStatus:
    """What is known of one job server by text."""

    @property
    def queued_jobs(self) -> int: ...
    @property
    def running_jobs(self) -> int: ...
    @property
    def workers_in_all(self) -> int: ...
    @property
    def served(self) -> list[bytes]: ...
    @property
    def version(self) -> bytes: ...
    def functions_now(self) -> dict[bytes, FunctionStatus] | None:
        """The functions with workers or jobs, as the last `status` said; None while that is not known."""
    @property
    def asked(self) -> int: ...
    @property
    def answered(self) -> int: ...

class Cancellation:
    """One `cancel job` whose answer somebody waits for."""

    @property
    def handle(self) -> bytes: ...
    @property
    def connected(self) -> bool: ...

@final
class AdminConnection(UpstreamConnection):
    """A text connection.

    loop: the event loop. turn: where cancellations are written. status: where what it learns is kept. counters: where
    cancellations are counted.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, turn: Turn, status: ServerStatus, counters: Counters
    ) -> None: ...
    @property
    def number(self) -> int: ...
    @property
    def status(self) -> ServerStatus: ...
    @property
    def pending_cancels(self) -> int: ...
    @property
    def status_cost_s(self) -> float: ...
    @property
    def unanswered(self) -> str | None: ...
    def check(self, silence_s: float) -> None:
        """Close when nothing came for silence_s though something is due."""

    def ask_status(self, interval_s: float) -> None:
        """Ask for the status if that was so long ago and is answered."""
