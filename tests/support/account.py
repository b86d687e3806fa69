"""Requests of which every one is accounted for: what it was told, and what the workers did for it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from gatewayx.embedded.worker import AssignedJob, Worker
from support.gearmand import Gearmand
from support.http import HttpClient, Response, post
from support.ports import free_port

FUNCTION = b"accounted"


class Outcome(NamedTuple):
    """What a request was told: status, the last part of a problem's type or "", the body."""

    status: int
    kind: str
    body: bytes


class Account:
    """What was asked, what was answered, what ran."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        # Workloads of requests that were sent; True for a background job.
        self.asked: dict[bytes, bool] = {}
        self.told: dict[bytes, Outcome] = {}
        # Requests whose client hung up before the answer.
        self.abandoned: set[bytes] = set()
        # How often a worker began the job, and brought it to its end.
        self.begun: Counter[bytes] = Counter()
        self.ended: Counter[bytes] = Counter()
        # How often a worker died that had the job in hand: its job server queues it again each time.
        self.orphaned: Counter[bytes] = Counter()

    def workload(self, background: bool = False) -> bytes:
        """A new one, for a request that is about to be sent."""
        workload = b"%08d" % next(self._numbers)
        self.asked[workload] = background
        return workload

    def answered(self, workload: bytes, answer: Response) -> None:
        """The request has its answer."""
        assert workload not in self.told, "a request was answered twice"
        kind = answer.kind() if answer.status >= 400 else ""
        self.told[workload] = Outcome(answer.status, kind, answer.body)

    def failures(self) -> dict[bytes, Outcome]:
        """The requests that were not told 200."""
        return {workload: outcome for workload, outcome in self.told.items() if outcome.status != 200}

    def forget(self) -> None:
        """Begin anew; workloads are not used again."""
        for record in (self.asked, self.told, self.abandoned, self.begun, self.ended, self.orphaned):
            record.clear()

    def check(self) -> Counter[tuple[int, str]]:
        """Fail unless all that was told is true; returns how often each thing was told.

        Call it when no job is under way any more.
        """
        assert set(self.asked) == set(self.told) | self.abandoned
        assert not self.abandoned & set(self.told)
        for workload, outcome in self.told.items():
            background, ran = self.asked[workload], self.begun[workload]
            if outcome.status == 200 and background:
                assert outcome.body == b""
            elif outcome.status == 200:
                assert ran >= 1, "a result was told of a job that never ran"
                assert outcome.body == workload[::-1]
            elif outcome.status == 503:
                assert ran == 0, f"a job ran whose request was told that it was not submitted: {outcome}"
            else:
                assert (outcome.status, outcome.kind) in {(502, "outcome-unknown"), (504, "job-timeout")}, outcome
        for workload, count in self.begun.items():
            assert count <= 1 + self.orphaned[workload], f"{workload!r} ran {count} times"
        return Counter((outcome.status, outcome.kind) for outcome in self.told.values())


class KeptWorker:
    """A worker that keeps its record in the account and comes back when its job server does.

    An asynchronous context manager. before_end_s: how long each job takes. may_end: until when a job that takes time
    waits beyond that; None for no longer.
    """

    def __init__(
        self,
        address: tuple[str, int],
        account: Account,
        *,
        before_end_s: float = 0.0,
        may_end: asyncio.Event | None = None,
    ) -> None:
        self.address = address
        self.account = account
        self.before_end_s = before_end_s
        self.may_end = may_end
        self.in_hand: set[bytes] = set()
        self.worker: Worker | None = None

    def _run(self, job: AssignedJob) -> bytes:
        self.account.begun[job.workload] += 1
        self.account.ended[job.workload] += 1
        return job.workload[::-1]

    async def _run_slowly(self, job: AssignedJob) -> bytes:
        self.account.begun[job.workload] += 1
        self.in_hand.add(job.workload)
        try:
            await asyncio.sleep(self.before_end_s)
            if self.may_end is not None:
                await self.may_end.wait()
        finally:
            self.in_hand.discard(job.workload)
        self.account.ended[job.workload] += 1
        return job.workload[::-1]

    async def _keep(self) -> None:
        function = self._run_slowly if self.before_end_s or self.may_end else self._run
        while True:
            self.worker = Worker(self.address, {FUNCTION: function}, concurrency=32)
            with contextlib.suppress(OSError):
                await self.worker.start()
                self.registered.set()
                # Not awaited itself: a cancellation would cancel it.
                await asyncio.wait((self.worker.lost,))
            await self.worker.close()
            await asyncio.sleep(0.02)

    async def die(self) -> None:
        """Vanish with the jobs in hand, and come back."""
        self.account.orphaned.update(self.in_hand)
        await self.worker.close()

    async def __aenter__(self) -> KeptWorker:
        self.registered = asyncio.Event()
        self.task = asyncio.create_task(self._keep())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        if self.worker is not None:
            await self.worker.close()


class Gearmands:
    """Several gearmands that are killed and started again, each on its own port. A context manager."""

    def __init__(self, directory: Path, count: int) -> None:
        self.directories = [directory / f"gearmand-{number}" for number in range(count)]
        self.ports = [free_port() for _ in range(count)]
        self.running: list[Gearmand | None] = [None] * count
        # How often one was killed.
        self.kills = 0

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """(host, port) of each."""
        return [("127.0.0.1", port) for port in self.ports]

    def kill(self, number: int) -> None:
        """As a crash would."""
        self.running[number].kill()
        self.running[number] = None
        self.kills += 1

    async def start(self, number: int) -> None:
        """Start it again; returns once it answers."""
        port = self.ports[number]
        self.running[number] = await asyncio.to_thread(Gearmand, self.directories[number], port=port)

    def __enter__(self) -> Gearmands:
        for number, directory in enumerate(self.directories):
            directory.mkdir()
            self.running[number] = Gearmand(directory, port=self.ports[number])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for gearmand in self.running:
            if gearmand is not None:
                gearmand.stop()


class Load:
    """Clients that ask one thing after the other until they are told to stop. An asynchronous context manager.

    background: which of the numbers of requests are for background jobs. headers: further ones of a workload.
    """

    def __init__(
        self,
        address: tuple[str, int],
        account: Account,
        clients: int,
        *,
        background: Callable[[int], bool] = lambda number: False,
        headers: Callable[[bytes], tuple[bytes, ...]] = lambda workload: (),
    ) -> None:
        self.address = address
        self.account = account
        self.clients = clients
        self.background = background
        self.headers = headers
        self.stopping = False

    async def _ask(self) -> None:
        async with HttpClient(self.address) as client:
            for number in itertools.count():
                if self.stopping:
                    return
                background = self.background(number)
                workload = self.account.workload(background)
                headers = (b"X-Gearman-Background: true",) if background else ()
                request = post(b"/" + FUNCTION, workload, *headers, *self.headers(workload))
                answer = await client.ask(request)
                self.account.answered(workload, answer)
                if answer.status == 503:
                    # Retry-After asks for more.
                    await asyncio.sleep(0.01)

    async def __aenter__(self) -> Load:
        self.tasks = [asyncio.create_task(self._ask()) for _ in range(self.clients)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopping = True
        await asyncio.gather(*self.tasks)
