"""Jobs that are cancelled while somebody waits for them, and what the job server knows of them then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from gatewayx.embedded import encode
from gatewayx.embedded.job_server import JobServer
from gatewayx.embedded.worker import Worker
from gatewayx.gearman import keeper
from gatewayx.gearman.packet import PacketType
from gatewayx.gearman.python_jobs import PythonJob, PythonStatus
from gatewayx.net import names
from support.behind import upstreams_of
from support.gateway import RunningGateway, eventually, running_gateway
from support.gearmand import Gearmand
from support.job_servers import ScriptedConnection, ScriptedJobServer, hand_worker, response
from support.lookups import numeric
from support.peer import ask_text
from support.pooled import PooledJobs, answer, end

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
            [address], connections_per_server=1, cancel_abandoned=cancel_abandoned, status_interval_s=0.05
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
            for _ in range(20):
                for _ in range(20):
                    submitted.append(jobs.submit(function, on_event=created))
                for job in submitted:
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
            await server.start()
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


class TestOnAScriptedServer:
    @pytest.fixture
    async def jobs(self, gateway: RunningGateway) -> PooledJobs:
        """The gateway's, once it is connected by text."""
        return await PooledJobs(gateway).connected()

    @pytest.fixture
    async def job(self, jobs: PooledJobs, upstream: ScriptedConnection) -> PythonJob:
        """A job that the job server has, as H:1."""
        return await self.created(jobs, upstream, b"H:1")

    async def created(self, jobs: PooledJobs, upstream: ScriptedConnection, handle: bytes) -> PythonJob:
        """A job that the job server has by this name."""
        job = jobs.submit(b"f")
        await upstream.accept(handle)
        await eventually(lambda: job.events)
        return job

    async def text(self, server: ScriptedJobServer) -> ScriptedConnection:
        """The text connection."""
        await eventually(lambda: [connection for connection in server.open if connection.is_text])
        [text] = [connection for connection in server.open if connection.is_text]
        return text

    async def finish(self, upstream: ScriptedConnection, job: PythonJob) -> None:
        """The job's connection lives, and carries it to its end."""
        upstream.answer(COMPLETE, job.job.handle, b"done")
        assert await end(job) == ("completed", b"done")

    async def test_it_is_asked_for_behind_the_answer_to_its_cancellation(self, server, upstream, jobs, job):
        server.tells_cancelled = False
        status = PythonStatus()
        assert job.cancel(status) is None
        await eventually(lambda: b"cancel job H:1" in server.commands)
        following = await self.created(jobs, upstream, b"H:2")
        assert upstream.questions.empty()
        (await self.text(server)).send(b"ERR UNKNOWN_JOB\r\n")
        assert await upstream.question() == b"H:1"
        assert status.answers == []
        upstream.answer(FAIL, b"H:1")
        upstream.answer(STATUS_RES, b"H:1", b"0", b"0", b"0", b"0")
        assert await answer(status) == ("told", False, False, 0, 0)
        assert await end(job) == ("failed", b"")
        await self.finish(upstream, following)

    async def test_answers_to_questions_and_to_submissions_are_told_apart(self, upstream, jobs, job):
        status = PythonStatus()
        assert job.cancel(status) is None
        assert await upstream.question() == b"H:1"
        others = [jobs.submit(b"f") for _ in range(3)]
        for _ in others:
            await upstream.submission()
        upstream.answer(PacketType.JOB_CREATED, b"H:2")
        upstream.answer(PacketType.ERROR, b"QUEUE_ERROR", b"Job queue is full")
        upstream.answer(STATUS_RES, b"H:1", b"1", b"1", b"2", b"7")
        upstream.answer(PacketType.JOB_CREATED, b"H:3")
        assert await answer(status) == ("told", True, True, 2, 7)
        assert await end(others[1]) == ("refused", b"QUEUE_ERROR", b"Job queue is full")
        await self.finish(upstream, others[0])
        await self.finish(upstream, others[2])
        await self.finish(upstream, job)

    async def test_nothing_is_done_when_nobody_is_connected_by_text(self, server, gateway, upstream, jobs, job):
        (await self.text(server)).close()
        await eventually(lambda: job.life == 0)
        await eventually(lambda: job.life != 0)
        # The connection that is up now may be to another life of the job server.
        assert job.cancel(PythonStatus()) == "the job server is not connected by text"
        assert server.commands == [b"version", b"version"]
        await self.finish(upstream, job)

    async def test_a_lost_text_connection_loses_the_question_and_not_the_job(self, server, upstream, jobs, job):
        server.tells_cancelled = False
        statuses = [PythonStatus() for _ in range(3)]
        for status in statuses[:2]:
            assert job.cancel(status) is None
        await eventually(lambda: server.commands.count(b"cancel job H:1") == 2)
        text = await self.text(server)
        assert job.cancel(statuses[2]) is None
        text.close()
        for status in statuses:
            assert (await answer(status))[0] == "lost"
        assert upstream.questions.empty()
        await self.finish(upstream, job)

    @pytest.mark.parametrize("told", [True, False], ids=["asked", "not-asked-yet"])
    async def test_with_its_own_connection_both_are_lost(self, server, upstream, jobs, job, told):
        server.tells_cancelled = told
        status = PythonStatus()
        assert job.cancel(status) is None
        await eventually(lambda: b"cancel job H:1" in server.commands)
        if told:
            await upstream.question()
        upstream.close()
        assert (await answer(status))[0] == "lost"
        assert await end(job) == ("lost",)
        (await self.text(server)).send(b"" if told else b"OK\n")
        again = await server.connection()
        await eventually(lambda: again.greeted)
        assert again.questions.empty()

    async def test_a_cancellation_is_not_sent_when_the_connection_is_gone_by_then(self, server, upstream, jobs):
        status = PythonStatus()
        refusals = []

        def cancel(event):
            if event[0] == "created":
                refusals.append(job.cancel(status))

        job = jobs.submit(b"f", on_event=cancel)
        await upstream.submission()
        # What ends the connection comes in the turn in which the job is cancelled.
        upstream.send(response(PacketType.JOB_CREATED, b"H:1"), b"no packet at all")
        assert await end(job) == ("lost",)
        assert refusals == [None]
        assert (await answer(status))[0] == "lost"
        again = await server.connection()
        await eventually(lambda: jobs.server.connected)
        following = await self.created(jobs, again, b"H:1")
        assert following.cancel(PythonStatus()) is None
        assert await again.question() == b"H:1"
        assert server.commands == [b"version", b"cancel job H:1"]
        await self.finish(again, following)

    async def test_an_answer_that_was_not_asked_for_ends_the_connection(self, upstream, job):
        upstream.answer(STATUS_RES, b"H:1", b"1", b"0", b"0", b"0")
        await upstream.closed()
        assert await end(job) == ("lost",)

    async def test_an_answer_for_another_job_ends_the_connection(self, upstream, job):
        status = PythonStatus()
        assert job.cancel(status) is None
        await upstream.question()
        upstream.answer(STATUS_RES, b"H:2", b"1", b"0", b"0", b"0")
        await upstream.closed()
        assert await answer(status) == ("lost", "the job server sent STATUS_RES for another job than was asked for")
        assert await end(job) == ("lost",)

    @pytest.mark.parametrize(
        "numbers",
        [
            (b"2", b"0", b"0", b"0"),
            (b"1", b"x", b"0", b"0"),
            (b"1", b"1", b"-1", b"0"),
            (b"1", b"1", b"0", b"4294967296"),
            (b"1", b"1", b"0", b"99999999999"),
            (b"1", b"1", b"0", b"1\0"),
            (b"1", b"1", b"1.5", b"2"),
            (b"1", b"1", b"0", b"9" * 60_000),
        ],
    )
    async def test_numbers_that_are_none_lose_the_question_alone(self, upstream, jobs, job, numbers):
        status = PythonStatus()
        assert job.cancel(status) is None
        await upstream.question()
        upstream.answer(STATUS_RES, b"H:1", *numbers)
        assert await answer(status) == ("lost", "the job server sent a STATUS_RES that cannot be read")
        await self.finish(upstream, job)

    @pytest.mark.parametrize(
        ("numbers", "told"),
        [
            ((b"1", b"1", b"4294967295", b"0004294967"), (True, True, 4294967295, 4294967)),
            # As Perl's Gearman::Server answers.
            ((b"1", b"0", b"", b""), (True, False, 0, 0)),
        ],
    )
    async def test_numbers_that_are_some(self, upstream, jobs, job, numbers, told):
        status = PythonStatus()
        assert job.cancel(status) is None
        await upstream.question()
        upstream.answer(STATUS_RES, b"H:1", *numbers)
        assert await answer(status) == ("told", *told)
        await self.finish(upstream, job)

    async def test_an_ERROR_in_its_place_loses_the_question_alone(self, upstream, job):  # noqa: N802
        status = PythonStatus()
        assert job.cancel(status) is None
        await upstream.question()
        upstream.answer(PacketType.ERROR, b"INVALID\n", b"what?\x1b")
        assert await answer(status) == (
            "lost",
            "the job server answers GET_STATUS with ERROR INVALID\\n: what?\\x1b",
        )
        await self.finish(upstream, job)

    async def test_a_listener_that_raises_ends_nothing_but_its_own_part(self, upstream, jobs, job, caplog):
        def fail(event):
            raise ValueError(event)

        statuses = [PythonStatus(fail), PythonStatus()]
        for status in statuses:
            assert job.cancel(status) is None
            await upstream.question()
        for _ in statuses:
            upstream.answer(STATUS_RES, b"H:1", b"1", b"0", b"0", b"0")
        assert await answer(statuses[1]) == ("told", True, False, 0, 0)
        assert statuses[0].answers == statuses[1].answers
        assert "a listener for what a job server knows failed" in caplog.text
        await self.finish(upstream, job)

    async def test_beyond_the_bound_nothing_is_asked(self, server, upstream, jobs, job):
        server.tells_cancelled = False
        statuses = [PythonStatus() for _ in range(MOST_QUESTIONS)]
        for status in statuses:
            assert job.cancel(status) is None
        assert job.cancel(PythonStatus()) == "the job server has as many questions to answer as may wait"
        await eventually(lambda: server.commands.count(b"cancel job H:1") == MOST_QUESTIONS)
        (await self.text(server)).send(b"OK\n" * MOST_QUESTIONS)
        for _ in statuses:
            await upstream.question()
            upstream.answer(STATUS_RES, b"H:1", b"1", b"0", b"0", b"0")
        for status in statuses:
            assert await answer(status) == ("told", True, False, 0, 0)
        await self.finish(upstream, job)


class TestSilence:
    async def test_a_question_that_is_never_answered_is_given_up_and_its_late_answer_let_pass(self):
        async with (
            ScriptedJobServer() as server,
            running_gateway([server.address], connections_per_server=1, server_check_interval_s=0.1) as gateway,
        ):
            [upstream] = await upstreams_of(gateway, server)
            jobs = await PooledJobs(gateway).connected()
            job = jobs.submit(b"f")
            await upstream.accept(b"H:1")
            await eventually(lambda: job.events)
            statuses = [PythonStatus(), PythonStatus()]
            assert job.cancel(statuses[0]) is None
            assert await upstream.question() == b"H:1"
            # It answers ECHO_REQ and nothing else.
            assert await answer(statuses[0]) == ("lost", "the job server gave no answer to GET_STATUS within 0.1 s")
            assert job.cancel(statuses[1]) is None
            assert await upstream.question() == b"H:1"
            upstream.answer(STATUS_RES, b"H:1", b"0", b"0", b"0", b"0")
            upstream.answer(STATUS_RES, b"H:1", b"1", b"1", b"0", b"0")
            assert await answer(statuses[1]) == ("told", True, True, 0, 0)
            upstream.answer(COMPLETE, b"H:1", b"done")
            assert await end(job) == ("completed", b"done")
            assert len(statuses[0].answers) == 1

    async def test_a_cancellation_that_is_never_answered_loses_the_question(self):
        async with (
            ScriptedJobServer() as server,
            running_gateway([server.address], connections_per_server=1, server_check_interval_s=0.1) as gateway,
        ):
            server.tells_cancelled = False
            [upstream] = await upstreams_of(gateway, server)
            jobs = await PooledJobs(gateway).connected()
            job = jobs.submit(b"f")
            await upstream.accept(b"H:1")
            await eventually(lambda: job.events)
            assert (await jobs.cancel(job))[0] == "lost"
            assert upstream.questions.empty()
            upstream.answer(COMPLETE, b"H:1", b"done")
            assert await end(job) == ("completed", b"done")

    async def test_signs_of_life_are_reckoned_with_what_was_asked(self):
        """The connection is looked at many times while questions leave, and is never taken for a silent one."""
        async with (
            ScriptedJobServer() as server,
            running_gateway([server.address], connections_per_server=1, server_check_interval_s=0.05) as gateway,
        ):
            [upstream] = await upstreams_of(gateway, server)
            jobs = await PooledJobs(gateway).connected()
            job = jobs.submit(b"f")
            await upstream.accept(b"H:1")
            await eventually(lambda: job.events)
            while server.echoes < 6:
                status = PythonStatus()
                assert job.cancel(status) is None
                assert await upstream.question() == b"H:1"
                upstream.answer(STATUS_RES, b"H:1", b"1", b"1", b"0", b"0")
                assert await answer(status) == ("told", True, True, 0, 0)
            upstream.answer(COMPLETE, b"H:1", b"done")
            assert await end(job) == ("completed", b"done")


async def test_nothing_is_cancelled_at_another_server_of_the_same_name(monkeypatch):
    # Two job servers behind one name: the first answers by text alone.
    monkeypatch.setattr(names, "look_up", lambda host: numeric("127.0.0.2", "127.0.0.1"))
    monkeypatch.setattr(keeper, "CONNECT_TIMEOUT_S", 0.2)
    async with (
        ScriptedJobServer() as server,
        ScriptedJobServer(host="127.0.0.2", port=server.port, greets=False) as other,
        running_gateway([("job-server.test", server.port)], connections_per_server=1) as gateway,
    ):
        upstream = await server.connection()
        await eventually(lambda: other.commands == [b"version"])
        await gateway.reaches("pool.connections", 1)
        job = PooledJobs(gateway).submit(b"f")
        await upstream.accept(b"H:1")
        await eventually(lambda: job.events)
        assert job.life == 0
        assert job.cancel(PythonStatus()) == "the job server was not connected by text when it was given the job"
        upstream.answer(COMPLETE, b"H:1", b"done")
        assert await end(job) == ("completed", b"done")


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
