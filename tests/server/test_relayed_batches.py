"""Batches in gateways of several worker processes: a line with a unique goes to the owner of that, and comes back."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from gatewayx.embedded.worker import AssignedJob, Worker
from support.batches import BatchClient, Line, batch, by_number, job, read_line
from support.gateway import eventually
from support.http import HttpClient, post
from support.job_servers import hand_worker
from support.relaying import Relaying, relaying, unique_line
from support.times import PROCESS_S

pytestmark = pytest.mark.anyio

# Of so many uniques each of four processes owns some: one owns none in one of 10^7 runs, all belong to one in 10^35.
LINES = 60
LARGE_BYTES = 600_000
Run = Callable[[AssignedJob], bytes | None]
TEXT = b"0123456789abcde\n"
# Neither is UTF-8, nor is any part of it.
DATA = b"\xff\xfe" * 8


def large(assigned: AssignedJob) -> bytes:
    """More than comes at once from another process, of what the workload says."""
    return (TEXT if assigned.workload == b"text" else DATA) * (LARGE_BYTES // 16)


def echo(assigned: AssignedJob) -> bytes:
    """The workload."""
    return assigned.workload


def fail(assigned: AssignedJob) -> None:
    """WORK_FAIL."""
    assigned.fail()


def throw(assigned: AssignedJob) -> None:
    """The workload as WORK_EXCEPTION."""
    assigned.exception(assigned.workload)


@asynccontextmanager
async def running(address: tuple[str, int], functions: dict[bytes, Run]) -> AsyncIterator[None]:
    """A worker that runs these."""
    worker = Worker(address, functions)
    await worker.start()
    yield
    await worker.close()


@pytest.fixture
async def workers(address, function: bytes) -> AsyncIterator[str]:
    """A worker that runs what is named behind the test's function; that name."""
    functions = {b"echo": echo, b"fail": fail, b"throw": throw, b"large": large, b"a/b c?d%e\xc3\xa9": echo}
    async with running(address, {function + b"-" + name: run for name, run in functions.items()}):
        yield function.decode() + "-"


def unique(function: bytes | str, number: int) -> str:
    """One that no other test has."""
    name = function if isinstance(function, str) else function.decode()
    return f"{name[-40:]}-{number}"


async def batch_clients(gateway: Relaying, stack: AsyncExitStack) -> list[BatchClient]:
    """A client for batches at each place, in order."""
    clients: dict[int, BatchClient] = {}
    while len(clients) < gateway.memory.workers:
        client = await stack.enter_async_context(BatchClient(gateway.address))
        await eventually(lambda client=client: gateway.place_of(client) is not None)
        clients.setdefault(gateway.place_of(client), client)
    return [clients[place] for place in sorted(clients)]


class TestAnswers:
    async def test_lines_of_all_owners_come_back(self, address, workers):
        async with relaying([address], workers=4) as gateway, BatchClient(gateway.address) as client:
            lines = [
                job(workers + "echo", f"workload {number}", unique=unique(workers, number), id=number)
                for number in range(LINES)
            ]
            before = gateway.relayed()
            found = by_number(await ran(client, [*lines, job(workers + "echo", "own")]))
            assert 0 < gateway.relayed() - before < LINES
            for number in range(LINES):
                line = found[number + 1]
                assert (line.id, line.status, line.command) == (number, 200, "WORK_COMPLETE")
                assert (line.body, line.unique) == (b"workload %d" % number, unique(workers, number))
                assert line.handle.startswith("H:")
            assert found[LINES + 1].body == b"own"
            await gateway.jobs_left(0)

    async def test_ends_are_told_as_those_of_one_s_own(self, address, workers):
        async with relaying([address], workers=4) as gateway, BatchClient(gateway.address) as client:
            lines = []
            for number in range(LINES):
                own = {"unique": unique(workers, number)}
                lines.append(job(workers + ("fail" if number % 2 else "throw"), f"thrown {number}", **own))
            before = gateway.relayed()
            found = by_number(await ran(client, lines))
            assert 0 < gateway.relayed() - before < LINES
            for number in range(LINES):
                line = found[number + 1]
                assert (line.status, line.unique) == (500, unique(workers, number))
                if number % 2:
                    assert (line.kind(), line.command) == ("job-failed", "WORK_FAIL")
                    assert set(line.problem) == {"type", "title", "status", "detail"}
                else:
                    assert (line.body, line.command) == (b"thrown %d" % number, "WORK_EXCEPTION")

    async def test_refusals_and_timeouts_of_the_owner_are_told(self, address, function):
        async with (
            relaying([address], "--max-jobs", "8", "--max-pipelined", "64", workers=4) as gateway,
            BatchClient(gateway.address) as client,
        ):
            # All have come before the first ones end.
            lines = [job(function, "w", unique=unique(function, number), timeout=6) for number in range(LINES)]
            found = by_number(await ran(client, lines))
            kinds = sorted(line.kind() for line in found.values())
            assert kinds == ["job-timeout"] * 8 + ["too-many-jobs"] * (LINES - 8)
            assert all("within 6 s" in line.problem["detail"] for line in found.values() if line.status == 504)
            await gateway.jobs_left(0)

    async def test_large_results_come_in_pieces_and_whole(self, address, workers):
        async with relaying([address], workers=4) as gateway, BatchClient(gateway.address) as client:
            lines = [
                job(workers + "large", "text" if number % 2 else "data", unique=unique(workers, number))
                for number in range(LINES)
            ]
            before = gateway.relayed()
            found = by_number(await ran(client, lines))
            assert 0 < gateway.relayed() - before < LINES
            for number in range(LINES):
                expected = TEXT if number % 2 else DATA
                assert found[number + 1].body == expected * (LARGE_BYTES // 16)
            await gateway.jobs_left(0)

    async def test_any_function_is_named_to_the_owner(self, address, workers):
        name = workers + "a/b c?d%e\u00e9"
        async with relaying([address], workers=4) as gateway, BatchClient(gateway.address) as client:
            lines = [job(name, f"{number}", unique=unique(workers, number)) for number in range(LINES)]
            found = by_number(await ran(client, lines))
            assert gateway.relayed() > 0
            assert [found[number].body for number in sorted(found)] == [b"%d" % number for number in range(LINES)]

    async def test_those_beyond_what_may_be_relayed_are_503(self, address, function):
        async with (
            relaying([address], "--max-relayed", "1", workers=2) as gateway,
            BatchClient(gateway.address) as client,
        ):
            client.send(batch(*(job(function, "w", unique=unique(function, number)) for number in range(LINES))))
            assert (await client.begin()).status == 200
            # All lines were begun in the turn in which the first ones were refused.
            refused = by_number([read_line(line) for line in (await client.piece()).splitlines(keepends=True)])
            assert {line.kind() for line in refused.values()} == {"relay-full"}
            async with running(address, {function: echo}):
                found = by_number(await client.lines())
            assert {line.body for line in found.values()} == {b"w"}
            assert len(found) + len(refused) == LINES
            assert gateway.relayed() == 1


class TestOneRun:
    async def test_of_batches_and_requests_at_all_places(self, address, function):
        count = 6
        names = [unique(function, number) for number in range(count)]
        async with (
            relaying([address], workers=4) as gateway,
            hand_worker(address, function) as worker,
            AsyncExitStack() as stack,
        ):
            clients = await batch_clients(gateway, stack)
            markers = await gateway.clients(stack)
            single = await stack.enter_async_context(HttpClient(gateway.address))
            for client in clients:
                client.send(batch(*(job(function, "w", unique=name) for name in names)))
            single.send(post(b"/" + function, b"w", unique_line(names[0].encode())))
            await gateway.jobs_left(count * len(clients) + 1)
            await gateway.submitted(markers, address)
            taken = {}
            for _ in range(count):
                handle, _, told, _ = await worker.take()
                taken[told.decode()] = handle
            assert sorted(taken) == sorted(names)
            for name, handle in taken.items():
                worker.complete(handle, name.encode())
            for client in clients:
                found = by_number(await client.answers())
                assert [found[number].body for number in sorted(found)] == [name.encode() for name in names]
            assert (await single.response()).body == names[0].encode()
            await worker.no_job()
            await gateway.jobs_left(0)

    async def test_workloads_are_merged_by_a_dash_wherever_they_are(self, address, function):
        async with (
            relaying([address], workers=4) as gateway,
            hand_worker(address, function) as worker,
            AsyncExitStack() as stack,
        ):
            clients = await batch_clients(gateway, stack)
            markers = await gateway.clients(stack)
            for client in clients:
                client.send(batch(*(job(function, workload, unique="-") for workload in ("a", "b", "c", "a"))))
            await gateway.jobs_left(4 * len(clients))
            await gateway.submitted(markers, address)
            for _ in range(3):
                handle, _, _, workload = await worker.take()
                worker.complete(handle, workload * 2)
            for client in clients:
                found = by_number(await client.answers())
                assert [found[number].body for number in sorted(found)] == [b"aa", b"bb", b"cc", b"aa"]
            await worker.no_job()


class TestEnds:
    async def test_a_client_that_leaves_takes_its_lines_along(self, address, function):
        async with relaying([address], workers=4) as gateway:
            async with BatchClient(gateway.address) as client:
                client.send(batch(*(job(function, "w", unique=unique(function, number)) for number in range(LINES))))
                await gateway.jobs_left(LINES)
            await gateway.nothing_taken()

    async def test_an_owner_that_is_killed_ends_its_lines_alone(self, address, function):
        async with relaying([address], workers=4) as gateway, AsyncExitStack() as stack:
            clients = await batch_clients(gateway, stack)
            clients[0].send(batch(*(job(function, "w", unique=unique(function, number)) for number in range(LINES))))
            await gateway.jobs_left(LINES)
            os.kill(gateway.first_workers[1], signal.SIGKILL)
            # Its share of the jobs in flight is given back once the master has seen it.
            await eventually(lambda: gateway.memory.taken()["jobs"] < LINES, PROCESS_S)
            lost = LINES - gateway.memory.taken()["jobs"]
            async with running(address, {function: echo}):
                found = by_number(await clients[0].answers())
            assert len(found) == LINES
            unknown = [line for line in found.values() if line.status != 200]
            assert {(line.status, line.kind()) for line in unknown} == {(502, "outcome-unknown")}
            assert len(unknown) == lost
            assert {line.body for line in found.values() if line.status == 200} == {b"w"}


async def ran(client: BatchClient, lines: list[bytes]) -> list[Line]:
    """What a batch of these lines was answered."""
    client.send(batch(*lines))
    return await client.answers()
