"""Calls about jobs that outlive their requests; the .pxd has the C-level interface."""

from gatewayx.gateway.owners import Asked

class JobCall(Asked):
    """One request about one job."""
