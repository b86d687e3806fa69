"""Clients that repeat each request with an idempotency key until it is answered, while everything between them and the
workers is killed and cut: no key's job runs twice within the life of the process that owns the key.

Each job's unique tells which worker process has submitted it, so the worker knows whose jobs it runs. CHAOS=1
(`make chaos`) runs the same for ten thousand keys.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import time
from collections import Counter, defaultdict
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from gatewayx.core.shared import KEPT_BYTES, KEPT_KEYS
from gatewayx.embedded.worker import AssignedJob
from support.account import FUNCTION, Account, Gearmands, KeptWorker
from support.cutting_proxy import CuttingProxy
from support.fault_proxy import DOWN, UP, FaultProxy
from support.gateway import eventually
from support.http import HttpClient, Response, post
from support.keys import is_first, keyed, likeness
from support.open_loop import clients_of
from support.relaying import Relaying, relaying
from support.times import PROCESS_S

pytestmark = pytest.mark.anyio

LONG = os.environ.get("CHAOS") == "1"
KEYS = 10_000 if LONG else 400
# Victims of each kind, evenly over the run.
KILLS = 40 if LONG else 4
WORKERS = 4
JOB_SERVERS = 2
# Keys that are asked for at a time, and requests with each of them at a time.
AT_ONCE = 60 if LONG else 25
SHARERS = 2
# What each of these wants to be told before it goes.
ANSWERS = 2
# A job takes so long.
RUN_S = 0.03
# Clients' connections and those to the job servers are cut about this often.
CUT_S = 0.15
PAUSE_S = 0.02
# A key is known for longer than it is asked for.
TTL_S = 600
LOST = (ConnectionError, EOFError)
# What is told of a request of which nothing was submitted; and by the relay, of one whose owner was killed.
AGAIN = {
    (503, "owner-away"),
    (503, "no-job-server"),
    (503, "not-submitted"),
    (503, "job-refused"),
    (503, "stopping"),
    (502, "outcome-unknown"),
    (504, "job-timeout"),
}
# What a process begins all of its uniques with: `gatewayx-`, then what is its own.
PREFIX_BYTES = len(b"gatewayx-") + 20


class Record:
    """What ran, and what was told, by key, which is the workload as well."""

    def __init__(self) -> None:
        self.numbers = itertools.count()
        # By key: the unique of each run, and when it began.
        self.runs: defaultdict[bytes, list[tuple[bytes, float]]] = defaultdict(list)
        # By key and unique: what its answers are like, and how many of them were the first.
        self.told: defaultdict[tuple[bytes, bytes], set[tuple[object, ...]]] = defaultdict(set)
        self.firsts: Counter[tuple[bytes, bytes]] = Counter()
        self.kinds: Counter[tuple[int | str, str]] = Counter()
        # The process of each prefix, and when each was killed.
        self.lives: dict[bytes, int] = {}
        self.died_s: dict[int, float] = {}
        self.done = 0

    def key(self) -> bytes:
        """A new one."""
        return b"chaos-of-keys-%010d" % next(self.numbers)

    def ran(self, job: AssignedJob) -> None:
        """A worker begins with it."""
        self.runs[job.workload].append((job.unique, time.monotonic()))

    def answered(self, key: bytes, answer: Response) -> bool:
        """Whether the answer tells of a job; fails if it is none that may be given."""
        unique = answer.headers.get(b"x-gearman-unique")
        kind = "" if answer.status == 200 else answer.kind()
        self.kinds[answer.status, kind] += 1
        if answer.status == 503 or unique is None:
            # One that has waited with others is told so too.
            assert (answer.status, kind) in AGAIN, (answer.status, kind)
            return False
        assert (answer.status, kind) in {(200, ""), (502, "outcome-unknown"), (504, "job-timeout")}, kind
        if answer.status == 200:
            assert answer.body == key[::-1]
        self.told[key, unique].add(likeness(answer))
        self.firsts[key, unique] += is_first(answer)
        return True

    def check(self) -> None:
        """Fail unless all that was told is true, and each job ran as often as it may."""
        for (key, unique), told in self.told.items():
            assert len(told) == 1, f"{key!r} was answered in several ways: {told}"
            assert self.firsts[key, unique] <= 1, f"{key!r} was told twice that it is the first"
            [(status, *_)] = told
            if status == 200:
                assert [found for found, _ in self.runs[key]].count(unique) == 1
        for key, runs in self.runs.items():
            uniques = [unique for unique, _ in runs]
            assert len(set(uniques)) == len(uniques), f"a job of {key!r} ran twice"
            for (unique, _), (_, next_s) in itertools.pairwise(runs):
                owner = self.lives[unique[:PREFIX_BYTES]]
                assert self.died_s.get(owner, next_s) < next_s, f"{key!r} ran again while its owner lives"
        for key, unique in self.told:
            assert unique[:PREFIX_BYTES] in self.lives, f"{key!r} was answered by nobody knows whom"


class NotingWorker(KeptWorker):
    """A worker that keeps its record here."""

    def __init__(self, address: tuple[str, int], record: Record) -> None:
        super().__init__(address, Account(), before_end_s=RUN_S)
        self.record = record

    async def _run_slowly(self, job: AssignedJob) -> bytes:
        self.record.ran(job)
        return await super()._run_slowly(job)


class Once:
    """The clients, and whoever makes it hard for them."""

    def __init__(
        self, gateway: Relaying, gearmands: Gearmands, record: Record, front: CuttingProxy, behind: list[FaultProxy]
    ) -> None:
        self.gateway = gateway
        self.gearmands = gearmands
        self.record = record
        self.front = front
        self.behind = behind
        self.chance = random.Random(19)
        self.killed_processes = 0
        self.cuts = 0

    async def ask(self, key: bytes) -> None:
        """Ask until it was told often enough what became of the job."""
        client: HttpClient | None = None
        told = 0
        try:
            while told < ANSWERS:
                try:
                    if client is None:
                        client = await HttpClient(self.front.address).connect()
                    answer = await client.ask(keyed(FUNCTION, key, key))
                except LOST:
                    if client is not None:
                        await client.close()
                        client = None
                    continue
                if self.record.answered(key, answer):
                    told += 1
                else:
                    # Retry-After asks for more.
                    await asyncio.sleep(PAUSE_S)
        finally:
            if client is not None:
                await client.close()

    async def ask_on(self) -> None:
        """One key after the other."""
        while self.record.done < KEYS:
            key = self.record.key()
            await asyncio.gather(*(self.ask(key) for _ in range(SHARERS)))
            self.record.done += 1

    async def kill_on(self) -> None:
        """Kill job servers and worker processes in turn, until all keys are through."""
        await self.learn()
        for number in range(1, 2 * KILLS + 1):
            wanted = KEYS * number // (2 * KILLS + 1)
            await eventually(lambda wanted=wanted: self.record.done >= wanted, 10 * PROCESS_S)
            if number % 2:
                victim = number // 2 % JOB_SERVERS
                self.gearmands.kill(victim)
                await self.gearmands.start(victim)
                continue
            process_id = self.chance.choice(self.gateway.served.workers())
            os.kill(process_id, signal.SIGKILL)
            self.record.died_s[process_id] = time.monotonic()
            self.killed_processes += 1
            await eventually(lambda process_id=process_id: self.replaced(process_id), PROCESS_S)
            await self.learn()

    def replaced(self, process_id: int) -> bool:
        """Whether another process serves in the place of this one."""
        workers = self.gateway.served.workers()
        return (
            process_id not in workers
            and len(workers) == WORKERS
            and all(place.state == place.state.SERVING for place in self.gateway.memory.places.rows)
        )

    async def learn(self) -> None:
        """Return once it is known what each process begins its uniques with."""
        async with AsyncExitStack() as stack:
            while unknown := set(self.gateway.served.workers()) - set(self.record.lives.values()):
                client = await stack.enter_async_context(HttpClient(self.gateway.address))
                name = client.writer.get_extra_info("sockname")
                answer = await client.ask(post(b"/probe", b"", b"X-Gearman-Background: true"))
                if answer.status != 200:
                    await asyncio.sleep(PAUSE_S)
                    continue
                prefix = answer.headers[b"x-gearman-unique"][:PREFIX_BYTES]
                for process_id in unknown:
                    if name in clients_of(process_id, self.gateway.address[1]):
                        self.record.lives[prefix] = process_id

    async def cut_on(self) -> None:
        """Cut connections again and again."""
        while True:
            await asyncio.sleep(self.chance.expovariate(1 / CUT_S))
            if self.chance.random() < 0.5:
                self.front.cut()
                # What has passed is of no interest here, and adding to it takes ever longer.
                self.front.up = self.front.down = b""
            else:
                proxy = self.chance.choice(self.behind)
                proxy.cut(self.chance.choice((UP, DOWN)), self.chance.randrange(1, 2000))
            self.cuts += 1


async def test_no_key_s_job_runs_twice_while_its_owner_lives(tmp_path: Path):
    record = Record()
    with Gearmands(tmp_path, JOB_SERVERS) as gearmands:
        async with AsyncExitStack() as stack:
            for address in gearmands.addresses:
                worker = NotingWorker(address, record)
                await stack.enter_async_context(worker)
                await worker.registered.wait()
            behind = [await stack.enter_async_context(FaultProxy(address)) for address in gearmands.addresses]
            gateway = await stack.enter_async_context(
                relaying([proxy.address for proxy in behind], "--kept-ttl", str(TTL_S), workers=WORKERS)
            )
            front = await stack.enter_async_context(CuttingProxy(gateway.address))
            once = Once(gateway, gearmands, record, front, behind)
            tasks = [asyncio.create_task(once.ask_on()) for _ in range(AT_ONCE)]
            tasks.append(asyncio.create_task(once.kill_on()))
            cutting = asyncio.create_task(once.cut_on())
            try:
                await asyncio.gather(*tasks)
            finally:
                for task in (*tasks, cutting):
                    task.cancel()
                await asyncio.gather(*tasks, cutting, return_exceptions=True)
            print(
                dict(record.kinds),
                f"{gearmands.kills} job servers and {once.killed_processes} worker processes were killed,",
                f"and connections cut {once.cuts} times; {sum(map(len, record.runs.values()))} jobs ran",
            )
            record.check()
            assert record.done >= KEYS
            # Whoever was killed or cut had some, so most were asked for again.
            assert record.kinds[200, ""] > KEYS
            assert record.kinds[502, "outcome-unknown"] > 0
            assert any(len(runs) > 1 for runs in record.runs.values()) or not LONG
            await gateway.jobs_left(0)
            # What those knew who were killed was given back with them.
            shared = gateway.memory.shared
            for process_id in gateway.served.workers():
                os.kill(process_id, signal.SIGKILL)
            await eventually(lambda: (shared.taken(KEPT_KEYS), shared.taken(KEPT_BYTES)) == (0, 0), PROCESS_S)
            await gateway.nothing_taken()
