"""A client that reads an answer while it comes, chunk by chunk."""

from __future__ import annotations

import asyncio

from support.documented import check_event, check_line
from support.event_streams import Event, EventParser
from support.http import HEADER_LINE, STATUS_LINE, HttpClient, Response
from support.times import WAIT_S

LINES = b"application/x-ndjson"
EVENT_STREAM = b"text/event-stream"
ACCEPT_EVENTS = b"Accept: text/event-stream"


class StreamClient(HttpClient):
    """Its answers may come in chunks. Each begins with `begin()`; those of HTTP/1.0 end with the connection."""

    in_chunks = True
    # Of a batch's answer, what has come of a line; None for other answers.
    line: bytes | None = None

    async def begin(self, *, to_head: bool = False) -> Response:
        """The head of an answer that comes in pieces, with no body; fails if it tells a length. to_head: of a HEAD."""
        raw = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), WAIT_S)
        status_line, *lines = raw[:-4].split(b"\r\n")
        matched = STATUS_LINE.fullmatch(status_line)
        assert matched is not None, raw
        headers: dict[bytes, bytes] = {}
        for line in lines:
            name, value = HEADER_LINE.fullmatch(line).groups()
            assert name.lower() not in headers, line
            headers[name.lower()] = value
        assert b"content-length" not in headers, raw
        assert headers[b"cache-control"] == b"no-store"
        self.in_chunks = headers.get(b"transfer-encoding") == b"chunked"
        assert self.in_chunks or to_head or headers[b"connection"] == b"close"
        self.parser = EventParser()
        self.seen = 0
        self.line = b"" if headers.get(b"content-type") == LINES else None
        self.check(int(matched[1]), headers, None, is_begun=True)
        return Response(int(matched[1]), headers, b"")

    async def piece(self) -> bytes:
        """The next piece; empty at the end of the answer. Raises asyncio.IncompleteReadError if there is none."""
        if not self.in_chunks:
            return self._checked(await asyncio.wait_for(self.reader.read(65536), WAIT_S))
        line = await asyncio.wait_for(self.reader.readuntil(b"\r\n"), WAIT_S)
        size = int(line[:-2], 16)
        data = await asyncio.wait_for(self.reader.readexactly(size + 2), WAIT_S)
        assert data[size:] == b"\r\n"
        return self._checked(data[:size])

    def _checked(self, piece: bytes) -> bytes:
        """The piece; fails if a line of a batch's answer that ends in it is not as documented."""
        if self.line is not None and self.is_documented:
            *lines, self.line = (self.line + piece).split(b"\n")
            for line in lines:
                check_line(line)
        return piece

    async def pieces(self) -> list[bytes]:
        """All that are to come."""
        found = []
        while piece := await self.piece():
            found.append(piece)
        return found

    def _feed(self, piece: bytes) -> None:
        known = len(self.parser.events)
        self.parser.feed(piece)
        for event in self.parser.events[known:]:
            check_event(event.kind, event.data, event.last_id)

    async def event(self) -> Event:
        """The next event."""
        while self.seen == len(self.parser.events):
            piece = await self.piece()
            assert piece, "the stream has ended"
            self._feed(piece)
        self.seen += 1
        return self.parser.events[self.seen - 1]

    async def events(self) -> list[Event]:
        """All that are to come; the last one is whole."""
        while piece := await self.piece():
            self._feed(piece)
        found = self.parser.events[self.seen :]
        self.seen = len(self.parser.events)
        return found

    async def is_cut(self) -> bytes:
        """What comes up to the end of the connection, which is no end of the answer."""
        rest = b""
        try:
            while True:
                piece = await self.piece()
                assert piece, "the answer has ended well"
                rest += piece
        except (asyncio.IncompleteReadError, ConnectionResetError):
            return rest
