"""Kept jobs under any order of what clients, Gearman workers and connections do: each has one end, the true one.

A worker's every packet is the machine's own, so it knows what the job server was told. After each step every job that
is kept is asked for, and has to be in the state that follows; when it has ended, its events have to be what its worker
sent, and one end.

CHAOS=1 runs much more of it.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from gatewayx.core.shared import KEPT_BYTES, KEPT_JOBS
from gatewayx.embedded import encode
from gatewayx.gearman import keeper
from gatewayx.gearman.packet import PacketType
from support.event_streams import Event, EventParser
from support.fault_proxy import DOWN
from support.gateway import eventually
from support.http import HttpClient, Response, get, post
from support.job_servers import HandWorker
from support.kept import ASYNC, EVENTS, KeptClient, at, job_of
from support.kept_stage import Stage
from support.peer import ask_text

Result = TypeVar("Result")

EXAMPLES = 300 if os.environ.get("CHAOS") == "1" else 10
STEPS = 30
MOMENT_S = 0.05
COUNTED = itertools.count()
# What a worker sends: some of it is no text.
DATA = st.sampled_from([b"", b"text", b"\xff\0bytes", b"x" * 3000, "ä€".encode()])
STATE_OF = {"complete": "succeeded", "fail": "failed", "exception": "failed"}


@dataclass
class Record:
    """One job: what its worker and its clients did."""

    workload: bytes
    job_id: str = ""
    # While a worker has it.
    handle: bytes | None = None
    # What a worker has sent: the kind of event, and its data.
    sent: list[tuple[str, Any]] = field(default_factory=list)
    gathered: bytes = b""
    # What it ends with: its state and, of a worker's end, the packet and data.
    end: tuple[str, str, bytes] | None = None
    # The text connection that knew its handle is gone.
    handle_lost: bool = False
    # Clients that wait for its end, and whether for its result.
    waiting: list[tuple[HttpClient, bool]] = field(default_factory=list)

    def state(self) -> str:
        """What it has to be told as."""
        if self.end is not None:
            return self.end[0]
        return "running" if self.sent else "queued"


class KeptMachine(RuleBasedStateMachine):
    """What can happen to kept jobs."""

    # A subclass has it.
    stage: Stage

    jobs: Bundle[Record] = Bundle("jobs")

    def __init__(self) -> None:
        super().__init__()
        self.records: list[Record] = []
        # Clients that wait for the end of a job whose id they do not know yet.
        self.impatient: list[tuple[HttpClient, Record]] = []
        # What a worker still has, though its job has ended or was forgotten: handle and workload.
        self.ghosts: list[tuple[bytes, bytes]] = []
        # Workloads of jobs that were let go, of which a worker may hear or hear again, or not: nobody was told.
        self.maybe: set[bytes] = set()

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """What it returns."""
        return self.stage.run(coroutine)

    @initialize()
    def begin(self) -> None:
        """A function of its own, and a worker for it."""
        self.function = b"machine-%d" % next(COUNTED)
        self.begun = self.stage.process.counted_in.read()["kept_begun"]
        self.ended_before = self.stage.ends()

        async def begin() -> None:
            self.client = await KeptClient(self.stage.http).__aenter__()
            self.worker = await HandWorker(self.stage.address).connect()
            await self.worker.can_do(self.function)

        self.run(begin())

    # What clients do.

    @rule(target=jobs)
    def submit(self) -> Record:
        """One more job."""
        record = Record(b"%d" % next(COUNTED))
        record.job_id = self.run(self.client.submit(self.function, record.workload))
        self.records.append(record)
        return record

    @rule(target=jobs)
    def submit_for_a_moment(self) -> Record:
        """One that no worker can end in its time."""
        record = Record(b"%d" % next(COUNTED))
        record.end = ("timeout", "", b"")
        self.maybe.add(record.workload)

        async def timed_out() -> None:
            timeout = b"X-Gearman-Timeout: %.2f" % MOMENT_S
            answer = await self.client.http.ask(post(b"/" + self.function, record.workload, ASYNC, timeout))
            if answer.status != 202:
                # The job server was not even quick enough to say that it has it, so nobody knows of it.
                self.check_result(record, answer)
                return
            record.job_id = self.client.accepted(answer)
            assert (await self.client.poll(record.job_id, "wait=60"))["state"] == "timeout"
            self.records.append(record)

        self.run(timed_out())
        return record

    @rule()
    def submit_and_wait(self) -> None:
        """One whose client waits for its end."""
        record = Record(b"%d" % next(COUNTED))

        async def submit() -> HttpClient:
            jobs = self.stage.process.pool.counters()["outstanding_jobs"]
            client = await HttpClient(self.stage.http).connect()
            client.send(post(b"/" + self.function, record.workload, b"Prefer: respond-async, wait=60"))
            await eventually(lambda: self.stage.process.pool.counters()["outstanding_jobs"] > jobs)
            # What follows on the same connection is behind it.
            await self.client.cancel(await self.client.submit(b"probe"))
            return client

        self.impatient.append((self.run(submit()), record))

    @rule(reset=st.booleans())
    def leave_while_it_waits(self, reset: bool) -> None:
        """Nobody knows of its job any more."""
        if not self.impatient:
            return
        client, record = self.impatient.pop(0)

        async def leave() -> None:
            open_exchanges = self.stage.process.counters()["gateway.open_exchanges"]
            if reset:
                client.reset()
            else:
                await client.close()
            await eventually(lambda: self.stage.process.counters()["gateway.open_exchanges"] < open_exchanges)

        self.run(leave())
        self.let_go(record)

    @rule(record=jobs, for_result=st.booleans())
    def wait(self, record: Record, for_result: bool) -> None:
        """Wait for the end."""
        if record not in self.records:
            return

        async def wait() -> HttpClient:
            client = await HttpClient(self.stage.http).connect()
            client.send(get(at(record.job_id, "result" if for_result else "", "wait=60")))
            return client

        client = self.run(wait())
        if record.end is None:
            record.waiting.append((client, for_result))
            return
        self.run(self.check_answer(record, client, for_result))

    @rule(record=jobs, reset=st.booleans())
    def wait_no_more(self, record: Record, reset: bool) -> None:
        """Whoever waits leaves."""
        for client, _ in record.waiting:
            if reset:
                client.reset()
            else:
                self.run(client.close())
        record.waiting.clear()

    @rule(record=jobs)
    def cancel(self, record: Record) -> None:
        """Have it cancelled."""
        if record not in self.records:
            return
        answer = self.run(self.client.cancel(record.job_id))
        self.check_cancelled(record, answer)

    @rule(record=consumes(jobs))
    def forget(self, record: Record) -> None:
        """Nobody wants to know of it any more."""
        if record not in self.records:
            return

        async def forget() -> None:
            assert (await self.client.forget(record.job_id)).status == 204
            assert (await self.client.call(b"GET", at(record.job_id))).status == 404

        self.run(forget())
        self.records.remove(record)
        if record.end is None:
            # Those who wait are told what became of it.
            self.let_go(record)
            record.end = ("cancelled", "", b"")
            self.tell(record)

    # What workers do.

    @rule()
    def take(self) -> None:
        """A worker takes a job, if there is one."""

        async def take() -> tuple[bytes, bytes] | None:
            self.worker.send(encode.grab_job_uniq())
            while (found := await self.worker.receive()).type not in (
                PacketType.JOB_ASSIGN_UNIQ,
                PacketType.NO_JOB,
            ):
                # What it has sent of jobs that are known no more.
                assert found.type in (PacketType.ERROR, PacketType.NOOP), found
            return None if found.type == PacketType.NO_JOB else (found.arguments[0], found.arguments[3])

        waiting = [record for record in self.alive() if record.handle is None]
        taken = self.run(take())
        if taken is None:
            assert not waiting, "a worker is told of no job, though there is one"
            return
        handle, workload = taken
        for record in waiting:
            if record.workload == workload:
                record.handle = handle
                return
        assert workload in self.maybe, "a worker has a job of which was told that it does not run"
        self.ghosts.append((handle, workload))

    @rule(choice=st.integers(0, 99), kind=st.sampled_from(["data", "warning", "status"]), data=DATA)
    def send(self, choice: int, kind: str, data: bytes) -> None:
        """A worker says something of a job."""
        record = self.chosen([record for record in self.alive() if record.handle], choice)
        if record is None:
            return
        if kind == "status":
            numerator, denominator = choice, choice + len(data)
            self.worker.send(encode.work_status(record.handle, numerator, denominator))
            record.sent.append((kind, {"numerator": numerator, "denominator": denominator}))
        else:
            self.worker.send(getattr(encode, f"work_{kind}")(record.handle, data))
            record.sent.append((kind, data))
            record.gathered += data if kind == "data" else b""
        self.run(self.arrived(record))

    @rule(choice=st.integers(0, 99), kind=st.sampled_from(["complete", "fail", "exception"]), data=DATA)
    def end(self, choice: int, kind: str, data: bytes) -> None:
        """A worker ends a job."""
        record = self.chosen([record for record in self.alive() if record.handle], choice)
        if record is None:
            return
        self.send_end(record, kind, data)
        record.end = (STATE_OF[kind], kind, data)
        self.tell(record)

    @rule(
        choice=st.integers(0, 99), kind=st.sampled_from(["complete", "fail", "exception"]), cancel_first=st.booleans()
    )
    def end_while_it_is_cancelled(self, choice: int, kind: str, cancel_first: bool) -> None:
        """Both at once."""
        record = self.chosen([record for record in self.records if record.end is None and record.handle], choice)
        if record is None:
            return

        async def both() -> Response:
            if cancel_first:
                self.client.http.send(post(at(record.job_id, "cancel")))
            self.send_end(record, kind, b"data")
            if not cancel_first:
                self.client.http.send(post(at(record.job_id, "cancel")))
            return await self.client.http.response()

        answer = self.run(both())
        if answer.status == 409 and not record.handle_lost:
            assert answer.kind() == "not-cancellable"
        elif answer.status != 409:
            assert (answer.status, job_of(answer)["state"]) == (202, "cancelled")
            record.end = ("cancelled", "", b"")
        if record.end is None:
            record.end = (STATE_OF[kind], kind, b"data")
        self.tell(record)

    @rule(data=DATA)
    def end_for_nobody(self, data: bytes) -> None:
        """A worker goes on with a job that nobody waits for."""
        if not self.ghosts:
            return
        handle, workload = self.ghosts.pop(0)
        self.maybe.discard(workload)
        self.worker.send(encode.work_data(handle, data), encode.work_complete(handle, data))

    @rule()
    def lose_the_worker(self) -> None:
        """Its jobs are for the next one."""

        async def another() -> None:
            await self.worker.close()
            # The job server has noticed once it counts none of them as running.
            await self.nothing_runs()
            self.worker = await HandWorker(self.stage.address).connect()
            await self.worker.can_do(self.function)

        self.run(another())
        for record in self.alive():
            record.handle = None
        self.ghosts.clear()

    # What connections do.

    @rule()
    def lose_the_text_connection(self) -> None:
        """Handles that it knew may be others' from now on."""

        async def lose() -> None:
            self.stage.proxy.drop_text()
            await self.stage.reconnected()

        self.run(lose())
        for record in self.alive():
            record.handle_lost = True

    @rule()
    def lose_the_job_connection(self) -> None:
        """What has not ended is lost."""

        async def lose() -> None:
            self.stage.proxy.cut(DOWN, 0)
            await self.stage.reconnected()

        self.run(lose())
        for record in self.alive():
            self.let_go(record)
            record.end = ("lost", "", b"")
            self.tell(record)

    # What holds after each of them.

    @invariant()
    def all_are_as_they_have_to_be(self) -> None:
        """Each job that is kept is told as what happened to it."""
        for record in self.records:
            self.run(self.check_state(record))

    def teardown(self) -> None:
        """Nothing is left, and each job that was begun has ended once."""
        if not hasattr(self, "client"):
            return

        async def leave() -> None:
            for client, _ in self.impatient:
                await client.close()
            for record in self.records:
                for client, _ in record.waiting:
                    await client.close()
            await self.client.__aexit__(None, None, None)
            # With its clients the job server forgets what no worker has.
            await self.worker.close()
            with contextlib.suppress(AssertionError):
                await eventually(lambda: not self.stage.held())
            assert not self.stage.held()

        self.run(leave())
        shared = self.stage.process.shared
        assert (shared.taken(KEPT_JOBS), shared.taken(KEPT_BYTES)) == (0, 0)
        begun = self.stage.process.counted_in.read()["kept_begun"] - self.begun
        assert self.stage.ends() - self.ended_before == begun

    # Means.

    def alive(self) -> Iterator[Record]:
        """Those that have not ended."""
        return (record for record in [*self.records, *(each for _, each in self.impatient)] if record.end is None)

    def chosen(self, records: list[Record], choice: int) -> Record | None:
        """One of them, if there is any: which rules can be run does not depend on who was quicker."""
        return records[choice % len(records)] if records else None

    def send_end(self, record: Record, kind: str, data: bytes) -> None:
        """Have its worker end it."""
        self.worker.send(
            encode.work_fail(record.handle) if kind == "fail" else getattr(encode, f"work_{kind}")(record.handle, data)
        )
        record.handle = None

    def let_go(self, record: Record) -> None:
        """Its job server is about to be told that nobody waits for it."""
        self.maybe.add(record.workload)
        if record.handle is not None:
            self.ghosts.append((record.handle, record.workload))

    def tell(self, record: Record) -> None:
        """It has ended: fail unless all who waited for that are told."""
        for client, for_result in record.waiting:
            self.run(self.check_answer(record, client, for_result))
        record.waiting.clear()
        for client, each in self.impatient:
            if each is record:
                self.run(self.check_answer(record, client, True))
        self.impatient = [pair for pair in self.impatient if pair[1] is not record]

    async def arrived(self, record: Record) -> None:
        """Return once the gateway has heard what a worker has said."""
        if record.job_id:
            progress = [data for kind, data in record.sent if kind == "status"]
            await self.client.until(
                record.job_id,
                lambda job: job["state"] == "running" and job["progress"] == (progress[-1] if progress else None),
            )

    async def nothing_runs(self) -> None:
        """Return once the job server has taken back what a worker had that has gone."""
        while True:
            for line in (await ask_text(self.stage.address, b"status")).splitlines():
                name, *counts = line.split(b"\t")
                if name == self.function and counts[1:] != [b"0", b"0"]:
                    break
            else:
                return

    def check_cancelled(self, record: Record, answer: Response) -> None:
        """Fail unless the answer to a cancellation is true."""
        if record.end is not None and record.end[0] == "cancelled":
            assert answer.status in (200, 202)
        elif record.end is not None or record.handle_lost:
            assert (answer.status, answer.kind()) == (409, "not-cancellable")
        else:
            assert (answer.status, job_of(answer)["state"]) == (200 if record.handle is None else 202, "cancelled")
            if record.handle is not None:
                self.ghosts.append((record.handle, record.workload))
            record.end = ("cancelled", "", b"")
            self.tell(record)

    async def check_answer(self, record: Record, client: HttpClient, for_result: bool) -> None:
        """Fail unless who has waited is told the end."""
        answer = await client.response()
        await client.close()
        if for_result:
            self.check_result(record, answer)
        else:
            assert (answer.status, job_of(answer)["state"]) == (200, record.state())

    def check_result(self, record: Record, answer: Response) -> None:
        """Fail unless it is the answer to who has waited for such an end."""
        assert record.end is not None
        state, kind, data = record.end
        if kind == "complete":
            assert (answer.status, answer.body) == (200, record.gathered + data)
        elif kind == "exception":
            assert (answer.status, answer.body) == (500, data)
        else:
            expected = {
                "failed": (500, "job-failed"),
                "cancelled": (409, "job-cancelled"),
                "lost": (502, "outcome-unknown"),
                "timeout": (504, "job-timeout"),
            }[state]
            assert (answer.status, answer.kind()) == expected

    async def check_state(self, record: Record) -> None:
        """Fail unless all that is told of it is true."""
        job = await self.client.until(record.job_id, lambda job: job["state"] == record.state())
        progress = [data for kind, data in record.sent if kind == "status"]
        assert job["progress"] == (progress[-1] if progress else None)
        assert (job["started"] is not None) == bool(record.sent)
        assert (job["ended"] is not None) == (record.end is not None)
        if record.end is None:
            assert (await self.client.result(record.job_id)).status == 202
            return
        self.check_result(record, await self.client.result(record.job_id))
        answer = await self.client.call(b"GET", at(record.job_id, "events"), EVENTS)
        assert answer.status == 200
        parser = EventParser()
        parser.feed(answer.body)
        self.check_events(record, parser.events)

    def check_events(self, record: Record, events: list[Event]) -> None:
        """Fail unless they are what its worker sent, and one end."""
        assert record.end is not None
        state, kind, _ = record.end
        first, *middle, last = events
        assert [event.number() for event in events] == list(range(1, len(events) + 1))
        assert (first.kind, first.json()["state"]) == ("created", "queued")
        assert last.kind == (kind or state)
        assert last.json()["state"] == state
        assert len(middle) == len(record.sent)
        for event, (sent, data) in zip(middle, record.sent, strict=True):
            told = event.json()
            assert event.kind == sent
            if sent == "status":
                assert {name: told[name] for name in data} == data
            else:
                assert (told["encoding"] == "text") == is_text(data)
                assert (told["data"].encode() if is_text(data) else base64.b64decode(told["data"])) == data


def is_text(data: bytes) -> bool:
    """Whether it can be told as text."""
    try:
        json.dumps(data.decode())
    except UnicodeDecodeError:
        return False
    return True


@pytest.mark.parametrize("kind", ["embedded", "gearmand"])
def test_each_job_has_one_end_and_it_is_the_true_one(kind, session_gearmand, monkeypatch):
    # Connections are lost here every moment; otherwise the gateway would try ever more rarely.
    monkeypatch.setattr(keeper, "STEADY_S", 0.0)
    stage = Stage(None if kind == "embedded" else session_gearmand.address)

    class Machine(KeptMachine):
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
