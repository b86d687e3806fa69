"""The events of a kept job over HTTP, in front of both job servers: which come, to whom, and what is told again."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from gatewayx.embedded import encode
from gatewayx.gearman.packet import PacketType
from support.event_streams import Event, events_of
from support.gateway import RunningGateway, eventually, running_gateway
from support.http import ask, get, head, post
from support.job_servers import HandWorker
from support.nginx import running_nginx
from support.relaying import relaying
from support.still import still_gateway
from support.streaming import ACCEPT_EVENTS, EVENT_STREAM, StreamClient

pytestmark = pytest.mark.anyio

# As many events are kept, and as many bytes.
MOST = 64
MOST_BYTES = 65_536
# Between two comments.
COMMENT_S = 15


class Kept:
    """A gateway, and the jobs that it keeps for a test, which are forgotten at its end."""

    def __init__(self, gateway: RunningGateway) -> None:
        self.gateway = gateway
        self.address = gateway.address
        self.jobs: list[bytes] = []

    async def submitted(self, client: StreamClient, worker: HandWorker, function: bytes) -> tuple[bytes, bytes]:
        """Submit a job whose events are the answer, and read the first one; its id and its handle."""
        client.send(post(b"/" + function, b"workload", ACCEPT_EVENTS))
        handle, _, _, _ = await worker.take()
        return await self.begun(client, handle), handle

    async def begun(self, client: StreamClient, handle: bytes) -> bytes:
        """Read the head of a submission's answer, and the first event; the job's id."""
        answer = await client.begin()
        assert answer.status == 200
        assert answer.headers[b"content-type"] == EVENT_STREAM
        assert answer.headers[b"x-accel-buffering"] == b"no"
        assert answer.headers[b"x-gearman-job-handle"] == handle
        created = await client.event()
        assert created.kind == "created"
        job = created.json()
        job_id = job["id"].encode()
        self.jobs.append(job_id)
        assert answer.headers[b"location"] == b"/v1/jobs/" + job_id
        assert (job["state"], created.last_id) == ("queued", f"{job['id']}.1")
        return job_id

    async def forgotten(self) -> None:
        """Forget all of them."""
        for job_id in self.jobs:
            assert (await ask(self.address, head(b"DELETE", b"/v1/jobs/" + job_id))).status in (204, 404)


@pytest.fixture
async def kept(gateway: RunningGateway) -> AsyncIterator[Kept]:
    """The gateway, and what it keeps."""
    kept = Kept(gateway)
    yield kept
    await kept.forgotten()


@pytest.fixture
async def client(gateway: RunningGateway) -> AsyncIterator[StreamClient]:
    """A client that reads events."""
    async with StreamClient(gateway.address) as client:
        yield client


def events_path(job_id: bytes) -> bytes:
    """Of a job."""
    return b"/v1/jobs/" + job_id + b"/events"


def last_event(job_id: bytes, number: int) -> bytes:
    """The header of who has had so many."""
    return b"Last-Event-ID: %b.%d" % (job_id, number)


def numbers(events: list[Event]) -> list[int]:
    """Of the events."""
    return [event.number() for event in events]


async def all_events(kept: Kept, job_id: bytes, *headers: bytes) -> list[Event]:
    """Those that an ended job is answered with, which has a length."""
    answer = await ask(kept.address, get(events_path(job_id), *headers))
    assert (answer.status, answer.headers[b"content-type"]) == (200, EVENT_STREAM)
    return events_of(answer.body)


class TestKinds:
    async def test_each_comes_as_it_happens(self, kept, client, worker, function):
        job_id, handle = await kept.submitted(client, worker, function)
        worker.send(encode.work_status(handle, 1, 4))
        event = await client.event()
        assert (event.kind, event.json()) == ("status", {"numerator": 1, "denominator": 4, "percent": 25})
        worker.send_data(handle, "ä\n".encode())
        event = await client.event()
        assert (event.kind, event.json()) == ("data", {"encoding": "text", "data": "ä\n"})
        worker.send(encode.work_warning(handle, b"\xff"))
        event = await client.event()
        assert (event.kind, event.json()) == ("warning", {"encoding": "base64", "data": "/w=="})
        worker.complete(handle, b"end")
        (end,) = await client.events()
        assert end.kind == "complete"
        told = end.json()
        assert (told["state"], told["encoding"], told["data"]) == ("succeeded", "text", "end")
        assert told["progress"] == {"numerator": 1, "denominator": 4}
        assert end.last_id == f"{job_id.decode()}.5"
        # The connection goes on, and a job that has ended tells the same.
        assert (await client.ask(head(b"OPTIONS", b"*"))).status == 204
        found = await all_events(kept, job_id)
        assert numbers(found) == [1, 2, 3, 4, 5]
        assert found[-1] == end

    async def test_the_first_event_comes_with_the_head(self, kept, client, worker, function):
        client.send(post(b"/" + function, b"", ACCEPT_EVENTS))
        handle, _, _, _ = await worker.take()
        await client.begin()
        client.parser.feed(await client.piece())
        assert [event.kind for event in client.parser.events] == ["created"]
        assert 1000 <= client.parser.retry_ms < 4000
        kept.jobs.append(client.parser.events[0].json()["id"].encode())
        worker.complete(handle)

    @pytest.mark.parametrize(
        ("end", "kind", "state"),
        [
            (encode.work_fail, "fail", "failed"),
            (lambda handle: encode.work_exception(handle, b"what"), "exception", "failed"),
        ],
        ids=["fail", "exception"],
    )
    async def test_a_failure_is_an_end(self, kept, client, worker, function, end, kind, state):
        _, handle = await kept.submitted(client, worker, function)
        worker.send_data(handle, b"part")
        worker.send(end(handle))
        data, last = await client.events()
        assert (data.kind, last.kind, last.json()["state"]) == ("data", kind, state)
        assert kind != "exception" or last.json()["data"] == "what"

    async def test_no_end_in_time_is_one(self, kept, client, worker, function):
        with kept.gateway.within_a_tick():
            client.send(post(b"/" + function, b"", ACCEPT_EVENTS, b"X-Gearman-Timeout: 0.3"))
            handle, _, _, _ = await worker.take()
            await kept.begun(client, handle)
        (end,) = await client.events()
        assert (end.kind, end.json()["state"]) == ("timeout", "timeout")

    async def test_a_cancellation_is_one(self, kept, client, worker, function):
        job_id, handle = await kept.submitted(client, worker, function)
        answer = await ask(kept.address, post(b"/v1/jobs/" + job_id + b"/cancel"))
        assert answer.status == 202
        (end,) = await client.events()
        assert (end.kind, end.json()["state"]) == ("cancelled", "cancelled")
        worker.complete(handle)

    async def test_to_forget_it_is_one(self, kept, client, worker, function):
        job_id, handle = await kept.submitted(client, worker, function)
        assert (await ask(kept.address, head(b"DELETE", b"/v1/jobs/" + job_id))).status == 204
        (end,) = await client.events()
        assert end.kind == "cancelled"
        answer = await ask(kept.address, get(events_path(job_id)))
        assert (answer.status, answer.kind()) == (404, "job-unknown")
        worker.complete(handle)

    async def test_a_job_server_that_goes_is_one(self, embedded, function):
        async with AsyncExitStack() as stack:
            gateway = await stack.enter_async_context(running_gateway([embedded.address]))
            client = await stack.enter_async_context(StreamClient(gateway.address))
            client.send(post(b"/" + function, b"", ACCEPT_EVENTS))
            await client.begin()
            job = (await client.event()).json()
            await embedded.close()
            (end,) = await client.events()
            assert (end.kind, end.json()["state"]) == ("lost", "lost")
            assert (await ask(gateway.address, head(b"DELETE", b"/v1/jobs/" + job["id"].encode()))).status == 204


class TestComingBack:
    async def test_an_ended_job_tells_what_is_behind_each_event(self, kept, client, worker, function):
        job_id, handle = await kept.submitted(client, worker, function)
        worker.send(*(encode.work_status(handle, number, 10) for number in range(10)))
        worker.complete(handle)
        await client.events()
        for after in range(13):
            answer = await ask(kept.address, get(events_path(job_id), last_event(job_id, after)))
            if after < 12:
                assert numbers(events_of(answer.body)) == list(range(after + 1, 13))
            else:
                assert (answer.status, answer.body) == (204, b"")
        answer = await ask(kept.address, get(events_path(job_id), last_event(job_id, 1000)))
        assert answer.status == 204

    async def test_who_was_cut_off_at_any_event_misses_none(self, kept, worker, function):
        async with AsyncExitStack() as stack:
            first = await stack.enter_async_context(StreamClient(kept.address))
            job_id, handle = await kept.submitted(first, worker, function)
            seen = [1]
            for number in range(1, 8):
                await first.close()
                worker.send(encode.work_status(handle, number, 8))
                first = await stack.enter_async_context(StreamClient(kept.address))
                first.send(get(events_path(job_id), last_event(job_id, seen[-1])))
                await first.begin()
                seen.append((await first.event()).number())
            worker.complete(handle)
            seen += numbers(await first.events())
            assert seen == list(range(1, 10))

    @pytest.mark.parametrize(
        "value",
        [b"", b"nonsense", b"k%b.1" % (b"A" * 40), b"x" * 500],
        ids=["empty", "nonsense", "another", "long"],
    )
    async def test_an_id_that_is_none_of_the_jobs_is_as_none(self, kept, client, worker, function, value):
        job_id, handle = await kept.submitted(client, worker, function)
        worker.complete(handle)
        await client.events()
        assert numbers(await all_events(kept, job_id, b"Last-Event-ID: " + value)) == [1, 2]

    async def test_a_submission_with_an_event_id_resumes_and_never_submits(self, kept, client, worker, function):
        job_id, handle = await kept.submitted(client, worker, function)
        worker.send(encode.work_status(handle, 1, 2))
        await client.event()
        async with StreamClient(kept.address) as other:
            for request in (
                get(b"/" + function, ACCEPT_EVENTS, last_event(job_id, 1)),
                post(b"/" + function, b"workload", ACCEPT_EVENTS, last_event(job_id, 1)),
            ):
                other.send(request)
                await other.begin()
                assert (await other.event()).number() == 2
                await other.close()
                await other.connect()
            worker.complete(handle)
            await client.events()
            for number in (3, 4):
                answer = await other.ask(post(b"/" + function, b"", ACCEPT_EVENTS, last_event(job_id, number)))
                assert answer.status == 204
            answer = await other.ask(post(b"/" + function, b"", ACCEPT_EVENTS, b"Last-Event-ID: unknown.1"))
            assert answer.status == 204
        # Nothing was submitted beside the one job.
        worker.send(encode.grab_job_uniq())
        await worker.expect(PacketType.NO_JOB)

    async def test_what_is_no_longer_kept_is_a_gap(self, kept, client, worker, function):
        job_id, handle = await kept.submitted(client, worker, function)
        worker.send(*(encode.work_status(handle, number, 100) for number in range(100)))
        worker.complete(handle)
        await client.events()
        # 102 events in all.
        gap, *rest = await all_events(kept, job_id, last_event(job_id, 5))
        assert (gap.kind, gap.json()) == ("gap", {"first": 6, "last": 102 - MOST})
        assert numbers(rest) == list(range(103 - MOST, 103))
        assert numbers([gap]) == [102 - MOST]
        # Who has had the gap is told of it no more.
        found = await all_events(kept, job_id, last_event(job_id, 102 - MOST))
        assert numbers(found) == list(range(103 - MOST, 103))

    async def test_what_is_too_large_to_be_kept_comes_to_who_listens_alone(self, kept, client, worker, function):
        job_id, handle = await kept.submitted(client, worker, function)
        worker.send_data(handle, b"x" * (MOST_BYTES + 1))
        data = await client.event()
        assert (data.number(), len(data.json()["data"])) == (2, MOST_BYTES + 1)
        worker.complete(handle)
        assert numbers(await client.events()) == [3]
        gap, end = await all_events(kept, job_id)
        assert (gap.json(), end.number()) == ({"first": 1, "last": 2}, 3)

    async def test_what_there_is_no_room_to_keep_comes_to_who_listens_and_waits(self, job_server, worker, function):
        # Of the results' 60,000 bytes kept jobs have half.
        bounds = {"max_result_bytes": 30_000, "max_body_bytes": 10_000, "max_held_bytes": 120_000}
        async with AsyncExitStack() as stack:
            kept = Kept(await stack.enter_async_context(running_gateway([job_server.address], **bounds)))
            client = await stack.enter_async_context(StreamClient(kept.address))
            job_id, handle = await kept.submitted(client, worker, function)
            worker.send(encode.work_warning(handle, b"x" * 29_500))
            assert (await client.event()).number() == 2
            async with StreamClient(kept.address) as waiting:
                waiting.send(get(b"/v1/jobs/" + job_id + b"/result?wait=10"))
                await eventually(lambda: kept.gateway.count("gateway.open_exchanges") == 2)
                worker.complete(handle, b"y" * 29_500)
                answer = await waiting.response()
            assert (answer.status, answer.body) == (200, b"y" * 29_500)
            assert numbers(await client.events()) == [3]
            answer = await ask(kept.address, get(b"/v1/jobs/" + job_id + b"/result"))
            assert (answer.status, answer.kind()) == (410, "result-dropped")
            gap, *_ = await all_events(kept, job_id)
            assert gap.kind == "gap"
            await kept.forgotten()


class TestClients:
    async def test_many_watch_one_job(self, kept, client, worker, function):
        job_id, handle = await kept.submitted(client, worker, function)
        async with AsyncExitStack() as stack:
            others = [await stack.enter_async_context(StreamClient(kept.address)) for _ in range(20)]
            for other in others:
                other.send(get(events_path(job_id)))
                await other.begin()
                assert (await other.event()).number() == 1
            worker.send(encode.work_status(handle, 1, 2))
            for other in others[:10]:
                assert (await other.event()).number() == 2
                await other.close()
            worker.complete(handle)
            for other in others[10:]:
                assert numbers(await other.events()) == [2, 3]
        assert numbers(await client.events()) == [2, 3]
        assert kept.gateway.process.counted_in.read()["event_streams"] == 21
        assert kept.gateway.process.counted_in.read()["event_streams_cut"] == 0

    async def test_one_that_leaves_leaves_the_job_running(self, kept, client, worker, function):
        job_id, handle = await kept.submitted(client, worker, function)
        await client.close()
        await eventually(lambda: kept.gateway.count("http.connections") == 0)
        worker.complete(handle, b"result")
        answer = await ask(kept.address, get(b"/v1/jobs/" + job_id + b"/result?wait=10"))
        assert (answer.status, answer.body) == (200, b"result")

    async def test_one_that_does_not_read_loses_its_stream_and_the_job_goes_on(self, kept, worker, function):
        async with StreamClient(kept.address, receive_buffer_bytes=4096) as client:
            job_id, handle = await kept.submitted(client, worker, function)
            client.writer.transport.pause_reading()
            # More than kernels take for a connection.
            worker.send(*(encode.work_warning(handle, b"x" * 30_000) for _ in range(400)))
            await eventually(lambda: kept.gateway.process.counted_in.read()["event_streams_cut"] == 1)
            client.writer.transport.resume_reading()
            await client.is_cut()
        worker.complete(handle, b"end")
        answer = await ask(kept.address, get(b"/v1/jobs/" + job_id + b"?wait=10"))
        assert json.loads(answer.body)["state"] == "succeeded"

    async def test_to_HTTP_1_0_it_ends_with_the_connection(self, kept, worker, function):  # noqa: N802
        async with StreamClient(kept.address) as client:
            client.send(post(b"/" + function, b"", ACCEPT_EVENTS, version=b"1.0"))
            handle, _, _, _ = await worker.take()
            await kept.begun(client, handle)
            assert not client.in_chunks
            worker.complete(handle)
            assert [event.kind for event in await client.events()] == ["complete"]

    async def test_HEAD_tells_the_head_alone(self, kept, client, worker, function):  # noqa: N802
        job_id, handle = await kept.submitted(client, worker, function)
        async with StreamClient(kept.address) as other:
            other.send(head(b"HEAD", events_path(job_id)), head(b"OPTIONS", b"*"))
            answer = await other.begin(to_head=True)
            assert (answer.status, answer.headers[b"content-type"]) == (200, EVENT_STREAM)
            assert (await other.response()).status == 204
        worker.complete(handle)
        await client.events()

    async def test_behind_an_answer_that_is_not_there_yet_it_waits(self, kept, client, worker, function):
        client.send(post(b"/" + function, b"before"), post(b"/" + function, b"watched", ACCEPT_EVENTS))
        jobs = {}
        for _ in range(2):
            handle, _, _, workload = await worker.take()
            jobs[workload] = handle
        watched = jobs[b"watched"]
        # More than are kept: what it begins with is told once its head may leave.
        worker.send(*(encode.work_status(watched, number, 100) for number in range(100)))
        worker.complete(watched)
        worker.complete(jobs[b"before"], b"answer")
        assert (await client.response()).body == b"answer"
        answer = await client.begin()
        kept.jobs.append(answer.headers[b"location"].removeprefix(b"/v1/jobs/"))
        events = await client.events()
        # It began with a gap at the latest when the last one had happened.
        assert events[0].kind == "gap"
        assert 1 < events[0].number() <= 102 - MOST
        assert numbers(events) == list(range(events[0].number(), 103))

    async def test_a_method_that_takes_no_events_is_answered_as_ever(self, client, worker, function):
        client.send(
            post(b"/" + function, b"", ACCEPT_EVENTS).replace(b"POST", b"PUT", 1),
        )
        handle, _, _, _ = await worker.take()
        worker.complete(handle, b"result")
        assert (await client.response()).body == b"result"


def test_a_quiet_stream_has_a_comment_in_time():
    with still_gateway() as gateway:
        client = gateway.client()
        client.send(post(b"/f", b"", ACCEPT_EVENTS))
        gateway.loop.settle()
        connection = gateway.server.open()[0]
        connection.create()
        gateway.loop.settle()
        begun = bytes(client.written)
        assert b"event: created" in begun
        gateway.pass_time(COMMENT_S - 1)
        assert bytes(client.written) == begun
        gateway.pass_time(2)
        for count in range(1, 4):
            assert bytes(client.written)[len(begun) :] == b"3\r\n:\n\n\r\n" * count
            gateway.pass_time(COMMENT_S)
        gateway.complete(b"")
        assert b"event: complete" in bytes(client.written)
        assert bytes(client.written).endswith(b"\r\n0\r\n\r\n")


class TestThroughOthers:
    async def test_through_another_worker_process(self, job_server, worker, function):
        async with relaying([job_server.address]) as relay, AsyncExitStack() as stack:
            clients = []
            for found in await relay.clients(stack):
                client = StreamClient(relay.address)
                client.reader, client.writer = found.reader, found.writer
                clients.append(client)
            here, there = clients
            here.send(post(b"/" + function, b"", ACCEPT_EVENTS))
            handle, _, _, _ = await worker.take()
            await here.begin()
            job_id = (await here.event()).json()["id"].encode()
            there.send(get(events_path(job_id)))
            answer = await there.begin()
            assert answer.headers[b"content-type"] == EVENT_STREAM
            assert answer.headers[b"x-accel-buffering"] == b"no"
            assert (await there.event()).kind == "created"
            worker.send(encode.work_status(handle, 1, 2))
            assert (await there.event()).json()["percent"] == 50
            worker.complete(handle, b"end")
            assert [event.kind for event in await there.events()] == ["complete"]
            assert [event.kind for event in await here.events()] == ["status", "complete"]
            assert relay.relayed() == 1
            answer = await there.ask(get(events_path(job_id), last_event(job_id, 3)))
            assert answer.status == 204

    async def test_through_nginx_each_comes_at_once(self, kept, worker, function, tmp_path):
        with running_nginx(tmp_path, kept.address) as port:
            async with StreamClient(("127.0.0.1", port), is_documented=False) as client:
                client.send(post(b"/" + function, b"", ACCEPT_EVENTS))
                handle, _, _, _ = await worker.take()
                answer = await client.begin()
                kept.jobs.append(answer.headers[b"location"].removeprefix(b"/v1/jobs/"))
                assert (await client.event()).kind == "created"
                for number in range(1, 4):
                    worker.send(encode.work_status(handle, number, 4))
                    assert (await client.event()).json()["percent"] == 25 * number
                worker.complete(handle)
                assert [event.kind for event in await client.events()] == ["complete"]
