"""The relay when clients hang up, read slowly, send much, are many; when it is full; and when the gateway stops."""

from __future__ import annotations

import array
import asyncio
import fcntl
import itertools
import os
import signal
import termios
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from gatewayx.embedded.worker import AssignedJob, Worker
from support.gateway import eventually
from support.gearmand import Gearmand
from support.http import HttpClient, head, post
from support.job_servers import hand_worker
from support.relaying import Relaying, relaying, unique_line
from support.shared_memory import Sampler
from support.times import PROCESS_S
from support.tools import without_sanitizer

pytestmark = pytest.mark.anyio

MEBIBYTE = 1 << 20
# Of so many uniques each of two processes owns some: all belong to one in one of 10^9 runs.
ENOUGH = 32
COUNTED = itertools.count()
# As many as come with one read.
SMALL_CHUNKS = 10_000


def new_unique() -> bytes:
    """One that nobody has."""
    return b"strain-%d" % next(COUNTED)


async def send_relayed(gateway: Relaying, client: HttpClient, function: bytes, *lines: bytes) -> bytes:
    """Send requests until one is relayed, whose unique is returned; those that are not hang up.

    No worker takes any of them meanwhile.
    """
    for _ in range(ENOUGH):
        unique = new_unique()
        before = gateway.relayed()
        jobs = gateway.memory.taken()["jobs"]
        client.send(post(b"/" + function, b"w", unique_line(unique), *lines))
        await gateway.jobs_left(jobs + 1)
        if gateway.relayed() > before:
            return unique
        client.reset()
        await gateway.jobs_left(jobs)
        await client.connect()
    raise AssertionError("the client's own process owns all of the uniques")


@pytest.fixture
def session_gearmand(tmp_path: Path) -> Iterator[Gearmand]:
    """One that no other test has."""
    with Gearmand(tmp_path) as gearmand:
        yield gearmand


class TestHangUp:
    @pytest.mark.parametrize(
        ("reset", "half_closed"),
        [(False, "hang-up"), (True, "hang-up"), (True, "answer")],
        ids=["close", "reset", "reset, half-closed clients are answered"],
    )
    async def test_is_one_at_the_owner_too(self, address, reset, half_closed):
        async with relaying([address], "--half-closed", half_closed) as gateway:
            client = await HttpClient(gateway.address).connect()
            unique = await send_relayed(gateway, client, b"f")
            if reset:
                client.reset()
            else:
                await client.close()
            # Its job counts for nobody. It is not cancelled, since others may wait for its unique (docs/delivery.md).
            await gateway.jobs_left(0)
            assert gateway.memory.counters()["cancels_requested"] == 0
            async with hand_worker(address, b"f") as worker, HttpClient(gateway.address) as again:
                again.send(post(b"/f", b"again", unique_line(unique)))
                await gateway.jobs_left(1)
                # Until it has run it is still the job of that unique.
                while True:
                    handle, _, found, workload = await worker.take()
                    worker.send_data(handle, b"the whole ")
                    worker.complete(handle, b"result")
                    if found == unique:
                        break
                assert workload == b"w"
                answer = await again.response()
                assert answer.body == b"the whole result", answer.body
                await worker.no_job()

    async def test_counts_once(self, address):
        async with relaying([address]) as gateway:
            client = await HttpClient(gateway.address).connect()
            await send_relayed(gateway, client, b"f")
            before = gateway.memory.counters()["requests_abandoned"]
            client.reset()
            await gateway.jobs_left(0)
            assert gateway.memory.counters()["requests_abandoned"] == before + 1

    async def test_of_one_leaves_the_others_theirs(self, address, function):
        async with (
            relaying([address]) as gateway,
            hand_worker(address, function) as worker,
            AsyncExitStack() as stack,
        ):
            clients = await gateway.clients(stack)
            markers = await gateway.clients(stack)
            for unique, goes in itertools.product([new_unique() for _ in range(8)], range(2)):
                async with HttpClient(gateway.address) as stays:
                    leaving = clients[goes]
                    for client in (leaving, stays):
                        client.send(post(b"/" + function, b"w", unique_line(unique)))
                    handle, _, _, _ = await worker.take()
                    await gateway.jobs_left(2)
                    await gateway.submitted(markers, address)
                    leaving.reset()
                    await gateway.jobs_left(1)
                    worker.complete(handle, b"for who stayed")
                    assert (await stays.response()).body == b"for who stayed"
                    await gateway.jobs_left(0)
                clients[goes] = leaving = await stack.enter_async_context(HttpClient(gateway.address))

    async def test_of_a_thousand_leaves_nothing(self, address, function):
        async with relaying([address], "--max-relayed", "2000", environment=without_sanitizer()) as gateway:
            await self._round(gateway, function, 100)
            # Once it has had so many, only what is kept on purpose stays.
            await self._round(gateway, function, 1000)
            files, memory = gateway.open_files(), gateway.memory_bytes()
            before = gateway.memory.counters()
            for _ in range(2):
                await self._round(gateway, function, 1000)
            after = gateway.memory.counters()
            assert after["requests_relayed"] - before["requests_relayed"] > 500
            await eventually(lambda: max(gateway.open_files()) <= max(files) + 5)
            # 2,000 requests that each left a kilobyte would show.
            assert max(gateway.memory_bytes()) <= max(memory) + MEBIBYTE
            other = function + b"other"
            async with hand_worker(address, other) as worker, HttpClient(gateway.address) as client:
                for _ in range(ENOUGH):
                    client.send(post(b"/" + other, b"w", unique_line(new_unique())))
                    handle, _, _, _ = await worker.take()
                    worker.complete(handle, b"done")
                    assert (await client.response()).body == b"done"

    async def _round(self, gateway: Relaying, function: bytes, count: int) -> None:
        clients = [HttpClient(gateway.address) for _ in range(count)]
        for client in clients:
            await client.connect()
            client.send(post(b"/" + function, bytes(100), unique_line(new_unique())))
        await gateway.jobs_left(count)
        for client in clients:
            client.reset()
        await gateway.nothing_taken()


class TestAnOwnerThatHasEnded:
    async def test_is_told_as_one_that_was_given_nothing(self, embedded):
        async with (
            relaying([embedded.address]) as gateway,
            AsyncExitStack() as stack,
        ):
            [client, _] = await gateway.clients(stack)
            [first, owner] = gateway.first_workers
            worker = Worker(embedded.address, {b"f": done})
            await worker.start()
            for unique in (new_unique() for _ in range(ENOUGH)):
                relayed, _ = await gateway.asked(client, post(b"/f", b"w", unique_line(unique)))
                if relayed:
                    break
            # The first process reads the request before it can know that nobody is at the other end of its connection.
            os.kill(first, signal.SIGSTOP)
            try:
                client.send(post(b"/f", b"w", unique_line(unique)))
                await eventually(lambda: not unread(client))
                submitted = embedded.submitted
                os.kill(owner, signal.SIGKILL)
                await eventually(lambda: not Path(f"/proc/{owner}").exists())
            finally:
                os.kill(first, signal.SIGCONT)
            answer = await client.response()
            if answer.status == 200:
                # Whoever has taken its place was there before the first process had asked, and alone was given the job.
                assert embedded.submitted == submitted + 1
            else:
                assert (answer.status, answer.kind()) == (503, "owner-away")
                assert embedded.submitted == submitted
            await worker.close()


async def done(job: AssignedJob) -> bytes:
    """What is asked for, at once."""
    return job.workload


def unread(client: HttpClient) -> int:
    """Of what the client has sent, the bytes that the other kernel has not confirmed (tcp(7), SIOCOUTQ)."""
    count = array.array("i", [0])
    fcntl.ioctl(client.writer.get_extra_info("socket").fileno(), termios.TIOCOUTQ, count)
    return count[0] + client.writer.transport.get_write_buffer_size()


class TestFull:
    async def test_further_ones_are_503_and_the_bound_changes_in_place(self, embedded, tmp_path):
        config = tmp_path / "gatewayx.toml"
        config.write_text("max-relayed = 2\n")
        # Those that are relayed stay so.
        arguments = ("--config", str(config), "--job-timeout", "600")
        async with relaying([embedded.address], *arguments) as gateway, AsyncExitStack() as stack:

            async def send_in_turn(client: HttpClient) -> bytes:
                """The kind of the problem that the first request which is relayed, or would be, gets; "" for none."""
                for _ in range(ENOUGH):
                    relayed, jobs = gateway.relayed(), gateway.memory.taken()["jobs"]
                    client.send(post(b"/f", b"w", unique_line(new_unique())))
                    answer = asyncio.ensure_future(client.response())
                    await eventually(lambda a=answer, n=jobs: a.done() or gateway.memory.taken()["jobs"] > n)
                    if answer.done():
                        return answer.result().kind()
                    answer.cancel()
                    if gateway.relayed() > relayed:
                        return ""
                    client.reset()
                    await gateway.jobs_left(jobs)
                    client = await client_at(0)
                raise AssertionError("the client's own process owns all of the uniques")

            async def client_at(place: int) -> HttpClient:
                return (await gateway.clients(stack))[place]

            assert [await send_in_turn(await client_at(0)) for _ in range(4)] == ["", "", "relay-full", "relay-full"]
            # Not those of the other process, whose bound is its own.
            async with hand_worker(embedded.address, b"g") as worker:
                client = await client_at(0)
                client.send(post(b"/g", b"without a unique"))
                handle, _, _, _ = await worker.take()
                worker.complete(handle, b"done")
                assert (await client.response()).body == b"done"
            for bound, kinds in ((4, ["", "", "relay-full"]), (1, ["relay-full"])):
                config.write_text(f"max-relayed = {bound}\n")
                gateway.served.signal(signal.SIGHUP)
                await gateway.served.until("all worker processes have the settings")
                assert [await send_in_turn(await client_at(0)) for _ in kinds] == kinds


def reversed_workload(job: AssignedJob) -> bytes:
    """What a worker makes of it."""
    return job.workload[::-1]


def large_result(job: AssignedJob) -> bytes:
    """So many bytes as the workload says, which differ from place to place."""
    size = int(job.workload)
    return (b"0123456789abcdef!" * (size // 17 + 1))[:size]


@asynccontextmanager
async def running(address: tuple[str, int]) -> AsyncIterator[Worker]:
    """A worker for both."""
    worker = Worker(address, {b"reversed": reversed_workload, b"large": large_result})
    await worker.start()
    try:
        yield worker
    finally:
        await worker.close()


class TestBytes:
    async def test_large_bodies_and_results_are_whole_and_within_the_bound(self, embedded):
        body = bytes(range(256)) * (8 * MEBIBYTE // 256)
        result_bytes = 64 * MEBIBYTE
        bound = 512 * MEBIBYTE
        async with (
            running(embedded.address),
            # The job server is in this process, which has much else to do.
            relaying([embedded.address], "--max-held", "512MiB", "--server-check-interval", "60") as gateway,
            AsyncExitStack() as stack,
        ):
            clients = await gateway.clients(stack)
            with Sampler(gateway.memory) as sampler:
                relayed = 0
                for client in clients * (ENOUGH // 2):
                    was_relayed, answer = await gateway.asked(
                        client, post(b"/reversed", body, unique_line(new_unique()))
                    )
                    assert (answer.status, answer.body == body[::-1]) == (200, True)
                    relayed += was_relayed
                for client in clients * 4:
                    request = post(b"/large", b"%d" % result_bytes, unique_line(new_unique()))
                    was_relayed, answer = await gateway.asked(client, request)
                    assert (answer.status, len(answer.body)) == (200, result_bytes)
                    assert answer.body.endswith(large_end(result_bytes))
                    relayed += was_relayed
                assert relayed > 0
                await eventually(lambda: sampler.looks > 0)
            most = sampler.most
            assert 0 < most["bodies_bytes"] <= bound * 3 // 8
            assert result_bytes < most["results_bytes"] <= bound // 2
            await gateway.jobs_left(0)


def large_end(size: int) -> bytes:
    """The last of large_result."""
    return (b"0123456789abcdef!" * 2)[size % 17 :][:17]


class TestSmallChunks:
    async def test_take_no_more_memory_than_their_bytes_while_the_owner_takes_none(self, embedded):
        async with relaying([embedded.address], environment=without_sanitizer()) as gateway, AsyncExitStack() as stack:
            client = await stack.enter_async_context(HttpClient(gateway.address))
            unique = await send_relayed(gateway, client, b"f")
            first = gateway.place_of(client)
            client.reset()
            await gateway.jobs_left(0)
            clients = [await stack.enter_async_context(HttpClient(gateway.address)) for _ in range(60)]
            await eventually(lambda: all(gateway.place_of(each) is not None for each in clients), PROCESS_S)
            clients = [each for each in clients if gateway.place_of(each) == first]
            owner = gateway.first_workers[1 - first]
            os.kill(owner, signal.SIGSTOP)
            try:
                before_bytes = gateway.memory_bytes()[first]
                relayed = gateway.relayed()
                for each in clients:
                    each.send(head(b"POST", b"/f", unique_line(unique), b"Transfer-Encoding: chunked"))
                    each.send(b"1\r\nx\r\n" * SMALL_CHUNKS)
                await eventually(lambda: gateway.relayed() - relayed == len(clients), PROCESS_S)
                await eventually(lambda: not any(unread(each) for each in clients), PROCESS_S)
                # Each of the bytes as an object of its own would take 30 times as much.
                assert gateway.memory_bytes()[first] - before_bytes < len(clients) * 8 * SMALL_CHUNKS
            finally:
                os.kill(owner, signal.SIGCONT)


class TestSlowReader:
    async def test_has_the_whole_result_and_keeps_nobody_waiting(self, embedded):
        size = 3 * MEBIBYTE // 2
        async with (
            running(embedded.address) as worker,
            relaying([embedded.address]) as gateway,
            AsyncExitStack() as stack,
        ):
            slow = []
            before = gateway.relayed()
            for _ in range(ENOUGH):
                client = HttpClient(gateway.address, receive_buffer_bytes=4096)
                slow.append(await stack.enter_async_context(client))
                # asyncio reads on by itself.
                client.writer.transport.pause_reading()
                client.send(post(b"/large", b"%d" % size, unique_line(new_unique())))
            await eventually(lambda: worker.finished == len(slow))
            assert gateway.relayed() > before
            # Their owners are done with them.
            await gateway.jobs_left(0)
            for client in await gateway.clients(stack):
                for _ in range(8):
                    answer = await client.ask(post(b"/reversed", b"abc", unique_line(new_unique())))
                    assert (answer.status, answer.body) == (200, b"cba")
            for client in slow:
                client.writer.transport.resume_reading()
                answer = await client.response()
                assert (answer.status, len(answer.body)) == (200, size)
                assert answer.body.endswith(large_end(size))


class TestStop:
    @pytest.mark.parametrize("workers", [2, 4])
    async def test_requests_under_way_are_answered_and_idle_connections_do_not_delay_it(self, address, workers):
        async with (
            relaying([address], "--drain-timeout", "3600", workers=workers) as gateway,
            hand_worker(address, b"f") as worker,
            AsyncExitStack() as stack,
        ):
            clients = await gateway.clients(stack)
            # So each process has connections to the others that are idle.
            relayed = 0
            for client in clients * ENOUGH:
                client.send(post(b"/f", b"before", unique_line(new_unique())))
                handle, _, _, _ = await worker.take()
                worker.complete(handle)
                assert (await client.response()).status == 200
            relayed = gateway.relayed()
            assert relayed > 0
            clients += [await stack.enter_async_context(HttpClient(gateway.address)) for _ in range(ENOUGH)]
            for client in clients:
                client.send(post(b"/f", b"under way", unique_line(new_unique())))
            await gateway.jobs_left(len(clients))
            assert gateway.relayed() > relayed
            gateway.served.signal(signal.SIGTERM)
            await gateway.served.until("stopping")
            handles = [(await worker.take())[0] for _ in clients]
            for handle in handles:
                worker.complete(handle, b"the whole")
            for client in clients:
                answer = await client.response()
                assert (answer.status, answer.body) == (200, b"the whole")
                assert answer.headers[b"connection"] == b"close"
                await client.close()
            assert await gateway.served.ended() == 0

    async def test_with_nothing_but_idle_connections_it_is_over_at_once(self, embedded):
        async with (
            running(embedded.address),
            AsyncExitStack() as stack,
            relaying([embedded.address], "--drain-timeout", "3600") as gateway,
        ):
            for client in await gateway.clients(stack):
                for _ in range(ENOUGH):
                    answer = await client.ask(post(b"/reversed", b"abc", unique_line(new_unique())))
                    assert answer.body == b"cba"
                await client.close()
            assert gateway.relayed() > 0
            gateway.served.signal(signal.SIGTERM)
            assert await gateway.served.ended() == 0

    async def test_a_request_that_arrives_in_it_is_answered_by_its_owner(self, embedded):
        async with (
            running(embedded.address),
            AsyncExitStack() as stack,
            relaying([embedded.address], "--drain-timeout", "3600") as gateway,
        ):
            requests = [post(b"/reversed", b"abc", unique_line(new_unique())) for _ in range(ENOUGH)]
            clients = [await stack.enter_async_context(HttpClient(gateway.address)) for _ in requests]
            for client, request in zip(clients, requests, strict=True):
                client.send(request[:-1])
            # A process ends with its last client, and owns nothing then: none does before the others are answered.
            last = await gateway.clients(stack)
            for client in last:
                client.send(post(b"/reversed", b"abc")[:-1])
            await eventually(lambda: gateway.memory.taken()["connections"] == len(clients + last))
            gateway.served.signal(signal.SIGTERM)
            await gateway.served.until("stopping")
            relayed = gateway.relayed()
            for client in clients:
                client.send(b"c")
            for client in clients:
                answer = await client.response()
                assert (answer.status, answer.body) == (200, b"cba")
            assert gateway.relayed() > relayed
            for client in last:
                client.send(b"c")
                assert (await client.response()).body == b"cba"
            for client in (*clients, *last):
                await client.close()
            assert await gateway.served.ended() == 0
