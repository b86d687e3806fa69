"""What survives what: the table of docs/http-api.md, row by row, in front of a real gearmand.

Each test has one job of each kind which a worker has begun, and one which is still queued, and then one of those that
take part goes away.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gatewayx.embedded import encode
from support.gateway import ServeProcess, eventually
from support.gearmand import Gearmand
from support.http import HttpClient, Response, ask, get, post
from support.job_servers import HandWorker, hand_worker
from support.ports import free_port
from support.streaming import ACCEPT_EVENTS, StreamClient
from support.times import PROCESS_S

pytestmark = pytest.mark.anyio

SYNCHRONOUS, KEPT, EVENTS, STREAMED, BACKGROUND = KINDS = ("synchronous", "kept", "events", "streamed", "background")
HEADERS = {
    SYNCHRONOUS: (),
    KEPT: (b"Prefer: respond-async",),
    EVENTS: (ACCEPT_EVENTS,),
    STREAMED: (b"X-Gearman-Stream: true",),
    BACKGROUND: (b"X-Gearman-Background: true",),
}
# What the gateway submits as foreground jobs, and of those what it keeps.
FOREGROUND = (SYNCHRONOUS, KEPT, EVENTS, STREAMED)
SQLITE = ("-q", "libsqlite3", "--libsqlite3-db")


@dataclass
class Submitted:
    """A job: who waits for it, what it was answered with so far, and its location if it has one."""

    function: bytes
    client: StreamClient
    answer: Response | None = None
    location: bytes = b""
    handle: bytes = b""
    worker: HandWorker | None = None


@dataclass
class Scene:
    """A job server, a gateway with two worker processes, and the jobs of a test, by their kinds."""

    gearmand: Gearmand
    gateway: ServeProcess
    address: tuple[str, int]
    stack: AsyncExitStack
    begun: dict[str, Submitted] = field(default_factory=dict)
    queued: dict[str, Submitted] = field(default_factory=dict)

    async def submit(self, kind: str, function: bytes) -> Submitted:
        """Submit a job; what is answered at once is there."""
        client = await self.stack.enter_async_context(StreamClient(self.address))
        job = Submitted(function, client)
        client.send(post(b"/" + function, b"workload", *HEADERS[kind]))
        if kind in (KEPT, BACKGROUND):
            job.answer = await client.response()
        elif kind == EVENTS:
            job.answer = await client.begin()
            assert (await client.event()).kind == "created"
        if job.answer is not None:
            job.location = job.answer.headers[b"location"]
        return job

    async def submit_all(self) -> None:
        """A job of each kind that a worker has begun, and one that is queued."""
        for kind in KINDS:
            self.begun[kind] = job = await self.submit(kind, b"begun-" + kind.encode())
            job.worker = await self.stack.enter_async_context(hand_worker(self.gearmand.address, job.function))
            job.handle = (await job.worker.take())[0]
            self.queued[kind] = await self.submit(kind, b"queued-" + kind.encode())
            await self.reaches(self.queued[kind].function)
        job = self.begun[STREAMED]
        job.worker.send_data(job.handle, b"half ")
        job.answer = await job.client.begin()
        assert await job.client.piece() == b"half "

    async def reaches(self, function: bytes) -> None:
        """Return once the job server has a job of this function."""
        await eventually(lambda: b"\n%b\t1\t" % function in b"\n" + self.gearmand.ask(b"status"))

    async def told(self, job: Submitted) -> Response:
        """What is told of a job now."""
        return await ask(self.address, get(job.location))

    async def is_told(self, job: Submitted) -> bool:
        """Whether its job server can be asked."""
        return (await self.told(job)).status == 200

    async def state(self, job: Submitted) -> str:
        """The state of a job."""
        answer = await self.told(job)
        assert answer.status == 200, answer
        return json.loads(answer.body)["state"]

    async def ends(self, job: Submitted) -> dict[str, object]:
        """The job, once it has ended."""
        answer = await ask(self.address, get(job.location + b"?wait=10"))
        return json.loads(answer.body)

    async def result(self, job: Submitted) -> Response:
        """Its result."""
        return await ask(self.address, get(job.location + b"/result"))

    async def resumed(self, job: Submitted) -> StreamClient:
        """A client that goes on with the events of a job behind the first."""
        job_id = job.location.rpartition(b"/")[2]
        client = await self.stack.enter_async_context(StreamClient(self.address))
        client.send(get(b"/" + job.function, ACCEPT_EVENTS, b"Last-Event-ID: %b.1" % job_id))
        return client

    async def runs(self, job: Submitted) -> bool:
        """Whether a worker that comes is given the job."""
        async with hand_worker(self.gearmand.address, job.function) as worker:
            worker.send(encode.grab_job_uniq())
            found = await worker.receive()
            if found.arguments:
                worker.complete(found.arguments[0])
                await worker.settle()
            return bool(found.arguments)

    async def serves(self) -> None:
        """Return once the gateway has new worker processes that serve."""

        async def answers() -> bool:
            try:
                return (await ask(self.address, get(b"/v1/jobs/none"))).status == 404
            except (OSError, asyncio.IncompleteReadError):
                return False

        await comes_true(answers)

    def cancelled(self) -> int:
        """How many jobs the job server has whose cancellation has reached it."""
        # A line has handle, retries, ignore_job and job_queued (libgearman-server/text.cc).
        lines = self.gearmand.ask(b"show jobs").splitlines()
        return sum(line.endswith(b"\t1\t0") for line in lines)


async def comes_true(condition: Callable[[], Awaitable[bool]]) -> None:
    """Return once what has to be asked for holds; fails after so long as processes may take."""
    loop = asyncio.get_running_loop()
    ends_s = loop.time() + PROCESS_S
    while not await condition():
        assert loop.time() < ends_s, "the condition never came true"
        await asyncio.sleep(0.02)


@asynccontextmanager
async def scene(folder: Path, *arguments: str, gearmand: tuple[str, ...] = ()) -> AsyncIterator[Scene]:
    """A real gearmand and a gateway of two worker processes in front of it."""
    async with AsyncExitStack() as stack:
        server = stack.enter_context(Gearmand(folder, *gearmand))
        options = ("--server", "{}:{}".format(*server.address), "--workers", "2", *arguments)
        gateway = ServeProcess("--listen", f"127.0.0.1:{free_port()}", *options)
        await stack.enter_async_context(gateway)
        found = Scene(server, gateway, await gateway.address(), stack)
        await found.submit_all()
        yield found


async def cut_off(client: HttpClient) -> bool:
    """Whether the connection ends without an answer."""
    try:
        return await client.rest() == b""
    except ConnectionResetError:
        return True


async def test_a_client_that_leaves(tmp_path):
    async with scene(tmp_path) as found:
        for job in (*found.begun.values(), *found.queued.values()):
            await job.client.close()
        # Nobody waits any more for two that were begun and two that are queued.
        await eventually(lambda: found.cancelled() == 4)
        for kind, job in found.queued.items():
            assert await found.runs(job) == (kind in (KEPT, EVENTS, BACKGROUND)), kind
        for job in found.begun.values():
            job.worker.complete(job.handle, b"whole")

        for kind in (KEPT, EVENTS):
            assert (await found.ends(found.begun[kind]))["state"] == "succeeded"
            assert (await found.result(found.begun[kind])).body == b"whole"
        events = await found.resumed(found.begun[EVENTS])
        answer = await events.response()
        assert b"event: complete" in answer.body


async def test_a_gearman_worker_that_is_killed(tmp_path):
    async with scene(tmp_path) as found:
        for job in found.begun.values():
            job.worker.send_data(job.handle, b"half ")
            await job.worker.settle()
            await job.worker.close()
            job.worker = await found.stack.enter_async_context(hand_worker(found.gearmand.address, job.function))
            assert (await job.worker.take())[0] == job.handle
            job.worker.complete(job.handle, b"whole")

        # What a worker has sent before its end stays sent.
        assert (await found.begun[SYNCHRONOUS].client.response()).body == b"half whole"
        assert (await found.ends(found.begun[KEPT]))["state"] == "succeeded"
        assert (await found.result(found.begun[KEPT])).body == b"half whole"
        kinds = [(event.kind, event.json().get("data")) for event in await found.begun[EVENTS].client.events()]
        assert kinds == [("data", "half "), ("complete", "whole")]
        assert b"".join(await found.begun[STREAMED].client.pieces()) == b"half whole"


async def test_worker_processes_that_are_killed(tmp_path):
    async with scene(tmp_path) as found:
        first = found.gateway.workers()
        found.gateway.signal_workers(signal.SIGKILL)
        await eventually(
            lambda: not set(first) & set(found.gateway.workers()) and len(found.gateway.workers()) == 2, PROCESS_S
        )
        await found.serves()

        for job in (found.begun[SYNCHRONOUS], found.queued[SYNCHRONOUS], found.queued[STREAMED]):
            assert await cut_off(job.client)
        for job in (found.begun[STREAMED], found.begun[EVENTS], found.queued[EVENTS]):
            await job.client.is_cut()
        for kind in (KEPT, EVENTS):
            for job in (found.begun[kind], found.queued[kind]):
                answer = await found.told(job)
                assert (answer.status, answer.kind()) == (404, "job-unknown")
                assert "has ended" in answer.problem()["detail"]
            assert (await (await found.resumed(found.begun[kind])).response()).status == 204
        await background_goes_on(found)
        for kind in FOREGROUND:
            # gearmand drops what is queued with the connection of whom it is for.
            assert not await found.runs(found.queued[kind]), kind


async def background_goes_on(found: Scene) -> None:
    """The background jobs are known and run. Who has the handles has ended, so nobody can cancel them."""
    begun, queued = found.begun[BACKGROUND], found.queued[BACKGROUND]
    assert await found.state(begun) == "running"
    assert await found.state(queued) == "queued"
    answer = await ask(found.address, post(queued.location + b"/cancel"))
    assert (answer.status, answer.kind()) == (409, "not-cancellable")
    begun.worker.complete(begun.handle)
    assert (await found.ends(begun))["state"] == "gone"
    assert await found.runs(queued)


@pytest.mark.parametrize("with_key", [False, True])
async def test_a_gateway_that_is_restarted(tmp_path, with_key):
    key = tmp_path / "key"
    key.write_text("00112233445566778899aabbccddeeff\n")
    key.chmod(0o600)
    arguments = ("--id-key", str(key)) if with_key else ()
    async with scene(tmp_path, "--drain-timeout", "5", *arguments) as found:
        found.gateway.signal(signal.SIGTERM)
        # What ends within the drain is answered.
        job = found.begun[SYNCHRONOUS]
        job.worker.complete(job.handle, b"whole")
        assert (await job.client.response()).body == b"whole"

        assert (await found.queued[SYNCHRONOUS].client.response()).kind() == "outcome-unknown"
        assert (await found.queued[STREAMED].client.response()).kind() == "outcome-unknown"
        await found.begun[STREAMED].client.is_cut()
        for job in (found.begun[EVENTS], found.queued[EVENTS]):
            assert [event.kind for event in await job.client.events()] == ["lost"]
        assert await found.gateway.ended() == 0

        await started_again(found)
        for kind in (KEPT, EVENTS) if with_key else (KEPT, EVENTS, BACKGROUND):
            for job in (found.begun[kind], found.queued[kind]):
                answer = await found.told(job)
                assert (answer.status, answer.kind()) == (404, "job-unknown"), kind
        if with_key:
            await background_goes_on(found)
        else:
            assert await found.runs(found.queued[BACKGROUND])
        for kind in FOREGROUND:
            assert not await found.runs(found.queued[kind]), kind


async def started_again(found: Scene) -> None:
    """The gateway of the same arguments, once it listens."""
    found.gateway = ServeProcess(*found.gateway.arguments)
    await found.stack.enter_async_context(found.gateway)
    found.address = await found.gateway.address()


@pytest.mark.parametrize("persistent", [False, True])
async def test_a_job_server_that_is_killed(tmp_path, persistent):
    queue = (*SQLITE, str(tmp_path / "queue")) if persistent else ()
    async with scene(tmp_path, gearmand=queue) as found:
        found.gearmand.kill()
        for jobs in (found.begun, found.queued):
            assert (await jobs[SYNCHRONOUS].client.response()).kind() == "outcome-unknown"
            assert (await found.ends(jobs[KEPT]))["state"] == "lost"
            assert (await found.result(jobs[KEPT])).kind() == "outcome-unknown"
            assert [event.kind for event in await jobs[EVENTS].client.events()] == ["lost"]
            answer = await found.told(jobs[BACKGROUND])
            assert (answer.status, answer.kind()) == (503, "job-server-away")
        await found.begun[STREAMED].client.is_cut()
        assert (await found.queued[STREAMED].client.response()).kind() == "outcome-unknown"

        found.gearmand = found.stack.enter_context(Gearmand(tmp_path, *queue, port=found.gearmand.port))
        for job in (found.begun[BACKGROUND], found.queued[BACKGROUND]):
            await comes_true(lambda job=job: found.is_told(job))
            # Also the one that a worker had begun is queued again.
            assert await found.state(job) == ("queued" if persistent else "gone")
            answer = await ask(found.address, post(job.location + b"/cancel"))
            assert answer.status == 409
            assert await found.runs(job) == persistent
        for kind in FOREGROUND:
            assert not await found.runs(found.queued[kind]), kind
