"""What is at which path of the admin address. All of it can only be read."""

from __future__ import annotations

from collections.abc import Callable, Collection

from gatewayx.admin import health_pages, hosts, status
from gatewayx.admin.checks import CHECKS, Health
from gatewayx.admin.view import GatewayView
from gatewayx.http.python_handler import PlainAnswer, PlainRequest

# The headers that it looks at.
WANTED_HEADERS = (b"host", b"accept", b"accept-encoding")
TEXT = b"text/plain; charset=utf-8"
ALLOW = b"Allow: GET, HEAD\r\n"
INDEX = b"""gatewayx admin address

/livez    the master lives and a worker process's loop turns
/readyz   clients can be sent here; ?verbose, ?exclude=CHECK, /readyz/CHECK
/metrics  Prometheus text or OpenMetrics
/status   all that is known, as JSON
/v1/openapi.json  the interface that clients have, as OpenAPI 3.1
"""


class Site:
    """Answers requests.

    view: returns the gateway as it is. health: its checks. metrics: answers /metrics. names: hosts by which it may be
    asked for, in lower case. openapi: returns the document of the interface that clients have.
    """

    def __init__(
        self,
        view: Callable[[], GatewayView],
        health: Health,
        metrics: Callable[[PlainRequest], PlainAnswer],
        names: Collection[str],
        openapi: Callable[[], bytes],
    ) -> None:
        self._view = view
        self._health = health
        self._metrics = metrics
        self.names = names
        self._openapi = openapi

    def respond(self, request: PlainRequest) -> PlainAnswer:
        """The answer to a request."""
        if not hosts.is_ours(request.headers.get(b"host"), self.names):
            return PlainAnswer(
                403, TEXT, b"this Host is neither an address, nor localhost, nor set with --admin-host\n"
            )
        if request.method not in ("GET", "HEAD"):
            return PlainAnswer(405, TEXT, b"here is only GET and HEAD\n", ALLOW)
        answer = self._answer(request)
        return PlainAnswer(404, TEXT, b"there is nothing at this path\n") if answer is None else answer

    def _answer(self, request: PlainRequest) -> PlainAnswer | None:
        if request.path == b"/":
            return PlainAnswer(200, TEXT, INDEX)
        if request.path == b"/metrics":
            return self._metrics(request)
        if request.path == b"/status":
            return PlainAnswer(200, b"application/json", status.body(self._view()))
        if request.path == b"/v1/openapi.json":
            return PlainAnswer(200, b"application/json", self._openapi())
        endpoint, slash, name = request.path[1:].decode("latin-1").partition("/")
        if endpoint not in CHECKS:
            return None
        self._health.look(self._view())
        checks = self._health.checks(endpoint)
        if not slash:
            return health_pages.answer(endpoint, checks, request)
        for check in checks:
            if check.name == name:
                return health_pages.answer_one(endpoint, check, request)
        return None
