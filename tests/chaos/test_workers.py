"""Worker processes that are killed, stopped and replaced under load: only what is in flight in them is lost.

CHAOS=1 (`make chaos`) runs the same for a minute.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal

import pytest

from support.account import FUNCTION, Account, Gearmands, KeptWorker
from support.gateway import ServeProcess, eventually
from support.http import HttpClient, post

pytestmark = pytest.mark.anyio

KILLS = 60 if os.environ.get("CHAOS") == "1" else 6
CLIENTS = 24


class Clients:
    """So many that ask one thing after the other, and come back when their connection is lost."""

    def __init__(self, address: tuple[str, int], account: Account) -> None:
        self.address = address
        self.account = account
        # Requests whose connection was lost before their answer, and connections that were lost with none under way.
        self.lost = 0
        self.ended = False

    async def run(self) -> None:
        """Until `ended`. What is refused at connect, or reset before it is accepted, fails here."""
        await asyncio.gather(*(self._ask() for _ in range(CLIENTS)))

    async def _ask(self) -> None:
        while not self.ended:
            async with HttpClient(self.address) as client:
                while not self.ended:
                    workload = self.account.workload()
                    client.send(post(b"/" + FUNCTION, workload))
                    try:
                        self.account.answered(workload, await client.response())
                    except (ConnectionError, EOFError):
                        self.account.abandoned.add(workload)
                        self.lost += 1
                        break


def serving(server: str) -> ServeProcess:
    """A gateway before this job server."""
    return ServeProcess("--listen", "127.0.0.1:0", "--server", server, "--workers", "3")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV], ids=["SIGKILL", "SIGSEGV"])
async def test_one_is_killed_again_and_again(tmp_path, number):
    account = Account()
    with Gearmands(tmp_path, 1) as gearmands:
        server = "{}:{}".format(*gearmands.addresses[0])
        async with (
            KeptWorker(gearmands.addresses[0], account) as worker,
            serving(server) as served,
        ):
            await worker.registered.wait()
            clients = Clients(await served.address(), account)
            running = asyncio.create_task(clients.run())
            for kill in range(KILLS):
                answered = len(account.told)
                await eventually(lambda answered=answered: running.done() or len(account.told) > answered + 300)
                assert not running.done() or running.result() is None
                # Of three that are killed in turn, the oldest was ready for long enough to be replaced at once.
                await asyncio.sleep(0.6)
                victim = served.workers()[0]
                os.kill(victim, number)
                await eventually(lambda victim=victim: victim not in served.workers() and len(served.workers()) == 3)
                # Nobody loses more than what its clients had under way, one request each.
                assert clients.lost <= (kill + 1) * CLIENTS
            clients.ended = True
            await running
            told = account.check()
            assert set(told) == {(200, "")}
            assert max(account.begun.values()) == 1
            served.signal(signal.SIGTERM)
            assert await served.ended() == 0


async def test_one_is_stopped_and_goes_on_again_and_again(tmp_path):
    chance = random.Random(3)
    account = Account()
    with Gearmands(tmp_path, 1) as gearmands:
        server = "{}:{}".format(*gearmands.addresses[0])
        async with (
            KeptWorker(gearmands.addresses[0], account) as worker,
            serving(server) as served,
        ):
            await worker.registered.wait()
            address = await served.address()
            clients = Clients(address, account)
            running = asyncio.create_task(clients.run())
            before = served.workers()
            for _ in range(max(2, KILLS // 6)):
                victim = chance.choice(before)
                os.kill(victim, signal.SIGSTOP)
                try:
                    for _ in range(20):
                        async with HttpClient(address) as newcomer:
                            workload = account.workload()
                            newcomer.send(post(b"/" + FUNCTION, workload))
                            account.answered(workload, await newcomer.response())
                finally:
                    os.kill(victim, signal.SIGCONT)
            clients.ended = True
            await running
            assert set(account.check()) == {(200, "")}
            assert clients.lost == 0
            assert served.workers() == before
            served.signal(signal.SIGTERM)
            assert await served.ended() == 0
