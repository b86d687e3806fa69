"""What a unique does: jobs that would join one of the other kind, on every job server and connection."""

from __future__ import annotations

import asyncio

import pytest

from gatewayx.gearman.packet import PacketType
from support.behind import BACKGROUND, FULL, MEBIBYTE, STATUS_INTERVAL_S, TOGETHER, behind
from support.gateway import eventually, running_gateway
from support.http import HttpClient, ask, chunked, get, head, post
from support.job_servers import hand_worker

pytestmark = pytest.mark.anyio

# Workloads of one length, with the same first and last 4 KiB and more, so that they go to one job server.
LARGE = tuple(b"s" * 70_000 + middle + b"e" * 70_000 for middle in (b"one", b"two"))


class TestMixedUniques:
    async def test_a_foreground_job_that_would_join_an_accepted_background_job_is_409(self):
        async with behind(1) as all_of, HttpClient(all_of.gateway.address) as client:
            [upstream] = all_of.upstreams
            all_of.servers[0].status[b"f"] = (1, 0, 0)
            client.send(post(b"/f", b"w", TOGETHER, BACKGROUND))
            await upstream.accept(b"H:1")
            assert (await client.response()).status == 200
            answer = await client.ask(post(b"/f", b"w", TOGETHER))
            assert (answer.status, answer.kind()) == (409, "unique-in-use")
            # Another function or unique is another job, and a second background job may join the first.
            await all_of.number_for(b"w", b"X-Gearman-Unique: other")
            await all_of.number_for(b"w", TOGETHER, function=b"/g")
            client.send(post(b"/f", b"w", TOGETHER, BACKGROUND))
            await upstream.accept(b"H:1")
            assert (await client.response()).status == 200
            await all_of.next_status()
            assert (await client.ask(post(b"/f", b"w", TOGETHER))).status == 409
            # Once the job server has no job of the function it has ended.
            del all_of.servers[0].status[b"f"]
            await all_of.next_status()
            await all_of.number_for(b"w", TOGETHER)
            assert all_of.gateway.count("pool.known_backgrounds") == 0

    async def test_one_that_has_ended_is_known_to_have_though_the_function_is_busy_again(self):
        async with behind(1) as all_of, HttpClient(all_of.gateway.address) as client:
            client.send(post(b"/f", b"w", TOGETHER, BACKGROUND))
            await all_of.upstreams[0].accept(b"H:1")
            assert (await client.response()).status == 200
            await all_of.next_status()
            all_of.servers[0].status[b"f"] = (5, 0, 0)
            await all_of.next_status()
            await all_of.number_for(b"w", TOGETHER)

    async def test_those_that_have_ended_are_forgotten_as_others_come(self):
        async with behind(1) as all_of, HttpClient(all_of.gateway.address) as client:

            async def in_background(number: int) -> None:
                client.send(post(b"/f", b"w", b"X-Gearman-Unique: %d" % number, BACKGROUND))
                await all_of.upstreams[0].accept(b"H:%d" % number)
                assert (await client.response()).status == 200

            all_of.servers[0].status[b"f"] = (6, 0, 0)
            for number in range(6):
                await in_background(number)
            assert all_of.gateway.count("pool.known_backgrounds") == 6
            del all_of.servers[0].status[b"f"]
            await all_of.next_status()
            all_of.servers[0].status[b"f"] = (4, 0, 0)
            await all_of.next_status()
            for number in range(6, 10):
                await in_background(number)
            assert all_of.gateway.count("pool.known_backgrounds") == 4

    async def test_a_background_job_that_is_not_accepted_yet_counts_and_so_does_one_whose_client_left(self):
        async with behind(1) as all_of:
            all_of.servers[0].status[b"f"] = (1, 0, 0)
            first = await all_of.send(b"w", TOGETHER, BACKGROUND)
            await all_of.upstreams[0].submission()
            assert (await ask(all_of.gateway.address, post(b"/f", b"w", TOGETHER))).status == 409
            first.reset()
            await eventually(lambda: all_of.gateway.count("pool.outstanding_jobs") == 0)
            all_of.upstreams[0].answer(PacketType.JOB_CREATED, b"H:1")
            await all_of.next_status()
            assert (await ask(all_of.gateway.address, post(b"/f", b"w", TOGETHER))).status == 409

    async def test_a_background_job_on_its_way_counts_though_no_status_knows_it_yet(self):
        async with behind(1) as all_of:
            first = await all_of.send(b"w", TOGETHER, BACKGROUND)
            await all_of.upstreams[0].submission()
            await all_of.next_status()
            assert (await ask(all_of.gateway.address, post(b"/f", b"w", TOGETHER))).status == 409
            all_of.upstreams[0].answer(PacketType.ERROR, b"code", b"text")
            assert (await first.response()).status == 503
            # It was refused, so it is queued nowhere.
            assert all_of.gateway.count("pool.known_backgrounds") == 0
            second = await all_of.send(b"w", TOGETHER)
            await all_of.upstreams[0].complete(b"H:1", b"done")
            assert (await second.response()).body == b"done"
            await first.close()
            await second.close()

    async def test_a_background_job_that_would_join_a_foreground_job_is_409(self):
        async with behind(1) as all_of:
            [upstream] = all_of.upstreams
            client = await all_of.send(b"w", TOGETHER)
            await upstream.accept(b"H:1")
            answer = await ask(all_of.gateway.address, post(b"/f", b"w", TOGETHER, BACKGROUND))
            assert (answer.status, answer.kind()) == (409, "unique-in-use")
            # Nor after its client has left: the job lives on.
            client.reset()
            await eventually(lambda: all_of.gateway.count("pool.outstanding_jobs") == 0)
            assert (await ask(all_of.gateway.address, post(b"/f", b"w", TOGETHER, BACKGROUND))).status == 409
            upstream.answer(PacketType.WORK_COMPLETE, b"H:1", b"")
            await eventually(lambda: all_of.gateway.count("pool.pins") == 0)
            background = await all_of.send(b"w", TOGETHER, BACKGROUND)
            await upstream.accept(b"H:2")
            assert (await background.response()).status == 200
            await background.close()

    async def test_dash_is_told_apart_by_the_workload(self):
        async with behind(1) as all_of, HttpClient(all_of.gateway.address) as client:
            all_of.servers[0].status[b"f"] = (1, 0, 0)
            dash = b"X-Gearman-Unique: -"
            client.send(post(b"/f", b"w", dash, BACKGROUND))
            await all_of.upstreams[0].accept(b"H:1")
            assert (await client.response()).status == 200
            assert (await client.ask(post(b"/f", b"w", dash))).status == 409
            await all_of.number_for(b"another", dash)
            for _ in range(2):
                await all_of.number_for(b"", dash)

    @pytest.mark.parametrize("background_first", [False, True], ids=["foreground-first", "background-first"])
    async def test_large_workloads_of_dash_that_differ_only_in_the_middle_are_told_apart(self, background_first):
        async with behind(1) as all_of, HttpClient(all_of.gateway.address) as client:
            [upstream] = all_of.upstreams
            all_of.servers[0].status[b"f"] = (1, 0, 0)
            dash = b"X-Gearman-Unique: -"
            kinds = [(dash, BACKGROUND), (dash,)] if background_first else [(dash,), (dash, BACKGROUND)]
            clients = []
            for number, (workload, headers) in enumerate(zip(LARGE, kinds, strict=True)):
                clients.append(await all_of.send(workload, *headers))
                await upstream.accept(b"H:%d" % number)
            # And the same ones are the same.
            for workload, headers in zip(LARGE, reversed(kinds), strict=True):
                assert (await client.ask(post(b"/f", workload, *headers))).kind() == "unique-in-use"
            upstream.answer(PacketType.WORK_COMPLETE, b"H:%d" % background_first, b"done")
            assert [(await client.response()).status for client in clients] == [200, 200]
            for other in clients:
                await other.close()

    @pytest.mark.parametrize(
        "request_bytes",
        [
            pytest.param([post(b"/f", LARGE[0], b"X-Gearman-Unique: -")], id="at-once"),
            pytest.param([post(b"/f", LARGE[0], b"X-Gearman-Unique: -")[:-100_000], LARGE[0][-100_000:]], id="pieces"),
            pytest.param(
                [
                    head(b"POST", b"/f", b"X-Gearman-Unique: -", b"Transfer-Encoding: chunked"),
                    chunked(*(LARGE[0][start : start + 7] for start in range(0, 70_000, 7))).removesuffix(b"0\r\n\r\n"),
                    chunked(LARGE[0][70_000:100_000], LARGE[0][100_000:]),
                ],
                id="chunked",
            ),
        ],
    )
    async def test_dash_is_the_same_however_its_workload_arrives(self, request_bytes):
        async with behind(1) as all_of, HttpClient(all_of.gateway.address) as client:
            all_of.servers[0].status[b"f"] = (1, 0, 0)
            background = await all_of.send(LARGE[0], b"X-Gearman-Unique: -", BACKGROUND)
            await all_of.upstreams[0].accept(b"H:1")
            assert (await background.response()).status == 200
            for part in request_bytes:
                await client.send_all(part)
                await asyncio.sleep(0.02)
            assert (await client.response()).kind() == "unique-in-use"
            await background.close()

    async def test_dash_is_the_same_as_a_query(self):
        async with behind(1) as all_of, HttpClient(all_of.gateway.address) as client:
            all_of.servers[0].status[b"f"] = (1, 0, 0)
            background = await all_of.send(b"a=b", b"X-Gearman-Unique: -", BACKGROUND)
            await all_of.upstreams[0].accept(b"H:1")
            assert (await background.response()).status == 200
            assert (await client.ask(get(b"/f?a=b", b"X-Gearman-Unique: -"))).kind() == "unique-in-use"
            await background.close()

    @pytest.mark.parametrize("code", [b"QUEUE_ERROR", b"ARGUMENT_TOO_LARGE"])
    async def test_background_jobs_that_are_refused_are_not_taken_for_accepted(self, code):
        async with behind(1) as all_of:
            [upstream] = all_of.upstreams
            # Were one queued, no status would let it go.
            all_of.servers[0].status[b"f"] = (5, 0, 0)
            await all_of.next_status()
            clients = [await all_of.send(b"w", TOGETHER, BACKGROUND) for _ in range(2)]
            for _ in clients:
                await upstream.submission()
            upstream.answer(PacketType.ERROR, code, b"text")
            assert (await clients[0].response()).status == 503
            # The other one may yet be queued.
            assert (await ask(all_of.gateway.address, post(b"/f", b"w", TOGETHER))).kind() == "unique-in-use"
            upstream.answer(PacketType.ERROR, code, b"text")
            assert (await clients[1].response()).status == 503
            await all_of.number_for(b"w", TOGETHER)
            for client in clients:
                await client.close()

    async def test_a_refused_one_takes_nothing_from_an_accepted_one(self):
        async with behind(1) as all_of:
            [upstream] = all_of.upstreams
            all_of.servers[0].status[b"f"] = (5, 0, 0)
            clients = [await all_of.send(b"w", TOGETHER, BACKGROUND) for _ in range(2)]
            await upstream.accept(b"H:1")
            await upstream.submission()
            upstream.answer(PacketType.ERROR, *FULL)
            assert sorted([(await client.response()).status for client in clients]) == [200, 503]
            await all_of.next_status()
            assert (await ask(all_of.gateway.address, post(b"/f", b"w", TOGETHER))).kind() == "unique-in-use"
            for client in clients:
                await client.close()

    async def test_one_that_moved_is_known_where_it_was_accepted_and_nowhere_else(self):
        async with behind(2) as all_of:
            # The one that refuses stays busy for ever.
            for server in all_of.servers:
                server.status[b"f"] = (5, 0, 0)
            client = await all_of.send(b"w", TOGETHER, BACKGROUND)
            refuses = await all_of.submitted_to()
            await all_of.upstreams[refuses].submission()
            all_of.upstreams[refuses].answer(PacketType.ERROR, *FULL)
            await all_of.upstreams[1 - refuses].accept(b"H:1")
            assert (await client.response()).status == 200
            await all_of.next_status()
            assert (await ask(all_of.gateway.address, post(b"/f", b"w", TOGETHER))).kind() == "unique-in-use"
            del all_of.servers[1 - refuses].status[b"f"]
            await all_of.next_status()
            await all_of.number_for(b"w", TOGETHER)
            assert all_of.gateway.count("pool.known_backgrounds") == 0
            await client.close()

    async def test_one_accepted_at_two_job_servers_is_known_until_it_has_ended_at_both(self):
        async with behind(2) as all_of:
            for server in all_of.servers:
                server.status[b"f"] = (5, 0, 0)
            clients = []
            for first in (True, False):
                clients.append(await all_of.send(b"w", TOGETHER, BACKGROUND))
                number = await all_of.submitted_to()
                if not first:
                    # Its queue is full by now.
                    await all_of.upstreams[number].submission()
                    all_of.upstreams[number].answer(PacketType.ERROR, *FULL)
                    number = 1 - number
                await all_of.upstreams[number].accept(b"H:1")
                assert (await clients[-1].response()).status == 200
            for number in (1, 0):
                await all_of.next_status()
                assert (await ask(all_of.gateway.address, post(b"/f", b"w", TOGETHER))).kind() == "unique-in-use"
                del all_of.servers[number].status[b"f"]
            await all_of.next_status()
            await all_of.number_for(b"w", TOGETHER)
            for client in clients:
                await client.close()

    @pytest.mark.parametrize("gives_up", ["the client", "the job server"])
    async def test_one_that_was_never_written_is_not_taken_for_accepted(self, gives_up):
        async with behind(1, server_check_interval_s=60) as all_of:
            [upstream] = all_of.upstreams
            all_of.servers[0].reads = False
            upstream.transport.pause_reading()
            stuck = await all_of.send(b"x" * 8 * MEBIBYTE)
            await all_of.gateway.reaches("pool.outstanding_jobs", 1)
            waiting = await all_of.send(b"w", TOGETHER, BACKGROUND)
            await all_of.gateway.reaches("pool.outstanding_jobs", 2)
            assert all_of.gateway.count("pool.known_backgrounds") == 1
            if gives_up == "the client":
                waiting.reset()
            else:
                upstream.close()
                assert (await waiting.response()).kind() == "not-submitted"
            await eventually(lambda: all_of.gateway.count("pool.known_backgrounds") == 0)
            upstream.close()
            await stuck.response()
            for client in (stuck, waiting):
                await client.close()

    @pytest.mark.parametrize("breaks", ["closes", "sends a malformed handle"])
    async def test_one_whose_outcome_stays_unknown_is_known_until_it_can_be_seen_to_have_ended(self, breaks):
        async with behind(1) as all_of:
            client = await all_of.send(b"w", TOGETHER, BACKGROUND)
            await all_of.upstreams[0].submission()
            if breaks == "closes":
                all_of.upstreams[0].close()
            else:
                all_of.upstreams[0].answer(PacketType.JOB_CREATED, b"H 1")
            assert (await client.response()).kind() == "outcome-unknown"
            assert all_of.gateway.count("pool.known_backgrounds") == 1
            all_of.upstreams[0] = await all_of.servers[0].connection()
            await all_of.next_status()
            await eventually(lambda: all_of.gateway.count("pool.connections") == 1)
            await all_of.number_for(b"w", TOGETHER)
            assert all_of.gateway.count("pool.known_backgrounds") == 0
            await client.close()

    async def test_uniques_of_clients_can_be_forbidden(self):
        async with behind(1, refuse_client_unique=True) as all_of:
            answer = await ask(all_of.gateway.address, post(b"/f", b"w", TOGETHER))
            assert (answer.status, answer.kind()) == (400, "malformed-header")
            assert "X-Gearman-Unique" in answer.problem()["detail"]
            await all_of.number_for(b"w")

    async def test_a_real_background_job_is_not_lost_with_a_foreground_one(self, tmp_gearmand):
        async with running_gateway([tmp_gearmand.address], status_interval_s=STATUS_INTERVAL_S) as gateway:
            assert (await ask(gateway.address, post(b"/f", b"w", TOGETHER, BACKGROUND))).status == 200
            assert (await ask(gateway.address, post(b"/f", b"w", TOGETHER))).status == 409
        async with hand_worker(tmp_gearmand.address, b"f") as worker:
            handle, _, unique, _ = await worker.take()
            assert unique == b"together"
            worker.complete(handle)
