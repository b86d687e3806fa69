"""All clients of the process, and a client's connection before any request; the .pxd has the C-level interface."""

import asyncio
from collections.abc import Callable
from enum import IntFlag

from gatewayx.core.budget import ByteBudget
from gatewayx.core.counters import Counters
from gatewayx.core.deadlines import DeadlineWheel
from gatewayx.core.rates import Rates
from gatewayx.core.shared import Shared
from gatewayx.core.turns import Turn
from gatewayx.http.entrance import Entrant
from gatewayx.http.forwarded import TrustedProxies
from gatewayx.http.limits import Limits
from gatewayx.http.records import Records
from gatewayx.http.request import RequestHandler
from gatewayx.http.response import ResponseBuilder
from gatewayx.net.stream import Stream

LINGER_BYTES: int
LINGER_S: int
BODY_LINGER_S: int
BODY_LINGER_QUIET_S: int
BODY_LINGER_BYTES: int
BODY_LINGER_BODIES: int
MAX_BODY_LINGERERS: int
LAST_CALL_S: int
MAX_IDLE_PARSERS: int
MAX_REFUSED_CONNECTIONS: int

class ClientState(IntFlag):
    """What a client's connection is."""

    OPENING = 0
    READING = 1
    ANSWERING = 2
    LINGERING = 3
    CLOSED = 4

class Clients:
    """All client connections of a process, and what they share."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        wheel: DeadlineWheel,
        limits: Limits,
        handler: RequestHandler,
        builder: ResponseBuilder,
        budget: ByteBudget,
        turn: Turn,
        counters: Counters,
        answers_half_closed: bool = False,
        shared: Shared | None = None,
        relay_peers: Callable[[tuple[int, int] | None], bool] | None = None,
        records: Records | None = None,
        rates: Rates | None = None,
        proxies: TrustedProxies | None = None,
    ) -> None: ...
    @property
    def refused_connections(self) -> int: ...
    @property
    def body_lingerers(self) -> int: ...
    @property
    def connections(self) -> int: ...
    @property
    def answers_half_closed(self) -> bool: ...
    @property
    def draining(self) -> bool: ...
    @property
    def emptied(self) -> asyncio.Event: ...
    @property
    def requests_in_flight(self) -> int: ...
    def change(self, answers_half_closed: bool, proxies: TrustedProxies | None = None) -> None:
        """Be as if it had been made with these, and with the limits as they are now."""

    def drain(self, idle_s: float = 0) -> None:
        """No new connections: the next answer on each is its last one, and closes it once its client has that.

        Idle ones are closed one after the other, the longest idle first, if need be over so many seconds at most; those
        that were in use IN_USE_S ago may be so again, and are closed later.
        """

    def refuse_unfinished(self) -> None:
        """Answer requests that are still arriving with 503, and close connections whose clients have sent nothing."""

    def abort(self) -> None:
        """Close all connections at once."""

    def counters(self) -> dict[str, int]:
        """What is held now and was counted since the start, by name."""

    def take_events(self) -> dict[str, tuple[int, bytes, str]]:
        """Refusals.take_events()."""

    def is_at_rest(self) -> bool:
        """Whether ticks have nothing to do here until a byte comes or a deadline passes."""
    def make_places(self) -> None:
        """Close those that are needed least for connections that found no place in other processes.

        They were refused, and find one when they come again.
        """
    def relieve(self, most: int) -> int:
        """Room.relieve()."""

class Client(Entrant):
    """One client's connection; HttpConnection adds its requests."""

    def __init__(self, clients: Clients) -> None: ...
    @property
    def state(self) -> ClientState: ...
    def change(self, state: ClientState) -> int:
        """Go to a state that may follow the present one. Raises StateError."""

    def opened(self, stream: Stream) -> int: ...
    def pause_writing(self) -> int: ...
    def resume_writing(self) -> int: ...
    def deadline_passed(self) -> int: ...
