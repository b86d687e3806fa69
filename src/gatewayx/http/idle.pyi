"""Who makes room for others; the .pxd has the C-level interface."""

from typing import final

from gatewayx.core.budget import ByteBudget
from gatewayx.core.counters import Counters
from gatewayx.core.deadlines import DeadlineWheel
from gatewayx.http.refusals import Refusable

MAX_LOOKED_AT: int
PACE_S: int
PACE_GRACE_S: int
STILL_S: int
IN_USE_S: int
CLOSES_PER_S: int
LEAST_SPREAD_S: int

class Occupant(Refusable):
    """A client's connection, as those see it who need its place or its room."""

@final
class OccupantList:
    """Connections in the order in which they came to it."""

@final
class Room:
    """The places and bytes that the clients of a process share."""

    def __init__(self, budget: ByteBudget, wheel: DeadlineWheel, counters: Counters) -> None: ...
    def relieve(self, most: int) -> int:
        """End at most so many of those that are too slow for the room that is left; returns how many were ended.

        In a drain also idle connections whose turn to be closed has come.
        """

@final
class Unread:
    """Answers that a client does not take as fast as they come; the .pxd says what each field means."""
