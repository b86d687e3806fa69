"""The load generator against a server of the test, and what it tells at the end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from gatewayx.bench.load import LoadGenerator
from gatewayx.bench.template import RequestTemplate
from gatewayx.net.sockets import Peer, clock_ns
from support.gateway import eventually
from support.scripted_server import Request, Script, ScriptedServer, ok, scripted_server
from support.times import WAIT_S

SWEEP_S = 0.01
TAG = b"abcdefgh"


def template(
    body: bytes | None = b"hello", *, tag: bytes = b"", check: str = "framing", method: bytes = b"POST"
) -> RequestTemplate:
    """A request to /."""
    return RequestTemplate(method + b" / HTTP/1.1\r\nHost: a\r\n", body, tag, check)


# What happens to so many requests happens to all; each also waits for a sweep when its connection is lost.
MANY = 20


class Outcome:
    """What a generator has to tell at the end; every request is accounted for.

    sweeps, elapsed_s: how often it was swept since it began, and in what time.
    """

    def __init__(self, generator: LoadGenerator, sweeps: int = 0, elapsed_s: float = 0.0) -> None:
        told = generator.snapshot()
        self.generator = generator
        self.sweeps = sweeps
        self.elapsed_s = elapsed_s
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


async def sweep_until(
    generator: LoadGenerator, condition: Callable[[dict[str, Any]], object], sweep_s: float = SWEEP_S
) -> int:
    """Sweep until the condition holds of what the generator tells; returns how often. Fails after WAIT_S."""
    ends_s = asyncio.get_running_loop().time() + WAIT_S
    sweeps = 0
    while not condition(generator.snapshot()):
        assert asyncio.get_running_loop().time() < ends_s, "the condition never came true"
        await asyncio.sleep(sweep_s)
        generator.sweep()
        sweeps += 1
    return sweeps


async def ended(generator: LoadGenerator) -> Outcome:
    """Wait until it is done."""
    await sweep_until(generator, lambda _: generator.done)
    generator.finish()
    return Outcome(generator)


async def load(
    address: tuple[str, int],
    request: RequestTemplate | None = None,
    *,
    duration_s: float | None = None,
    until: Callable[[dict[str, Any]], object] = lambda told: told["ended"] >= MANY,
    connections: int = 2,
    sweep_s: float = SWEEP_S,
    **options,
) -> Outcome:
    """Load a server for so long, or without a duration until the condition holds of what the generator tells."""
    generator = await started(address, request or template(), connections, **options)
    begins_ns = clock_ns()
    generator.begin(begins_ns, begins_ns + round((duration_s or 2 * WAIT_S) * 1e9))
    sweeps = 0
    if duration_s is None:
        sweeps += await sweep_until(generator, until, sweep_s)
        generator.stop()
    sweeps += await sweep_until(generator, lambda _: generator.done, sweep_s)
    generator.finish()
    return Outcome(generator, sweeps, (clock_ns() - begins_ns) / 1e9)


async def load_in_time(answers: Script, *arguments: object, **options: object) -> tuple[Outcome, ScriptedServer]:
    """What a load with a rate came to of which all could be sent, and the server.

    A machine that stands still at the end of the time keeps the last ones from it; the load is made again then.
    """
    while True:
        async with scripted_server(answers) as server:
            outcome = await load(server.address, *arguments, **options)
        if "not_sent" not in outcome.errors:
            return outcome, server


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
