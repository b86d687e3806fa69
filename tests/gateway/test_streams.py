"""X-Gearman-Stream: a job's data is the answer while it comes, in front of both job servers."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gatewayx.embedded import encode
from gatewayx.gearman.packet import PacketType
from gatewayx.http.outcomes import OUTCOMES
from support.gateway import MAX_RESULT, RunningGateway, eventually, running_gateway
from support.http import ask, chunked, get, head, post
from support.job_servers import HandWorker, ScriptedJobServer, response
from support.streaming import StreamClient

pytestmark = pytest.mark.anyio

STREAM = b"X-Gearman-Stream: true"
LARGE = bytes(range(256)) * 400


@pytest.fixture
async def client(gateway: RunningGateway) -> AsyncIterator[StreamClient]:
    """A client that reads pieces."""
    async with StreamClient(gateway.address) as client:
        yield client


async def begun(client: StreamClient, worker: HandWorker, function: bytes, data: bytes = b"first") -> bytes:
    """Have a streamed job begin its answer; its handle."""
    client.send(post(b"/" + function, b"workload", STREAM))
    handle, _, unique, workload = await worker.take()
    assert workload == b"workload"
    worker.send_data(handle, data)
    answer = await client.begin()
    assert answer.status == 200
    assert answer.headers[b"content-type"] == b"text/plain"
    assert answer.headers[b"x-gearman-job-handle"] == handle
    assert answer.headers[b"x-gearman-unique"] == unique
    assert b"x-gearman-command" not in answer.headers
    assert await client.piece() == data
    return handle


def outcomes(gateway: RunningGateway) -> list[tuple[str, int]]:
    """How requests have ended so far."""
    metrics = gateway.process.places.metrics()
    return sorted(OUTCOMES[outcome] for _, outcome, _, count in metrics.requests() for _ in range(count))


def results(gateway: RunningGateway) -> list[str]:
    """How jobs have ended so far."""
    metrics = gateway.process.places.metrics()
    return sorted(result for _, _, result, count in metrics.jobs() for _ in range(count))


class TestPieces:
    async def test_each_comes_before_the_next_is_sent(self, gateway, client, worker, function):
        handle = await begun(client, worker, function)
        for piece in (b"x", LARGE, b"0\r\n\r\n"):
            worker.send_data(handle, piece)
            assert b"".join([await client.piece()]) == piece
        worker.complete(handle, b"last")
        assert await client.pieces() == [b"last"]
        # The connection goes on.
        answer = await client.ask(head(b"OPTIONS", b"*"))
        assert answer.status == 204
        assert results(gateway) == ["complete"]
        assert outcomes(gateway) == [("ok", 200), ("ok", 204)]

    async def test_status_warnings_and_empty_data_are_none(self, client, worker, function):
        handle = await begun(client, worker, function)
        worker.send(
            encode.work_status(handle, 1, 2), encode.work_warning(handle, b"WARNING"), encode.work_data(handle, b"")
        )
        worker.complete(handle)
        assert await client.pieces() == []

    async def test_many_in_one_packet_of_the_network_are_all_there(self, client, worker, function):
        client.send(post(b"/" + function, b"", STREAM))
        handle, _, _, _ = await worker.take()
        worker.send(
            *(encode.work_data(handle, b"%d," % number) for number in range(1000)),
            encode.work_complete(handle, b"end"),
        )
        assert (await client.begin()).status == 200
        assert b"".join(await client.pieces()) == b"".join(b"%d," % number for number in range(1000)) + b"end"

    async def test_together_they_may_be_larger_than_any_result(self, client, worker, function):
        handle = await begun(client, worker, function)
        for _ in range(3 * MAX_RESULT // len(LARGE)):
            worker.send_data(handle, LARGE)
            assert b"".join([await client.piece()]) == LARGE
        worker.complete(handle, LARGE)
        assert await client.pieces() == [LARGE]

    async def test_a_GET_is_streamed_as_well(self, client, worker, function):  # noqa: N802
        client.send(get(b"/" + function + b"?query", STREAM))
        handle, _, _, workload = await worker.take()
        worker.send_data(handle, b"one")
        worker.complete(handle, b"two")
        assert workload == b"query"
        assert (await client.begin()).status == 200
        assert b"".join(await client.pieces()) == b"onetwo"

    async def test_to_HTTP_1_0_it_ends_with_the_connection(self, client, worker, function):  # noqa: N802
        client.send(post(b"/" + function, b"", STREAM, b"Connection: keep-alive", version=b"1.0"))
        handle, _, _, _ = await worker.take()
        worker.send_data(handle, b"one")
        answer = await client.begin()
        assert (answer.status, client.in_chunks) == (200, False)
        assert await client.piece() == b"one"
        worker.complete(handle, b"two")
        assert await client.rest() == b"two"

    async def test_behind_an_answer_that_is_not_there_yet_they_wait(self, client, worker, function):
        client.send(post(b"/" + function, b"before"), post(b"/" + function, b"streamed", STREAM))
        jobs = {}
        for _ in range(2):
            handle, _, _, workload = await worker.take()
            jobs[workload] = handle
        pieces = [b"one", LARGE, b"three"]
        for piece in pieces:
            worker.send_data(jobs[b"streamed"], piece)
        worker.complete(jobs[b"streamed"], b"end")
        worker.complete(jobs[b"before"], b"answer")
        assert (await client.response()).body == b"answer"
        assert (await client.begin()).status == 200
        assert b"".join(await client.pieces()) == b"".join(pieces) + b"end"

    async def test_of_another_answer_that_takes_long_no_more_than_a_result_waits(
        self, gateway, client, worker, function
    ):
        client.send(post(b"/" + function, b"before"), post(b"/" + function, b"streamed", STREAM))
        jobs = {}
        for _ in range(2):
            handle, _, _, workload = await worker.take()
            jobs[workload] = handle
        for _ in range(MAX_RESULT // len(LARGE) + 1):
            worker.send_data(jobs[b"streamed"], LARGE)
        await eventually(lambda: results(gateway) == ["abandoned"])
        worker.complete(jobs[b"before"], b"answer")
        assert (await client.response()).body == b"answer"
        answer = await client.response()
        assert (answer.status, answer.kind()) == (502, "result-too-large")

    @pytest.mark.parametrize("value", [b"false", None], ids=["false", "none"])
    async def test_without_it_all_is_one_answer(self, client, worker, function, value):
        client.send(post(b"/" + function, b"", *([b"X-Gearman-Stream: " + value] if value else [])))
        handle, _, _, _ = await worker.take()
        worker.send_data(handle, b"one")
        worker.complete(handle, b"two")
        assert (await client.response()).body == b"onetwo"

    async def test_the_answer_to_HEAD_is_that_of_any_HEAD(self, client, worker, function):  # noqa: N802
        client.send(head(b"HEAD", b"/" + function, STREAM))
        handle, _, _, _ = await worker.take()
        worker.send_data(handle, b"one")
        worker.complete(handle, b"two")
        answer = await client.response(to_head=True)
        assert (answer.status, answer.headers[b"content-length"]) == (200, b"6")


class TestEnds:
    async def test_without_a_piece_a_completion_is_any_answer(self, client, worker, function):
        client.send(post(b"/" + function, b"", STREAM))
        handle, _, _, _ = await worker.take()
        worker.send(encode.work_status(handle, 1, 2), encode.work_data(handle, b""))
        worker.complete(handle, LARGE)
        answer = await client.response()
        assert (answer.status, answer.body) == (200, LARGE)
        assert answer.headers[b"x-gearman-command"] == b"WORK_COMPLETE"

    async def test_without_a_piece_a_failure_and_an_exception_are(self, client, worker, function):
        client.send(post(b"/" + function, b"", STREAM))
        handle, _, _, _ = await worker.take()
        worker.send(encode.work_fail(handle))
        answer = await client.response()
        assert (answer.status, answer.kind()) == (500, "job-failed")
        client.send(post(b"/" + function, b"", STREAM))
        handle, _, _, _ = await worker.take()
        worker.send(encode.work_exception(handle, b"what"))
        answer = await client.response()
        assert (answer.status, answer.body) == (500, b"what")

    @pytest.mark.parametrize("version", [b"1.1", b"1.0"], ids=bytes.decode)
    @pytest.mark.parametrize("end", [encode.work_fail, lambda handle: encode.work_exception(handle, b"what")])
    async def test_a_failure_behind_a_piece_leaves_the_body_unfinished(
        self, gateway, client, worker, function, end, version
    ):
        client.send(post(b"/" + function, b"", STREAM, version=version))
        handle, _, _, _ = await worker.take()
        worker.send_data(handle, b"first")
        assert (await client.begin()).status == 200
        assert await client.piece() == b"first"
        worker.send(end(handle))
        if version == b"1.1":
            assert await client.is_cut() == b""
        else:
            with pytest.raises(ConnectionResetError):
                await client.rest()
        await gateway.let_go()
        assert outcomes(gateway) == [("answer-cut", 200)]
        assert gateway.count("http.answers_cut") == 1

    @pytest.mark.parametrize(
        "end",
        [response(PacketType.WORK_FAIL, b"H:1"), response(PacketType.WORK_EXCEPTION, b"H:1", b"what")],
        ids=["fail", "exception"],
    )
    async def test_a_failure_that_is_read_with_the_first_piece_is_a_whole_answer(self, end):
        async with (
            ScriptedJobServer() as server,
            running_gateway([server.address], connections_per_server=1) as gateway,
            StreamClient(gateway.address) as client,
        ):
            client.send(post(b"/f", b"", STREAM))
            connection = await server.connection()
            await connection.accept(b"H:1")
            pieces = [response(PacketType.WORK_DATA, b"H:1", b"DROPPED")] * 3
            connection.send(*pieces, end)
            answer = await client.response()
            assert (answer.status, b"DROPPED" in answer.body) == (500, False)
            assert b"x-gearman-command" in answer.headers
            assert gateway.count("http.answers_cut") == 0

    async def test_no_end_in_time_leaves_it_unfinished(self, job_server, function, worker):
        async with (
            running_gateway([job_server.address], content_type="text/plain", kept_timeout_s=0.3) as gateway,
            StreamClient(gateway.address) as client,
        ):
            with gateway.within_a_tick():
                await begun(client, worker, function)
            assert await client.is_cut() == b""
            await gateway.let_go()
            assert results(gateway) == ["timeout"]

    async def test_no_piece_in_time_is_504(self, job_server, function, worker):
        async with (
            running_gateway([job_server.address], kept_timeout_s=5.0) as gateway,
            StreamClient(gateway.address) as client,
        ):
            with gateway.within_a_tick():
                client.send(post(b"/" + function, b"", STREAM, b"X-Gearman-Timeout: 0.3"))
                await worker.take()
            answer = await client.response()
            assert (answer.status, answer.kind()) == (504, "job-timeout")

    async def test_its_time_is_that_of_kept_jobs(self, job_server, function, worker):
        async with (
            running_gateway([job_server.address], content_type="text/plain", job_timeout_s=0.05) as gateway,
            StreamClient(gateway.address) as client,
        ):
            handle = await begun(client, worker, function)
            answer = await ask(gateway.address, post(b"/" + function))
            assert answer.kind() == "job-timeout"
            worker.complete(handle, b"end")
            assert await client.pieces() == [b"end"]

    async def test_a_packet_larger_than_any_result_cuts_it(self, gateway, client, worker, function):
        handle = await begun(client, worker, function)
        worker.send_data(handle, b"x" * (MAX_RESULT + 1))
        assert await client.is_cut() == b""
        await gateway.let_go()
        assert results(gateway) == ["too-large"]
        worker.complete(handle)

    async def test_a_client_that_leaves_has_its_job_abandoned(self, gateway, client, worker, function):
        await begun(client, worker, function)
        await client.close()
        await gateway.let_go()
        assert results(gateway) == ["abandoned"]
        assert outcomes(gateway) == [("client-gone", 499)]

    async def test_one_that_does_not_read_loses_its_answer(self, gateway, worker, function):
        async with StreamClient(gateway.address, receive_buffer_bytes=4096) as client:
            handle = await begun(client, worker, function)
            client.writer.transport.pause_reading()
            # More than kernels take for a connection, and a result's bound.
            worker.send(*(encode.work_data(handle, LARGE) for _ in range(200)))
            await eventually(lambda: results(gateway) == ["abandoned"])
            client.writer.transport.resume_reading()
            await client.is_cut()
        await gateway.let_go()
        worker.complete(handle)


class TestAsking:
    @pytest.mark.parametrize(
        ("headers", "named"),
        [
            ([b"X-Gearman-Stream: yes"], "X-Gearman-Stream"),
            ([b"X-Gearman-Stream: True"], "X-Gearman-Stream"),
            ([b"X-Gearman-Stream:"], "X-Gearman-Stream"),
            ([STREAM, STREAM], "X-Gearman-Stream"),
            ([STREAM, b"X-Gearman-Background: true"], "background"),
            ([STREAM, b"X-Gearman-Unique: u"], "X-Gearman-Unique"),
            ([b"X-Gearman-Unique: -", STREAM], "X-Gearman-Unique"),
        ],
    )
    async def test_what_cannot_be_streamed_is_400(self, client, function, headers, named):
        answer = await client.ask(post(b"/" + function, b"", *headers))
        assert (answer.status, answer.kind()) == (400, "malformed-header")
        assert named in answer.problem()["detail"]

    async def test_a_chunked_body_is_a_workload_as_any(self, client, worker, function):
        client.send(head(b"POST", b"/" + function, STREAM, b"Transfer-Encoding: chunked"), chunked(b"ab", b"c"))
        handle, _, _, workload = await worker.take()
        worker.send_data(handle, b"one")
        worker.complete(handle)
        assert workload == b"abc"
        assert (await client.begin()).status == 200
        assert await client.pieces() == [b"one"]

    async def test_the_plugin_has_no_such_header(self, job_server, function, worker):
        async with (
            running_gateway([job_server.address], plugin_compat=True) as gateway,
            StreamClient(gateway.address) as client,
        ):
            client.send(post(b"/" + function, b"", b"X-Gearman-Stream: whatever", STREAM))
            handle, _, _, _ = await worker.take()
            worker.send_data(handle, b"one")
            worker.complete(handle, b"two")
            assert (await client.response()).body == b"onetwo"
