"""/metrics: the families in the form that was asked for, by prometheus-client."""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from prometheus_client import exposition
from prometheus_client.core import Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from gatewayx.admin.families import Family, Part
from gatewayx.admin.negotiation import Form, chosen_form, takes_gzip
from gatewayx.http.python_handler import PlainAnswer, PlainRequest

# At most this part of the process's time goes into it: what took 3 ms to compose is given for 30 ms to whoever asks.
COMPOSING_PART = 0.1
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
END_OF_OPEN_METRICS = b"# EOF\n"
VARY = b"Vary: Accept, Accept-Encoding\r\n"


class Families(Protocol):
    """Whoever makes families."""

    def families(self) -> Iterable[Family]:
        """All of them, as they are now."""


class _One(Collector):
    """A collector of one metric: prometheus-client composes what a collector yields."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> Iterator[Metric]:
        """See Collector."""
        yield self._metric


def _composed(metric: Metric, form: int) -> bytes:
    if form == TEXT:
        return exposition.generate_latest(_One(metric))
    text: bytes = openmetrics.generate_latest(_One(metric))  # type: ignore[no-untyped-call]
    return text.removesuffix(END_OF_OPEN_METRICS)


class _Lines:
    """The lines of a part, which are the same in both forms, as they were in the last exposition."""

    def __init__(self, part: Part) -> None:
        lines = _composed(part.make(), TEXT).decode().split("\n")
        # What stands before the value, with the space between.
        self._heads = [line[: line.rindex(" ") + 1] for line in lines if line and not line.startswith("#")]
        self._labels = part.labels
        self._values: Sequence[float] | None = None
        self._text = b""

    def is_of(self, part: Part) -> bool:
        """Whether only values may differ from those of this part."""
        return self._labels == part.labels and len(self._heads) == len(part.values)

    def text(self, values: Sequence[float]) -> bytes:
        """All of them with these values."""
        if values != self._values:
            self._values = values
            told = map(floatToGoString, values)
            lines = [f"{head}{value}\n" for head, value in zip(self._heads, told, strict=True)]
            self._text = "".join(lines).encode()
        return self._text


class Exposition:
    """What is exposed.

    makers: of the families. clock: tells monotonic seconds. processor_clock: tells the seconds of processor time that
    this thread has used; a process that waits for its turn takes no part of anything.
    """

    def __init__(
        self,
        makers: Iterable[Families],
        clock: Callable[[], float],
        processor_clock: Callable[[], float] = time.thread_time,
    ) -> None:
        self._makers = list(makers)
        self._clock = clock
        self._processor_clock = processor_clock
        # By form, and whether it is compressed: until when it is given, and what.
        self._given: dict[tuple[int, bool], tuple[float, bytes]] = {}
        # By family and part. As many as there were in the last exposition.
        self._parts: dict[tuple[str, str], _Lines] = {}

    def prepare(self) -> Iterator[None]:
        """Compose the lines that are not there yet, a part each time that the next is asked for.

        So it may be done before anybody asks for all of them, a little in each turn of a loop.
        """
        for maker in self._makers:
            for family in maker.families():
                for part in family.parts:
                    key = (family.metric.name, part.name)
                    if key not in self._parts:
                        self._parts[key] = _Lines(part)
                        yield

    def answer(self, request: PlainRequest) -> PlainAnswer:
        """The answer to a request for it."""
        form = chosen_form(request.headers.get(b"accept"), FORMS)
        body = self._body(form, lambda: self._compose(form), compressed=False)
        if len(body) < GZIP_LEAST_BYTES or not takes_gzip(request.headers.get(b"accept-encoding")):
            return PlainAnswer(200, CONTENT_TYPES[form], body, VARY)
        body = self._body(form, lambda: gzip.compress(body, GZIP_LEVEL, mtime=0), compressed=True)
        return PlainAnswer(200, CONTENT_TYPES[form], body, VARY + b"Content-Encoding: gzip\r\n")

    def _body(self, form: int, make: Callable[[], bytes], *, compressed: bool) -> bytes:
        until_s, body = self._given.get((form, compressed), (0.0, b""))
        if self._clock() >= until_s:
            used_s = self._processor_clock()
            body = make()
            used_s = self._processor_clock() - used_s
            self._given[form, compressed] = (self._clock() + used_s / COMPOSING_PART, body)
            if not compressed:
                # What was compressed is of the last one.
                self._given.pop((form, True), None)
        return body

    def _compose(self, form: int) -> bytes:
        before, parts = self._parts, dict[tuple[str, str], _Lines]()
        composed = []
        for maker in self._makers:
            for family in maker.families():
                composed.append(_composed(family.metric, form))
                for part in family.parts:
                    key = (family.metric.name, part.name)
                    lines = before.get(key)
                    if lines is None or not lines.is_of(part):
                        lines = _Lines(part)
                    parts[key] = lines
                    composed.append(lines.text(part.values))
        self._parts = parts
        if form == OPEN_METRICS:
            composed.append(END_OF_OPEN_METRICS)
        return b"".join(composed)
