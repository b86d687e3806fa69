"""How often a job server is asked for background jobs, and what is answered when it cannot be."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec
import pytest

from gatewayx.address import Address, ServerAddress
from gatewayx.config.settings import Settings
from gatewayx.gearman.packet import PacketType
from gatewayx.net.names import NumericHost
from gatewayx.server.listeners import BoundSockets
from gatewayx.server.process import GatewayProcess, places_for
from support.gateway import POLL_S, RunningGateway, cancelled, eventually, running_gateway
from support.gearmand import Gearmand
from support.http import HttpClient, Response, ask, get, head, post
from support.job_servers import ScriptedConnection, ScriptedJobServer, hand_worker

pytestmark = pytest.mark.anyio

BACKGROUND = b"X-Gearman-Background: true"
# As gateway/background_jobs.pxd: what was told is good for so long.
FRESH_S = 1.0
SQLITE = ("-q", "libsqlite3", "--libsqlite3-db")


class Scripted:
    """A gateway in front of a scripted job server, with background jobs that the test has submitted."""

    def __init__(self, gateway: RunningGateway, server: ScriptedJobServer, jobs: ScriptedConnection) -> None:
        self.gateway = gateway
        self.server = server
        self.jobs = jobs
        self.handles = 0
        # By where each is found.
        self.uniques: dict[bytes, bytes] = {}

    async def submit(self, client: HttpClient) -> bytes:
        """Where a new one is found."""
        client.send(post(b"/f", b"w", BACKGROUND))
        self.handles += 1
        submission = await self.jobs.accept(b"H:host:%d" % self.handles)
        location = (await client.response()).headers[b"location"]
        self.uniques[location] = submission.unique
        return location

    async def asked(self) -> ScriptedConnection:
        """The connection for questions, once one was asked."""
        return await self.server.connection()

    def counted(self, name: str) -> int:
        """One of the counts."""
        return self.gateway.process.counted_in.read()[name]


def tell(connection: ScriptedConnection, unique: bytes, known: bool = True, running: bool = False) -> None:
    """Answer a question."""
    connection.answer(PacketType.STATUS_RES_UNIQUE, unique, b"%d" % known, b"%d" % running, b"0", b"0", b"0")


async def answer_all(connection: ScriptedConnection) -> None:
    """Answer each question of a job that runs, as those are that are asked on a slow machine."""
    while True:
        tell(connection, await connection.questions.get(), running=True)


@asynccontextmanager
async def scripted(**settings: object) -> AsyncIterator[Scripted]:
    """A gateway with these settings."""
    async with (
        ScriptedJobServer() as server,
        running_gateway([server.address], connections_per_server=1, **settings) as gateway,
    ):
        yield Scripted(gateway, server, await server.connection())


async def answered(client: HttpClient, location: bytes, status: int) -> Response:
    """The answer once it has this status."""
    while True:
        answer = await client.ask(get(location))
        if answer.status == status:
            return answer
        await asyncio.sleep(POLL_S)


async def becomes_gone(client: HttpClient, location: bytes) -> None:
    """Return once the job is told to be so."""
    while True:
        answer = await client.ask(get(location))
        if b'"gone"' in answer.body:
            return
        await asyncio.sleep(POLL_S)


class TestShared:
    async def test_one_question_is_for_all_who_ask_meanwhile_and_for_a_second(self):
        async with scripted() as found, HttpClient(found.gateway.address) as client:
            location = await found.submit(client)
            unique = found.uniques[location]
            clients = [asyncio.create_task(ask(found.gateway.address, get(location))) for _ in range(50)]
            asked = await found.asked()
            assert await asked.question() == unique
            await found.gateway.reaches("background_jobs.waiting", 50)
            began_s = time.monotonic()
            tell(asked, unique, running=True)
            assert {answer.status for answer in await asyncio.gather(*clients)} == {200}
            answering = asyncio.create_task(answer_all(asked))
            answers = [await client.ask(get(location)) for _ in range(50)]
            assert all(b'"running"' in answer.body for answer in answers)
            assert found.counted("status_polls") <= 1 + (time.monotonic() - began_s) / FRESH_S
            await cancelled([answering])
            polls = asyncio.create_task(becomes_gone(client, location))
            await asked.question()
            assert time.monotonic() - began_s >= FRESH_S * 0.99
            tell(asked, unique, known=False)
            await polls

    async def test_those_who_wait_ask_once_a_second(self):
        async with scripted() as found, AsyncExitStack() as stack, HttpClient(found.gateway.address) as client:
            location = await found.submit(client)
            unique = found.uniques[location]
            clients = [await stack.enter_async_context(HttpClient(found.gateway.address)) for _ in range(20)]
            for each in clients:
                each.send(get(location + b"?wait=60"))
            asked = await found.asked()
            began_s = time.monotonic()
            for questions in range(1, 4):
                await asked.question()
                assert found.counted("status_polls") == questions
                assert time.monotonic() - began_s >= (questions - 1) * FRESH_S * 0.99
                tell(asked, unique, known=questions < 3, running=True)
            for each in clients:
                assert b'"gone"' in (await each.response()).body
            assert asked.questions.empty()

    async def test_each_job_is_asked_for_by_itself(self):
        async with scripted() as found, HttpClient(found.gateway.address) as client:
            locations = [await found.submit(client) for _ in range(3)]
            tasks = [asyncio.create_task(ask(found.gateway.address, get(location))) for location in locations]
            asked = await found.asked()
            for number in range(3):
                unique = await asked.question()
                tell(asked, unique, known=unique != found.uniques[locations[1]], running=number >= 0)
            answers = await asyncio.gather(*tasks)
            assert [b'"gone"' in answer.body for answer in answers] == [False, True, False]


class TestBound:
    async def test_beyond_it_nobody_is_asked_and_nobody_waits(self, job_server, function):
        async with (
            running_gateway([job_server.address], max_status_polls=3) as gateway,
            HttpClient(gateway.address) as client,
        ):
            locations = []
            for _ in range(9):
                answer = await client.ask(post(b"/" + function, b"w", BACKGROUND))
                locations.append(answer.headers[b"location"])
            # All at once, for each third of a second lets another one in.
            client.send(*map(get, locations))
            answers = [await client.response() for _ in locations]
            statuses = [answer.status for answer in answers]
            assert 3 <= statuses.count(200) <= 4
            for answer in answers:
                if answer.status != 200:
                    assert answer.kind() == "too-many-status-polls"
                    assert int(answer.headers[b"retry-after"]) >= 1
            refused = statuses.count(503)
            assert gateway.process.counted_in.read()["status_polls_refused"] == refused
            # What was told is told on.
            asked = [location for location, status in zip(locations, statuses, strict=True) if status == 200]
            assert (await client.ask(get(asked[-1]))).status == 200
            left = locations[statuses.index(503)]
            await answered(client, left, 200)

    async def test_it_holds_for_all_worker_processes_together(self, job_server, function):
        made = Settings(
            listen=(Address("127.0.0.1", 0),), server=(ServerAddress(*job_server.address),), max_status_polls=4
        )
        places = places_for(made, 2)
        async with AsyncExitStack() as stack:
            clients = []
            for place in range(2):
                sockets = BoundSockets(2)
                sockets.bind(made.listen[0], NumericHost.parse("127.0.0.1"), made)
                process = GatewayProcess(made, sockets=sockets, places=places, place=place)
                stack.push_async_callback(process.close)
                await process.start()
                address = process.addresses[0]
                assert isinstance(address, Address)
                clients.append(await stack.enter_async_context(HttpClient((address.host, address.port))))
            locations = []
            for number in range(12):
                answer = await clients[number % 2].ask(post(b"/" + function, b"w", BACKGROUND))
                locations.append(answer.headers[b"location"])
            # Each is asked for through the other process, all at once: each quarter of a second lets another one in.
            for place, client in enumerate(clients):
                client.send(*map(get, locations[1 - place :: 2]))
            statuses = [(await client.response()).status for client in clients for _ in range(6)]
            assert 4 <= statuses.count(200) <= 6
            assert statuses.count(200) + statuses.count(503) == 12

    async def test_it_can_be_changed(self, job_server, function):
        async with (
            running_gateway([job_server.address], max_status_polls=1) as gateway,
            HttpClient(gateway.address) as client,
        ):
            locations = []
            for _ in range(8):
                answer = await client.ask(post(b"/" + function, b"w", BACKGROUND))
                locations.append(answer.headers[b"location"])
            settings = msgspec.structs.replace(gateway.process.settings, max_status_polls=1000)
            await gateway.process.reconfigure(settings)
            assert {(await client.ask(get(location))).status for location in locations} == {200}


class TestAway:
    async def test_a_job_server_that_is_down_is_no_end_of_its_jobs(self, function, tmp_path):
        """With a persistent queue the job is there again after a restart; it can be cancelled no more."""
        queue = (*SQLITE, str(tmp_path / "queue"))
        with Gearmand(tmp_path, *queue) as job_server:
            async with running_gateway([job_server.address]) as gateway, HttpClient(gateway.address) as client:
                location = (await client.ask(post(b"/" + function, b"w", BACKGROUND))).headers[b"location"]
                assert (await client.ask(get(location))).status == 200
                job_server.kill()
                answer = await answered(client, location, 503)
                assert answer.kind() == "job-server-away"
                # A wait is answered likewise, at once.
                assert (await client.ask(get(location + b"?wait=60"))).kind() == "job-server-away"
                with Gearmand(tmp_path, *queue, port=job_server.port) as again:
                    assert b'"queued"' in (await answered(client, location, 200)).body
                    answer = await client.ask(head(b"POST", location + b"/cancel", b"Content-Length: 0"))
                    assert (answer.status, answer.kind()) == (409, "not-cancellable")
                    assert "text" in str(answer.problem()["detail"])
                    async with hand_worker(again.address, function) as worker:
                        handle, _, _, _ = await worker.take()
                        worker.complete(handle)
                        await becomes_gone(client, location)

    async def test_one_that_does_not_answer_is_given_up_in_time(self):
        # Longer than a machine stands still: the connection has to come up within it.
        async with scripted(server_check_interval_s=4.0) as found, HttpClient(found.gateway.address) as client:
            location = await found.submit(client)
            answer = await client.ask(get(location))
            assert (answer.status, answer.kind()) == (503, "job-server-away")
            assert "gave no answer" in str(answer.problem()["detail"])

    async def test_one_that_is_no_longer_configured_is_none(self, embedded, function):
        async with (
            ScriptedJobServer() as other,
            running_gateway([embedded.address]) as gateway,
            HttpClient(gateway.address) as client,
        ):
            location = (await client.ask(post(b"/" + function, b"w", BACKGROUND))).headers[b"location"]
            assert (await client.ask(get(location))).status == 200
            settings = gateway.process.settings
            only_other = msgspec.structs.replace(settings, server=(ServerAddress(*other.address),))
            await gateway.process.reconfigure(only_other)
            for request in (
                get(location),
                get(location + b"?wait=60"),
                head(b"POST", location + b"/cancel", b"Content-Length: 0"),
            ):
                answer = await client.ask(request)
                assert (answer.status, answer.kind()) == (404, "job-unknown")
                assert "none of the gateway's any more" in str(answer.problem()["detail"])
            assert (await client.ask(head(b"DELETE", location))).status == 204
            await gateway.process.reconfigure(settings)
            assert b'"queued"' in (await client.ask(get(location))).body
            # The embedded job server ends with an empty queue.
            async with hand_worker(embedded.address, function) as worker:
                handle, _, _, _ = await worker.take()
                worker.complete(handle)
                await eventually(lambda: embedded.job_count == 0)
