"""Jobs whose data goes to their listener as it comes."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gatewayx.embedded import encode
from support.gateway import MAX_RESULT, RunningGateway, eventually, running_gateway
from support.job_servers import hand_worker
from support.pooled import PooledJobs, end

pytestmark = pytest.mark.anyio


@pytest.fixture
async def gateway(address: tuple[str, int]) -> AsyncIterator[RunningGateway]:
    """One with one connection for jobs."""
    async with running_gateway([address], connections_per_server=1, max_result_bytes=MAX_RESULT) as gateway:
        yield gateway


@pytest.fixture
async def jobs(gateway: RunningGateway) -> PooledJobs:
    """Its jobs."""
    return await PooledJobs(gateway).connected()


@pytest.mark.parametrize("streamed", [True, False])
async def test_data_comes_in_its_order_and_the_end_has_only_its_own(jobs, address, function, streamed):
    async with hand_worker(address, function) as worker:
        job = await jobs.created(function, streamed=streamed)
        assert job.job.streamed is streamed
        handle, *_ = await worker.take()
        worker.send_data(handle, b"a")
        worker.send(encode.work_status(handle, 1, 2), encode.work_warning(handle, b"w"))
        worker.send_data(handle, b"")
        worker.send_data(handle, b"b" * 100_000)
        worker.complete(handle, b"end")
        result = b"end" if streamed else b"a" + b"b" * 100_000 + b"end"
        assert await end(job) == ("completed", result)
        assert job.events[1:-1] == [
            ("data", b"a"),
            ("status", b"1", b"2"),
            ("warning", b"w"),
            ("data", b""),
            ("data", b"b" * 100_000),
        ]
        assert job.job.gathered is None or not streamed


async def test_there_may_be_more_in_all_than_one_result_may_have(gateway, jobs, address, function):
    held = []
    async with hand_worker(address, function) as worker:
        job = jobs.submit(function, streamed=True, on_event=lambda event: held.append(gateway.held()))
        handle, *_ = await worker.take()
        for number in range(20):
            worker.send_data(handle, b"%d" % (number % 10) * (MAX_RESULT - 10))
        worker.complete(handle, b"e" * MAX_RESULT)
        assert await end(job) == ("completed", b"e" * MAX_RESULT)
    assert [event[1][:1] for event in job.events[1:-1]] == [b"%d" % (number % 10) for number in range(20)]
    assert job.job.result_bytes == 0
    # Nothing of what was told before is held while the next packet is told.
    assert all(len(now) == len(held[0]) for now in held[:-1])


@pytest.mark.parametrize("as_end", [True, False], ids=["end", "data"])
async def test_a_packet_that_is_too_large_ends_it(gateway, jobs, address, function, as_end):
    async with hand_worker(address, function) as worker:
        job = await jobs.created(function, streamed=True)
        handle, *_ = await worker.take()
        worker.send_data(handle, b"a" * MAX_RESULT)
        if as_end:
            worker.complete(handle, b"b" * (MAX_RESULT + 1))
        else:
            worker.send_data(handle, b"b" * (MAX_RESULT + 1))
            worker.send_data(handle, b"c")
            worker.complete(handle, b"d")
        assert await end(job) == ("too_large",)
        assert [event[0] for event in job.events] == ["created", "data", "too_large"]
        assert not job.job.over_budget
        following = await jobs.created(function, streamed=True)
        handle, *_ = await worker.take()
        worker.complete(handle, b"after")
        assert await end(following) == ("completed", b"after")


async def test_a_small_packet_may_be_too_large_as_well(address, function):
    async with running_gateway([address], connections_per_server=1, max_result_bytes=1000) as gateway:
        jobs = await PooledJobs(gateway).connected()
        async with hand_worker(address, function) as worker:
            job = await jobs.created(function, streamed=True)
            handle, *_ = await worker.take()
            worker.send_data(handle, b"a" * 1000)
            worker.send_data(handle, b"b" * 1001)
            worker.complete(handle, b"c")
            assert await end(job) == ("too_large",)
            assert job.events[1] == ("data", b"a" * 1000)


async def test_a_failure_behind_data_is_one(jobs, address, function):
    async with hand_worker(address, function) as worker:
        job = await jobs.created(function, streamed=True)
        handle, *_ = await worker.take()
        worker.send_data(handle, b"a")
        worker.send(encode.work_fail(handle))
        assert await end(job) == ("failed", b"")
        assert job.events[1] == ("data", b"a")


async def test_what_comes_for_nobody_is_dropped(gateway, jobs, address, function):
    async with hand_worker(address, function) as worker:
        job = await jobs.created(function, streamed=True)
        handle, *_ = await worker.take()
        worker.send_data(handle, b"a")
        await eventually(lambda: len(job.events) == 2)
        job.abandon()
        dropped = gateway.count("pool.dropped_packets")
        worker.send_data(handle, b"b" * 100_000)
        worker.complete(handle, b"c")
        await eventually(lambda: gateway.count("pool.dropped_packets") > dropped + 1)
        assert job.events[1:] == [("data", b"a")]
        assert gateway.count("pool.abandoned_jobs") == 0
