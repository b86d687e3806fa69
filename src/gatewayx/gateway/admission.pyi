"""Which functions may be asked for, and how many jobs may be in flight; the .pxd has the C-level interface."""

from collections.abc import Iterable
from typing import final

from gatewayx.core.counters import Counters
from gatewayx.core.shared import Shared

@final
class Admission:
    """What may be submitted."""

    def __init__(
        self,
        *,
        functions: Iterable[bytes] = (),
        max_jobs: int = 10_000,
        max_function_jobs: Iterable[tuple[bytes, int]] = (),
        max_queued: Iterable[tuple[bytes, int]] = (),
        require_worker: bool = False,
        counters: Counters | None = None,
        shared: Shared | None = None,
    ) -> None: ...
    def change(
        self,
        *,
        functions: Iterable[bytes],
        max_jobs: int,
        max_function_jobs: Iterable[tuple[bytes, int]],
        max_queued: Iterable[tuple[bytes, int]],
        require_worker: bool,
    ) -> None:
        """Be as if it had been made with these.

        Jobs in flight go on, whatever they are. Those that had no bound as a function's count in none of it.
        """

    @property
    def max_jobs(self) -> int: ...
    @property
    def jobs(self) -> int: ...
    def counters(self) -> dict[str, int]: ...
