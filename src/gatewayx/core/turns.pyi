"""What runs at the end of a turn of the loop, and in which order; the .pxd has the C-level interface."""

import logging
from asyncio import AbstractEventLoop
from typing import final

from gatewayx.core.deadlines import Expiring

logger: logging.Logger

class TurnEnder(Expiring):
    """A connection that gathers in a turn what it writes at its end; the .pxd says what each method does."""

@final
class Turn:
    """The end of each turn of a loop; one a process. loop: the event loop."""

    def __init__(self, loop: AbstractEventLoop) -> None: ...
