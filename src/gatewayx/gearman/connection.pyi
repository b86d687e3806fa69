"""One pipelined socket to one job server; the .pxd has the C-level interface."""

import asyncio
from typing import final

from gatewayx.core.budget import ByteBudget
from gatewayx.core.deadlines import DeadlineWheel
from gatewayx.core.turns import Turn
from gatewayx.gearman.admin import ServerStatus
from gatewayx.gearman.job import JobCarrier, JobRouter

@final
class JobServerConnection(JobCarrier):
    """A connection to the job server `server_name`.

    `asks_option` may be changed before it is connected.
    """

    asks_option: bool
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        turn: Turn,
        wheel: DeadlineWheel,
        router: JobRouter,
        status: ServerStatus,
        budget: ByteBudget,
        server_name: str,
        server_number: int,
        number: int,
        max_result_bytes: int,
    ) -> None: ...
    @property
    def number(self) -> int: ...
    @property
    def sends_exceptions(self) -> bool: ...
    @property
    def option_answer(self) -> str | None: ...
    @property
    def unsent_bytes(self) -> int: ...
    @property
    def idle(self) -> bool: ...
    @property
    def unanswered(self) -> str | None: ...
    def bound_results(self, max_result_bytes: int) -> None:
        """From now on a job's result has at most so many bytes."""

    def retire(self) -> None:
        """Take no more jobs, but those that are merged with one that is under way here."""

    def check(self, silence_s: float) -> None:
        """Ask for a sign of life; closes when there was none since the last check, silence_s ago."""
