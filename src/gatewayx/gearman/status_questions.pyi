"""Questions to a job server for what it knows of its jobs; the .pxd has the C-level interface."""

import logging
from typing import final

from gatewayx.core.turns import Turn, TurnEnder
from gatewayx.gearman.admin import Cancellation

logger: logging.Logger

@final
class StatusQuestion(Cancellation):
    """What one listener wants to know of one job."""

@final
class StatusQuestions:
    """The questions over one connection.

    packet_type: GET_STATUS or GET_STATUS_UNIQUE. connection: the one that they are asked over. turn: where it writes.
    """

    def __init__(self, packet_type: int, connection: TurnEnder, turn: Turn) -> None: ...
