"""An attacker's slow bodies in one worker process, which fill the bodies' account: what the clients of others notice.

CHAOS=1 (`make chaos`) runs it for a minute.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter

import pytest

from gatewayx.embedded.worker import AssignedJob, Worker
from support.account import Gearmands
from support.gateway import ServeProcess, cancelled, eventually
from support.http import HttpClient, head, post
from support.open_loop import clients_of
from support.shared_memory import SharedMemory

pytestmark = pytest.mark.anyio

DURATION_S = 60.0 if os.environ.get("CHAOS") == "1" else 8.0
WORKERS = 4
MEBIBYTE = 1 << 20
BODIES_BYTES = 16 * MEBIBYTE * 3 // 8
HELD = ("--max-held", "16MiB", "--max-body", "2MiB", "--max-result", "4MiB")
ATTACKER = "127.0.9.1"
ATTACKERS = 60
# What each sends at once of what it declares, before it sends a byte at a time.
FIRST_BYTES = 120_000
GOOD = "127.0.8.1"
CLIENTS = 6
# Small things have an account of their own, which no body fills.
SMALL_BYTES = 12_000
LARGE_BYTES = 400_000
# A body has two seconds before it may be ended for its pace.
SERVED_WITHIN_S = 45.0


class Answers:
    """What good clients were told, and how long they asked for it."""

    def __init__(self) -> None:
        self.small: list[int] = []
        self.small_s: list[float] = []
        # From the first time that a client asked to its 200, and how often it was refused on the way.
        self.large_s: list[float] = []
        self.refused = 0


class Ports:
    """Ports of the client by which the kernel chooses one place or another."""

    def __init__(self, served: ServeProcess, address: tuple[str, int]) -> None:
        self.served = served
        self.address = address

    async def of(self, source: str, *, at_first: bool, count: int) -> list[int]:
        """So many from this host whose connections come to the first worker process, or to any other one."""
        clients = [await HttpClient(self.address, source=source).connect() for _ in range(6 * count)]
        for client in clients:
            assert (await client.ask(head(b"OPTIONS", b"*"))).status == 204
        at = clients_of(self.served.workers()[0], self.address[1])
        names = [client.writer.get_extra_info("sockname") for client in clients]
        for client in clients:
            client.reset()
        found = [name[1] for name in names if (name in at) == at_first]
        assert len(found) >= count
        return found[:count]


async def attack(address: tuple[str, int], port: int) -> None:
    """One body after the other that begins quickly and then all but stands."""
    while True:
        client = HttpClient(address, source=ATTACKER, source_port=port)
        await client.connect()
        ended = asyncio.ensure_future(client.reader.read())
        try:
            client.send(head(b"POST", b"/f", b"Content-Length: 1500000"), bytes(FIRST_BYTES))
            while not ended.done() and not client.writer.is_closing():
                client.send(b"x")
                await asyncio.wait((ended,), timeout=0.3)
        finally:
            client.reset()
            await asyncio.gather(ended, return_exceptions=True)
        await asyncio.sleep(0.02)


async def ask_small(address: tuple[str, int], port: int, answers: Answers) -> None:
    """Over one connection that is kept."""
    async with HttpClient(address, source=GOOD, source_port=port) as client:
        while True:
            began_s = time.monotonic()
            answers.small.append((await client.ask(post(b"/f", bytes(SMALL_BYTES)))).status)
            answers.small_s.append(time.monotonic() - began_s)
            await asyncio.sleep(0.02)


async def ask_large(address: tuple[str, int], port: int, answers: Answers) -> None:
    """Over a new connection each time, and again if it is refused for want of room."""
    while True:
        began_s = time.monotonic()
        while True:
            client = await HttpClient(address, source=GOOD, source_port=port).connect()
            try:
                client.send(post(b"/f", bytes(LARGE_BYTES)))
                answer = await client.response()
            finally:
                client.reset()
            if answer.status == 200:
                break
            assert answer.kind() == "too-many-bytes"
            answers.refused += 1
            await asyncio.sleep(0.1)
        answers.large_s.append(time.monotonic() - began_s)
        await asyncio.sleep(0.05)


async def test_they_starve_nobody_who_is_served_by_another(tmp_path):
    async def do(job: AssignedJob) -> bytes:
        return b""

    answers = Answers()
    with Gearmands(tmp_path, 1) as gearmands, SharedMemory(WORKERS) as memory:
        worker = Worker(gearmands.addresses[0], {b"f": do}, concurrency=100)
        await worker.start()
        options = ("--listen", "127.0.0.1:0", "--workers", str(WORKERS), *HELD)
        server = ("--server", "{}:{}".format(*gearmands.addresses[0]))
        async with ServeProcess(*options, *server, before=memory.before) as served:
            address = await served.address()
            memory.attach()
            ports = Ports(served, address)
            tasks = [
                asyncio.create_task(attack(address, port))
                for port in await ports.of(ATTACKER, at_first=True, count=ATTACKERS)
            ]
            good = await ports.of(GOOD, at_first=False, count=2 * CLIENTS)
            await eventually(lambda: memory.taken()["bodies_bytes"] > BODIES_BYTES * 3 / 4)
            asks = [ask_small] * CLIENTS + [ask_large] * CLIENTS
            tasks += [asyncio.create_task(ask(address, port, answers)) for ask, port in zip(asks, good, strict=True)]
            ends_s = time.monotonic() + DURATION_S
            levels = []
            while time.monotonic() < ends_s:
                done, _ = await asyncio.wait(tasks, timeout=0.02, return_when=asyncio.FIRST_COMPLETED)
                assert not done, [task.exception() for task in done]
                levels.append(memory.taken()["bodies_bytes"] / BODIES_BYTES)
            first, *others = (Counter(host for host, _ in clients_of(each, address[1])) for each in served.workers())
            others = sum(others, Counter())
            await cancelled(tasks)
            crowded = sum(level > 0.75 for level in levels) / len(levels)
            large_s = sorted(answers.large_s)
            median_s, most_s = large_s[len(large_s) // 2], large_s[-1]
            print(
                f"crowded {crowded:.0%} of the time, {memory.counters()['arrivals_ended']} bodies ended for their pace"
            )
            print(f"{len(answers.small)} small requests, the longest {1e3 * max(answers.small_s):.0f} ms")
            print(f"{len(large_s)} large, {answers.refused} times 503 before; {median_s:.2f}, at most {most_s:.2f} s")
            # Who attacks is where nobody else is, but for those who came to a process while it stood still, whom its
            # neighbour has accepted; and at times there was no room for more.
            assert first[ATTACKER] > first[GOOD]
            assert others[GOOD] > others[ATTACKER]
            assert crowded > 0
            assert set(answers.small) == {200}
            assert most_s < SERVED_WITHIN_S
            served.signal(signal.SIGTERM)
            assert await served.ended() == 0
        await worker.close()
