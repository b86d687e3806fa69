"""Many jobs in one request: POST /v1/batch; the .pxd has the C-level interface."""

from typing import final

from gatewayx.gateway.access import Access
from gatewayx.gateway.common import Common

@final
class Batches:
    """Makes a batch of each request to /v1/batch; one a process. gateway, access: those that its lines go through."""

    def __init__(self, gateway: Common, access: Access) -> None: ...
    def change(self, max_lines: int, most_under_way: int) -> None:
        """Let batches that come from now on have so many lines, and all batches so many under way; both above 0."""
