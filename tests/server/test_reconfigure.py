"""Settings that change in one running process: what is new, what is under way, and job servers that come and go."""

from __future__ import annotations

import asyncio
import socket

import msgspec
import pytest

from gatewayx.address import ServerAddress
from gatewayx.config.kinds import FunctionBound, FunctionServer
from gatewayx.errors import StartError
from gatewayx.gearman.packet import PacketType
from gatewayx.net import names
from support.gateway import RunningGateway, eventually, running_gateway
from support.http import HttpClient, ask, head, post
from support.job_servers import ScriptedJobServer, hand_worker, nobody_listens
from support.lookups import numeric
from support.ports import free_port
from support.tls import Authority, TlsTerminator

pytestmark = pytest.mark.anyio

OPTIONS = head(b"OPTIONS", b"*")
MEBIBYTE = 1 << 20


async def change(gateway: RunningGateway, **settings: object) -> None:
    """Change these settings of a gateway, and no others."""
    await gateway.process.reconfigure(msgspec.structs.replace(gateway.process.settings, **settings))


@pytest.fixture
async def gateway(embedded):
    """A gateway in front of the embedded job server."""
    async with running_gateway([embedded.address], connections_per_server=1) as gateway:
        yield gateway


@pytest.fixture
async def worker(embedded):
    """A worker that does what the test says."""
    async with hand_worker(embedded.address, b"f") as worker:
        yield worker


@pytest.fixture
async def client(gateway):
    """A client that is there before anything changes."""
    async with HttpClient(gateway.address) as client:
        assert (await client.ask(OPTIONS)).status == 204
        yield client


class TestClients:
    @pytest.mark.parametrize(
        ("settings", "request_bytes", "status"),
        [
            ({"max_body_bytes": 3}, post(b"/f", b"four"), 413),
            ({"max_target_bytes": 256}, post(b"/" + 300 * b"f"), 414),
            ({"max_header_bytes": 1024}, post(b"/f", b"", b"A: " + 1100 * b"a"), 431),
            ({"max_headers": 3}, post(b"/f", b"", b"A: 1", b"B: 2", b"C: 3"), 431),
            ({"function": ("g", "h*")}, post(b"/f"), 404),
            ({"max_function_bytes": 2}, post(b"/fff"), 400),
            ({"refuse_client_unique": True}, post(b"/f", b"", b"X-Gearman-Unique: u"), 400),
            ({"require_worker": True}, post(b"/no-worker"), 503),
            ({"job_timeout_s": 0.01}, post(b"/no-worker"), 504),
            ({"max_function_jobs": (FunctionBound("f", 0),)}, post(b"/f"), 503),
        ],
        ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
    )
    async def test_clients_that_are_there_and_new_ones_have_the_new_bounds_and_then_the_old_ones(
        self, gateway, client, settings, request_bytes, status
    ):
        before = gateway.process.settings
        await gateway.told()
        await change(gateway, **settings)
        async with HttpClient(gateway.address) as new:
            assert (await new.ask(request_bytes)).status == status
        assert (await client.ask(request_bytes)).status == status
        await gateway.process.reconfigure(before)
        async with HttpClient(gateway.address) as late:
            late.send(request_bytes)
            await gateway.reaches("admission.jobs", 1)

    async def test_a_path_that_was_asked_for_before_is_measured_anew(self, gateway, client, worker):
        for _ in range(2):
            client.send(post(b"/f"))
            worker.complete((await worker.take())[0])
            assert (await client.response()).status == 200
        await change(gateway, function=("g",))
        assert (await client.ask(post(b"/f"))).status == 404

    async def test_a_body_that_has_begun_is_taken_as_its_length_said(self, gateway, client, worker):
        client.send(head(b"POST", b"/f", b"Content-Length: 100"), b"begun")
        await gateway.reaches("http.arrivals", 1)
        await change(gateway, max_body_bytes=50)
        client.send(95 * b"b")
        handle, _, _, workload = await worker.take()
        worker.complete(handle, b"result")
        assert (len(workload), (await client.response()).body) == (100, b"result")

    async def test_times_are_the_new_ones_from_the_next_wait_on(self, gateway, client):
        await change(gateway, keepalive_timeout_s=0.01)
        assert (await client.ask(OPTIONS)).status == 204
        assert await client.rest() == b""

    async def test_requests_keep_the_way_of_answering_with_which_they_began(self, gateway, client, embedded):
        async with ScriptedJobServer() as other, running_gateway([other.address], connections_per_server=1) as gateway:
            upstream = await other.connection()
            async with HttpClient(gateway.address) as begun, HttpClient(gateway.address) as late:
                begun.send(post(b"/f"))
                await upstream.accept(b"H:1")
                await change(gateway, plugin_compat=True, content_type="text/plain")
                late.send(post(b"/f"))
                await upstream.accept(b"H:2")
                upstream.answer(PacketType.WORK_FAIL, b"H:1")
                upstream.answer(PacketType.WORK_FAIL, b"H:2")
                assert (await begun.response()).status == 500
                answer = await late.response()
                assert (answer.status, answer.headers[b"content-type"]) == (200, b"text/plain")

    async def test_a_client_that_closes_its_sending_side_is_waited_for_from_then_on(self, gateway, client, worker):
        await change(gateway, half_closed="answer")
        client.send(post(b"/f"))
        client.send_eof()
        worker.complete((await worker.take())[0], b"result")
        assert (await client.response()).body == b"result"

    async def test_connections_that_come_after_a_bound_of_an_address_count_in_it(self, gateway, client):
        await change(gateway, max_connections_per_address=1)
        async with HttpClient(gateway.address) as first:
            assert (await first.ask(OPTIONS)).status == 204
            assert (await ask(gateway.address, OPTIONS)).status == 429
            await change(gateway, max_connections_per_address=0)
            assert (await ask(gateway.address, OPTIONS)).status == 204
        # The one that counted gives its place back, though nobody has a bound.
        await eventually(lambda: gateway.count("http.addresses") == 0)
        assert (await client.ask(OPTIONS)).status == 204

    async def test_more_jobs_than_a_lowered_bound_end_and_count_down_to_it(self, gateway, client, worker):
        async with HttpClient(gateway.address) as second:
            client.send(post(b"/f"))
            handles = [(await worker.take())[0]]
            second.send(post(b"/f"))
            await gateway.reaches("admission.jobs", 2)
            await change(gateway, max_jobs=1)
            assert (await ask(gateway.address, post(b"/f"))).kind() == "too-many-jobs"
            worker.complete(handles[0])
            assert (await client.response()).status == 200
            assert (await ask(gateway.address, post(b"/f"))).kind() == "too-many-jobs"
            worker.complete((await worker.take())[0])
            assert (await second.response()).status == 200
        async with HttpClient(gateway.address) as late:
            late.send(post(b"/f"))
            worker.complete((await worker.take())[0], b"late")
            assert (await late.response()).body == b"late"

    async def test_what_is_held_may_be_above_a_lowered_bound_and_nothing_more_fits(self, gateway, client, worker):
        client.send(head(b"POST", b"/f", b"Content-Length: 300000"), b"b" * 299_999)
        await eventually(lambda: gateway.count("budget.bodies_bytes") >= 299_999)
        await change(gateway, max_held_bytes=400_000, max_body_bytes=100_000, max_result_bytes=100_000)
        assert (await ask(gateway.address, post(b"/f", b"b" * 90_000))).status == 503
        client.send(b"b")
        handle, _, _, workload = await worker.take()
        worker.complete(handle, b"small")
        assert (len(workload), (await client.response()).body) == (300_000, b"small")
        async with HttpClient(gateway.address) as late:
            late.send(post(b"/f", b"b" * 90_000))
            worker.complete((await worker.take())[0], b"late")
            assert (await late.response()).body == b"late"

    async def test_the_kernel_waits_for_slow_readers_as_long_as_the_setting_says(self, gateway, client):
        await change(gateway, write_timeout_s=7.0)
        for bound in gateway.process._sockets.by_place[0]:
            assert bound.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 8000

    async def test_settings_that_need_a_restart_stay(self, gateway):
        before = gateway.process.settings
        await change(gateway, listen=(), workers=7, max_connections=1, socket_mode=0, max_jobs=3)
        assert gateway.process.settings == msgspec.structs.replace(before, max_jobs=3)

    async def test_a_file_of_tls_that_cannot_be_read_changes_nothing(self, gateway, client, tmp_path):
        before = gateway.process.settings
        with pytest.raises(StartError, match="server-ca"):
            await change(
                gateway,
                server=(*before.server, ServerAddress("127.0.0.1", free_port(), tls=True)),
                server_ca=str(tmp_path / "none"),
                function=("g",),
            )
        assert gateway.process.settings == before
        client.send(post(b"/f"))
        await gateway.reaches("admission.jobs", 1)


class TestJobServers:
    async def test_one_that_goes_answers_the_jobs_that_it_has_and_gets_no_more(self):
        async with (
            ScriptedJobServer() as old,
            ScriptedJobServer() as new,
            running_gateway([old.address], connections_per_server=1) as gateway,
            HttpClient(gateway.address) as first,
            HttpClient(gateway.address) as second,
        ):
            to_old = await old.connection()
            first.send(post(b"/f", b"first"))
            await to_old.accept(b"H:1")
            await change(gateway, server=(ServerAddress(*new.address),))
            to_new = await new.connection()
            second.send(post(b"/f", b"second"))
            assert (await to_new.complete(b"H:2", b"from new")).workload == b"second"
            assert (await second.response()).body == b"from new"
            assert not to_old.lost.done()
            to_old.answer(PacketType.WORK_COMPLETE, b"H:1", b"from old")
            assert (await first.response()).body == b"from old"
            # Its jobs have ended.
            await to_old.closed()
            assert list(gateway.process.pool.servers_now()) == [f"127.0.0.1:{new.port}"]
            assert to_old.submissions.empty()

    async def test_no_request_finds_nobody_while_all_are_replaced_by_others(self, embedded):
        async with (
            ScriptedJobServer(greets=False) as slow,
            hand_worker(embedded.address, b"f") as worker,
            running_gateway([embedded.address]) as gateway,
            HttpClient(gateway.address) as client,
        ):
            changing = asyncio.create_task(change(gateway, server=(ServerAddress(*slow.address),)))
            connection = await slow.connection()
            for _ in range(3):
                client.send(post(b"/f"))
                worker.complete((await worker.take())[0])
                assert (await client.response()).status == 200
            for each in slow.open:
                each.greet()
            connection.greet()
            await changing
            await eventually(lambda: f"127.0.0.1:{slow.port}" in gateway.process.pool.servers_now())

    async def test_one_that_comes_back_while_its_job_runs_has_the_connection_that_it_had(self):
        async with (
            ScriptedJobServer() as one,
            ScriptedJobServer() as other,
            running_gateway([one.address], connections_per_server=1) as gateway,
            HttpClient(gateway.address) as client,
        ):
            to_one = await one.connection()
            client.send(post(b"/f"))
            await to_one.accept(b"H:1")
            for _ in range(3):
                await change(gateway, server=(ServerAddress(*other.address),))
                await change(gateway, server=(ServerAddress(*one.address),))
            to_one.answer(PacketType.WORK_COMPLETE, b"H:1", b"result")
            assert (await client.response()).body == b"result"
            client.send(post(b"/f"))
            await to_one.complete(b"H:2", b"again")
            assert (await client.response()).body == b"again"
            assert one.accepted.empty()
            await eventually(lambda: list(gateway.process.pool.servers_now()) == [f"127.0.0.1:{one.port}"])

    async def test_one_that_is_down_comes_up_later(self, embedded):
        down = nobody_listens()
        async with running_gateway([embedded.address], connections_per_server=1) as gateway:
            await change(gateway, server=(ServerAddress(*down),))
            assert (await ask(gateway.address, post(b"/f"))).kind() == "no-job-server"
            async with ScriptedJobServer(port=down[1]) as late:
                await late.connection()
                await gateway.reaches("pool.connections", 1)

    async def test_functions_go_to_the_servers_that_the_new_settings_name(self):
        async with (
            ScriptedJobServer() as a,
            ScriptedJobServer() as b,
            ScriptedJobServer() as c,
            running_gateway(
                [a.address, b.address],
                connections_per_server=1,
                function_server=(FunctionServer("f", ServerAddress(*b.address)),),
            ) as gateway,
            HttpClient(gateway.address) as client,
        ):
            upstreams = {server: await server.connection() for server in (a, b)}
            for servers, mapped in (((c, b, a), a), ((b, c), c), ((c, b), b), ((b, a, c), b)):
                await change(
                    gateway,
                    server=tuple(ServerAddress(*server.address) for server in servers),
                    function_server=(FunctionServer("f", ServerAddress(*mapped.address)),),
                )
                names_now = [f"127.0.0.1:{server.port}" for server in servers]
                await eventually(lambda now=names_now: list(gateway.process.pool.servers_now()) == now)
                while not mapped.accepted.empty():
                    upstreams[mapped] = await mapped.connection()
                client.send(post(b"/f"))
                await upstreams[mapped].complete(b"H:1", b"result")
                assert (await client.response()).body == b"result"

    async def test_in_order_is_the_order_of_the_new_settings(self):
        async with (
            ScriptedJobServer() as a,
            ScriptedJobServer() as b,
            running_gateway([a.address, b.address], connections_per_server=1, balance="fewest") as gateway,
            HttpClient(gateway.address) as client,
        ):
            upstreams = [await server.connection() for server in (a, b)]
            for first in (1, 0):
                servers = [ServerAddress(*server.address) for server in ((b, a) if first else (a, b))]
                await change(gateway, server=tuple(servers), balance="in-order")
                for _ in range(2):
                    client.send(post(b"/f"))
                    await upstreams[first].complete(b"H:1", b"result")
                    assert (await client.response()).status == 200

    async def test_connections_become_more_and_fewer_and_the_jobs_on_them_end(self):
        async with (
            ScriptedJobServer() as server,
            running_gateway([server.address], connections_per_server=1) as gateway,
            HttpClient(gateway.address) as first,
            HttpClient(gateway.address) as second,
        ):
            one = await server.connection()
            await change(gateway, connections_per_server=2)
            two = await server.connection()
            await gateway.reaches("pool.connections", 2)
            first.send(post(b"/f"))
            await one.accept(b"H:1")
            second.send(post(b"/f"))
            await two.accept(b"H:2")
            await change(gateway, connections_per_server=1)
            # Nothing new goes to the one that is too many.
            async with HttpClient(gateway.address) as third:
                third.send(post(b"/f"))
                await one.complete(b"H:3", b"third")
                assert (await third.response()).body == b"third"
            assert not two.lost.done()
            two.answer(PacketType.WORK_COMPLETE, b"H:2", b"second")
            assert (await second.response()).body == b"second"
            await two.closed()
            assert not one.lost.done()
            one.answer(PacketType.WORK_COMPLETE, b"H:1", b"first")
            assert (await first.response()).body == b"first"
            assert gateway.count("pool.connections") == 1
            await change(gateway, connections_per_server=3)
            await gateway.reaches("pool.connections", 3)

    async def test_results_have_the_new_bound_on_connections_that_are_there(self, gateway, client, worker):
        for most, status in ((10, 502), (MEBIBYTE, 200)):
            await change(gateway, max_result_bytes=most)
            client.send(post(b"/f"))
            worker.complete((await worker.take())[0], b"r" * 100_000)
            assert (await client.response()).status == status

    async def test_a_shorter_interval_does_not_wait_for_the_end_of_the_longer_one(self):
        async with (
            ScriptedJobServer() as server,
            running_gateway([server.address], status_interval_s=3600, server_check_interval_s=3600) as gateway,
        ):
            await server.connection()
            await eventually(lambda: server.statuses == 1)
            await change(gateway, status_interval_s=0.05)
            await eventually(lambda: server.statuses > 3)

    async def test_a_job_server_that_falls_silent_is_found_out_by_the_new_interval(self):
        async with (
            ScriptedJobServer() as server,
            running_gateway([server.address], connections_per_server=1, server_check_interval_s=3600) as gateway,
        ):
            connection = await server.connection()
            server.echoing = False
            await change(gateway, server_check_interval_s=0.05)
            await connection.closed()

    async def test_all_numbers_are_taken_by_those_that_go_when_others_come(self, embedded):
        ports = {free_port() for _ in range(200)} - {embedded.address[1]}
        nobody = [ServerAddress("127.0.0.1", port) for port in sorted(ports)][:127]
        async with running_gateway([*nobody[:63], ServerAddress(*embedded.address)]) as gateway:
            others = (*nobody[63:126], ServerAddress("localhost", embedded.address[1]))
            await change(gateway, server=others)
            name = f"localhost:{embedded.address[1]}"
            await eventually(lambda: gateway.process.pool.servers_now().get(name, {}).get("connections") == 2)
            await eventually(lambda: len(gateway.process.pool.servers_now()) == 64)

    async def test_a_file_of_tls_with_another_content_is_read_again(self, embedded, tmp_path):
        right, wrong = Authority(tmp_path), Authority(tmp_path, "stranger")
        trusted = tmp_path / "trusted.pem"
        trusted.write_bytes(wrong.file.read_bytes())
        with TlsTerminator(embedded.address, right.certificate("localhost")) as terminator:
            async with running_gateway(
                [ServerAddress("localhost", terminator.port, tls=True)], server_ca=str(trusted)
            ) as gateway:
                assert gateway.count("pool.connections") == 0
                trusted.write_bytes(right.file.read_bytes())
                await change(gateway)
                await gateway.reaches("pool.connections", 2)

    async def test_the_addresses_of_a_name_go_and_come_back_with_it(self, monkeypatch):
        monkeypatch.setattr(names, "look_up", lambda host: numeric("127.0.0.1" if host == "jobs" else host))
        async with (
            ScriptedJobServer() as sole,
            ScriptedJobServer() as named,
            running_gateway([sole.address], connections_per_server=1) as gateway,
            HttpClient(gateway.address) as client,
        ):
            of_name = ServerAddress("jobs", named.port, each=True)
            await change(gateway, server=(of_name,))
            to_named = await named.connection()
            client.send(post(b"/f"))
            await to_named.accept(b"H:1")
            await change(gateway, server=(ServerAddress(*sole.address),))
            assert not to_named.lost.done()
            await change(gateway, server=(of_name,))
            to_named.answer(PacketType.WORK_COMPLETE, b"H:1", b"result")
            assert (await client.response()).body == b"result"
            client.send(post(b"/f"))
            await to_named.complete(b"H:2", b"again")
            assert (await client.response()).body == b"again"
            await change(gateway, server=(ServerAddress(*sole.address),))
            await to_named.closed()
            await eventually(lambda: list(gateway.process.pool.servers_now()) == [f"127.0.0.1:{sole.port}"])
