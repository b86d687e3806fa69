"""Requests with idempotency keys, in gateways of several worker processes: to the clients they are like one."""

from __future__ import annotations

import os
import signal
from contextlib import AsyncExitStack

import pytest

from gatewayx.core.shared import KEPT_BYTES, KEPT_KEYS
from gatewayx.embedded import encode
from support.gateway import eventually
from support.http import HttpClient, chunked, head, post
from support.job_servers import HandWorker, hand_worker
from support.kept import ASYNC, at, job_of
from support.keys import REPLAYED, is_again, is_first, key_line, key_of, keyed, new_key, ran
from support.peer import ask_text
from support.relaying import Relaying, relaying
from support.times import PROCESS_S
from support.tokens import TokenFile

pytestmark = pytest.mark.anyio

BACKGROUND = b"X-Gearman-Background: true"
# Of so many keys each of two processes owns some: all belong to one in one of 10^6 runs.
ENOUGH = 20
LARGE = bytes(range(256)) * 4096 * 8


async def owned_by(gateway: Relaying, clients: list[HttpClient], worker: HandWorker, function: bytes, place: int):
    """A request whose key belongs to this place, and the first answer to it."""
    for _ in range(100):
        request = keyed(function, b"w", new_key())
        before = gateway.relayed()
        first = await ran(clients[place], worker, request)
        if gateway.relayed() == before:
            return request, first
    raise AssertionError("no key belongs to this place")


class TestOneRun:
    @pytest.mark.parametrize("workers", [2, 4])
    async def test_over_many_connections_it_runs_once(self, address, function, workers):
        async with (
            relaying([address], workers=workers) as gateway,
            hand_worker(address, function) as worker,
            AsyncExitStack() as stack,
        ):
            clients = await gateway.clients(stack)
            clients += [await stack.enter_async_context(HttpClient(gateway.address)) for _ in range(20)]
            relayed = set()
            for number in range(ENOUGH):
                request = keyed(function, b"%d" % number, new_key())
                before = gateway.relayed()
                early, late = clients[::2], clients[1::2]
                for client in early:
                    client.send(request)
                handle, _, _, workload = await worker.take()
                assert workload == b"%d" % number
                for client in late:
                    client.send(request)
                worker.send_data(handle, b"whole ")
                worker.complete(handle, b"result")
                answers = [await client.response() for client in clients]
                [first] = [answer for answer in answers if is_first(answer)]
                assert (first.status, first.body) == (200, b"whole result")
                assert all(answer is first or is_again(answer, first) for answer in answers)
                for client in clients[:workers]:
                    assert is_again(await client.ask(request), first)
                relayed.add(gateway.relayed() - before)
                await worker.no_job()
            # Some are at the place of the owner, and some are not.
            assert all(0 < count < len(clients) + workers for count in relayed)
            counters = gateway.memory.counters()
            assert counters["keys_begun"] == ENOUGH
            assert counters["keys_joined"] + counters["keys_replayed"] == ENOUGH * (len(clients) + workers - 1)
            assert gateway.memory.shared.taken(KEPT_KEYS) == ENOUGH
            await gateway.jobs_left(0)

    async def test_in_the_background_too(self, address, function):
        async with relaying([address]) as gateway, AsyncExitStack() as stack:
            clients = await gateway.clients(stack)
            for number in range(ENOUGH):
                request = keyed(function, b"%d" % number, new_key(), BACKGROUND)
                for client in clients:
                    client.send(request * 2)
                answers = [await client.response() for client in clients for _ in range(2)]
                [first] = [answer for answer in answers if is_first(answer)]
                assert first.status == 200
                assert all(answer is first or is_again(answer, first) for answer in answers)
            [line] = [
                line for line in (await ask_text(address, b"status")).splitlines() if line.startswith(function + b"\t")
            ]
            assert line == b"%b\t%d\t0\t0" % (function, ENOUGH)
            async with hand_worker(address, function) as worker:
                for _ in range(ENOUGH):
                    handle, _, _, _ = await worker.take()
                    worker.complete(handle)
                await worker.no_job()

    async def test_another_request_with_the_key_is_422_at_any_process(self, address, function):
        async with (
            relaying([address]) as gateway,
            hand_worker(address, function) as worker,
            AsyncExitStack() as stack,
        ):
            clients = await gateway.clients(stack)
            relayed = set()
            for number in range(ENOUGH):
                request = keyed(function, b"w", new_key())
                first = await ran(clients[number % 2], worker, request)
                for client in clients:
                    for other in (
                        keyed(function, b"x", key_of(request)),
                        keyed(function, b"w", key_of(request), BACKGROUND),
                        keyed(function, b"w", key_of(request), b"X-Gearman-Priority: high"),
                        keyed(function + b"x", b"w", key_of(request)),
                    ):
                        was_relayed, answer = await gateway.asked(client, other)
                        relayed.add(was_relayed)
                        assert (answer.status, answer.kind(), is_first(answer)) == (422, "key-reused", True)
                    assert is_again(await client.ask(request), first)
            assert relayed == {False, True}
            await worker.no_job()

    async def test_what_cannot_be_a_key_is_refused_where_it_comes(self, address, function):
        async with relaying([address]) as gateway, AsyncExitStack() as stack:
            for client in await gateway.clients(stack):
                for request in (
                    keyed(function, b"w", b"short"),
                    keyed(function, b"w", b'"no end'),
                    keyed(function, b"w", new_key(), b"X-Gearman-Unique: mine"),
                    keyed(function, b"w", new_key(), b"X-Gearman-Stream: true"),
                    keyed(function, b"w", new_key(), key_line(new_key())),
                ):
                    relayed, answer = await gateway.asked(client, request)
                    assert (relayed, answer.status, answer.kind()) == (False, 400, "malformed-header")
            assert gateway.memory.shared.taken(KEPT_KEYS) == 0

    async def test_joiners_timeouts_and_failures_pass(self, address, function):
        async with (
            relaying([address]) as gateway,
            hand_worker(address, function) as worker,
            AsyncExitStack() as stack,
        ):
            clients = await gateway.clients(stack)
            for _ in range(ENOUGH // 2):
                key = new_key()
                clients[0].send(keyed(function, b"w", key))
                handle, _, _, _ = await worker.take()
                answer = await clients[1].ask(keyed(function, b"w", key, b"X-Gearman-Timeout: 0.1"))
                assert (answer.status, answer.kind()) == (504, "job-timeout")
                worker.send_data(handle, b"dropped")
                worker.send(encode.work_fail(handle))
                first = await clients[0].response()
                assert (first.status, first.kind(), is_first(first)) == (500, "job-failed", True)
                for client in clients:
                    assert is_again(await client.ask(keyed(function, b"w", key)), first)
            await worker.no_job()

    async def test_of_whoever_leaves_the_job_goes_on(self, address, function):
        async with (
            relaying([address]) as gateway,
            hand_worker(address, function) as worker,
            AsyncExitStack() as stack,
        ):
            clients = await gateway.clients(stack)
            for number in range(ENOUGH):
                leaving = (await gateway.clients(stack))[number % 2]
                request = keyed(function, b"w", new_key())
                leaving.send(request)
                handle, _, _, _ = await worker.take()
                taken = gateway.memory.taken()["connections"]
                leaving.reset()
                await eventually(lambda taken=taken: gateway.memory.taken()["connections"] < taken)
                worker.complete(handle, b"all the same")
                answers = [await client.ask(request) for client in clients]
                assert {(answer.status, answer.body) for answer in answers} == {(200, b"all the same")}
                assert not any(map(is_first, answers))
            await worker.no_job()
            await gateway.jobs_left(0)


class TestBodies:
    @pytest.mark.parametrize("in_chunks", [False, True])
    async def test_large_ones_stream_to_the_owner(self, address, function, in_chunks):
        async with (
            relaying([address]) as gateway,
            hand_worker(address, function) as worker,
            AsyncExitStack() as stack,
        ):
            clients = await gateway.clients(stack)
            relayed = set()
            for number in range(6):
                key = new_key()
                request = keyed(function, LARGE, key)
                if in_chunks:
                    begin = head(b"POST", b"/" + function, key_line(key), b"Transfer-Encoding: chunked")
                    request = begin + chunked(LARGE[:1_000_000], LARGE[1_000_000:])
                before = gateway.relayed()
                client = clients[number % 2]
                await client.send_all(request)
                handle, _, _, workload = await worker.take()
                assert workload == LARGE
                worker.complete(handle, LARGE[::-1])
                first = await client.response()
                assert (first.status, first.body == LARGE[::-1], is_first(first)) == (200, True, True)
                relayed.add(gateway.relayed() - before)
                for each in clients:
                    await each.send_all(request)
                    assert is_again(await each.response(), first)
                    await each.send_all(keyed(function, LARGE[:-1] + b"\0", key))
                    assert (await each.response()).kind() == "key-reused"
            await worker.no_job()
            await gateway.jobs_left(0)

    async def test_of_one_that_is_cut_nothing_is_left_at_the_owner(self, address, function):
        async with (
            relaying([address]) as gateway,
            hand_worker(address, function) as worker,
            AsyncExitStack() as stack,
        ):
            clients = await gateway.clients(stack)
            for number in range(ENOUGH):
                leaving = (await gateway.clients(stack))[number % 2]
                request = keyed(function, LARGE[:300_000], new_key())
                await leaving.send_all(request[:200_000])
                await leaving.close()
                assert gateway.memory.shared.taken(KEPT_KEYS) == number
                await ran(clients[number % 2], worker, request)
            await worker.no_job()


class TestKept:
    async def test_the_key_s_place_keeps_the_job(self, address, function):
        async with (
            relaying([address]) as gateway,
            hand_worker(address, function) as worker,
            AsyncExitStack() as stack,
        ):
            clients = await gateway.clients(stack)
            for number in range(ENOUGH):
                request = keyed(function, b"w", new_key(), ASYNC)
                before = gateway.relayed()
                first = await clients[number % 2].ask(request)
                was_relayed = gateway.relayed() > before
                assert (first.status, is_first(first)) == (202, True)
                job_id = str(job_of(first)["id"])
                again = await clients[1 - number % 2].ask(request)
                assert is_again(again, first)
                assert again.headers[b"location"] == at(job_id)
                # It is where its key is.
                for place, client in enumerate(clients):
                    relayed, answer = await gateway.asked(client, head(b"GET", at(job_id)))
                    assert answer.status == 200
                    assert relayed == ((place == number % 2) == was_relayed)
                handle, _, _, _ = await worker.take()
                worker.complete(handle, b"kept")
                answer = await clients[0].ask(head(b"GET", at(job_id, "result", "wait=60")))
                assert (answer.status, answer.body) == (200, b"kept")
                assert (await clients[1].ask(head(b"DELETE", at(job_id)))).status == 204
                assert is_again(await clients[0].ask(request), first)
            await worker.no_job()

    async def test_its_wait_is_that_of_its_client(self, address, function):
        async with (
            relaying([address]) as gateway,
            hand_worker(address, function) as worker,
            AsyncExitStack() as stack,
        ):
            clients = await gateway.clients(stack)
            for client in clients * 3:
                request = keyed(function, b"w", new_key(), b"Prefer: respond-async, wait=60")
                client.send(request)
                handle, _, _, _ = await worker.take()
                worker.complete(handle, b"in time")
                first = await client.response()
                assert (first.status, first.body, is_first(first)) == (200, b"in time", True)
                for each in clients:
                    assert is_again(await each.ask(request), first)


class TestTokens:
    async def test_a_key_is_its_token_s_at_any_process(self, address, function, tmp_path):
        file = TokenFile(tmp_path / "tokens.toml")
        file.write(file.table("one", "max_jobs = 1"), file.table("other"))
        one, other = file.line("one"), file.line("other")
        async with (
            relaying([address], "--tokens", str(file.path)) as gateway,
            hand_worker(address, function) as worker,
            AsyncExitStack() as stack,
        ):
            clients = await gateway.clients(stack)
            relayed = 0
            for number in range(ENOUGH):
                # Short, since nobody else can have it.
                key = b"%d" % number
                requests = {line: keyed(function, line, key, line) for line in (one, other)}
                clients[number % 2].send(requests[one])
                handle, _, _, workload = await worker.take()
                assert workload == one
                # It counts among those of its token at every process.
                for client in (clients[1 - number % 2],):
                    answer = await client.ask(keyed(function, b"w", b"another-%d" % number, one))
                    assert (answer.status, answer.kind(), is_first(answer)) == (429, "too-many-token-jobs", True)
                worker.complete(handle, b"one's")
                firsts = {one: await clients[number % 2].response()}
                firsts[other] = await ran(clients[1 - number % 2], worker, requests[other], b"other's")
                assert is_first(firsts[one])
                for client in clients:
                    for line, first in firsts.items():
                        was_relayed, answer = await gateway.asked(client, requests[line])
                        relayed += was_relayed
                        assert is_again(answer, first)
                    assert (await client.ask(keyed(function, one, key))).status == 401
            assert 0 < relayed < 4 * ENOUGH
            assert gateway.memory.shared.taken(KEPT_KEYS) == 2 * ENOUGH
            await worker.no_job()


class TestBounds:
    async def test_all_processes_together_know_so_many_and_a_reload_changes_it(self, address, function, tmp_path):
        config = tmp_path / "gatewayx.toml"
        config.write_text("max-keys = 4\n", encoding="utf-8")
        async with (
            relaying([address], "--config", str(config)) as gateway,
            hand_worker(address, function) as worker,
            AsyncExitStack() as stack,
        ):
            clients = await gateway.clients(stack)
            requests = [keyed(function, b"w", new_key()) for _ in range(4)]
            firsts = [await ran(clients[number % 2], worker, request) for number, request in enumerate(requests)]
            for client in clients * 3:
                answer = await client.ask(keyed(function, b"w", new_key()))
                assert (answer.status, answer.kind(), is_first(answer)) == (503, "too-many-keys", True)
                for request, first in zip(requests, firsts, strict=True):
                    assert is_again(await client.ask(request), first)
            config.write_text("max-keys = 6\n", encoding="utf-8")
            gateway.served.signal(signal.SIGHUP)
            await gateway.served.until("all worker processes have the settings")
            for client in clients:
                request = keyed(function, b"w", new_key())
                await ran(client, worker, request)
            for client in clients * 3:
                assert (await client.ask(keyed(function, b"w", new_key()))).kind() == "too-many-keys"
            config.write_text("max-keys = 1\n", encoding="utf-8")
            gateway.served.signal(signal.SIGHUP)
            await gateway.served.until("all worker processes have the settings")
            for client in clients:
                for request, first in zip(requests, firsts, strict=True):
                    assert is_again(await client.ask(request), first)
                assert (await client.ask(keyed(function, b"w", new_key()))).kind() == "too-many-keys"
            assert gateway.memory.shared.taken(KEPT_KEYS) == 6

    async def test_whoever_has_ended_long_enough_ago_gives_room_back(self, address, function):
        async with (
            relaying([address], "--kept-ttl", "0.5", "--max-keys", "2") as gateway,
            hand_worker(address, function) as worker,
            AsyncExitStack() as stack,
        ):
            clients = await gateway.clients(stack)
            for _ in range(3):
                for client in clients:
                    await ran(client, worker, keyed(function, b"w", new_key()), b"x" * 10_000)
                await eventually(
                    lambda: (
                        (
                            gateway.memory.shared.taken(KEPT_KEYS),
                            gateway.memory.shared.taken(KEPT_BYTES),
                        )
                        == (0, 0)
                    ),
                    PROCESS_S,
                )


class TestKilled:
    async def test_with_its_process_a_key_is_gone_and_others_stay(self, address, function):
        async with (
            relaying([address]) as gateway,
            hand_worker(address, function) as worker,
            AsyncExitStack() as stack,
        ):
            clients = await gateway.clients(stack)
            lost, _ = await owned_by(gateway, clients, worker, function, 0)
            stays, first = await owned_by(gateway, clients, worker, function, 1)
            # One that runs there, for a client that is connected elsewhere.
            key = new_key()
            while True:
                before = gateway.relayed()
                clients[1].send(keyed(function, b"running", key))
                handle, _, _, _ = await worker.take()
                if gateway.relayed() > before:
                    break
                worker.complete(handle)
                await clients[1].response()
                key = new_key()
            os.kill(gateway.first_workers[0], signal.SIGKILL)
            answer = await clients[1].response()
            assert (answer.status, answer.kind()) == (502, "outcome-unknown")
            assert is_first(answer)
            await eventually(
                lambda: (
                    len(gateway.served.workers()) == 2
                    and gateway.first_workers[0] not in gateway.served.workers()
                    and all(place.state == place.state.SERVING for place in gateway.memory.places.rows)
                ),
                PROCESS_S,
            )
            worker.complete(handle)
            assert is_again(await clients[1].ask(stays), first)
            # What was known there is known no more, and its room was given back.
            await ran(clients[1], worker, lost, b"anew")
            again = await clients[1].ask(lost)
            assert (again.body, again.headers[REPLAYED]) == (b"anew", b"true")
            await worker.no_job()

    async def test_nothing_that_it_knew_is_counted_any_more(self, address, function):
        async with (
            relaying([address]) as gateway,
            hand_worker(address, function) as worker,
            AsyncExitStack() as stack,
        ):
            clients = await gateway.clients(stack)
            for number in range(ENOUGH):
                await ran(clients[number % 2], worker, keyed(function, b"w", new_key()), b"x" * 10_000)
            shared = gateway.memory.shared
            assert shared.taken(KEPT_KEYS) == ENOUGH
            for process_id in gateway.first_workers:
                os.kill(process_id, signal.SIGKILL)
            await eventually(lambda: (shared.taken(KEPT_KEYS), shared.taken(KEPT_BYTES)) == (0, 0), PROCESS_S)


class TestStop:
    async def test_waits_for_what_runs_and_answers_whoever_joins(self, address, function):
        async with (
            relaying([address]) as gateway,
            hand_worker(address, function) as worker,
            AsyncExitStack() as stack,
        ):
            clients = await gateway.clients(stack)
            ended = keyed(function, b"ended", new_key())
            first = await ran(clients[0], worker, ended)
            running = [keyed(function, b"running", new_key()) for _ in range(4)]
            handles = []
            for request in running:
                clients[0].send(request)
                handles.append((await worker.take())[0])
                clients[1].send(request)
            # A request that comes only when the stop has begun may be too late.
            await eventually(lambda: gateway.memory.counters()["keys_joined"] == len(running))
            clients[0].send(ended)
            clients[1].send(ended)
            gateway.served.signal(signal.SIGTERM)
            await gateway.served.until("answering what is in flight")
            for handle in handles:
                worker.complete(handle, b"in time")
            for client in clients:
                answers = [await client.response() for _ in running]
                assert {(answer.status, answer.body) for answer in answers} == {(200, b"in time")}
            assert await gateway.served.ended() == 0
            assert first.status == 200

    async def test_one_that_nobody_waits_for_is_waited_for_too(self, address, function):
        async with relaying([address]) as gateway, hand_worker(address, function) as worker:
            handles = []
            async with AsyncExitStack() as stack:
                for client in await gateway.clients(stack):
                    client.send(keyed(function, b"w", new_key()))
                    handles.append((await worker.take())[0])
                    client.reset()
            await eventually(lambda: gateway.memory.taken()["connections"] == 0)
            gateway.served.signal(signal.SIGTERM)
            await gateway.served.until("answering what is in flight")
            shown = await ask_text(address, b"show jobs")
            # They were not given up.
            assert all(handle + b"\t0\t0\t" in shown for handle in handles)
            for handle in handles:
                worker.complete(handle)
            assert await gateway.served.ended() == 0


async def test_a_request_without_a_key_is_relayed_as_little_as_ever(address, function):
    async with (
        relaying([address]) as gateway,
        hand_worker(address, function) as worker,
        AsyncExitStack() as stack,
    ):
        for client in await gateway.clients(stack):
            before = gateway.relayed()
            client.send(post(b"/" + function, b"w"))
            handle, _, _, _ = await worker.take()
            worker.complete(handle)
            assert (await client.response()).status == 200
            assert gateway.relayed() == before
