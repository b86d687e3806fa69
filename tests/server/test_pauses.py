"""A process that stood still reads what came meanwhile before deadlines fire, and new ones count from then."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gatewayx.gearman.packet import PacketType
from gatewayx.server.listeners import TICK_S
from support.gateway import ServeProcess, eventually, running_gateway
from support.http import HttpClient, head, post
from support.job_servers import ScriptedJobServer
from support.open_loop import clients_of

pytestmark = pytest.mark.anyio

# Each deadline is met by a machine that stands still for seconds, and passes in the pause.
DEADLINE_S = 4.0
PAUSE_S = DEADLINE_S + 1.0
LOOK = head(b"OPTIONS", b"*")


@asynccontextmanager
async def paused(served: ServeProcess) -> AsyncIterator[None]:
    """The gateway stands still from the beginning to a while after the end of what is done meanwhile."""
    processes = served.all()
    for process_id in processes:
        os.kill(process_id, signal.SIGSTOP)
    yield
    await asyncio.sleep(PAUSE_S)
    for process_id in processes:
        os.kill(process_id, signal.SIGCONT)


@asynccontextmanager
async def accepted(
    server: ScriptedJobServer, option: str, count: int = 1
) -> AsyncIterator[tuple[ServeProcess, list[HttpClient]]]:
    """A gateway with this deadline, and clients that it has accepted."""
    arguments = (
        "--listen",
        "127.0.0.1:0",
        "--server",
        "{}:{}".format(*server.address),
        "--workers",
        "1",
        "--connections-per-server",
        "1",
    )
    async with (
        ServeProcess(*arguments, option, f"{DEADLINE_S:g}") as served,
        contextlib.AsyncExitStack() as stack,
    ):
        address = await served.address()
        clients = [await stack.enter_async_context(HttpClient(address)) for _ in range(count)]
        await eventually(lambda: sum(len(clients_of(process_id, address[1])) for process_id in served.all()) == count)
        yield served, clients


async def test_requests_that_came_meanwhile_were_not_late():
    # More than the sockets have read in one turn.
    async with ScriptedJobServer() as server, accepted(server, "--first-byte-timeout", 400) as (served, clients):
        async with paused(served):
            for client in clients:
                client.send(LOOK)
        for client in clients:
            assert (await client.response()).status == 204


async def test_results_that_came_meanwhile_were_not_late():
    # More than is read of one connection in a turn.
    result = b"r" * 10_000
    async with ScriptedJobServer() as server, accepted(server, "--job-timeout", 100) as (served, clients):
        for client in clients:
            client.send(post(b"/f", b"w"))
        upstream = await server.connection()
        for number in range(len(clients)):
            await upstream.accept(b"H:%d" % number)
        async with paused(served):
            for number in range(len(clients)):
                upstream.answer(PacketType.WORK_COMPLETE, b"H:%d" % number, result)
        for client in clients:
            assert (await client.response()).body == result


async def test_who_has_sent_nothing_was_late():
    async with ScriptedJobServer() as server, accepted(server, "--first-byte-timeout") as (served, clients):
        async with paused(served):
            pass
        assert await clients[0].rest() == b""


async def test_deadlines_that_are_armed_after_a_pause_count_from_its_end(embedded):
    async with running_gateway([embedded.address], first_byte_timeout_s=DEADLINE_S) as gateway:
        waiting = socket.create_connection(gateway.address)
        # The gateway's loop is this one: when it goes on, its sockets have their turn before its timers.
        time.sleep(PAUSE_S)  # noqa: ASYNC251
        reader, writer = await asyncio.open_connection(sock=waiting)
        with contextlib.closing(writer):
            # Longer than it takes until what counts from before the pause is due.
            await asyncio.sleep(3 * TICK_S)
            writer.write(LOOK)
            assert (await reader.readline()).startswith(b"HTTP/1.1 204 ")
