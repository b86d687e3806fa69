"""A gateway with a proxy and a job server behind it in a loop of their own, for machines of hypothesis: their rules are
plain functions."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import uvloop

from fuzz.held import OF_JOB_SERVERS, still_held
from gatewayx.address import Address, ServerAddress
from gatewayx.config.settings import Settings
from gatewayx.embedded.job_server import JobServer
from gatewayx.server.process import GatewayProcess
from support.fault_proxy import FaultProxy
from support.gateway import eventually
from support.kept import KeptClient

Result = TypeVar("Result")

ENDS = ("kept_succeeded", "kept_failed", "kept_cancelled", "kept_lost", "kept_timed_out")


class Stage:
    """A gateway in front of a job server, through a proxy, in a loop of its own, for all runs of the machine."""

    def __init__(self, address: tuple[str, int] | None) -> None:
        self.runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self.address = address
        self.embedded: JobServer | None = None

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """What it returns."""
        return self.runner.run(coroutine)

    async def start(self) -> None:
        """Start all of it."""
        if self.address is None:
            self.embedded = JobServer()
            await self.embedded.start()
            self.address = self.embedded.address
        self.proxy = await FaultProxy(self.address).__aenter__()
        self.process = GatewayProcess(
            Settings(
                listen=(Address("127.0.0.1", 0),),
                server=(ServerAddress(*self.proxy.address),),
                connections_per_server=1,
                content_type="text/plain",
            )
        )
        await self.process.start()
        self.http = (self.process.addresses[0].host, self.process.addresses[0].port)
        await self.connected()

    async def connected(self) -> None:
        """Return once the gateway has both connections to its job server, and can cancel over them."""
        await eventually(lambda: self.process.pool.counters()["connections"] == 1 and len(self.proxy.sides) == 4)
        self.sides = set(self.proxy.sides)
        async with KeptClient(self.http) as client:
            while (await client.cancel(await client.submit(b"probe"))).status != 200:
                await client.forget(client.ids[-1])

    async def reconnected(self) -> None:
        """The same, with another connection in the place of one that was lost."""
        before = self.sides
        await eventually(lambda: not before <= self.proxy.sides)
        await self.connected()

    def held(self) -> dict[str, int]:
        """What the gateway holds for clients."""
        return {name: count for name, count in still_held(self.process).items() if name not in OF_JOB_SERVERS}

    def ends(self) -> int:
        """How many kept jobs have ended so far."""
        return sum(self.process.counted_in.read()[name] for name in ENDS)

    async def close(self) -> None:
        """End all of it."""
        await self.process.close()
        await self.proxy.__aexit__(None, None, None)
        if self.embedded is not None:
            await self.embedded.close()
