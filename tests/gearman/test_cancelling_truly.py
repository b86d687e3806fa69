"""Jobs that are cancelled while somebody waits for them, on gearmand and on the embedded job server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from gatewayx.embedded import encode
from gatewayx.embedded.job_server import JobServer
from gatewayx.embedded.worker import Worker
from gatewayx.gearman.packet import PacketType
from gatewayx.gearman.python_jobs import PythonJob, PythonStatus
from support.gateway import RunningGateway, eventually, running_gateway
from support.gearmand import Gearmand
from support.job_servers import hand_worker
from support.peer import ask_text
from support.pooled import PooledJobs, answer, end
from support.ports import free_port

pytestmark = pytest.mark.anyio

STATUS_RES = PacketType.STATUS_RES
FAIL, COMPLETE = PacketType.WORK_FAIL, PacketType.WORK_COMPLETE
# Questions that may wait on one connection.
MOST_QUESTIONS = 1024


class TestOnJobServers:
    """What gearmand does, and the embedded job server after it."""

    @pytest.fixture(params=[True, False], ids=["cancels-abandoned", "lets-abandoned-run"])
    def cancel_abandoned(self, request: pytest.FixtureRequest) -> bool:
        """Jobs that nobody waits for are another matter."""
        return request.param

    @pytest.fixture
    async def gateway(self, address: tuple[str, int], cancel_abandoned: bool) -> AsyncIterator[RunningGateway]:
        """One that is connected by text, too."""
        async with running_gateway(
            [address],
            connections_per_server=1,
            cancel_abandoned=cancel_abandoned,
            status_interval_s=0.05,
            # Of ten thousand questions each must be answered within it.
            server_check_interval_s=60,
        ) as gateway:
            yield gateway

    @pytest.fixture
    async def jobs(self, gateway: RunningGateway) -> PooledJobs:
        """Its jobs, once it is connected by text."""
        return await PooledJobs(gateway).connected()

    async def test_a_queued_one_will_not_run(self, jobs, address, function):
        job = await jobs.created(function)
        assert await jobs.cancel(job) == ("told", True, False, 0, 0)
        assert await end(job) == ("failed", b"")
        async with hand_worker(address, function) as worker:
            await worker.no_job()

    async def test_of_a_running_one_the_result_is_dropped(self, gateway, jobs, address, function):
        async with hand_worker(address, function) as worker:
            job = await jobs.created(function)
            handle, *_ = await worker.take()
            worker.send(encode.work_status(handle, 3, 9))
            await eventually(lambda: job.events[-1] == ("status", b"3", b"9"))
            assert await jobs.cancel(job) == ("told", True, True, 3, 9)
            assert await end(job) == ("failed", b"")
            dropped = gateway.count("pool.dropped_packets")
            large = b"x" * 500_000
            worker.send_data(handle, b"some")
            worker.send_data(handle, large)
            worker.complete(handle, b"done")
            await gateway.reaches("pool.dropped_packets", dropped + 3)
            assert job.events[-1] == ("failed", b"")
            following = await jobs.created(function)
            assert following.job.connected
            handle, *_ = await worker.take()
            worker.complete(handle, b"after")
            assert await end(following) == ("completed", b"after")

    async def test_an_ended_one_is_not_asked_for(self, jobs, address, function):
        async with hand_worker(address, function) as worker:
            job = await jobs.created(function)
            handle, *_ = await worker.take()
            worker.complete(handle)
            assert await end(job) == ("completed", b"")
            assert job.cancel(PythonStatus()) == "the job is not known to be queued or running"

    async def test_cancelled_twice_it_is_told_twice(self, jobs, function):
        job = await jobs.created(function)
        answers = [PythonStatus(), PythonStatus()]
        assert [job.cancel(status) for status in answers] == [None, None]
        assert [await answer(status) for status in answers] == [("told", True, False, 0, 0)] * 2
        assert await end(job) == ("failed", b"")
        assert job.cancel(PythonStatus()) is not None

    async def test_one_that_nobody_waits_for_any_more_is_still_told_of(self, jobs, function):
        job = await jobs.created(function)
        status = PythonStatus()
        assert job.cancel(status) is None
        job.abandon()
        assert await answer(status) == ("told", True, False, 0, 0)
        assert job.events == [("created", job.job.handle)]

    async def test_a_background_job_has_nobody_who_waits(self, jobs, address, function):
        job = await jobs.created(function, packet_type=PacketType.SUBMIT_JOB_BG)
        assert job.cancel(PythonStatus()) is not None
        async with hand_worker(address, function) as worker:
            handle, *_ = await worker.take()
            worker.complete(handle)

    async def test_one_for_which_others_may_wait_is_left_alone(self, jobs, address, function):
        job = await jobs.created(function, unique=b"a client's own", identity=b"of the unique")
        assert job.cancel(PythonStatus()) == "others may wait for the same job"
        async with hand_worker(address, function) as worker:
            handle, *_ = await worker.take()
            worker.complete(handle, b"done")
        assert await end(job) == ("completed", b"done")

    async def test_one_that_is_said_not_to_run_never_does(self, jobs, address, function):
        """Workers take jobs while they are cancelled; one that is not known any more may have run or not."""
        ran = set()
        submitted: list[PythonJob] = []
        # In their order, with None for those that had ended before.
        statuses: list[PythonStatus | None] = []
        loop = asyncio.get_running_loop()

        def created(event):
            if event[0] == "created":
                # JOB_CREATED comes in the order of the submissions.
                statuses.append(None)
                cancel(len(statuses) - 1, len(statuses) % 8 * 50)

        def cancel(number, turns):
            """So many turns of the loop later: nobody knows how far the worker is by then."""
            if turns:
                loop.call_soon(cancel, number, turns - 1)
            elif submitted[number].cancel(status := PythonStatus()) is None:
                statuses[number] = status

        async def run(job):
            ran.add(job.handle)
            for _ in range(4):
                await asyncio.sleep(0)
            return b"result"

        worker = Worker(address, {function: run}, concurrency=2)
        await worker.start()
        try:
            rounds = 0
            # On a busy machine the worker may be too late for all of a round.
            while rounds < 20 or all(job.events[-1][0] == "failed" for job in submitted):
                rounds += 1
                for _ in range(20):
                    submitted.append(jobs.submit(function, on_event=created))
                for job in submitted[-20:]:
                    assert (await end(job))[0] in ("completed", "failed")
            found = [
                (job.job.handle, job.events[-1][0], await answer(status))
                for job, status in zip(submitted, statuses, strict=True)
                if status is not None
            ]
            running = {handle for handle, _, told in found if told[1:3] == (True, True)}
            await eventually(lambda: running <= ran)
        finally:
            await worker.close()
        will_not_run = {handle for handle, _, told in found if told[1:3] == (True, False)}
        assert will_not_run
        assert not will_not_run & ran
        assert {ending for handle, ending, _ in found if handle in will_not_run | running} == {"failed"}
        assert "completed" in {job.events[-1][0] for job in submitted}

    async def test_ten_thousand_at_once(self, gateway, jobs, address, function):
        """More than may be asked for at once: the others are refused, and cancelled as soon as there is room."""
        waiting = [jobs.submit(function) for _ in range(10_000)]
        await eventually(lambda: all(job.events for job in waiting))
        answers = []
        refused = 0
        while waiting:
            left = []
            for job in waiting:
                status = PythonStatus()
                if job.cancel(status) is None:
                    answers.append((job, status))
                else:
                    left.append(job)
            refused += len(left)
            waiting = left
            await eventually(lambda: answers[-1][1].answers)
        assert refused > 0
        assert len(answers) == 10_000
        for job, status in answers:
            assert await answer(status) == ("told", True, False, 0, 0)
            assert await end(job) == ("failed", b"")
        async with hand_worker(address, function) as worker:
            await worker.no_job()
        assert gateway.count("pool.outstanding_jobs") == 0


class TestRestart:
    @pytest.fixture(params=["embedded", "gearmand"])
    async def restarting(self, request: pytest.FixtureRequest, tmp_path) -> AsyncIterator[object]:
        """A job server that is restarted on its port by restart(), and then counts its handles from 1 again."""
        if request.param == "embedded":
            server = JobServer()
            await server.start(port=free_port())
            restarting = _Restarting(server.address, server)
        else:
            gearmand = await asyncio.to_thread(Gearmand, tmp_path)
            restarting = _Restarting(gearmand.address, gearmand)
        yield restarting
        await restarting.stop()

    async def test_a_handle_of_another_life_is_not_cancelled(self, restarting, tmp_path, function):
        async with running_gateway([restarting.address], connections_per_server=1) as gateway:
            jobs = await PooledJobs(gateway).connected()
            before = await jobs.created(function)
            life = before.life
            assert life != 0
            status = PythonStatus()
            await restarting.restart(tmp_path)
            assert await end(before) == ("lost",)
            assert before.cancel(status) is not None
            await eventually(lambda: gateway.count("pool.connections") == 1)
            after = await jobs.created(function)
            await eventually(lambda: after.life)
            assert after.job.handle == before.job.handle
            assert after.life != life
            assert status.cancel(jobs.pool, jobs.server, life, after.job.handle, b"u") is not None
            assert status.answers == []
            async with hand_worker(restarting.address, function) as worker:
                handle, *_ = await worker.take()
                worker.complete(handle, b"it ran")
                assert await end(after) == ("completed", b"it ran")


class _Restarting:
    def __init__(self, address: tuple[str, int], server: JobServer | Gearmand) -> None:
        self.address = address
        self.server = server

    async def restart(self, directory) -> None:
        """All that it had is gone, and it listens again."""
        await self.stop()
        if isinstance(self.server, JobServer):
            self.server = JobServer()
            await self.server.start(*self.address)
        else:
            self.server = await asyncio.to_thread(Gearmand, directory, port=self.address[1])

    async def stop(self) -> None:
        """It is gone."""
        if isinstance(self.server, JobServer):
            await self.server.close()
        else:
            await asyncio.to_thread(self.server.kill)


async def test_lives_are_told_apart_by_their_text_connection(tmp_gearmand):
    async with running_gateway([tmp_gearmand.address], connections_per_server=2) as gateway:
        jobs = await PooledJobs(gateway).connected()
        await gateway.reaches("pool.connections", 2)
        found = [await jobs.created(b"f") for _ in range(4)]
        lives = {job.life for job in found}
        assert len(lives) == 1
        assert 0 not in lives
        for job in found:
            assert await jobs.cancel(job) == ("told", True, False, 0, 0)
        assert (await ask_text(tmp_gearmand.address, b"status")).startswith(b"f\t4\t0\t0\n")
