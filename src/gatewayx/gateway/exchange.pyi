"""One HTTP request as one Gearman job; the .pxd has the C-level interface."""

from gatewayx.gateway.job_request import JobRequest

class Exchange(JobRequest):
    """One request and its job."""
