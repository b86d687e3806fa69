"""Scripted job servers and a gateway in front of them: which one does a job go to?"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from support.gateway import RunningGateway, eventually, running_gateway
from support.http import HttpClient, post
from support.job_servers import ScriptedConnection, ScriptedJobServer

BACKGROUND = b"X-Gearman-Background: true"
TOGETHER = b"X-Gearman-Unique: together"
FULL = (b"QUEUE_ERROR", b"Job queue is full")
MEBIBYTE = 1024 * 1024

# How long the gateway needs to learn what a `status` says, in these tests.
STATUS_INTERVAL_S = 0.05


class Behind:
    """Scripted job servers, the gateway in front of them, and its connections to them, one each."""

    def __init__(
        self, gateway: RunningGateway, servers: list[ScriptedJobServer], upstreams: list[ScriptedConnection]
    ) -> None:
        self.gateway = gateway
        self.servers = servers
        self.upstreams = upstreams

    async def send(self, workload: bytes, *headers: bytes, function: bytes = b"/f") -> HttpClient:
        """A new client that has sent a request."""
        client = await HttpClient(self.gateway.address).connect()
        client.send(post(function, workload, *headers))
        return client

    async def submitted_to(self) -> int:
        """The number of the job server that has the next submission."""
        await eventually(lambda: any(not upstream.submissions.empty() for upstream in self.upstreams))
        [number] = [number for number, upstream in enumerate(self.upstreams) if not upstream.submissions.empty()]
        return number

    async def serve(self, *, expected: bytes) -> int:
        """Run the next job with its workload as the result; the number of its job server."""
        number = await self.submitted_to()
        assert (await self.upstreams[number].complete(b"H:1", expected)).workload == expected
        return number

    async def number_for(self, workload: bytes, *headers: bytes, function: bytes = b"/f") -> int:
        """The job server to which a request goes, which is served by it."""
        client = await self.send(workload, *headers, function=function)
        number = await self.serve(expected=workload)
        assert (await client.response()).body == workload
        await client.close()
        return number

    async def status(self, **workers: int | None) -> None:
        """Return once the gateway knows that the servers, named s0, s1 …, have so many workers for `f`."""
        for name, count in workers.items():
            self.servers[int(name[1:])].status[b"f"] = (0, 0, count)
        await self.next_status()

    async def next_status(self) -> None:
        """Return once every job server has been asked for its status and has answered."""
        asked = [server.statuses for server in self.servers]
        await eventually(
            lambda: all(server.statuses >= count + 2 for server, count in zip(self.servers, asked, strict=True))
        )


async def upstreams_of(gateway: RunningGateway, *servers: ScriptedJobServer, each: int = 1) -> list[ScriptedConnection]:
    """So many connections for jobs of each job server, in order, once all of them take jobs.

    That is a little after the job server has accepted them: when the gateway was greeted.
    """
    upstreams = [await server.connection() for server in servers for _ in range(each)]
    await gateway.reaches("pool.connections", len(upstreams))
    return upstreams


@asynccontextmanager
async def behind(count: int, **settings: object) -> AsyncIterator[Behind]:
    """So many scripted job servers and a gateway with one connection to each."""
    servers = [ScriptedJobServer() for _ in range(count)]
    try:
        for server in servers:
            await server.start()
        options = {"connections_per_server": 1, "status_interval_s": STATUS_INTERVAL_S} | settings
        async with running_gateway([server.address for server in servers], **options) as gateway:
            each = options["connections_per_server"]
            yield Behind(gateway, servers, (await upstreams_of(gateway, *servers, each=each))[::each])
    finally:
        for server in servers:
            await server.stop()
