"""Clients that send bodies up to the limit, all at once, and a worker that drops them, or gives large results.

    python flood_bodies.py worker HOST PORT
    python flood_bodies.py clients HOST PORT COUNT BODY_BYTES

Each client asks with Expect: 100-continue, sends half of its body, waits, and sends the rest. Who is answered 503 comes
again a little later, until it is served or time is up. One JSON object goes to standard output.
"""

import asyncio
import json
import random
import sys
import time

import uvloop

from gatewayx.embedded.worker import Worker

PAUSE_S = 1.0
RETRY_S = (0.2, 1.0)
END_S = 240.0
PIECE_BYTES = 65536
# With its head and its packet at most 1 MiB.
LARGE_BYTES = 1024 * 1024 - 1024


async def work(host: str, port: int) -> None:
    """Answer every job of `sink` with nothing and every one of `large` with LARGE_BYTES, until killed."""
    worker = Worker((host, port), {b"sink": drop, b"large": swell})
    await worker.start()
    await asyncio.Event().wait()


async def drop(job: object) -> bytes:
    """A job's result."""
    return b""


async def swell(job: object) -> bytes:
    """A job's result."""
    return bytes(LARGE_BYTES)


class Clients:
    """Counts what all clients were answered."""

    def __init__(self, host: str, port: int, body_bytes: int) -> None:
        self.address = (host, port)
        self.body_bytes = body_bytes
        self.piece = bytes(PIECE_BYTES)
        self.statuses: dict[str, int] = {}
        self.refused = 0
        self.ends_s = time.monotonic() + END_S

    async def client(self) -> None:
        """One that comes until it is served."""
        status = 0
        while time.monotonic() < self.ends_s:
            try:
                status = await self.attempt()
            except (OSError, asyncio.IncompleteReadError):
                status = 0
            if status != 503:
                break
            self.refused += 1
            await asyncio.sleep(random.uniform(*RETRY_S))
        self.statuses[str(status)] = self.statuses.get(str(status), 0) + 1

    async def attempt(self) -> int:
        """One request; returns the status of its answer."""
        reader, writer = await asyncio.open_connection(*self.address)
        try:
            head = (
                f"POST /sink HTTP/1.1\r\nHost: a\r\nContent-Length: {self.body_bytes}\r\nExpect: 100-continue\r\n\r\n"
            )
            writer.write(head.encode())
            status = await self.status(reader)
            if status != 100:
                return status
            await self.send(writer, self.body_bytes // 2)
            await asyncio.sleep(PAUSE_S)
            await self.send(writer, self.body_bytes - self.body_bytes // 2)
            return await self.status(reader)
        finally:
            writer.close()

    async def send(self, writer: asyncio.StreamWriter, left: int) -> None:
        """Send so many bytes."""
        while left > 0:
            writer.write(self.piece[:left])
            left -= PIECE_BYTES
            await writer.drain()

    async def status(self, reader: asyncio.StreamReader) -> int:
        """The status of the next answer."""
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
        return int(head.split(None, 2)[1])


async def flood(host: str, port: int, count: int, body_bytes: int) -> None:
    """Run all clients to their end and report."""
    began_s = time.monotonic()
    clients = Clients(host, port, body_bytes)
    await asyncio.gather(*(clients.client() for _ in range(count)))
    seconds = time.monotonic() - began_s
    print(json.dumps({"seconds": seconds, "statuses": clients.statuses, "refused": clients.refused}))


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        uvloop.run(work(sys.argv[2], int(sys.argv[3])))
    else:
        uvloop.run(flood(sys.argv[2], *(int(argument) for argument in sys.argv[3:])))
