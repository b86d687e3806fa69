"""One HTTP request with an idempotency key; the .pxd has the C-level interface."""

from typing import final

from gatewayx.gateway.exchange import Exchange
from gatewayx.gateway.own_request import OwnRequest
from gatewayx.http.request import BodySink

@final
class KeyedExchange(Exchange):
    """One request with an idempotency key."""

@final
class KeyRequest(OwnRequest):
    """The client of a key's job, which does not hang up."""

@final
class Fingerprint(BodySink):
    """What tells a request with a key from others."""
