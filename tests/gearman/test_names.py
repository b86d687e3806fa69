"""Job servers by name: looked up again and again, without ever holding up the loop."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest

from gatewayx.address import ServerAddress
from gatewayx.gearman import keeper
from gatewayx.net import names
from support.gateway import eventually, running_gateway
from support.http import HttpClient, ask, post
from support.job_servers import ScriptedJobServer, nobody_listens
from support.lookups import numeric
from support.ports import free_port
from support.times import SOON_S

pytestmark = pytest.mark.anyio


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
            # One that the kernel chooses may be somebody's at 127.0.0.1.
            port = free_port()
            hanging.bind(("127.0.0.2", port))
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
        # One of a test before may be about to end.
        before = set(threading.enumerate())
        began_s = asyncio.get_running_loop().time()
        hanging = [(f"hangs-{number}.test", 4730) for number in range(8)]
        async with (
            ScriptedJobServer() as server,
            running_gateway([*hanging, ("good.test", server.port)], is_patient=False) as gateway,
        ):
            assert asyncio.get_running_loop().time() - began_s < SOON_S
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
            for _ in upstreams:
                await server.connection()
            await asyncio.sleep(0.3)
            assert sorted(hanging_lookups.asked) == [f"hangs-{number}.test" for number in range(8)]
            # That of the good name's lookup has ended.
            await eventually(lambda: len(set(threading.enumerate()) - before) == 8)
            hanging_lookups.go_on()
            await eventually(lambda: not set(threading.enumerate()) - before)
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
