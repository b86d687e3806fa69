"""A TCP proxy in front of a gateway, or of what stands before one, that cuts all connections when a test says so."""

from __future__ import annotations

import asyncio
import re

from support.gateway import eventually

# Instead of the seconds after which a client of an event stream comes again; as long as what the gateway writes.
SOON = b"retry: 0050"


class CuttingProxy:
    """Passes connections on to `target`, (host, port). An asynchronous context manager; `address` is where it listens.

    Clients of event streams are told to come again at once. up, down: what has passed, to the target and back.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self.up = b""
        self.down = b""
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def cut(self) -> None:
        """Reset all connections."""
        for writer in self._writers:
            writer.transport.abort()

    @property
    def address(self) -> tuple[str, int]:
        """(host, port) to connect to."""
        host, port = self._listener.sockets[0].getsockname()
        return host, port

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.add(asyncio.current_task())
        try:
            target_reader, target_writer = await asyncio.open_connection(*self.target)
        except OSError:
            writer.transport.abort()
        else:
            self._writers |= {writer, target_writer}
            # What fails was cut, or reset by one of the two.
            await asyncio.gather(
                self._pass_up(reader, target_writer), self._pass_down(target_reader, writer), return_exceptions=True
            )
            self._abort(writer)
            self._abort(target_writer)
        finally:
            self._tasks.discard(asyncio.current_task())

    async def _pass_up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(65536):
            self.up += piece
            writer.write(piece)
        self._abort(writer)

    async def _pass_down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(65536):
            self.down += piece
            writer.write(re.sub(rb"retry: [0-9]{4}", SOON, piece))
        self._abort(writer)

    def _abort(self, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()
        self._writers.discard(writer)

    async def __aenter__(self) -> CuttingProxy:
        self._listener = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._listener.close()
        self.cut()
        await eventually(lambda: not self._tasks)
