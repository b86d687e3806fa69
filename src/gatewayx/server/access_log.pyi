"""The access log of a process; the .pxd has the C-level interface."""

from typing import final

from gatewayx.core.access_batch import AccessBatch
from gatewayx.core.counters import Counters
from gatewayx.http.records import RequestsLog

@final
class AccessLog(RequestsLog):
    """Makes a line of each request. counters: where it counts lines that are dropped."""

    def __init__(self, counters: Counters) -> None: ...
    @property
    def batch(self) -> AccessBatch: ...
    def change(self, sample: float, *, with_unique: bool) -> None:
        """sample: the part of the requests with the outcome "ok" that have a line. with_unique: lines tell uniques."""
