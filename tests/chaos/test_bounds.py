"""The bounds of a gateway of several worker processes that are killed again and again: exact afterwards, never passed.

CHAOS=1 (`make chaos`) runs it for a minute.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from gatewayx.bench.flood import FloodGenerator, flood_kinds
from gatewayx.embedded.worker import AssignedJob, Worker
from gatewayx.net.sockets import Peer, clock_ns
from support.account import Gearmands
from support.gateway import ServeProcess, cancelled, eventually
from support.http import HttpClient, head, post
from support.open_loop import Name, clients_of
from support.shared_memory import Sampler, SharedMemory
from support.times import PROCESS_S

pytestmark = pytest.mark.anyio

FULL_LENGTH = os.environ.get("CHAOS") == "1"
DURATION_S = 60.0 if FULL_LENGTH else 6.0
REFILLS = 30 if FULL_LENGTH else 4
WORKERS = 4
MEBIBYTE = 1 << 20
MAX_CONNECTIONS = 200
MAX_CONNECTIONS_PER_ADDRESS = 25
MAX_JOBS = 25
MAX_HELD = 16 * MEBIBYTE
ACCOUNTS = {"small_bytes": MAX_HELD // 8, "bodies_bytes": MAX_HELD * 3 // 8, "results_bytes": MAX_HELD // 2}
# Nobody asks for a job that is kept, or with a key.
BOUNDS = {"connections": MAX_CONNECTIONS, "jobs": MAX_JOBS, "kept_jobs": 0, "kept_keys": 0, "kept_bytes": 0, **ACCOUNTS}
HELD = ("--max-held", "16MiB", "--max-body", "2MiB", "--max-result", "4MiB")
BODY_BYTES = 1_500_000
LARGE_BYTES = MEBIBYTE
FLOODS = {"mixed": (100, 500), "slow": (100, 100), "no-read": (20, 50)}
SLOW = ("slow-head", "slow-body")
UNREACHED = (OSError, EOFError)


@asynccontextmanager
async def serving(*arguments: str, max_connections: int) -> AsyncIterator[tuple[ServeProcess, SharedMemory]]:
    """A gateway that listens, and its shared memory."""
    with SharedMemory(WORKERS, max_connections) as memory:
        options = ("--listen", "127.0.0.1:0", "--workers", str(WORKERS), "--max-connections", str(max_connections))
        async with ServeProcess(*options, *arguments, before=memory.before) as served:
            address = await served.address()
            memory.attach()
            served.listens_at = address
            yield served, memory


async def test_as_many_connections_as_a_killed_process_had_may_come_again(tmp_path):
    each, addresses = 10, [f"127.0.1.{number}" for number in range(1, 5)]
    most = each * len(addresses)
    chance = random.Random(14)
    with Gearmands(tmp_path, 1) as gearmands:
        options = ("--server", "{}:{}".format(*gearmands.addresses[0]), "--max-connections-per-address", str(each))
        async with serving(*options, max_connections=most) as (served, memory), AsyncExitStack() as stack:
            address = served.listens_at
            clients: dict[Name, HttpClient] = {}

            async def come(source: str) -> HttpClient:
                return await stack.enter_async_context(HttpClient(address, source=source))

            async def fill() -> None:
                counts = Counter(host for host, _ in clients)
                for source in addresses:
                    for _ in range(each - counts[source]):
                        client = await come(source)
                        # No worker does it, so it is never idle and makes room for nobody.
                        client.send(post(b"/wait", b"w"))
                        clients[client.writer.get_extra_info("sockname")] = client
                await eventually(lambda: memory.taken()["connections"] == memory.taken()["jobs"] == most, PROCESS_S)

            def otherwise() -> set[Name]:
                """Clients that no process has accepted, and whom processes have accepted beside them."""
                accepted = (clients_of(process_id, address[1]) for process_id in served.workers())
                return set(clients).symmetric_difference(set().union(*accepted))

            await fill()
            for _ in range(REFILLS):
                full = await come("127.0.2.1")
                assert (await full.response()).kind() == "too-many-connections"
                victim = chance.choice(served.workers())
                # The one that was refused may be there for a while, and counts for nothing.
                lost = clients_of(victim, address[1]) & clients.keys()
                os.kill(victim, signal.SIGKILL)
                for name in lost:
                    with contextlib.suppress(ConnectionError):
                        assert await clients.pop(name).rest() == b""
                for bound in ("connections", "jobs"):
                    await eventually(
                        lambda lost=lost, bound=bound: memory.taken()[bound] == most - len(lost), PROCESS_S
                    )
                # An address that has lost none has as many as it may.
                counts = Counter(host for host, _ in clients)
                for source in addresses:
                    if counts[source] == each and lost:
                        further = await come(source)
                        assert (await further.response()).kind() == "too-many-connections-per-address"
                await fill()
                try:
                    await eventually(lambda: not otherwise())
                except AssertionError:
                    told = (otherwise(), set(clients), served.workers(), victim, lost, memory.taken())
                    raise AssertionError(f"clients and accepted connections are not the same: {told}") from None


class Runs:
    """When a worker ran which job, and which requests were lost with a killed process."""

    def __init__(self) -> None:
        self.numbers = itertools.count()
        self.times: dict[str, list[tuple[float, float, bytes]]] = {"one": [], "many": []}
        self.lost: set[bytes] = set()
        self.answers: Counter[tuple[str, int | str]] = Counter()

    def does(self, name: str, job_s: float) -> Callable[[AssignedJob], Awaitable[bytes]]:
        """What the worker does."""

        async def do(job: AssignedJob) -> bytes:
            began_s = time.monotonic()
            await asyncio.sleep(job_s)
            self.times[name].append((began_s, time.monotonic(), job.workload[:8]))
            return b""

        return do

    def have_ended(self, *names: str) -> bool:
        """Whether of each of these functions a job has ended whose gateway process lived on."""
        return all(any(number not in self.lost for _, _, number in self.times[name]) for name in names)

    def most_at_once(self, name: str, *, with_lost: bool = False) -> int:
        """How many ran at once at most, of those whose gateway process lived on: nobody can end the others."""
        changes = []
        for began_s, ended_s, number in self.times[name]:
            if with_lost or number not in self.lost:
                changes += [(began_s, 1), (ended_s, -1)]
        return max(itertools.accumulate(change for _, change in sorted(changes)))


async def again_and_again(
    runs: Runs, name: str, address: tuple[str, int], ask: Callable[[HttpClient, bytes], Awaitable[int]], source: str
) -> None:
    """Ask over one new connection after the other; whatever comes is noted."""
    while True:
        number = b"%08d" % next(runs.numbers)
        client = HttpClient(address, source=source, receive_buffer_bytes=4096)
        try:
            await client.connect()
            try:
                runs.answers[name, await ask(client, number)] += 1
            finally:
                # Closing it would wait for what the gateway has not read and may never read.
                client.reset()
        except UNREACHED as error:
            runs.lost.add(number)
            runs.answers[name, type(error).__name__] += 1
        await asyncio.sleep(0.005)


async def small(client: HttpClient, number: bytes) -> int:
    """A job with a small workload."""
    return (await client.ask(post(b"/many", number))).status


async def one(client: HttpClient, number: bytes) -> int:
    """A job of the function of which one may run: its head is let in while none does, its body comes a little later."""
    client.send(head(b"POST", b"/one", b"Content-Length: %d" % len(number)))
    await asyncio.sleep(0.002)
    if client.writer.is_closing():
        raise ConnectionResetError
    client.send(number)
    return (await client.response()).status


async def large_body(client: HttpClient, number: bytes) -> int:
    """Half of a large body, and after a while the rest."""
    client.send(head(b"POST", b"/many", b"Content-Length: %d" % BODY_BYTES), number.ljust(BODY_BYTES // 2))
    await asyncio.sleep(0.3)
    if client.writer.is_closing():
        raise ConnectionResetError
    client.send(bytes(BODY_BYTES - BODY_BYTES // 2))
    return (await client.response()).status


async def large_result(client: HttpClient, number: bytes) -> int:
    """A large result that is not read for a while."""
    client.send(post(b"/large", number))
    await asyncio.sleep(0.3)
    return (await client.response()).status


async def flood(address: tuple[str, int], name: str) -> None:
    """Connections that no good client makes, from two hundred addresses, until it is cancelled."""
    known = flood_kinds(b"/many", b"gateway")
    kinds = list(known) if name == "mixed" else SLOW if name == "slow" else [name]
    if name == "mixed":
        kinds = [kind for kind in kinds if kind not in (*SLOW, "no-read")]
    connections, rate = FLOODS[name]
    generator = FloodGenerator(
        asyncio.get_running_loop(),
        Peer(*address, 200),
        [known[kind] for kind in kinds],
        connections=connections,
        rate=rate,
    )
    now_ns = clock_ns()
    generator.begin(now_ns, now_ns + round((DURATION_S + PROCESS_S) * 1e9))
    try:
        while True:
            await asyncio.sleep(0.05)
            generator.sweep()
    finally:
        generator.stop()
        generator.finish()


def reached(most: dict[str, int]) -> bool:
    """Whether the bounds were, or nearly: a large thing fits no more before an account is full."""
    large = ("bodies_bytes", "results_bytes")
    return (most["connections"], most["jobs"]) == (MAX_CONNECTIONS, MAX_JOBS) and all(
        most[name] > BOUNDS[name] / 4 for name in large
    )


async def test_no_bound_is_ever_passed_under_floods_though_processes_are_killed(tmp_path):
    runs = Runs()
    functions = {b"one": runs.does("one", 0.004), b"many": runs.does("many", 0.02), b"large": large}
    with Gearmands(tmp_path, 1) as gearmands:
        worker = Worker(gearmands.addresses[0], functions, concurrency=100)
        await worker.start()
        options = (
            *("--server", "{}:{}".format(*gearmands.addresses[0]), "--max-jobs", str(MAX_JOBS), *HELD),
            *("--max-function-jobs", "one=1", "--max-connections-per-address", str(MAX_CONNECTIONS_PER_ADDRESS)),
        )
        async with serving(*options, max_connections=MAX_CONNECTIONS) as (served, memory):
            address = served.listens_at
            actors = {"one": (one, 12), "small": (small, 30), "body": (large_body, 30), "result": (large_result, 30)}
            with Sampler(memory) as sampler:
                tasks = [asyncio.create_task(flood(address, name)) for name in FLOODS]
                for name, (ask, count) in actors.items():
                    for number in range(count):
                        source = f"127.0.3.{number % 4 + 1}"
                        tasks.append(asyncio.create_task(again_and_again(runs, name, address, ask, source)))
                ends_s = time.monotonic() + DURATION_S
                kills = 0
                while time.monotonic() < ends_s or not reached(sampler.most) or not runs.have_ended("one", "many"):
                    assert time.monotonic() < ends_s + PROCESS_S, f"at most {sampler.most}, bounds {BOUNDS}"
                    done, _ = await asyncio.wait(tasks, timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
                    assert not done, [task.exception() for task in done]
                    os.kill(served.workers()[0], signal.SIGKILL)
                    kills += 1
                    await eventually(lambda: len(served.workers()) == WORKERS, PROCESS_S)
                await cancelled(tasks)
                most = sampler.most
                ones, with_lost = runs.most_at_once("one"), runs.most_at_once("one", with_lost=True)
                many = runs.most_at_once("many")
                print(f"{kills} kills, {sampler.looks} looks: at most {most}, bounds {BOUNDS}")
                print(f"at once {ones} of `one` ({with_lost} with those of killed processes), {many} of `many`")
                print(f"{dict(runs.answers)}; {dict(+memory.counters())}")
                assert {name: most[name] for name in most if most[name] > BOUNDS[name]} == {}
                assert ones == 1
                assert many <= MAX_JOBS
            await eventually(lambda: (memory.taken()["connections"], memory.taken()["jobs"]) == (0, 0), PROCESS_S)
            served.signal(signal.SIGTERM)
            assert await served.ended() == 0
            # To the last byte.
            assert set(memory.taken().values()) == {0}
        await worker.close()


async def large(job: AssignedJob) -> bytes:
    """A result that takes much room."""
    return bytes(LARGE_BYTES)
