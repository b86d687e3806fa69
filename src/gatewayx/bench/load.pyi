"""The load generator: one process's share of the connections; the .pxd has the C-level interface."""

from asyncio import AbstractEventLoop
from typing import Any, final

from gatewayx.bench.template import RequestTemplate
from gatewayx.core.histogram import Histogram
from gatewayx.net.poller import Polled
from gatewayx.net.sockets import Peer

ERROR_KINDS: tuple[str, ...]

@final
class LoadConnection(Polled):
    """One client: connects again when its connection ends, and never has more than `pipeline` requests under way."""

    def __new__(cls, generator: LoadGenerator) -> LoadConnection: ...

@final
class LoadGenerator:
    """One process's share of a load.

    loop: the running event loop. peer: whom to load. connections: how many, 1 or more. pipeline: requests under way on
    each at most. rate: requests a second of all processes together, 0 for a closed loop. process: this one's number
    among so many. timeout_s: for an answer, and for a connection to come up.
    Call `connect`, `begin` once `connected`, `sweep` about every 50 ms, and `finish` once `done` or when enough was
    waited.
    """

    def __init__(
        self,
        loop: AbstractEventLoop,
        peer: Peer,
        template: RequestTemplate,
        *,
        connections: int,
        pipeline: int = 1,
        rate: float = 0,
        process: int = 0,
        processes: int = 1,
        timeout_s: float = 10.0,
    ) -> None: ...
    @property
    def pipeline(self) -> int: ...
    @property
    def sent(self) -> int: ...
    @property
    def sent_in_time(self) -> int: ...
    @property
    def outstanding(self) -> int: ...
    @property
    def good(self) -> int: ...
    @property
    def good_in_time(self) -> int: ...
    @property
    def sent_bytes(self) -> int: ...
    @property
    def received_bytes(self) -> int: ...
    @property
    def latency(self) -> Histogram: ...
    @property
    def uncorrected(self) -> Histogram: ...
    @property
    def interval(self) -> Histogram: ...
    @property
    def lateness(self) -> Histogram: ...
    @property
    def failed_connects(self) -> dict[int, int]: ...
    @property
    def bad_response(self) -> str | None: ...
    @property
    def connect_errno(self) -> int: ...
    @property
    def connected(self) -> int:
        """How many connections are up."""
    @property
    def done(self) -> bool:
        """The time is over and every request has ended."""
    def connect(self) -> None:
        """Begin to open every connection."""
    def begin(self, begins_ns: int, ends_ns: int, flood_begins_ns: int = 0, flood_ends_ns: int = 0) -> None:
        """Send requests from one time of the clock to another; what was counted while connecting is forgotten.

        flood_begins_ns, flood_ends_ns: when somebody floods the same target, for `phases`.
        """
    def turn(self) -> None:
        """Serve the connections that are ready."""
    def sweep(self) -> None:
        """What time brings: late answers, connections to be made again."""
    def stop(self) -> None:
        """End before the time is over: send no more."""
    def finish(self, cut_off: bool = False) -> None:
        """Close everything. What was due and could not be sent, and what is still under way, has failed.

        cut_off: somebody did not want to wait; what is under way is left out of every count.
        """
    def phases(self) -> list[dict[str, Any]]:
        """Of a run beside a flood, what was due before, in and after it: latency, good answers, failed requests."""
    def snapshot(self) -> dict[str, Any]:
        """What has happened so far, as JSON can hold it; `interval` is the latency since the last snapshot."""
