"""Hands requests to the process that owns their key; the .pxd has the C-level interface."""

from typing import Final, final

from gatewayx.core.budget import ByteBudget
from gatewayx.core.counters import Counters
from gatewayx.core.deadlines import DeadlineWheel
from gatewayx.gateway.job_request import Relayed
from gatewayx.gateway.owners import Owners
from gatewayx.http.limits import Limits
from gatewayx.http.problems import NO_ROOM_FOR_RESULT as NO_ROOM_FOR_RESULT
from gatewayx.net.poller import TurnPoller
from gatewayx.net.stream import StreamOwner
from gatewayx.server.places import Places
from gatewayx.server.relay_sockets import RelaySockets

MAX_IDLE_CONNECTIONS: Final[int]

@final
class Relay(Owners):
    """The other processes of a gateway, as owners of keys."""

    max_relayed: int
    def __init__(
        self,
        wheel: DeadlineWheel,
        poller: TurnPoller | None,
        budget: ByteBudget,
        counters: Counters,
        places: Places,
        own: int,
        sockets: RelaySockets,
        max_relayed: int,
        limits: Limits,
    ) -> None: ...
    @property
    def relayed(self) -> int: ...
    @property
    def patient(self) -> int: ...
    def drain(self) -> None:
        """Close all that are idle, and keep none from now on."""

    def counters(self) -> dict[str, int]: ...

@final
class RelayedRequest(Relayed):
    """One request that is with another process."""

@final
class RelayConnection(StreamOwner):
    """A connection to the process at a place."""

    def ended(self) -> bool: ...
    def hung_up(self) -> int: ...
    def lost(self, error: Exception | None) -> int: ...
    def pause_writing(self) -> int: ...
    def resume_writing(self) -> int: ...
    def deadline_passed(self) -> int: ...
