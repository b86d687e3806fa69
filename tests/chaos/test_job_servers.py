"""Job servers that die, freeze, fill up and come back under load: every request is accounted for in the end.

CHAOS=1 (`make chaos`) runs the same at full length.
"""

from __future__ import annotations

import asyncio
import gc
import math
import operator
import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from gatewayx.address import ServerAddress
from gatewayx.config.kinds import FunctionServer
from gatewayx.gearman.admin import AdminConnection
from support.account import FUNCTION, Account, Gearmands, KeptWorker, Load, Outcome
from support.fence import upstream_has_read
from support.gateway import RunningGateway, ServeProcess, eventually, running_gateway
from support.http import HttpClient, post
from support.peer import Peer, ask_text
from support.process_state import anonymous_bytes, open_descriptors
from support.times import WAIT_S
from support.tools import without_sanitizer

pytestmark = pytest.mark.anyio

LONG = os.environ.get("CHAOS") == "1"

CHECK_INTERVAL_S = 0.3
# A worker process's memory after a churn beyond that when it had its room: what it knows of background jobs, of which
# there are some in each round, and not a buffer for each lost job server.
MAX_GROWTH_BYTES = (1024 if LONG else 384) * 1024
# A worker process has its connections to the others later than it listens; one for each kill would be seen.
MORE_DESCRIPTORS = 12


def every_third(number: int) -> bool:
    """Every third request is for a background job."""
    return number % 3 == 2


class Scene:
    """Some gearmands, a worker for each, a gateway in front of them, and the account of what happens.

    gateway: None if it is a process of its own.
    """

    def __init__(
        self, gearmands: Gearmands, account: Account, address: tuple[str, int], gateway: RunningGateway | None
    ) -> None:
        self.gearmands = gearmands
        self.account = account
        self.address = address
        self.gateway = gateway

    def load(self, clients: int, **options: object) -> Load:
        """A load on the gateway."""
        return Load(self.address, self.account, clients, **options)

    async def churn(self, rounds: int) -> AsyncIterator[int]:
        """Kill and restart each of three job servers under load, `rounds` times; yields the number of each round."""
        random.seed(5)
        for number in range(rounds):
            async with self.load(16 if LONG else 8, background=every_third, headers=some_uniques):
                for victim in random.sample(range(3), 3):
                    await self.answers(5)
                    self.gearmands.kill(victim)
                    await self.gearmands.start(victim)
            yield number
            if LONG:
                # The account itself grows with every request.
                self.account.check()
                self.account.forget()
        assert self.gearmands.kills == 3 * rounds

    async def answers(self, count: int) -> None:
        """Return once so many more requests were told 200."""
        wanted = self.good + count
        await eventually(lambda: self.good >= wanted)

    @property
    def good(self) -> int:
        """Requests that were told 200."""
        return sum(outcome.status == 200 for outcome in self.account.told.values())

    async def connected(self) -> None:
        """Return once every connection is up, those for text commands too, which no counter tells."""
        servers = len(self.gearmands.ports)
        await eventually(lambda: self.gateway.count("pool.connections") == 2 * servers)
        await eventually(lambda: sum(type(held) is AdminConnection and held.up for held in gc.get_objects()) == servers)

    async def settled(self) -> None:
        """Return once no job is under way; fails if the account is not true."""
        await self.gateway.let_go()
        await asyncio.sleep(0.3)
        self.account.check()


@asynccontextmanager
async def scene(
    directory: Path, count: int, *, workers: bool = True, before_end_s: float = 0.0, **settings: object
) -> AsyncIterator[Scene]:
    """The scene, whose account is checked in the end."""
    account = Account()
    options = {"status_interval_s": 0.2} | settings
    with Gearmands(directory, count) as gearmands:
        async with AsyncExitStack() as stack:
            for address in gearmands.addresses if workers else ():
                worker = await stack.enter_async_context(KeptWorker(address, account, before_end_s=before_end_s))
                await worker.registered.wait()
            gateway = await stack.enter_async_context(running_gateway(gearmands.addresses, **options))
            made = Scene(gearmands, account, gateway.address, gateway)
            yield made
            await made.settled()


@asynccontextmanager
async def served_scene(directory: Path, count: int, *arguments: str) -> AsyncIterator[tuple[Scene, ServeProcess]]:
    """The scene with the gateway as processes of its own; its account is checked in the end."""
    account = Account()
    with Gearmands(directory, count) as gearmands:
        async with AsyncExitStack() as stack:
            for address in gearmands.addresses:
                worker = await stack.enter_async_context(KeptWorker(address, account))
                await worker.registered.wait()
            servers = [argument for host, port in gearmands.addresses for argument in ("--server", f"{host}:{port}")]
            process = ServeProcess("--listen", "127.0.0.1:0", *servers, *arguments, environment=without_sanitizer())
            await stack.enter_async_context(process)
            made = Scene(gearmands, account, await process.address(), None)
            # Its log is read all the time, or it could not write any more.
            ended = asyncio.create_task(process.ended())
            yield made, process
            process.signal(signal.SIGTERM)
            assert await ended == 0
            account.check()


class TestKilled:
    async def test_one_of_three_and_started_again(self, tmp_path):
        async with scene(tmp_path, 3) as stage:
            async with stage.load(32, background=every_third):
                await stage.answers(200)
                stage.gearmands.kill(0)
                await stage.answers(500)
                await stage.gearmands.start(0)
                await stage.connected()
                await stage.answers(500)
            failures = stage.account.failures()
            assert {outcome.status for outcome in failures.values()} <= {502}
            assert len(failures) <= 32

    async def test_all_three_and_started_again(self, tmp_path):
        async with scene(tmp_path, 3) as stage, stage.load(16, background=every_third):
            await stage.answers(100)
            for number in range(3):
                stage.gearmands.kill(number)
            await eventually(lambda: {503} <= {told.status for told in stage.account.failures().values()})
            for number in range(3):
                await stage.gearmands.start(number)
            await stage.connected()
            await stage.answers(300)

    async def test_one_after_the_other(self, tmp_path):
        async with scene(tmp_path, 3) as stage:
            async with stage.load(32, background=every_third):
                for number in (0, 1, 2, 0, 1, 2) if LONG else (0, 1, 2):
                    stage.gearmands.kill(number)
                    await stage.answers(200)
                    await stage.gearmands.start(number)
                    await stage.connected()
            assert {outcome.status for outcome in stage.account.failures().values()} <= {502}

    async def test_one_of_two_under_64_connections_costs_its_jobs_in_flight_and_no_more(self, tmp_path):
        async with scene(tmp_path, 2) as stage:
            account = stage.account
            name = f"127.0.0.1:{stage.gearmands.ports[0]}"

            def share() -> dict[str, int]:
                return stage.gateway.process.pool.servers_now()[name]

            async with stage.load(64):
                await stage.answers(1000)
                in_flight = share()["outstanding_jobs"]
                stage.gearmands.kill(0)
                # What was written since, until the gateway is told, is in flight there as well.
                await eventually(lambda: not share()["connections"])
                asked = set(account.asked)
                await eventually(lambda: asked <= set(account.told))
                failures = account.failures()
                assert len(failures) <= 64
                assert in_flight <= 64
                await stage.answers(200)
                await stage.gearmands.start(0)
                # The waits between attempts are 10 s at most.
                await eventually(lambda: share()["outstanding_jobs"] >= 16, 2 * WAIT_S)
                await stage.answers(1000)
            assert account.failures() == failures


class TestFrozen:
    async def test_one_of_three_and_thawed(self, tmp_path):
        # No job's timeout tells of it.
        settings = {"job_timeout_s": 3600.0, "server_check_interval_s": CHECK_INTERVAL_S}
        async with scene(tmp_path, 3, **settings) as stage, stage.load(32, background=every_third):
            await stage.answers(200)
            stage.gearmands.running[1].pause()
            name = f"127.0.0.1:{stage.gearmands.ports[1]}"
            pool = stage.gateway.process.pool
            await eventually(lambda: pool.servers_now()[name]["connections"] == 0)
            await stage.answers(500)
            assert pool.servers_now()[name]["outstanding_jobs"] == 0
            stage.gearmands.running[1].resume()
            await stage.connected()
            await stage.answers(300)


class TestRestarted:
    async def test_a_cancellation_never_hits_a_job_of_the_next_life(self, tmp_path):
        async with scene(tmp_path, 1, before_end_s=0.15) as stage:
            random.seed(4)
            for _ in range(10 if LONG else 4):
                async with stage.load(8):
                    await stage.answers(20)
                    leaving = []
                    for _ in range(40):
                        client = await HttpClient(stage.gateway.address).connect()
                        workload = stage.account.workload()
                        stage.account.abandoned.add(workload)
                        client.send(post(b"/" + FUNCTION, workload))
                        leaving.append(client)
                    # Handles begin at 1 again, and clients leave while that happens.
                    for number, client in enumerate(leaving):
                        if number == 20:
                            stage.gearmands.kill(0)
                            await stage.gearmands.start(0)
                        client.reset()
                        await asyncio.sleep(random.uniform(0, 0.005))
                    await stage.connected()
                    await stage.answers(20)
            assert stage.gateway.count("pool.cancels_requested") > 0
            # A cancelled job would have been told 500.
            assert {outcome.status for outcome in stage.account.failures().values()} <= {502, 503}


class TestFull:
    async def test_queues_that_are_full(self, tmp_path):
        async with scene(tmp_path, 3, before_end_s=0.05) as stage:
            for number, most in enumerate((1, 2, 3)):
                await ask_text(stage.gearmands.addresses[number], b"maxqueue %b %d" % (FUNCTION, most))
            async with stage.load(64, background=every_third):
                await stage.answers(300 if LONG else 100)
            told = stage.account.check()
            assert told[503, "job-refused"] > 0
            assert set(told) <= {(200, ""), (503, "job-refused")}
            assert stage.gateway.count("pool.moved_jobs") > 0


class TestAbandoned:
    async def test_clients_that_hang_up_in_the_middle_and_a_worker_that_comes_later(self, tmp_path):
        count, wave = (10_000, 250) if LONG else (1_000, 250)
        async with scene(tmp_path, 2, workers=False) as stage:
            # Both job servers know the function, or they would not cancel.
            for address in stage.gearmands.addresses:
                async with Peer(address) as peer:
                    await peer.can_do(FUNCTION)
            abandoned = []
            for _ in range(count // wave):
                clients = [await HttpClient(stage.gateway.address).connect() for _ in range(wave)]
                for number, client in enumerate(clients):
                    abandoned.append(stage.account.workload())
                    request = post(b"/" + FUNCTION, abandoned[-1])
                    # Some leave in the middle of their request.
                    client.send(request[: len(request) - 1] if number % 10 == 0 else request)
                    if number % 2:
                        await asyncio.sleep(0)
                await stage.gateway.reaches("pool.outstanding_jobs", math.ceil(0.85 * wave))
                for number, client in enumerate(clients):
                    if number % 3:
                        client.reset()
                    else:
                        await client.close()
                await eventually(lambda: stage.gateway.count("pool.outstanding_jobs") == 0)
            stage.account.abandoned |= set(abandoned)
            await stage.gateway.let_go()
            await eventually(lambda: stage.gateway.count("pool.abandoned_jobs") == 0)
            assert stage.gateway.count("pool.cancels_requested") >= count * 0.85
            async with AsyncExitStack() as stack:
                for address in stage.gearmands.addresses:
                    worker = await stack.enter_async_context(KeptWorker(address, stage.account))
                    await worker.registered.wait()
                async with stage.load(8):
                    await stage.answers(200)
            assert not set(stage.account.begun) & stage.account.abandoned


class TestWorkersThatDie:
    async def test_the_job_server_queues_their_jobs_again_and_each_request_has_one_answer(self, tmp_path):
        account = Account()
        with Gearmands(tmp_path, 1) as gearmands:
            [address] = gearmands.addresses
            async with (
                KeptWorker(address, account, before_end_s=0.03) as mortal,
                KeptWorker(address, account, before_end_s=0.01) as other,
                running_gateway([address]) as gateway,
            ):
                await mortal.registered.wait()
                await other.registered.wait()
                async with Load(gateway.address, account, 32):
                    for _ in range(20 if LONG else 5):
                        await eventually(lambda: len(mortal.in_hand) >= 4)
                        await mortal.die()
                await gateway.let_go()
            assert account.orphaned
            told = account.check()
            assert set(told) == {(200, "")}
            assert all(account.begun[workload] == 1 + times for workload, times in account.orphaned.items())


class TestTwoGateways:
    async def test_with_the_same_uniques_share_each_job(self, tmp_path):
        account, may_end = Account(), asyncio.Event()
        with Gearmands(tmp_path, 2) as gearmands:
            fences = tuple(
                FunctionServer(f"{number}-fence", ServerAddress(*address))
                for number, address in enumerate(gearmands.addresses)
            )
            async with AsyncExitStack() as stack:
                for address in gearmands.addresses:
                    worker = await stack.enter_async_context(KeptWorker(address, account, may_end=may_end))
                    await worker.registered.wait()
                gateways = [
                    await stack.enter_async_context(
                        running_gateway(addresses, connections_per_server=1, function_server=fences)
                    )
                    for addresses in (gearmands.addresses, gearmands.addresses[::-1])
                ]
                clients = [
                    await stack.enter_async_context(HttpClient(gateway.address)) for gateway in gateways for _ in "12"
                ]
                for _ in range(50 if LONG else 15):
                    workload = account.workload()
                    unique = b"X-Gearman-Unique: %b" % workload
                    may_end.clear()
                    for client in clients:
                        client.send(post(b"/" + FUNCTION, workload, unique))
                    for gateway in gateways:
                        await gateway.reaches("pool.outstanding_jobs", 2)
                        for number in b"01":
                            await upstream_has_read(gateway, b"%c" % number)
                    may_end.set()
                    answers = [await client.response() for client in clients]
                    assert {(answer.status, answer.body) for answer in answers} == {(200, workload[::-1])}
                    account.answered(workload, answers[0])
                assert account.check() == {(200, ""): len(account.asked)}


class TestChurn:
    async def test_kills_and_restarts_in_fast_motion_leave_nothing_behind(self, tmp_path):
        rounds = 170 if LONG else 4
        async with scene(tmp_path, 3, job_timeout_s=3.0, server_check_interval_s=0.5) as stage:
            descriptors: list[int] = []
            async for number in stage.churn(rounds):
                # Once it has all the room that it ever needs.
                if number < rounds // 3:
                    continue
                await stage.gateway.let_go()
                await stage.connected()
                await eventually(lambda: stage.gateway.count("pool.abandoned_jobs") == 0)
                assert stage.gateway.count("pool.pins") == 0
                gc.collect()
                descriptors.append(await asyncio.to_thread(open_descriptors, os.getpid()))
            assert max(descriptors) <= descriptors[0] + 2

    async def test_kills_and_restarts_in_fast_motion_do_not_make_the_process_grow(self, tmp_path):
        rounds = 170 if LONG else 6
        settings = ("--job-timeout", "3", "--server-check-interval", "0.5", "--status-interval", "0.2")
        async with served_scene(tmp_path, 3, *settings) as (stage, served):
            workers = served.workers()
            most_descriptors = [open_descriptors(process_id) + MORE_DESCRIPTORS for process_id in workers]
            sizes_bytes: list[list[int]] = []
            async for number in stage.churn(rounds):
                assert served.workers() == workers
                await eventually(lambda: all(map(operator.le, map(open_descriptors, workers), most_descriptors)))
                # Once they have all the room that they ever need.
                if number >= rounds // 3:
                    sizes_bytes.append([anonymous_bytes(process_id) for process_id in workers])
            grown_bytes = [last - first for first, last in zip(sizes_bytes[0], sizes_bytes[-1], strict=True)]
            assert max(grown_bytes) < MAX_GROWTH_BYTES


def some_uniques(workload: bytes) -> tuple[bytes, ...]:
    """A unique of its own for every fourth request."""
    return (b"X-Gearman-Unique: %b" % workload,) if workload[-1] % 4 == 0 else ()


class TestAccount:
    """The account is only worth something if it notices what is not true."""

    @pytest.mark.parametrize(
        ("told", "background", "begun", "fault"),
        [
            (Outcome(503, "not-submitted", b""), False, 1, "told that it was not submitted"),
            (Outcome(200, "", b"wrong"), False, 1, "wrong"),
            (Outcome(200, "", b"00000000"), False, 0, "never ran"),
            (Outcome(200, "", b"00000000"), False, 2, "ran 2 times"),
            (Outcome(502, "outcome-unknown", b""), True, 2, "ran 2 times"),
            (Outcome(500, "job-failed", b""), False, 1, "job-failed"),
            (None, False, 0, "assert"),
        ],
    )
    def test_what_is_not_true_is_noticed(self, told, background, begun, fault):
        account = Account()
        workload = account.workload(background)
        if told is not None:
            account.told[workload] = told
        account.begun[workload] = begun
        if not begun:
            del account.begun[workload]
        with pytest.raises(AssertionError, match=fault):
            account.check()
