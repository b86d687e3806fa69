"""Who waits for something to happen to a kept job; the .pxd has the C-level interface."""

from typing import final

from gatewayx.core.deadlines import Expiring
from gatewayx.http.request import BodySource

class Watched:
    """What can be watched."""

class Watcher(BodySource):
    """Waits for a change of what it watches."""

@final
class Alarm(Expiring):
    """When a Watcher's time is up."""

@final
class Wait(Watcher):
    """A request that waits for the end of a job."""
