"""Kept jobs that are waited for while job servers and worker processes are killed: each has one end, and a true one.

CHAOS=1 (`make chaos`) runs the same for ten thousand jobs.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from gatewayx.core.shared import KEPT_BYTES, KEPT_JOBS
from support.account import FUNCTION, Account, Gearmands, KeptWorker
from support.event_streams import EventParser
from support.gateway import eventually
from support.http import HttpClient, Response, get, head, post
from support.kept import ASYNC, at, job_of
from support.relaying import Relaying, relaying
from support.times import PROCESS_S

pytestmark = pytest.mark.anyio

LONG = os.environ.get("CHAOS") == "1"
JOBS = 10_000 if LONG else 400
# Victims of each kind, evenly over the run.
KILLS = 40 if LONG else 4
WORKERS = 4
JOB_SERVERS = 2
# Clients that have a job under way each.
CLIENTS = 200 if LONG else 50
# A job takes so long.
RUN_S = 0.05
LOST = (ConnectionError, EOFError)
ENDS = {"succeeded", "failed", "cancelled", "lost", "timeout"}
EVENT_OF = {"succeeded": "complete", "cancelled": "cancelled", "lost": "lost", "timeout": "timeout"}
# After an answer that asks for patience.
PAUSE_S = 0.02


class Client:
    """One that comes back when its connection is lost."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self.http: HttpClient | None = None

    async def ask(self, *request: bytes) -> Response:
        """The answer; raises one of LOST if there is none."""
        try:
            if self.http is None:
                self.http = await HttpClient(self.address).connect()
            return await self.http.ask(*request)
        except LOST:
            await self.close()
            raise

    async def close(self) -> None:
        """Leave."""
        if self.http is not None:
            await self.http.close()
            self.http = None


class Jobs:
    """The clients, what they were told, and who is killed meanwhile."""

    def __init__(self, gateway: Relaying, gearmands: Gearmands, account: Account) -> None:
        self.gateway = gateway
        self.gearmands = gearmands
        self.account = account
        self.chance = random.Random(18)
        # By state; "unknown" where the process that kept it was killed, "unsubmitted" where nobody was told an id.
        self.ends: Counter[str] = Counter()
        self.killed_processes = 0
        # Whoever was to be killed was, and some of the clients have noticed.
        self.all_killed = False

    def done(self) -> int:
        """How many jobs that were kept are through."""
        return sum(self.ends.values()) - self.ends["unsubmitted"]

    async def patiently(self, client: Client, ask: Callable[[], Awaitable[Response]]) -> Response:
        """The answer, once there is one that is not a lost connection or a refusal for want of a process."""
        while True:
            with contextlib.suppress(*LOST):
                answer = await ask()
                if answer.status not in (502, 503):
                    return answer
                kind = answer.kind()
                if kind == "outcome-unknown" and (
                    b"x-gearman-job-handle" in answer.headers or "will never be known" in answer.problem()["detail"]
                ):
                    # It is the job's own answer, or that of a cancellation that was lost with the job.
                    return answer
                # What the relay says, and whoever is about to be replaced.
                assert kind in ("owner-away", "outcome-unknown", "no-job-server", "stopping"), kind
            await asyncio.sleep(PAUSE_S)

    async def one(self, client: Client, other: Client) -> str:
        """Submit one job, wait for it, and ask for it in every way; how it has ended."""
        workload = self.account.workload()
        try:
            answer = await client.ask(post(b"/" + FUNCTION, workload, ASYNC))
        except LOST:
            return "unsubmitted"
        if answer.status != 202:
            kind = answer.kind()
            assert (answer.status, kind) in {
                (503, "not-submitted"),
                (503, "no-job-server"),
                (502, "outcome-unknown"),
                (504, "job-timeout"),
            }, kind
            if answer.status == 503:
                assert not self.account.begun[workload], "a job ran of which was told that it was not submitted"
                await asyncio.sleep(PAUSE_S)
            return "unsubmitted"
        job_id = str(job_of(answer)["id"])
        cancelled = None
        if self.chance.random() < 0.1:
            cancelled = await self.patiently(client, lambda: client.ask(post(at(job_id, "cancel"))))
        seen = []
        for each in (other, client, other):
            answer = await self.patiently(each, lambda each=each: each.ask(get(at(job_id, "", "wait=30"))))
            if answer.status == 404:
                return self.unknown(answer)
            job = job_of(answer)
            if job["ended"] is None:
                assert not seen
                continue
            seen.append(job)
        assert seen, "it has no end"
        assert all(job == seen[0] for job in seen), "it has several ends"
        state = str(seen[0]["state"])
        assert state in ENDS
        return await self.checked(other, job_id, workload, state, cancelled)

    def unknown(self, answer: Response) -> str:
        """Who has kept it was killed, and that is said."""
        assert "has ended" in str(answer.problem()["detail"])
        assert self.killed_processes
        return "unknown"

    async def checked(
        self, client: Client, job_id: str, workload: bytes, state: str, cancelled: Response | None
    ) -> str:
        """Fail unless result and events tell the same end, and the worker's record does not tell another."""
        answer = await self.patiently(client, lambda: client.ask(get(at(job_id, "result"))))
        if answer.status == 404:
            return self.unknown(answer)
        ran = self.account.ended[workload]
        if state == "succeeded":
            assert (answer.status, answer.body) == (200, workload[::-1])
            assert ran == 1
        elif state == "cancelled":
            assert (answer.status, answer.kind()) == (409, "job-cancelled")
            assert cancelled is not None
            if cancelled.status == 200:
                assert not self.account.begun[workload], "a job ran of which was told that it will not"
        elif state == "lost":
            assert (answer.status, answer.kind()) == (502, "outcome-unknown")
            assert self.gearmands.kills
        else:
            raise AssertionError(state)
        if cancelled is not None and cancelled.status in (200, 202):
            assert state == "cancelled"
        answer = await self.patiently(client, lambda: client.ask(get(at(job_id, "events"))))
        if answer.status == 404:
            return self.unknown(answer)
        if answer.headers.get(b"content-length"):
            parser = EventParser()
            parser.feed(answer.body)
            assert [event.kind for event in parser.events] == ["created", EVENT_OF[state]]
        answer = await self.patiently(client, lambda: client.ask(head(b"DELETE", at(job_id))))
        if answer.status == 404 and "has ended" not in str(answer.problem()["detail"]):
            # The first of two has forgotten it, whose answer was lost.
            return state
        return state if answer.status == 204 else self.unknown(answer)

    async def ask_on(self) -> None:
        """One job after the other."""
        client, other = Client(self.gateway.address), Client(self.gateway.address)
        try:
            while not self.all_killed:
                self.ends[await self.one(client, other)] += 1
        finally:
            await client.close()
            await other.close()

    async def kill_on(self) -> None:
        """Kill job servers and worker processes in turn, until all jobs are through and each kind has had some."""
        for number in itertools.count(1):
            if number > 2 * KILLS and self.ends["lost"] and self.ends["unknown"]:
                break
            assert number < 20 * KILLS, "those who are killed have no jobs"
            wanted = JOBS * number // (2 * KILLS + 1)
            await eventually(lambda wanted=wanted: self.done() >= wanted, 10 * PROCESS_S)
            if number % 2:
                victim = number // 2 % JOB_SERVERS
                self.gearmands.kill(victim)
                await self.gearmands.start(victim)
                continue
            process_id = self.chance.choice(self.gateway.served.workers())
            os.kill(process_id, signal.SIGKILL)
            self.killed_processes += 1
            await eventually(lambda process_id=process_id: self.replaced(process_id), PROCESS_S)
        await eventually(lambda: self.done() >= JOBS, 10 * PROCESS_S)
        self.all_killed = True

    def replaced(self, process_id: int) -> bool:
        """Whether another process serves in the place of this one."""
        workers = self.gateway.served.workers()
        return (
            process_id not in workers
            and len(workers) == WORKERS
            and all(place.state == place.state.SERVING for place in self.gateway.memory.places.rows)
        )


async def test_each_has_one_end_whoever_is_killed(tmp_path):
    account = Account()
    with Gearmands(tmp_path, JOB_SERVERS) as gearmands:
        async with AsyncExitStack() as stack:
            for address in gearmands.addresses:
                worker = KeptWorker(address, account, before_end_s=RUN_S)
                await stack.enter_async_context(worker)
                await worker.registered.wait()
            gateway = await stack.enter_async_context(relaying(gearmands.addresses, workers=WORKERS))
            jobs = Jobs(gateway, gearmands, account)
            tasks = [asyncio.create_task(jobs.ask_on()) for _ in range(CLIENTS)]
            tasks.append(asyncio.create_task(jobs.kill_on()))
            try:
                await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            assert jobs.done() >= JOBS
            told = dict(jobs.ends)
            print(told, f"{gearmands.kills} job servers and {jobs.killed_processes} worker processes were killed")
            assert jobs.ends["succeeded"] > JOBS / 4
            # What was kept by those who were killed was given back with them.
            shared = gateway.memory.shared
            await eventually(lambda: (shared.taken(KEPT_JOBS), shared.taken(KEPT_BYTES)) == (0, 0), PROCESS_S)
            await gateway.jobs_left(0)
            await gateway.nothing_taken()
