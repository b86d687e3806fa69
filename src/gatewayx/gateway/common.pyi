"""What all exchanges of a process have in common; the .pxd has the C-level interface."""

from gatewayx.http.request import RequestHandler

class Common(RequestHandler):
    """The job servers, bounds and settings of all exchanges."""

    @property
    def open_exchanges(self) -> int: ...
