"""A worker that fails in the moment in which its job is cancelled, on a job server that answers as the test says."""

from __future__ import annotations

import asyncio

import pytest

from gatewayx.gearman.packet import PacketType
from support.gateway import eventually, running_gateway
from support.http import Response
from support.job_servers import ScriptedConnection, ScriptedJobServer
from support.kept import KeptClient, at, job_of

pytestmark = pytest.mark.anyio

HANDLE = b"H:race:1"


class Race:
    """A kept job that is being cancelled, and the job server that has been asked to."""

    def __init__(self, server: ScriptedJobServer, upstream: ScriptedConnection, kept: KeptClient) -> None:
        self.server = server
        self.upstream = upstream
        self.kept = kept

    async def begin(self) -> None:
        """Submit the job, and ask for its cancellation."""
        self.server.tells_cancelled = False
        await eventually(lambda: [connection for connection in self.server.open if connection.is_text])
        submitting = asyncio.create_task(self.kept.submit(b"race"))
        await self.upstream.accept(HANDLE)
        self.job_id = await submitting
        self.answer = asyncio.create_task(self.kept.call(b"POST", at(self.job_id, "cancel")))
        await eventually(lambda: b"cancel job " + HANDLE in self.server.commands)

    async def fail(self) -> None:
        """The worker's, or the cancellation's."""
        self.upstream.answer(PacketType.WORK_FAIL, HANDLE)

    async def reply(self, line: bytes) -> None:
        """What the job server says to the cancellation."""
        [text] = [connection for connection in self.server.open if connection.is_text]
        text.send(line)

    async def told(self, *numbers: bytes) -> Response:
        """What whoever has cancelled is told, once the job server has answered GET_STATUS so."""
        assert await self.upstream.question() == HANDLE
        self.upstream.answer(PacketType.STATUS_RES, HANDLE, *numbers, b"0", b"0")
        return await self.answer

    async def state(self) -> str:
        """What the job is known to be at."""
        return str((await self.kept.poll(self.job_id))["state"])


@pytest.fixture
async def race():
    """A race on a job server and a gateway of its own."""
    async with (
        ScriptedJobServer() as server,
        # The job server would answer `status` before what it was asked earlier.
        running_gateway([server.address], connections_per_server=1, status_interval_s=120.0) as gateway,
        KeptClient(gateway.address) as kept,
    ):
        stage = Race(server, await server.connection(), kept)
        await stage.begin()
        yield stage


@pytest.mark.parametrize("first", ["failure", "reply"])
class TestOneThatHadEnded:
    async def test_has_failed(self, race: Race, first: str):
        steps = [race.fail(), race.reply(b"ERR UNKNOWN_JOB\r\n")]
        for step in steps if first == "failure" else steps[::-1]:
            await step
            await asyncio.sleep(0)
        answer = await race.told(b"0", b"0")
        assert (answer.status, answer.kind()) == (409, "not-cancellable")
        assert await race.state() == "failed"
        assert (await race.kept.result(race.job_id)).kind() == "job-failed"


@pytest.mark.parametrize("first", ["failure", "reply"])
@pytest.mark.parametrize(("numbers", "status"), [((b"1", b"0"), 200), ((b"1", b"1"), 202), ((b"0", b"0"), 202)])
class TestOneThatHadNotEnded:
    async def test_is_cancelled(self, race: Race, first: str, numbers: tuple[bytes, bytes], status: int):
        steps = [race.fail(), race.reply(b"OK\r\n")]
        for step in steps if first == "failure" else steps[::-1]:
            await step
            await asyncio.sleep(0)
        answer = await race.told(*numbers)
        assert answer.status == status
        assert job_of(answer)["state"] == "cancelled"


class TestWithoutAnAnswer:
    async def test_whose_failure_it_was_is_not_known(self, race: Race):
        await race.fail()
        [text] = [connection for connection in race.server.open if connection.is_text]
        text.close()
        answer = await race.answer
        assert (answer.status, answer.kind()) == (502, "outcome-unknown")
        assert await race.state() == "lost"
        assert (await race.kept.result(race.job_id)).kind() == "outcome-unknown"

    async def test_one_that_the_job_server_has_forgotten_is_lost(self, race: Race):
        await race.reply(b"ERR UNKNOWN_JOB\r\n")
        answer = await race.told(b"0", b"0")
        assert (answer.status, answer.kind()) == (409, "not-cancellable")
        assert await race.state() == "lost"

    async def test_one_that_the_job_server_has_still_is_not_cancelled(self, race: Race):
        await race.reply(b"ERR UNKNOWN_ERROR\r\n")
        answer = await race.told(b"1", b"1")
        assert (answer.status, answer.kind()) == (409, "not-cancellable")
        assert await race.state() == "queued"


async def test_a_worker_that_has_said_something_and_is_gone_had_begun(race: Race):
    race.upstream.answer(PacketType.WORK_STATUS, HANDLE, b"1", b"2")
    await race.reply(b"OK\r\n")
    await race.fail()
    assert (await race.told(b"1", b"0")).status == 202
