"""A stop as clients that use their connections on and on meet it, and what `--shutdown-delay` puts before it."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gatewayx.embedded.sample_functions import FUNCTIONS
from gatewayx.embedded.worker import Worker
from gatewayx.http.idle import IN_USE_S
from support.gateway import ServeProcess
from support.http import HttpClient, head, post, refused
from support.job_servers import ScriptedJobServer
from support.times import NOT_BEFORE, SOON_S

LISTEN = ("--listen", "127.0.0.1:0")
OPTIONS = head(b"OPTIONS", b"*")

pytestmark = pytest.mark.anyio


def server_at(address: tuple[str, int]) -> tuple[str, str]:
    """The flag for a job server."""
    return ("--server", f"{address[0]}:{address[1]}")


@asynccontextmanager
async def echoing_gateway(embedded, *arguments: str) -> AsyncIterator[ServeProcess]:
    """The gateway in front of a worker that runs the sample functions."""
    worker = Worker(embedded.address, FUNCTIONS)
    await worker.start()
    try:
        async with ServeProcess(*LISTEN, *server_at(embedded.address), *arguments) as served:
            yield served
    finally:
        await worker.close()


async def ask_on(client: HttpClient, pause_s: float) -> int:
    """Ask again and again until an answer says that it is the last one; returns how many there were. Fails on any other
    end."""
    answered_s = time.monotonic()
    for count in range(1, 1_000_000):
        body = b"%d" % count
        asked_s = time.monotonic()
        try:
            answer = await client.ask(post(b"/echo", body))
        except (ConnectionError, asyncio.IncompleteReadError):
            # Whoever asks so late finds it closed, as this process does that has stood still.
            assert asked_s - answered_s > IN_USE_S / 2
            return count
        answered_s = time.monotonic()
        assert (answer.status, answer.body) == (200, body)
        if answer.headers.get(b"connection") == b"close":
            assert await client.rest() == b""
            return count
        await asyncio.sleep(pause_s)
    raise AssertionError("no answer was the last one")


class TestInUse:
    async def test_no_request_is_lost_on_kept_connections(self, embedded):
        async with echoing_gateway(embedded) as served:
            address = await served.address()
            clients = [await HttpClient(address).connect() for _ in range(16)]
            for client in clients:
                assert (await client.ask(OPTIONS)).status == 204
            asking = [asyncio.create_task(ask_on(client, 0.02 * number)) for number, client in enumerate(clients)]
            await asyncio.sleep(0.5)
            assert not any(task.done() for task in asking)
            served.signal(signal.SIGTERM)
            assert min(await asyncio.gather(*asking)) >= 1
            await refused(address)
            for client in clients:
                await client.close()
            assert await served.ended() == 0

    async def test_those_that_nobody_uses_do_not_hold_up_the_end(self, embedded):
        async with echoing_gateway(embedded) as served:
            address = await served.address()
            clients = [await HttpClient(address).connect() for _ in range(40)]
            for client in clients:
                assert (await client.ask(OPTIONS)).status == 204
            began_s = time.monotonic()
            served.signal(signal.SIGTERM)
            for client in clients:
                assert await client.rest() == b""
            assert await served.ended() == 0
            assert time.monotonic() - began_s < SOON_S
            for client in clients:
                await client.close()

    async def test_the_drain_timeout_ends_them_at_last(self, embedded):
        async with echoing_gateway(embedded, "--drain-timeout", "0") as served:
            async with HttpClient(await served.address()) as client:
                assert (await client.ask(OPTIONS)).status == 204
                served.signal(signal.SIGTERM)
                assert await client.rest() == b""
            assert await served.ended() == 0


class TestShutdownDelay:
    async def test_everything_is_served_as_before_until_a_second_signal(self, embedded):
        async with echoing_gateway(embedded, "--shutdown-delay", "3600") as served:
            address = await served.address()
            async with HttpClient(address) as kept, HttpClient(address) as silent:
                assert (await kept.ask(OPTIONS)).status == 204
                served.signal(signal.SIGTERM)
                assert "stopping in 3600 s" in await served.until("stopping")
                async with HttpClient(address) as newcomer:
                    for client in (kept, newcomer, silent, kept, newcomer):
                        answer = await client.ask(post(b"/echo", b"as before"))
                        assert (answer.body, answer.headers.get(b"connection")) == (b"as before", None)
                served.signal(signal.SIGTERM)
                assert await served.ended() == 1

    async def test_the_drain_begins_after_it(self, embedded):
        async with echoing_gateway(embedded, "--shutdown-delay", "0.5") as served:
            address = await served.address()
            async with HttpClient(address) as client:
                asking = asyncio.create_task(ask_on(client, 0.001))
                began_s = time.monotonic()
                served.signal(signal.SIGTERM)
                await served.until("answering what is in flight")
                assert time.monotonic() - began_s >= NOT_BEFORE * 0.5
                await asking
                assert time.monotonic() - began_s >= NOT_BEFORE * 0.5
            assert await served.ended() == 0
        assert sum("stopping" in line for line in served.lines) == 2

    async def test_a_signal_during_the_start_does_not_wait_for_it(self):
        async with (
            ScriptedJobServer(greets=False) as silent,
            ServeProcess(*LISTEN, *server_at(silent.address), "--shutdown-delay", "3600") as served,
        ):
            await silent.connection()
            served.signal(signal.SIGTERM)
            assert await served.ended() == 0
        assert not served.lines
