"""A kept job while it has not ended; the .pxd has the C-level interface."""

from typing import final

from gatewayx.gateway.job_request import JobRequest
from gatewayx.gearman.job import StatusListener

@final
class KeptRun(JobRequest):
    """Listens to the job of a KeptJob."""

@final
class CancelAnswer(StatusListener):
    """What the job server says of a job that it was asked to cancel."""
