"""A steady rate of requests through real gearmands, each of them accounted for, while something happens every second: a
worker process is killed, or the settings change.

CHAOS=1 (`make chaos`) runs it at 5,000 requests a second for a minute.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from support.account import FUNCTION, Account, Gearmands, KeptWorker
from support.gateway import ServeProcess, eventually
from support.open_loop import Name, OpenLoop, clients_of
from support.shared_memory import SharedMemory
from support.times import PROCESS_S

pytestmark = pytest.mark.anyio

FULL_LENGTH = os.environ.get("CHAOS") == "1"
RATE = 5000 if FULL_LENGTH else 2000
DURATION_S = 60.0 if FULL_LENGTH else 5.0
EVERY_S = 1.0
CONNECTIONS = 64
WORKERS = 3


class Loaded:
    """A gateway under load, whose shared memory the test sees."""

    def __init__(self, served: ServeProcess, memory: SharedMemory, account: Account, load: OpenLoop) -> None:
        self.served = served
        self.memory = memory
        self.account = account
        self.load = load

    def by_process(self) -> dict[int, set[Name]]:
        """The clients that each worker process serves."""
        return {each: clients_of(each, self.load.address[1]) for each in self.served.workers()}

    def all_are_served(self) -> bool:
        """Whether every worker process is there, and has accepted every connection that clients have."""
        served = self.by_process()
        clients = set().union(*served.values())
        return len(served) == WORKERS and len(clients) == CONNECTIONS and clients == set(self.load.open)

    async def nothing_is_taken(self) -> None:
        """Close the clients' connections, and return once no connection and no job is taken of the bounds."""
        self.load.close()
        await eventually(lambda: (self.memory.taken()["connections"], self.memory.taken()["jobs"]) == (0, 0))


@asynccontextmanager
async def loaded(tmp_path, gearmands: Gearmands, *arguments: str) -> AsyncIterator[Loaded]:
    """A gateway before these job servers, each with a worker, and clients that are connected."""
    account = Account()
    async with AsyncExitStack() as stack:
        for address in gearmands.addresses:
            worker = await stack.enter_async_context(KeptWorker(address, account))
            await worker.registered.wait()
        memory = stack.enter_context(SharedMemory(WORKERS))
        listen = ("--listen", "127.0.0.1:0", "--workers", str(WORKERS))
        served = await stack.enter_async_context(ServeProcess(*listen, *arguments, before=memory.before))
        load = OpenLoop(await served.address(), account, CONNECTIONS, RATE)
        memory.attach()
        await load.start()
        yield Loaded(served, memory, account, load)
        served.signal(signal.SIGTERM)
        assert await served.ended() == 0


async def test_while_a_process_is_killed_each_second_only_what_is_in_flight_in_it_fails(tmp_path):
    with Gearmands(tmp_path, 1) as gearmands:
        async with loaded(tmp_path, gearmands, "--server", "{}:{}".format(*gearmands.addresses[0])) as gateway:
            load = gateway.load
            running = asyncio.create_task(load.run(DURATION_S))
            kills = in_flight = 0
            began_s = asyncio.get_running_loop().time()
            while True:
                await asyncio.wait((running,), timeout=EVERY_S)
                # A slow machine takes longer for the first than for the load.
                if running.done() and kills >= 2:
                    break
                await eventually(gateway.all_are_served, PROCESS_S)
                known = len(load.losses)
                # Of those that are killed in turn, the oldest was ready for long enough to be replaced at once.
                victim = gateway.served.workers()[0]
                had = clients_of(victim, load.address[1])
                # Until its sockets are closed, which takes the kernel a while, clients go on asking it.
                in_flight += sum(load.open[client].workload is not None for client in had)
                os.kill(victim, signal.SIGKILL)
                kills += 1
                await eventually(lambda known=known, had=had: len(load.losses) >= known + len(had))
                await eventually(gateway.all_are_served, PROCESS_S)
                # All connections that it had, and no other.
                assert {loss.client for loss in load.losses[known:]} == had
                assert len(load.losses) == known + len(had)
            await running
            took_s = asyncio.get_running_loop().time() - began_s
            print(f"{kills} kills, {in_flight} requests in flight, {load.sent / took_s:.0f}/s: {load.told()}")
            assert load.sent == RATE * DURATION_S
            assert load.refused == []
            assert load.closing == 0
            # Each was told the result of its own job; only what was lost was not.
            assert set(gateway.account.check()) == {(200, "")}
            assert max(gateway.account.begun.values()) == 1
            answered = len(load.latencies_s)
            lost = sum(loss.workload is not None for loss in load.losses)
            assert answered + lost == load.sent
            counted = gateway.memory.counters()
            # A process may have counted an answer that died with it.
            assert answered <= counted["requests_answered"] <= answered + lost
            assert counted["connections_accepted"] == load.connected == CONNECTIONS + len(load.losses)
            others = set(counted) - {"requests_answered", "connections_accepted", "dropped_packets"}
            assert {name: counted[name] for name in others if counted[name]} == {}
            await gateway.nothing_is_taken()


async def test_while_the_settings_change_each_second_nothing_fails(tmp_path):
    with Gearmands(tmp_path, 3) as gearmands:
        names = ["{}:{}".format(*address) for address in gearmands.addresses]
        path = tmp_path / "gatewayx.toml"

        def write(number: int) -> None:
            used = [names[(number + further) % 3] for further in range(1 + number % 3)]
            lines = [
                f"server = {used}",
                f"max-jobs = {1000 + number}",
                f"max-body = {1000 + number}",
                f"max-held = {(64 + number) << 20}",
                f"max-function-jobs = ['{FUNCTION.decode()}={500 + number}', 'g{number}=1']",
                f"function = ['{FUNCTION.decode()}', 'g{number}']",
                f"function-server = ['{(FUNCTION.decode(), 'g')[number % 2]}={used[0]}']",
                f"connections-per-server = {1 + number % 3}",
                f"balance = '{('fewest', 'rotation', 'in-order')[number % 3]}'",
                f"max-result = {(1 << 20) + number}",
                f"keepalive-timeout = {60 + number}",
            ]
            # It may be read at any moment.
            beside = path.with_suffix(".new")
            beside.write_text("\n".join(lines), encoding="utf-8")
            beside.replace(path)

        write(0)
        async with loaded(tmp_path, gearmands, "--config", str(path)) as gateway:
            load = gateway.load
            processes = gateway.served.all()
            running = asyncio.create_task(load.run(DURATION_S))
            changes = 0
            began_s = asyncio.get_running_loop().time()
            while True:
                await asyncio.wait((running,), timeout=EVERY_S)
                if running.done() and changes >= 2:
                    break
                changes += 1
                write(changes)
                gateway.served.signal(signal.SIGHUP)
            await running
            took_s = asyncio.get_running_loop().time() - began_s
            print(f"{changes} changes, {load.sent / took_s:.0f}/s: {load.told()}")
            assert load.sent == RATE * DURATION_S
            assert (load.refused, load.losses, load.closing) == ([], [], 0)
            assert gateway.served.all() == processes
            # What it has now are the last settings: the file is read again, and nothing differs. A signal that comes
            # before the last change is carried out is one with that change's.
            told = asyncio.create_task(gateway.served.until("no live setting differs"))
            while not told.done():
                gateway.served.signal(signal.SIGHUP)
                await asyncio.wait((told,), timeout=EVERY_S)
            await told
            log = gateway.served.lines
            # It leaves out lines of a kind of which there are many in ten seconds, and several signals may be one.
            assert any("changed: server, " in line for line in log)
            assert not [line for line in log if "ERROR" in line or "WARNING" in line]
            assert set(gateway.account.check()) == {(200, "")}
            assert len(gateway.account.begun) == load.sent == len(load.latencies_s)
            assert max(gateway.account.begun.values()) == 1
            counted = gateway.memory.counters()
            expected = {"requests_answered": load.sent, "connections_accepted": CONNECTIONS}
            # Jobs that had not left when their job server did go to another one.
            assert {name: count for name, count in counted.items() if count and name != "moved_jobs"} == expected
            await gateway.nothing_is_taken()
