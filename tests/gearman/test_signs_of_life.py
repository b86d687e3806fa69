"""A job server that says nothing is asked whether it lives, and left when it does not answer."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket

import pytest

from gatewayx.address import ServerAddress
from gatewayx.gearman.packet import Magic, PacketReader, PacketType
from support.behind import MEBIBYTE, behind
from support.gateway import eventually, running_gateway
from support.http import HttpClient, post
from support.job_servers import OPTION_RES, hand_worker, response
from support.still import still_gateway

pytestmark = pytest.mark.anyio


class TestSignsOfLife:
    def test_a_silent_connection_is_replaced_within_two_intervals(self):
        servers = (ServerAddress("127.0.0.1", 4730), ServerAddress("127.0.0.1", 4731))
        with still_gateway(server=servers, server_check_interval_s=5) as gateway:
            frozen, other = gateway.server.open()
            gateway.pass_time(5.1)
            gateway.server.hanging_ports.add(frozen.port)
            gateway.pass_time(9.8)
            assert not frozen.gone
            gateway.pass_time(0.2)
            assert frozen.gone
            assert gateway.count("pool.connections") == 1
            gateway.server.hanging_ports.clear()
            gateway.pass_time(10)
            assert gateway.count("pool.connections") == 2
            # This one was asked as often and lives.
            assert not other.gone

    def test_a_gateway_that_stood_still_itself_takes_nobody_for_silent(self):
        with still_gateway(server_check_interval_s=5) as gateway:
            [upstream] = gateway.server.open()
            gateway.server.echoing = False
            gateway.pass_time(5.1)
            # The question has left; what was answered is not read before time is looked at.
            gateway.loop.now_s += 60
            gateway.pass_time(4.9)
            assert not upstream.gone
            # Of two such times one counts: a gateway that is always late finds out as well.
            gateway.loop.now_s += 60
            gateway.loop.settle()
            assert upstream.gone

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
                assert not upstream.gone
                gateway.pass_time(4.9)
                upstream.receive(piece)
            gateway.loop.settle()
            [answer] = client.responses()
            assert answer.body == b"result"
            gateway.pass_time(10.1)
            assert upstream.gone

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
                assert not upstream.gone
            gateway.pass_time(4.8)
            upstream.take()
            gateway.pass_time(5)
            assert not upstream.gone
            gateway.pass_time(0.3)
            assert upstream.gone

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
                    while not {PacketType.SUBMIT_JOB, PacketType.ECHO_REQ} <= set(found):
                        reader.feed(await loop.sock_recv(upstream, 32768))
                        for packet in reader.packets():
                            if packet.type == PacketType.ECHO_REQ and not found:
                                # The check of a connection that was idle, on a machine that was slow to ask.
                                await loop.sock_sendall(upstream, response(PacketType.ECHO_RES, *packet.arguments))
                                continue
                            found.append(packet.type)
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
            running_gateway([tmp_gearmand.address, embedded.address], server_check_interval_s=1) as gateway,
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
