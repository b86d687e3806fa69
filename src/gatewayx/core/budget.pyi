"""The bytes that a process holds for its clients; the .pxd has the C-level interface."""

from typing import final

from gatewayx.core.counters import Counters
from gatewayx.core.shared import Shared

MAX_BYTES_PER_BODY: int
MAX_BYTES_PER_RESULT: int
MAX_BYTES_PER_SMALL: int
LARGEST_SMALL_BYTES: int

def account_bounds(max_bytes: int) -> dict[str, int]:
    """What each account may hold when all of them together may hold so much, by name."""

@final
class ByteBudget:
    """The .pxd says what counts in which account.

    max_bytes: the bound on all accounts together, above 0. counters: where refusals are counted; None for counters of
    its own. shared: what all processes of the gateway have of the accounts; None if this one is alone.
    """

    def __init__(
        self, max_bytes: int = 256 * 1024 * 1024, counters: Counters | None = None, shared: Shared | None = None
    ) -> None: ...
    @property
    def max_bytes(self) -> int: ...
    def change(self, max_bytes: int) -> None:
        """Have this bound from now on. If more is held already, it stays, and nothing more fits."""

    def counters(self) -> dict[str, int]:
        """What is held now and was counted since the start, by name."""
