"""Worker processes that stand still, one or all of them with their master, under load: who serves meanwhile, and who is
there afterwards.

CHAOS=1 (`make chaos`) does it more often, and for a minute.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time

import pytest

from support.account import Account, Gearmands, KeptWorker
from support.gateway import ServeProcess, eventually
from support.http import HttpClient, head
from support.open_loop import OpenLoop
from support.shared_memory import SharedMemory
from support.times import PROCESS_S, SOON_S

pytestmark = pytest.mark.anyio

FULL_LENGTH = os.environ.get("CHAOS") == "1"
TRIES = 20 if FULL_LENGTH else 4
# So many that the kernel gives some to a place of three; but none in one of 10^7 runs.
NEWCOMERS = 45
WORKERS = 3
# A place is left to its neighbour so long after its loop has turned last.
ADOPTED_AFTER_S = 1.0
# Less than that, which a busy machine may take at times, but not so often one after the other.
SERVED_S = 0.8
MOST_TRIES = 30
PAUSE_S = 60.0 if FULL_LENGTH else 8.0
# Longer than a process of the test stands still by itself.
WORKER_TIMEOUT_S = 6.0
CONNECTIONS = 24
RATE = 300


async def served_after(address: tuple[str, int]) -> float:
    """How long a new client waits for its answer."""
    began_s = time.monotonic()
    async with HttpClient(address) as client:
        assert (await client.ask(head(b"OPTIONS", b"*"))).status == 204
    return time.monotonic() - began_s


def beats(memory: SharedMemory) -> list[float]:
    """When the loop of each place has turned last."""
    return [place.beat_s for place in memory.places.rows]


async def ticked(memory: SharedMemory, times: int) -> None:
    """Return once the loop of each place has turned so often from now on."""
    for _ in range(times):
        seen = beats(memory)
        await eventually(lambda seen=seen: all(now > then for now, then in zip(beats(memory), seen, strict=True)))


async def test_new_clients_of_one_that_stands_still_are_served_by_a_neighbour(embedded):
    chance = random.Random(14)
    options = ("--listen", "127.0.0.1:0", "--server", "{}:{}".format(*embedded.address), "--workers", str(WORKERS))
    with SharedMemory(WORKERS) as memory:
        async with ServeProcess(*options, before=memory.before) as served:
            address = await served.address()
            memory.attach()
            workers = served.workers()
            longest_s = []
            for _ in range(TRIES):
                stopped = chance.choice(workers)
                tries = 0
                began_s = time.monotonic()
                await ticked(memory, 1)
                os.kill(stopped, signal.SIGSTOP)
                try:
                    waited_s = await asyncio.gather(*(served_after(address) for _ in range(NEWCOMERS)))
                    took_s = time.monotonic() - began_s
                    # By now its place is known to be still, and no second is waited any more.
                    while max(await asyncio.gather(*(served_after(address) for _ in range(NEWCOMERS)))) > SERVED_S:
                        tries += 1
                        assert tries < MOST_TRIES
                finally:
                    os.kill(stopped, signal.SIGCONT)
                # Some came to its place, of which the kernel gives each of three a third.
                assert took_s >= ADOPTED_AFTER_S
                longest_s.append(max(waited_s))
                # Once all have ticked they know that it serves its place itself: the next try begins as this one did.
                await ticked(memory, 3)
            longest_s.sort()
            print(f"{TRIES} tries, the longest of {NEWCOMERS} each: {longest_s[0]:.3f} to {longest_s[-1]:.3f} s")
            assert longest_s[-1] < SOON_S
            assert served.workers() == workers
            served.signal(signal.SIGTERM)
            assert await served.ended() == 0


async def test_when_all_are_paused_nobody_is_ended_and_all_go_on(tmp_path):
    chance = random.Random(14)
    account = Account()
    with Gearmands(tmp_path, 1) as gearmands, SharedMemory(WORKERS) as memory:
        options = (
            *("--listen", "127.0.0.1:0", "--workers", str(WORKERS), "--worker-timeout", f"{WORKER_TIMEOUT_S:g}"),
            *("--server", "{}:{}".format(*gearmands.addresses[0])),
        )
        async with (
            KeptWorker(gearmands.addresses[0], account) as worker,
            ServeProcess(*options, before=memory.before) as served,
        ):
            await worker.registered.wait()
            address = await served.address()
            memory.attach()
            processes = served.all()
            load = OpenLoop(address, account, CONNECTIONS, RATE)
            await load.start()
            running = asyncio.create_task(load.run(PAUSE_S + 1.0))
            await eventually(lambda: len(load.latencies_s) > RATE / 2)
            for process_id in chance.sample(processes, len(processes)):
                os.kill(process_id, signal.SIGSTOP)
            before = beats(memory)
            await asyncio.sleep(PAUSE_S)
            assert beats(memory) == before
            for process_id in chance.sample(processes, len(processes)):
                os.kill(process_id, signal.SIGCONT)
            await ticked(memory, 1)
            await running
            # Whoever was late would be ended by now.
            assert max(await asyncio.gather(*(served_after(address) for _ in range(NEWCOMERS)))) < PROCESS_S
            assert served.all() == processes
            print(f"a pause of {PAUSE_S:g} s: {load.told()}")
            assert set(account.check()) == {(200, "")}
            assert (load.refused, load.losses, load.closing) == ([], [], 0)
            load.close()
            served.signal(signal.SIGTERM)
            assert await served.ended() == 0
            assert not [line for line in served.lines if "ERROR" in line or "CRITICAL" in line]
