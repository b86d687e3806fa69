"""Worker processes that own the uniques of others' requests and are killed: each client hears what is true.

CHAOS=1 (`make chaos`) runs the same for a minute.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from gatewayx.embedded.worker import AssignedJob, Worker
from support.gateway import eventually
from support.gearmand import Gearmand
from support.http import HttpClient, post
from support.relaying import Relaying, relaying, unique_line
from support.times import PROCESS_S

pytestmark = pytest.mark.anyio

KILLS = 60 if os.environ.get("CHAOS") == "1" else 5
WORKERS = 3
# Requests with one unique, each over a connection of its own, and uniques that are asked for at once.
SHARERS = 6
UNIQUES = 12
LOST = (ConnectionError, EOFError)
MAY_BE_TOLD = {(200, ""), (502, "outcome-unknown"), (503, "owner-away"), (504, "job-timeout"), ("lost", "")}


class Record:
    """Which jobs ran, and what was told to whom asked for them, by unique, which is the workload as well."""

    def __init__(self) -> None:
        self.numbers = itertools.count()
        self.begun: Counter[bytes] = Counter()
        # Status and the last part of a problem's type; "lost" where the connection was.
        self.told: defaultdict[bytes, list[tuple[int | str, str]]] = defaultdict(list)
        self.may_end = asyncio.Event()
        self.may_end.set()

    def unique(self) -> bytes:
        """A new one."""
        return b"chaos-%08d" % next(self.numbers)

    async def run(self, job: AssignedJob) -> bytes:
        """What the worker does."""
        assert job.unique == job.workload
        self.begun[job.unique] += 1
        job.send_data(b"whole:")
        await self.may_end.wait()
        return job.workload[::-1]

    async def run_at_once(self, job: AssignedJob) -> bytes:
        """The same in one piece: who joins a job that its dead owner has begun misses nothing."""
        self.begun[job.unique] += 1
        await self.may_end.wait()
        return b"whole:" + job.workload[::-1]

    async def hear(self, client: HttpClient, unique: bytes) -> bool:
        """Note what the client is told; whether its connection is still there."""
        try:
            answer = await client.response()
        except LOST:
            self.told[unique].append(("lost", ""))
            return False
        if answer.status == 200:
            assert answer.body == b"whole:" + unique[::-1]
        self.told[unique].append((answer.status, answer.kind() if answer.status >= 400 else ""))
        return True

    def check(self) -> Counter[tuple[int | str, str]]:
        """Fail unless all that was told is true; how often each was told."""
        for unique, told in self.told.items():
            kinds = set(told)
            # A request that waits for its owner's next process may wait for too long.
            assert kinds <= {
                (200, ""),
                (502, "outcome-unknown"),
                (503, "owner-away"),
                (504, "job-timeout"),
                ("lost", ""),
            }, kinds
            if (200, "") in kinds:
                assert self.begun[unique] >= 1
            if kinds == {(503, "owner-away")}:
                assert self.begun[unique] == 0, "a job ran of which all were told that it was not submitted"
        return Counter(itertools.chain.from_iterable(self.told.values()))


def request_of(unique: bytes, *lines: bytes) -> bytes:
    """A request for it."""
    return post(b"/chaos", unique, unique_line(unique), *lines)


@asynccontextmanager
async def stage(tmp_path: Path, run: str) -> AsyncIterator[tuple[Relaying, Record]]:
    """A gateway in front of a gearmand, and a worker with its record."""
    record = Record()
    with Gearmand(tmp_path) as gearmand:
        worker = Worker(gearmand.address, {b"chaos": getattr(record, run)}, concurrency=256)
        await worker.start()
        try:
            async with relaying([gearmand.address], workers=WORKERS) as gateway:
                yield gateway, record
        finally:
            await worker.close()


async def whole_round(gateway: Relaying, record: Record) -> None:
    """Fail unless all who ask now are told the whole, by one run a unique."""
    told: Counter[tuple[int | str, str]] = Counter()
    for _ in range(UNIQUES):
        # Jobs whose client has just gone must not be taken for those that are asked for now.
        await gateway.jobs_left(0)
        unique = record.unique()
        record.may_end.clear()
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(HttpClient(gateway.address)) for _ in range(SHARERS)]
            for client in clients:
                client.send(request_of(unique))
            await gateway.jobs_left(len(clients))
            # At most two runs of one unique: the end of the first may overtake a request that was about to join it.
            record.may_end.set()
            for client in clients:
                await record.hear(client, unique)
        told.update(record.told[unique])
        assert record.begun[unique] in (1, 2)
    assert told == {(200, ""): UNIQUES * SHARERS}


async def replaced(gateway: Relaying, victim: int) -> None:
    """Return once another process serves in the place of one that was killed."""
    await eventually(lambda: victim not in gateway.served.workers(), PROCESS_S)
    await eventually(
        lambda: (
            len(gateway.served.workers()) == WORKERS
            and all(place.state == place.state.SERVING for place in gateway.memory.places.rows)
        ),
        PROCESS_S,
    )


async def test_those_whose_owner_is_killed_are_told_so_and_the_others_have_the_whole(tmp_path):
    chance = random.Random(15)
    async with stage(tmp_path, "run") as (gateway, record):
        for _ in range(KILLS):
            asked: list[tuple[bytes, HttpClient]] = []
            record.may_end.clear()
            async with AsyncExitStack() as stack:
                uniques = [record.unique() for _ in range(UNIQUES)]
                for unique in uniques * SHARERS:
                    client = await stack.enter_async_context(HttpClient(gateway.address))
                    client.send(request_of(unique))
                    asked.append((unique, client))
                # All are with their owners, and every job has sent the first part.
                await gateway.jobs_left(len(asked))
                await eventually(lambda uniques=uniques: all(record.begun[unique] for unique in uniques), PROCESS_S)
                victim = chance.choice(gateway.served.workers())
                os.kill(victim, signal.SIGKILL)
                await replaced(gateway, victim)
                record.may_end.set()
                await asyncio.gather(*(record.hear(client, unique) for unique, client in asked))
            for unique in uniques:
                # Whoever is left has the same: the owner lives, or it does not.
                left = {told for told in record.told[unique] if told[0] != "lost"}
                assert left in [{(200, "")}, {(502, "outcome-unknown")}, set()], left
                assert record.begun[unique] == 1
            await whole_round(gateway, record)
        told = record.check()
        assert told[200, ""] > told[502, "outcome-unknown"] > 0
        assert told["lost", ""] > 0
        print(dict(told))
        await gateway.nothing_taken()


async def test_under_load_each_is_told_what_is_true(tmp_path):
    async with stage(tmp_path, "run_at_once") as (gateway, record):
        ended = False

        async def ask_together() -> None:
            clients: list[HttpClient] = []
            try:
                while not ended:
                    clients += [await HttpClient(gateway.address).connect() for _ in range(SHARERS - len(clients))]
                    unique = record.unique()
                    for client in clients:
                        client.send(request_of(unique, b"X-Gearman-Timeout: 5"))
                    there = await asyncio.gather(*(record.hear(client, unique) for client in clients))
                    if (503, "owner-away") in record.told[unique]:
                        # Retry-After asks for more.
                        await asyncio.sleep(0.01)
                    for client in itertools.compress(clients, (not each for each in there)):
                        await client.close()
                    clients = list(itertools.compress(clients, there))
            finally:
                for client in clients:
                    await client.close()

        def count(*told: int | str) -> int:
            return sum(each[0] in told for unique in list(record.told) for each in record.told[unique])

        load = [asyncio.create_task(ask_together()) for _ in range(UNIQUES)]

        async def more(*told: int | str) -> None:
            before = count(*told)
            await eventually(lambda: any(task.done() for task in load) or count(*told) > before + SHARERS, PROCESS_S)

        for kill in range(KILLS):
            await more(200)
            # Who is killed as soon as it is there comes back later each time; meanwhile its uniques are refused.
            refused, kills_of_one = count(503), 4 if kill == KILLS // 2 else 1
            while kills_of_one > 0:
                await eventually(lambda: len(gateway.served.workers()) == WORKERS, PROCESS_S)
                victim = gateway.served.workers()[-1]
                os.kill(victim, signal.SIGKILL)
                await eventually(lambda victim=victim: victim not in gateway.served.workers(), PROCESS_S)
                kills_of_one -= 1
            if kill == KILLS // 2:
                await eventually(lambda refused=refused: count(503) > refused, PROCESS_S)
            await replaced(gateway, victim)
            await more(200)
        ended = True
        await asyncio.gather(*load)
        told = record.check()
        assert told[200, ""] > 0
        assert told[503, "owner-away"] > 0
        print(dict(told))
        await whole_round(gateway, record)
        await gateway.nothing_taken()
