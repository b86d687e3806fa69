"""The events of a kept job as an answer that comes as they happen; the .pxd has the C-level interface."""

from typing import final

from gatewayx.gateway.watching import Watcher

@final
class EventStream(Watcher):
    """The events of one job, for one client."""
