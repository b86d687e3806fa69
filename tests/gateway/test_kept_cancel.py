"""Jobs that outlive their requests are cancelled and forgotten: what is answered is what the job server and its workers
did, on both job servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest

from gatewayx.embedded import encode
from gatewayx.gearman.packet import PacketType
from support.fault_proxy import DOWN, FaultProxy
from support.fence import upstream_has_read
from support.gateway import RunningGateway, eventually, running_gateway
from support.http import HttpClient, Response, get, head, post
from support.job_servers import HandWorker, hand_worker
from support.kept import KeptClient, at, job_of
from support.peer import dropped, handles

pytestmark = pytest.mark.anyio

# Cancellations against workers that take the job, or end it, in that instant.
RACES = 40


def cancelled(answer: Response, status: int) -> None:
    """Fails unless the answer to a cancellation is that the job is cancelled, and how."""
    assert answer.status == status, answer
    assert job_of(answer)["state"] == "cancelled"


async def has_no_result(kept: KeptClient, job_id: str) -> None:
    """The job is known as cancelled, and everything else is answered so."""
    job = await kept.poll(job_id)
    assert (job["state"], job["result"]) == ("cancelled", None)
    assert job["ended"] is not None
    answer = await kept.result(job_id)
    assert (answer.status, answer.kind()) == (409, "job-cancelled")


def refused(answer: Response, reason: str) -> None:
    """Fails unless the answer is that the job cannot be cancelled, for this reason."""
    assert (answer.status, answer.kind()) == (409, "not-cancellable"), answer
    assert reason in str(answer.problem()["detail"])


class TestCancelled:
    async def test_a_queued_one_is_200_and_no_worker_sees_it(self, kept, job_server, function):
        job_id = await kept.submit(function)
        cancelled(await kept.cancel(job_id), 200)
        await has_no_result(kept, job_id)
        async with hand_worker(job_server.address, function) as worker:
            await worker.no_job()

    async def test_a_running_one_is_202_and_its_result_is_dropped(self, gateway, kept, worker, function):
        job_id = await kept.submit(function)
        handle, _, _, _ = await worker.take()
        worker.send(encode.work_status(handle, 1, 2))
        await kept.until(job_id, lambda job: job["state"] == "running")
        cancelled(await kept.cancel(job_id), 202)
        job = await kept.poll(job_id)
        assert job["progress"] == {"numerator": 1, "denominator": 2}
        before = gateway.count("pool.dropped_packets")
        worker.send_data(handle, b"for nobody")
        worker.complete(handle, b"neither")
        await gateway.reaches("pool.dropped_packets", before + 2)
        await has_no_result(kept, job_id)
        # The connection goes on.
        next_id = await kept.submit(function)
        handle, _, _, _ = await worker.take()
        worker.complete(handle, b"next")
        await kept.until(next_id, lambda job: job["state"] == "succeeded")

    async def test_one_that_a_worker_has_of_which_it_has_said_nothing_is_202(self, kept, worker, function):
        job_id = await kept.submit(function)
        handle, _, _, _ = await worker.take()
        assert (await kept.poll(job_id))["state"] == "queued"
        cancelled(await kept.cancel(job_id), 202)
        await has_no_result(kept, job_id)
        worker.complete(handle)

    async def test_twice_is_no_error(self, kept, worker, function):
        queued = await kept.submit(function)
        for _ in range(3):
            cancelled(await kept.cancel(queued), 200)
        await worker.no_job()
        running = await kept.submit(function)
        handle, _, _, _ = await worker.take()
        for _ in range(3):
            cancelled(await kept.cancel(running), 202)
        worker.send(encode.work_fail(handle))
        cancelled(await kept.cancel(running), 202)

    @pytest.mark.parametrize("runs", [False, True])
    async def test_at_once_by_many_is_the_same_for_all(self, gateway, kept, worker, function, runs):
        job_id = await kept.submit(function)
        if runs:
            handle, _, _, _ = await worker.take()
        clients = [await HttpClient(gateway.address).connect() for _ in range(8)]
        for client in clients:
            client.send(post(at(job_id, "cancel")) * 2)
        for client in clients * 2:
            cancelled(await client.response(), 202 if runs else 200)
        for client in clients:
            await client.close()
        if runs:
            worker.complete(handle)
        else:
            await worker.no_job()

    async def test_by_one_who_leaves_it_is_cancelled_all_the_same(self, gateway, kept, worker, function):
        job_id = await kept.submit(function)
        async with HttpClient(gateway.address) as client:
            client.send(post(at(job_id, "cancel")))
            client.send(head(b"GET", b"/"))
        await kept.until(job_id, lambda job: job["state"] == "cancelled")
        await worker.no_job()

    async def test_those_who_wait_for_it_are_told(self, gateway, kept, worker, function):
        job_id = await kept.submit(function)
        async with HttpClient(gateway.address) as one, HttpClient(gateway.address) as other:
            one.send(get(at(job_id, "", "wait=60")))
            other.send(get(at(job_id, "result", "wait=60")))
            await eventually(lambda: gateway.count("gateway.open_exchanges") == 2)
            cancelled(await kept.cancel(job_id), 200)
            assert job_of(await one.response())["state"] == "cancelled"
            assert (await other.response()).kind() == "job-cancelled"

    async def test_a_failure_of_its_worker_is_not_taken_for_it(self, kept, worker, function):
        job_id = await kept.submit(function)
        handle, _, _, _ = await worker.take()
        worker.send(encode.work_fail(handle))
        job = await kept.until(job_id, lambda job: job["ended"])
        assert job["state"] == "failed"

    async def test_it_counts_no_longer_among_the_jobs_in_flight(self, gateway, kept, function):
        ids = [await kept.submit(function) for _ in range(5)]
        assert gateway.count("admission.jobs") == 5
        for job_id in ids:
            cancelled(await kept.cancel(job_id), 200)
        assert gateway.count("admission.jobs") == 0
        assert gateway.count("pool.outstanding_jobs") == 0


class TestRaces:
    async def test_with_a_worker_that_takes_it_in_that_instant(self, gateway, kept, worker, function):
        async with HttpClient(gateway.address) as client:
            told = []
            for number in range(RACES):
                job_id = await kept.submit(function, b"%d" % number)
                if number % 2:
                    client.send(post(at(job_id, "cancel")))
                    worker.send(encode.grab_job_uniq())
                else:
                    worker.send(encode.grab_job_uniq())
                    client.send(post(at(job_id, "cancel")))
                answer = await client.response()
                told.append(answer.status)
                found = await worker.receive()
                if answer.status == 200:
                    assert found.type == PacketType.NO_JOB, "a worker has a job of which was said that it will not run"
                else:
                    cancelled(answer, 202)
                if found.type == PacketType.JOB_ASSIGN_UNIQ:
                    assert found.arguments[3] == b"%d" % number
                    worker.complete(found.arguments[0], b"dropped")
                await has_no_result(kept, job_id)
                await worker.settle()

    async def test_with_a_worker_that_ends_it_in_that_instant(self, gateway, kept, worker, function):
        async with HttpClient(gateway.address) as client:
            for number in range(RACES):
                job_id = await kept.submit(function)
                handle, _, _, _ = await worker.take()
                if number % 2:
                    client.send(post(at(job_id, "cancel")))
                    worker.complete(handle, b"done")
                else:
                    worker.complete(handle, b"done")
                    client.send(post(at(job_id, "cancel")))
                answer = await client.response()
                if answer.status == 409:
                    refused(answer, "has ended")
                    done = await kept.result(job_id)
                    assert (done.status, done.body) == (200, b"done")
                else:
                    cancelled(answer, 202)
                    await has_no_result(kept, job_id)
                await worker.settle()


class TestNotCancelled:
    @pytest.mark.parametrize("end", ["complete", "fail", "exception"])
    async def test_what_has_ended(self, kept, worker, function, end):
        job_id = await kept.submit(function)
        handle, _, _, _ = await worker.take()
        worker.send(
            encode.work_fail(handle) if end == "fail" else getattr(encode, f"work_{end}")(handle, b"with this data")
        )
        before = await kept.until(job_id, lambda job: job["ended"])
        refused(await kept.cancel(job_id), "the job has ended")
        assert await kept.poll(job_id) == before

    async def test_what_has_ended_without_a_worker(self, gateway, kept, function):
        with gateway.within_a_tick():
            job_id = await kept.submit(function, b"", b"X-Gearman-Timeout: 0.5")
        await kept.until(job_id, lambda job: job["state"] == "timeout")
        refused(await kept.cancel(job_id), "whether it has ended is not known")

    async def test_what_others_may_wait_for(self, kept, worker, function):
        job_id = await kept.submit(function, b"w", b"X-Gearman-Unique: shared")
        refused(await kept.cancel(job_id), "unique")
        handle, _, _, _ = await worker.take()
        refused(await kept.cancel(job_id), "unique")
        worker.complete(handle, b"all the same")
        await kept.until(job_id, lambda job: job["state"] == "succeeded")
        assert (await kept.result(job_id)).body == b"all the same"


class Stage(NamedTuple):
    """A gateway behind a proxy, and who uses it."""

    proxy: FaultProxy
    gateway: RunningGateway
    kept: KeptClient
    worker: HandWorker


class TestConnectionsLost:
    @pytest.fixture
    async def stage(self, job_server, function) -> AsyncIterator[Stage]:
        """The gateway reaches its job server through a proxy."""
        async with (
            FaultProxy(job_server.address) as proxy,
            running_gateway([proxy.address], connections_per_server=1) as gateway,
            KeptClient(gateway.address) as kept,
            hand_worker(job_server.address, function) as worker,
        ):
            # One for jobs, and one for text.
            await eventually(lambda: gateway.count("pool.connections") == 1 and len(proxy.sides) == 4)
            yield Stage(proxy, gateway, kept, worker)

    async def test_with_the_text_connection_its_handle_is_lost(self, stage, function):
        job_id = await stage.kept.submit(function)
        before = set(stage.proxy.sides)
        stage.proxy.drop_text()
        # With another one the handle may be another job's.
        await eventually(lambda: len(stage.proxy.sides - before) == 2 and len(stage.proxy.sides) == 4)
        for _ in range(2):
            refused(await stage.kept.cancel(job_id), "cannot be asked to cancel it")
        assert (await stage.kept.poll(job_id))["state"] == "queued"
        handle, _, _, _ = await stage.worker.take()
        stage.worker.complete(handle, b"it ran")
        await stage.kept.until(job_id, lambda job: job["state"] == "succeeded")

    async def test_what_was_asked_for_when_it_went_is_not_known(self, stage, function):
        job_id = await stage.kept.submit(function)
        stage.proxy.mutes_text = True
        stage.kept.http.send(post(at(job_id, "cancel")))
        await eventually(lambda: stage.proxy.muted_bytes > len(b"status\n"))
        stage.proxy.mutes_text = False
        stage.proxy.drop_text()
        answer = await stage.kept.http.response()
        assert (answer.status, answer.kind()) == (502, "outcome-unknown")
        # It was not cancelled here.
        assert (await stage.kept.poll(job_id))["state"] == "queued"
        handle, _, _, _ = await stage.worker.take()
        stage.worker.complete(handle, b"it ran")
        await stage.kept.until(job_id, lambda job: job["state"] == "succeeded")
        refused(await stage.kept.cancel(job_id), "the job has ended")

    async def test_with_the_job_connection_the_job_is_lost(self, stage, function):
        job_id = await stage.kept.submit(function)
        stage.proxy.cut(DOWN, 0)
        await stage.kept.until(job_id, lambda job: job["state"] == "lost")
        refused(await stage.kept.cancel(job_id), "whether it has ended is not known")

    async def test_lost_while_it_is_being_cancelled_it_is_lost(self, stage, function):
        job_id = await stage.kept.submit(function)
        stage.proxy.mutes_text = True
        stage.kept.http.send(post(at(job_id, "cancel")))
        await eventually(lambda: stage.proxy.muted_bytes > len(b"status\n"))
        stage.proxy.cut(DOWN, 0)
        answer = await stage.kept.http.response()
        assert (answer.status, answer.kind()) == (502, "outcome-unknown")
        assert (await stage.kept.poll(job_id))["state"] == "lost"
        stage.proxy.mutes_text = False
        stage.proxy.drop_text()

    async def test_forgotten_without_a_text_connection_it_is_let_go(self, stage, function):
        job_id = await stage.kept.submit(function)
        stage.proxy.drop_text()
        assert (await stage.kept.forget(job_id)).status == 204
        handle, _, _, _ = await stage.worker.take()
        stage.worker.complete(handle)


class TestForgotten:
    async def test_a_queued_one_is_cancelled(self, kept, job_server, function):
        before = await handles(job_server.address)
        job_id = await kept.submit(function)
        [handle] = await handles(job_server.address) - before
        assert (await kept.forget(job_id)).status == 204
        await dropped(job_server.address, handle)
        async with hand_worker(job_server.address, function) as worker:
            await worker.no_job()

    async def test_a_running_one_is_not_run_again(self, kept, job_server, function):
        async with hand_worker(job_server.address, function) as worker:
            job_id = await kept.submit(function)
            handle, _, _, _ = await worker.take()
            assert (await kept.forget(job_id)).status == 204
            await dropped(job_server.address, handle)
        # Its worker has gone: without the cancellation the next one would have the job.
        async with hand_worker(job_server.address, function) as worker:
            await worker.no_job()

    async def test_one_that_others_wait_for_goes_on_for_them(self, gateway, kept, worker, function):
        line = b"X-Gearman-Unique: shared"
        forgotten = await kept.submit(function, b"w", line)
        other = await kept.submit(function, b"w", line)
        async with HttpClient(gateway.address) as client:
            client.send(post(b"/" + function, b"w", line))
            await gateway.reaches("pool.outstanding_jobs", 3)
            await upstream_has_read(gateway, function)
            assert (await kept.forget(forgotten)).status == 204
            handle, _, _, _ = await worker.take()
            worker.complete(handle, b"for the others")
            assert (await client.response()).body == b"for the others"
        await kept.until(other, lambda job: job["state"] == "succeeded")
        assert (await kept.call(b"GET", at(forgotten))).status == 404

    async def test_an_ended_one_takes_its_result_with_it(self, gateway, kept, worker, function):
        job_id = await kept.submit(function)
        handle, _, _, _ = await worker.take()
        worker.complete(handle, b"x" * 100_000)
        await kept.until(job_id, lambda job: job["ended"])
        assert gateway.count("budget.results_bytes") > 100_000
        assert (await kept.forget(job_id)).status == 204
        assert gateway.count("budget.results_bytes") == 0
        assert (await kept.result(job_id)).kind() == "job-unknown"

    async def test_those_who_wait_are_told_that_it_is_cancelled(self, gateway, kept, worker, function):
        job_id = await kept.submit(function)
        async with HttpClient(gateway.address) as one, HttpClient(gateway.address) as other:
            one.send(get(at(job_id, "", "wait=60")))
            other.send(get(at(job_id, "result", "wait=60")))
            await eventually(lambda: gateway.count("gateway.open_exchanges") == 2)
            assert (await kept.forget(job_id)).status == 204
            assert job_of(await one.response())["state"] == "cancelled"
            assert (await other.response()).kind() == "job-cancelled"
        assert (await kept.call(b"GET", at(job_id))).status == 404

    async def test_while_it_is_being_cancelled_both_are_answered(self, gateway, kept, worker, function):
        for _ in range(RACES):
            job_id = await kept.submit(function)
            async with HttpClient(gateway.address) as client:
                client.send(post(at(job_id, "cancel")), head(b"DELETE", at(job_id)))
                kept.http.send(head(b"DELETE", at(job_id)))
                assert (await client.response()).status in (200, 202, 404)
                assert sorted([(await client.response()).status, (await kept.http.response()).status]) == [204, 404]
            await worker.no_job()

    async def test_many_at_once_leave_nothing(self, gateway, kept, job_server, function):
        ids = [await kept.submit(function, b"%d" % number) for number in range(300)]
        for job_id in ids:
            kept.http.send(head(b"DELETE", at(job_id)))
        for _ in ids:
            assert (await kept.http.response()).status == 204
        async with hand_worker(job_server.address, function) as worker:
            await asyncio.sleep(0)
            await eventually(lambda: gateway.count("pool.abandoned_jobs") == 0)
            await worker.no_job()
