"""The pipelining worker and the sample functions, on the embedded job server and on gearmand."""

from __future__ import annotations

import asyncio
import logging

import pytest

from gatewayx.embedded import encode, sample_functions
from gatewayx.embedded.worker import AssignedJob, Worker
from gatewayx.gearman.errors import InvalidArgumentError, InvalidStateError
from gatewayx.gearman.packet import PacketType
from support.peer import Peer
from support.times import WAIT_S
from support.tools import run_tool

pytestmark = pytest.mark.anyio


@pytest.fixture
async def started(address):
    """Starts workers against `address`; all are closed after the test."""
    workers = []

    async def start(functions, **options) -> Worker:
        worker = Worker(address, functions, **options)
        await worker.start()
        workers.append(worker)
        return worker

    yield start
    for worker in workers:
        await worker.close()
        assert worker.lost.done()


@pytest.fixture
async def client(address):
    """A client that asked for exceptions."""
    async with Peer(address) as peer:
        peer.send(encode.option_req(b"exceptions"))
        await peer.expect(PacketType.OPTION_RES)
        yield peer


async def result(client: Peer, function: bytes, workload: bytes) -> list[tuple]:
    """What comes for a job after its JOB_CREATED, up to its end, without the handle."""
    handle = await client.submit(function, b"", workload)
    found = []
    while not found or found[-1][0] not in ("WORK_COMPLETE", "WORK_FAIL", "WORK_EXCEPTION"):
        got = await client.receive()
        assert got.arguments[0] == handle
        found.append((got.type.name, *got.arguments[1:]))
    return found


class TestSampleFunctions:
    @pytest.mark.parametrize(
        ("name", "workload", "expected"),
        [
            (b"reverse", b"Hello world!", [("WORK_COMPLETE", b"!dlrow olleH")]),
            (b"echo", b"\0\xff", [("WORK_COMPLETE", b"\0\xff")]),
            (b"echo", b"", [("WORK_COMPLETE", b"")]),
            (b"sleep", b"0.001", [("WORK_COMPLETE", b"0.001")]),
            (b"sleep", b"0", [("WORK_COMPLETE", b"0")]),
            (b"sleep", b"61", [("WORK_FAIL",)]),
            (b"sleep", b"-1", [("WORK_FAIL",)]),
            (b"sleep", b"nan", [("WORK_FAIL",)]),
            (b"sleep", b"1\n", [("WORK_FAIL",)]),
            (b"sleep", b"", [("WORK_FAIL",)]),
            (b"fail", b"x", [("WORK_FAIL",)]),
            (b"exception", b"why", [("WORK_EXCEPTION", b"why")]),
            (b"warning", b"careful", [("WORK_WARNING", b"careful"), ("WORK_COMPLETE", b"careful")]),
        ],
    )
    async def test_answers(self, started, client, function, name, workload, expected):
        await started({function: sample_functions.FUNCTIONS[name]})
        assert await result(client, function, workload) == expected

    async def test_progress(self, started, client, function, monkeypatch):
        monkeypatch.setattr(sample_functions, "PROGRESS_STEP_S", 0)
        await started({function: sample_functions.progress})
        expected = []
        for step in range(1, 6):
            expected += [("WORK_STATUS", b"%d" % step, b"5"), ("WORK_DATA", b"step %d of 5\n" % step)]
        assert await result(client, function, b"") == [*expected, ("WORK_COMPLETE", b"done\n")]

    async def test_progress_that_is_told_how_long_to_take(self, started, client, function):
        await started({function: sample_functions.progress})
        told = await result(client, function, b"0.02")
        assert told[::2] == [
            *(("WORK_STATUS", b"%d" % step, b"20") for step in range(1, 21)),
            ("WORK_COMPLETE", b"done\n"),
        ]
        assert [entry[0] for entry in told[1::2]] == ["WORK_DATA"] * 20

    async def test_gearman_tool_sees_the_result(self, started, address, function):
        await started({function: sample_functions.reverse})
        code, output = await run_tool("gearman", address[1], "-f", function.decode(), "hello")
        assert (code, output) == (0, b"olleh")

    async def test_gearman_tool_sees_the_failure(self, started, address, function):
        await started({function: sample_functions.fail})
        code, _ = await run_tool("gearman", address[1], "-f", function.decode(), "hello")
        assert code == 1


class TestWorker:
    async def test_many_jobs_through_few_slots(self, started, client, function):
        worker = await started({function: sample_functions.reverse}, concurrency=4)
        client.send(*[encode.submit_job(7, function, b"", b"%d!" % n) for n in range(1000)])
        created, completed = [], {}
        while len(completed) < 1000:
            got = await client.receive()
            if got.type == PacketType.JOB_CREATED:
                created.append(got.arguments[0])
            else:
                assert got.type == PacketType.WORK_COMPLETE
                completed[got.arguments[0]] = got.arguments[1]
        assert [completed[handle] for handle in created] == [(b"%d!" % n)[::-1] for n in range(1000)]
        assert worker.finished == 1000
        assert worker.errors == 0

    async def test_asynchronous_jobs_run_at_once_up_to_the_concurrency(self, started, client, function):
        running, most = 0, 0
        gate = asyncio.Event()

        async def wait(job: AssignedJob) -> bytes:
            nonlocal running, most
            running += 1
            most = max(most, running)
            if running == 3:
                gate.set()
            await gate.wait()
            await asyncio.sleep(0)
            running -= 1
            return job.workload

        await started({function: wait}, concurrency=3)
        client.send(*[encode.submit_job(7, function, b"", b"%d" % n) for n in range(10)])
        done = []
        while len(done) < 10:
            got = await client.receive()
            if got.type == PacketType.WORK_COMPLETE:
                done.append(got.arguments[1])
        assert sorted(done) == [b"%d" % n for n in range(10)]
        assert most == 3

    async def test_wakes_up_after_sleeping(self, started, client, function):
        await started({function: sample_functions.echo})
        for number in range(5):
            assert await result(client, function, b"%d" % number) == [("WORK_COMPLETE", b"%d" % number)]
            assert await client.settle() == []

    @pytest.mark.parametrize("size", [16_384, 16_385, 1_048_576])
    async def test_large_results(self, started, client, function, size):
        await started({function: sample_functions.echo})
        data = bytes(range(256)) * (size // 256 + 1)
        assert await result(client, function, data[:size]) == [("WORK_COMPLETE", data[:size])]

    async def test_what_a_function_raises_ends_its_job(self, started, client, function, caplog):
        async def raises_later(job: AssignedJob) -> None:
            await asyncio.sleep(0)
            raise LookupError("later")

        def raises(job: AssignedJob) -> None:
            raise LookupError("at once")

        await started({function: raises, function + b"2": raises_later, function + b"3": lambda job: None})
        with caplog.at_level(logging.CRITICAL, "gatewayx.embedded.worker"):
            assert await result(client, function, b"") == [("WORK_EXCEPTION", b"at once")]
            assert await result(client, function + b"2", b"") == [("WORK_EXCEPTION", b"later")]
            assert await result(client, function + b"3", b"") == [("WORK_COMPLETE", b"")]

    async def test_job_ends_once(self, started, client, function):
        seen = []

        def twice(job: AssignedJob) -> bytes:
            seen.append((job.function, job.unique, job.workload, job.ended))
            job.complete(b"first")
            assert job.ended
            for again in (job.fail, job.complete, lambda: job.send_data(b""), lambda: job.send_status(1, 2)):
                with pytest.raises(InvalidStateError):
                    again()
            return b"second"

        worker = await started({function: twice})
        assert await result(client, function, b"w") == [("WORK_COMPLETE", b"first")]
        assert await client.settle() == []
        assert seen == [(function, b"", b"w", False)]
        assert worker.finished == 1

    async def test_closing_gives_its_job_back(self, started, client, function):
        begun = asyncio.Event()

        async def forever(job: AssignedJob) -> None:
            begun.set()
            await asyncio.Event().wait()

        worker = await started({function: forever})
        handle = await client.submit(function, b"", b"again")
        await asyncio.wait_for(begun.wait(), WAIT_S)
        await worker.close()
        await started({function: sample_functions.echo})
        assert await client.expect(PacketType.WORK_COMPLETE) == (handle, b"again")


async def test_lost_connection_is_told_and_cancels_what_runs(embedded):
    begun = asyncio.Event()
    cancelled = asyncio.Event()

    async def forever(job: AssignedJob) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            assert job.ended
            cancelled.set()

    worker = Worker(embedded.address, {b"f": forever})
    await worker.start()
    async with Peer(embedded.address) as client:
        await client.submit(b"f", b"", b"")
        await asyncio.wait_for(begun.wait(), WAIT_S)
        await embedded.close()
    await asyncio.wait_for(worker.lost, WAIT_S)
    await asyncio.wait_for(cancelled.wait(), WAIT_S)
    await worker.close()


async def test_start_fails_where_nobody_listens(embedded):
    await embedded.close()
    worker = Worker(embedded.address, {b"f": sample_functions.echo})
    with pytest.raises(ConnectionRefusedError):
        await worker.start()
    await worker.close()


def test_concurrency_is_at_least_one():
    with pytest.raises(InvalidArgumentError):
        Worker(("127.0.0.1", 1), {}, concurrency=0)
