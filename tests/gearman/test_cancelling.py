"""Jobs that are cancelled while somebody waits for them, on a job server that answers as the test says."""

from __future__ import annotations

import pytest

from gatewayx.gearman import keeper
from gatewayx.gearman.packet import PacketType
from gatewayx.gearman.python_jobs import PythonJob, PythonStatus
from gatewayx.net import names
from support.behind import upstreams_of
from support.gateway import RunningGateway, eventually, running_gateway
from support.job_servers import ScriptedConnection, ScriptedJobServer, response
from support.lookups import numeric
from support.pooled import PooledJobs, answer, end

pytestmark = pytest.mark.anyio

STATUS_RES = PacketType.STATUS_RES
FAIL, COMPLETE = PacketType.WORK_FAIL, PacketType.WORK_COMPLETE
# Questions that may wait on one connection.
MOST_QUESTIONS = 1024


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
            running_gateway([server.address], connections_per_server=1, server_check_interval_s=1) as gateway,
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
            assert await answer(statuses[0]) == ("lost", "the job server gave no answer to GET_STATUS within 1 s")
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
            running_gateway([server.address], connections_per_server=1, server_check_interval_s=0.5) as gateway,
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
            running_gateway([server.address], connections_per_server=1, server_check_interval_s=0.25) as gateway,
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


async def test_a_connection_that_is_one_too_many_stays_for_what_is_asked_over_it(monkeypatch):
    monkeypatch.setattr(keeper, "RETIRED_CHECK_S", 0.01)
    async with (
        ScriptedJobServer() as server,
        running_gateway([server.address], connections_per_server=2, status_interval_s=0.05) as gateway,
    ):
        upstreams = await upstreams_of(gateway, server, each=2)
        jobs = await PooledJobs(gateway).connected()
        found = []
        for number in range(2):
            job = jobs.submit(b"f")
            await eventually(lambda: any(not upstream.submissions.empty() for upstream in upstreams))
            [upstream] = [upstream for upstream in upstreams if not upstream.submissions.empty()]
            await upstream.accept(b"H:%d" % number)
            await eventually(lambda: job.events)  # noqa: B023 (it is awaited here)
            found.append((upstream, job, PythonStatus()))
        assert found[0][0] is not found[1][0]
        for upstream, job, status in found:
            assert job.cancel(status) is None
            assert await upstream.question() == job.job.handle
            upstream.answer(FAIL, job.job.handle)
            assert await end(job) == ("failed", b"")
        await gateway.process.pool.change(
            [server.address],
            max_result_bytes=1_000_000,
            balance="fewest",
            function_servers=(),
            cancel_abandoned=True,
            connections_per_server=1,
            status_interval_s=0.05,
            askers=1,
            check_interval_s=5.0,
            tls_context=None,
        )
        statuses = server.statuses
        await eventually(lambda: server.statuses >= statuses + 5)
        for upstream, job, status in found:
            upstream.answer(STATUS_RES, job.job.handle, b"1", b"1", b"0", b"0")
            assert await answer(status) == ("told", True, True, 0, 0)
        await eventually(lambda: sum(upstream.lost.done() for upstream in upstreams) == 1)


async def test_nothing_is_cancelled_at_another_server_of_the_same_name(monkeypatch):
    # Two job servers behind one name: the first answers by text alone.
    monkeypatch.setattr(names, "look_up", lambda host: numeric("127.0.0.2", "127.0.0.1"))
    monkeypatch.setattr(keeper, "CONNECT_TIMEOUT_S", 0.2)
    async with (
        ScriptedJobServer() as server,
        ScriptedJobServer(host="127.0.0.2", port=server.port, greets=False) as other,
        running_gateway([("job-server.test", server.port)], connections_per_server=1) as gateway,
    ):
        await eventually(lambda: set(other.commands) == {b"version"})
        await gateway.reaches("pool.connections", 1)
        upstream = await server.open_connection()
        job = PooledJobs(gateway).submit(b"f")
        await upstream.accept(b"H:1")
        await eventually(lambda: job.events)
        assert job.life == 0
        assert job.cancel(PythonStatus()) == "the job server was not connected by text when it was given the job"
        upstream.answer(COMPLETE, b"H:1", b"done")
        assert await end(job) == ("completed", b"done")
