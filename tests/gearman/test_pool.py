"""The job servers behind the gateway: which one gets a job, and what happens while some are away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from itertools import starmap

import pytest

from gatewayx.address import ServerAddress
from gatewayx.config.kinds import FunctionServer
from gatewayx.core.deadlines import DeadlineWheel
from gatewayx.gearman import keeper, roster
from gatewayx.gearman.keeper import BACKOFF_FIRST_S, BACKOFF_MAX_S
from gatewayx.gearman.packet import PacketType
from gatewayx.gearman.pool import Pool
from support.behind import upstreams_of
from support.gateway import RunningGateway, eventually, running_gateway
from support.gearmand import Gearmand
from support.http import HttpClient, ask, post
from support.job_servers import FakeDialer, ScriptedConnection, ScriptedJobServer, hand_worker, nobody_listens
from support.times import SOON_S, WAIT_S

pytestmark = pytest.mark.anyio

HANDLE = b"H:test:1"


@pytest.fixture
async def servers() -> AsyncIterator[list[ScriptedJobServer]]:
    """Two job servers that answer what the test says."""
    async with ScriptedJobServer() as one, ScriptedJobServer() as two:
        yield [one, two]


@pytest.fixture
async def gateway(servers: list[ScriptedJobServer]) -> AsyncIterator[RunningGateway]:
    """A gateway with one connection to each of them."""
    async with running_gateway([server.address for server in servers], connections_per_server=1) as gateway:
        yield gateway


@pytest.fixture
async def upstreams(servers: list[ScriptedJobServer], gateway: RunningGateway) -> list[ScriptedConnection]:
    """These connections, as the job servers see them."""
    return await upstreams_of(gateway, *servers)


async def send(gateway: RunningGateway, workload: bytes, *headers: bytes) -> HttpClient:
    """A new client whose request has been submitted somewhere."""
    submitted = gateway.count("pool.outstanding_jobs")
    client = await HttpClient(gateway.address).connect()
    client.send(post(b"/f", workload, *headers))
    await eventually(lambda: gateway.count("pool.outstanding_jobs") > submitted)
    return client


async def run(upstreams: list[ScriptedConnection], submissions: int) -> list[int]:
    """Run this many jobs to their end with their workload as the result; returns how many each job server had."""
    counts = [0 for _ in upstreams]
    while sum(counts) < submissions:
        await eventually(lambda: any(not upstream.submissions.empty() for upstream in upstreams))
        for index, upstream in enumerate(upstreams):
            while not upstream.submissions.empty():
                counts[index] += 1
                workload = upstream.submissions.get_nowait().workload
                handle = b"H:%d" % counts[index]
                upstream.answer(PacketType.JOB_CREATED, handle)
                upstream.answer(PacketType.WORK_COMPLETE, handle, workload)
    return counts


async def finish(clients: list[HttpClient], results: list[bytes]) -> None:
    """Check each client's result and close it."""
    for client, result in zip(clients, results, strict=True):
        answer = await client.response()
        assert (answer.status, answer.body) == (200, result)
        await client.close()


class TestChoice:
    async def test_a_new_job_goes_where_the_fewest_are_outstanding(self, gateway, upstreams):
        workloads = [b"%d" % number for number in range(10)]
        clients = [await send(gateway, workload) for workload in workloads]
        assert [upstream.submissions.qsize() for upstream in upstreams] == [5, 5]
        # The first one runs its five; the next four belong to it.
        assert await run(upstreams[:1], 5) == [5]
        await eventually(lambda: gateway.count("pool.outstanding_jobs") == 5)
        more = [b"more %d" % number for number in range(4)]
        clients += [await send(gateway, workload) for workload in more]
        assert [upstream.submissions.qsize() for upstream in upstreams] == [4, 5]
        assert await run(upstreams, 9) == [4, 5]
        await finish(clients, workloads + more)

    async def test_equals_take_turns(self, gateway, upstreams):
        turns = []
        for number in range(6):
            client = await send(gateway, b"%d" % number)
            turns.append(await run(upstreams, 1))
            await finish([client], [b"%d" % number])
        assert turns in ([[1, 0], [0, 1]] * 3, [[0, 1], [1, 0]] * 3)

    async def test_the_connections_to_one_server_share_its_jobs(self):
        async with (
            ScriptedJobServer() as server,
            running_gateway([server.address], connections_per_server=3) as gateway,
        ):
            upstreams = await upstreams_of(gateway, server, each=3)
            workloads = [b"%d" % number for number in range(9)]
            clients = [await send(gateway, workload) for workload in workloads]
            assert [upstream.submissions.qsize() for upstream in upstreams] == [3, 3, 3]
            await run(upstreams, 9)
            await finish(clients, workloads)

    async def test_the_same_handle_on_two_servers_means_two_jobs(self, gateway, upstreams):
        clients = [await send(gateway, workload) for workload in (b"1", b"2")]
        workloads = [(await upstream.accept(HANDLE)).workload for upstream in upstreams]
        assert set(workloads) == {b"1", b"2"}
        for upstream, workload in reversed(list(zip(upstreams, workloads, strict=True))):
            upstream.answer(PacketType.WORK_DATA, HANDLE, b"result of ")
            upstream.answer(PacketType.WORK_COMPLETE, HANDLE, workload)
        await finish(clients, [b"result of 1", b"result of 2"])

    async def test_the_same_handle_on_two_connections_to_one_server_means_two_jobs(self):
        async with (
            ScriptedJobServer() as server,
            running_gateway([server.address], connections_per_server=2) as gateway,
        ):
            upstreams = await upstreams_of(gateway, server, each=2)
            clients = [await send(gateway, workload) for workload in (b"1", b"2")]
            workloads = [(await upstream.accept(HANDLE)).workload for upstream in upstreams]
            for upstream, workload in zip(upstreams, workloads, strict=True):
                upstream.answer(PacketType.WORK_COMPLETE, HANDLE, b"result of " + workload)
            await finish(clients, [b"result of 1", b"result of 2"])


class TestServersThatGoAndCome:
    async def test_while_one_is_down_the_other_gets_everything(self, gateway, servers, upstreams):
        await servers[0].stop()
        await eventually(lambda: gateway.count("pool.connections") == 1)
        workloads = [b"%d" % number for number in range(5)]
        clients = [await send(gateway, workload) for workload in workloads]
        assert await run(upstreams[1:], 5) == [5]
        await finish(clients, workloads)

    async def test_one_that_comes_back_gets_jobs_again(self, gateway, servers, upstreams):
        await servers[0].stop()
        await eventually(lambda: gateway.count("pool.connections") == 1)
        busy = [await send(gateway, workload) for workload in (b"1", b"2")]
        await servers[0].start()
        again = await servers[0].connection()
        await eventually(lambda: gateway.count("pool.connections") == 2)
        client = await send(gateway, b"3")
        assert await run([again], 1) == [1]
        await finish([client], [b"3"])
        await run(upstreams[1:], 2)
        await finish(busy, [b"1", b"2"])

    async def test_jobs_of_one_that_goes_are_lost_and_those_of_the_other_live(self, gateway, servers, upstreams):
        clients = [await send(gateway, workload) for workload in (b"1", b"2")]
        lost, kept = (await upstreams[0].accept(HANDLE)).workload, (await upstreams[1].accept(HANDLE)).workload
        by_workload = dict(zip((b"1", b"2"), clients, strict=True))
        await servers[0].stop()
        answer = await by_workload[lost].response()
        assert (answer.status, answer.kind()) == (502, "outcome-unknown")
        upstreams[1].answer(PacketType.WORK_COMPLETE, HANDLE, b"kept")
        assert (await by_workload[kept].response()).body == b"kept"
        for client in clients:
            await client.close()

    async def test_while_all_are_down_requests_are_503_at_once(self, gateway, servers, upstreams):
        for server in servers:
            await server.stop()
        await eventually(lambda: gateway.count("pool.connections") == 0)
        began_s = time.monotonic()
        for _ in range(20):
            answer = await ask(gateway.address, post(b"/f"))
            assert (answer.status, answer.kind()) == (503, "no-job-server")
            assert int(answer.headers[b"retry-after"]) >= 1
        assert time.monotonic() - began_s < SOON_S
        assert gateway.count("pool.outstanding_jobs") == 0

    async def test_a_start_without_any_still_starts_at_once_and_finds_one_later(self, monkeypatch):
        monkeypatch.setattr(roster, "FIRST_ATTEMPT_S", 3600.0)
        server = ScriptedJobServer(port=nobody_listens()[1])
        async with running_gateway([server.address], connections_per_server=1, is_patient=False) as gateway:
            assert (await ask(gateway.address, post(b"/f"))).status == 503
            async with server:
                upstream = await server.connection()
                await eventually(lambda: gateway.count("pool.connections") == 1)
                client = await send(gateway, b"found")
                await run([upstream], 1)
                await finish([client], [b"found"])

    async def test_a_start_waits_a_second_at_most_for_a_server_that_is_silent(self):
        async with ScriptedJobServer(reads=False) as silent, ScriptedJobServer() as other:
            began_s = time.monotonic()
            servers = [silent.address, other.address]
            async with running_gateway(servers, connections_per_server=1, is_patient=False) as gateway:
                assert 0.9 < time.monotonic() - began_s < SOON_S
                upstream = await other.connection()
                clients = [await send(gateway, b"%d" % number) for number in range(3)]
                assert await run([upstream], 3) == [3]
                await finish(clients, [b"0", b"1", b"2"])

    async def test_one_that_froze_with_jobs_gets_no_more_than_its_share(self, gateway, upstreams):
        upstreams[0].transport.pause_reading()
        stuck = [await send(gateway, b"%d" % number) for number in range(2)]
        assert await run(upstreams[1:], 1) == [1]
        await eventually(lambda: gateway.count("pool.outstanding_jobs") == 1)
        for number in range(10):
            client = await send(gateway, b"next %d" % number)
            assert await run(upstreams[1:], 1) == [1]
            await finish([client], [b"next %d" % number])
        upstreams[0].transport.resume_reading()
        assert await run(upstreams[:1], 1) == [1]
        await finish(stuck, [b"0", b"1"])

    async def test_attempts_back_off_exponentially_with_full_jitter(self, monkeypatch):
        bounds: list[float] = []

        def pause(most_s: float) -> float:
            bounds.append(most_s)
            return 0.0 if most_s < BACKOFF_MAX_S else most_s

        monkeypatch.setattr(keeper, "random_part", pause)
        async with running_gateway([nobody_listens()], connections_per_server=1):
            await eventually(lambda: bounds.count(BACKOFF_MAX_S) == 2)
        doubled = [BACKOFF_FIRST_S * 2**number for number in range(7)]
        # One connection for jobs, one for text commands.
        assert sorted(bounds) == sorted(2 * (*doubled, BACKOFF_MAX_S))


class TestClosing:
    @pytest.mark.parametrize("turns", range(1, 10))
    async def test_it_ends_at_any_moment_of_a_start(self, monkeypatch, turns):
        monkeypatch.setattr(roster, "FIRST_ATTEMPT_S", 3600.0)
        loop = asyncio.get_running_loop()
        starting_pool = Pool(
            loop,
            DeadlineWheel(0.1, loop.time()),
            [("127.0.0.1", 1)],
            connections_per_server=1,
            max_result_bytes=1000,
            dialer=FakeDialer(),
        )
        starting = asyncio.create_task(starting_pool.start())
        for _ in range(turns):
            await asyncio.sleep(0)
        await asyncio.wait_for(starting_pool.close(), WAIT_S)
        await asyncio.wait_for(starting, WAIT_S)


class TestGearmand:
    async def test_jobs_of_a_gearmand_that_dies_are_502_and_its_successor_serves(self, tmp_path, tmp_gearmand):
        address = tmp_gearmand.address
        async with running_gateway([address]) as gateway, HttpClient(gateway.address) as client:
            async with hand_worker(address, b"f") as worker:
                client.send(post(b"/f"))
                await worker.take()
                tmp_gearmand.kill()
                answer = await client.response()
                assert (answer.status, answer.kind()) == (502, "outcome-unknown")
            assert (await client.ask(post(b"/f"))).status == 503
            with Gearmand(tmp_path, port=tmp_gearmand.port):
                await eventually(lambda: gateway.count("pool.connections") == 2)
                async with hand_worker(address, b"f") as worker:
                    client.send(post(b"/f", b"again"))
                    handle, _, _, workload = await worker.take()
                    assert workload == b"again"
                    worker.complete(handle, b"served")
                    assert (await client.response()).body == b"served"

    async def test_a_gearmand_that_is_frozen_costs_its_requests_alone(self, tmp_gearmand, embedded):
        servers = [tmp_gearmand.address, embedded.address]
        names = ("frozen", "f")
        mapping = tuple(FunctionServer(*pair) for pair in zip(names, starmap(ServerAddress, servers), strict=True))
        async with (
            running_gateway(servers, function_server=mapping) as gateway,
            hand_worker(embedded.address, b"f") as worker,
            HttpClient(gateway.address) as waiting,
            HttpClient(gateway.address) as client,
        ):
            tmp_gearmand.pause()
            waiting.send(post(b"/frozen", b"", b"X-Gearman-Timeout: 0.3"))
            client.send(post(b"/f", b"w"))
            handle, _, _, workload = await worker.take()
            worker.complete(handle, workload)
            assert (await client.response()).body == b"w"
            assert (await waiting.response()).status == 504
            tmp_gearmand.resume()


class TestPinnedJobs:
    async def test_jobs_with_one_unique_go_the_same_way(self):
        async with ScriptedJobServer() as one, ScriptedJobServer() as two:
            servers = [one.address, two.address]
            async with running_gateway(servers, connections_per_server=3) as gateway:
                upstreams = await upstreams_of(gateway, one, two, each=3)
                clients = [await send(gateway, b"same", b"X-Gearman-Unique: together") for _ in range(6)]
                assert sorted(await run(upstreams, 6)) == [0, 0, 0, 0, 0, 6]
                await finish(clients, [b"same"] * 6)

    async def test_different_uniques_spread_over_servers_and_connections(self):
        async with ScriptedJobServer() as one, ScriptedJobServer() as two:
            servers = [one.address, two.address]
            async with running_gateway(servers, connections_per_server=2) as gateway:
                upstreams = await upstreams_of(gateway, one, two, each=2)
                clients = [await send(gateway, b"w", b"X-Gearman-Unique: %d" % number) for number in range(100)]
                assert min(await run(upstreams, 100)) > 5
                await finish(clients, [b"w"] * 100)

    async def test_the_next_server_by_rank_takes_over_from_one_that_is_down(self):
        async with ScriptedJobServer() as one, ScriptedJobServer() as two:
            servers = [one.address, two.address]
            async with running_gateway(servers, connections_per_server=1) as gateway:
                upstreams = dict(zip((one, two), await upstreams_of(gateway, one, two), strict=True))
                first = await send(gateway, b"1", b"X-Gearman-Unique: together")
                counts = await run(list(upstreams.values()), 1)
                await finish([first], [b"1"])
                pinned, other = (one, two) if counts[0] else (two, one)
                await pinned.stop()
                await eventually(lambda: gateway.count("pool.connections") == 1)
                second = await send(gateway, b"2", b"X-Gearman-Unique: together")
                assert await run([upstreams[other]], 1) == [1]
                await finish([second], [b"2"])
