"""HTTP servers for the load generator's tests: each request is answered as the test says, whatever HTTP would say."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

STREAM_LIMIT_BYTES = 1 << 24

# RST instead of FIN.
LINGER_NOT = (socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

CONTENT_LENGTH = re.compile(rb"\r\nContent-Length: ([0-9]+)\r\n")


def ok(body: bytes = b"", *headers: bytes, status: int = 200) -> bytes:
    """An answer with a length; headers: whole lines without their CRLF."""
    return b"\r\n".join((b"HTTP/1.1 %d -" % status, b"Content-Length: %d" % len(body), *headers, b"", body))


class Request:
    """One request as it came, and the connection to answer it on."""

    def __init__(self, head: bytes, body: bytes, server: ScriptedServer, writer: asyncio.StreamWriter) -> None:
        self.head = head
        self.body = body
        self.server = server
        self.writer = writer
        self.number = len(server.requests)

    def reset(self) -> None:
        """End the connection with an RST."""
        self.writer.transport.get_extra_info("socket").setsockopt(*LINGER_NOT)
        self.writer.transport.abort()

    def close(self) -> None:
        """End the connection."""
        self.writer.close()


Script = Callable[[Request], Awaitable[bytes | None]]


class ScriptedServer:
    """What has come so far. `script` is given each request in turn and returns the bytes to answer it with."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.requests: list[Request] = []
        self.connections = 0
        self.open = 0
        self.highest_open = 0
        # Where connections came from.
        self.sources: list[str] = []
        self.address = ("127.0.0.1", 0)
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.connections += 1
        self.open += 1
        self.highest_open = max(self.highest_open, self.open)
        self.sources.append(writer.get_extra_info("peername")[0])
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                length = CONTENT_LENGTH.search(head)
                body = await reader.readexactly(int(length[1])) if length else b""
                request = Request(head, body, self, writer)
                self.requests.append(request)
                answer = await self.script(request)
                if answer is not None:
                    writer.write(answer)
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            # Cancelled by close alone; asyncio.start_server takes a cancelled task for a failed one.
            pass
        finally:
            self.open -= 1
            self._tasks.discard(task)
            writer.close()

    async def close(self) -> None:
        """End every connection."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def scripted_server(script: Script) -> AsyncIterator[ScriptedServer]:
    """A server on a free port of 127.0.0.1."""
    scripted = ScriptedServer(script)
    server = await asyncio.start_server(scripted.serve, "127.0.0.1", 0, limit=STREAM_LIMIT_BYTES)
    scripted.address = server.sockets[0].getsockname()[:2]
    try:
        yield scripted
    finally:
        server.close()
        await scripted.close()
