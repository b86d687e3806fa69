"""What a request with an idempotency key is answered while the first one's job runs, and after it has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import NamedTuple

import pytest

from gatewayx.embedded import encode
from gatewayx.gearman.packet import Magic, PacketType
from support.behind import behind
from support.fence import upstream_has_read
from support.gateway import MAX_RESULT, RunningGateway, eventually, running_gateway
from support.http import HttpClient, ask, chunked, head, post
from support.job_servers import HandWorker, ScriptedJobServer, hand_worker, nobody_listens
from support.keys import counted, is_again, is_first, key_line, keyed, known_keys, new_key, waits
from support.peer import dropped
from support.ports import free_port
from support.times import NOT_BEFORE, SOON_S

pytestmark = pytest.mark.anyio

FULL = (b"QUEUE_ERROR", b"Job queue is full")
JOINERS = 5


class End(NamedTuple):
    """How a worker ends a job, and what is answered."""

    packets: Callable[[bytes], tuple[bytes, ...]]
    status: int
    body: bytes | None
    command: bytes | None


def completed(*parts: bytes) -> End:
    """All but the last one as WORK_DATA."""
    return End(
        lambda handle: (
            *(encode.work_data(handle, part) for part in parts[:-1]),
            encode.work_complete(handle, parts[-1]),
        ),
        200,
        b"".join(parts),
        b"WORK_COMPLETE",
    )


ENDS = {
    "text": completed(b"result"),
    "binary": completed(bytes(range(256))),
    "empty": completed(b""),
    "in-parts": completed(b"one,", b"", b"two\0,", b"three"),
    "with-warnings": End(
        lambda handle: (
            encode.work_status(handle, 1, 2),
            encode.work_warning(handle, b"WARNING"),
            encode.work_complete(handle, b"r"),
        ),
        200,
        b"r",
        b"WORK_COMPLETE",
    ),
    "large": completed(bytes(range(256)) * (MAX_RESULT // 256)),
    "largest-in-parts": completed(b"a" * 70_000, b"b" * 70_000, b"c" * (MAX_RESULT - 140_000)),
    "exception": End(
        lambda handle: (encode.work_exception(handle, b"what\0ever"),), 500, b"what\0ever", b"WORK_EXCEPTION"
    ),
    "empty-exception": End(lambda handle: (encode.work_exception(handle, b""),), 500, b"", b"WORK_EXCEPTION"),
    "fail": End(
        lambda handle: (encode.work_data(handle, b"GATHERED"), encode.work_fail(handle)), 500, None, b"WORK_FAIL"
    ),
    "fail-with-a-reason": End(
        lambda handle: (encode.packet(Magic.REQUEST, PacketType.WORK_FAIL, handle + b"\0disk full"),),
        500,
        None,
        b"WORK_FAIL",
    ),
    "too-large": End(lambda handle: (encode.work_complete(handle, b"x" * (MAX_RESULT + 1)),), 502, None, None),
    "too-large-in-parts": End(
        lambda handle: (
            *(encode.work_data(handle, b"x" * 70_000) for _ in range(3)),
            encode.work_complete(handle, b""),
        ),
        502,
        None,
        None,
    ),
}


@pytest.fixture(params=ENDS.values(), ids=ENDS)
def end(request) -> End:
    """Each of them."""
    found: End = request.param
    return found


async def joined(stack: AsyncExitStack, gateway: RunningGateway, request: bytes, count: int) -> list[HttpClient]:
    """So many clients that have asked and wait."""
    clients = []
    for _ in range(count):
        client = await stack.enter_async_context(HttpClient(gateway.address))
        before = gateway.count("gateway.open_exchanges")
        client.send(request)
        await waits(gateway, before)
        clients.append(client)
    return clients


async def ran(client: HttpClient, worker: HandWorker, request: bytes, result: bytes = b"result") -> None:
    """The request is answered with the end of a job of its own."""
    client.send(request)
    handle, _, _, _ = await worker.take()
    worker.complete(handle, result)
    answer = await client.response()
    assert (answer.status, answer.body) == (200, result)
    assert is_first(answer)


async def test_a_job_that_never_left_for_a_job_server_leaves_its_key_free():
    async with behind(1, job_timeout_s=1, server_check_interval_s=60) as all_of:
        [upstream] = all_of.upstreams
        all_of.servers[0].reads = False
        upstream.transport.pause_reading()
        # It fills every buffer, so that it counts as sent and the next one does not.
        with all_of.gateway.within_a_tick():
            stuck = await all_of.send(b"x" * 8 * 1024 * 1024)
            await all_of.gateway.reaches("pool.outstanding_jobs", 1)
        request = keyed(b"f", b"w", new_key())
        answer = await ask(all_of.gateway.address, request)
        assert (answer.status, answer.kind()) == (504, "job-timeout")
        assert answer.problem()["detail"].endswith("nothing was submitted")
        assert not known_keys(all_of.gateway)
        again = await ask(all_of.gateway.address, request)
        assert (again.status, is_first(again)) == (504, True)
        await stuck.close()


class TestAgain:
    async def test_after_the_end_the_answer_is_the_same_and_nothing_runs(self, gateway, client, worker, function, end):
        request = keyed(function, b"workload", new_key())
        client.send(request)
        handle, _, unique, workload = await worker.take()
        assert workload == b"workload"
        worker.send(*end.packets(handle))
        first = await client.response()
        assert first.status == end.status
        assert end.body is None or first.body == end.body
        assert first.headers[b"x-gearman-job-handle"] == handle
        assert first.headers[b"x-gearman-unique"] == unique
        assert first.headers.get(b"x-gearman-command") == end.command
        assert is_first(first)
        for _ in range(3):
            assert is_again(await client.ask(request), first)
        async with HttpClient(gateway.address) as other:
            assert is_again(await other.ask(request), first)
        await worker.no_job()
        assert (counted(gateway, "keys_begun"), counted(gateway, "keys_replayed")) == (1, 4)
        assert known_keys(gateway) == 1

    async def test_before_the_end_all_wait_for_the_one_job(self, gateway, client, worker, function, end):
        request = keyed(function, b"workload", new_key())
        async with AsyncExitStack() as stack:
            client.send(request)
            handle, _, _, _ = await worker.take()
            clients = await joined(stack, gateway, request, JOINERS)
            await worker.no_job()
            assert gateway.count("pool.outstanding_jobs") == 1
            worker.send(*end.packets(handle))
            first = await client.response()
            assert first.status == end.status
            assert is_first(first)
            for each in clients:
                assert is_again(await each.response(), first)
            assert is_again(await client.ask(request), first)
        await worker.no_job()
        assert [counted(gateway, f"keys_{how}") for how in ("begun", "joined", "replayed")] == [1, JOINERS, 1]

    async def test_one_without_a_key_has_its_own_job_beside_it(self, client, worker, function):
        request = keyed(function, b"w", new_key())
        await ran(client, worker, request)
        await ran(client, worker, post(b"/" + function, b"w"), b"another")
        await ran(client, worker, keyed(function, b"w", new_key()), b"a third")
        assert (await client.ask(request)).body == b"result"

    async def test_the_answer_is_that_of_one_without_a_key(self, client, worker, function, end):
        answers = []
        for line in (), (key_line(new_key()),):
            client.send(post(b"/" + function, b"w", *line))
            handle, _, unique, _ = await worker.take()
            worker.send(*end.packets(handle))
            answer = await client.response()
            assert answer.headers[b"x-gearman-job-handle"] == handle
            assert answer.headers[b"x-gearman-unique"] == unique
            answers.append(answer)
        plain, with_key = answers
        assert plain.headers.keys() == with_key.headers.keys()
        assert (plain.status, plain.body if plain.status == 200 else b"") == (
            with_key.status,
            with_key.body if plain.status == 200 else b"",
        )
        assert unique.startswith(b"gatewayx-")


class TestConnections:
    async def test_twice_in_one_pipeline_it_runs_once(self, client, worker, function):
        request = keyed(function, b"w", new_key())
        client.send(request * 3)
        handle, _, _, _ = await worker.take()
        worker.complete(handle, b"once")
        first = await client.response()
        assert (first.body, is_first(first)) == (b"once", True)
        for _ in range(2):
            assert is_again(await client.response(), first)
        await worker.no_job()

    async def test_answers_keep_their_order_among_others(self, client, worker, function):
        known, new = keyed(function, b"known", new_key()), keyed(function, b"new", new_key())
        await ran(client, worker, known, b"known's")
        client.send(new, known, post(b"/" + function, b"plain"), known, new)
        for _ in range(2):
            handle, _, _, workload = await worker.take()
            worker.complete(handle, workload + b"'s")
        bodies = [(await client.response()).body for _ in range(5)]
        assert bodies == [b"new's", b"known's", b"plain's", b"known's", b"new's"]
        await worker.no_job()

    async def test_http_1_0_has_it_too(self, gateway, worker, function):
        key = new_key()
        async with HttpClient(gateway.address) as one:
            one.send(keyed(function, b"w", key, version=b"1.0"))
            handle, _, _, _ = await worker.take()
            worker.complete(handle, b"old")
            first = await one.response()
            assert (first.status, first.body) == (200, b"old")
            assert await one.rest() == b""
        async with HttpClient(gateway.address) as other:
            again = await other.ask(keyed(function, b"w", key, version=b"1.0"))
            assert is_again(again, first)
            assert await other.rest() == b""
        async with HttpClient(gateway.address) as other:
            assert is_again(await other.ask(keyed(function, b"w", key)), first)

    async def test_one_that_closes_has_its_answer_first(self, gateway, client, worker, function):
        key = new_key()
        await ran(client, worker, keyed(function, b"w", key))
        async with HttpClient(gateway.address) as other:
            again = await other.ask(keyed(function, b"w", key, b"Connection: close"))
            assert (again.status, again.headers[b"connection"], is_first(again)) == (200, b"close", False)
            assert await other.rest() == b""

    async def test_an_expectation_is_met(self, client, worker, function):
        key = new_key()
        for _ in range(2):
            client.send(head(b"POST", b"/" + function, key_line(key), b"Expect: 100-continue", b"Content-Length: 1"))
            assert (await client.response()).status == 100
            client.send(b"w")
            if not _:
                handle, _, _, _ = await worker.take()
                worker.complete(handle, b"once")
            answer = await client.response()
            assert (answer.status, answer.body) == (200, b"once")
        assert not is_first(answer)


class TestBodies:
    @pytest.mark.parametrize("pieces", [1, 7])
    @pytest.mark.parametrize("size_bytes", [0, 1, 5_000, 100_000])
    async def test_chunked_or_not_it_is_the_same_workload(self, client, worker, function, size_bytes, pieces):
        body = (bytes(range(256)) * (size_bytes // 256 + 1))[:size_bytes]
        key = new_key()
        step = max(1, -(-size_bytes // pieces))
        parts = [body[begin : begin + step] for begin in range(0, size_bytes, step)]
        in_chunks = head(b"POST", b"/" + function, key_line(key), b"Transfer-Encoding: chunked") + chunked(*parts)
        client.send(in_chunks)
        handle, _, _, workload = await worker.take()
        assert workload == body
        worker.complete(handle, b"result")
        first = await client.response()
        assert is_first(first)
        assert is_again(await client.ask(keyed(function, body, key)), first)
        assert is_again(await client.ask(in_chunks), first)
        changed = body[:-1] + bytes([body[-1] ^ 1]) if body else b"x"
        assert (await client.ask(keyed(function, changed, key))).kind() == "key-reused"
        assert (await client.ask(keyed(function, body + b"\0", key))).kind() == "key-reused"
        await worker.no_job()

    async def test_one_that_comes_byte_by_byte_is_the_same(self, client, worker, function):
        request = keyed(function, b"in pieces", new_key())
        for number in range(2):
            for byte in request:
                client.send(bytes([byte]))
                await asyncio.sleep(0)
            if not number:
                handle, _, _, workload = await worker.take()
                assert workload == b"in pieces"
                worker.complete(handle, b"result")
                first = await client.response()
        assert is_again(await client.response(), first)

    async def test_the_largest_one_is_hashed_as_it_arrives(self, job_server, function):
        async with (
            running_gateway([job_server.address]) as gateway,
            hand_worker(job_server.address, function) as worker,
            HttpClient(gateway.address) as client,
        ):
            size_bytes = gateway.process.settings.max_body_bytes
            body = bytes(range(256)) * (size_bytes // 256)
            assert len(body) == size_bytes
            key = new_key()
            await client.send_all(keyed(function, body, key))
            handle, _, _, workload = await worker.take()
            assert workload == body
            worker.complete(handle, body[:1000])
            first = await client.response()
            assert (first.status, len(first.body)) == (200, 1000)
            await client.send_all(keyed(function, body, key))
            assert is_again(await client.response(), first)
            await client.send_all(keyed(function, body[:-1] + b"\0", key))
            assert (await client.response()).kind() == "key-reused"
            async with HttpClient(gateway.address) as large:
                await large.send_all(keyed(function, body + b"x", new_key()))
                assert (await large.response()).status == 413
            assert known_keys(gateway) == 1
            assert gateway.count("budget.bodies_bytes") == 0

    async def test_of_two_whose_bodies_come_at_once_the_first_whole_one_runs(self, gateway, client, worker, function):
        key = new_key()
        async with HttpClient(gateway.address) as slow, HttpClient(gateway.address) as wrong:
            slow.send(head(b"POST", b"/" + function, key_line(key), b"Content-Length: 4"), b"wo")
            await eventually(lambda: gateway.count("gateway.open_exchanges") == 1)
            wrong.send(head(b"POST", b"/" + function, key_line(key), b"Content-Length: 4"), b"ot")
            await eventually(lambda: gateway.count("gateway.open_exchanges") == 2)
            client.send(keyed(function, b"work", key))
            handle, _, _, _ = await worker.take()
            before = gateway.count("gateway.open_exchanges")
            slow.send(b"rk")
            wrong.send(b"er")
            assert (await wrong.response()).kind() == "key-reused"
            assert gateway.count("gateway.open_exchanges") < before
            worker.complete(handle, b"once")
            first = await client.response()
            assert is_again(await slow.response(), first)
        await worker.no_job()


class TestFingerprint:
    @pytest.mark.parametrize(
        "other",
        [
            pytest.param(lambda function, key: keyed(function, b"x", key), id="workload"),
            pytest.param(lambda function, key: keyed(function, b"", key), id="no-workload"),
            pytest.param(lambda function, key: keyed(function, b"ww", key), id="a-longer-workload"),
            pytest.param(lambda function, key: keyed(function + b"w", b"", key), id="function-and-workload"),
            pytest.param(lambda function, key: keyed(function + b"x", b"w", key), id="function"),
            pytest.param(lambda function, key: keyed(function.upper(), b"w", key), id="case-of-the-function"),
            pytest.param(lambda function, key: keyed(function, b"w", key, b"X-Gearman-Priority: high"), id="high"),
            pytest.param(lambda function, key: keyed(function, b"w", key, b"X-Gearman-Priority: low"), id="low"),
            pytest.param(
                lambda function, key: keyed(function, b"w", key, b"X-Gearman-Background: true"), id="background"
            ),
            pytest.param(
                lambda function, key: keyed(
                    function, b"w", key, b"X-Gearman-Background: true", b"X-Gearman-Priority: high"
                ),
                id="background-and-high",
            ),
        ],
    )
    async def test_another_request_with_the_key_is_422_and_disturbs_nothing(
        self, gateway, client, worker, function, other
    ):
        key = new_key()
        request = keyed(function, b"w", key)
        async with HttpClient(gateway.address) as wrong:
            client.send(request)
            handle, _, _, _ = await worker.take()
            answers = [await wrong.ask(other(function, key))]
            worker.complete(handle, b"undisturbed")
            first = await client.response()
            assert (first.status, first.body) == (200, b"undisturbed")
            answers += [await wrong.ask(other(function, key)) for _ in range(2)]
            for answer in answers:
                assert (answer.status, answer.kind()) == (422, "key-reused")
                assert is_first(answer)
                assert b"x-gearman-job-handle" not in answer.headers
                assert b"retry-after" not in answer.headers
            assert is_again(await client.ask(request), first)
        await worker.no_job()
        assert counted(gateway, "keys_reused") == 3
        assert known_keys(gateway) == 1

    @pytest.mark.parametrize(
        "lines",
        [
            pytest.param((b"X-Gearman-Priority: normal",), id="the-priority-that-is-the-default"),
            pytest.param((b"X-Gearman-Background: false",), id="not-background"),
            pytest.param((b"X-Gearman-Timeout: 20",), id="timeout"),
            pytest.param((b"Content-Type: application/json",), id="content-type"),
            pytest.param((b"User-Agent: another", b"X-Request-Id: mine"), id="whatever-else"),
            pytest.param((b"Prefer: respond-async",), id="preference"),
            pytest.param((b"Prefer: respond-async, wait=3",), id="wait"),
        ],
    )
    async def test_what_does_not_make_another_job_is_no_part_of_it(self, client, worker, function, lines):
        key = new_key()
        client.send(keyed(function, b"w", key))
        handle, _, _, _ = await worker.take()
        worker.complete(handle, b"result")
        first = await client.response()
        assert is_again(await client.ask(keyed(function, b"w", key, *lines)), first)
        await worker.no_job()

    async def test_nor_is_how_the_path_is_written(self, client, worker, function):
        key = new_key()
        await ran(client, worker, keyed(function, b"w", key))
        written = b"%%%02X" % function[0] + function[1:]
        assert not is_first(await client.ask(keyed(written, b"w", key)))
        await worker.no_job()


class TestTimeout:
    async def test_of_the_first_is_504_for_all_and_stays(self, gateway, job_server, client, function):
        key = new_key()
        async with HttpClient(gateway.address) as other:
            with gateway.within_a_tick():
                client.send(keyed(function, b"w", key, b"X-Gearman-Timeout: 0.5"))
                await eventually(lambda: gateway.process.keys.counters()["running"] == 1)
                before = gateway.count("gateway.open_exchanges")
                other.send(keyed(function, b"w", key))
                await waits(gateway, before)
                await upstream_has_read(gateway, function)
            first = await client.response()
            assert (first.status, first.kind(), is_first(first)) == (504, "job-timeout", True)
            assert is_again(await other.response(), first)
        # It is asked to be cancelled, as any that has timed out.
        await dropped(job_server.address, first.headers[b"x-gearman-job-handle"])
        assert is_again(await client.ask(keyed(function, b"w", key)), first)
        assert is_again(await client.ask(keyed(function, b"w", key, b"X-Gearman-Timeout: 5")), first)
        async with hand_worker(job_server.address, function) as worker:
            await worker.no_job()

    async def test_of_one_that_joins_is_its_own_and_the_job_goes_on(self, gateway, client, worker, function):
        key = new_key()
        request = keyed(function, b"w", key)
        client.send(request)
        handle, _, _, _ = await worker.take()
        loop = asyncio.get_running_loop()
        async with HttpClient(gateway.address) as other:
            for _ in range(2):
                began_s = loop.time()
                answer = await other.ask(keyed(function, b"w", key, b"X-Gearman-Timeout: 0.3"))
                assert (answer.status, answer.kind()) == (504, "job-timeout")
                assert NOT_BEFORE * 0.1 <= loop.time() - began_s < SOON_S
            other.send(request)
            await worker.no_job()
            assert gateway.count("pool.abandoned_jobs") == 0
            worker.complete(handle, b"in its time")
            first = await client.response()
            assert (first.status, first.body) == (200, b"in its time")
            assert is_again(await other.response(), first)
            assert is_again(await other.ask(keyed(function, b"w", key, b"X-Gearman-Timeout: 0.3")), first)

    async def test_one_that_joins_with_more_time_has_the_first_ones_end(self, gateway, client, worker, function):
        key = new_key()
        async with HttpClient(gateway.address) as other:
            with gateway.within_a_tick():
                client.send(keyed(function, b"w", key, b"X-Gearman-Timeout: 0.5"))
                await worker.take()
                before = gateway.count("gateway.open_exchanges")
                other.send(keyed(function, b"w", key, b"X-Gearman-Timeout: 20"))
                await waits(gateway, before)
            first = await client.response()
            assert first.status == 504
            assert is_again(await other.response(), first)


class TestJobServer:
    async def test_lost_after_the_job_was_created_is_502_and_stays(self):
        await self.lost(created=True)

    async def test_lost_before_it_said_so_is_502_and_stays(self):
        await self.lost(created=False)

    async def lost(self, *, created: bool) -> None:
        """The connection goes while the job is there, or may be."""
        async with (
            ScriptedJobServer() as server,
            running_gateway([server.address], connections_per_server=1) as gateway,
            HttpClient(gateway.address) as client,
            HttpClient(gateway.address) as other,
        ):
            upstream = await server.connection()
            request = keyed(b"f", b"w", new_key())
            client.send(request)
            await (upstream.accept(b"H:1") if created else upstream.submission())
            before = gateway.count("gateway.open_exchanges")
            other.send(request)
            await waits(gateway, before)
            upstream.close()
            first = await client.response()
            assert (first.status, first.kind()) == (502, "outcome-unknown")
            assert (b"x-gearman-job-handle" in first.headers) == created
            assert is_first(first)
            assert is_again(await other.response(), first)
            upstream = await server.connection()
            for _ in range(2):
                assert is_again(await client.ask(request), first)
            assert upstream.submissions.empty()
            # A new key is served by the connection that came.
            client.send(keyed(b"f", b"w", new_key()))
            await upstream.complete(b"H:2", b"served")
            assert (await client.response()).body == b"served"

    async def test_that_is_not_there_is_503_and_the_next_one_runs(self):
        port = free_port()
        async with (
            running_gateway([("127.0.0.1", port)], connections_per_server=1) as gateway,
            HttpClient(gateway.address) as client,
        ):
            request = keyed(b"f", b"w", new_key())
            for _ in range(2):
                answer = await client.ask(request)
                assert (answer.status, answer.kind(), is_first(answer)) == (503, "no-job-server", True)
                assert int(answer.headers[b"retry-after"]) >= 1
                assert known_keys(gateway) == 0
            async with ScriptedJobServer(port=port) as server:
                upstream = await server.connection()
                await gateway.reaches("pool.connections", 1)
                client.send(request)
                await upstream.complete(b"H:1", b"at last")
                first = await client.response()
                assert (first.status, first.body, is_first(first)) == (200, b"at last", True)
                assert is_again(await client.ask(request), first)
                # Another request may have what a key that was released is used for.
                answer = await client.ask(keyed(b"f", b"other", new_key()[:-1] + b"x", b"X-Gearman-Timeout: 0.2"))
                assert answer.status == 504

    async def test_that_refuses_it_is_503_for_all_who_wait_and_the_next_one_runs(self):
        async with (
            ScriptedJobServer() as server,
            running_gateway([server.address], connections_per_server=1) as gateway,
            HttpClient(gateway.address) as client,
            HttpClient(gateway.address) as other,
        ):
            upstream = await server.connection()
            key = new_key()
            client.send(keyed(b"f", b"w", key))
            await upstream.submission()
            before = gateway.count("gateway.open_exchanges")
            other.send(keyed(b"f", b"w", key))
            await waits(gateway, before)
            upstream.answer(PacketType.ERROR, *FULL)
            first = await client.response()
            assert (first.status, first.kind(), is_first(first)) == (503, "job-refused", True)
            assert "QUEUE_ERROR" in str(first.problem()["detail"])
            assert (await other.response()).kind() == "job-refused"
            assert known_keys(gateway) == 0
            # The key is free for another request, too.
            for client_of_next, body in ((other, b"another"), (client, b"another")):
                client_of_next.send(keyed(b"f", body, key))
                if client_of_next is other:
                    await upstream.complete(b"H:1", b"ran")
                answer = await client_of_next.response()
                assert (answer.status, answer.body, is_first(answer)) == (200, b"ran", client_of_next is other)
            assert (await client.ask(keyed(b"f", b"w", key))).kind() == "key-reused"
            assert counted(gateway, "keys_begun") == 2

    async def test_none_of_many_has_it_and_the_key_is_free(self):
        async with (
            running_gateway([nobody_listens(), nobody_listens()]) as gateway,
            HttpClient(gateway.address) as client,
        ):
            client.send(*(keyed(b"f", b"w", new_key()) for _ in range(20)))
            for _ in range(20):
                assert (await client.response()).kind() == "no-job-server"
            assert known_keys(gateway) == 0

    async def test_with_no_worker_where_one_is_required_the_key_is_free(self, job_server, function):
        async with (
            running_gateway([job_server.address], require_worker=True) as gateway,
            HttpClient(gateway.address) as client,
        ):
            await gateway.told()
            request = keyed(function, b"w", new_key(), b"X-Gearman-Background: true")
            answer = await client.ask(request)
            assert (answer.status, answer.kind()) == (503, "no-worker")
            assert known_keys(gateway) == 0
            async with hand_worker(job_server.address, function) as worker:
                while (first := await client.ask(request)).status == 503:
                    assert first.kind() == "no-worker"
                assert first.status == 200
                assert is_again(await client.ask(request), first)
                handle, _, _, _ = await worker.take()
                worker.complete(handle)
                await worker.no_job()
