"""Which process of a gateway owns a key; the .pxd has the C-level interface."""

from gatewayx.http.request import BodySource

class Relayed(BodySource):
    """A request that another process answers."""

class Owners:
    """The processes of a gateway, as owners of keys."""
