"""POST /v1/batch: many jobs in one request, in front of both job servers."""

from __future__ import annotations

import base64
import binascii
import contextlib
from collections.abc import AsyncIterator

import pytest

from gatewayx.embedded.worker import AssignedJob, Worker
from gatewayx.gateway.batch_lines import MOST_LINE_BYTES
from support.batches import NDJSON, PATH, BatchClient, batch, by_number, job
from support.fence import upstream_has_read
from support.gateway import MAX_RESULT, RunningGateway, eventually, running_gateway
from support.http import ask, chunked, head, post
from support.job_servers import hand_worker
from support.peer import ask_text

pytestmark = pytest.mark.anyio

KEY = b"Idempotency-Key: 0123456789012345678901"
DATA = bytes(range(256))
TEXT = '\u00e9\u20ac\U0001f600 "\\\n\0'.encode()


def echo(assigned: AssignedJob) -> bytes:
    """The workload."""
    return assigned.workload


def fail(assigned: AssignedJob) -> None:
    """WORK_FAIL."""
    assigned.fail()


def throw(assigned: AssignedJob) -> None:
    """The workload as WORK_EXCEPTION."""
    assigned.exception(assigned.workload)


def large(assigned: AssignedJob) -> bytes:
    """So many letters as the workload says."""
    return b"x" * int(assigned.workload)


@pytest.fixture
async def workers(job_server, function: bytes) -> AsyncIterator[bytes]:
    """A worker that runs what is named behind the test's function; that name."""
    functions = {b"echo": echo, b"fail": fail, b"throw": throw, b"large": large}
    worker = Worker(job_server.address, {function + b"-" + name: run for name, run in functions.items()})
    await worker.start()
    yield function + b"-"
    await worker.close()


@pytest.fixture
async def client(gateway: RunningGateway) -> AsyncIterator[BatchClient]:
    """A client of the gateway."""
    async with BatchClient(gateway.address) as client:
        yield client


async def queued(address: tuple[str, int], function: bytes) -> int:
    """How many jobs of the function the job server has."""
    for line in (await ask_text(address, b"status")).splitlines():
        name, *counts = line.split(b"\t")
        if name == function:
            return int(counts[0])
    return 0


class TestEnds:
    async def test_each_line_is_answered_as_its_job_ends(self, client, workers):
        found = await client.run(
            job(workers + b"echo", "text", id="a"),
            job(workers + b"fail", id=2),
            job(workers + b"throw", "thrown", id=-3),
            job(workers + b"echo", "gone", id="", background=True),
            job(workers + b"large", str(MAX_RESULT + 1)),
            job(workers + b"echo", "timed", timeout=100, priority="high"),
        )
        assert [found[number].id for number in range(1, 7)] == ["a", 2, -3, "", None, None]
        assert [found[number].status for number in range(1, 7)] == [200, 500, 500, 200, 502, 200]
        assert [found[number].command for number in range(1, 7)] == [
            "WORK_COMPLETE",
            "WORK_FAIL",
            "WORK_EXCEPTION",
            "JOB_CREATED",
            None,
            "WORK_COMPLETE",
        ]
        assert [found[number].body for number in (1, 3, 4, 6)] == [b"text", b"thrown", b"", b"timed"]
        assert (found[2].kind(), found[5].kind()) == ("job-failed", "result-too-large")
        assert all(line.handle.startswith("H:") for line in found.values())
        assert all(line.unique.startswith("gatewayx-") for line in found.values())
        assert len({line.unique for line in found.values()}) == 6
        # The connection goes on.
        assert (await client.ask(head(b"OPTIONS", b"*"))).status == 204

    async def test_they_come_in_the_order_of_the_ends(self, client, worker, function):
        client.send(batch(*(job(function, str(number)) for number in range(3))))
        handles = {}
        for _ in range(3):
            handle, _, _, workload = await worker.take()
            handles[workload] = handle
        answer = await client.begin()
        assert (answer.status, answer.headers[b"content-type"]) == (200, NDJSON)
        for workload in (b"2", b"0", b"1"):
            worker.complete(handles[workload], b"done " + workload)
            piece = await client.piece()
            assert b'"line":%d,' % (int(workload) + 1) in piece
            assert b'"body":"done %b"' % workload in piece
        assert await client.piece() == b""

    @pytest.mark.parametrize("data", [b"", b"x", TEXT, DATA, b"\xff", TEXT * 2000, DATA * 300, b'"' * 60_000])
    @pytest.mark.parametrize("ending", [b"echo", b"throw"])
    async def test_any_bytes_come_through(self, client, workers, data, ending):
        lines = [job(workers + ending, None, workload_base64=base64.b64encode(data).decode())]
        with contextlib.suppress(UnicodeDecodeError):
            lines.append(job(workers + ending, data.decode()))
        found = await client.run(*lines)
        assert [line.body for line in found.values()] == [data] * len(lines)

    async def test_a_thousand_of_8_kib(self, client, workers):
        workloads = {number: f"{number:08}" * 1024 for number in range(1, 1001)}
        lines = [job(workers + b"echo", workload, id=number) for number, workload in workloads.items()]
        # Most clients read nothing before they have sent all.
        await client.send_all(batch(*lines))
        found = by_number(await client.answers())
        assert {number: line.body.decode() for number, line in found.items()} == workloads
        assert all(line.id == number for number, line in found.items())

    async def test_uniques_of_two_lines_are_merged(self, job_server, gateway, client, function):
        unique = (function + b"-u").decode()[-60:]
        client.send(batch(job(function, "w", unique=unique), job(function, "w", unique=unique)))
        await eventually(lambda: gateway.count("pool.outstanding_jobs") == 2)
        await upstream_has_read(gateway, function)
        async with hand_worker(job_server.address, function) as worker:
            handle, _, told, _ = await worker.take()
            assert told == unique.encode()
            worker.complete(handle, b"once")
            found = by_number(await client.answers())
        assert [line.body for line in found.values()] == [b"once", b"once"]
        assert {line.handle for line in found.values()} == {handle.decode()}
        assert {line.unique for line in found.values()} == {unique}
        assert await queued(job_server.address, function) == 0

    async def test_workloads_are_merged_by_a_dash(self, gateway, client, job_server, function):
        client.send(batch(*(job(function, workload, unique="-") for workload in ("a", "b", "a"))))
        await eventually(lambda: gateway.count("pool.outstanding_jobs") == 3)
        await upstream_has_read(gateway, function)
        async with hand_worker(job_server.address, function) as worker:
            for _ in range(2):
                handle, _, _, workload = await worker.take()
                worker.complete(handle, workload * 2)
            found = by_number(await client.answers())
        assert [found[number].body for number in (1, 2, 3)] == [b"aa", b"bb", b"aa"]
        assert {line.unique for line in found.values()} == {"-"}

    async def test_foreground_and_background_of_one_unique_do_not_mix(self, client, worker, function):
        unique = (function + b"-u").decode()[-60:]
        client.send(batch(job(function, "w", unique=unique), job(function, "w", unique=unique, background=True)))
        handle, _, _, _ = await worker.take()
        worker.complete(handle, b"done")
        found = by_number(await client.answers())
        assert found[1].body == b"done"
        assert (found[2].status, found[2].kind()) == (409, "unique-in-use")

    async def test_a_timeout_is_the_line_s_own(self, client, function):
        found = await client.run(
            job(function, "w", timeout=0.05, id="short"), job(function, "w", background=True, timeout=1e300)
        )
        assert (found[1].status, found[1].kind(), found[1].id) == (504, "job-timeout", "short")
        assert "within 0.05 s" in found[1].problem["detail"]
        assert found[2].status == 200


class TestBadLines:
    @pytest.mark.parametrize(
        ("line", "status", "kind"),
        [
            (b"nonsense", 400, "malformed-line"),
            (b"{}", 400, "malformed-line"),
            (b"[]", 400, "malformed-line"),
            (b'{"function":"FN"}', 400, "malformed-line"),
            (b'{"workload":"w"}', 400, "malformed-line"),
            (b'{"function":"FN","workload":"w","workload_base64":"dw=="}', 400, "malformed-line"),
            (b'{"function":"FN","workload_base64":"dw="}', 400, "malformed-line"),
            (b'{"function":"FN","workload":"w","priority":"urgent"}', 400, "malformed-line"),
            (b'{"function":"FN","workload":"w","background":"yes"}', 400, "malformed-line"),
            (b'{"function":"FN","workload":"w","timeout":0}', 400, "malformed-line"),
            (b'{"function":"FN","workload":"w","idempotency_key":"k"}', 400, "malformed-line"),
            (b'{"function":"FN","workload":"w","unique":""}', 400, "malformed-line"),
            (b'{"function":"FN","workload":"w","unique":"%b"}' % (b"u" * 64), 400, "malformed-line"),
            (b'{"function":"FN","workload":"w","unique":"a\\nb"}', 400, "malformed-line"),
            (b'{"function":"FN","workload":"w","unique":" a"}', 400, "malformed-line"),
            (b'{"function":"FN","workload":"w","unique":"gatewayx-a"}', 400, "malformed-line"),
            (b'{"function":"","workload":"w"}', 404, "no-function"),
            (b'{"function":"v1/jobs","workload":"w"}', 404, "reserved-path"),
            (b'{"function":"a\\u0000b","workload":"w"}', 400, "malformed-function"),
            (b'{"function":"a\\nb","workload":"w"}', 400, "malformed-function"),
            (b'{"function":"%b","workload":"w"}' % (b"f" * 513), 400, "malformed-function"),
            (b'{"function":"FN","workload":"%b"}' % (b"w" * MOST_LINE_BYTES), 400, "malformed-line"),
            (b'{"function":"FN","workload":"\xff"}', 400, "malformed-line"),
            (b"\0", 400, "malformed-line"),
        ],
    )
    async def test_one_is_answered_by_itself(self, client, workers, line, status, kind):
        good = job(workers + b"echo", "good")
        found = await client.run(good, b"", line.replace(b"FN", workers + b"echo"), good)
        assert [found[number].body for number in (1, 4)] == [b"good", b"good"]
        assert (found[3].status, found[3].kind()) == (status, kind)
        assert (found[3].command, found[3].handle, found[3].unique) == (None, None, None)

    async def test_the_detail_says_what_is_wrong(self, client, workers):
        found = await client.run(
            b'{"id":"i","function":"f","workload":"w","unique":"gatewayx-a"}',
            b'{"id":"j","function":"f","workload":"w","other":1}',
        )
        assert "unique begins with 'gatewayx-'" in found[1].problem["detail"]
        assert "'other'" in found[2].problem["detail"]
        assert [found[1].id, found[2].id] == ["i", "j"]

    async def test_a_thousand_are_answered_and_nothing_is_submitted(self, gateway, client):
        found = await client.run(*[b"{}"] * 1000)
        assert {line.kind() for line in found.values()} == {"malformed-line"}
        assert list(found) == list(range(1, 1001))
        assert gateway.process.counted_in.read()["batch_jobs"] == 0

    async def test_uniques_of_clients_are_refused_where_they_are(self, job_server, workers):
        async with (
            running_gateway([job_server.address], refuse_client_unique=True) as gateway,
            BatchClient(gateway.address) as client,
        ):
            found = await client.run(job(workers + b"echo", "w", unique="u"), job(workers + b"echo", "w"))
        assert (found[1].status, found[1].kind(), found[2].status) == (400, "malformed-line", 200)

    async def test_a_line_on_which_the_gateway_fails_ends_alone(self, client, workers, monkeypatch, caplog):
        def broken(*arguments: object, **more: object) -> None:
            raise ZeroDivisionError

        # One fails as it is read, another one as its answer is written.
        monkeypatch.setattr("gatewayx.gateway.routes.RequestError", broken)
        monkeypatch.setattr(binascii, "b2a_base64", broken)
        good = job(workers + b"echo", "good")
        found = await client.run(
            good,
            b'{"id":"read","function":"v1/x","workload":"w"}',
            job(workers + b"echo", None, workload_base64="/w==", id="written"),
            job(workers + b"throw", None, workload_base64="/w==", id="thrown"),
            good,
        )
        assert [found[number].body for number in (1, 5)] == [b"good", b"good"]
        for number, own_id in ((2, "read"), (3, "written"), (4, "thrown")):
            assert (found[number].id, found[number].status, found[number].kind()) == (own_id, 500, "internal-error")
        assert "ZeroDivisionError" in caplog.text


class TestWholeRequests:
    @pytest.mark.parametrize("body", [b"", b"\n", b" \t\r\n\r\n \n"])
    async def test_an_empty_batch_has_no_lines(self, gateway, client, body):
        answer = await client.ask(post(PATH, body))
        assert (answer.status, answer.body) == (200, b"")
        assert gateway.process.counted_in.read()["batches"] == 1

    @pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\n\n\n"])
    async def test_lines_end_as_they_may(self, client, workers, end):
        line = job(workers + b"echo", "w")
        client.send(post(PATH, line + b"\r\n\r\n" + line + end))
        found = by_number(await client.answers())
        assert {number: found.body for number, found in found.items()} == {1: b"w", 3: b"w"}

    @pytest.mark.parametrize("pieces", [1, 7])
    async def test_a_body_may_come_in_chunks(self, client, workers, pieces):
        body = batch(job(workers + b"echo", "a"), job(workers + b"echo", "b")).partition(b"\r\n\r\n")[2]
        size = -(-len(body) // pieces)
        client.send(head(b"POST", PATH, b"Transfer-Encoding: chunked"))
        client.send(chunked(*(body[at : at + size] for at in range(0, len(body), size))))
        found = by_number(await client.answers())
        assert [found[1].body, found[2].body] == [b"a", b"b"]

    @pytest.mark.parametrize("content_type", [b"application/x-ndjson", b"text/plain", b"application/json", b"?"])
    async def test_its_type_is_never_looked_at(self, client, workers, content_type):
        found = await client.run(job(workers + b"echo", "w"), headers=(b"Content-Type: " + content_type,))
        assert found[1].body == b"w"

    @pytest.mark.parametrize("method", [b"GET", b"HEAD", b"PUT", b"DELETE", b"PATCH"])
    async def test_it_is_sent_with_post(self, client, method):
        answer = await client.ask(head(method, PATH, b"Content-Length: 0"), to_head=method == b"HEAD")
        assert (answer.status, answer.headers[b"allow"]) == (405, b"POST, OPTIONS")
        answer = await client.ask(head(b"OPTIONS", PATH))
        assert (answer.status, answer.headers[b"allow"]) == (204, b"POST, OPTIONS")

    @pytest.mark.parametrize("path", [b"/v1/batch/", b"/v1/batches", b"/v1/batch/x", b"/v1/Batch"])
    async def test_what_is_beside_it_is_nothing(self, client, path):
        answer = await client.ask(post(path, b"{}"))
        assert (answer.status, answer.kind()) == (404, "reserved-path")

    @pytest.mark.parametrize(
        ("request_", "kind"),
        [
            (post(PATH + b"?x", b"{}"), "unexpected-query"),
            (post(PATH, b"{}", KEY), "malformed-header"),
            (post(PATH, b"{}", b"X-Gearman-Background: true"), "malformed-header"),
            (post(PATH, b"{}", b"X-Gearman-Unique: u"), "malformed-header"),
        ],
    )
    async def test_what_it_cannot_have_is_refused(self, gateway, client, request_, kind):
        answer = await client.ask(request_)
        assert (answer.status, answer.kind()) == (400, kind)
        assert gateway.process.counted_in.read()["batches"] == 0

    async def test_one_line_too_many_and_nothing_is_submitted(self, job_server, function):
        async with running_gateway([job_server.address], max_batch=3) as gateway:
            async with BatchClient(gateway.address) as client:
                line = job(function, "w", background=True)
                answer = await client.ask(batch(line, b"", line, b"{}", line))
                assert (answer.status, answer.kind()) == (413, "batch-too-long")
                assert "more than 3 lines" in answer.problem()["detail"]
                assert await queued(job_server.address, function) == 0
                found = await client.run(line, b"", line, b" ", line)
                assert [found[number].status for number in (1, 3, 5)] == [200, 200, 200]
            assert gateway.process.counted_in.read()["batch_jobs"] == 3
            assert gateway.process.counted_in.read()["batches"] == 1

    async def test_a_body_that_is_too_large_submits_nothing(self, job_server, function):
        async with running_gateway([job_server.address], max_body_bytes=100) as gateway:
            line = job(function, "w", background=True)
            answer = await ask(gateway.address, batch(line, job(function, "w" * 100, background=True)))
            assert (answer.status, answer.kind()) == (413, "body-too-large")
        assert await queued(job_server.address, function) == 0

    @pytest.mark.parametrize("in_chunks", [False, True])
    async def test_a_body_that_is_cut_submits_nothing(self, gateway, client, job_server, function, in_chunks):
        line = job(function, "w", background=True) + b"\n"
        if in_chunks:
            client.send(head(b"POST", PATH, b"Transfer-Encoding: chunked"), b"%x\r\n%b\r\n" % (len(line), line))
        else:
            client.send(post(PATH, line * 2)[:-1])
        await eventually(lambda: gateway.count("gateway.open_exchanges") == 1)
        await client.close()
        await gateway.let_go()
        assert await queued(job_server.address, function) == 0

    async def test_expect_is_answered(self, client, workers):
        request, _, body = batch(job(workers + b"echo", "w")).partition(b"\r\n\r\n")
        answer = await client.ask(request + b"\r\nExpect: 100-continue\r\n\r\n")
        assert answer.status == 100
        client.send(body)
        assert (await client.answers())[0].body == b"w"

    async def test_what_is_pipelined_keeps_its_order(self, client, workers):
        single = post(b"/" + workers + b"echo", b"single")
        lines = [job(workers + b"echo", str(number)) for number in range(100)]
        client.send(single, batch(*lines), single, batch(), batch(*lines), single)
        for part in ("single", "batch", "single", "empty", "batch", "single"):
            if part == "batch":
                assert len(by_number(await client.answers())) == 100
            else:
                assert (await client.response()).body == (b"" if part == "empty" else b"single")

    async def test_http_1_0_is_answered_to_the_end_of_the_connection(self, client, workers):
        lines = [job(workers + b"echo", str(number)) for number in range(200)]
        client.send(batch(*lines, version=b"1.0", headers=(b"Connection: keep-alive",)))
        found = by_number(await client.answers())
        assert {line.body for line in found.values()} == {b"%d" % number for number in range(200)}
        assert await client.rest() == b""

    async def test_the_plugin_s_answers_are_those_of_its_requests(self, job_server, workers):
        async with (
            running_gateway([job_server.address], plugin_compat=True) as gateway,
            BatchClient(gateway.address) as client,
        ):
            found = await client.run(job(workers + b"echo", "w"), job(workers + b"fail"), b"{}")
        assert [found[number].status for number in (1, 2, 3)] == [200, 200, 400]
        assert (found[1].body, found[2].body, found[2].command) == (b"w", b"", "WORK_FAIL")
        # The gateway makes the uniques also there: lines are not merged by their workloads unasked.
        assert found[1].unique.startswith("gatewayx-")
