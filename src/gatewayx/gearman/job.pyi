"""A submission to a job server, and how its listener is told; the .pxd has the C-level interface."""

from enum import IntEnum
from typing import final

from gatewayx.core.deadlines import Expiring
from gatewayx.gearman.upstream import UpstreamConnection

class JobState(IntEnum):
    """How far a job has come."""

    UNSENT = 0
    WRITTEN = 1
    CREATED = 2
    ENDED = 3
    ABANDONED = 4

TRANSITIONS: dict[JobState, tuple[JobState, ...]]

class StatusListener:
    """Waits for what a job server knows of a job."""

class JobListener:
    """Waits for a job."""

class JobCarrier(UpstreamConnection):
    """The connection over which jobs are submitted."""

    @property
    def outstanding(self) -> int: ...
    @property
    def server_name(self) -> str: ...

class JobRouter:
    """Gives connections their jobs."""

@final
class Job(Expiring):
    """A submission and what the job server has said of it."""

    @property
    def state(self) -> JobState: ...
    @property
    def reached(self) -> JobState: ...
    @property
    def background(self) -> bool: ...
    @property
    def cancellable(self) -> bool: ...
    @property
    def streamed(self) -> bool: ...
    @property
    def over_budget(self) -> bool: ...
    @property
    def handle(self) -> bytes | None: ...
    @property
    def gathered(self) -> bytearray | None: ...
    @property
    def result_bytes(self) -> int: ...
    @property
    def connected(self) -> bool: ...
    def change(self, state: JobState) -> int:
        """Go to a state that may follow the present one. Raises StateError."""

    def deadline_passed(self) -> int: ...
