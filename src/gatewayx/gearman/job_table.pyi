"""The jobs that a job server has created over one connection; the .pxd has the C-level interface."""

from typing import final

from gatewayx.core.budget import ByteBudget

@final
class JobTable:
    """The created jobs of one connection.

    budget: where results are counted. max_result_bytes: most bytes of one job's result.
    """

    def __init__(self, budget: ByteBudget, max_result_bytes: int) -> None: ...
    @property
    def abandoned(self) -> dict[bytes, None]: ...
    @property
    def pins(self) -> dict[bytes, int]: ...
