"""Calls about jobs that outlive their requests; the .pxd has the C-level interface."""

from gatewayx.gateway.job_request import JobRequest

class JobCall(JobRequest):
    """One request about one job."""
