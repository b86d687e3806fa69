"""Many jobs in one request: POST /v1/batch; the .pxd has the C-level interface."""

from typing import final

from gatewayx.core.turns import TurnEnder
from gatewayx.gateway.access import Access
from gatewayx.gateway.batch_line import LineTaker
from gatewayx.gateway.common import Common
from gatewayx.http.problems import NO_ROOM_FOR_RESULT as NO_ROOM_FOR_RESULT
from gatewayx.http.request import BodySource

@final
class Batches:
    """Makes a batch of each request to /v1/batch; one a process. gateway, access: those that its lines go through."""

    def __init__(self, gateway: Common, access: Access) -> None: ...
    def change(self, max_lines: int, most_under_way: int) -> None:
        """Let batches that come from now on have so many lines, and all batches so many under way; both above 0."""

@final
class Batch(LineTaker):
    """One batch."""

@final
class BatchBody(BodySource):
    """Is told when the client takes answers."""

@final
class BatchTurn(TurnEnder):
    """Has the batch go on at the end of a turn in which lines were answered."""
