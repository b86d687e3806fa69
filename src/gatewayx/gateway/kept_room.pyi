"""Answers that are kept for whoever comes for them; the .pxd has the C-level interface."""

from typing import final

from gatewayx.core.budget import ByteBudget
from gatewayx.core.counters import Counters
from gatewayx.core.shared import Shared
from gatewayx.gateway.watching import Watched

class KeptAnswer(Watched):
    """The answer that a client has, or would have had."""

@final
class KeptRoom:
    """The room of kept answers.

    budget: where their bytes count. shared: where those of all processes count. counters: where bodies that were
    dropped are counted.
    """

    def __init__(self, budget: ByteBudget, shared: Shared, counters: Counters) -> None: ...
    @property
    def held_bytes(self) -> int: ...
