"""The load generator against a server of the test, and what it tells at the end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from gatewayx.bench.load import LoadGenerator
from gatewayx.bench.template import RequestTemplate
from gatewayx.net.sockets import Peer, clock_ns
from support.gateway import WAIT_S, eventually
from support.scripted_server import Request, ok

SWEEP_S = 0.01
TAG = b"abcdefgh"


def template(
    body: bytes | None = b"hello", *, tag: bytes = b"", check: str = "framing", method: bytes = b"POST"
) -> RequestTemplate:
    """A request to /."""
    return RequestTemplate(method + b" / HTTP/1.1\r\nHost: a\r\n", body, tag, check)


class Outcome:
    """What a generator has to tell at the end; every request is accounted for."""

    def __init__(self, generator: LoadGenerator) -> None:
        told = generator.snapshot()
        self.generator = generator
        self.sent: int = told["sent"]
        self.good: int = told["good"]
        self.errors: dict[str, int] = told["errors"]
        self.statuses: dict[str, int] = told["statuses"]
        self.sent_in_time: int = told["sent_in_time"]
        self.sent_bytes: int = told["sent_bytes"]
        self.received_bytes: int = told["received_bytes"]
        self.latency = generator.latency
        self.uncorrected = generator.uncorrected
        never_sent = self.errors.get("connect", 0) + self.errors.get("not_sent", 0)
        assert generator.outstanding == 0
        assert told["ended"] == self.sent + never_sent
        assert self.good + sum(self.errors.values()) == self.sent + never_sent
        timed = sum(self.statuses.values()) + self.errors.get("timeout", 0) + self.errors.get("not_sent", 0)
        assert self.latency.count == timed
        assert self.good <= sum(self.statuses.values()) <= self.sent


async def started(address: tuple[str, int], request: RequestTemplate, connections: int, **options) -> LoadGenerator:
    """A generator whose connections are up, or refused."""
    generator = LoadGenerator(asyncio.get_running_loop(), Peer(*address), request, connections=connections, **options)
    generator.connect()
    await eventually(lambda: generator.connected == connections or generator.connect_errno)
    return generator


async def ended(generator: LoadGenerator) -> Outcome:
    """Wait until it is done."""
    ends_s = asyncio.get_running_loop().time() + WAIT_S
    while not generator.done:
        assert asyncio.get_running_loop().time() < ends_s, "a request has not ended"
        await asyncio.sleep(SWEEP_S)
        generator.sweep()
    generator.finish()
    return Outcome(generator)


async def load(
    address: tuple[str, int],
    request: RequestTemplate | None = None,
    *,
    duration_s: float = 0.05,
    connections: int = 2,
    **options,
) -> Outcome:
    """Load a server for so long."""
    generator = await started(address, request or template(), connections, **options)
    begins_ns = clock_ns()
    generator.begin(begins_ns, begins_ns + round(duration_s * 1e9))
    return await ended(generator)


@asynccontextmanager
async def raw_server(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[tuple[str, int]]:
    """A server whose connections are served so, and ended at the end."""
    tasks = set()

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        with contextlib.suppress(asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            await serve(reader, writer)
        writer.close()

    server = await asyncio.start_server(connection, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[:2]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome


async def echo(request: Request) -> bytes:
    """The request's body."""
    return ok(request.body)


async def never(request: Request) -> None:
    """No answer, ever."""
    await asyncio.sleep(2 * WAIT_S)
