"""Connections to a job server that break, stutter or lie at every byte; each request has its one true answer."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from zlib import crc32

import pytest

from gatewayx.embedded import encode
from gatewayx.embedded.worker import Worker
from gatewayx.gearman import keeper
from gatewayx.gearman.packet import Magic, PacketType
from support.fault_proxy import DOWN, UP, FaultProxy
from support.gateway import RunningGateway, eventually, running_gateway
from support.http import HttpClient, post

pytestmark = pytest.mark.anyio

# One length for every job: the gateway's uniques of one process grow by a digit now and then.
UNIQUE = b"unique-%06d"


@pytest.fixture(autouse=True)
def quick_reconnects(monkeypatch):
    """Every connection is broken here within a moment; otherwise the gateway would try ever more rarely."""
    monkeypatch.setattr(keeper, "STEADY_S", 0.0)


class Scene:
    """A gateway with one connection, through a proxy, to a job server with a worker that keeps a record."""

    def __init__(self, gateway: RunningGateway, proxy: FaultProxy, function: bytes, ran: Counter[bytes]) -> None:
        self.gateway = gateway
        self.proxy = proxy
        self.function = function
        self.ran = ran
        self.number = 0

    async def ready(self) -> None:
        """Return once the gateway is connected."""
        await eventually(lambda: self.gateway.count("pool.connections") == 1)

    def request(self) -> tuple[bytes, bytes, bytes]:
        """The next request, its workload and its submission's packet."""
        self.number += 1
        workload = b"%06d" % self.number
        unique = UNIQUE % self.number
        submission = encode.submit_job(PacketType.SUBMIT_JOB, self.function, unique, workload)
        return post(b"/" + self.function, workload, b"X-Gearman-Unique: " + unique), workload, submission

    async def outcome(self, request: bytes, workload: bytes, *, breaks: bool = True) -> int:
        """Send the request; its status, once it is sure that it is the only answer and a true one.

        breaks: the connection to the job server does not survive.
        """
        connections = self.proxy.job_connections
        async with HttpClient(self.gateway.address) as client:
            answer = await client.ask(request)
            if answer.status == 200:
                assert answer.body == workload[::-1]
                assert self.ran[workload] == 1
            elif answer.status == 502:
                assert answer.kind() == "outcome-unknown"
            else:
                assert answer.status == 503, answer
                # Whatever was going to run has.
                await asyncio.sleep(0.05)
                assert self.ran[workload] == 0
            assert self.ran[workload] <= 1
            # The next one is answered next: nothing is left over of this one.
            await eventually(lambda: self.proxy.job_connections >= connections + breaks)
            await self.ready()
            request, workload, _ = self.request()
            following = await client.ask(request)
            assert (following.status, following.body) == (200, workload[::-1])
        return answer.status


@pytest.fixture
async def scene(job_server, function) -> AsyncIterator[Scene]:
    """The scene; both job servers."""
    ran: Counter[bytes] = Counter()

    def run(job):
        ran[job.workload] += 1
        return job.workload[::-1]

    # Of one length in every test.
    function = b"faults%08x" % crc32(function)
    worker = Worker(job_server.address, {function: run})
    await worker.start()
    async with FaultProxy(job_server.address) as proxy:
        async with running_gateway([proxy.address], connections_per_server=1) as gateway:
            yield Scene(gateway, proxy, function, ran)
        assert not [workload for workload, count in ran.items() if count != 1]
    await worker.close()


def replies(handle: bytes, workload: bytes) -> tuple[bytes, bytes]:
    """The packets JOB_CREATED and WORK_COMPLETE as the job server sends them."""
    return (
        encode.packet(Magic.RESPONSE, PacketType.JOB_CREATED, handle),
        encode.packet(Magic.RESPONSE, PacketType.WORK_COMPLETE, handle, workload[::-1]),
    )


# Jobs of a test that counts on the length of a handle.
FEW = 5


async def handle_bytes(scene: Scene) -> bytes:
    """A handle as long as those of the next FEW jobs."""
    async with HttpClient(scene.gateway.address) as client:
        while True:
            request, _, _ = scene.request()
            handle = (await client.ask(request)).headers[b"x-gearman-job-handle"]
            number = int(handle.rpartition(b":")[2])
            if len(str(number)) == len(str(number + FEW)):
                return handle


class TestCuts:
    async def test_after_every_byte_of_a_submission(self, scene):
        _, _, submission = scene.request()
        for count in range(len(submission) + 1):
            await scene.ready()
            request, workload, _ = scene.request()
            scene.proxy.cut(UP, count)
            status = await scene.outcome(request, workload)
            if 0 < count < len(submission):
                assert (status, scene.ran[workload]) == (502, 0)

    async def test_after_every_byte_of_what_the_job_server_answers(self, scene):
        handle = await handle_bytes(scene)
        created, complete = replies(handle, b"000000")
        statuses = []
        for count in range(1, len(created) + len(complete) + 1):
            await scene.ready()
            request, workload, _ = scene.request()
            scene.proxy.cut(DOWN, count)
            status = await scene.outcome(request, workload)
            # A handle may have grown by a digit since.
            assert status == 502 or count >= len(created) + len(complete)
            statuses.append(status)
        assert statuses.count(502) >= len(created) + len(complete) - 1

    async def test_what_a_502_says_of_the_job(self, scene):
        handle = await handle_bytes(scene)
        created, _ = replies(handle, b"")
        for count, said in ((1, "may have been created"), (len(created) + 3, "had been created")):
            await scene.ready()
            request, _, _ = scene.request()
            scene.proxy.cut(DOWN, count)
            async with HttpClient(scene.gateway.address) as client:
                problem = (await client.ask(request)).problem()
            assert said in problem["detail"]


class TestPieces:
    @pytest.mark.parametrize(("piece_bytes", "delay_s"), [(1, 0.0), (7, 0.001), (13, 0.002)])
    async def test_halves_and_delays_change_nothing(self, scene, piece_bytes, delay_s):
        await scene.ready()
        scene.proxy.piece_bytes, scene.proxy.delay_s = piece_bytes, delay_s
        for _ in range(5):
            request, workload, _ = scene.request()
            assert await scene.outcome(request, workload, breaks=False) == 200
        assert scene.proxy.job_connections == 1


class TestGarbage:
    GARBAGE = (b"garbage!garbage!", b"\0RES\0\0\0\x63\0\0\0\0", b"\0REQ\0\0\0\x08\0\0\0\0", b"\0RES\0\0\0\x08\0\0\0\0")

    @pytest.mark.parametrize("garbage", GARBAGE, ids=["no-magic", "no-type", "a-request", "a-JOB_CREATED-too-many"])
    async def test_at_every_packet_boundary_from_the_job_server(self, scene, garbage):
        handle = await handle_bytes(scene)
        created, complete = replies(handle, b"000000")
        expected = {0: {502}, len(created): {502}, len(created) + len(complete): {200, 502}}
        for count, statuses in expected.items():
            await scene.ready()
            request, workload, _ = scene.request()
            if count:
                scene.proxy.inject(DOWN, count, garbage)
            else:
                # Before the answer: behind the submission, whose bytes pass first.
                scene.proxy.inject(DOWN, 1, garbage)
            assert await scene.outcome(request, workload) in statuses

    async def test_on_its_way_to_the_job_server(self, scene):
        await scene.ready()
        request, workload, submission = scene.request()
        # What does not begin with NUL gearmand would take for text, and wait for its end.
        scene.proxy.inject(UP, len(submission), b"\0RES\0\0\0\x63\0\0\0\0")
        # The job server has the job before it finds the garbage.
        assert await scene.outcome(request, workload) in (200, 502)
