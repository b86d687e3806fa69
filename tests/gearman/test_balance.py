"""Which job server a job goes to when there are several."""

from __future__ import annotations

import asyncio

import pytest

from gatewayx.address import ServerAddress
from gatewayx.config.kinds import FunctionBound, FunctionServer
from gatewayx.gearman.packet import PacketType
from support.behind import FULL, STATUS_INTERVAL_S, Behind, behind, upstreams_of
from support.gateway import eventually, running_gateway
from support.http import HttpClient, ask, post
from support.job_servers import ScriptedJobServer, hand_worker
from support.times import WAIT_S

pytestmark = pytest.mark.anyio


async def tells_no_more(server: ScriptedJobServer) -> None:
    """Return once the gateway has lost what the job server has told, and has asked again in vain."""
    server.tells_status = False
    seen = server.statuses
    for connection in [connection for connection in server.open if connection.is_text]:
        connection.close()
    await eventually(lambda: server.statuses > seen)


class TestWorkers:
    async def test_servers_with_workers_come_first_then_those_of_which_it_is_not_known(self):
        async with behind(3) as all_of:
            await all_of.status(s0=0, s1=1, s2=0)
            assert [await all_of.number_for(b"w") for _ in range(3)] == [1, 1, 1]
            # A busy one with workers is better than an idle one without.
            busy = await all_of.send(b"busy")
            await all_of.upstreams[1].accept(b"H:busy")
            assert await all_of.number_for(b"w") == 1
            await all_of.status(s1=0)
            assert {await all_of.number_for(b"w") for _ in range(4)} == {0, 2}
            all_of.upstreams[1].answer(PacketType.WORK_FAIL, b"H:busy")
            await busy.response()
            await busy.close()

    async def test_a_server_that_does_not_tell_is_better_than_one_without(self):
        async with behind(2) as all_of:
            await all_of.status(s0=0)
            await tells_no_more(all_of.servers[1])
            assert [await all_of.number_for(b"w") for _ in range(3)] == [1, 1, 1]

    async def test_require_worker_is_503_at_once(self):
        async with behind(2, require_worker=True) as all_of:
            await all_of.status(s0=0, s1=0)
            answer = await ask(all_of.gateway.address, post(b"/f", b"w"))
            assert (answer.status, answer.kind()) == (503, "no-worker")
            assert int(answer.headers[b"retry-after"]) >= 1
            assert all_of.gateway.count("admission.refused") == 1
            await all_of.status(s1=1)
            assert await all_of.number_for(b"w") == 1

    async def test_require_worker_refuses_nothing_while_a_server_does_not_tell(self):
        async with behind(2, require_worker=True) as all_of:
            await tells_no_more(all_of.servers[1])
            all_of.servers[0].status[b"f"] = (0, 0, 0)
            seen = all_of.servers[0].statuses
            await eventually(lambda: all_of.servers[0].statuses >= seen + 2)
            assert await all_of.number_for(b"w") == 1

    async def test_require_worker_with_real_job_servers(self, embedded, tmp_gearmand):
        async with (
            running_gateway(
                [embedded.address, tmp_gearmand.address], require_worker=True, status_interval_s=STATUS_INTERVAL_S
            ) as gateway,
            HttpClient(gateway.address) as client,
        ):

            async def refused() -> None:
                """Until the gateway has learned that there is no worker, jobs wait in vain."""
                while (await client.ask(post(b"/g", b"early", b"X-Gearman-Timeout: 0.05"))).status != 503:
                    pass

            await asyncio.wait_for(refused(), WAIT_S)
            async with hand_worker(tmp_gearmand.address, b"g") as worker:
                client.send(post(b"/h", b"w"))
                assert (await client.response()).kind() == "no-worker"
                taking = asyncio.create_task(worker.take())
                while not taking.done():
                    answer = await client.ask(post(b"/g", b"w", b"X-Gearman-Timeout: 0.05"))
                    assert answer.status == 504 or answer.kind() == "no-worker"
                handle, _, _, workload = await taking
                assert workload == b"w"
                worker.complete(handle)
            await asyncio.wait_for(refused(), WAIT_S)


class TestQueues:
    async def test_max_queued_is_503_when_every_server_has_so_many(self):
        bounds = (FunctionBound("*", 10), FunctionBound("f", 2))
        async with behind(2, max_queued=bounds) as all_of:
            all_of.servers[0].status[b"f"] = (2, 0, 1)
            all_of.servers[1].status[b"f"] = (1, 7, 1)
            await all_of.next_status()
            await all_of.number_for(b"w")
            all_of.servers[1].status[b"f"] = (2, 0, 1)
            await all_of.next_status()
            answer = await ask(all_of.gateway.address, post(b"/f", b"w"))
            assert (answer.status, answer.kind()) == (503, "queue-too-long")
            assert int(answer.headers[b"retry-after"]) >= 1
            await all_of.number_for(b"w", function=b"/other")


class TestFunctionServers:
    async def test_a_function_goes_to_the_servers_it_is_mapped_to_and_to_no_other(self):
        servers = [ScriptedJobServer() for _ in range(3)]
        for server in servers:
            await server.start()
        addresses = [ServerAddress(*server.address) for server in servers]
        mapping = (
            FunctionServer("f", addresses[0]),
            FunctionServer("image-*", addresses[1]),
            FunctionServer("image-*", addresses[2]),
            FunctionServer("image-small", addresses[0]),
        )
        async with running_gateway(addresses, connections_per_server=1, function_server=mapping) as gateway:
            all_of = Behind(gateway, servers, await upstreams_of(gateway, *servers))
            assert {await all_of.number_for(b"w") for _ in range(4)} == {0}
            assert {await all_of.number_for(b"w", function=b"/image-x") for _ in range(4)} == {1, 2}
            assert {await all_of.number_for(b"w", function=b"/image-small") for _ in range(4)} == {0}
            assert {await all_of.number_for(b"w", function=b"/any") for _ in range(6)} == {0, 1, 2}
            unique = [b"X-Gearman-Unique: %d" % number for number in range(8)]
            assert {await all_of.number_for(b"w", each, function=b"/f") for each in unique} == {0}
            # Nor when it has no room, or is down.
            client = await all_of.send(b"w")
            await all_of.upstreams[0].submission()
            all_of.upstreams[0].answer(PacketType.ERROR, *FULL)
            assert (await client.response()).kind() == "job-refused"
            await client.close()
            await servers[0].stop()
            await eventually(lambda: gateway.count("pool.connections") == 2)
            assert (await ask(gateway.address, post(b"/f", b"w"))).kind() == "no-job-server"
        for server in servers[1:]:
            await server.stop()


class TestBalance:
    @pytest.mark.parametrize(("count", "shares"), [(12, [0, 12]), (60, [30, 30])])
    async def test_jobs_of_one_loop_turn_leave_together_as_long_as_that_is_fair(self, count, shares):
        async with behind(2) as all_of, HttpClient(all_of.gateway.address) as client:
            client.send(*(post(b"/f", b"%d" % number) for number in range(count)))
            await all_of.gateway.reaches("pool.outstanding_jobs", count)
            await eventually(lambda: sum(each.submissions.qsize() for each in all_of.upstreams) == count)
            assert sorted(each.submissions.qsize() for each in all_of.upstreams) == shares
            for upstream in all_of.upstreams:
                number = 0
                while not upstream.submissions.empty():
                    number += 1
                    await upstream.complete(b"H:%d" % number, b"")
            assert {(await client.response()).status for _ in range(count)} == {200}

    async def test_rotation_takes_each_in_turn_whatever_is_outstanding(self):
        async with behind(3, balance="rotation") as all_of:
            clients, turns = [], []
            for number in range(6):
                clients.append(await all_of.send(b"%d" % number))
                turns.append(await all_of.submitted_to())
                await all_of.upstreams[turns[-1]].accept(b"H:%d" % number)
                if turns[-1] == 0:
                    all_of.upstreams[0].answer(PacketType.WORK_COMPLETE, b"H:%d" % number, b"")
            assert turns[:3] == turns[3:]
            assert sorted(turns[:3]) == [0, 1, 2]
            for number, turn in enumerate(turns):
                if turn:
                    all_of.upstreams[turn].answer(PacketType.WORK_COMPLETE, b"H:%d" % number, b"")
            for client in clients:
                assert (await client.response()).status == 200
                await client.close()

    async def test_in_order_takes_the_first_that_is_up(self):
        async with behind(3, balance="in-order") as all_of:
            assert [await all_of.number_for(b"w") for _ in range(4)] == [0, 0, 0, 0]
            await all_of.servers[0].stop()
            await eventually(lambda: all_of.gateway.count("pool.connections") == 2)
            assert [await all_of.number_for(b"w") for _ in range(4)] == [1, 1, 1, 1]

    async def test_in_turn_skips_one_that_is_down_without_favouring_its_neighbour(self):
        async with behind(3, balance="rotation") as all_of:
            await all_of.servers[0].stop()
            await eventually(lambda: all_of.gateway.count("pool.connections") == 2)
            chosen = [await all_of.number_for(b"w") for _ in range(12)]
            assert sorted(chosen) == [1] * 6 + [2] * 6
