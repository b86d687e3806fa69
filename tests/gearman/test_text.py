"""The text connection to a job server: `status` and its cost, and jobs that are cancelled."""

from __future__ import annotations

import asyncio

import pytest

from gatewayx.gearman import keeper
from gatewayx.gearman.packet import PacketType
from gatewayx.net import names
from support.behind import behind
from support.gateway import eventually, running_gateway
from support.http import HttpClient, ask, post
from support.job_servers import ScriptedJobServer, hand_worker
from support.lookups import numeric

pytestmark = pytest.mark.anyio


class TestText:
    async def test_a_silent_text_connection_is_replaced(self):
        async with behind(1, server_check_interval_s=1) as all_of:
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

    async def test_a_status_of_many_functions_is_bounded_and_the_others_count_as_not_known(self, monkeypatch):
        # So long a status is asked for rarely, and here its time is that of this process, too.
        monkeypatch.setattr(keeper, "STATUS_PART", 1e6)
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
            await eventually(lambda: set(other.commands) == {b"version"})
            await gateway.reaches("pool.connections", 1)
            upstream = await server.open_connection()
            client.send(post(b"/f", b"w", self.TIMEOUT))
            await upstream.accept(b"H:1")
            assert (await client.response()).status == 504
            upstream.answer(PacketType.WORK_COMPLETE, b"H:1", b"")
            await eventually(lambda: gateway.count("pool.abandoned_jobs") == 0)
            assert gateway.count("pool.cancels_requested") == 0
            assert set(other.commands) == {b"version"}

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
