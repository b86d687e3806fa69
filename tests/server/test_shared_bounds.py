"""Bounds that hold for a gateway of several worker processes: here two in one loop, which share what places share."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec
import pytest

from gatewayx.address import Address, ServerAddress
from gatewayx.config.kinds import FunctionBound
from gatewayx.config.settings import Settings
from gatewayx.core.shared import Shared
from gatewayx.net.names import NumericHost
from gatewayx.server.listeners import BoundSockets
from gatewayx.server.process import GatewayProcess, places_for
from support.gateway import eventually
from support.http import HttpClient, head, post
from support.job_servers import hand_worker
from support.times import DEADLINES

pytestmark = pytest.mark.anyio

OPTIONS = head(b"OPTIONS", b"*")
MEBIBYTE = 1 << 20


class Two:
    """Both, where they listen, and what a master sees of what they have taken."""

    def __init__(self, processes: list[GatewayProcess], shared: Shared) -> None:
        self.processes = processes
        self.addresses = [tuple(process.addresses[0]) for process in processes]
        self.shared = shared

    def count(self, name: str) -> int:
        """Of both together."""
        return sum(process.counters()[name] for process in self.processes)


@asynccontextmanager
async def two_processes(address: tuple[str, int], **settings: object) -> AsyncIterator[Two]:
    """Two worker processes' worth of gateway."""
    made = Settings(listen=(Address("127.0.0.1", 0),), server=(ServerAddress(*address),), **(DEADLINES | settings))
    places = places_for(made, 2)
    async with AsyncExitStack() as stack:
        processes = []
        for place in range(2):
            # Each has a port of its own, so that a test knows to whom it connects.
            sockets = BoundSockets(2)
            sockets.bind(made.listen[0], NumericHost.parse("127.0.0.1"), made)
            process = GatewayProcess(made, sockets=sockets, places=places, place=place)
            stack.push_async_callback(process.close)
            await process.start()
            processes.append(process)
        yield Two(processes, places.shared())


async def clients_of(stack: AsyncExitStack, two: Two, count: int) -> list[HttpClient]:
    """So many clients, in turns of the one and the other."""
    return [await stack.enter_async_context(HttpClient(two.addresses[number % 2])) for number in range(count)]


async def test_connections(embedded):
    async with two_processes(embedded.address, max_connections=6) as two, AsyncExitStack() as stack:
        # Not idle, so that nobody is closed to make room.
        clients = await clients_of(stack, two, 6)
        for client in clients:
            client.send(b"POST")
        await eventually(lambda: two.count("http.arrivals") == 6)
        for further in await clients_of(stack, two, 2):
            further.send(OPTIONS)
            assert (await further.response()).kind() == "too-many-connections"
        await clients[0].close()
        await eventually(lambda: two.shared.read()["connections"] == 5)
        [successor] = await clients_of(stack, two, 1)
        assert (await successor.ask(OPTIONS)).status == 204
        assert two.shared.read()["connections"] == 6


async def test_one_that_is_idle_makes_room_in_its_own_process(embedded):
    async with two_processes(embedded.address, max_connections=2) as two, AsyncExitStack() as stack:
        idle = await clients_of(stack, two, 2)
        for client in idle:
            assert (await client.ask(OPTIONS)).status == 204
        [newcomer] = await clients_of(stack, two, 1)
        assert (await newcomer.ask(OPTIONS)).status == 204
        assert await idle[0].rest() == b""
        assert two.shared.read()["connections"] == 2


async def test_for_one_that_comes_again_room_is_made_in_the_process_that_has_it(embedded):
    async with two_processes(embedded.address, max_connections=2) as two, AsyncExitStack() as stack:
        # Both places are had in the second process, and idle.
        idle = [await stack.enter_async_context(HttpClient(two.addresses[1])) for _ in range(2)]
        for client in idle:
            assert (await client.ask(OPTIONS)).status == 204
        async with HttpClient(two.addresses[0]) as refused:
            assert (await refused.response()).kind() == "too-many-connections"
        assert await idle[0].rest() == b""
        async with HttpClient(two.addresses[0]) as again:
            assert (await again.ask(OPTIONS)).status == 204
        assert (await idle[1].ask(OPTIONS)).status == 204


async def test_connections_of_an_address(embedded):
    async with two_processes(embedded.address, max_connections_per_address=3) as two, AsyncExitStack() as stack:
        clients = await clients_of(stack, two, 3)
        for client in clients:
            assert (await client.ask(OPTIONS)).status == 204
        for further in await clients_of(stack, two, 2):
            assert (await further.response()).kind() == "too-many-connections-per-address"
        await clients[1].close()
        await eventually(lambda: two.shared.read()["connections"] == 2)
        [successor] = await clients_of(stack, two, 1)
        assert (await successor.ask(OPTIONS)).status == 204


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"max_jobs": 3}, "too-many-jobs"),
        ({"max_function_jobs": (FunctionBound("f", 3),)}, "too-many-function-jobs"),
        ({"max_function_jobs": (FunctionBound("*", 3),)}, "too-many-function-jobs"),
    ],
    ids=["all", "one function's", "each function's"],
)
async def test_jobs(embedded, settings, kind):
    async with (
        two_processes(embedded.address, **settings) as two,
        hand_worker(embedded.address, b"f") as worker,
        AsyncExitStack() as stack,
    ):
        clients = await clients_of(stack, two, 3)
        for client in clients:
            client.send(post(b"/f", b"w"))
        handles = [(await worker.take())[0] for _ in clients]
        for further in await clients_of(stack, two, 2):
            assert (await further.ask(post(b"/f", b"w"))).kind() == kind
        assert two.shared.read()["jobs"] == 3
        worker.complete(handles[0], b"done")
        await eventually(lambda: two.shared.read()["jobs"] == 2)
        # Whoever comes to either of them may have the place.
        other = (await clients_of(stack, two, 2))[1]
        other.send(post(b"/f", b"w"))
        handle, _, _, _ = await worker.take()
        for each in (*handles[1:], handle):
            worker.complete(each, b"done")
        assert (await other.response()).body == b"done"
        await eventually(lambda: two.shared.read()["jobs"] == 0)


async def test_bytes_held_are_never_more_than_the_bound_and_all_come_back(embedded):
    max_held_bytes = 16 * MEBIBYTE
    bounds = {"small_bytes": max_held_bytes // 8, "bodies_bytes": max_held_bytes * 3 // 8}
    settings = {"max_held_bytes": max_held_bytes, "max_body_bytes": 2 * MEBIBYTE, "max_result_bytes": 4 * MEBIBYTE}
    chance = random.Random(7)
    async with two_processes(embedded.address, **settings) as two:
        async with AsyncExitStack() as stack:
            clients = await clients_of(stack, two, 40)
            for client in clients:
                client.send(head(b"POST", b"/f", b"Content-Length: 1000000"))
            most = 0
            for _ in range(60):
                for client in chance.sample(clients, 10):
                    client.send(bytes(chance.randrange(1, 60_000)))
                await asyncio.sleep(0)
                taken = two.shared.read()
                for name, bound in bounds.items():
                    assert two.count(f"budget.{name}") <= taken[name] <= bound
                most = max(most, taken["bodies_bytes"])
            await eventually(lambda: two.count("http.arrivals_ended") > 0)
            # It was full, and not only for one of them.
            assert most > bounds["bodies_bytes"] * 3 // 4
            assert all(process.counters()["budget.bodies_bytes"] > 0 for process in two.processes)
        await eventually(lambda: two.count("http.connections") == 0)
        assert two.count("budget.held_bytes") == 0
        # What each was granted and does not use is two portions at most.
        for name, bound in bounds.items():
            assert two.shared.read()[name] <= 2 * 2 * (bound // 64)
        assert [two.shared.give_back(place) for place in range(2)] == [0, 0]
        assert set(two.shared.read().values()) == {0}


async def test_a_lowered_bound_leaves_nobody_a_portion_of_the_old_one(embedded):
    async with two_processes(embedded.address) as two, AsyncExitStack() as stack:
        for client in await clients_of(stack, two, 2):
            client.send(head(b"POST", b"/f", b"Content-Length: 1000000"), bytes(100_000))
        await eventually(lambda: all(each.counters()["budget.bodies_bytes"] >= 100_000 for each in two.processes))
        assert two.shared.read()["bodies_bytes"] > two.count("budget.bodies_bytes")
        lowered = msgspec.structs.replace(two.processes[0].settings, max_held_bytes=MEBIBYTE // 4)
        for process in two.processes:
            await process.reconfigure(lowered)
        # More than the bound is held, and nothing else is granted.
        assert two.shared.read()["bodies_bytes"] == two.count("budget.bodies_bytes") > lowered.max_held_bytes * 3 // 8


async def test_a_level_that_others_have_made_ends_the_slow_here_as_well(embedded):
    settings = {"max_held_bytes": 16 * MEBIBYTE, "max_body_bytes": 2 * MEBIBYTE, "max_result_bytes": 4 * MEBIBYTE}
    async with two_processes(embedded.address, **settings) as two, AsyncExitStack() as stack:
        slow = await stack.enter_async_context(HttpClient(two.addresses[0]))
        slow.send(head(b"POST", b"/f", b"Content-Length: 2000000"), bytes(100_000))
        await eventually(lambda: two.processes[0].counters()["budget.bodies_bytes"] > 65_536)
        for _ in range(5):
            other = await stack.enter_async_context(HttpClient(two.addresses[1]))
            other.send(head(b"POST", b"/f", b"Content-Length: 1000000"), bytes(990_000))
        # After its first two seconds it is behind the pace that a crowded account wants.
        assert (await slow.response()).kind() == "too-many-bytes"
        assert two.processes[0].counters()["http.arrivals_ended"] == 1
