"""Which answer the end of a job is; the .pxd has the C-level interface."""

from gatewayx.gateway.job_request import JobRequest

class AnsweredJob(JobRequest):
    """A job whose end becomes an answer."""
