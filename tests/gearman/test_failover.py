"""Which job server a job goes to when there are several, and where it goes next when that one does not queue it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gatewayx.address import ServerAddress
from gatewayx.config.kinds import FunctionBound, FunctionServer
from gatewayx.gearman import keeper
from gatewayx.gearman.packet import Magic, PacketReader, PacketType
from gatewayx.net import names
from support.gateway import RunningGateway, eventually, running_gateway
from support.http import HttpClient, ask, chunked, get, head, post
from support.job_servers import OPTION_RES, ScriptedConnection, ScriptedJobServer, hand_worker, nobody_listens, response
from support.lookups import numeric
from support.still import still_gateway

pytestmark = pytest.mark.anyio

BACKGROUND = b"X-Gearman-Background: true"
TOGETHER = b"X-Gearman-Unique: together"
FULL = (b"QUEUE_ERROR", b"Job queue is full")
MEBIBYTE = 1024 * 1024

# As in gearman/job_table.pxd.
MAX_ABANDONED_JOBS = 16384

# How long the gateway needs to learn what a `status` says, in these tests.
STATUS_INTERVAL_S = 0.05


class Behind:
    """Scripted job servers, the gateway in front of them, and its connections to them, one each."""

    def __init__(
        self, gateway: RunningGateway, servers: list[ScriptedJobServer], upstreams: list[ScriptedConnection]
    ) -> None:
        self.gateway = gateway
        self.servers = servers
        self.upstreams = upstreams

    async def send(self, workload: bytes, *headers: bytes, function: bytes = b"/f") -> HttpClient:
        """A new client that has sent a request."""
        client = await HttpClient(self.gateway.address).connect()
        client.send(post(function, workload, *headers))
        return client

    async def submitted_to(self) -> int:
        """The number of the job server that has the next submission."""
        await eventually(lambda: any(not upstream.submissions.empty() for upstream in self.upstreams))
        [number] = [number for number, upstream in enumerate(self.upstreams) if not upstream.submissions.empty()]
        return number

    async def serve(self, *, expected: bytes) -> int:
        """Run the next job with its workload as the result; the number of its job server."""
        number = await self.submitted_to()
        assert (await self.upstreams[number].complete(b"H:1", expected)).workload == expected
        return number

    async def number_for(self, workload: bytes, *headers: bytes, function: bytes = b"/f") -> int:
        """The job server to which a request goes, which is served by it."""
        client = await self.send(workload, *headers, function=function)
        number = await self.serve(expected=workload)
        assert (await client.response()).body == workload
        await client.close()
        return number

    async def status(self, **workers: int | None) -> None:
        """Return once the gateway knows that the servers, named s0, s1 …, have so many workers for `f`."""
        for name, count in workers.items():
            self.servers[int(name[1:])].status[b"f"] = (0, 0, count)
        await self.next_status()

    async def next_status(self) -> None:
        """Return once every job server has been asked for its status and has answered."""
        asked = [server.statuses for server in self.servers]
        await eventually(
            lambda: all(server.statuses >= count + 2 for server, count in zip(self.servers, asked, strict=True))
        )


@asynccontextmanager
async def behind(count: int, **settings: object) -> AsyncIterator[Behind]:
    """So many scripted job servers and a gateway with one connection to each."""
    servers = [ScriptedJobServer() for _ in range(count)]
    try:
        for server in servers:
            await server.start()
        options = {"connections_per_server": 1, "status_interval_s": STATUS_INTERVAL_S} | settings
        async with running_gateway([server.address for server in servers], **options) as gateway:
            yield Behind(gateway, servers, [await server.connection() for server in servers])
    finally:
        for server in servers:
            await server.stop()


class TestFullQueues:
    async def test_a_full_queue_sends_the_job_to_the_next_server(self):
        async with behind(3) as all_of:
            client = await all_of.send(b"w")
            tried = []
            for _ in range(2):
                tried.append(await all_of.submitted_to())
                await all_of.upstreams[tried[-1]].submission()
                all_of.upstreams[tried[-1]].answer(PacketType.ERROR, *FULL)
            tried.append(await all_of.serve(expected=b"w"))
            assert sorted(tried) == [0, 1, 2]
            answer = await client.response()
            assert (answer.status, answer.body) == (200, b"w")
            assert all_of.gateway.count("pool.moved_jobs") == 2
            await client.close()

    @pytest.mark.parametrize("headers", [(), (TOGETHER,), (BACKGROUND,)], ids=["foreground", "pinned", "background"])
    async def test_all_full_is_503_and_each_was_tried_once(self, headers):
        async with behind(3) as all_of:
            client = await all_of.send(b"x" * 100_000, *headers)
            tried = []
            for _ in range(3):
                tried.append(await all_of.submitted_to())
                assert (await all_of.upstreams[tried[-1]].submission()).workload == b"x" * 100_000
                all_of.upstreams[tried[-1]].answer(PacketType.ERROR, *FULL)
            answer = await client.response()
            assert (answer.status, answer.kind()) == (503, "job-refused")
            assert "QUEUE_ERROR" in answer.problem()["detail"]
            assert int(answer.headers[b"retry-after"]) >= 1
            assert sorted(tried) == [0, 1, 2]
            await client.close()

    async def test_any_other_ERROR_is_503_at_once(self):  # noqa: N802
        async with behind(2) as all_of:
            client = await all_of.send(b"w")
            upstream = all_of.upstreams[await all_of.submitted_to()]
            await upstream.submission()
            upstream.answer(PacketType.ERROR, b"NOT_NICE", b"go away")
            answer = await client.response()
            assert (answer.status, answer.kind()) == (503, "job-refused")
            assert "NOT_NICE" in answer.problem()["detail"]
            assert all(upstream.submissions.empty() for upstream in all_of.upstreams)
            await client.close()

    async def test_a_job_nobody_waits_for_is_not_offered_again(self):
        async with behind(2) as all_of:
            client = await all_of.send(b"w")
            upstream = all_of.upstreams[await all_of.submitted_to()]
            await upstream.submission()
            client.reset()
            await eventually(lambda: all_of.gateway.count("pool.outstanding_jobs") == 0)
            upstream.answer(PacketType.ERROR, *FULL)
            assert await all_of.number_for(b"another") in (0, 1)
            assert all_of.gateway.count("pool.moved_jobs") == 0

    async def test_a_moved_job_keeps_its_deadline(self):
        async with behind(2) as all_of:
            client = await all_of.send(b"w", b"X-Gearman-Timeout: 0.2")
            upstream = all_of.upstreams[await all_of.submitted_to()]
            await upstream.submission()
            upstream.answer(PacketType.ERROR, *FULL)
            await all_of.upstreams[await all_of.submitted_to()].accept(b"H:1")
            assert (await client.response()).status == 504
            await client.close()
            for upstream in all_of.upstreams:
                upstream.answer(PacketType.WORK_FAIL, b"H:1")

    async def test_real_queues_that_are_full(self, embedded, tmp_gearmand):
        addresses = (embedded.address, tmp_gearmand.address)
        async with (
            running_gateway(addresses) as gateway,
            hand_worker(addresses[0], b"f") as worker,
            hand_worker(addresses[1], b"f") as other,
        ):
            for address in addresses:
                reader, writer = await asyncio.open_connection(*address)
                writer.write(b"maxqueue f 1\n")
                assert b"OK" in await reader.readline()
                writer.close()
                await writer.wait_closed()
            answers = [await ask(gateway.address, post(b"/f", b"%d" % number, BACKGROUND)) for number in range(3)]
            assert [answer.status for answer in answers] == [200, 200, 503]
            assert "QUEUE_ERROR" in answers[2].problem()["detail"]
            taken = []
            for each in (worker, other):
                handle, _, _, workload = await each.take()
                each.complete(handle)
                taken.append(workload)
            assert sorted(taken) == [b"0", b"1"]


class TestServersThatDie:
    async def test_what_was_not_written_goes_to_another_server(self):
        async with behind(2, job_timeout_s=5) as all_of:
            frozen = await all_of.number_for(b"first", TOGETHER)
            all_of.servers[frozen].reads = False
            all_of.upstreams[frozen].transport.pause_reading()
            # One of 8 MiB fills every buffer, so that it counts as sent and the next ones do not.
            stuck = await all_of.send(b"x" * 8 * MEBIBYTE, TOGETHER)
            await eventually(lambda: all_of.gateway.count("pool.outstanding_jobs") == 1)
            waiting = [await all_of.send(b"%d" % number, TOGETHER) for number in range(3)]
            await all_of.gateway.reaches("pool.outstanding_jobs", 4)
            await eventually(lambda: all_of.gateway.count("pool.unsent_bytes") > 0)
            held = all_of.gateway.count("budget.held_bytes")
            assert held > 8 * MEBIBYTE
            await all_of.servers[frozen].stop()
            for number, client in enumerate(waiting):
                assert await all_of.serve(expected=b"%d" % number) == 1 - frozen
                assert (await client.response()).body == b"%d" % number
                await client.close()
            answer = await stuck.response()
            assert (answer.status, answer.kind()) == (502, "outcome-unknown")
            assert all_of.gateway.count("pool.moved_jobs") == 3
            await stuck.close()

    async def test_what_nobody_waits_for_any_more_is_never_sent(self):
        async with behind(1, job_timeout_s=0.3, server_check_interval_s=60) as all_of:
            [upstream] = all_of.upstreams
            all_of.servers[0].reads = False
            upstream.transport.pause_reading()
            clients = [await all_of.send(b"x" * 8 * MEBIBYTE)]
            await all_of.gateway.reaches("pool.outstanding_jobs", 1)
            clients += [await all_of.send(b"%d" % number) for number in range(20)]
            answers = [await client.response() for client in clients]
            assert {answer.status for answer in answers} == {504}
            assert "nothing was submitted" in answers[-1].problem()["detail"]
            assert all_of.gateway.count("pool.unsent_bytes") == 0
            all_of.servers[0].reads = True
            upstream.transport.resume_reading()
            upstream.answer(PacketType.ECHO_RES, b"alive")
            assert (await upstream.submission()).workload == b"x" * 8 * MEBIBYTE
            upstream.answer(PacketType.JOB_CREATED, b"H:0")
            upstream.answer(PacketType.WORK_FAIL, b"H:0")
            assert await all_of.number_for(b"after") == 0
            for client in clients:
                await client.close()

    async def test_one_that_does_not_read_is_full_and_the_others_get_the_jobs(self):
        body = bytes(40 * MEBIBYTE)
        async with behind(
            2, max_body_bytes=len(body), max_held_bytes=1 << 30, job_timeout_s=20, server_check_interval_s=60
        ) as all_of:
            frozen = await all_of.number_for(b"first", TOGETHER)
            all_of.upstreams[frozen].transport.pause_reading()
            stuck = []
            for number in range(3):
                stuck.append(await all_of.send(body, TOGETHER))
                await all_of.gateway.reaches("pool.outstanding_jobs", number + 1)
            assert 2 * len(body) <= all_of.gateway.count("pool.unsent_bytes") < 2 * len(body) + 1000
            assert await all_of.number_for(b"next in rank", TOGETHER) == 1 - frozen
            await all_of.servers[frozen].stop()
            for _ in range(2):
                assert await all_of.serve(expected=body) == 1 - frozen
            answers = [await client.response() for client in stuck]
            assert sorted(answer.status for answer in answers) == [200, 200, 502]
            for client in stuck:
                await client.close()


class TestPins:
    async def test_a_job_joins_the_one_under_way_though_another_connection_is_first_by_rank_again(self):
        async with (
            ScriptedJobServer() as server,
            running_gateway([server.address], connections_per_server=2, status_interval_s=STATUS_INTERVAL_S) as gateway,
        ):
            upstreams = [await server.connection() for _ in range(2)]
            all_of = Behind(gateway, [server, server], upstreams)
            first_by_rank = await all_of.number_for(b"which", TOGETHER)
            upstreams[first_by_rank].close()
            await eventually(lambda: gateway.count("pool.connections") == 1)
            under_way = upstreams[1 - first_by_rank]
            first = await all_of.send(b"w", TOGETHER)
            await under_way.accept(b"H:1")
            upstreams[first_by_rank] = await server.connection()
            await eventually(lambda: gateway.count("pool.connections") == 2)
            second = await all_of.send(b"w", TOGETHER)
            await under_way.accept(b"H:1")
            for _ in range(2):
                under_way.answer(PacketType.WORK_COMPLETE, b"H:1", b"once")
            assert [(await client.response()).body for client in (first, second)] == [b"once", b"once"]
            assert gateway.count("pool.pins") == 0
            assert await all_of.number_for(b"which", TOGETHER) == first_by_rank
            for client in (first, second):
                await client.close()

    async def test_one_goes_to_its_server_whatever_workers_and_load(self):
        async with behind(2) as all_of:
            number = await all_of.number_for(b"w", TOGETHER)
            await all_of.status(**{f"s{number}": 0, f"s{1 - number}": 5})
            busy = await all_of.send(b"busy", TOGETHER)
            await all_of.upstreams[number].accept(b"H:busy")
            assert await all_of.number_for(b"w", TOGETHER) == number
            all_of.upstreams[number].answer(PacketType.WORK_FAIL, b"H:busy")
            await busy.response()
            await busy.close()

    async def test_dash_goes_by_its_workload_and_without_one_nowhere_in_particular(self):
        async with behind(2) as all_of:
            dash = b"X-Gearman-Unique: -"
            same = {await all_of.number_for(b"the same", dash) for _ in range(6)}
            assert len(same) == 1
            assert len({await all_of.number_for(b"%d" % number, dash) for number in range(12)}) == 2
            assert {await all_of.number_for(b"", dash) for _ in range(4)} == {0, 1}


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
            all_of.servers[1].tells_status = False
            for connection in [connection for connection in all_of.servers[1].open if connection.is_text]:
                connection.close()
            await eventually(lambda: len(all_of.servers[1].open) == 1)
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
            all_of.servers[1].tells_status = False
            for connection in [connection for connection in all_of.servers[1].open if connection.is_text]:
                connection.close()
            all_of.servers[0].status[b"f"] = (0, 0, 0)
            await eventually(lambda: all_of.servers[0].statuses >= 5)
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

            await asyncio.wait_for(refused(), 10)
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
            await asyncio.wait_for(refused(), 10)


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
            all_of = Behind(gateway, servers, [await server.connection() for server in servers])
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


async def test_a_connection_that_is_lost_beside_another_is_logged_with_the_reason(caplog):
    async with behind(1, connections_per_server=2) as all_of:
        await all_of.gateway.reaches("pool.connections", 2)
        all_of.upstreams[0].send(b"garbage that is no packet")
        await eventually(lambda: "a connection to job server" in caplog.text)
        [line] = [record.getMessage() for record in caplog.records if "a connection to" in record.getMessage()]
        assert "was lost, making it anew: " in line


class TestWhatIsKept:
    """What remains of jobs that nobody waits for."""

    async def test_joiners_that_leave_leave_nothing(self):
        async with behind(1) as all_of:
            [upstream] = all_of.upstreams
            waits = await all_of.send(b"w", TOGETHER)
            await upstream.accept(b"H:1")
            leave = await HttpClient(all_of.gateway.address).connect()
            before = _count_of_jobs()
            count = 40
            leave.send(*[post(b"/f", b"w", TOGETHER, b"X-Gearman-Timeout: 0.5")] * count)
            for _ in range(count):
                await upstream.accept(b"H:1")
            for _ in range(count):
                assert (await leave.response()).status == 504
            assert _count_of_jobs() == before
            for _ in range(count + 1):
                upstream.answer(PacketType.WORK_COMPLETE, b"H:1", b"done")
            assert (await waits.response()).body == b"done"
            await eventually(lambda: all_of.gateway.count("pool.pins") == 0)
            await waits.close()
            await leave.close()

    async def test_the_packet_of_a_written_job_goes_when_nobody_waits(self):
        async with behind(1, job_timeout_s=0.1) as all_of:
            client = await all_of.send(b"x" * MEBIBYTE)
            await all_of.upstreams[0].submission()
            assert (await client.response()).status == 504
            await eventually(lambda: all_of.gateway.count("budget.held_bytes") == 0)
            all_of.upstreams[0].answer(PacketType.JOB_CREATED, b"H:1")
            all_of.upstreams[0].answer(PacketType.WORK_FAIL, b"H:1")
            await client.close()

    async def test_one_abandoned_job_is_remembered_though_thousands_were_abandoned_and_ended_since(self):
        async with behind(1, cancel_abandoned=False, max_pipelined=1024) as all_of:
            [upstream] = all_of.upstreams
            gone = await all_of.send(b"w", TOGETHER, b"X-Gearman-Timeout: 0.2")
            await upstream.accept(b"H:0")
            assert (await gone.response()).status == 504
            quick = await HttpClient(all_of.gateway.address).connect()
            batch = 1000
            for first in range(1, MAX_ABANDONED_JOBS + batch, batch):
                handles = [b"H:%d" % number for number in range(first, first + batch)]
                quick.send(*[post(b"/f", b"w", b"X-Gearman-Timeout: 0.2")] * batch)
                for handle in handles:
                    await upstream.accept(handle)
                for _ in handles:
                    assert (await quick.response()).status == 504
                for handle in handles:
                    upstream.answer(PacketType.WORK_COMPLETE, handle, b"")
                await eventually(lambda: all_of.gateway.count("pool.abandoned_jobs") == 1)
            joins = await all_of.send(b"w", TOGETHER)
            await upstream.accept(b"H:0")
            for packet_type, data in ((PacketType.WORK_DATA, b"once"), (PacketType.WORK_COMPLETE, b" and only")):
                for _ in range(2):
                    upstream.answer(packet_type, b"H:0", data)
            assert (await joins.response()).body == b"once and only"
            for client in (gone, quick, joins):
                await client.close()


class HangsUp(asyncio.Protocol):
    """A job server that answers as if all were well, and closes."""

    connections = 0

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        if data.startswith(b"version"):
            self.transport.write(b"OK 1\n")
        elif data.startswith(b"status"):
            self.transport.write(b".\n")
        else:
            HangsUp.connections += 1
            self.transport.write(OPTION_RES)
            asyncio.get_running_loop().call_soon(self.transport.close)


async def test_one_that_answers_and_hangs_up_is_tried_ever_more_rarely():
    HangsUp.connections = 0
    listener = await asyncio.get_running_loop().create_server(HangsUp, "127.0.0.1", 0)
    async with running_gateway([listener.sockets[0].getsockname()], connections_per_server=1):
        await asyncio.sleep(1.5)
    listener.close()
    # 18 a second without back-off; the waits are up to 0.1, 0.2, 0.4, 0.8 … seconds, each a random part.
    assert 2 <= HangsUp.connections <= 14


def _count_of_jobs() -> int:
    gc.collect()
    return sum(type(thing).__name__ == "Job" for thing in gc.get_objects())


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

            for number in range(6):
                await in_background(number)
            assert all_of.gateway.count("pool.known_backgrounds") == 6
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
        async with behind(1, job_timeout_s=5, server_check_interval_s=60) as all_of:
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


class TestNames:
    async def test_all_addresses_of_a_name_are_tried_and_it_is_resolved_at_each_attempt(self, monkeypatch):
        asked = []

        def look_up(host):
            asked.append(host)
            # At first the old address alone.
            return numeric("127.0.0.2") if len(asked) <= 2 else numeric("127.0.0.2", "127.0.0.1")

        monkeypatch.setattr(names, "look_up", look_up)
        async with (
            ScriptedJobServer() as server,
            running_gateway([("job-server.test", server.port)], connections_per_server=1) as gateway,
        ):
            await server.connection()
            await gateway.reaches("pool.connections", 1)
            assert len(asked) >= 3
            assert set(asked) == {"job-server.test"}

    @pytest.mark.parametrize("accepts", [True, False], ids=["accepts-and-is-silent", "does-not-answer-the-connect"])
    async def test_an_address_that_hangs_is_given_up_for_the_next(self, monkeypatch, accepts):
        with socket.socket() as hanging:
            hanging.bind(("127.0.0.2", 0))
            port = hanging.getsockname()[1]
            hanging.listen(100 if accepts else 0)
            fillers = []
            if not accepts:
                # A full queue of connections makes the kernel drop further SYNs.
                for _ in range(3):
                    fillers.append(socket.socket())
                    fillers[-1].setblocking(False)
                    fillers[-1].connect_ex(("127.0.0.2", port))

            monkeypatch.setattr(names, "look_up", lambda host: numeric("127.0.0.2", "127.0.0.1"))
            monkeypatch.setattr(keeper, "CONNECT_TIMEOUT_S", 0.3)
            async with (
                ScriptedJobServer(port=port) as server,
                running_gateway([("job-server.test", port)], connections_per_server=1) as gateway,
            ):
                await server.connection()
                await gateway.reaches("pool.connections", 1)
            for filler in fillers:
                filler.close()

    async def test_a_name_that_is_not_found_is_looked_up_again_and_again(self, monkeypatch):
        asked = []

        def look_up(host):
            asked.append(host)
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        monkeypatch.setattr(names, "look_up", look_up)
        async with running_gateway([("job-server.test", 4730)], connections_per_server=1) as gateway:
            await eventually(lambda: len(asked) >= 5)
            assert (await ask(gateway.address, post(b"/f"))).kind() == "no-job-server"

    async def test_names_whose_lookups_hang_lock_nobody_out(self, monkeypatch, caplog, hanging_lookups):
        monkeypatch.setattr(names, "SLOW_S", 0.1)
        before = threading.active_count()
        began_s = asyncio.get_running_loop().time()
        hanging = [(f"hangs-{number}.test", 4730) for number in range(8)]
        async with (
            ScriptedJobServer() as server,
            running_gateway([*hanging, ("good.test", server.port)]) as gateway,
        ):
            assert asyncio.get_running_loop().time() - began_s < 2
            await gateway.reaches("pool.connections", 2)
            upstreams = [await server.connection() for _ in range(2)]
            async with HttpClient(gateway.address) as client:
                client.send(post(b"/f", b"w"))
                await eventually(lambda: any(not upstream.submissions.empty() for upstream in upstreams))
                [upstream] = [upstream for upstream in upstreams if not upstream.submissions.empty()]
                await upstream.complete(b"H:1", b"done")
                assert (await client.response()).body == b"done"
            await eventually(lambda: "hangs-0.test:4730 is not connected" in caplog.text)
            # One lookup a name, which its three connections share and their later attempts too.
            for upstream in upstreams:
                upstream.close()
            await gateway.reaches("pool.connections", 2)
            await asyncio.sleep(0.3)
            assert sorted(hanging_lookups.asked) == [f"hangs-{number}.test" for number in range(8)]
            assert threading.active_count() - before == 8
            hanging_lookups.go_on()
            await eventually(lambda: threading.active_count() <= before)
            # They are looked up anew.
            await eventually(lambda: len(hanging_lookups.asked) > 8)

    async def test_a_number_is_never_looked_up(self, monkeypatch, hanging_lookups):
        hosts = ["127.0.0.1", "::1", "fe80::1%lo", "fe80::2%1", "FE80:0::3%lo", "::ffff:127.0.0.1"]
        async with running_gateway([ServerAddress(host, 1) for host in hosts], connections_per_server=1):
            await asyncio.sleep(0.1)
        assert hanging_lookups.asked == []

    async def test_an_address_keeps_its_zone(self, monkeypatch):
        connected = []

        class LinkLocal(socket.socket):
            """Where fe80::1 on the loopback interface is ::1, which every machine has."""

            def connect(self, address):
                connected.append(address)
                super().connect(("::1", address[1]))

        async with ScriptedJobServer(host="::1") as server:
            monkeypatch.setattr(socket, "socket", LinkLocal)
            servers = [ServerAddress.parse(f"[fe80::1%lo]:{server.port}")]
            async with running_gateway(servers, connections_per_server=1) as gateway:
                monkeypatch.undo()
                upstream = await server.connection()
                async with HttpClient(gateway.address) as client:
                    client.send(post(b"/f", b"w"))
                    await upstream.complete(b"H:1", b"done")
                    assert (await client.response()).body == b"done"
            assert set(connected) == {("fe80::1", server.port, 0, socket.if_nametoindex("lo"))}

    async def test_one_with_a_zone_that_nobody_listens_on_is_tried_again(self, caplog):
        port = nobody_listens()[1]
        async with running_gateway([ServerAddress("::1%lo", port), ServerAddress("fe80::1%none0", 1)]) as gateway:
            assert f"job server [::1%lo]:{port} is not connected, trying again: [Errno 111]" in caplog.text
            assert "trying again: none0 is no interface of this machine" in caplog.text
            assert (await ask(gateway.address, post(b"/f"))).kind() == "no-job-server"


class TestSignsOfLife:
    def test_a_silent_connection_is_replaced_within_two_intervals(self):
        servers = (ServerAddress("127.0.0.1", 4730), ServerAddress("127.0.0.1", 4731))
        with still_gateway(server=servers, server_check_interval_s=5) as gateway:
            frozen, other = gateway.server.open()
            gateway.pass_time(5.1)
            gateway.server.hanging_ports.add(frozen.port)
            gateway.pass_time(9.8)
            assert not frozen.lost
            gateway.pass_time(0.2)
            assert frozen.lost
            assert gateway.count("pool.connections") == 1
            gateway.server.hanging_ports.clear()
            gateway.pass_time(10)
            assert gateway.count("pool.connections") == 2
            # This one was asked as often and lives.
            assert not other.lost

    def test_any_byte_is_a_sign_of_life(self):
        with still_gateway(server_check_interval_s=5, job_timeout_s=1000) as gateway:
            [upstream] = gateway.server.open()
            client = gateway.client()
            client.send(post(b"/f", b"w"))
            gateway.loop.settle()
            gateway.server.echoing = False
            upstream.create()
            [job] = upstream.jobs
            gateway.server.cut_bytes = 1
            pieces: list[bytes] = []
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(upstream, "receive", pieces.append)
                upstream.work(job, PacketType.WORK_COMPLETE, b"result")
            for piece in pieces:
                assert not upstream.lost
                gateway.pass_time(4.9)
                upstream.receive(piece)
            gateway.loop.settle()
            [answer] = client.responses()
            assert answer.body == b"result"
            gateway.pass_time(10.1)
            assert upstream.lost

    def test_one_that_has_got_the_question_late_has_an_interval_to_answer(self):
        with still_gateway(server_check_interval_s=5, job_timeout_s=1000) as gateway:
            [upstream] = gateway.server.open()
            gateway.server.echoing = False
            upstream.stop_taking(1000)
            gateway.client().send(post(b"/f", bytes(100_000)))
            gateway.pass_time(5.1)
            for _ in range(4):
                upstream.take(1000)
                gateway.pass_time(5)
                assert not upstream.lost
            gateway.pass_time(4.8)
            upstream.take()
            gateway.pass_time(5)
            assert not upstream.lost
            gateway.pass_time(0.3)
            assert upstream.lost

    async def test_a_workload_that_leaves_slowly_is_one_while_the_echo_waits_behind_it(self):
        loop = asyncio.get_running_loop()
        with socket.socket() as listener:
            listener.setblocking(False)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            upstreams: list[socket.socket] = []

            async def greet(upstream: socket.socket) -> None:
                if (await loop.sock_recv(upstream, 100)).startswith(b"version"):
                    await loop.sock_sendall(upstream, b"OK slow\n")
                    return
                upstreams.append(upstream)
                await loop.sock_sendall(upstream, OPTION_RES)

            async def accept() -> None:
                for _ in range(2):
                    upstream, _ = await loop.sock_accept(listener)
                    opened.enter_context(upstream)
                    await greet(upstream)

            with contextlib.ExitStack() as opened:
                accepting = asyncio.create_task(accept())
                async with (
                    running_gateway(
                        [listener.getsockname()], connections_per_server=1, server_check_interval_s=0.5
                    ) as gateway,
                    HttpClient(gateway.address) as client,
                ):
                    await accepting
                    [upstream] = upstreams
                    client.send(post(b"/f", bytes(8 * MEBIBYTE)))
                    reader = PacketReader(Magic.REQUEST)
                    began_s = loop.time()
                    found = []
                    while PacketType.ECHO_REQ not in found:
                        reader.feed(await loop.sock_recv(upstream, 32768))
                        found += [packet.type for packet in reader.packets()]
                        await asyncio.sleep(0.008)
                    assert found[0] == PacketType.SUBMIT_JOB
                    assert loop.time() - began_s > 1.5
                    done = response(PacketType.JOB_CREATED, b"H:1") + response(
                        PacketType.WORK_COMPLETE, b"H:1", b"done"
                    )
                    await loop.sock_sendall(upstream, done)
                    assert (await client.response()).body == b"done"

    async def test_a_frozen_gearmand_gets_no_new_jobs_after_two_intervals(self, tmp_gearmand, embedded):
        async with (
            running_gateway([tmp_gearmand.address, embedded.address], server_check_interval_s=0.3) as gateway,
            hand_worker(embedded.address, b"f") as worker,
            HttpClient(gateway.address) as client,
        ):
            await gateway.reaches("pool.connections", 4)
            tmp_gearmand.pause()
            frozen = str(ServerAddress(*tmp_gearmand.address))
            await eventually(lambda: gateway.process.pool.servers_now()[frozen]["connections"] == 0)
            for number in range(6):
                client.send(post(b"/f", b"%d" % number))
                handle, _, _, workload = await worker.take()
                worker.complete(handle, workload)
                assert (await client.response()).body == b"%d" % number
            tmp_gearmand.resume()
            await gateway.reaches("pool.connections", 4)

    async def test_the_kernel_watches_too(self):
        async with behind(1) as all_of:
            here = all_of.upstreams[0].transport.get_extra_info("peername")
            found = []
            for path in await asyncio.to_thread(os.listdir, "/proc/self/fd"):
                with contextlib.suppress(OSError), socket.fromfd(int(path), socket.AF_INET, 0) as candidate:
                    if candidate.getsockname() == here:
                        found.append(candidate.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
                        found.append(candidate.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE))
            assert found == [1, 10]


class TestText:
    async def test_a_silent_text_connection_is_replaced(self):
        async with behind(1, server_check_interval_s=0.2) as all_of:
            [server] = all_of.servers
            server.tells_status = False
            [text] = [connection for connection in server.open if connection.is_text]
            await text.closed()
            server.tells_status = True
            await eventually(lambda: [other for other in server.open if other.is_text and other is not text])
            assert not all_of.upstreams[0].lost.done()
            await all_of.status(s0=3)

    @pytest.mark.parametrize(
        "nonsense",
        [b"OK\n" * 3, b"x" * 20_000, b".\n.\n"],
        ids=["more-answers-than-questions", "a-line-without-an-end", "more-ends-than-questions"],
    )
    async def test_nonsense_ends_the_text_connection_alone(self, nonsense):
        async with behind(1, status_interval_s=60) as all_of:
            [server] = all_of.servers
            await eventually(lambda: server.statuses == 1)
            [text] = [connection for connection in server.open if connection.is_text]
            await asyncio.sleep(0.02)
            text.send(nonsense)
            await text.closed()
            assert await all_of.number_for(b"w") == 0

    async def test_lines_that_are_no_functions_are_passed_over_and_pieces_put_together(self):
        async with behind(1, require_worker=True, status_interval_s=60) as all_of:
            [server] = all_of.servers
            server.tells_status = False
            [text] = [connection for connection in server.open if connection.is_text]
            text.close()
            await eventually(lambda: server.statuses >= 2)
            [text] = [connection for connection in server.open if connection.is_text and not connection.lost.done()]
            lines = b"half\nof a name\t1\nx\t-1\t0\t5\nf\t1\t0\t2\nidle\t0\t0\t0\nwith\ttab\t0\t0\t1\n.\n"
            for index in range(len(lines)):
                text.send(lines[index : index + 1])
                await asyncio.sleep(0)
            await eventually(lambda: not text.transport.get_write_buffer_size())

            assert await all_of.number_for(b"w") == 0
            assert (await ask(all_of.gateway.address, post(b"/x", b"w"))).kind() == "no-worker"
            assert (await ask(all_of.gateway.address, post(b"/idle", b"w"))).kind() == "no-worker"

    async def test_a_status_of_many_functions_is_bounded_and_the_others_count_as_not_known(self):
        async with behind(1, require_worker=True) as all_of:
            [server] = all_of.servers
            server.status = {b"f%d" % number: (0, 0, 1) for number in range(65_536 + 10)}
            await all_of.next_status()
            assert await all_of.number_for(b"w", function=b"/not-among-them") == 0
            server.status = {b"f": (0, 0, 1)}
            await all_of.next_status()
            assert (await ask(all_of.gateway.address, post(b"/f1", b"w"))).kind() == "no-worker"


class TestCancellation:
    TIMEOUT = b"X-Gearman-Timeout: 0.1"

    async def test_it_can_be_switched_off(self):
        async with behind(1, cancel_abandoned=False) as all_of:
            client = await all_of.send(b"w", self.TIMEOUT)
            await all_of.upstreams[0].accept(b"H:1")
            assert (await client.response()).status == 504
            await all_of.number_for(b"after")
            assert all_of.servers[0].commands == [b"version"]
            assert all_of.gateway.count("pool.cancels_requested") == 0
            all_of.upstreams[0].answer(PacketType.WORK_FAIL, b"H:1")
            await client.close()

    async def test_nothing_is_cancelled_at_another_server_of_the_same_name(self, monkeypatch):
        # Two job servers behind one name: the first answers by text alone.
        monkeypatch.setattr(names, "look_up", lambda host: numeric("127.0.0.2", "127.0.0.1"))
        monkeypatch.setattr(keeper, "CONNECT_TIMEOUT_S", 0.2)
        async with (
            ScriptedJobServer() as server,
            ScriptedJobServer(host="127.0.0.2", port=server.port, greets=False) as other,
            running_gateway([("job-server.test", server.port)], connections_per_server=1) as gateway,
            HttpClient(gateway.address) as client,
        ):
            upstream = await server.connection()
            await eventually(lambda: other.commands == [b"version"])
            client.send(post(b"/f", b"w", self.TIMEOUT))
            await upstream.accept(b"H:1")
            assert (await client.response()).status == 504
            upstream.answer(PacketType.WORK_COMPLETE, b"H:1", b"")
            await eventually(lambda: gateway.count("pool.abandoned_jobs") == 0)
            assert gateway.count("pool.cancels_requested") == 0
            assert other.commands == [b"version"]

    async def test_a_worker_that_starts_later_is_never_given_an_abandoned_job(self, tmp_gearmand):
        async with running_gateway([tmp_gearmand.address]) as gateway:
            clients = [await HttpClient(gateway.address).connect() for _ in range(20)]
            for client in clients:
                client.send(post(b"/f", b"abandoned"))
            await gateway.reaches("pool.outstanding_jobs", 20)
            for client in clients:
                client.reset()
            await gateway.reaches("pool.cancels_requested", 20)
            await eventually(lambda: gateway.count("pool.abandoned_jobs") == 0)
            async with HttpClient(gateway.address) as client, hand_worker(tmp_gearmand.address, b"f") as worker:
                client.send(post(b"/f", b"wanted"))
                handle, _, _, workload = await worker.take()
                assert workload == b"wanted"
                worker.complete(handle, b"done")
                assert (await client.response()).body == b"done"
