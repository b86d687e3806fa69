"""A gateway of several worker processes that relay to each other, where it can be seen which of them has what."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from gatewayx.config.settings import Settings
from support.gateway import ServeProcess, eventually
from support.http import HttpClient, Response, post
from support.job_servers import hand_worker
from support.open_loop import accepted_at, sockets_of
from support.process_state import anonymous_bytes, open_descriptors
from support.shared_memory import SharedMemory
from support.times import PROCESS_S

# A client is at each of four places after so many, but in one of 10^12 runs.
MOST_CLIENTS = 100
# A line about a job server in the log, and how long these are waited for.
TOLD = re.compile(r"worker process ([0-9]+): job server (\S+) ")
TOLD_S = 45.0


def unique_line(unique: bytes) -> bytes:
    """The header that gives a unique."""
    return b"X-Gearman-Unique: " + unique


class Relaying:
    """The gateway: where it listens, what it counts, and clients at each of its places."""

    def __init__(self, served: ServeProcess, memory: SharedMemory, address: tuple[str, int]) -> None:
        self.served = served
        self.memory = memory
        self.address = address
        # By place, before any of them was replaced.
        self.first_workers = served.workers()

    def relayed(self) -> int:
        """Requests that were given to another process so far."""
        return self.memory.counters()["requests_relayed"]

    def place_of(self, client: HttpClient) -> int | None:
        """The place whose worker process has accepted this client; None before that."""
        inode = accepted_at(self.address[1]).get(client.writer.get_extra_info("sockname"))
        for place, process_id in enumerate(self.first_workers):
            if inode in sockets_of(process_id):
                return place
        return None

    async def clients(self, stack: AsyncExitStack) -> list[HttpClient]:
        """A client at each place, in order."""
        found: dict[int, HttpClient] = {}
        for _ in range(MOST_CLIENTS):
            client = await stack.enter_async_context(HttpClient(self.address))
            await eventually(lambda client=client: self.place_of(client) is not None)
            if found.setdefault(self.place_of(client), client) is not client:
                await client.close()
            if len(found) == self.memory.workers:
                return [found[place] for place in sorted(found)]
        raise AssertionError(f"no client came to some of the places: {sorted(found)} have one")

    async def asked(self, client: HttpClient, *request: bytes, to_head: bool = False) -> tuple[bool, Response]:
        """Whether the request was relayed, and its answer; nobody else may ask meanwhile."""
        before = self.relayed()
        answer = await client.ask(*request, to_head=to_head)
        return self.relayed() > before, answer

    def open_files(self) -> list[int]:
        """How many files each worker process has open."""
        return [open_descriptors(process_id) for process_id in self.served.workers()]

    def memory_bytes(self) -> list[int]:
        """The memory that is each worker process's own."""
        return [anonymous_bytes(process_id) for process_id in self.served.workers()]

    async def submitted(self, markers: list[HttpClient], address: tuple[str, int]) -> None:
        """Return once the job server has read all that worker processes with one connection to it have submitted.

        That a job is in flight tells only that it is about to be written, and what a worker sends may overtake it.
        markers: a client at each place, none of which waits for an answer.
        """
        async with hand_worker(address, b"marker") as worker:
            for client in markers:
                client.send(post(b"/marker"))
                handle, _, _, _ = await worker.take(awake=True)
                worker.complete(handle)
                assert (await client.response()).status == 200

    async def jobs_left(self, count: int) -> None:
        """Return once so many jobs are in flight; fails with what the gateway has counted and told instead."""
        try:
            await eventually(lambda: self.memory.taken()["jobs"] == count, PROCESS_S)
        except AssertionError:
            told = "\n".join(self.served.lines[-20:])
            requests = self.memory.places.metrics().requests()
            raise AssertionError(f"not {count} jobs: {self.memory.taken()}, {requests}; {told}") from None

    async def nothing_taken(self) -> None:
        """Return once no place of a bound is taken; of bytes what processes were granted may remain."""
        await eventually(lambda: not any(self.memory.taken()[name] for name in ("connections", "jobs")), PROCESS_S)


async def told_of_job_servers(served: ServeProcess, workers: int, names: list[str]) -> None:
    """Return once each of several worker processes has told of each job server.

    A gateway listens without one that takes longer than a second, as all do on a busy machine. Of one that hangs
    nothing is told for long, which nobody waits for.
    """
    wanted = set(itertools.product(map(str, range(workers)), names)) if workers > 1 else set()
    loop = asyncio.get_running_loop()
    ends_s = loop.time() + TOLD_S
    while not wanted <= {told.groups() for line in served.lines if (told := TOLD.search(line))}:
        try:
            await asyncio.wait_for(served.until("job server "), max(0.0, ends_s - loop.time()))
        except asyncio.TimeoutError:
            return


@asynccontextmanager
async def relaying(
    servers: Sequence[tuple[str, int]],
    *arguments: str,
    workers: int = 2,
    max_connections: int | None = None,
    environment: Mapping[str, str] = os.environ,
    listen: str = "127.0.0.1:0",
) -> AsyncIterator[Relaying]:
    """`gatewayx serve` in front of these job servers. environment: instead of this process's. listen: where."""
    most = Settings().max_connections if max_connections is None else max_connections
    options = [
        "--listen",
        listen,
        "--connections-per-server",
        "1",
        "--workers",
        str(workers),
        "--max-connections",
        str(most),
        # A client that is to come to a certain place may have to wait for others, on a slow machine for long.
        "--first-byte-timeout",
        "60",
    ]
    options += itertools.chain.from_iterable(("--server", f"{host}:{port}") for host, port in servers)
    with SharedMemory(workers, most) as memory:
        async with ServeProcess(*options, *arguments, before=memory.before, environment=environment) as served:
            address = await served.address()
            await told_of_job_servers(served, workers, [f"{host}:{port}" for host, port in servers])
            memory.attach()
            yield Relaying(served, memory, address)
