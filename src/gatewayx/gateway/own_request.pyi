"""A request that the gateway makes itself; the .pxd has the C-level interface."""

from gatewayx.http.request import RequestOwner

class OwnRequest(RequestOwner):
    """A request that the gateway makes itself, and takes the answer to."""
