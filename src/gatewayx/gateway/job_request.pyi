"""What a client asks for: one job to run, or something of one that is kept; the .pxd has the C-level interface."""

from typing import final

from gatewayx.gearman.job import JobListener
from gatewayx.http.problems import NO_ROOM_FOR_RESULT as NO_ROOM_FOR_RESULT
from gatewayx.http.request import BodySink, BodySource

class Relayed(BodySource):
    """A request that another process answers."""

@final
class HashedBody(BodySink):
    """A body whose hash is taken as it arrives."""

class JobRequest(JobListener):
    """One job as a client asks for it, or for something of it."""
