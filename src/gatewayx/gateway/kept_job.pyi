"""A job that outlives its request; the .pxd has the C-level interface."""

import enum
from typing import final

from gatewayx.gateway.kept_room import KeptAnswer

class KeptState(enum.IntFlag):
    """What is known of a kept job."""

    QUEUED = 0
    RUNNING = 1
    SUCCEEDED = 2
    FAILED = 3
    CANCELLED = 4
    LOST = 5
    TIMEOUT = 6

@final
class KeptJob(KeptAnswer):
    """A job that outlives its request."""

    @property
    def id(self) -> bytes: ...
    @property
    def function(self) -> bytes: ...
    @property
    def state(self) -> KeptState: ...
