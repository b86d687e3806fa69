"""One HTTP request as one Gearman job, whose data is the answer while it comes; the .pxd has the C-level interface."""

from typing import final

from gatewayx.gateway.exchange import Exchange
from gatewayx.http.request import BodySource

@final
class Streamed(Exchange):
    """One request and its job, answered while the job runs."""

@final
class StreamedBody(BodySource):
    """The body of a streamed answer."""
