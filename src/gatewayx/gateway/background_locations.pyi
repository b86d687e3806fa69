"""The header lines of answers to background jobs, with their Location; the .pxd has the C-level interface."""

from typing import final

from gatewayx.gateway.job_ids import JobIds

@final
class BackgroundLocations:
    """Makes these lines. ids: which sign. place, mark: of the process that submits."""

    def __init__(self, ids: JobIds, place: int, mark: int) -> None: ...
