"""Idempotency keys of background jobs, and of jobs that outlive their requests."""

from __future__ import annotations

import asyncio
import time

import pytest
from msgspec import structs

from gatewayx.core.shared import KEPT_JOBS
from gatewayx.embedded import encode
from gatewayx.gearman.packet import PacketType
from support.gateway import RunningGateway, eventually, running_gateway
from support.http import HttpClient, get
from support.job_servers import ScriptedJobServer, hand_worker, nobody_listens
from support.kept import ASYNC, KeptClient, at, job_of
from support.keys import counted, is_again, is_first, keyed, known_keys, new_key, waits
from support.peer import ask_text
from support.times import NOT_BEFORE

pytestmark = pytest.mark.anyio

BACKGROUND = b"X-Gearman-Background: true"


async def jobs_of(address: tuple[str, int], function: bytes) -> int:
    """How many jobs of the function the job server has."""
    for line in (await ask_text(address, b"status")).splitlines():
        name, _, rest = line.partition(b"\t")
        if name == function:
            return int(rest.split(b"\t")[0])
    return 0


class TestBackground:
    @pytest.mark.parametrize("priority", [b"low", b"normal", b"high"])
    async def test_twice_is_one_job_at_the_job_server(self, gateway, client, job_server, function, priority):
        request = keyed(function, b"w", new_key(), BACKGROUND, b"X-Gearman-Priority: " + priority)
        first = await client.ask(request)
        assert (first.status, first.body, is_first(first)) == (200, b"", True)
        assert first.headers[b"x-gearman-command"] == b"JOB_CREATED"
        assert first.headers[b"location"].startswith(b"/v1/jobs/")
        for _ in range(3):
            assert is_again(await client.ask(request), first)
        assert await jobs_of(job_server.address, function) == 1
        async with hand_worker(job_server.address, function) as worker:
            handle, _, unique, workload = await worker.take()
            assert workload == b"w"
            assert first.headers[b"x-gearman-job-handle"] == handle
            assert first.headers[b"x-gearman-unique"] == unique
            # Whether it waits, runs or has ended makes no difference.
            assert is_again(await client.ask(request), first)
            worker.complete(handle)
            await worker.settle()
            assert is_again(await client.ask(request), first)
            await worker.no_job()
        assert known_keys(gateway) == 1

    async def test_all_at_once_are_one_job_at_the_job_server(self, gateway, job_server, function):
        request = keyed(function, b"w", new_key(), BACKGROUND)
        clients = [await HttpClient(gateway.address).connect() for _ in range(20)]
        for client in clients:
            client.send(request * 3)
        answers = [await client.response() for client in clients for _ in range(3)]
        [first] = [answer for answer in answers if is_first(answer)]
        assert first.status == 200
        assert all(answer is first or is_again(answer, first) for answer in answers)
        assert await jobs_of(job_server.address, function) == 1
        for client in clients:
            await client.close()
        async with hand_worker(job_server.address, function) as worker:
            handle, _, _, _ = await worker.take()
            worker.complete(handle)
            await worker.no_job()

    async def test_that_is_not_confirmed_in_time_is_504_and_stays(self):
        async with (
            ScriptedJobServer() as server,
            running_gateway([server.address], connections_per_server=1) as gateway,
            HttpClient(gateway.address) as client,
        ):
            upstream = await server.connection()
            request = keyed(b"f", b"w", new_key(), BACKGROUND, b"X-Gearman-Timeout: 0.3")
            client.send(request)
            await upstream.submission()
            first = await client.response()
            assert (first.status, first.kind()) == (504, "job-timeout")
            assert is_again(await client.ask(request), first)
            # That it is confirmed later changes nothing of what was told.
            upstream.answer(PacketType.JOB_CREATED, b"H:1")
            assert is_again(await client.ask(request), first)
            assert upstream.submissions.empty()

    async def test_that_is_confirmed_while_others_wait_is_told_to_all(self):
        async with (
            ScriptedJobServer() as server,
            running_gateway([server.address], connections_per_server=1) as gateway,
            HttpClient(gateway.address) as client,
            HttpClient(gateway.address) as other,
        ):
            upstream = await server.connection()
            request = keyed(b"f", b"w", new_key(), BACKGROUND)
            client.send(request)
            submission = await upstream.submission()
            assert submission.type == PacketType.SUBMIT_JOB_BG
            before = gateway.count("gateway.open_exchanges")
            other.send(request)
            await waits(gateway, before)
            upstream.answer(PacketType.JOB_CREATED, b"H:1")
            first = await client.response()
            assert (first.status, first.headers[b"x-gearman-job-handle"]) == (200, b"H:1")
            assert is_again(await other.response(), first)
            assert upstream.submissions.empty()

    async def test_that_is_lost_before_it_was_confirmed_is_502_and_stays(self):
        async with (
            ScriptedJobServer() as server,
            running_gateway([server.address], connections_per_server=1) as gateway,
            HttpClient(gateway.address) as client,
        ):
            upstream = await server.connection()
            request = keyed(b"f", b"w", new_key(), BACKGROUND)
            client.send(request)
            await upstream.submission()
            upstream.close()
            first = await client.response()
            assert (first.status, first.kind()) == (502, "outcome-unknown")
            upstream = await server.connection()
            assert is_again(await client.ask(request), first)
            assert upstream.submissions.empty()

    async def test_without_a_job_server_it_is_503_and_the_key_is_free(self):
        async with running_gateway([nobody_listens()]) as gateway, HttpClient(gateway.address) as client:
            answer = await client.ask(keyed(b"f", b"w", new_key(), BACKGROUND))
            assert (answer.status, answer.kind()) == (503, "no-job-server")
            assert known_keys(gateway) == 0

    async def test_that_may_be_asked_for_is_202_with_the_same_location(self, client, job_server, function):
        request = keyed(function, b"w", new_key(), BACKGROUND, ASYNC)
        first = await client.ask(request)
        assert (first.status, is_first(first)) == (202, True)
        again = await client.ask(request)
        assert is_again(again, first)
        assert again.headers[b"location"] == first.headers[b"location"]
        assert (await client.ask(get(again.headers[b"location"]))).status == 200
        assert await jobs_of(job_server.address, function) == 1
        async with hand_worker(job_server.address, function) as worker:
            handle, _, _, _ = await worker.take()
            worker.complete(handle)
            await worker.no_job()


async def kept_with_key(kept: KeptClient, request: bytes) -> tuple[object, str]:
    """The 202 to a request, and the id that it tells."""
    first = await kept.http.ask(request)
    assert (first.status, is_first(first)) == (202, True), first
    return first, kept.accepted(first)


class TestKept:
    async def test_the_202_is_the_same_whatever_becomes_of_the_job(self, gateway, kept, worker, function):
        request = keyed(function, b"w", new_key(), ASYNC)
        first, job_id = await kept_with_key(kept, request)
        assert is_again(await kept.http.ask(request), first)
        handle, _, unique, workload = await worker.take()
        assert (workload, first.headers[b"x-gearman-unique"]) == (b"w", unique)
        worker.send(encode.work_status(handle, 1, 2))
        await kept.until(job_id, lambda job: job["state"] == "running")
        again = await kept.http.ask(request)
        assert is_again(again, first)
        assert again.headers[b"location"] == first.headers[b"location"]
        assert again.headers[b"preference-applied"] == b"respond-async"
        worker.complete(handle, b"result")
        await kept.until(job_id, lambda job: job["state"] == "succeeded")
        assert is_again(await kept.http.ask(request), first)
        answer = await kept.result(job_id)
        assert (answer.status, answer.body) == (200, b"result")
        await worker.no_job()
        assert gateway.process.shared.taken(KEPT_JOBS) == 1

    async def test_after_it_was_cancelled_or_forgotten_it_is_the_same(self, gateway, kept, worker, function):
        request = keyed(function, b"w", new_key(), ASYNC)
        first, job_id = await kept_with_key(kept, request)
        assert (await kept.cancel(job_id)).status == 200
        assert is_again(await kept.http.ask(request), first)
        assert (await kept.forget(job_id)).status == 204
        assert is_again(await kept.http.ask(request), first)
        assert (await kept.call(b"GET", first.headers[b"location"])).kind() == "job-unknown"
        await worker.no_job()
        assert gateway.process.shared.taken(KEPT_JOBS) == 0
        assert known_keys(gateway) == 1

    async def test_all_at_once_have_one_job(self, gateway, kept, worker, function):
        request = keyed(function, b"w", new_key(), ASYNC)
        clients = [await HttpClient(gateway.address).connect() for _ in range(20)]
        for client in clients:
            client.send(request)
        answers = [await client.response() for client in clients]
        [first] = [answer for answer in answers if is_first(answer)]
        kept.accepted(first)
        assert all(answer is first or is_again(answer, first) for answer in answers)
        for client in clients:
            await client.close()
        handle, _, _, _ = await worker.take()
        worker.complete(handle)
        await worker.no_job()

    async def test_that_ends_within_its_wait_is_200_and_stays(self, gateway, kept, worker, function):
        request = keyed(function, b"w", new_key(), b"Prefer: respond-async, wait=60")
        async with HttpClient(gateway.address) as other:
            kept.http.send(request)
            handle, _, _, _ = await worker.take()
            before = gateway.count("gateway.open_exchanges")
            other.send(request)
            await waits(gateway, before)
            worker.send_data(handle, b"so")
            worker.complete(handle, b"on")
            first = await kept.http.response()
            assert (first.status, first.body, is_first(first)) == (200, b"soon", True)
            assert b"location" not in first.headers
            assert is_again(await other.response(), first)
        assert is_again(await kept.http.ask(request), first)
        assert gateway.process.shared.taken(KEPT_JOBS) == 0
        await worker.no_job()

    async def test_that_does_not_end_within_its_wait_is_202_after_it_for_all(self, gateway, kept, worker, function):
        request = keyed(function, b"w", new_key(), b"Prefer: respond-async, wait=1")
        async with HttpClient(gateway.address) as other:
            began_s = time.monotonic()
            with gateway.within_a_tick():
                kept.http.send(request)
                handle, _, _, _ = await worker.take()
                before = gateway.count("gateway.open_exchanges")
                other.send(request)
                await waits(gateway, before)
            first = await kept.http.response()
            assert time.monotonic() - began_s >= NOT_BEFORE
            job_id = kept.accepted(first)
            assert is_again(await other.response(), first)
            worker.complete(handle, b"later")
            await kept.until(job_id, lambda job: job["state"] == "succeeded")
            assert is_again(await other.ask(request), first)
        assert (await kept.result(job_id)).body == b"later"

    async def test_its_key_is_known_while_it_runs_and_its_time_after_that(self, job_server, function):
        async with (
            running_gateway([job_server.address], kept_ttl_s=0.5) as gateway,
            hand_worker(job_server.address, function) as worker,
            KeptClient(gateway.address) as kept,
        ):
            request = keyed(function, b"w", new_key(), ASYNC)
            first, job_id = await kept_with_key(kept, request)
            handle, _, _, _ = await worker.take()
            # For twice as long as it would be known without the job.
            assert job_of(await kept.call(b"GET", at(job_id, "", "wait=1")))["ended"] is None
            assert is_again(await kept.http.ask(request), first)
            await worker.no_job()
            kept.http.send(get(at(job_id, "", "wait=60")))
            await waits(gateway, 0)
            ended_s = time.monotonic()
            worker.complete(handle)
            assert job_of(await kept.http.response())["ended"] is not None
            await eventually(lambda: not known_keys(gateway))
            assert time.monotonic() - ended_s >= 0.4
            kept.accepted(await kept.http.ask(request))
            handle, _, _, _ = await worker.take()
            worker.complete(handle)

    @pytest.mark.parametrize("runs", [False, True])
    async def test_its_key_is_not_known_for_ever_once_it_was_forgotten(self, job_server, function, runs):
        async with (
            running_gateway([job_server.address]) as gateway,
            hand_worker(job_server.address, function) as worker,
            KeptClient(gateway.address) as kept,
        ):
            request = keyed(function, b"w", new_key(), ASYNC)
            first, job_id = await kept_with_key(kept, request)
            if runs:
                await worker.take()
            assert (await kept.forget(job_id)).status == 204
            assert is_again(await kept.http.ask(request), first)
            await gateway.process.reconfigure(structs.replace(gateway.process.settings, kept_ttl_s=0.5))
            await eventually(lambda: not known_keys(gateway))

    async def test_whose_clients_leave_within_the_wait_goes_on(self, gateway, kept, worker, function):
        request = keyed(function, b"w", new_key(), b"Prefer: respond-async, wait=60")
        async with HttpClient(gateway.address) as leaving:
            leaving.send(request)
            handle, _, _, _ = await worker.take()
            leaving.reset()
        await eventually(lambda: gateway.count("http.connections") == 1)
        worker.complete(handle, b"all the same")
        while is_first(answer := await kept.http.ask(request)):
            raise AssertionError(answer)
        assert (answer.status, answer.body) == (200, b"all the same")
        await worker.no_job()

    async def test_without_a_preference_it_is_202_again_and_the_reverse(self, kept, worker, function):
        key = new_key()
        first, job_id = await kept_with_key(kept, keyed(function, b"w", key, ASYNC))
        assert is_again(await kept.http.ask(keyed(function, b"w", key)), first)
        handle, _, _, _ = await worker.take()
        worker.complete(handle)
        await kept.until(job_id, lambda job: job["ended"])
        key = new_key()
        kept.http.send(keyed(function, b"w", key))
        handle, _, _, _ = await worker.take()
        worker.complete(handle, b"now")
        first = await kept.http.response()
        assert first.status == 200
        assert is_again(await kept.http.ask(keyed(function, b"w", key, ASYNC)), first)

    async def test_without_room_it_is_503_and_the_key_is_free(self, job_server, function):
        async with (
            running_gateway([job_server.address], max_kept_jobs=1) as gateway,
            hand_worker(job_server.address, function) as worker,
            KeptClient(gateway.address) as kept,
        ):
            held = await kept.submit(function, b"held")
            request = keyed(function, b"w", new_key(), ASYNC)
            for _ in range(2):
                answer = await kept.http.ask(request)
                assert (answer.status, answer.kind(), is_first(answer)) == (503, "too-many-kept-jobs", True)
            assert known_keys(gateway) == 0
            assert (await kept.forget(held)).status == 204
            first, _ = await kept_with_key(kept, request)
            assert is_again(await kept.http.ask(request), first)
            handle, _, _, workload = await worker.take()
            assert workload == b"w"
            worker.complete(handle)
            await worker.no_job()

    async def test_the_job_outlives_its_key_s_process_of_answering(self, gateway, kept, worker, function):
        """What is asked of the job by its id is told as of any, while its key answers with the first 202."""
        request = keyed(function, b"w", new_key(), ASYNC)
        first, job_id = await kept_with_key(kept, request)
        handle, _, _, _ = await worker.take()
        worker.send(encode.work_exception(handle, b"wrong"))
        job = await kept.until(job_id, lambda job: job["ended"])
        assert job["state"] == "failed"
        again = await kept.http.ask(request)
        assert is_again(again, first)
        assert job_of(again)["state"] == "queued"
        assert counted(gateway, "kept_begun") == 1


class TestNobodyWaits:
    async def leaves(self, gateway: RunningGateway, client: HttpClient, reset: bool) -> None:
        """The client is gone, and the gateway knows."""
        abandoned = gateway.count("http.requests_abandoned")
        if reset:
            client.reset()
        else:
            await client.close()
        await gateway.reaches("http.requests_abandoned", abandoned + 1)

    @pytest.mark.parametrize("reset", [False, True])
    @pytest.mark.parametrize("who", [(0,), (1,), (0, 1), (1, 0), (0, 1, 2), (2, 1, 0)])
    async def test_the_job_runs_once_and_whoever_asks_again_is_answered(self, gateway, worker, function, who, reset):
        request = keyed(function, b"w", new_key())
        clients = [await HttpClient(gateway.address).connect() for _ in range(3)]
        clients[0].send(request)
        handle, _, _, _ = await worker.take()
        for client in clients[1:]:
            before = gateway.count("gateway.open_exchanges")
            client.send(request)
            await waits(gateway, before)
        for number in who:
            await self.leaves(gateway, clients[number], reset)
        assert gateway.count("pool.outstanding_jobs") == 1
        assert gateway.count("pool.abandoned_jobs") == 0
        async with HttpClient(gateway.address) as late:
            before = gateway.count("gateway.open_exchanges")
            late.send(request)
            await waits(gateway, before)
            worker.send_data(handle, b"all ")
            worker.complete(handle, b"there")
            answers = [await client.response() for number, client in enumerate(clients) if number not in who]
            answers += [await late.response(), await late.ask(request)]
        assert {(answer.status, answer.body) for answer in answers} == {(200, b"all there")}
        # Whoever began it alone is told that it did.
        assert [is_first(answer) for answer in answers] == [0 not in who, *[False] * (len(answers) - 1)]
        await worker.no_job()
        for client in clients:
            await client.close()

    @pytest.mark.parametrize("reset", [False, True])
    async def test_one_whose_only_client_leaves_before_any_worker_has_it_runs(
        self, gateway, job_server, function, reset
    ):
        request = keyed(function, b"w", new_key())
        async with HttpClient(gateway.address) as client:
            client.send(request)
            await eventually(lambda: gateway.count("pool.outstanding_jobs") == 1)
            await self.leaves(gateway, client, reset)
        async with hand_worker(job_server.address, function) as worker, HttpClient(gateway.address) as late:
            late.send(request)
            handle, _, _, _ = await worker.take()
            worker.complete(handle, b"waited")
            answer = await late.response()
            assert (answer.status, answer.body, is_first(answer)) == (200, b"waited", False)
            await worker.no_job()

    async def test_one_that_ends_for_nobody_is_answered_to_whoever_comes(self, gateway, client, worker, function):
        request = keyed(function, b"w", new_key())
        async with HttpClient(gateway.address) as leaving:
            leaving.send(request)
            handle, _, _, _ = await worker.take()
            await self.leaves(gateway, leaving, True)
        worker.complete(handle, b"for whoever comes")
        await eventually(lambda: gateway.process.keys.counters()["running"] == 0)
        answer = await client.ask(request)
        assert (answer.status, answer.body, is_first(answer)) == (200, b"for whoever comes", False)
        await worker.no_job()

    async def test_one_that_times_out_for_nobody_is_504_for_whoever_comes(self, gateway, client, function):
        request = keyed(function, b"w", new_key(), b"X-Gearman-Timeout: 0.3")
        async with HttpClient(gateway.address) as leaving:
            with gateway.within_a_tick():
                leaving.send(request)
                await eventually(lambda: gateway.process.keys.counters()["running"] == 1)
                await self.leaves(gateway, leaving, False)
        await eventually(lambda: gateway.process.keys.counters()["running"] == 0)
        answer = await client.ask(request)
        assert (answer.status, answer.kind(), is_first(answer)) == (504, "job-timeout", False)

    @pytest.mark.parametrize("reset", [False, True])
    @pytest.mark.parametrize("chunked", [False, True])
    async def test_of_one_whose_body_is_cut_nothing_is_left(self, gateway, client, worker, function, reset, chunked):
        request = keyed(function, b"whole" * 10_000, new_key())
        begin = request[: len(request) // 2]
        if chunked:
            head, _, _ = request.partition(b"Content-Length")
            begin = head + b"Transfer-Encoding: chunked\r\n\r\n5\r\nwhole\r\nffff\r\nwho"
        async with HttpClient(gateway.address) as leaving:
            leaving.send(begin)
            await eventually(lambda: gateway.count("gateway.open_exchanges") == 1)
            if reset:
                leaving.reset()
            else:
                await leaving.close()
            await eventually(lambda: gateway.count("gateway.open_exchanges") == 0)
        assert known_keys(gateway) == 0
        await worker.no_job()
        client.send(request)
        handle, _, _, workload = await worker.take()
        assert workload == b"whole" * 10_000
        worker.complete(handle, b"ran")
        first = await client.response()
        assert (first.status, first.body, is_first(first)) == (200, b"ran", True)
        assert is_again(await client.ask(request), first)

    async def test_those_who_wait_in_a_pipeline_leave_together(self, gateway, client, worker, function):
        request = keyed(function, b"w", new_key())
        async with HttpClient(gateway.address) as leaving:
            leaving.send(request * 4)
            handle, _, _, _ = await worker.take()
            leaving.reset()
        await eventually(lambda: gateway.count("http.connections") == 1)
        await asyncio.sleep(0)
        assert gateway.process.keys.counters()["running"] == 1
        worker.complete(handle, b"once")
        await eventually(lambda: gateway.process.keys.counters()["running"] == 0)
        assert (await client.ask(request)).body == b"once"
        await worker.no_job()
