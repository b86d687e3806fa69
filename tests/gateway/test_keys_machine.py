"""Idempotency keys under any order of what clients, Gearman workers and connections do: each has one job, one answer
that is the first, and the same one for all who ask.

A worker's every packet is the machine's own, so it knows what each answer has to be. After each step every key whose
job has ended is asked for again. CHAOS=1 runs much more of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import os
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from gatewayx.core.shared import KEPT_BYTES, KEPT_JOBS, KEPT_KEYS
from gatewayx.embedded import encode
from gatewayx.gearman import keeper
from gatewayx.gearman.packet import PacketType
from support.fault_proxy import DOWN
from support.gateway import POLL_S, eventually
from support.http import HttpClient, Response, head
from support.job_servers import HandWorker
from support.kept import ASYNC
from support.kept_stage import Stage
from support.keys import is_first, keyed, likeness, new_key
from support.peer import ask_text

Result = TypeVar("Result")

EXAMPLES = 300 if os.environ.get("CHAOS") == "1" else 10
STEPS = 30
MOMENT_S = 0.05
BACKGROUND = b"X-Gearman-Background: true"
COUNTED = itertools.count()
DATA = st.sampled_from([b"", b"text", b"\xff\0bytes", b"x" * 30_000, "ä€".encode()])
# What a job ends with: the statuses of its answer.
STATUS_OF = {"complete": 200, "exception": 500, "fail": 500, "lost": 502}


@dataclass
class Record:
    """One key: what its clients and its worker did."""

    key: bytes
    workload: bytes
    lines: tuple[bytes, ...] = ()
    # While a worker has its job.
    handle: bytes | None = None
    gathered: bytes = b""
    # Whether its job has ended, and how and with what it has to be answered.
    ended: bool = False
    status: int = 200
    body: bytes | None = None
    # What it was answered with first.
    told: tuple[object, ...] | None = None
    firsts: int = 0
    # Clients that wait, and which of them began it.
    waiting: list[HttpClient] = field(default_factory=list)
    beginner: HttpClient | None = None


class KeysMachine(RuleBasedStateMachine):
    """What can happen to keys."""

    # A subclass has it.
    stage: Stage

    records: Bundle[Record] = Bundle("records")

    def __init__(self) -> None:
        super().__init__()
        self.known: list[Record] = []
        # What a worker still has or may yet hear of, though nobody waits for it.
        self.maybe: set[bytes] = set()
        # Of kept jobs.
        self.locations: list[bytes] = []

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """What it returns."""
        return self.stage.run(coroutine)

    @initialize()
    def begin(self) -> None:
        """A function of its own, and a worker for it."""
        self.function = b"keys-machine-%d" % next(COUNTED)
        self.known_before = self.stage.process.shared.taken(KEPT_KEYS)

        async def begin() -> None:
            self.client = await HttpClient(self.stage.http).connect()
            self.worker = await HandWorker(self.stage.address).connect()
            await self.worker.can_do(self.function)

        self.run(begin())

    # What clients do.

    @rule(target=records)
    def ask(self) -> Record:
        """Ask with a new key, and wait."""
        record = Record(new_key(), b"%d" % next(COUNTED))
        self.known.append(record)
        self.run(self.wait(record))
        record.beginner = record.waiting[0]
        return record

    @rule(record=records)
    def ask_again(self, record: Record) -> None:
        """Ask with one that is known, and wait if its job runs."""
        if record.ended:
            self.run(self.check(record))
        else:
            self.run(self.wait(record))

    @rule(record=records)
    def ask_for_a_moment(self, record: Record) -> None:
        """The same without patience."""
        timeout = b"X-Gearman-Timeout: %.2f" % MOMENT_S

        async def ask() -> Response:
            return await self.client.ask(keyed(self.function, record.workload, record.key, *record.lines, timeout))

        if record.ended:
            self.heard(record, self.run(ask()), began=False)
        else:
            answer = self.run(ask())
            assert (answer.status, answer.kind()) == (504, "job-timeout")

    @rule(record=records, what=st.sampled_from(["workload", "priority", "kind"]))
    def ask_for_something_else(self, record: Record, what: str) -> None:
        """Another request with a key that is known."""

        async def ask() -> Response:
            workload = b"other" if what == "workload" else record.workload
            lines = list(record.lines)
            if what == "priority":
                lines.append(b"X-Gearman-Priority: low")
            elif what == "kind":
                lines = [line for line in lines if line != BACKGROUND] + [BACKGROUND] * (BACKGROUND not in lines)
            return await self.client.ask(keyed(self.function, workload, record.key, *lines))

        answer = self.run(ask())
        assert (answer.status, answer.kind(), is_first(answer)) == (422, "key-reused", True)

    @rule(target=records, again=st.booleans())
    def ask_in_the_background(self, again: bool) -> Record:
        """A background job."""
        return self.answered_at_once((BACKGROUND,), 200, again)

    @rule(target=records, again=st.booleans())
    def ask_for_a_kept_one(self, again: bool) -> Record:
        """A job that outlives its request."""
        return self.answered_at_once((ASYNC,), 202, again)

    def answered_at_once(self, lines: tuple[bytes, ...], status: int, again: bool) -> Record:
        """A key whose answer does not wait for its job's end; again: asked for twice in one pipeline."""
        record = Record(new_key(), b"%d" % next(COUNTED), lines, ended=True, status=status)
        self.known.append(record)
        self.maybe.add(record.workload)
        request = keyed(self.function, record.workload, record.key, *lines)

        async def ask() -> list[Response]:
            self.client.send(request * (1 + again))
            return [await self.client.response() for _ in range(1 + again)]

        first, *more = self.run(ask())
        if status == 202:
            self.locations.append(first.headers[b"location"])
        self.heard(record, first, began=True)
        for answer in more:
            self.heard(record, answer, began=False)
        return record

    @rule(record=records, choice=st.integers(0, 99), reset=st.booleans())
    def leave(self, record: Record, choice: int, reset: bool) -> None:
        """One who waits leaves, whoever it is."""
        if not record.waiting:
            return
        client = record.waiting.pop(choice % len(record.waiting))

        async def leave() -> None:
            open_exchanges = self.stage.process.counters()["gateway.open_exchanges"]
            if reset:
                client.reset()
            else:
                await client.close()
            await eventually(lambda: self.stage.process.counters()["gateway.open_exchanges"] < open_exchanges)

        self.run(leave())

    # What workers do.

    @rule()
    def take(self) -> None:
        """A worker takes a job, if there is one."""

        waiting = [record for record in self.known if not record.ended and record.handle is None]
        taken = self.run(taken_by(self.worker))
        if taken is None:
            assert not waiting, "a worker is told of no job, though there is one"
            return
        handle, workload = taken
        for record in waiting:
            if record.workload == workload:
                record.handle = handle
                return
        assert workload in self.maybe, f"{workload!r} runs again"
        self.maybe.discard(workload)
        self.worker.send(encode.work_complete(handle, b"for nobody"))

    @rule(choice=st.integers(0, 99), data=DATA)
    def send(self, choice: int, data: bytes) -> None:
        """A worker sends a part of a result."""
        record = self.chosen(choice)
        if record is not None:
            self.worker.send(encode.work_data(record.handle, data), encode.work_warning(record.handle, data))
            record.gathered += data

    @rule(choice=st.integers(0, 99), kind=st.sampled_from(["complete", "fail", "exception"]), data=DATA)
    def end(self, choice: int, kind: str, data: bytes) -> None:
        """A worker ends a job."""
        record = self.chosen(choice)
        if record is None:
            return
        self.worker.send(
            encode.work_fail(record.handle) if kind == "fail" else getattr(encode, f"work_{kind}")(record.handle, data)
        )
        body = {"complete": record.gathered + data, "exception": data, "fail": None}[kind]
        self.has_ended(record, STATUS_OF[kind], body)

    @rule()
    def lose_the_worker(self) -> None:
        """Its jobs are for the next one."""

        async def another() -> None:
            await self.worker.close()
            while not await self.nothing_runs():
                pass
            self.worker = await HandWorker(self.stage.address).connect()
            await self.worker.can_do(self.function)

        self.run(another())
        for record in self.known:
            record.handle = None
            # What it had sent is with those who wait already.

    # What connections do.

    @rule()
    def lose_the_job_connection(self) -> None:
        """What has not ended is lost, for all who ask."""

        async def lose() -> None:
            self.stage.proxy.cut(DOWN, 0)
            await self.stage.reconnected()

        self.run(lose())
        for record in [record for record in self.known if not record.ended]:
            if record.handle is None:
                self.maybe.add(record.workload)
            self.has_ended(record, STATUS_OF["lost"], None)

    # What holds after each of them.

    @invariant()
    def all_are_answered_as_they_have_to_be(self) -> None:
        """Each key whose job has ended has its answer, and all are known."""
        if not hasattr(self, "client"):
            return
        for record in self.known:
            if record.ended:
                self.run(self.check(record))
        assert self.stage.process.shared.taken(KEPT_KEYS) == self.known_before + len(self.known)

    def teardown(self) -> None:
        """Nothing is left but what is known of the keys."""
        if not hasattr(self, "client"):
            return

        async def leave() -> None:
            for record in self.known:
                for client in record.waiting:
                    await client.close()
            # What nobody waits for runs all the same.
            keys = self.stage.process.keys
            async with HandWorker(self.stage.address) as worker:
                await self.worker.close()
                await worker.can_do(self.function)
                while keys.counters()["running"] or self.stage.process.counters()["kept.queued"]:
                    taken = await taken_by(worker)
                    if taken is not None:
                        worker.complete(taken[0])
                    else:
                        # The gateway has not heard of the last one's end yet, or the job server of the last worker's.
                        await asyncio.sleep(POLL_S)
            for location in self.locations:
                assert (await self.client.ask(head(b"DELETE", location))).status == 204
            await self.client.close()
            # One whose job is kept is looked at twice.
            for _ in range(2):
                keys.tick(math.inf)
            with contextlib.suppress(AssertionError):
                await eventually(lambda: not self.stage.held())
            assert not self.stage.held()

        self.run(leave())
        shared = self.stage.process.shared
        assert (shared.taken(KEPT_KEYS), shared.taken(KEPT_JOBS), shared.taken(KEPT_BYTES)) == (0, 0, 0)

    # Means.

    def chosen(self, choice: int) -> Record | None:
        """One that a worker has, if there is any."""
        records = [record for record in self.known if not record.ended and record.handle]
        return records[choice % len(records)] if records else None

    def has_ended(self, record: Record, status: int, body: bytes | None) -> None:
        """Fail unless all who wait are told so."""
        record.ended, record.status, record.body = True, status, body
        record.handle = None

        async def tell() -> None:
            for client in record.waiting:
                self.heard(record, await client.response(), began=client is record.beginner)
                await client.close()

        self.run(tell())
        record.waiting.clear()

    def heard(self, record: Record, answer: Response, *, began: bool) -> None:
        """Fail unless it is the answer that it has to be."""
        assert answer.status == record.status
        assert record.body is None or answer.body == record.body
        assert is_first(answer) == began
        record.firsts += began
        assert record.firsts <= 1
        if record.told is None:
            record.told = likeness(answer)
        assert likeness(answer) == record.told

    async def wait(self, record: Record) -> None:
        """One more client waits."""
        open_exchanges = self.stage.process.counters()["gateway.open_exchanges"]
        keys = self.stage.process.keys
        running = keys.counters()["running"]
        is_new = not record.waiting and record.beginner is None
        client = await HttpClient(self.stage.http).connect()
        client.send(keyed(self.function, record.workload, record.key, *record.lines))
        await eventually(lambda: self.stage.process.counters()["gateway.open_exchanges"] > open_exchanges)
        record.waiting.append(client)
        if is_new:
            await eventually(lambda: keys.counters()["running"] > running)
            # What follows on the same connection is behind it.
            answer = await self.client.ask(keyed(b"probe", b"", new_key(), BACKGROUND))
            assert answer.status == 200
            self.known_before += 1

    async def check(self, record: Record) -> None:
        """Fail unless it is answered again."""
        request = keyed(self.function, record.workload, record.key, *record.lines)
        self.heard(record, await self.client.ask(request), began=False)

    async def nothing_runs(self) -> bool:
        """Whether the job server has taken back what a worker had that has gone."""
        for line in (await ask_text(self.stage.address, b"status")).splitlines():
            name, *counts = line.split(b"\t")
            if name == self.function and counts[1:] != [b"0", b"0"]:
                return False
        return True


async def taken_by(worker: HandWorker) -> tuple[bytes, bytes] | None:
    """Handle and workload of a job that the worker takes, if there is one."""
    worker.send(encode.grab_job_uniq())
    while (found := await worker.receive()).type not in (PacketType.JOB_ASSIGN_UNIQ, PacketType.NO_JOB):
        # What was sent of jobs that are known no more.
        assert found.type in (PacketType.ERROR, PacketType.NOOP), found
    return None if found.type == PacketType.NO_JOB else (found.arguments[0], found.arguments[3])


@pytest.mark.parametrize("kind", ["embedded", "gearmand"])
def test_each_key_has_one_job_and_one_answer(kind, session_gearmand, monkeypatch):
    # Connections are lost here every moment; otherwise the gateway would try ever more rarely.
    monkeypatch.setattr(keeper, "STEADY_S", 0.0)
    stage = Stage(None if kind == "embedded" else session_gearmand.address)

    class Machine(KeysMachine):
        """On this stage."""

    Machine.stage = stage
    with stage.runner:
        stage.run(stage.start())
        try:
            run_state_machine_as_test(
                Machine,
                settings=hypothesis.settings(
                    max_examples=EXAMPLES,
                    stateful_step_count=STEPS,
                    deadline=None,
                    # Who is quicker differs from one run to the next, so a failure is told as it was found.
                    database=None,
                    phases=[hypothesis.Phase.generate],
                    suppress_health_check=list(hypothesis.HealthCheck),
                ),
            )
        finally:
            stage.run(stage.close())
