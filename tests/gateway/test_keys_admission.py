"""Idempotency keys beside what bounds any request and job: places, rates and lists; and in a drain.

What is answered again, or waits for another one's job, needs no place among jobs; every request counts in the rates.
"""

from __future__ import annotations

import asyncio

import pytest

from gatewayx.config.kinds import FunctionBound
from gatewayx.config.rate_kinds import FunctionRate, RateBound
from gatewayx.embedded import encode
from gatewayx.http.outcomes import OUTCOMES
from support.gateway import eventually, running_gateway
from support.http import HttpClient, post
from support.job_servers import hand_worker
from support.kept import ASYNC
from support.keys import is_again, is_first, key_of, keyed, known_keys, new_key, ran, waits
from support.tokens import TokenFile

pytestmark = pytest.mark.anyio

# So slow that nothing comes back while a test runs.
SLOW = 0.01


class TestAdmission:
    async def test_replays_and_joins_need_no_place_among_the_jobs(self, job_server, function):
        async with (
            running_gateway([job_server.address], max_jobs=1) as gateway,
            hand_worker(job_server.address, function) as worker,
            HttpClient(gateway.address) as client,
            HttpClient(gateway.address) as other,
            HttpClient(gateway.address) as third,
        ):
            ended = keyed(function, b"ended", new_key())
            ended_first = await ran(client, worker, ended)
            running = keyed(function, b"running", new_key())
            client.send(running)
            handle, _, _, _ = await worker.take()
            assert is_again(await other.ask(ended), ended_first)
            before = gateway.count("gateway.open_exchanges")
            third.send(running)
            await waits(gateway, before)
            new = keyed(function, b"new", new_key())
            refused = await other.ask(new)
            assert (refused.status, refused.kind(), is_first(refused)) == (503, "too-many-jobs", True)
            assert known_keys(gateway) == 2
            worker.complete(handle, b"done")
            first = await client.response()
            assert is_again(await third.response(), first)
            await ran(other, worker, new)
            assert gateway.count("admission.jobs") == 0

    async def test_the_same_holds_of_a_function_s_bound(self, job_server, function):
        bound = (FunctionBound(function.decode(), 1),)
        async with (
            running_gateway([job_server.address], max_function_jobs=bound) as gateway,
            hand_worker(job_server.address, function) as worker,
            HttpClient(gateway.address) as client,
            HttpClient(gateway.address) as other,
        ):
            ended = keyed(function, b"ended", new_key())
            ended_first = await ran(client, worker, ended)
            running = keyed(function, b"running", new_key())
            client.send(running)
            handle, _, _, _ = await worker.take()
            assert is_again(await other.ask(ended), ended_first)
            new = keyed(function, b"new", new_key())
            assert (await other.ask(new)).kind() == "too-many-function-jobs"
            before = gateway.count("gateway.open_exchanges")
            other.send(running)
            await waits(gateway, before)
            worker.complete(handle, b"done")
            assert is_again(await other.response(), await client.response())
            await ran(other, worker, new)

    async def test_and_of_a_token_s(self, job_server, function, tmp_path):
        file = TokenFile(tmp_path / "tokens.toml")
        file.write(file.table("one", "max_jobs = 1"), file.table("other"))
        one = file.line("one")
        async with (
            running_gateway([job_server.address], tokens=str(file.path)) as gateway,
            hand_worker(job_server.address, function) as worker,
            HttpClient(gateway.address) as client,
            HttpClient(gateway.address) as other,
        ):
            ended = keyed(function, b"ended", b"1", one)
            ended_first = await ran(client, worker, ended)
            running = keyed(function, b"running", b"2", one)
            client.send(running)
            handle, _, _, _ = await worker.take()
            assert is_again(await other.ask(ended), ended_first)
            new = keyed(function, b"new", b"3", one)
            for request in (new, keyed(function, b"new", b"4", one, ASYNC), post(b"/" + function, b"plain", one)):
                answer = await other.ask(request)
                assert (answer.status, answer.kind(), is_first(answer)) == (429, "too-many-token-jobs", True)
            assert known_keys(gateway) == 2
            # Whoever leaves does not make room: the job goes on.
            client.reset()
            await gateway.reaches("http.requests_abandoned", 1)
            assert (await other.ask(new)).kind() == "too-many-token-jobs"
            other.send(running)
            worker.complete(handle, b"done")
            answer = await other.response()
            assert (answer.status, answer.body, is_first(answer)) == (200, b"done", False)
            await ran(other, worker, new)

    async def test_functions_that_are_not_listed_are_404_with_a_key_too(self, job_server, function):
        async with (
            running_gateway([job_server.address], function=(function.decode(),)) as gateway,
            hand_worker(job_server.address, function) as worker,
            HttpClient(gateway.address) as client,
        ):
            key = new_key()
            answer = await client.ask(keyed(b"other", b"w", key))
            assert (answer.status, answer.kind()) == (404, "function-not-allowed")
            assert known_keys(gateway) == 0
            await ran(client, worker, keyed(function, b"w", key))

    async def test_rates_count_every_request(self, job_server, function):
        async with (
            running_gateway([job_server.address], rate=RateBound(SLOW, 4)) as gateway,
            hand_worker(job_server.address, function) as worker,
            HttpClient(gateway.address) as client,
        ):
            request = keyed(function, b"w", new_key())
            first = await ran(client, worker, request)
            assert is_again(await client.ask(request), first)
            key = key_of(request)
            assert (await client.ask(keyed(function, b"x", key))).kind() == "key-reused"
            assert is_again(await client.ask(request), first)
            answer = await client.ask(request)
            assert (answer.status, answer.kind(), is_first(answer)) == (429, "rate-exceeded", True)
            assert (await client.ask(keyed(function, b"w", new_key()))).kind() == "rate-exceeded"
            assert known_keys(gateway) == 1

    async def test_of_a_function_s_rate_as_well(self, job_server, function):
        rates = (FunctionRate(function.decode(), RateBound(SLOW, 2)),)
        async with (
            running_gateway([job_server.address], function_rate=rates) as gateway,
            hand_worker(job_server.address, function) as worker,
            HttpClient(gateway.address) as client,
        ):
            request = keyed(function, b"w", new_key())
            first = await ran(client, worker, request)
            assert is_again(await client.ask(request), first)
            assert (await client.ask(request)).kind() == "rate-exceeded"
            assert known_keys(gateway) == 1

    async def test_one_that_is_refused_by_a_rate_leaves_no_key(self, job_server, function):
        async with (
            running_gateway([job_server.address], rate=RateBound(SLOW, 1)) as gateway,
            hand_worker(job_server.address, function) as worker,
            HttpClient(gateway.address) as client,
            HttpClient(gateway.address, source="127.0.0.2") as elsewhere,
        ):
            assert (await client.ask(post(b"/" + function + b"?x", b""))).status == 400
            request = keyed(function, b"w", new_key())
            assert (await client.ask(request)).kind() == "rate-exceeded"
            assert known_keys(gateway) == 0
            await ran(elsewhere, worker, request)


class TestDrain:
    async def test_waits_for_what_runs_for_a_key_and_answers_what_is_known(self, job_server, function):
        async with (
            running_gateway([job_server.address]) as gateway,
            hand_worker(job_server.address, function) as worker,
            HttpClient(gateway.address) as client,
            HttpClient(gateway.address) as third,
        ):
            ended = keyed(function, b"ended", new_key())
            first = await ran(client, worker, ended)
            # Whoever has asked for nothing for two seconds may be closed in a drain.
            with gateway.within_a_tick():
                assert is_again(await third.ask(ended), first)
                running = keyed(function, b"running", new_key())
                client.send(running)
                handle, _, _, _ = await worker.take()
                stopped = asyncio.create_task(gateway.process.drain())
                await asyncio.sleep(0)
                assert is_again(await third.ask(ended), first)
            assert not stopped.done()
            worker.complete(handle, b"in time")
            answer = await client.response()
            assert (answer.status, answer.body) == (200, b"in time")
            await asyncio.wait_for(stopped, 45)

    async def test_waits_for_it_without_anybody_who_waits_for_it(self, job_server, function):
        async with (
            running_gateway([job_server.address]) as gateway,
            hand_worker(job_server.address, function) as worker,
        ):
            async with HttpClient(gateway.address) as client:
                client.send(keyed(function, b"w", new_key()))
                handle, _, _, _ = await worker.take()
                client.reset()
            await eventually(lambda: gateway.count("http.connections") == 0)
            stopped = asyncio.create_task(gateway.process.drain())
            await eventually(gateway.process.http.emptied.is_set)
            await worker.settle()
            assert not stopped.done()
            assert gateway.process.keys.counters()["running"] == 1
            worker.complete(handle, b"in time")
            await asyncio.wait_for(stopped, 45)
            assert gateway.process.keys.counters()["running"] == 0

    async def test_after_its_time_what_runs_is_lost(self, job_server, function):
        async with (
            running_gateway([job_server.address], drain_timeout_s=0.5) as gateway,
            hand_worker(job_server.address, function) as worker,
            HttpClient(gateway.address) as client,
        ):
            client.send(keyed(function, b"w", new_key()))
            await worker.take()
            stopped = asyncio.create_task(gateway.process.drain())
            answer = await client.response()
            assert (answer.status, answer.kind()) == (502, "outcome-unknown")
            await asyncio.wait_for(stopped, 45)
            assert gateway.process.keys.counters()["running"] == 0


class TestCounts:
    @pytest.mark.parametrize("end", ["complete", "fail"])
    async def test_one_job_and_each_request_whatever_it_waits_for(self, gateway, client, worker, function, end):
        gateway.process.places.tell_apart([function.decode()])
        metrics = gateway.process.records.metrics
        request = keyed(function, b"w", new_key())
        async with HttpClient(gateway.address) as joins, HttpClient(gateway.address) as leaves:
            client.send(request)
            handle, _, _, _ = await worker.take()
            for other in (joins, leaves):
                before = gateway.count("gateway.open_exchanges")
                other.send(request)
                await waits(gateway, before)
            leaves.reset()
            await gateway.reaches("http.requests_abandoned", 1)
            worker.send(encode.work_fail(handle) if end == "fail" else encode.work_complete(handle, b"r"))
            await client.response()
            await joins.response()
        await client.ask(request)
        assert (await client.ask(keyed(function, b"x", key_of(request)))).status == 422
        assert sum(count for *_, count in metrics.jobs()) == 1
        assert sum(buckets[-1] for _, buckets, _ in metrics.job_durations()) == 1
        found = {}
        for _, outcome, _, count in metrics.requests():
            found[OUTCOMES[outcome][0]] = found.get(OUTCOMES[outcome][0], 0) + count
        told = "job-failed" if end == "fail" else "ok"
        assert found.pop(told) == 3
        assert found.pop("key-reused") == 1
        assert sum(found.values()) == 1, found

    async def test_a_replay_waited_for_no_job(self, job_server, function):
        async with (
            running_gateway([job_server.address], server_timing=True) as gateway,
            hand_worker(job_server.address, function) as worker,
            HttpClient(gateway.address) as client,
        ):
            request = keyed(function, b"w", new_key())
            first = await ran(client, worker, request)
            assert b"job" in first.headers[b"server-timing"]
            again = await client.ask(request)
            assert b"job" not in again.headers.get(b"server-timing", b"")
