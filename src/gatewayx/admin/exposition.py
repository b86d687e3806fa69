"""/metrics: the families in the form that was asked for, composed at most once in CACHE_S however often that is."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterable

from prometheus_client import exposition
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector, CollectorRegistry

from gatewayx.admin.negotiation import Form, chosen_form, takes_gzip
from gatewayx.http.python_handler import PlainAnswer, PlainRequest

# An exposition is composed of thousands of lines: whoever asks more often is given the last one.
CACHE_S = 0.5
# Level 1 takes a third of the time of the default and makes little more of it.
GZIP_LEVEL = 1
# Below, compression makes nothing smaller that matters.
GZIP_LEAST_BYTES = 1024

TEXT, OPEN_METRICS = range(2)
FORMS = (Form("text/plain", {"version": "0.0.4"}), Form("application/openmetrics-text", {"version": "1.0.0"}))
CONTENT_TYPES = (
    b"text/plain; version=0.0.4; charset=utf-8",
    b"application/openmetrics-text; version=1.0.0; charset=utf-8",
)
VARY = b"Vary: Accept, Accept-Encoding\r\n"


class Exposition:
    """What is exposed.

    collectors: of the families. clock: tells monotonic seconds.
    """

    def __init__(self, collectors: Iterable[Collector], clock: Callable[[], float]) -> None:
        # The global one has metrics of the Python process, which is none of those that matter.
        self._registry = CollectorRegistry(auto_describe=False)
        for collector in collectors:
            self._registry.register(collector)
        self._clock = clock
        # By form, and whether it is compressed: when it was composed, and what.
        self._composed: dict[tuple[int, bool], tuple[float, bytes]] = {}

    def answer(self, request: PlainRequest) -> PlainAnswer:
        """The answer to a request for it."""
        form = chosen_form(request.headers.get(b"accept"), FORMS)
        compressed = takes_gzip(request.headers.get(b"accept-encoding"))
        body = self._body(form, compressed=False)
        if len(body) < GZIP_LEAST_BYTES or not compressed:
            return PlainAnswer(200, CONTENT_TYPES[form], body, VARY)
        body = self._body(form, compressed=True)
        return PlainAnswer(200, CONTENT_TYPES[form], body, VARY + b"Content-Encoding: gzip\r\n")

    def _body(self, form: int, *, compressed: bool) -> bytes:
        now_s = self._clock()
        composed_s, body = self._composed.get((form, compressed), (float("-inf"), b""))
        if now_s - composed_s >= CACHE_S:
            if compressed:
                composed_s, plain = self._composed[form, False]
                body = gzip.compress(plain, GZIP_LEVEL, mtime=0)
            else:
                composed_s = now_s
                body = self._compose(form)
            self._composed[form, compressed] = (composed_s, body)
        return body

    def _compose(self, form: int) -> bytes:
        if form == OPEN_METRICS:
            composed: bytes = openmetrics.generate_latest(self._registry)  # type: ignore[no-untyped-call]
            return composed
        return exposition.generate_latest(self._registry)
