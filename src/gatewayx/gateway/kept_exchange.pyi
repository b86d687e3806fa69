"""One HTTP request whose job outlives it; the .pxd has the C-level interface."""

from typing import final

from gatewayx.gateway.exchange import Exchange

@final
class KeptExchange(Exchange):
    """One request for a job that outlives it."""
