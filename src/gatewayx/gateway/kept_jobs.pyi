"""The kept jobs of a process; the .pxd has the C-level interface."""

import asyncio
from typing import final

from gatewayx.core.counters import Counters
from gatewayx.core.deadlines import DeadlineWheel, Expiring
from gatewayx.core.shared import Shared
from gatewayx.gateway.job_ids import JobIds
from gatewayx.gateway.kept_room import KeptRoom

@final
class KeptJobs:
    """Jobs that outlive their requests.

    wheel: where their times hang. room: where their bytes count. shared: where the numbers of all processes count.
    counters: where ends are counted. places: what the processes share. place: of this one. timeout_s: how long a job
    may take, default and maximum. ttl_s: how long it is known after its end. max_jobs: kept by all processes at once.
    """

    ids: JobIds
    place: int
    timeout_s: float
    stopping: bool
    all_ended: asyncio.Event
    def __init__(
        self,
        ids: JobIds,
        wheel: DeadlineWheel,
        room: KeptRoom,
        shared: Shared,
        counters: Counters,
        places: object,
        place: int,
        *,
        timeout_s: float,
        ttl_s: float,
        max_jobs: int,
    ) -> None: ...
    def change(self, *, timeout_s: float, ttl_s: float, max_jobs: int) -> None:
        """Be as if it had been made with these, for jobs that begin or end from now on."""
    def counters(self) -> dict[str, int]:
        """What is kept now, by name."""

@final
class Expiry(Expiring):
    """When an ended job is forgotten."""
