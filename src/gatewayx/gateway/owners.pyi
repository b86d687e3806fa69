"""Which process of a gateway owns a key; the .pxd has the C-level interface."""

from gatewayx.gearman.job import JobListener
from gatewayx.http.request import BodySource

class Asked(JobListener):
    """What another process is asked for, and who is told its answer."""

class Relayed(BodySource):
    """A request that another process answers."""

class Owners:
    """The processes of a gateway, as owners of keys."""
