"""Large bodies for the process that owns their unique: given away as they arrive."""

from __future__ import annotations

import asyncio
import hashlib
import signal
from collections.abc import AsyncIterator

import pytest

from gatewayx.embedded.worker import AssignedJob, Worker
from support.gateway import ServeProcess, eventually
from support.http import HttpClient, head
from support.shared_memory import Sampler, SharedMemory
from support.still import still_gateway

pytestmark = pytest.mark.anyio

WORKERS = 2
BODY_BYTES = 3 << 20
MAX_BODY_BYTES = 4 << 20
UNIQUES = [b"unique-%d" % number for number in range(24)]


class Served:
    """Two worker processes in front of the embedded job server, with a worker that tells what it was given."""

    def __init__(self, process: ServeProcess, memory: SharedMemory, address: tuple[str, int]) -> None:
        self.process = process
        self.memory = memory
        self.address = address
        self.jobs = 0

    async def do(self, job: AssignedJob) -> bytes:
        """The hash of the workload."""
        self.jobs += 1
        return hashlib.sha256(job.workload).hexdigest().encode()

    def relayed(self) -> int:
        """Requests that one process has given to the other."""
        return self.memory.counters()["requests_relayed"]


@pytest.fixture
def arguments() -> tuple[str, ...]:
    """Further flags; a test changes them by parametrizing `arguments`."""
    return ()


@pytest.fixture
async def served(embedded, arguments) -> AsyncIterator[Served]:
    """Which must end well, with nothing left."""
    server = "{}:{}".format(*embedded.address)
    # The job server is in this process, which has much else to do.
    patient = ("--server-check-interval", "60")
    options = ("--server", server, "--workers", str(WORKERS), "--max-body", "4MiB", *patient, *arguments)
    with SharedMemory(WORKERS) as memory:
        async with ServeProcess("--listen", "127.0.0.1:0", *options, before=memory.before) as process:
            found = Served(process, memory, await process.address())
            memory.attach()
            worker = Worker(embedded.address, {b"f": found.do}, concurrency=20)
            await worker.start()
            yield found
            await eventually(lambda: memory.taken()["jobs"] == memory.taken()["connections"] == 0)
            process.signal(signal.SIGTERM)
            assert await process.ended() == 0
            await worker.close()


def pattern(unique: bytes, size: int = BODY_BYTES) -> bytes:
    """Bytes that are in no other place of another body."""
    return b"".join(b"%b-%d;" % (unique, number) for number in range(size // 8))[:size]


def begun(unique: bytes, *headers: bytes) -> bytes:
    """The head of a request with this unique."""
    return head(b"POST", b"/f", b"X-Gearman-Unique: %b" % unique, *headers)


def hashed(body: bytes) -> bytes:
    """What the worker answers."""
    return hashlib.sha256(body).hexdigest().encode()


async def test_each_arrives_as_it_was_sent(served):
    for unique in UNIQUES:
        body = pattern(unique)
        async with HttpClient(served.address) as client:
            await client.send_all(begun(unique, b"Content-Length: %d" % len(body)), body)
            assert (await client.response()).body == hashed(body)
            # And the next one over the same connection.
            await client.send_all(begun(unique, b"Content-Length: %d" % len(body)), body)
            assert (await client.response()).body == hashed(body)
    assert 0 < served.relayed() < 2 * len(UNIQUES)
    assert served.jobs == 2 * len(UNIQUES)


async def test_chunks_arrive_as_they_were_sent_however_they_come(served):
    for number, unique in enumerate(UNIQUES):
        body = pattern(unique, 300_000)
        async with HttpClient(served.address) as client:
            client.send(begun(unique, b"Transfer-Encoding: chunked"))
            size = (1, 700, 16_384, 65_537, 300_000)[number % 5] if number % 5 else 2_000
            for start in range(0, len(body), size):
                piece = body[start : start + size]
                await client.send_all(b"%x\r\n" % len(piece), piece, b"\r\n")
            client.send(b"0\r\n\r\n")
            assert (await client.response()).body == hashed(body)
    assert served.relayed() > 0


async def test_one_that_is_cut_runs_nowhere(served):
    for unique in UNIQUES:
        async with HttpClient(served.address) as client:
            await client.send_all(begun(unique, b"Content-Length: %d" % BODY_BYTES), b"x" * (BODY_BYTES - 1))
            client.reset()
        async with HttpClient(served.address) as client:
            client.send(begun(unique, b"Transfer-Encoding: chunked"), b"4\r\nabcd\r\n")
            client.reset()
    assert served.relayed() > 0
    await eventually(lambda: served.memory.taken()["bodies_bytes"] <= WORKERS * (2 << 20))
    # A job that came of one would be before this one.
    async with HttpClient(served.address) as client:
        client.send(begun(b"last", b"Content-Length: 1"), b"x")
        assert (await client.response()).status == 200
    assert served.jobs == 1


async def test_one_that_is_too_long_is_refused_as_ever(served):
    for unique in UNIQUES:
        async with HttpClient(served.address) as client:
            client.send(begun(unique, b"Transfer-Encoding: chunked"), b"%x\r\n" % (MAX_BODY_BYTES + 1))
            assert (await client.response()).status == 413
    assert served.jobs == 0


@pytest.mark.parametrize("arguments", [("--max-function-jobs", "f=1")], ids=["one-job"])
async def test_what_the_owner_refuses_is_told_and_the_connection_goes_on(served):
    body = pattern(b"any")
    async with HttpClient(served.address) as client:
        for unique in UNIQUES:
            asked = [asyncio.create_task(ask(served, unique + each, body)) for each in (b"-1", b"-2", b"-3")]
            await client.send_all(begun(unique, b"Content-Length: %d" % len(body)), body)
            answers = [await client.response(), *await asyncio.gather(*asked)]
            assert {answer.status for answer in answers} <= {200, 503}
            for answer in answers:
                assert answer.body == hashed(body) or answer.kind() == "too-many-function-jobs"
    assert served.relayed() > 0


async def ask(served: Served, unique: bytes, body: bytes):
    """The answer to a request of a client of its own."""
    async with HttpClient(served.address) as client:
        await client.send_all(begun(unique, b"Content-Length: %d" % len(body)), body)
        return await client.response()


@pytest.mark.parametrize("arguments", [("--max-held", "32MiB", "--max-result", "1MiB")], ids=["32MiB"])
async def test_many_at_once_stay_within_the_bound_and_all_are_served(served):
    bound = (32 << 20) * 3 // 8

    async def until_served(unique: bytes) -> None:
        body = pattern(unique, 1 << 20)
        while True:
            answer = await ask(served, unique, body)
            if answer.status == 200:
                assert answer.body == hashed(body)
                return
            assert answer.kind() == "too-many-bytes"

    with Sampler(served.memory) as sampler:
        await asyncio.gather(*(until_served(b"%b-%d" % (unique, each)) for unique in UNIQUES for each in range(4)))
        assert 0 < sampler.most["bodies_bytes"] <= bound
    assert served.relayed() > 0


def test_those_for_an_owner_that_takes_nothing_are_refused_beyond_the_bound():
    piece_bytes = 22_000
    # Three eighths are for bodies: for two of the pieces, and not for three.
    with still_gateway(workers=2, max_held_bytes=8 * 20_000) as gateway:
        gateway.links.stop_taking(700)
        clients = []
        for unique in UNIQUES:
            relayed = gateway.count("relay.relayed")
            client = gateway.client()
            client.send(begun(unique, b"Content-Length: %d" % (piece_bytes + 1)))
            if gateway.count("relay.relayed") > relayed:
                clients.append(client)
            else:
                client.lose(None)
        assert len(clients) >= 3
        for client in clients:
            client.send(b"w" * piece_bytes)
            assert gateway.count("budget.bodies_bytes") <= 3 * 20_000
        gateway.loop.settle()
        refused = clients[2:]
        assert [response.status for client in refused for response in client.responses()] == [503] * len(refused)
        gateway.links.take()
        for client in clients:
            client.send(b"w")
        gateway.loop.settle()
        assert len(gateway.server.submissions) == 2
        gateway.complete(b"result")
        gateway.complete(b"result")
        assert [[response.status for response in client.responses()] for client in clients[:2]] == [[200], [200]]
        assert gateway.count("budget.held_bytes") == gateway.count("relay.relayed") == 0
