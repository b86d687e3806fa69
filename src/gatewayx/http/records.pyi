"""What is told of each request; the .pxd has the C-level interface."""

from typing import final

from gatewayx.core.metrics import Metrics
from gatewayx.core.turns import Turn

class RequestsLog:
    """Where requests are told of once they have ended."""

@final
class Records:
    """Tells of the requests of a process.

    metrics: where they are counted. turn: tells the time. log: where they are told of one by one; None for nowhere, and
    may be changed. server_timing: answers say how long they took.
    """

    metrics: Metrics
    log: RequestsLog | None
    server_timing: bool
    def __init__(
        self, metrics: Metrics, turn: Turn, log: RequestsLog | None = None, *, server_timing: bool = False
    ) -> None: ...
