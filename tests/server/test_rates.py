"""One rate over all worker processes of a gateway: exact, kept when a process dies, changed in place, counted once."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import AsyncExitStack

import pytest

from support.gateway import ServeProcess, eventually
from support.http import HttpClient, ask, head, post
from support.relaying import relaying, unique_line
from support.times import PROCESS_S

pytestmark = pytest.mark.anyio

OPTIONS = head(b"OPTIONS", b"*")
BACKGROUND = b"X-Gearman-Background: true"
WORKERS = 4


def serving(server: tuple[str, int], *arguments: str, workers: int = WORKERS) -> ServeProcess:
    """`gatewayx serve` with so many worker processes."""
    host, port = server
    return ServeProcess("--listen", "127.0.0.1:0", "--workers", str(workers), "--server", f"{host}:{port}", *arguments)


async def test_rates_of_addresses_are_exact_over_four_worker_processes(embedded):
    per_s, burst, keys, connections, lasts_s = 40, 20, 12, 4, 2.5
    sources = [f"127.0.1.{number}" for number in range(1, keys + 1)]
    async with serving(embedded.address, "--rate", f"{per_s}/s:{burst}") as served, AsyncExitStack() as stack:
        address = await served.address()
        clients = [
            (source, await stack.enter_async_context(HttpClient(address, source=source)))
            for source in sources
            for _ in range(connections)
        ]
        taken = dict.fromkeys(sources, 0)
        # When each was refused last, and for how long altogether it was again and again.
        refused_s = dict.fromkeys(sources, float("-inf"))
        covered_s = dict.fromkeys(sources, 0.0)
        began_s = time.monotonic()

        async def ask_on(source: str, client: HttpClient) -> None:
            while time.monotonic() < began_s + lasts_s:
                answer = await client.ask(OPTIONS)
                taken[source] += answer.status == 204
                if answer.status == 429:
                    now_s = time.monotonic()
                    gap_s = now_s - refused_s[source]
                    # In a longer time than this a rate is lost that nobody has asked for: the burst is all there is.
                    covered_s[source] += gap_s if gap_s < 0.9 * burst / per_s else 0
                    refused_s[source] = now_s

        await asyncio.gather(*(ask_on(*client) for client in clients))
        took_s = time.monotonic() - began_s
    allowed = burst + per_s * took_s
    # More is never had, whichever process answers.
    assert sum(taken.values()) / (allowed * keys) <= 1.02
    assert all(count <= 1.02 * allowed + 1 for count in taken.values()), (taken, allowed)
    # A busy machine may leave no time to ask for all of it; whoever was refused again and again has had all.
    assert all(taken[source] >= 0.9 * per_s * covered_s[source] for source in sources), (taken, covered_s)


async def test_whose_rate_is_used_up_gets_nothing_by_a_worker_process_that_is_replaced(embedded):
    async with serving(embedded.address, "--rate", "0.01/s:50", workers=2) as served:
        address = await served.address()
        for _ in range(50):
            assert (await ask(address, OPTIONS)).status == 204
        before = served.workers()
        for process_id in before:
            os.kill(process_id, signal.SIGKILL)
        await eventually(lambda: len(set(served.workers()) - set(before)) == 2, PROCESS_S)
        assert {(await ask(address, OPTIONS)).status for _ in range(20)} == {429}


async def test_what_is_relayed_counts_once(embedded):
    async with (
        relaying([embedded.address], "--rate", "0.01/s:40", "--function-rate", "f=0.01/s:20") as gateway,
        AsyncExitStack() as stack,
    ):
        clients = await gateway.clients(stack)
        answers, relayed = [], []
        for number in range(30):
            request = post(b"/f", b"", BACKGROUND, unique_line(b"u-%d" % number))
            given, answer = await gateway.asked(clients[number % 2], request)
            relayed.append(given)
            answers.append(answer.status)
        # Some of those that were let in went on to another process, none of those that were refused.
        assert answers == [200] * 20 + [429] * 10
        assert any(relayed[:20])
        assert not any(relayed[20:])
        # And of the address ten are left.
        assert [(await clients[number % 2].ask(OPTIONS)).status for number in range(12)] == [204] * 10 + [429] * 2


async def test_rates_change_in_all_worker_processes_at_sighup(embedded, tmp_path):
    path = tmp_path / "gatewayx.toml"
    path.write_text('rate = "0.01/s:10"\n')
    async with serving(embedded.address, "--config", str(path)) as served:
        address = await served.address()
        statuses = [(await ask(address, OPTIONS)).status for _ in range(12)]
        assert statuses == [204] * 10 + [429] * 2

        async def reload(text: str) -> None:
            path.write_text(text)
            served.signal(signal.SIGHUP)
            await served.until("all worker processes have the settings")

        await reload('function-rate = ["g=0.01/s:2"]\n')
        assert {(await ask(address, OPTIONS)).status for _ in range(20)} == {204}
        statuses = [(await ask(address, post(b"/g", b"", BACKGROUND))).status for _ in range(4)]
        assert statuses == [200, 200, 429, 429]
        # What the address owed before is not forgotten, but for what is above the new burst.
        await reload('rate = "0.01/s:2"\nconnection-rate = "0.01/s:3"\n')
        assert [(await ask(address, OPTIONS)).status for _ in range(4)] == [429] * 4
        answers = []
        async with AsyncExitStack() as stack:
            for _ in range(2):
                client = await stack.enter_async_context(HttpClient(address, source="127.0.0.9"))
                answers.append((await client.ask(OPTIONS)).status)
        assert answers == [204, 204]
