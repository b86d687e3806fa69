"""Who waits for a refusal, and what was refused; the .pxd has the C-level interface."""

import asyncio
from typing import final

from gatewayx.core.counters import Counters
from gatewayx.core.deadlines import DeadlineWheel
from gatewayx.http.request import RequestOwner

PROMPT_REFUSALS: int
REFUSAL_DELAY_MS: int
REFUSAL_TICK_MS: int
REFUSALS_PER_TURN: int
MAX_WAITING_REFUSALS: int
EXAMPLE_BYTES: int

class Refusable(RequestOwner):
    """A client whose refusal may have to wait."""

@final
class Refusals:
    """All refusals of a process. loop: the event loop. wheel: tells the tick. counters: where they are counted."""

    def __init__(self, loop: asyncio.AbstractEventLoop, wheel: DeadlineWheel, counters: Counters) -> None: ...
    def take_events(self) -> dict[str, tuple[int, bytes, str]]:
        """What was refused since the last call: kind to (count, the first bytes of one example, its peer's host)."""
