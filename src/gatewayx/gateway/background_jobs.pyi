"""Background jobs that outlive their request; the .pxd has the C-level interface."""

from typing import Protocol, final

from gatewayx.core.counters import Counters
from gatewayx.core.deadlines import DeadlineWheel
from gatewayx.core.rates import Rates
from gatewayx.gateway.job_ids import JobIds
from gatewayx.gateway.watching import Watched, Watcher
from gatewayx.gearman.job import StatusListener
from gatewayx.gearman.pool import Pool

class _Places(Protocol):
    """All places of the gateway."""

    def __len__(self) -> int: ...
    def __getitem__(self, number: int, /) -> _Marked: ...

class _Marked(Protocol):
    """A place of the gateway."""

    @property
    def mark(self) -> int:
        """Of the process there."""

@final
class KnownJob(Watched):
    """One job at one job server, and what that has told last."""

@final
class Question(StatusListener):
    """A question to a job server about a job."""

@final
class Cancelling(StatusListener):
    """The question that follows a cancellation."""

@final
class BackgroundCall(Watcher):
    """A request about a background job that is not answered yet."""

@final
class BackgroundJobs:
    """The background jobs of a gateway, as far as their job servers tell of them.

    pool: of the job servers. ids: which ids are read by. wheel: where waits hang. rates, counters: where questions are
    counted, with those of other worker processes. places: of the gateway. place: this one. max_status_polls: questions
    a second to a job server.
    """

    def __init__(
        self,
        pool: Pool,
        ids: JobIds,
        wheel: DeadlineWheel,
        rates: Rates,
        counters: Counters,
        places: _Places,
        place: int,
        max_status_polls: int,
    ) -> None: ...
    waiting: int
    def change(self, max_status_polls: int) -> None:
        """Be as if it had been made with this."""

    def counters(self) -> dict[str, int]:
        """What is held now, by name."""
