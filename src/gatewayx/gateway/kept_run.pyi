"""A kept job while it has not ended; the .pxd has the C-level interface."""

from gatewayx.gateway.job_request import JobRequest
from gatewayx.gearman.job import StatusListener

class KeptRun(JobRequest):
    """Listens to the job of a KeptJob."""

class CancelAnswer(StatusListener):
    """What the job server says of a job that it was asked to cancel."""
