"""What bounds idempotency keys: their number, time and bytes, and all that bounds any request and job."""

from __future__ import annotations

import asyncio

import pytest
from msgspec import structs

from gatewayx.config.kinds import FunctionBound
from gatewayx.config.rate_kinds import FunctionRate, RateBound
from gatewayx.config.settings import MEBIBYTE
from gatewayx.core.shared import KEPT_BYTES
from support.gateway import MAX_RESULT, SOON_S, RunningGateway, eventually, running_gateway
from support.http import HttpClient, Response, post
from support.job_servers import HandWorker, hand_worker
from support.kept import ASYNC, KeptClient
from support.keys import REPLAYED, counted, is_again, is_first, keyed, known_keys, new_key, waits
from support.tokens import TokenFile

pytestmark = pytest.mark.anyio

# Of a gateway that is soon full: what is kept may have a quarter of it.
SMALL_BYTES = 4 * MEBIBYTE
KEPT_PART_BYTES = SMALL_BYTES // 4
RESULT_BYTES = 100_000
FILLING = KEPT_PART_BYTES // RESULT_BYTES
# So slow that nothing comes back while a test runs.
SLOW = 0.01


def kept_bytes(gateway: RunningGateway) -> int:
    """What is held for keys and kept jobs, as the gateway counts itself; fails if all processes have something else."""
    held = gateway.count("kept.bytes")
    assert gateway.process.shared.taken(KEPT_BYTES) == held
    assert gateway.count("budget.results_bytes") >= held
    return held


async def all_forgotten(gateway: RunningGateway) -> None:
    """Return once no key is known, and no byte is held for one."""
    await eventually(lambda: not known_keys(gateway))
    assert gateway.process.keys.counters() == {"ended": 0, "running": 0}
    assert kept_bytes(gateway) == gateway.count("budget.results_bytes") == 0


async def ran(client: HttpClient, worker: HandWorker, request: bytes, result: bytes = b"result") -> Response:
    """The answer to a request, which has a job of its own."""
    client.send(request)
    handle, _, _, _ = await worker.take()
    worker.complete(handle, result)
    answer = await client.response()
    assert (answer.status, answer.body) == (200, result)
    assert is_first(answer)
    return answer


class TestTimeToLive:
    async def test_after_it_the_key_is_new(self, job_server, function):
        async with (
            running_gateway([job_server.address], kept_ttl_s=1.0) as gateway,
            hand_worker(job_server.address, function) as worker,
            HttpClient(gateway.address) as client,
        ):
            loop = asyncio.get_running_loop()
            key = new_key()
            client.send(keyed(function, b"w", key))
            handle, _, _, _ = await worker.take()
            ended_s = loop.time()
            worker.complete(handle, b"x" * 50_000)
            assert (await client.response()).status == 200
            assert kept_bytes(gateway) >= 50_000
            await all_forgotten(gateway)
            assert loop.time() - ended_s >= 0.99
            # It is anybody's.
            first = await ran(client, worker, keyed(function, b"another", key), b"another's")
            assert is_again(await client.ask(keyed(function, b"another", key)), first)

    async def test_whoever_asks_does_not_make_it_longer(self, job_server, function):
        async with (
            running_gateway([job_server.address], kept_ttl_s=1.0) as gateway,
            hand_worker(job_server.address, function) as worker,
            HttpClient(gateway.address) as client,
        ):
            loop = asyncio.get_running_loop()
            request = keyed(function, b"w", new_key())
            first = await ran(client, worker, request)
            ended_s = loop.time()
            # Asked for until it is known no more, when it would run anew.
            client.send(request)
            while (answer := await client.response()).headers.get(REPLAYED):
                assert is_again(answer, first)
                assert loop.time() - ended_s < SOON_S
                client.send(request)
                if not known_keys(gateway) or gateway.process.keys.counters()["running"]:
                    handle, _, _, _ = await worker.take()
                    worker.complete(handle, b"anew")
            assert answer.body == b"anew"

    async def test_one_that_runs_is_known_however_long_it_takes(self, job_server, function):
        async with (
            running_gateway([job_server.address], kept_ttl_s=0.2) as gateway,
            hand_worker(job_server.address, function) as worker,
            HttpClient(gateway.address) as client,
            HttpClient(gateway.address) as other,
        ):
            key = new_key()
            client.send(keyed(function, b"w", key))
            handle, _, _, _ = await worker.take()
            for _ in range(3):
                answer = await other.ask(keyed(function, b"w", key, b"X-Gearman-Timeout: 0.3"))
                assert answer.status == 504
            assert (await other.ask(keyed(function, b"x", key))).kind() == "key-reused"
            before = gateway.count("gateway.open_exchanges")
            other.send(keyed(function, b"w", key))
            await waits(gateway, before)
            await worker.no_job()
            worker.complete(handle, b"late")
            assert is_again(await other.response(), await client.response())

    async def test_all_that_were_known_are_forgotten_exactly(self, job_server, function):
        async with (
            running_gateway([job_server.address], kept_ttl_s=0.5) as gateway,
            hand_worker(job_server.address, function) as worker,
            HttpClient(gateway.address) as client,
        ):
            for number in range(50):
                await ran(client, worker, keyed(function, b"w", new_key()), b"x" * number * 1000)
            await all_forgotten(gateway)
            assert gateway.count("gateway.open_exchanges") == gateway.count("admission.jobs") == 0


class TestNumber:
    async def test_beyond_it_a_new_key_is_503_and_those_that_are_known_go_on(self, job_server, function):
        async with (
            running_gateway([job_server.address], max_keys=3) as gateway,
            hand_worker(job_server.address, function) as worker,
            HttpClient(gateway.address) as client,
            HttpClient(gateway.address) as other,
        ):
            ended = keyed(function, b"ended", new_key())
            first = await ran(client, worker, ended)
            running = [keyed(function, b"running", new_key()) for _ in range(2)]
            clients = [await HttpClient(gateway.address).connect() for _ in running]
            for each, request in zip(clients, running, strict=True):
                each.send(request)
            handles = [(await worker.take())[0] for _ in running]
            new = keyed(function, b"new", new_key())
            for _ in range(3):
                answer = await client.ask(new)
                assert (answer.status, answer.kind(), is_first(answer)) == (503, "too-many-keys", True)
                assert int(answer.headers[b"retry-after"]) >= 1
            assert known_keys(gateway) == 3
            await worker.no_job()
            # What is known is answered, joined, and held to its request.
            assert is_again(await client.ask(ended), first)
            other.send(running[0])
            key = running[1].split(b"Idempotency-Key: ")[1].split(b"\r\n")[0]
            assert (await client.ask(keyed(function, b"other", key))).kind() == "key-reused"
            # Whoever has no key is as welcome as ever.
            client.send(post(b"/" + function, b"plain"))
            handle, _, _, _ = await worker.take()
            worker.complete(handle, b"plain")
            assert (await client.response()).body == b"plain"
            for handle in handles:
                worker.complete(handle, b"done")
            answers = [await each.response() for each in clients]
            assert is_again(await other.response(), answers[0])
            for each in clients:
                await each.close()
            # None has its time over yet.
            assert (await client.ask(new)).kind() == "too-many-keys"

    async def test_one_whose_time_is_over_makes_room(self, job_server, function):
        async with (
            running_gateway([job_server.address], max_keys=1, kept_ttl_s=0.5) as gateway,
            hand_worker(job_server.address, function) as worker,
            HttpClient(gateway.address) as client,
        ):
            for _ in range(3):
                await ran(client, worker, keyed(function, b"w", new_key()))
                assert (await client.ask(keyed(function, b"w", new_key()))).kind() == "too-many-keys"
                await all_forgotten(gateway)

    async def test_one_that_is_released_makes_room_at_once(self, job_server, function):
        async with (
            running_gateway([job_server.address], max_keys=1, max_jobs=1) as gateway,
            hand_worker(job_server.address, function) as worker,
            HttpClient(gateway.address) as client,
            HttpClient(gateway.address) as other,
        ):
            other.send(post(b"/" + function, b"in the way"))
            handle, _, _, _ = await worker.take()
            for _ in range(3):
                answer = await client.ask(keyed(function, b"w", new_key()))
                assert (answer.status, answer.kind()) == (503, "too-many-jobs")
                assert known_keys(gateway) == 0
            worker.complete(handle)
            assert (await other.response()).status == 200
            await ran(client, worker, keyed(function, b"w", new_key()))

    async def test_a_body_that_comes_late_is_refused_as_well(self, job_server, function):
        async with (
            running_gateway([job_server.address], max_keys=1) as gateway,
            hand_worker(job_server.address, function) as worker,
            HttpClient(gateway.address) as client,
            HttpClient(gateway.address) as late,
        ):
            request = keyed(function, b"late", new_key())
            late.send(request[:-1])
            await eventually(lambda: gateway.count("gateway.open_exchanges") == 1)
            await ran(client, worker, keyed(function, b"w", new_key()))
            late.send(request[-1:])
            assert (await late.response()).kind() == "too-many-keys"
            await worker.no_job()

    async def test_none_at_all_is_a_number_too(self, job_server, function):
        async with (
            running_gateway([job_server.address], max_keys=0) as gateway,
            hand_worker(job_server.address, function) as worker,
            HttpClient(gateway.address) as client,
        ):
            assert (await client.ask(keyed(function, b"w", new_key()))).kind() == "too-many-keys"
            await worker.no_job()

    async def test_it_may_change_while_keys_are_known(self, job_server, function):
        async with (
            running_gateway([job_server.address], max_keys=2) as gateway,
            hand_worker(job_server.address, function) as worker,
            HttpClient(gateway.address) as client,
        ):
            requests = [keyed(function, b"w", new_key()) for _ in range(2)]
            firsts = [await ran(client, worker, request) for request in requests]
            await gateway.process.reconfigure(structs.replace(gateway.process.settings, max_keys=1))
            for request, first in zip(requests, firsts, strict=True):
                assert is_again(await client.ask(request), first)
            assert (await client.ask(keyed(function, b"w", new_key()))).kind() == "too-many-keys"
            assert known_keys(gateway) == 2
            await gateway.process.reconfigure(structs.replace(gateway.process.settings, max_keys=3))
            await ran(client, worker, keyed(function, b"w", new_key()))
            assert (await client.ask(keyed(function, b"w", new_key()))).kind() == "too-many-keys"

    async def test_the_time_may_change_while_keys_are_known(self, job_server, function):
        async with (
            running_gateway([job_server.address]) as gateway,
            hand_worker(job_server.address, function) as worker,
            HttpClient(gateway.address) as client,
        ):
            await ran(client, worker, keyed(function, b"w", new_key()))
            await gateway.process.reconfigure(structs.replace(gateway.process.settings, kept_ttl_s=0.2))
            await all_forgotten(gateway)
            await ran(client, worker, keyed(function, b"w", new_key()))
            await all_forgotten(gateway)
            await gateway.process.reconfigure(structs.replace(gateway.process.settings, kept_ttl_s=300.0))
            request = keyed(function, b"w", new_key())
            first = await ran(client, worker, request)
            assert is_again(await client.ask(request), first)


class TestBytes:
    async def test_the_oldest_bodies_make_room_and_their_jobs_never_run_again(self, job_server, function):
        async with (
            running_gateway([job_server.address], max_held_bytes=SMALL_BYTES, max_result_bytes=MAX_RESULT) as gateway,
            hand_worker(job_server.address, function) as worker,
            HttpClient(gateway.address) as client,
        ):
            requests = [keyed(function, b"%d" % number, new_key()) for number in range(2 * FILLING)]
            firsts = []
            for number, request in enumerate(requests):
                firsts.append(await ran(client, worker, request, b"%04d" % number * (RESULT_BYTES // 4)))
                assert kept_bytes(gateway) <= KEPT_PART_BYTES
            answers = [await client.ask(request) for request in requests]
            dropped = [answer.status == 410 for answer in answers]
            left = dropped.count(False)
            assert FILLING - 2 <= left <= FILLING
            assert dropped == [True] * (len(requests) - left) + [False] * left
            for answer, first in zip(answers, firsts, strict=True):
                if answer.status == 410:
                    assert answer.kind() == "result-dropped"
                    assert answer.headers[b"idempotency-replayed"] == b"true"
                    assert b"retry-after" not in answer.headers
                else:
                    assert is_again(answer, first)
            await worker.no_job()
            # The record stays: another request is told so, and all keys are known.
            key = requests[0].split(b"Idempotency-Key: ")[1].split(b"\r\n")[0]
            assert (await client.ask(keyed(function, b"another", key))).kind() == "key-reused"
            assert known_keys(gateway) == len(requests)

    async def test_they_share_their_room_with_kept_jobs(self, job_server, function):
        async with (
            running_gateway([job_server.address], max_held_bytes=SMALL_BYTES, max_result_bytes=MAX_RESULT) as gateway,
            hand_worker(job_server.address, function) as worker,
            KeptClient(gateway.address) as kept,
        ):
            request = keyed(function, b"oldest", new_key())
            first = await ran(kept.http, worker, request, b"k" * RESULT_BYTES)
            assert is_again(await kept.http.ask(request), first)
            for _ in range(FILLING + 2):
                job_id = await kept.submit(function)
                handle, _, _, _ = await worker.take()
                worker.complete(handle, b"j" * RESULT_BYTES)
                await kept.until(job_id, lambda job: job["ended"])
                assert kept_bytes(gateway) <= KEPT_PART_BYTES
            # Whichever makes room, the job does not run again.
            answer = await kept.http.ask(request)
            assert answer.status in (200, 410)
            assert not is_first(answer)
            newest = keyed(function, b"newest", new_key())
            first = await ran(kept.http, worker, newest, b"n" * RESULT_BYTES)
            assert kept_bytes(gateway) <= KEPT_PART_BYTES
            answer = await kept.http.ask(newest)
            assert is_again(answer, first)
            await worker.no_job()

    async def test_one_that_is_larger_than_all_may_be_is_given_to_those_who_wait(self, job_server, function):
        async with (
            running_gateway(
                [job_server.address], max_held_bytes=SMALL_BYTES, max_result_bytes=2 * KEPT_PART_BYTES
            ) as gateway,
            hand_worker(job_server.address, function) as worker,
            HttpClient(gateway.address) as client,
            HttpClient(gateway.address) as other,
        ):
            small = keyed(function, b"small", new_key())
            first = await ran(client, worker, small, b"s" * 1000)
            request = keyed(function, b"large", new_key())
            client.send(request)
            handle, _, _, _ = await worker.take()
            worker.complete(handle, b"x" * (KEPT_PART_BYTES + 1))
            answer = await client.response()
            assert (answer.status, len(answer.body), is_first(answer)) == (200, KEPT_PART_BYTES + 1, True)
            again = await other.ask(request)
            assert (again.status, again.kind(), is_first(again)) == (410, "result-dropped", False)
            assert is_again(await other.ask(small), first)
            await worker.no_job()

    async def test_many_who_are_answered_at_once_are_answered_whole(self, job_server, function):
        async with (
            running_gateway([job_server.address], max_result_bytes=MAX_RESULT) as gateway,
            hand_worker(job_server.address, function) as worker,
        ):
            request = keyed(function, b"w", new_key())
            clients = [await HttpClient(gateway.address).connect() for _ in range(30)]
            before = 0
            for number, client in enumerate(clients):
                client.send(request)
                if not number:
                    handle, _, _, _ = await worker.take()
                    before = gateway.count("gateway.open_exchanges")
                else:
                    before = await waits(gateway, before)
            worker.complete(handle, b"x" * MAX_RESULT)
            answers = [await client.response() for client in clients]
            assert {(answer.status, len(answer.body)) for answer in answers} == {(200, MAX_RESULT)}
            assert [is_first(answer) for answer in answers] == [True] + [False] * 29
            for client in clients:
                await client.close()
            await worker.no_job()

    async def test_one_that_does_not_read_holds_up_nobody(self, job_server, function):
        async with (
            running_gateway([job_server.address]) as gateway,
            hand_worker(job_server.address, function) as worker,
            HttpClient(gateway.address, receive_buffer_bytes=4096) as lazy,
            HttpClient(gateway.address) as client,
        ):
            result = b"x" * (4 * MEBIBYTE)
            request = keyed(function, b"w", new_key())
            first = await ran(client, worker, request, result)
            lazy.send(request)
            await eventually(lambda: counted(gateway, "keys_replayed") == 1)
            for _ in range(3):
                assert is_again(await client.ask(request), first)
            assert is_again(await lazy.response(), first)

    async def test_a_large_one_has_its_bytes_counted_once_it_is_known(self, gateway, client, worker, function):
        before = kept_bytes(gateway)
        await ran(client, worker, keyed(function, b"w", new_key()), b"x" * 100_000)
        one = kept_bytes(gateway) - before
        assert 100_000 <= one <= 130_000
        await ran(client, worker, keyed(function, b"w", new_key()), b"")
        assert kept_bytes(gateway) - before - one < 5_000


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
            key = request.split(b"Idempotency-Key: ")[1].split(b"\r\n")[0]
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
            await asyncio.wait_for(stopped, 10)

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
            await asyncio.wait_for(stopped, 10)
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
            await asyncio.wait_for(stopped, 10)
            assert gateway.process.keys.counters()["running"] == 0
