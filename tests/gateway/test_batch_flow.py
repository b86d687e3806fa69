"""Batches while they run: how many lines are under way, clients that do not read or leave, drains, and what is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from msgspec import structs

from gatewayx.embedded import encode
from gatewayx.embedded.worker import AssignedJob, Worker
from gatewayx.gearman.packet import PacketType
from support.batches import BatchClient, batch, by_number, job
from support.gateway import RunningGateway, eventually, running_gateway
from support.http import post
from support.job_servers import HandWorker, ScriptedJobServer, hand_worker

pytestmark = pytest.mark.anyio

# More than kernels take for a connection whose client does not read, in so many lines.
LARGE_BYTES = 150_000
LARGE_LINES = 300


def large(assigned: AssignedJob) -> bytes:
    """More than the workload."""
    return assigned.workload * (LARGE_BYTES // len(assigned.workload))


@pytest.fixture
async def worker(job_server, function: bytes) -> AsyncIterator[HandWorker]:
    """A worker for the test's function."""
    async with hand_worker(job_server.address, function) as worker:
        yield worker


@pytest.fixture
async def large_worker(job_server, function: bytes) -> AsyncIterator[None]:
    """A worker whose results are large."""
    worker = Worker(job_server.address, {function: large})
    await worker.start()
    yield
    await worker.close()


def begun(gateway: RunningGateway) -> int:
    """How many jobs came in batches so far."""
    return gateway.process.counted_in.read()["batch_jobs"]


class TestUnderWay:
    async def test_no_more_lines_than_may_be(self, job_server, function, worker):
        async with (
            running_gateway([job_server.address], max_pipelined=3) as gateway,
            BatchClient(gateway.address) as client,
        ):
            client.send(batch(*(job(function, str(number)) for number in range(7))))
            taken = [(await worker.take())[0] for _ in range(3)]
            for left in range(4, 0, -1):
                assert (begun(gateway), gateway.count("admission.jobs")) == (7 - left, 3)
                worker.complete(taken.pop(), b"done")
                taken.append((await worker.take())[0])
            for handle in taken:
                worker.complete(handle, b"done")
            found = by_number(await client.answers())
            assert [found[number].body for number in range(1, 8)] == [b"done"] * 7

    async def test_batches_of_two_clients_run_beside_each_other(self, job_server, function, worker):
        async with (
            running_gateway([job_server.address], max_pipelined=2) as gateway,
            BatchClient(gateway.address) as one,
            BatchClient(gateway.address) as other,
        ):
            for client in (one, other):
                client.send(batch(*(job(function, str(number)) for number in range(3))))
            handles = [(await worker.take())[0] for _ in range(4)]
            assert gateway.count("admission.jobs") == 4
            for handle in handles:
                worker.complete(handle)
            for _ in range(2):
                worker.complete((await worker.take())[0])
            assert len(by_number(await one.answers())) == len(by_number(await other.answers())) == 3

    async def test_answers_of_one_turn_are_one_piece(self):
        async with (
            ScriptedJobServer() as server,
            running_gateway([server.address], connections_per_server=1) as gateway,
            BatchClient(gateway.address) as client,
        ):
            client.send(batch(*[job("f", background=True)] * 64))
            connection = await server.connection()
            for _ in range(64):
                await connection.submission()
            assert (await client.begin()).status == 200
            connection.send(*(encode.job_created(b"H:%d" % number) for number in range(64)))
            pieces = await client.pieces()
            # As many as the gateway's reads of what was sent at once, and what fills a piece.
            assert len(pieces) <= 4
            assert sum(piece.count(b"\n") for piece in pieces) == 64

    async def test_bounds_change_while_it_runs(self, job_server, function, worker):
        async with (
            running_gateway([job_server.address], max_pipelined=2, max_batch=5) as gateway,
            BatchClient(gateway.address) as client,
            BatchClient(gateway.address) as other,
        ):
            lines = [job(function, str(number)) for number in range(5)]
            client.send(batch(*lines))
            taken = [(await worker.take())[0] for _ in range(2)]
            settings = gateway.process.settings
            await gateway.process.reconfigure(structs.replace(settings, max_pipelined=4, max_batch=4))
            # What has begun goes on, by the new bound.
            worker.complete(taken.pop())
            taken += [(await worker.take())[0] for _ in range(3)]
            assert gateway.count("admission.jobs") == 4
            assert (await other.ask(batch(*lines))).kind() == "batch-too-long"
            await gateway.process.reconfigure(structs.replace(settings, max_function_bytes=5, max_batch=4))
            assert (await other.run(job(function, "w")))[1].kind() == "malformed-function"
            for handle in taken:
                worker.complete(handle)
            assert [line.status for line in await client.answers()] == [200] * 5


class TestClients:
    async def test_one_that_reads_late_delays_further_lines(self, job_server, function, large_worker):
        async with (
            running_gateway([job_server.address], max_pipelined=8) as gateway,
            BatchClient(gateway.address, receive_buffer_bytes=4096) as client,
        ):
            client.writer.transport.pause_reading()
            client.send(batch(*(job(function, f"{number:04}") for number in range(LARGE_LINES))))
            # Nothing is taken, and nothing is under way any more.
            await eventually(
                lambda: gateway.count("http.unread_connections") == 1 and gateway.count("admission.jobs") == 0
            )
            assert 8 <= begun(gateway) < LARGE_LINES
            client.writer.transport.resume_reading()
            found = by_number(await client.answers())
            assert len(found) == begun(gateway) == LARGE_LINES
            assert all(line.body == f"{number - 1:04}".encode() * (LARGE_BYTES // 4) for number, line in found.items())

    async def test_one_that_never_reads_is_ended_and_the_rest_is_not_submitted(
        self, job_server, function, large_worker
    ):
        async with (
            running_gateway([job_server.address], max_pipelined=8, write_timeout_s=0.5) as gateway,
            BatchClient(gateway.address, receive_buffer_bytes=4096) as client,
        ):
            client.writer.transport.pause_reading()
            client.send(batch(*(job(function, f"{number:04}") for number in range(LARGE_LINES))))
            await eventually(lambda: gateway.process.counted_in.read()["writes_timed_out"] == 1)
            await gateway.let_go()
            assert begun(gateway) < LARGE_LINES

    @pytest.mark.parametrize("how", ["close", "reset"])
    async def test_one_that_leaves_has_no_further_line_submitted(self, job_server, function, how):
        async with running_gateway([job_server.address], max_pipelined=4) as gateway:
            async with BatchClient(gateway.address) as client:
                client.send(batch(*[job(function, "w")] * 10))
                await eventually(lambda: gateway.count("pool.outstanding_jobs") == 4)
                assert (await client.begin()).status == 200
                if how == "reset":
                    client.reset()
                else:
                    await client.close()
                await gateway.let_go()
            assert begun(gateway) == 4

    async def test_what_it_leaves_under_way_is_cancelled(self):
        async with (
            ScriptedJobServer() as server,
            running_gateway([server.address], connections_per_server=1, max_pipelined=3) as gateway,
        ):
            await gateway.told()
            async with BatchClient(gateway.address) as client:
                client.send(batch(*[job("f", "w")] * 5))
                connection = await server.connection()
                for number in range(3):
                    await connection.accept(b"H:%d" % number)
                # The first one has ended, and another one has its place.
                connection.answer(PacketType.WORK_COMPLETE, b"H:0", b"done")
                await connection.accept(b"H:3")
                assert (await client.begin()).status == 200
                assert b'"body":"done"' in await client.piece()
            cancelled = {b"cancel job H:%d" % number for number in (1, 2, 3)}
            await eventually(lambda: {line for line in server.commands if line.startswith(b"cancel")} == cancelled)
            await gateway.let_go()
            assert begun(gateway) == 4

    async def test_one_that_has_closed_its_sending_side_may_have_all_answers(self, job_server, function, worker):
        async with (
            running_gateway([job_server.address], half_closed="answer", max_pipelined=1) as gateway,
            BatchClient(gateway.address) as client,
        ):
            client.send(batch(*[job(function, "w")] * 3))
            client.send_eof()
            for _ in range(3):
                worker.complete((await worker.take())[0], b"done")
            assert [line.body for line in await client.answers()] == [b"done"] * 3
            assert await client.rest() == b""


class TestRoom:
    async def test_a_line_that_does_not_fit_is_refused_and_small_ones_pass(self, job_server, function):
        def grow(assigned: AssignedJob) -> bytes:
            # Each of these takes six bytes in JSON.
            return b"\x01" * int(assigned.workload)

        worker = Worker(job_server.address, {function: grow})
        await worker.start()
        bounds = {"max_result_bytes": 20_000, "max_body_bytes": 20_000, "max_held_bytes": 120_000}
        async with running_gateway([job_server.address], **bounds) as gateway, BatchClient(gateway.address) as client:
            found = await client.run(*(job(function, str(size)) for size in (10, 15_000, 1000, 9000)))
            assert [found[number].status for number in (1, 3, 4)] == [200, 200, 200]
            assert (found[2].status, found[2].kind()) == (502, "result-too-large")
            assert "did not fit" in found[2].problem["detail"]
            assert found[2].handle is not None
        await worker.close()

    async def test_a_large_line_needs_room_beside_the_batch(self, job_server, function):
        bounds = {"max_result_bytes": 20_000, "max_body_bytes": 40_000, "max_held_bytes": 160_000}
        async with running_gateway([job_server.address], **bounds) as gateway, BatchClient(gateway.address) as client:
            # The account of bodies has 60,000.
            found = await client.run(
                job(function, "w" * 25_000, background=True),
                job(function, "w", background=True),
                job(function, "w" * 12_000, background=True),
            )
            assert [found[number].status for number in (2, 3)] == [200, 200]
            assert (found[1].status, found[1].kind()) == (503, "too-many-bytes")


class TestEnds:
    async def test_a_drain_waits_for_all_lines(self, job_server, function, worker):
        async with (
            running_gateway([job_server.address], max_pipelined=2) as gateway,
            BatchClient(gateway.address) as client,
        ):
            client.send(batch(*[job(function, "w")] * 6))
            taken = [(await worker.take())[0] for _ in range(2)]
            stopped = asyncio.create_task(gateway.process.drain())
            await eventually(lambda: gateway.process.http.draining)
            for _ in range(4):
                worker.complete(taken.pop(), b"done")
                taken.append((await worker.take())[0])
            for handle in taken:
                worker.complete(handle, b"done")
            assert [line.body for line in await client.answers()] == [b"done"] * 6
            await stopped

    async def test_a_drain_that_has_no_time_left_answers_each_line(self, job_server, function, worker):
        async with (
            running_gateway([job_server.address], max_pipelined=2, drain_timeout_s=0.3) as gateway,
            BatchClient(gateway.address) as client,
        ):
            client.send(batch(*[job(function, "w")] * 5))
            for _ in range(2):
                await worker.take()
            await gateway.process.drain()
            found = by_number(await client.answers())
            assert [(found[number].status, found[number].kind()) for number in (1, 2)] == [(502, "outcome-unknown")] * 2
            assert {found[number].status for number in (3, 4, 5)} == {503}

    async def test_each_line_has_its_outcome_when_the_job_server_is_lost(self):
        server = ScriptedJobServer()
        await server.start()
        async with (
            running_gateway([server.address], connections_per_server=1, max_pipelined=4) as gateway,
            BatchClient(gateway.address) as client,
        ):
            client.send(batch(*[job("f", "w")] * 8, job("f", "w", background=True)))
            connection = await server.connection()
            await connection.complete(b"H:1", b"done")
            await connection.accept(b"H:2")
            for _ in range(3):
                await connection.submission()
            await server.stop()
            found = by_number(await client.answers())
            assert len(found) == 9
            assert found[1].body == b"done"
            assert {found[number].kind() for number in (2, 3, 4, 5)} == {"outcome-unknown"}
            assert "had been created" in found[2].problem["detail"]
            assert "may have been created" in found[3].problem["detail"]
            # Safe to send again.
            assert {found[number].status for number in (6, 7, 8, 9)} == {503}
            # The connection goes on.
            assert (await client.ask(post(b"/f"))).status == 503

    async def test_one_that_is_refused_by_the_job_server_is_told_why(self):
        async with (
            ScriptedJobServer() as server,
            running_gateway([server.address], connections_per_server=1) as gateway,
            BatchClient(gateway.address) as client,
        ):
            client.send(batch(job("f", "w", id="full"), job("f", "w")))
            connection = await server.connection()
            await connection.submission()
            connection.answer(PacketType.ERROR, b"QUEUE_ERROR", b"no room")
            await connection.complete(b"H:1", b"done")
            found = by_number(await client.answers())
            assert (found[1].id, found[1].status, found[1].kind()) == ("full", 503, "job-refused")
            assert "QUEUE_ERROR" in found[1].problem["detail"]
            assert found[2].body == b"done"
