"""The master is killed at a steady rate of requests: nobody hangs, and the next one has the address as soon as it can.

CHAOS=1 (`make chaos`) does it again and again, at a higher rate.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from pathlib import Path

import pytest

from support.account import FUNCTION, Account, Gearmands, KeptWorker
from support.gateway import ServeProcess, eventually
from support.http import HttpClient, head, post
from support.open_loop import OpenLoop
from support.times import PROCESS_S

pytestmark = pytest.mark.anyio

FULL_LENGTH = os.environ.get("CHAOS") == "1"
RATE = 2000 if FULL_LENGTH else 1000
KILLS = 20 if FULL_LENGTH else 2
CONNECTIONS = 64
WORKERS = 3
# No job takes long.
ENDS_WITHIN_S = 45.0
JOB_S = 0.01


class Successor:
    """A gateway that is started on an address again and again until it may have it."""

    def __init__(self, *arguments: str) -> None:
        self.arguments = arguments
        # What each one said that did not begin.
        self.refusals: list[str] = []

    async def start(self, stack: contextlib.AsyncExitStack) -> ServeProcess:
        """The one that listens."""
        while True:
            served = ServeProcess(*self.arguments)
            await served.start()
            try:
                await served.address()
            except AssertionError:
                assert await served.ended() == 1
                self.refusals.append("".join(served.lines))
                continue
            stack.push_async_exit(served)
            return served


def is_taken(address: tuple[str, int]) -> str:
    """What is said at an address where somebody listens."""
    return "gatewayx: cannot listen on {}:{}: Address already in use\n".format(*address)


def is_alive(process_id: int) -> bool:
    """Whether there is such a process, and nobody waits for its end to be seen."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{process_id}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] != "Z"
    return False


async def test_workers_end_a_new_one_begins_and_no_client_hangs(tmp_path):
    account = Account()
    with Gearmands(tmp_path, 1) as gearmands:
        async with (
            KeptWorker(gearmands.addresses[0], account, before_end_s=JOB_S) as worker,
            contextlib.AsyncExitStack() as stack,
        ):
            await worker.registered.wait()
            options = ("--server", "{}:{}".format(*gearmands.addresses[0]), "--workers", str(WORKERS))
            served = await stack.enter_async_context(ServeProcess("--listen", "127.0.0.1:0", *options))
            address = await served.address()
            successor = Successor("--listen", "{}:{}".format(*address), *options)
            gaps_s, ends_s, reset = [], [], 0
            for _ in range(KILLS):
                load = OpenLoop(address, account, CONNECTIONS, RATE)
                await load.start()
                running = asyncio.create_task(load.run(2.0))
                await eventually(lambda load=load: load.sent > RATE / 2)
                workers = served.workers()
                began_s = time.monotonic()
                served.signal(signal.SIGKILL)
                # Who comes meanwhile is served by the old ones, refused, or served by the new one.
                served = await successor.start(stack)
                gaps_s.append(time.monotonic() - began_s)
                async with HttpClient(address) as newcomer:
                    workload = account.workload()
                    account.answered(workload, await newcomer.ask(post(b"/" + FUNCTION, workload)))
                await eventually(lambda workers=workers: not any(map(is_alive, workers)), PROCESS_S)
                ends_s.append(time.monotonic() - began_s)
                # It returns once no client waits for anything.
                await running
                assert load.sent == 2.0 * RATE
                assert load.refused
                assert all(isinstance(error, ConnectionRefusedError) for error in load.refused)
                # All that had been accepted were answered, and told that it was the last time; but who has asked for
                # nothing for two seconds, as it stood still, is closed without a word.
                unused = [loss for loss in load.losses if loss.was_served and loss.workload is None]
                assert load.closing + len(unused) == CONNECTIONS
                assert load.closing
                for loss in set(load.losses).difference(unused):
                    # It was in a queue whose last process was just closing it, so that it may be asked again.
                    assert not loss.was_served
                    assert account.begun[loss.workload] == 0
                reset += len(load.losses) - len(unused)
                load.close()
            told = f"{KILLS} kills: the next one listens after at most {max(gaps_s):.2f} s"
            print(
                f"{told}, all have ended after at most {max(ends_s):.2f} s, {reset} were reset before they were let in"
            )
            assert max(ends_s) < ENDS_WITHIN_S
            assert set(account.check()) == {(200, "")}
            assert max(account.begun.values()) == 1
            assert set(successor.refusals) <= {is_taken(address)}
            served.signal(signal.SIGTERM)
            assert await served.ended() == 0


async def test_a_new_one_says_why_it_does_not_begin_while_one_of_the_old_ones_stands_still(embedded):
    options = ("--server", "{}:{}".format(*embedded.address), "--workers", str(WORKERS))
    async with contextlib.AsyncExitStack() as stack:
        served = await stack.enter_async_context(ServeProcess("--listen", "127.0.0.1:0", *options))
        address = await served.address()
        workers = served.workers()
        os.kill(workers[1], signal.SIGSTOP)
        try:
            served.signal(signal.SIGKILL)
            await eventually(lambda: [each for each in workers if is_alive(each)] == [workers[1]])
            successor = Successor("--listen", "{}:{}".format(*address), *options)
            starting = asyncio.create_task(successor.start(stack))
            await eventually(lambda: successor.refusals, PROCESS_S)
        finally:
            os.kill(workers[1], signal.SIGCONT)
        new = await starting
        assert set(successor.refusals) == {is_taken(address)}
        await eventually(lambda: not is_alive(workers[1]))
        async with HttpClient(address) as client:
            assert (await client.ask(head(b"OPTIONS", b"*"))).status == 204
        new.signal(signal.SIGTERM)
        assert await new.ended() == 0
