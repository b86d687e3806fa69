"""Server-sent events as a browser reads them (html.spec.whatwg.org/multipage/server-sent-events.html)."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Event(NamedTuple):
    """An event that was dispatched."""

    kind: str
    data: str
    last_id: str

    def json(self) -> Any:
        """Its data, which is JSON."""
        return json.loads(self.data)

    def number(self) -> int:
        """Of the event, by its id."""
        return int(self.last_id.rpartition(".")[2])


@dataclass
class EventParser:
    """Reads a stream in pieces; `events` are those that were dispatched."""

    events: list[Event] = field(default_factory=list)
    comments: int = 0
    retry_ms: int | None = None
    last_id: str = ""
    _rest: bytes = b""
    _kind: str = ""
    _data: str = ""
    _id: str = ""
    _begun: bool = False

    def feed(self, piece: bytes) -> None:
        """Read on. Lines end with CRLF, LF or CR; a CR at the end of a piece waits for what follows it."""
        self._rest += piece
        if not self._begun and len(self._rest) >= 3:
            self._begun = True
            self._rest = self._rest.removeprefix(b"\xef\xbb\xbf")
        while True:
            ends = [place for place in (self._rest.find(b"\n"), self._rest.find(b"\r")) if place >= 0]
            if not ends or (self._rest[min(ends) :] == b"\r"):
                return
            end = min(ends)
            behind = end + (2 if self._rest[end : end + 2] == b"\r\n" else 1)
            line, self._rest = self._rest[:end], self._rest[behind:]
            self._line(line.decode("utf-8", "replace"))

    def _line(self, line: str) -> None:
        if not line:
            self._dispatch()
        elif line.startswith(":"):
            self.comments += 1
        else:
            name, _, value = line.partition(":")
            self._field(name, value.removeprefix(" "))

    def _field(self, name: str, value: str) -> None:
        if name == "event":
            self._kind = value
        elif name == "data":
            self._data += value + "\n"
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry_ms = int(value)

    def _dispatch(self) -> None:
        self.last_id = self._id
        if self._data:
            self.events.append(Event(self._kind or "message", self._data.removesuffix("\n"), self._id))
        self._kind = ""
        self._data = ""


def events_of(stream: bytes) -> list[Event]:
    """The events of a whole stream."""
    parser = EventParser()
    parser.feed(stream)
    return parser.events
