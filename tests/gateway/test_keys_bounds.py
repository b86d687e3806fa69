"""What bounds idempotency keys: their number, time and bytes, and all that bounds any request and job."""

from __future__ import annotations

import asyncio
import gc

import pytest
from msgspec import structs

from gatewayx.config.settings import MEBIBYTE
from gatewayx.core.shared import KEPT_BYTES
from gatewayx.embedded.worker import Worker
from gatewayx.gateway.kept_job import KeptJob
from gatewayx.gearman.packet import PacketType
from support.gateway import MAX_RESULT, RunningGateway, eventually, running_gateway
from support.http import HttpClient, post
from support.job_servers import ScriptedJobServer, hand_worker
from support.kept import ASYNC, KeptClient, job_of
from support.keys import counted, is_again, is_first, key_line, key_of, keyed, known_keys, new_key, ran, waits
from support.times import SOON_S

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


def kept_jobs_in_memory() -> int:
    """How many kept jobs somebody refers to, whether they are known or not."""
    gc.collect()
    return sum(type(found) is KeptJob for found in gc.get_objects())


async def all_forgotten(gateway: RunningGateway) -> None:
    """Return once no key is known, and no byte is held for one."""
    await eventually(lambda: not known_keys(gateway))
    assert gateway.process.keys.counters() == {"ended": 0, "running": 0}
    assert kept_bytes(gateway) == gateway.count("budget.results_bytes") == 0


class TestTimeToLive:
    async def test_after_it_the_key_is_new(self, job_server, function):
        async with (
            running_gateway([job_server.address]) as gateway,
            hand_worker(job_server.address, function) as worker,
            HttpClient(gateway.address) as client,
        ):
            loop = asyncio.get_running_loop()
            settings = gateway.process.settings
            key = new_key()
            client.send(keyed(function, b"w", key))
            handle, _, _, _ = await worker.take()
            ended_s = loop.time()
            worker.complete(handle, b"x" * 50_000)
            assert (await client.response()).status == 200
            assert kept_bytes(gateway) >= 50_000
            await gateway.process.reconfigure(structs.replace(settings, kept_ttl_s=1.0))
            await all_forgotten(gateway)
            assert loop.time() - ended_s >= 0.99
            await gateway.process.reconfigure(settings)
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
            # Asked for until it is known no more, when it runs anew.
            runs_anew = asyncio.ensure_future(worker.take())
            while not runs_anew.done():
                client.send(request)
                asked = asyncio.ensure_future(client.response())
                await asyncio.wait((asked, runs_anew), return_when=asyncio.FIRST_COMPLETED)
                if not runs_anew.done():
                    assert is_again(await asked, first)
                    assert loop.time() - ended_s < SOON_S
            handle, _, _, _ = runs_anew.result()
            worker.complete(handle, b"anew")
            assert (await asked).body == b"anew"

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
            key = key_of(running[1])
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
            running_gateway([job_server.address], max_keys=1) as gateway,
            hand_worker(job_server.address, function) as worker,
            HttpClient(gateway.address) as client,
        ):
            settings = gateway.process.settings
            for _ in range(3):
                await ran(client, worker, keyed(function, b"w", new_key()))
                assert (await client.ask(keyed(function, b"w", new_key()))).kind() == "too-many-keys"
                await gateway.process.reconfigure(structs.replace(settings, kept_ttl_s=0.2))
                await all_forgotten(gateway)
                await gateway.process.reconfigure(settings)

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
            key = key_of(requests[0])
            assert (await client.ask(keyed(function, b"another", key))).kind() == "key-reused"
            assert known_keys(gateway) == len(requests)

    async def test_one_without_a_byte_makes_no_room_by_going(self, job_server, function):
        async with (
            running_gateway([job_server.address], max_held_bytes=SMALL_BYTES, max_result_bytes=MAX_RESULT) as gateway,
            hand_worker(job_server.address, function) as worker,
            HttpClient(gateway.address) as client,
        ):
            request = keyed(function, b"", new_key())
            first = await ran(client, worker, request, b"")
            for _ in range(2 * FILLING):
                await ran(client, worker, keyed(function, b"", new_key()), b"x" * RESULT_BYTES)
            assert counted(gateway, "kept_results_dropped")
            assert is_again(await client.ask(request), first)

    async def test_the_result_of_a_kept_job_is_not_held_once_the_job_is_forgotten(self, job_server, function):
        async with (
            running_gateway([job_server.address], max_result_bytes=RESULT_BYTES) as gateway,
            hand_worker(job_server.address, function) as worker,
            KeptClient(gateway.address) as kept,
        ):
            before = kept_jobs_in_memory()
            accepted = await kept.http.ask(keyed(function, b"", new_key(), ASYNC))
            assert accepted.status == 202
            job_id = job_of(accepted)["id"]
            handle, _, _, _ = await worker.take()
            worker.complete(handle, b"r" * RESULT_BYTES)
            await kept.until(job_id, lambda job: job["ended"])
            assert kept_jobs_in_memory() == before + 1
            assert (await kept.forget(job_id)).status == 204
            assert known_keys(gateway) == 1
            await eventually(lambda: kept_jobs_in_memory() == before)

    async def test_where_a_kept_job_is_found_is_never_dropped(self, job_server, function):
        async with (
            running_gateway([job_server.address], max_held_bytes=SMALL_BYTES, max_result_bytes=MAX_RESULT) as gateway,
            hand_worker(job_server.address, function) as worker,
            KeptClient(gateway.address) as kept,
        ):
            request = keyed(function + b"-waits", b"", new_key(), ASYNC)
            first = await kept.http.ask(request)
            for _ in range(2 * FILLING):
                await ran(kept.http, worker, keyed(function, b"", new_key()), b"x" * RESULT_BYTES)
            assert counted(gateway, "kept_results_dropped")
            assert is_again(await kept.http.ask(request), first)
            async with hand_worker(job_server.address, function + b"-waits") as other:
                other.complete((await other.take())[0])
            await kept.until(job_of(first)["id"], lambda job: job["ended"])
            assert is_again(await kept.http.ask(request), first)
            await kept.forget(job_of(first)["id"])

    async def test_nothing_is_dropped_for_one_that_does_not_fit_then_either(self, job_server, function):
        # More small ones than may be dropped for a new one, and all of them too few for that.
        worker = Worker(job_server.address, {function: lambda job: b"x" * int(job.workload)})
        await worker.start()
        async with (
            running_gateway([job_server.address], max_held_bytes=SMALL_BYTES, max_result_bytes=MAX_RESULT) as gateway,
            HttpClient(gateway.address) as client,
        ):
            requests = [keyed(function, b"900", new_key()) for _ in range(1100)]
            firsts = []
            for begins in range(0, len(requests), 50):
                part = requests[begins : begins + 50]
                client.send(*part)
                firsts += [await client.response() for _ in part]
            large = keyed(function, b"%d" % (KEPT_PART_BYTES - 50_000), new_key())
            await gateway.process.reconfigure(
                structs.replace(gateway.process.settings, max_result_bytes=KEPT_PART_BYTES)
            )
            assert (await client.ask(large)).status == 200
            answer = await client.ask(large)
            assert (answer.status, answer.kind()) == (410, "result-dropped")
            for request, first in zip(requests, firsts, strict=True):
                assert is_again(await client.ask(request), first)
            assert counted(gateway, "kept_results_dropped") == 1
        await worker.close()

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


class TestAccounts:
    async def test_a_body_counts_until_its_job_was_sent_as_any_other(self):
        async with (
            ScriptedJobServer() as server,
            running_gateway([server.address], connections_per_server=1) as gateway,
            HttpClient(gateway.address) as client,
        ):
            upstream = await server.connection()
            body = b"x" * (4 * MEBIBYTE)
            held = []
            for line in (), (key_line(new_key()),):
                await client.send_all(post(b"/f", body, *line))
                await upstream.submission()
                held.append(gateway.count("budget.bodies_bytes"))
                upstream.answer(PacketType.JOB_CREATED, b"H:1")
                await eventually(lambda: gateway.count("budget.bodies_bytes") == 0)
                upstream.answer(PacketType.WORK_COMPLETE, b"H:1", b"")
                assert (await client.response()).status == 200
            assert held[0] == held[1] >= len(body)

    async def test_of_many_who_repeat_it_no_body_is_held(self, gateway, client, worker, function):
        request = keyed(function, b"x" * MEBIBYTE, new_key())
        client.send(request)
        handle, _, _, _ = await worker.take()
        others = [await HttpClient(gateway.address).connect() for _ in range(10)]
        for other in others:
            before = gateway.count("gateway.open_exchanges")
            await other.send_all(request)
            await waits(gateway, before)
        await eventually(lambda: gateway.count("budget.bodies_bytes") == 0)
        worker.complete(handle, b"once")
        for each in (client, *others):
            assert (await each.response()).body == b"once"
        for other in others:
            await other.close()
