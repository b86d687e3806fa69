"""`each://`: every address of a name is a job server of its own, and they come and go."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest

from gatewayx.address import Address, ServerAddress
from gatewayx.config.kinds import FunctionServer
from gatewayx.config.settings import Settings
from gatewayx.gearman import each
from gatewayx.gearman.packet import PacketType
from gatewayx.net import names
from gatewayx.server.process import GatewayProcess
from support.behind import upstreams_of
from support.gateway import RunningGateway, eventually, running_gateway
from support.http import HttpClient, ask, post
from support.job_servers import ScriptedConnection, ScriptedJobServer
from support.lookups import numeric
from support.ports import free_port
from support.times import SOON_S
from support.tls import Authority, TlsTerminator

pytestmark = pytest.mark.anyio

TOGETHER = b"X-Gearman-Unique: together"
FULL = (b"QUEUE_ERROR", b"Job queue is full")


class Names:
    """What names stand for; the test changes it."""

    def __init__(self) -> None:
        # Name to addresses, or to what the lookup raises.
        self.addresses: dict[str, list[str] | Exception] = {}
        self.asked: list[str] = []

    def look_up(self, host: str) -> list[names.NumericHost]:
        """In place of names.look_up()."""
        self.asked.append(host)
        found = self.addresses[host]
        if isinstance(found, Exception):
            raise found
        return numeric(*found)


@pytest.fixture
def dns(monkeypatch: pytest.MonkeyPatch) -> Names:
    """The names, which are looked up often."""
    found = Names()
    monkeypatch.setattr(names, "look_up", found.look_up)
    monkeypatch.setattr(each, "REFRESH_S", 0.1)
    monkeypatch.setattr(each, "REFRESH_LEAST_S", 0.02)
    monkeypatch.setattr(each, "NUMBER_WAIT_S", 0.05)
    return found


@asynccontextmanager
async def job_servers(*hosts: str) -> AsyncIterator[dict[str, ScriptedJobServer]]:
    """A scripted job server at each of the hosts, all on one port."""
    port = free_port()
    async with contextlib.AsyncExitStack() as stack:
        yield {host: await stack.enter_async_context(ScriptedJobServer(host=host, port=port)) for host in hosts}


def each_of(name: str, servers: dict[str, ScriptedJobServer], *, tls: bool = False) -> ServerAddress:
    """The name as a setting."""
    return ServerAddress(name, next(iter(servers.values())).port, tls, each=True)


def used(gateway: RunningGateway) -> list[str]:
    """The hosts of the job servers that the gateway has, in its order."""
    return [name.rpartition(":")[0] for name in gateway.process.pool.servers_now()]


def connected(gateway: RunningGateway) -> set[str]:
    """Those that are connected."""
    now = gateway.process.pool.servers_now()
    return {name.rpartition(":")[0] for name, told in now.items() if told["connections"]}


async def looked_up(dns: Names, times: int = 4) -> None:
    """Return once a name was looked up so often since, and all answers but the last one were made use of."""
    asked = len(dns.asked)
    await eventually(lambda: len(dns.asked) >= asked + times)


async def taker(upstreams: dict[str, ScriptedConnection]) -> str:
    """The host that has the next submission."""
    await eventually(lambda: any(not upstream.submissions.empty() for upstream in upstreams.values()))
    [host] = [host for host, upstream in upstreams.items() if not upstream.submissions.empty()]
    return host


async def serve(gateway: RunningGateway, upstreams: dict[str, ScriptedConnection], *headers: bytes) -> str:
    """Run a job; the host that had it."""
    async with HttpClient(gateway.address) as client:
        client.send(post(b"/f", b"w", *headers))
        host = await taker(upstreams)
        await upstreams[host].complete(b"H:1", b"done")
        assert (await client.response()).body == b"done"
    return host


class TestAddresses:
    async def test_each_is_a_job_server_and_they_come_and_go(self, dns, caplog):
        caplog.set_level("INFO")
        hosts = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
        async with job_servers(*hosts) as servers:
            dns.addresses["all.test"] = hosts[:2]
            async with running_gateway([each_of("all.test", servers)], connections_per_server=1) as gateway:
                assert connected(gateway) == set(hosts[:2])
                upstreams = dict(
                    zip(hosts[:2], await upstreams_of(gateway, *(servers[host] for host in hosts[:2])), strict=True)
                )
                assert {await serve(gateway, upstreams) for _ in range(4)} == set(hosts[:2])

                dns.addresses["all.test"] = ["127.0.0.3", "127.0.0.2"]
                await eventually(lambda: used(gateway) == ["127.0.0.2", "127.0.0.3"])
                await upstreams.pop("127.0.0.1").closed()
                await eventually(lambda: not servers["127.0.0.1"].open)
                upstreams["127.0.0.3"] = await servers["127.0.0.3"].connection()
                await gateway.reaches("pool.connections", 2)
                assert {await serve(gateway, upstreams) for _ in range(4)} == set(hosts[1:])
        port = servers["127.0.0.1"].port
        assert f"job server 127.0.0.1:{port} is no address of each://all.test:{port} any more" in caplog.text
        assert f"job server 127.0.0.3:{port} is an address of each://all.test:{port}" in caplog.text

    async def test_jobs_at_an_address_that_has_gone_end_well_and_it_gets_no_more(self, dns):
        async with job_servers("127.0.0.1", "127.0.0.2") as servers:
            dns.addresses["all.test"] = ["127.0.0.1"]
            async with (
                running_gateway([each_of("all.test", servers)], connections_per_server=1) as gateway,
                HttpClient(gateway.address) as client,
            ):
                first = await servers["127.0.0.1"].connection()
                client.send(post(b"/f", b"w", TOGETHER))
                await first.accept(b"H:1")
                dns.addresses["all.test"] = ["127.0.0.2"]
                second = await servers["127.0.0.2"].connection()
                await gateway.reaches("pool.connections", 2)
                assert used(gateway) == ["127.0.0.2", "127.0.0.1"]
                upstreams = {"127.0.0.1": first, "127.0.0.2": second}
                for headers in ((), (), (TOGETHER,)):
                    assert await serve(gateway, upstreams, *headers) == "127.0.0.2"
                await looked_up(dns)
                assert not first.lost.done()
                # The gateway knows that the job is under way there.
                background = post(b"/f", b"w", TOGETHER, b"X-Gearman-Background: true")
                assert (await ask(gateway.address, background)).status == 409
                first.answer(PacketType.WORK_COMPLETE, b"H:1", b"first")
                assert (await client.response()).body == b"first"
                await first.closed()
                await eventually(lambda: used(gateway) == ["127.0.0.2"])

    async def test_one_that_dies_while_it_leaves_is_not_connected_again(self, dns, caplog):
        async with job_servers("127.0.0.1", "127.0.0.2") as servers:
            dns.addresses["all.test"] = ["127.0.0.1", "127.0.0.2"]
            async with (
                running_gateway([each_of("all.test", servers)], connections_per_server=1) as gateway,
                HttpClient(gateway.address) as client,
            ):
                upstreams = dict(zip(servers, await upstreams_of(gateway, *servers.values()), strict=True))
                client.send(post(b"/f", b"w"))
                host = await taker(upstreams)
                await upstreams[host].accept(b"H:1")
                [other] = set(servers) - {host}
                dns.addresses["all.test"] = [other]
                await eventually(lambda: used(gateway) == [other, host])
                upstreams[host].close()
                assert (await client.response()).status == 502
                await eventually(lambda: used(gateway) == [other])
                assert "which is leaving, was lost" in caplog.text
                assert servers[host].accepted.empty()

    async def test_one_that_comes_back_while_it_leaves_keeps_its_connection(self, dns):
        async with job_servers("127.0.0.1", "127.0.0.2") as servers:
            dns.addresses["all.test"] = ["127.0.0.1"]
            async with (
                running_gateway([each_of("all.test", servers)], connections_per_server=1) as gateway,
                HttpClient(gateway.address) as client,
            ):
                upstream = await servers["127.0.0.1"].connection()
                client.send(post(b"/f", b"w"))
                await upstream.accept(b"H:1")
                dns.addresses["all.test"] = ["127.0.0.2"]
                await eventually(lambda: used(gateway) == ["127.0.0.2", "127.0.0.1"])
                dns.addresses["all.test"] = ["127.0.0.1"]
                await eventually(lambda: used(gateway) == ["127.0.0.1"])
                await looked_up(dns)
                upstream.answer(PacketType.WORK_COMPLETE, b"H:1", b"first")
                assert (await client.response()).body == b"first"
                await looked_up(dns)
                assert not upstream.lost.done()
                assert await serve(gateway, {"127.0.0.1": upstream}) == "127.0.0.1"
                # And it is kept: what is lost is made anew.
                upstream.close()
                assert await serve(gateway, {"127.0.0.1": await servers["127.0.0.1"].connection()}) == "127.0.0.1"

    @pytest.mark.parametrize("answer", [OSError("no such name"), []], ids=["failed", "empty"])
    async def test_an_answer_that_is_none_keeps_the_last_ones(self, dns, caplog, answer):
        async with job_servers("127.0.0.1", "127.0.0.2") as servers:
            dns.addresses["all.test"] = list(servers)
            async with running_gateway([each_of("all.test", servers)], connections_per_server=1) as gateway:
                dns.addresses["all.test"] = answer
                await looked_up(dns)
                assert used(gateway) == list(servers)
                upstreams = dict(zip(servers, await upstreams_of(gateway, *servers.values()), strict=True))
                await serve(gateway, upstreams)
        told = [record.getMessage() for record in caplog.records if "are not renewed" in record.getMessage()]
        assert len(told) == 1
        assert told[0].startswith(f"the addresses of each://all.test:{servers['127.0.0.1'].port} are not renewed")
        assert told[0].endswith("no such name" if answer else "its name has no address")

    async def test_without_any_address_at_first_the_name_is_looked_up_again_soon(self, dns, caplog, monkeypatch):
        monkeypatch.setattr(each, "REFRESH_S", 30.0)
        async with job_servers("127.0.0.1") as servers:
            dns.addresses["all.test"] = OSError("no such name")
            async with running_gateway([each_of("all.test", servers)], connections_per_server=1) as gateway:
                assert used(gateway) == []
                assert (await ask(gateway.address, post(b"/f"))).kind() == "no-job-server"
                assert (await ask(gateway.address, post(b"/f", b"w", TOGETHER))).kind() == "no-job-server"
                assert "are not known, trying again: no such name" in caplog.text
                dns.addresses["all.test"] = ["127.0.0.1"]
                await servers["127.0.0.1"].connection()

    async def test_it_is_looked_up_after_a_loss(self, dns, monkeypatch):
        monkeypatch.setattr(each, "REFRESH_S", 30.0)
        async with job_servers("127.0.0.1", "127.0.0.2") as servers:
            dns.addresses["all.test"] = ["127.0.0.1"]
            async with running_gateway([each_of("all.test", servers)], connections_per_server=1) as gateway:
                upstream = await servers["127.0.0.1"].connection()
                await asyncio.sleep(0.2)
                assert dns.asked == ["all.test"]
                dns.addresses["all.test"] = ["127.0.0.2"]
                upstream.close()
                await eventually(lambda: used(gateway) == ["127.0.0.2"])

    async def test_a_lookup_that_hangs_holds_up_neither_the_start_nor_others(self, hanging_lookups):
        async with ScriptedJobServer() as server:
            began_s = asyncio.get_running_loop().time()
            servers = [ServerAddress("hangs.test", 4730, each=True), ServerAddress(*server.address)]
            async with running_gateway(servers, connections_per_server=1, is_patient=False) as gateway:
                assert asyncio.get_running_loop().time() - began_s < SOON_S
                await serve(gateway, {"127.0.0.1": await server.connection()})
                assert hanging_lookups.asked == ["hangs.test"]


class TestFamily:
    @pytest.mark.parametrize("order", [["::1", "127.0.0.1"], ["127.0.0.1", "::1"]])
    async def test_it_is_that_of_the_first_address_and_no_other(self, dns, order):
        async with job_servers("127.0.0.1", "::1") as servers:
            dns.addresses["all.test"] = order
            async with running_gateway([each_of("all.test", servers)], connections_per_server=1) as gateway:
                first = [host.strip("[]") for host in used(gateway)]
                assert first == order[:1]
                # An order that changes is no reason to leave it.
                dns.addresses["all.test"] = order[::-1]
                await looked_up(dns)
                assert [host.strip("[]") for host in used(gateway)] == first

    async def test_one_that_cannot_be_connected_is_passed_over(self, dns):
        async with job_servers("127.0.0.1") as servers:
            dns.addresses["all.test"] = ["::1", "127.0.0.1"]
            async with running_gateway([each_of("all.test", servers)], connections_per_server=1) as gateway:
                assert used(gateway) == ["127.0.0.1"]

    async def test_it_changes_when_all_of_it_is_gone(self, dns):
        async with job_servers("127.0.0.1", "::1") as servers:
            dns.addresses["all.test"] = ["::1", "127.0.0.1"]
            async with running_gateway([each_of("all.test", servers)], connections_per_server=1) as gateway:
                assert used(gateway) == ["[::1]"]
                await servers.pop("::1").stop()
                await eventually(lambda: used(gateway) == ["127.0.0.1"])


async def refused_and_moved_on(client: HttpClient, upstreams: Mapping[str, ScriptedConnection]) -> tuple[str, str]:
    """Send a job that one of two job servers refuses and the other one has now; the hosts of the two, in this order."""
    client.send(post(b"/f", b"w"))
    first = await taker(upstreams)
    await upstreams[first].submission()
    upstreams[first].answer(PacketType.ERROR, *FULL)
    [second] = set(upstreams) - {first}
    await upstreams[second].submission()
    return first, second


class TestNumbers:
    async def test_beyond_64_the_rest_is_logged(self, dns, caplog):
        # As numbers, not as text.
        dns.addresses["all.test"] = [f"127.0.1.{number}" for number in range(70, 0, -1)]
        servers = [ServerAddress("all.test", free_port(), each=True)]
        async with running_gateway(servers, connections_per_server=1) as gateway:
            assert used(gateway) == [f"127.0.1.{number}" for number in range(1, 65)]
            await looked_up(dns)
        told = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
        assert told == [
            f"{servers[0]} has 70 addresses, of which 64 are used, as there are at most 64 job servers; "
            "left out: 127.0.1.65, 127.0.1.66, 127.0.1.67, 127.0.1.68, 127.0.1.69, 127.0.1.70"
        ]

    async def test_others_keep_their_own_and_each_name_has_one_at_least(self, dns):
        port = free_port()
        dns.addresses["many.test"] = [f"127.0.1.{number}" for number in range(1, 71)]
        dns.addresses["one.test"] = ["127.0.2.1"]
        dns.addresses["none.test"] = OSError("no such name")
        servers = [ServerAddress(f"{name}.test", port, each=True) for name in ("many", "one", "none")]
        async with running_gateway([*servers, ServerAddress("127.0.3.1", port)], connections_per_server=1) as gateway:
            expected = [f"127.0.1.{number}" for number in range(1, 62)] + ["127.0.2.1"]
            assert used(gateway) == [*expected, "127.0.3.1"]
            dns.addresses["none.test"] = ["127.0.4.1"]
            await eventually(lambda: used(gateway) == [*expected, "127.0.4.1", "127.0.3.1"])
            # What one has no more, another one may have.
            dns.addresses["one.test"] = ["127.0.2.1", "127.0.2.2"]
            dns.addresses["many.test"] = ["127.0.1.1"]
            few = ["127.0.1.1", "127.0.2.1", "127.0.2.2", "127.0.4.1", "127.0.3.1"]
            await eventually(lambda: used(gateway) == few)

    async def test_all_may_change_at_once_again_and_again(self, dns):
        async with job_servers("127.0.0.1") as servers:
            server = servers["127.0.0.1"]

            async def change(second: int) -> None:
                others = [f"127.1.{second}.{number}" for number in range(1, 64)]
                dns.addresses["all.test"] = ["127.0.0.1", *others]
                await eventually(lambda: used(gateway) == ["127.0.0.1", *others])

            dns.addresses["all.test"] = ["127.0.0.1"]
            async with running_gateway([each_of("all.test", servers)], connections_per_server=1) as gateway:
                upstream = await server.connection()
                for second in range(3):
                    await change(second)
                    assert await serve(gateway, {"127.0.0.1": upstream}) == "127.0.0.1"

    async def test_a_number_is_not_used_again_while_a_job_knows_it(self, dns):
        full = [f"127.1.0.{number}" for number in range(1, 63)]
        hosts = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
        async with job_servers(*hosts) as servers:
            dns.addresses["all.test"] = [*hosts[:2], *full]
            async with (
                running_gateway([each_of("all.test", servers)], connections_per_server=1) as gateway,
                HttpClient(gateway.address) as client,
            ):
                await gateway.reaches("pool.connections", 2)
                upstreams = {host: await servers[host].connection() for host in hosts[:2]}
                first, second = await refused_and_moved_on(client, upstreams)
                # The job knows that the first one has refused it, and may yet be moved on.
                dns.addresses["all.test"] = [second, "127.0.0.3", *full]
                await upstreams[first].closed()
                await looked_up(dns)
                assert "127.0.0.3" not in used(gateway)
                upstreams[second].answer(PacketType.ERROR, *FULL)
                assert (await client.response()).kind() == "job-refused"
                upstreams = {second: upstreams[second], "127.0.0.3": await servers["127.0.0.3"].connection()}
                await gateway.reaches("pool.connections", 2)
                assert {await serve(gateway, upstreams) for _ in range(4)} == set(upstreams)

    async def test_a_job_that_was_refused_by_one_that_has_left_goes_to_its_successor(self, dns):
        hosts = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
        async with job_servers(*hosts) as servers:
            dns.addresses["all.test"] = hosts[:2]
            async with (
                running_gateway([each_of("all.test", servers)], connections_per_server=1) as gateway,
                HttpClient(gateway.address) as client,
            ):
                await gateway.reaches("pool.connections", 2)
                upstreams = {host: await servers[host].connection() for host in hosts[:2]}
                _, second = await refused_and_moved_on(client, upstreams)
                dns.addresses["all.test"] = [second, "127.0.0.3"]
                third = await servers["127.0.0.3"].connection()
                await eventually(lambda: connected(gateway) == {second, "127.0.0.3"})
                upstreams[second].answer(PacketType.ERROR, *FULL)
                await third.complete(b"H:1", b"done")
                assert (await client.response()).body == b"done"


class TestBesideOthers:
    async def test_a_function_is_mapped_to_all_addresses_of_a_name(self, dns):
        async with job_servers("127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4") as servers:
            dns.addresses["a.test"] = ["127.0.0.1", "127.0.0.2"]
            dns.addresses["b.test"] = ["127.0.0.3"]
            port = servers["127.0.0.1"].port
            plain = ServerAddress("127.0.0.4", port)
            first, second = each_of("a.test", servers), each_of("b.test", servers)
            async with running_gateway(
                [first, plain, second],
                connections_per_server=1,
                balance="rotation",
                function_server=(FunctionServer("f", first), FunctionServer("g", second), FunctionServer("h", plain)),
            ) as gateway:
                await gateway.reaches("pool.connections", 4)
                assert used(gateway) == ["127.0.0.1", "127.0.0.2", "127.0.0.4", "127.0.0.3"]
                upstreams = dict(zip(servers, await upstreams_of(gateway, *servers.values()), strict=True))

                async def hosts_of(function: bytes) -> set[str]:
                    found = set()
                    for _ in range(8):
                        async with HttpClient(gateway.address) as client:
                            client.send(post(function, b"w"))
                            host = await taker(upstreams)
                            await upstreams[host].complete(b"H:1", b"done")
                            assert (await client.response()).body == b"done"
                        found.add(host)
                    return found

                assert await hosts_of(b"/f") == {"127.0.0.1", "127.0.0.2"}
                assert await hosts_of(b"/g") == {"127.0.0.3"}
                assert await hosts_of(b"/h") == {"127.0.0.4"}
                assert await hosts_of(b"/any") == set(servers)
                dns.addresses["a.test"] = ["127.0.0.2"]
                dns.addresses["b.test"] = ["127.0.0.1", "127.0.0.3"]
                await upstreams["127.0.0.1"].closed()
                upstreams["127.0.0.1"] = await servers["127.0.0.1"].connection()
                await gateway.reaches("pool.connections", 4)
                assert await hosts_of(b"/f") == {"127.0.0.2"}
                assert await hosts_of(b"/g") == {"127.0.0.1", "127.0.0.3"}

    async def test_uniques_go_where_a_gateway_with_the_addresses_themselves_sends_them(self, dns):
        hosts = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
        async with job_servers(*hosts) as servers:
            dns.addresses["all.test"] = hosts[::-1]
            ways = []
            for configured in ([each_of("all.test", servers)], [server.address for server in servers.values()]):
                async with running_gateway(configured, connections_per_server=1) as gateway:
                    upstreams = dict(zip(hosts, await upstreams_of(gateway, *servers.values()), strict=True))
                    await gateway.reaches("pool.connections", 3)
                    uniques = [b"X-Gearman-Unique: %d" % number for number in range(20)]
                    ways.append([await serve(gateway, upstreams, unique) for unique in uniques])
            assert ways[0] == ways[1]
            assert set(ways[0]) == set(hosts)

    async def test_a_background_job_at_one_that_has_left_is_forgotten(self, dns):
        async with job_servers("127.0.0.1", "127.0.0.2") as servers:
            dns.addresses["all.test"] = ["127.0.0.1"]
            async with running_gateway([each_of("all.test", servers)], connections_per_server=1) as gateway:
                upstream = await servers["127.0.0.1"].connection()
                servers["127.0.0.1"].status[b"f"] = (1, 0, 0)
                async with HttpClient(gateway.address) as client:
                    client.send(post(b"/f", b"w", TOGETHER, b"X-Gearman-Background: true"))
                    await upstream.accept(b"H:1")
                    assert (await client.response()).status == 200
                assert (await ask(gateway.address, post(b"/f", b"w", TOGETHER))).status == 409
                dns.addresses["all.test"] = ["127.0.0.2"]
                other = await servers["127.0.0.2"].connection()
                await upstream.closed()
                await eventually(lambda: used(gateway) == ["127.0.0.2"])
                assert await serve(gateway, {"127.0.0.2": other}, TOGETHER) == "127.0.0.2"


class TestTls:
    @pytest.mark.parametrize("host", ["all.test", "elsewhere.test"])
    async def test_the_certificate_must_be_good_for_the_name(self, dns, tmp_path, embedded, caplog, host):
        authority = Authority(tmp_path)
        dns.addresses["all.test"] = ["127.0.0.1"]
        with TlsTerminator(embedded.address, authority.certificate(host)) as terminator:
            servers = [ServerAddress("all.test", terminator.port, tls=True, each=True)]
            async with running_gateway(servers, server_ca=str(authority.file)) as gateway:
                assert used(gateway) == ["tls://127.0.0.1"]
                if host == "all.test":
                    await gateway.reaches("pool.connections", 2)
                else:
                    await eventually(lambda: "certificate is not valid for 'all.test'" in caplog.text)
                    assert connected(gateway) == set()


async def test_nothing_is_left_when_it_ends_at_any_moment_of_a_start(dns):
    before = asyncio.all_tasks()
    settings = Settings(listen=(Address("127.0.0.1", 0),), server=(ServerAddress("all.test", free_port(), each=True),))
    for milliseconds in range(20):
        # Of two families, so that they are probed.
        dns.addresses["all.test"] = ["::1", "127.0.0.1"]
        process = GatewayProcess(settings)
        starting = asyncio.create_task(process.start())
        await asyncio.sleep(milliseconds / 1000)
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await process.close()
        assert asyncio.all_tasks() == before
