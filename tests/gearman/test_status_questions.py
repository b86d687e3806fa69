"""What a job server knows of a job by its unique: over a connection of its own, which is there while it is used."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from gatewayx.embedded import encode
from gatewayx.gearman import keeper
from gatewayx.gearman.packet import PacketType
from gatewayx.gearman.python_jobs import PythonStatus
from gatewayx.net import names
from support.gateway import RunningGateway, eventually, running_gateway
from support.gearmand import Gearmand
from support.job_servers import ScriptedConnection, ScriptedJobServer, hand_worker, nobody_listens
from support.lookups import numeric
from support.pooled import PooledJobs, answer

pytestmark = pytest.mark.anyio

BACKGROUND = PacketType.SUBMIT_JOB_BG
STATUS_RES_UNIQUE = PacketType.STATUS_RES_UNIQUE
# Questions that may wait, for a connection and on one.
MOST_QUESTIONS = 1024


class TestOnJobServers:
    """What gearmand does, and the embedded job server after it."""

    @pytest.fixture
    async def gateway(self, address: tuple[str, int]) -> AsyncIterator[RunningGateway]:
        """One with one connection for jobs."""
        async with running_gateway([address], connections_per_server=1, status_interval_s=0.05) as gateway:
            yield gateway

    @pytest.fixture
    async def jobs(self, gateway: RunningGateway) -> PooledJobs:
        """Its jobs, once it is connected by text."""
        return await PooledJobs(gateway).connected()

    async def test_a_background_job_from_the_queue_to_its_end(self, jobs, address, function):
        await jobs.created(function, packet_type=BACKGROUND)
        unique = jobs.unique
        assert await jobs.ask(unique) == ("told", True, False, 0, 0)
        async with hand_worker(address, function) as worker:
            handle, _, found, _ = await worker.take()
            assert found == unique
            assert await jobs.ask(unique) == ("told", True, True, 0, 0)
            worker.send(encode.work_status(handle, 3, 9))
            assert await worker.settle() == []
            assert await jobs.ask(unique) == ("told", True, True, 3, 9)
            worker.complete(handle)
            assert await worker.settle() == []
            assert await jobs.ask(unique) == ("told", False, False, 0, 0)

    async def test_many_questions_are_answered_in_their_order(self, jobs, address, function):
        uniques = []
        for _ in range(20):
            await jobs.created(function, packet_type=BACKGROUND)
            uniques.append(jobs.unique)
        asked = [(unique in uniques[:10], PythonStatus()) for unique in [*uniques[:10], *[b"no job's"] * 10] * 25]
        for (_, status), unique in zip(asked, [*uniques[:10], *[b"no job's"] * 10] * 25, strict=True):
            status.ask(jobs.pool, jobs.server, unique)
        for known, status in asked:
            assert (await answer(status))[:2] == ("told", known)
        async with hand_worker(address, function) as worker:
            for _ in uniques:
                handle, *_ = await worker.take()
                worker.complete(handle)

    async def test_the_longest_unique_is_asked_for(self, jobs):
        assert await jobs.ask(b"x" * 63) == ("told", False, False, 0, 0)

    async def test_a_cancelled_background_job_will_not_run(self, jobs, address, function):
        job = await jobs.created(function, packet_type=BACKGROUND)
        life = job.life
        assert life
        handle = job.events[0][1]
        for _ in range(2):
            status = PythonStatus()
            assert status.cancel(jobs.pool, jobs.server, life, handle, jobs.unique) is None
            assert await answer(status) == ("told", True, False, 0, 0)
        async with hand_worker(address, function) as worker:
            await worker.no_job()
        assert await jobs.ask(jobs.unique) == ("told", False, False, 0, 0)

    async def test_a_running_background_job_is_told_to_run_on(self, jobs, address, function):
        job = await jobs.created(function, packet_type=BACKGROUND)
        async with hand_worker(address, function) as worker:
            handle, *_ = await worker.take()
            status = PythonStatus()
            assert status.cancel(jobs.pool, jobs.server, job.life, handle, jobs.unique) is None
            assert await answer(status) == ("told", True, True, 0, 0)
            worker.complete(handle)
            assert await worker.settle() == []

    @pytest.mark.parametrize("handle", [b"", b"H:1 x", b"H:1\nshutdown", b"H:" + b"1" * 62, b"H:\xff"])
    async def test_what_cannot_be_a_handle_is_not_cancelled(self, jobs, function, handle):
        job = await jobs.created(function, packet_type=BACKGROUND)
        status = PythonStatus()
        assert status.cancel(jobs.pool, jobs.server, job.life, handle, jobs.unique) == "no job has such a handle"
        assert status.cancel(jobs.pool, jobs.server, job.life, job.events[0][1], jobs.unique) is None
        assert await answer(status) == ("told", True, False, 0, 0)


class TestOnAScriptedServer:
    @pytest.fixture
    async def jobs(
        self, server: ScriptedJobServer, gateway: RunningGateway, upstream: ScriptedConnection
    ) -> PooledJobs:
        """The gateway's, once it is connected by text; the connection for jobs is accepted."""
        return await PooledJobs(gateway).connected()

    async def asked(self, jobs: PooledJobs, server: ScriptedJobServer) -> tuple[PythonStatus, ScriptedConnection]:
        """A question, and the connection over which it has come."""
        status = PythonStatus()
        status.ask(jobs.pool, jobs.server, b"u")
        connection = await server.connection()
        assert await connection.question() == b"u"
        return status, connection

    async def test_it_is_asked_over_a_connection_that_is_kept_while_it_is_used(self, server, jobs):
        status, connection = await self.asked(jobs, server)
        assert not connection.asked_option
        connection.answer(STATUS_RES_UNIQUE, b"u", b"1", b"1", b"4294967295", b"4294967295", b"17")
        assert await answer(status) == ("told", True, True, 4294967295, 4294967295)
        status = PythonStatus()
        status.ask(jobs.pool, jobs.server, b"v")
        assert await connection.question() == b"v"
        connection.answer(STATUS_RES_UNIQUE, b"v", b"0", b"0", b"0", b"0", b"0")
        assert await answer(status) == ("told", False, False, 0, 0)
        statuses = [PythonStatus() for _ in range(50)]
        for status in statuses:
            status.ask(jobs.pool, jobs.server, b"w")
        for _ in statuses:
            assert await connection.question() == b"w"
            connection.answer(STATUS_RES_UNIQUE, b"w", b"0", b"0", b"0", b"0", b"0")
        for status in statuses:
            assert (await answer(status))[0] == "told"
        assert server.accepted.empty()

    async def test_what_cannot_be_a_unique_is_not_asked_for(self, server, jobs):
        for unique in (b"", b"x" * 64, b"a\0b"):
            assert await jobs.ask(unique) == ("lost", "no job has such a unique")
        status, connection = await self.asked(jobs, server)
        connection.answer(STATUS_RES_UNIQUE, b"u", b"0", b"0", b"0", b"0", b"0")
        assert (await answer(status))[0] == "told"
        assert server.accepted.empty()

    async def test_it_is_closed_when_it_is_not_used_and_made_again(self, server, monkeypatch):
        monkeypatch.setattr(keeper, "UNUSED_S", 0.05)
        async with running_gateway([server.address], connections_per_server=1, status_interval_s=0.05) as gateway:
            await server.connection()
            jobs = await PooledJobs(gateway).connected()
            for _ in range(2):
                status, connection = await self.asked(jobs, server)
                # Whoever waits for an answer uses it.
                statuses = server.statuses
                await eventually(lambda: server.statuses >= statuses + 5)  # noqa: B023 (it is awaited here)
                connection.answer(STATUS_RES_UNIQUE, b"u", b"0", b"0", b"0", b"0", b"0")
                assert (await answer(status))[0] == "told"
                await connection.closed()

    @pytest.mark.parametrize(
        ("packet_type", "arguments", "reason"),
        [
            (STATUS_RES_UNIQUE, (b"v", b"0", b"0", b"0", b"0", b"0"), "for another job than was asked for"),
            (PacketType.STATUS_RES, (b"u", b"0", b"0", b"0", b"0"), "unexpected STATUS_RES"),
            (PacketType.WORK_COMPLETE, (b"H:1", b""), "unexpected WORK_COMPLETE"),
            (PacketType.ECHO_RES, (b"gatewayx",), "unexpected ECHO_RES"),
            (STATUS_RES_UNIQUE, (b"u", b"0", b"0", b"0", b"0", b"0" * 20_000), "above 16384"),
        ],
    )
    async def test_what_is_no_answer_ends_the_connection_and_the_next_question_makes_one(
        self, server, upstream, jobs, packet_type, arguments, reason
    ):
        status, connection = await self.asked(jobs, server)
        others = [PythonStatus() for _ in range(2)]
        for other in others:
            other.ask(jobs.pool, jobs.server, b"other")
        connection.answer(packet_type, *arguments)
        for lost in (status, *others):
            kind, why = await answer(lost)
            assert kind == "lost"
            assert reason in why
        await connection.closed()
        assert not upstream.lost.done()
        status, connection = await self.asked(jobs, server)
        connection.answer(STATUS_RES_UNIQUE, b"u", b"1", b"0", b"0", b"0", b"0")
        assert await answer(status) == ("told", True, False, 0, 0)

    async def test_an_answer_behind_the_last_question_ends_the_connection(self, server, jobs):
        status, connection = await self.asked(jobs, server)
        for _ in range(2):
            connection.answer(STATUS_RES_UNIQUE, b"u", b"0", b"0", b"0", b"0", b"0")
        assert (await answer(status))[0] == "told"
        await connection.closed()

    async def test_one_that_is_answered_otherwise_is_lost_alone(self, server, jobs):
        status, connection = await self.asked(jobs, server)
        other = PythonStatus()
        other.ask(jobs.pool, jobs.server, b"v")
        third = PythonStatus()
        third.ask(jobs.pool, jobs.server, b"w")
        assert [await connection.question() for _ in range(2)] == [b"v", b"w"]
        connection.answer(PacketType.ERROR, b"INVALID_COMMAND", b"Command not expected\x1b")
        connection.answer(STATUS_RES_UNIQUE, b"v", b"maybe", b"0", b"0", b"0", b"0")
        connection.answer(STATUS_RES_UNIQUE, b"w", b"1", b"0", b"0", b"0", b"0")
        assert await answer(status) == (
            "lost",
            "the job server answers GET_STATUS_UNIQUE with ERROR INVALID_COMMAND: Command not expected\\x1b",
        )
        assert await answer(other) == ("lost", "the job server sent a STATUS_RES_UNIQUE that cannot be read")
        assert await answer(third) == ("told", True, False, 0, 0)

    async def test_more_than_may_wait_are_lost_at_once(self, server, jobs):
        """Those that wait for the connection, and then those that wait on it."""
        connection = None
        for _ in range(2):
            statuses = [PythonStatus() for _ in range(MOST_QUESTIONS + 1)]
            for status in statuses:
                status.ask(jobs.pool, jobs.server, b"u")
            assert "as may" in statuses[-1].answers[0][1]
            connection = connection or await server.connection()
            for _ in statuses[:-1]:
                assert await connection.question() == b"u"
                connection.answer(STATUS_RES_UNIQUE, b"u", b"0", b"0", b"0", b"0", b"0")
            for status in statuses[:-1]:
                assert (await answer(status))[0] == "told"

    async def test_a_listener_that_raises_ends_nothing_but_its_own_part(self, server, jobs, caplog):
        def fail(event):
            raise ValueError(event)

        raising, connection = PythonStatus(fail), None
        raising.ask(jobs.pool, jobs.server, b"u")
        status, connection = await self.asked(jobs, server)
        assert await connection.question() == b"u"
        for _ in range(2):
            connection.answer(STATUS_RES_UNIQUE, b"u", b"1", b"0", b"0", b"0", b"0")
        assert await answer(status) == ("told", True, False, 0, 0)
        raising = PythonStatus(fail)
        raising.ask(jobs.pool, jobs.server, b"x" * 64)
        assert raising.answers == [("lost", "no job has such a unique")]
        assert "a listener for what a job server knows failed" in caplog.text

    async def test_a_background_job_of_another_life_is_not_cancelled(self, server, upstream, jobs):
        job = jobs.submit(b"f", packet_type=BACKGROUND)
        await upstream.accept(b"H:1")
        await eventually(lambda: job.events)
        life = job.life
        status = PythonStatus()
        assert status.cancel(jobs.pool, jobs.server, life + 1, b"H:1", b"u") is not None
        assert status.cancel(jobs.pool, jobs.server, 0, b"H:1", b"u") is not None
        [text] = [connection for connection in server.open if connection.is_text]
        text.close()
        await eventually(lambda: job.life != life)
        assert status.cancel(jobs.pool, jobs.server, life, b"H:1", b"u") is not None
        await eventually(lambda: job.life not in (0, life))
        assert status.cancel(jobs.pool, jobs.server, life, b"H:1", b"u") is not None
        assert status.answers == []
        assert b"cancel job H:1" not in server.commands

    async def test_a_cancellation_that_may_have_arrived_is_lost_with_the_text_connection(self, server, upstream, jobs):
        server.tells_cancelled = False
        job = jobs.submit(b"f", packet_type=BACKGROUND)
        await upstream.accept(b"H:1")
        await eventually(lambda: job.events)
        status = PythonStatus()
        assert status.cancel(jobs.pool, jobs.server, job.life, b"H:1", b"u") is None
        await eventually(lambda: b"cancel job H:1" in server.commands)
        [text] = [connection for connection in server.open if connection.is_text]
        text.close()
        assert (await answer(status))[0] == "lost"
        assert server.accepted.empty()


class TestAway:
    async def test_one_that_is_down_is_told_at_once(self):
        async with running_gateway([nobody_listens()]) as gateway:
            kind, reason = await PooledJobs(gateway).ask(b"u")
            assert kind == "lost"
            assert "refused" in reason.lower()

    @pytest.mark.parametrize("greets", [True, False], ids=["silent-once-it-is-up", "silent-from-the-start"])
    async def test_one_that_is_silent_is_waited_for_no_longer_than_for_a_sign_of_life(self, greets):
        async with (
            ScriptedJobServer() as server,
            running_gateway([server.address], connections_per_server=1, server_check_interval_s=0.2) as gateway,
        ):
            await server.connection()
            jobs = await PooledJobs(gateway).connected()
            server.greets = greets
            statuses = [PythonStatus() for _ in range(3)]
            for status in statuses:
                status.ask(jobs.pool, jobs.server, b"u")
            for status in statuses:
                kind, reason = await answer(status)
                assert kind == "lost"
                assert "within 0.2 s" in reason
            await (await server.connection()).closed()
            server.greets = True

    async def test_what_waits_when_the_gateway_stops_is_told(self):
        async with ScriptedJobServer() as server:
            statuses = [PythonStatus() for _ in range(4)]
            async with running_gateway([server.address], connections_per_server=1) as gateway:
                await server.connection()
                jobs = await PooledJobs(gateway).connected()
                statuses[0].ask(jobs.pool, jobs.server, b"u")
                asked = await server.connection()
                await asked.question()
                statuses[1].ask(jobs.pool, jobs.server, b"u")
            assert (await answer(statuses[0]))[0] == (await answer(statuses[1]))[0] == "lost"
            statuses[2].ask(jobs.pool, gateway.process.pool.servers[0], b"u")
            assert (await answer(statuses[2]))[0] == "lost"

            async with running_gateway([server.address], connections_per_server=1) as gateway:
                jobs = await PooledJobs(gateway).connected()
                # Its connection is not even begun.
                statuses[3].ask(jobs.pool, jobs.server, b"u")
                await jobs.pool.keeper(jobs.server).close()
            assert (await answer(statuses[3]))[0] == "lost"

    async def test_after_its_restart_it_is_asked_again(self, tmp_path):
        gearmand = await asyncio.to_thread(Gearmand, tmp_path)
        try:
            async with running_gateway([gearmand.address], connections_per_server=1) as gateway:
                jobs = await PooledJobs(gateway).connected()
                await jobs.created(b"f", packet_type=BACKGROUND)
                assert await jobs.ask(jobs.unique) == ("told", True, False, 0, 0)
                status = PythonStatus()
                gearmand.kill()
                status.ask(jobs.pool, jobs.server, jobs.unique)
                assert (await answer(status))[0] == "lost"
                gearmand = await asyncio.to_thread(Gearmand, tmp_path, port=gearmand.port)
                assert await jobs.ask(jobs.unique) == ("told", False, False, 0, 0)
        finally:
            gearmand.stop()

    async def test_another_server_of_the_same_name_is_not_believed(self, monkeypatch):
        found = ["127.0.0.2"]
        monkeypatch.setattr(names, "look_up", lambda host: numeric(*found))
        async with (
            ScriptedJobServer(host="127.0.0.2") as server,
            ScriptedJobServer(host="127.0.0.1", port=server.port) as other,
            running_gateway([("job-server.test", server.port)], connections_per_server=1) as gateway,
        ):
            await server.connection()
            jobs = await PooledJobs(gateway).connected()
            found[:] = ["127.0.0.1"]
            status = PythonStatus()
            status.ask(jobs.pool, jobs.server, b"u")
            kind, reason = await answer(status)
            assert kind == "lost"
            assert "stands for several job servers" in reason
            await (await other.connection()).closed()
            # Of those that it stands for now, the one that has the jobs is asked.
            found[:] = ["127.0.0.1", "127.0.0.2"]
            status = PythonStatus()
            status.ask(jobs.pool, jobs.server, b"u")
            connection = await server.connection()
            assert await connection.question() == b"u"
            connection.answer(STATUS_RES_UNIQUE, b"u", b"0", b"0", b"0", b"0", b"0")
            assert await answer(status) == ("told", False, False, 0, 0)
