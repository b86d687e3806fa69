"""What a client asks for: one job, apart from the answer to it; the .pxd has the C-level interface."""

from gatewayx.gateway.owners import Asked

class JobRequest(Asked):
    """One job as a client asks for it."""
