"""Large answers that come from the process which owns their unique: in pieces, as fast as the client takes them."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from gatewayx.embedded.worker import AssignedJob, Worker
from gatewayx.gearman.packet import PacketType
from support.gateway import ServeProcess, eventually
from support.http import HttpClient, get, head, post
from support.shared_memory import SharedMemory
from support.still import still_gateway

pytestmark = pytest.mark.anyio

WORKERS = 2
RESULT_BYTES = 6 << 20
# So many that both processes own some of them, whichever the client's connection is at; but in one of 10^7 runs.
MANY = [b"unique-%d" % number for number in range(24)]
UNIQUES = MANY[:12]


class Served:
    """Two worker processes in front of the embedded job server, with a worker whose results are large."""

    def __init__(self, process: ServeProcess, memory: SharedMemory, address: tuple[str, int]) -> None:
        self.process = process
        self.memory = memory
        self.address = address
        self.ended_jobs = 0

    async def do(self, job: AssignedJob) -> bytes:
        """The workload again and again; that of an even number after a while."""
        if job.workload.endswith(b"later"):
            await asyncio.sleep(0.3)
        self.ended_jobs += 1
        return job.workload.ljust(RESULT_BYTES, b".")

    def relayed(self) -> int:
        """Requests that one process has given to the other."""
        return self.memory.counters()["requests_relayed"]


@pytest.fixture
async def served(embedded) -> AsyncIterator[Served]:
    """Which must end well, with nothing left."""
    server = "{}:{}".format(*embedded.address)
    # All answers are far from crowded, however slowly they are taken.
    # The job server is in this process, which has much else to do.
    options = ("--server", server, "--workers", str(WORKERS), "--max-held", "1GiB", "--server-check-interval", "60")
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


def asks(unique: bytes, *headers: bytes, workload: bytes = b"") -> bytes:
    """A request with this unique, which is also the workload."""
    return post(b"/f", workload or unique, b"X-Gearman-Unique: %b" % unique, *headers)


async def test_each_is_whole_and_in_order_however_many_are_asked_for_at_once(served):
    async with HttpClient(served.address) as client:
        client.send(*(asks(unique) for unique in MANY))
        for unique in MANY:
            answer = await client.response()
            assert (answer.status, answer.headers[b"x-gearman-unique"]) == (200, unique)
            assert answer.body == unique.ljust(RESULT_BYTES, b".")
        # The connection is as good as before.
        assert (await client.ask(head(b"OPTIONS", b"*"))).status == 204
    assert 0 < served.relayed() < len(MANY)


async def test_one_waits_behind_another_that_takes_longer(served):
    async with HttpClient(served.address) as client:
        client.send(asks(b"slow", workload=b"later"), *(asks(unique) for unique in UNIQUES))
        assert (await client.response()).body.startswith(b"later.")
        for unique in UNIQUES:
            assert (await client.response()).body == unique.ljust(RESULT_BYTES, b".")


async def test_the_first_process_holds_no_more_than_pieces_for_a_client_that_does_not_read(served):
    clients = [await HttpClient(served.address).connect() for _ in MANY]
    for client, unique in zip(clients, MANY, strict=True):
        client.send(asks(unique))
    await eventually(lambda: served.ended_jobs == len(MANY))
    seen = []
    # What the owner holds of each counts once.
    most_bytes = len(MANY) * RESULT_BYTES * 1.05 + WORKERS * (2 << 20)

    def is_at_rest() -> bool:
        seen.append(served.memory.taken()["results_bytes"])
        return len(seen) > 20 and len(set(seen[-20:])) == 1 and seen[-1] <= most_bytes

    await eventually(is_at_rest)
    for client, unique in zip(clients, MANY, strict=True):
        assert (await client.response()).body == unique.ljust(RESULT_BYTES, b".")
        await client.close()
    assert 0 < served.relayed() < len(MANY)


async def test_an_answer_to_head_tells_the_length_and_has_no_body(served):
    async with HttpClient(served.address) as client:
        for unique in UNIQUES:
            client.send(head(b"HEAD", b"/f?x", b"X-Gearman-Unique: %b" % unique))
            answer = await client.response(to_head=True)
            assert (answer.status, answer.headers[b"content-length"]) == (200, b"%d" % RESULT_BYTES)
            client.send(get(b"/f?x", b"X-Gearman-Unique: %b" % unique))
            assert (await client.response()).body == b"x".ljust(RESULT_BYTES, b".")


async def test_a_client_that_hangs_up_within_it_leaves_nothing(served):
    for unique in MANY:
        async with HttpClient(served.address) as client:
            client.send(asks(unique))
            await client.reader.readexactly(1000)
            client.reset()
    # The fixture sees to the rest: a relay that hung would delay the stop.
    assert served.relayed() > 0


async def test_the_last_answer_of_a_connection_is_whole(served):
    for unique in UNIQUES:
        async with HttpClient(served.address) as client:
            client.send(asks(unique, b"Connection: close"))
            answer = await client.response()
            assert (answer.headers[b"connection"], len(answer.body)) == (b"close", RESULT_BYTES)
            assert await client.rest() == b""


async def test_when_the_owner_is_killed_within_it_the_client_knows_that_it_is_not_whole(served):
    cut = 0
    for unique in UNIQUES:
        async with HttpClient(served.address) as client:
            client.send(asks(unique, b"Connection: close"))
            begun = await client.reader.readexactly(1000)
            assert begun.startswith(b"HTTP/1.1 200 ")
            processes = served.process.workers()
            # One of the two is the owner; the other may be the client's own.
            os.kill(processes[len(unique) % WORKERS], signal.SIGKILL)
            try:
                got = len(begun) + len(await client.rest())
            except ConnectionError:
                got = 0
            cut += got < RESULT_BYTES
            await eventually(
                lambda processes=processes: (
                    len(served.process.workers()) == WORKERS and served.process.workers() != processes
                )
            )
            await eventually(lambda: all(place.state == 1 for place in served.memory.places.rows))
        async with HttpClient(served.address) as client:
            assert (await client.ask(asks(unique + b"-again"))).status == 200
    assert cut > 0


def test_those_that_come_while_others_take_their_room_are_refused_beyond_the_bound():
    # Half of it is for results: for two of these, and not for three.
    bound_bytes, result_bytes = 80_000, 39_000
    with still_gateway(workers=2, max_held_bytes=2 * bound_bytes) as gateway:
        clients = [gateway.client() for _ in range(12)]
        for number, client in enumerate(clients):
            client.send(asks(b"unique-%d" % number))
            client.stop_taking(0)
        gateway.loop.settle()
        owners = [connection for connection in gateway.server.open() if connection.place]
        relayed = sum(len(owner.pending) for owner in owners)
        assert relayed >= 3
        for owner in owners:
            while owner.pending:
                owner.create()
            for job in list(owner.jobs):
                owner.work(job, PacketType.WORK_COMPLETE, b"r" * result_bytes)
                # Its owner has written it, and does not hold it any more when the next one comes.
                gateway.loop.turn()
                assert gateway.count("budget.results_bytes") <= bound_bytes
        gateway.loop.settle()
        for client in clients:
            client.take()
        gateway.loop.settle()
        responses = [response for client in clients for response in client.responses()]
        assert Counter(response.status for response in responses) == {200: 2, 502: relayed - 2}
        assert all(len(response.body) == result_bytes for response in responses if response.status == 200)
        assert all(b"did not fit" in response.body for response in responses if response.status == 502)
