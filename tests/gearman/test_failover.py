"""Where a job goes when its job server does not queue it or is lost, and what is kept of it."""

from __future__ import annotations

import asyncio
import contextlib
import gc

import pytest

from gatewayx.gearman import keeper
from gatewayx.gearman.keeper import BACKOFF_FIRST_S, BACKOFF_MAX_S
from gatewayx.gearman.packet import PacketType
from support.behind import BACKGROUND, FULL, MEBIBYTE, STATUS_INTERVAL_S, TOGETHER, Behind, behind, upstreams_of
from support.gateway import eventually, running_gateway
from support.http import ask, post
from support.job_servers import OPTION_RES, ScriptedJobServer, hand_worker, response
from support.still import StillGateway, still_gateway

pytestmark = pytest.mark.anyio

# As in gearman/job_table.pxd.
MAX_ABANDONED_JOBS = 16384


class TestFullQueues:
    async def test_a_full_queue_sends_the_job_to_the_next_server(self):
        async with behind(3) as all_of:
            client = await all_of.send(b"w")
            tried = []
            for _ in range(2):
                tried.append(await all_of.submitted_to())
                await all_of.upstreams[tried[-1]].submission()
                all_of.upstreams[tried[-1]].answer(PacketType.ERROR, *FULL)
            tried.append(await all_of.serve(expected=b"w"))
            assert sorted(tried) == [0, 1, 2]
            answer = await client.response()
            assert (answer.status, answer.body) == (200, b"w")
            assert all_of.gateway.count("pool.moved_jobs") == 2
            await client.close()

    @pytest.mark.parametrize("headers", [(), (TOGETHER,), (BACKGROUND,)], ids=["foreground", "pinned", "background"])
    async def test_all_full_is_503_and_each_was_tried_once(self, headers):
        async with behind(3) as all_of:
            client = await all_of.send(b"x" * 100_000, *headers)
            tried = []
            for _ in range(3):
                tried.append(await all_of.submitted_to())
                assert (await all_of.upstreams[tried[-1]].submission()).workload == b"x" * 100_000
                all_of.upstreams[tried[-1]].answer(PacketType.ERROR, *FULL)
            answer = await client.response()
            assert (answer.status, answer.kind()) == (503, "job-refused")
            assert "QUEUE_ERROR" in answer.problem()["detail"]
            assert int(answer.headers[b"retry-after"]) >= 1
            assert sorted(tried) == [0, 1, 2]
            await client.close()

    async def test_any_other_ERROR_is_503_at_once(self):  # noqa: N802
        async with behind(2) as all_of:
            client = await all_of.send(b"w")
            upstream = all_of.upstreams[await all_of.submitted_to()]
            await upstream.submission()
            upstream.answer(PacketType.ERROR, b"NOT_NICE", b"go away")
            answer = await client.response()
            assert (answer.status, answer.kind()) == (503, "job-refused")
            assert "NOT_NICE" in answer.problem()["detail"]
            assert all(upstream.submissions.empty() for upstream in all_of.upstreams)
            await client.close()

    async def test_a_job_nobody_waits_for_is_not_offered_again(self):
        async with behind(2) as all_of:
            client = await all_of.send(b"w")
            upstream = all_of.upstreams[await all_of.submitted_to()]
            await upstream.submission()
            client.reset()
            await eventually(lambda: all_of.gateway.count("pool.outstanding_jobs") == 0)
            upstream.answer(PacketType.ERROR, *FULL)
            assert await all_of.number_for(b"another") in (0, 1)
            assert all_of.gateway.count("pool.moved_jobs") == 0

    async def test_a_moved_job_keeps_its_deadline(self):
        async with behind(2) as all_of:
            with all_of.gateway.within_a_tick():
                client = await all_of.send(b"w", b"X-Gearman-Timeout: 0.2")
                upstream = all_of.upstreams[await all_of.submitted_to()]
                await upstream.submission()
                upstream.answer(PacketType.ERROR, *FULL)
                await all_of.upstreams[await all_of.submitted_to()].accept(b"H:1")
            assert (await client.response()).status == 504
            await client.close()
            for upstream in all_of.upstreams:
                upstream.answer(PacketType.WORK_FAIL, b"H:1")

    async def test_real_queues_that_are_full(self, embedded, tmp_gearmand):
        addresses = (embedded.address, tmp_gearmand.address)
        async with (
            running_gateway(addresses) as gateway,
            hand_worker(addresses[0], b"f") as worker,
            hand_worker(addresses[1], b"f") as other,
        ):
            for address in addresses:
                reader, writer = await asyncio.open_connection(*address)
                writer.write(b"maxqueue f 1\n")
                assert b"OK" in await reader.readline()
                writer.close()
                await writer.wait_closed()
            answers = [await ask(gateway.address, post(b"/f", b"%d" % number, BACKGROUND)) for number in range(3)]
            assert [answer.status for answer in answers] == [200, 200, 503]
            assert "QUEUE_ERROR" in answers[2].problem()["detail"]
            taken = []
            for each in (worker, other):
                handle, _, _, workload = await each.take()
                each.complete(handle)
                taken.append(workload)
            assert sorted(taken) == [b"0", b"1"]


class TestServersThatDie:
    async def test_what_was_not_written_goes_to_another_server(self):
        async with behind(2, server_check_interval_s=60) as all_of:
            frozen = await all_of.number_for(b"first", TOGETHER)
            all_of.servers[frozen].reads = False
            all_of.upstreams[frozen].transport.pause_reading()
            # One of 8 MiB fills every buffer, so that it counts as sent and the next ones do not.
            stuck = await all_of.send(b"x" * 8 * MEBIBYTE, TOGETHER)
            await eventually(lambda: all_of.gateway.count("pool.outstanding_jobs") == 1)
            waiting = [await all_of.send(b"%d" % number, TOGETHER) for number in range(3)]
            await all_of.gateway.reaches("pool.outstanding_jobs", 4)
            await eventually(lambda: all_of.gateway.count("pool.unsent_bytes") > 0)
            held = all_of.gateway.count("budget.held_bytes")
            assert held > 8 * MEBIBYTE
            await all_of.servers[frozen].stop()
            for number, client in enumerate(waiting):
                assert await all_of.serve(expected=b"%d" % number) == 1 - frozen
                assert (await client.response()).body == b"%d" % number
                await client.close()
            answer = await stuck.response()
            assert (answer.status, answer.kind()) == (502, "outcome-unknown")
            assert all_of.gateway.count("pool.moved_jobs") == 3
            await stuck.close()

    async def test_what_nobody_waits_for_any_more_is_never_sent(self):
        async with behind(1, job_timeout_s=1, server_check_interval_s=60) as all_of:
            [upstream] = all_of.upstreams
            all_of.servers[0].reads = False
            upstream.transport.pause_reading()
            with all_of.gateway.within_a_tick():
                clients = [await all_of.send(b"x" * 8 * MEBIBYTE)]
                await all_of.gateway.reaches("pool.outstanding_jobs", 1)
                clients += [await all_of.send(b"%d" % number) for number in range(20)]
                await all_of.gateway.reaches("pool.outstanding_jobs", 21)
            answers = [await client.response() for client in clients]
            assert {answer.status for answer in answers} == {504}
            assert "nothing was submitted" in answers[-1].problem()["detail"]
            assert all_of.gateway.count("pool.unsent_bytes") == 0
            all_of.servers[0].reads = True
            upstream.transport.resume_reading()
            upstream.answer(PacketType.ECHO_RES, b"alive")
            assert (await upstream.submission()).workload == b"x" * 8 * MEBIBYTE
            upstream.answer(PacketType.JOB_CREATED, b"H:0")
            upstream.answer(PacketType.WORK_FAIL, b"H:0")
            assert await all_of.number_for(b"after") == 0
            for client in clients:
                await client.close()

    async def test_one_that_does_not_read_is_full_and_the_others_get_the_jobs(self):
        body = bytes(40 * MEBIBYTE)
        async with behind(2, max_body_bytes=len(body), max_held_bytes=1 << 30, server_check_interval_s=60) as all_of:
            frozen = await all_of.number_for(b"first", TOGETHER)
            all_of.upstreams[frozen].transport.pause_reading()
            stuck = []
            for number in range(3):
                stuck.append(await all_of.send(body, TOGETHER))
                await all_of.gateway.reaches("pool.outstanding_jobs", number + 1)
            assert 2 * len(body) <= all_of.gateway.count("pool.unsent_bytes") < 2 * len(body) + 1000
            assert await all_of.number_for(b"next in rank", TOGETHER) == 1 - frozen
            await all_of.servers[frozen].stop()
            for _ in range(2):
                assert await all_of.serve(expected=body) == 1 - frozen
            answers = [await client.response() for client in stuck]
            assert sorted(answer.status for answer in answers) == [200, 200, 502]
            for client in stuck:
                await client.close()


class TestPins:
    async def test_a_job_joins_the_one_under_way_though_another_connection_is_first_by_rank_again(self):
        async with (
            ScriptedJobServer() as server,
            running_gateway([server.address], connections_per_server=2, status_interval_s=STATUS_INTERVAL_S) as gateway,
        ):
            upstreams = await upstreams_of(gateway, server, each=2)
            all_of = Behind(gateway, [server, server], upstreams)
            first_by_rank = await all_of.number_for(b"which", TOGETHER)
            server.greets = False
            upstreams[first_by_rank].close()
            await eventually(lambda: gateway.count("pool.connections") == 1)
            under_way = upstreams[1 - first_by_rank]
            first = await all_of.send(b"w", TOGETHER)
            await under_way.accept(b"H:1")
            upstreams[first_by_rank] = await server.open_connection()
            upstreams[first_by_rank].greet()
            await gateway.reaches("pool.connections", 2)
            second = await all_of.send(b"w", TOGETHER)
            await under_way.accept(b"H:1")
            for _ in range(2):
                under_way.answer(PacketType.WORK_COMPLETE, b"H:1", b"once")
            assert [(await client.response()).body for client in (first, second)] == [b"once", b"once"]
            assert gateway.count("pool.pins") == 0
            assert await all_of.number_for(b"which", TOGETHER) == first_by_rank
            for client in (first, second):
                await client.close()

    async def test_one_goes_to_its_server_whatever_workers_and_load(self):
        async with behind(2) as all_of:
            number = await all_of.number_for(b"w", TOGETHER)
            await all_of.status(**{f"s{number}": 0, f"s{1 - number}": 5})
            busy = await all_of.send(b"busy", TOGETHER)
            await all_of.upstreams[number].accept(b"H:busy")
            assert await all_of.number_for(b"w", TOGETHER) == number
            all_of.upstreams[number].answer(PacketType.WORK_FAIL, b"H:busy")
            await busy.response()
            await busy.close()

    async def test_dash_goes_by_its_workload_and_without_one_nowhere_in_particular(self):
        async with behind(2) as all_of:
            dash = b"X-Gearman-Unique: -"
            same = {await all_of.number_for(b"the same", dash) for _ in range(6)}
            assert len(same) == 1
            assert len({await all_of.number_for(b"%d" % number, dash) for number in range(12)}) == 2
            assert {await all_of.number_for(b"", dash) for _ in range(4)} == {0, 1}


async def test_a_connection_that_is_lost_beside_another_is_logged_with_the_reason(caplog):
    async with behind(1, connections_per_server=2) as all_of:
        await all_of.gateway.reaches("pool.connections", 2)
        all_of.upstreams[0].send(b"garbage that is no packet")
        await eventually(lambda: "a connection to job server" in caplog.text)
        [line] = [record.getMessage() for record in caplog.records if "a connection to" in record.getMessage()]
        assert "was lost, making it anew: " in line


class TestWhatIsKept:
    """What remains of jobs that nobody waits for."""

    def test_joiners_that_leave_leave_nothing(self):
        with still_gateway() as gateway:
            [upstream] = gateway.server.open()
            waits, leave = gateway.client(), gateway.client()
            waits.send(post(b"/f", b"w", TOGETHER))
            _create_all(gateway)
            before = _count_of_jobs()
            count = 40
            leave.send(*[post(b"/f", b"w", TOGETHER, b"X-Gearman-Timeout: 0.5")] * count)
            # So many at once, each time their time has passed.
            while len(leave.responses()) < count:
                _create_all(gateway)
                gateway.pass_time(0.8)
            assert {answer.status for answer in leave.responses()} == {504}
            assert _count_of_jobs() == before
            [job] = upstream.jobs
            assert job.copies == count + 1
            upstream.work(job, PacketType.WORK_COMPLETE, b"done")
            gateway.loop.settle()
            assert [answer.body for answer in waits.responses()] == [b"done"]
            assert gateway.count("pool.pins") == 0

    def test_the_packet_of_a_written_job_goes_when_nobody_waits(self):
        with still_gateway(job_timeout_s=0.1) as gateway:
            [upstream] = gateway.server.open()
            client = gateway.client()
            client.send(post(b"/f", b"x" * MEBIBYTE))
            gateway.loop.settle()
            assert len(upstream.pending) == 1
            gateway.pass_time(0.4)
            assert [answer.status for answer in client.responses()] == [504]
            assert gateway.count("budget.held_bytes") == 0
            upstream.create()
            upstream.work(upstream.jobs[0], PacketType.WORK_FAIL, b"")
            gateway.loop.settle()
            assert gateway.count("pool.abandoned_jobs") == 0
            assert not upstream.gone

    def test_one_abandoned_job_is_remembered_though_thousands_were_abandoned_and_ended_since(self):
        with still_gateway(cancel_abandoned=False, max_pipelined=1024) as gateway:
            [upstream] = gateway.server.open()
            gone = gateway.client()
            gone.send(post(b"/f", b"w", TOGETHER, b"X-Gearman-Timeout: 0.2"))
            _create_all(gateway)
            batch = 1000
            for _ in range(0, MAX_ABANDONED_JOBS + batch, batch):
                quick = gateway.client()
                quick.send(*[post(b"/f", b"w", b"X-Gearman-Timeout: 0.2")] * batch)
                _create_all(gateway)
                gateway.pass_time(0.5)
                assert [answer.status for answer in quick.responses()] == [504] * batch
                for job in upstream.jobs[1:]:
                    upstream.work(job, PacketType.WORK_COMPLETE, b"")
                gateway.loop.settle()
                assert gateway.count("pool.abandoned_jobs") == 1
            assert [answer.status for answer in gone.responses()] == [504]
            joins = gateway.client()
            joins.send(post(b"/f", b"w", TOGETHER))
            _create_all(gateway)
            [job] = upstream.jobs
            # Each comes twice.
            upstream.work(job, PacketType.WORK_DATA, b"once")
            upstream.work(job, PacketType.WORK_COMPLETE, b" and only")
            gateway.loop.settle()
            assert [answer.body for answer in joins.responses()] == [b"once and only"]


class HangsUp(asyncio.Protocol):
    """A job server that answers as if all were well, and closes."""

    connections = 0

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        if data.startswith(b"version"):
            self.transport.write(b"OK 1\n")
        elif data.startswith(b"status"):
            self.transport.write(b".\n")
        else:
            HangsUp.connections += 1
            self.transport.write(OPTION_RES + response(PacketType.ECHO_RES, b"gatewayx"))
            # The gateway has seen the connection come up by then.
            asyncio.get_running_loop().call_later(0.02, self.transport.close)


async def test_one_that_answers_and_hangs_up_is_tried_ever_more_rarely(monkeypatch):
    waits_s: list[float] = []

    def pause(most_s: float) -> float:
        waits_s.append(most_s)
        return 0.0 if most_s < BACKOFF_MAX_S else most_s

    monkeypatch.setattr(keeper, "random_part", pause)
    # However long each connection lasts on a busy machine, it is none that is kept.
    monkeypatch.setattr(keeper, "STEADY_S", 3600.0)
    HangsUp.connections = 0
    listener = await asyncio.get_running_loop().create_server(HangsUp, "127.0.0.1", 0)
    with contextlib.closing(listener):
        async with running_gateway([listener.sockets[0].getsockname()], connections_per_server=1):
            await eventually(lambda: BACKOFF_MAX_S in waits_s)
    assert waits_s == [*(BACKOFF_FIRST_S * 2**number for number in range(7)), BACKOFF_MAX_S]
    assert HangsUp.connections >= len(waits_s)


def _create_all(gateway: StillGateway) -> None:
    """The job server answers every submission with JOB_CREATED."""
    gateway.loop.settle()
    [upstream] = gateway.server.open()
    while upstream.pending:
        upstream.create()
    gateway.loop.settle()


def _count_of_jobs() -> int:
    gc.collect()
    return sum(type(thing).__name__ == "Job" for thing in gc.get_objects())
