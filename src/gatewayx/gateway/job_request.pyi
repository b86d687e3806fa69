"""What a client asks for: one job, apart from the answer to it; the .pxd has the C-level interface."""

from gatewayx.gearman.job import JobListener

class JobRequest(JobListener):
    """One job as a client asks for it."""
