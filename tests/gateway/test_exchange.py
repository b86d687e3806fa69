"""What a request means and what its answer says: the tables of docs/http-api.md, on both job servers."""

from __future__ import annotations

import email.utils
import time
from collections.abc import AsyncIterator

import anyio
import pytest

from gatewayx import __version__
from gatewayx.embedded import encode
from gatewayx.gateway import exchange
from gatewayx.gearman.packet import Magic, PacketType
from support.gateway import RunningGateway, running_gateway
from support.http import HttpClient, ask, chunked, get, head, post
from support.job_servers import HandWorker, hand_worker, nobody_listens
from support.peer import ask_text

pytestmark = pytest.mark.anyio

BINARY = bytes(range(256))
LARGE = BINARY * 4096
MAX_RESULT = 300_000


@pytest.fixture
async def gateway(job_server) -> AsyncIterator[RunningGateway]:
    """A gateway in front of the job server, with one connection to it: what disturbs it disturbs everybody."""
    async with running_gateway(
        [job_server.address], connections_per_server=1, max_result_bytes=MAX_RESULT, content_type="text/plain"
    ) as gateway:
        yield gateway


@pytest.fixture
async def worker(job_server, function: bytes) -> AsyncIterator[HandWorker]:
    """A worker for the test's function."""
    async with hand_worker(job_server.address, function) as worker:
        yield worker


@pytest.fixture
async def client(gateway: RunningGateway) -> AsyncIterator[HttpClient]:
    """A client of the gateway."""
    async with HttpClient(gateway.address) as client:
        yield client


async def known_functions(address: tuple[str, int]) -> set[bytes]:
    """The functions of which the job server has ever heard."""
    return {line.split(b"\t")[0] for line in (await ask_text(address, b"status")).splitlines()}


class TestPath:
    # Path with FN for the test's function, and the job's function.
    @pytest.mark.parametrize(
        ("path", "expected"),
        [
            pytest.param(b"/FN", b"FN", id="plain"),
            pytest.param(b"/FN/sub:part", b"FN/sub:part", id="slash-and-colon-belong-to-the-name"),
            pytest.param(b"/FN/", b"FN/", id="trailing-slash"),
            pytest.param(b"//FN//x", b"/FN//x", id="only-the-first-slash-is-none-of-it"),
            pytest.param(b"/FN%2fx%3A%C3%A9", b"FN/x:\xc3\xa9", id="percent-decoded"),
            pytest.param(b"/FN%2541+", b"FN%41+", id="decoded-once-and-plus-is-plus"),
            pytest.param(b"/./FN/../x", b"./FN/../x", id="dot-segments-stay"),
            pytest.param(b"/v1FN", b"v1FN", id="v1-without-slash"),
            pytest.param(b"http://somewhere.example:80/FN", b"FN", id="absolute-form"),
            pytest.param(b"/FN" + b"x" * 350, b"FN" + b"x" * 350, id="long"),
        ],
    )
    async def test_the_path_names_the_function(self, job_server, gateway, client, function, path, expected):
        expected = expected.replace(b"FN", function)
        async with hand_worker(job_server.address, expected) as worker:
            client.send(post(path.replace(b"FN", function), b"workload"))
            handle, found, _, workload = await worker.take()
            assert (found, workload) == (expected, b"workload")
            worker.complete(handle, b"result")
            assert (await client.response()).status == 200

    async def test_a_function_has_up_to_512_bytes_after_decoding(self, job_server, client, function):
        longest = function.ljust(512, b"x")
        async with hand_worker(job_server.address, longest) as worker:
            client.send(post(b"/" + longest[:-1] + b"%78"))
            handle, found, _, _ = await worker.take()
            assert found == longest
            worker.complete(handle)
            assert (await client.response()).status == 200
        assert (await client.ask(post(b"/" + longest + b"x"))).status == 400

    @pytest.mark.parametrize(
        ("target", "status", "kind"),
        [
            pytest.param(b"/", 404, "no-function", id="empty"),
            pytest.param(b"/?query", 404, "no-function", id="empty-with-query"),
            pytest.param(b"http://somewhere.example", 404, "no-function", id="absolute-form-without-path"),
            pytest.param(b"/v1/", 404, "reserved-path", id="reserved"),
            pytest.param(b"/v1/jobs", 404, "reserved-path", id="reserved-with-more"),
            pytest.param(b"/f%00", 400, "malformed-function", id="NUL"),
            pytest.param(b"/f%0a", 400, "malformed-function", id="newline"),
            pytest.param(b"/f%09x", 400, "malformed-function", id="tab"),
            pytest.param(b"/%7f", 400, "malformed-function", id="DEL"),
            pytest.param(b"/" + b"x" * 513, 400, "malformed-function", id="513-bytes"),
        ],
    )
    @pytest.mark.parametrize("method", [b"GET", b"POST"])
    async def test_a_path_without_a_function_is_refused_and_the_connection_lives(
        self, gateway, client, target, status, kind, method
    ):
        if method == b"POST":
            target = target.partition(b"?")[0]
        answer = await client.ask(head(method, target))
        assert (answer.status, answer.kind()) == (status, kind)
        assert b"connection" not in answer.headers
        assert (await client.ask(head(b"OPTIONS", b"*"))).status == 204


class TestMethod:
    @pytest.mark.parametrize(
        ("request_bytes", "workload"),
        [
            pytest.param(post(b"/FN", b"a\0b"), b"a\0b", id="POST"),
            pytest.param(post(b"/FN"), b"", id="POST-empty"),
            pytest.param(head(b"POST", b"/FN"), b"", id="POST-without-body"),
            pytest.param(
                head(b"POST", b"/FN", b"Transfer-Encoding: chunked") + chunked(b"one", b"\0", b"two"),
                b"one\0two",
                id="POST-chunked",
            ),
            pytest.param(head(b"PUT", b"/FN", b"Content-Length: 3") + b"put", b"put", id="PUT"),
            pytest.param(get(b"/FN"), b"", id="GET-without-query"),
            pytest.param(get(b"/FN?"), b"", id="GET-empty-query"),
            pytest.param(get(b"/FN?a=1&b=%20+%00?"), b"a=1&b=%20+%00?", id="GET-query-as-it-is"),
            pytest.param(get(b"/FN?q", b"Content-Length: 0"), b"q", id="GET-with-length-0"),
            pytest.param(head(b"GET", b"/FN?q", b"Transfer-Encoding: chunked") + chunked(), b"q", id="GET-no-chunks"),
            pytest.param(post(b"/FN", BINARY), BINARY, id="every-byte"),
        ],
    )
    async def test_a_request_becomes_a_job_and_its_result_the_answer(
        self, client, worker, function, request_bytes, workload
    ):
        client.send(request_bytes.replace(b"FN", function))
        handle, found, unique, received = await worker.take()
        assert (found, received) == (function, workload)
        worker.complete(handle, b"result of " + received)
        answer = await client.response()
        assert (answer.status, answer.body) == (200, b"result of " + workload)
        assert answer.headers[b"x-gearman-job-handle"] == handle
        assert answer.headers[b"x-gearman-command"] == b"WORK_COMPLETE"
        assert answer.headers[b"x-gearman-unique"] == unique
        assert answer.headers[b"content-type"] == b"text/plain"

    async def test_HEAD_runs_the_job_of_the_GET_and_has_its_head_alone(self, client, worker, function):  # noqa: N802
        client.send(head(b"HEAD", b"/" + function + b"?query"), get(b"/" + function))
        handle, _, _, workload = await worker.take()
        assert workload == b"query"
        worker.complete(handle, b"12345")
        answer = await client.response(to_head=True)
        assert (answer.status, answer.headers[b"content-length"]) == (200, b"5")
        handle, _, _, _ = await worker.take()
        worker.complete(handle, b"next")
        assert (await client.response()).body == b"next"

    @pytest.mark.parametrize("target", [b"/FN", b"*"])
    async def test_OPTIONS_says_what_is_allowed_and_runs_nothing(  # noqa: N802
        self, job_server, client, function, target
    ):
        answer = await client.ask(head(b"OPTIONS", target.replace(b"FN", function)))
        assert answer.status == 204
        assert set(answer.headers[b"allow"].split(b", ")) == {b"GET", b"HEAD", b"POST", b"PUT", b"OPTIONS"}
        assert function not in await known_functions(job_server.address)

    @pytest.mark.parametrize("method", [b"DELETE", b"PATCH", b"TRACE", b"PROPFIND"])
    async def test_another_method_is_405_and_runs_nothing(self, job_server, client, function, method):
        answer = await client.ask(head(method, b"/" + function))
        assert (answer.status, answer.kind()) == (405, "method-not-allowed")
        assert set(answer.headers[b"allow"].split(b", ")) == {b"GET", b"HEAD", b"POST", b"PUT", b"OPTIONS"}
        assert b"connection" not in answer.headers
        assert function not in await known_functions(job_server.address)

    @pytest.mark.parametrize(
        ("request_bytes", "kind"),
        [
            pytest.param(post(b"/FN?query", b"body"), "unexpected-query", id="POST-with-query"),
            pytest.param(post(b"/FN?", b"body"), "unexpected-query", id="POST-with-empty-query"),
            pytest.param(head(b"PUT", b"/FN?q", b"Content-Length: 0"), "unexpected-query", id="PUT-with-query"),
            pytest.param(get(b"/FN", b"Content-Length: 4") + b"body", "unexpected-body", id="GET-with-body"),
            pytest.param(
                head(b"GET", b"/FN", b"Transfer-Encoding: chunked") + chunked(b"body"),
                "unexpected-body",
                id="GET-with-chunks",
            ),
        ],
    )
    async def test_what_would_be_lost_is_400_and_the_connection_lives(
        self, job_server, client, function, request_bytes, kind
    ):
        answer = await client.ask(request_bytes.replace(b"FN", function))
        assert (answer.status, answer.kind()) == (400, kind)
        assert (await client.ask(head(b"OPTIONS", b"*"))).status == 204
        assert function not in await known_functions(job_server.address)

    async def test_HEAD_with_a_body_is_400_without_one(self, client, function):  # noqa: N802
        client.send(head(b"HEAD", b"/" + function, b"Content-Length: 4") + b"body", head(b"OPTIONS", b"*"))
        assert (await client.response(to_head=True)).status == 400
        assert (await client.response()).status == 204


class TestRequestHeaders:
    # RFC 9110 5.1 and 5.5: names without regard to case, white space around values ignored.
    @pytest.mark.parametrize(
        ("line", "unique"),
        [
            (b"X-Gearman-Unique: abc", b"abc"),
            (b"x-gearman-unique:abc", b"abc"),
            (b"X-GEARMAN-UNIQUE: \t abc \t", b"abc"),
            (b"X-Gearman-Unique: a b", b"a b"),
            (b"X-Gearman-Unique: \xc3\xa9", b"\xc3\xa9"),
            (b"X-Gearman-Unique: x", b"x"),
            (b"X-Gearman-Unique: " + b"x" * 63, b"x" * 63),
            (b"X-Gearman-Unique: -", b"-"),
            (b"X-Gearman-Unique: gatewayx", b"gatewayx"),
        ],
    )
    async def test_the_unique_reaches_the_worker_and_comes_back(self, client, worker, function, line, unique):
        client.send(post(b"/" + function, b"workload", line))
        handle, _, found, _ = await worker.take()
        assert found == unique
        worker.complete(handle)
        assert (await client.response()).headers[b"x-gearman-unique"] == unique

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("X-Gearman-Unique", b""),
            ("X-Gearman-Unique", b"x" * 64),
            ("X-Gearman-Unique", b"a\tb"),
            ("X-Gearman-Unique", b"gatewayx-"),
            ("X-Gearman-Unique", b"gatewayx-mine"),
            ("X-Gearman-Background", b""),
            ("X-Gearman-Background", b"yes"),
            ("X-Gearman-Background", b"True"),
            ("X-Gearman-Background", b"1"),
            ("X-Gearman-Background", b"true, true"),
            ("X-Gearman-Priority", b""),
            ("X-Gearman-Priority", b"urgent"),
            ("X-Gearman-Priority", b"High"),
            ("X-Gearman-Timeout", b""),
            ("X-Gearman-Timeout", b"0"),
            ("X-Gearman-Timeout", b"0.000"),
            ("X-Gearman-Timeout", b"-1"),
            ("X-Gearman-Timeout", b"+1"),
            ("X-Gearman-Timeout", b"1e3"),
            ("X-Gearman-Timeout", b"1_0"),
            ("X-Gearman-Timeout", b"0x1"),
            ("X-Gearman-Timeout", b"inf"),
            ("X-Gearman-Timeout", b"nan"),
            ("X-Gearman-Timeout", b"1 s"),
            ("X-Gearman-Timeout", b"1,5"),
            ("X-Gearman-Timeout", b"1.5.5"),
            ("X-Gearman-Timeout", b"\xd9\xa1"),
            ("X-Gearman-Timeout", b"9" * 400),
        ],
    )
    async def test_an_impossible_value_is_400_and_names_the_header(self, job_server, client, function, name, value):
        answer = await client.ask(post(b"/" + function, b"workload", name.encode() + b": " + value))
        assert (answer.status, answer.kind()) == (400, "malformed-header")
        assert name in answer.problem()["detail"]
        assert (await client.ask(head(b"OPTIONS", b"*"))).status == 204
        assert function not in await known_functions(job_server.address)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("X-Gearman-Unique", b"abc"),
            ("X-Gearman-Background", b"false"),
            ("X-Gearman-Priority", b"high"),
            ("X-Gearman-Timeout", b"1"),
        ],
    )
    async def test_a_repeated_header_is_400_and_named(self, client, function, name, value):
        line = name.encode() + b": " + value
        answer = await client.ask(post(b"/" + function, b"", line, line.replace(b"X-Gearman", b"x-geARMAN")))
        assert answer.status == 400
        assert name in answer.problem()["detail"]

    async def test_other_headers_mean_nothing(self, client, worker, function):
        client.send(post(b"/" + function, b"", b"X-Gearman-Color: red", b"X-Gearman-Color: blue", b"X-Gearman: 1"))
        handle, _, _, _ = await worker.take()
        worker.complete(handle)
        assert (await client.response()).status == 200

    async def test_a_generated_unique_is_its_own_and_short(self, gateway, job_server, client, worker, function):
        seen = set()
        for _ in range(3):
            client.send(post(b"/" + function, b"the same"))
            handle, _, unique, _ = await worker.take()
            seen.add(unique)
            worker.complete(handle)
            assert (await client.response()).headers[b"x-gearman-unique"] == unique
        async with running_gateway([job_server.address]) as restarted, HttpClient(restarted.address) as other:
            other.send(post(b"/" + function, b"the same"))
            handle, _, unique, _ = await worker.take()
            seen.add(unique)
            worker.complete(handle)
            await other.response()
        assert len(seen) == 4
        assert all(unique.startswith(b"gatewayx-") and len(unique) <= 63 for unique in seen)
        assert len({unique.rpartition(b"-")[0] for unique in seen}) == 2

    async def test_equal_requests_without_a_unique_run_each_for_itself(self, gateway, worker, function):
        async with HttpClient(gateway.address) as one, HttpClient(gateway.address) as two:
            for client in (one, two):
                client.send(post(b"/" + function, b"the same"))
            handles = [(await worker.take())[0] for _ in range(2)]
            assert len(set(handles)) == 2
            for handle in handles:
                worker.complete(handle, handle)
            assert {(await one.response()).body, (await two.response()).body} == set(handles)

    @pytest.mark.parametrize(
        ("unique", "workloads"),
        [
            pytest.param(b"a-unique", (b"first", b"discarded"), id="by-unique"),
            pytest.param(b"-", (b"the same", b"the same"), id="by-workload"),
        ],
    )
    async def test_a_job_in_flight_is_joined(self, gateway, worker, function, unique, workloads):
        async with HttpClient(gateway.address) as one, HttpClient(gateway.address) as two:
            one.send(post(b"/" + function, workloads[0], b"X-Gearman-Unique: " + unique))
            handle, _, found, workload = await worker.take()
            assert (found, workload) == (unique, workloads[0])
            two.send(post(b"/" + function, workloads[1], b"X-Gearman-Unique: " + unique))
            await gateway.reaches("pool.outstanding_jobs", 2)
            await upstream_has_read(gateway, function)
            worker.send(encode.work_data(handle, b"part, "))
            worker.complete(handle, b"end")
            for client in (one, two):
                answer = await client.response()
                assert (answer.status, answer.body) == (200, b"part, end")
                assert answer.headers[b"x-gearman-job-handle"] == handle
            await worker.no_job()

    async def test_a_dash_does_not_join_jobs_with_different_workloads(self, gateway, worker, function):
        async with HttpClient(gateway.address) as one, HttpClient(gateway.address) as two:
            one.send(post(b"/" + function, b"1", b"X-Gearman-Unique: -"))
            two.send(post(b"/" + function, b"2", b"X-Gearman-Unique: -"))
            for _ in range(2):
                handle, _, _, workload = await worker.take()
                worker.complete(handle, workload)
            assert [(await one.response()).body, (await two.response()).body] == [b"1", b"2"]


async def upstream_has_read(gateway: RunningGateway, function: bytes) -> None:
    """Return once the job server has handled all that the gateway sent: one connection's answers keep their order."""
    answer = await ask(gateway.address, post(b"/" + function + b"-fence", b"", b"X-Gearman-Background: true"))
    assert answer.status == 200


class TestPriority:
    async def test_priorities_reach_the_worker_in_their_order(self, gateway, job_server, function):
        order = (b"low", b"normal", b"high", None)
        clients = [HttpClient(gateway.address) for _ in order]
        for number, (client, priority) in enumerate(zip(clients, order, strict=True)):
            await client.connect()
            lines = () if priority is None else (b"X-Gearman-Priority: " + priority,)
            client.send(post(b"/" + function, priority or b"none", *lines))
            await job_count(job_server.address, function, number + 1)
        async with hand_worker(job_server.address, function) as worker:
            taken = []
            for _ in order:
                handle, _, _, workload = await worker.take()
                taken.append(workload)
                worker.complete(handle, workload)
            assert taken == [b"high", b"normal", b"none", b"low"]
            for client, priority in zip(clients, order, strict=True):
                assert (await client.response()).body == (priority or b"none")
                await client.close()

    async def test_background_jobs_have_priorities_too(self, client, job_server, function):
        for priority in (b"low", b"normal", b"high"):
            answer = await client.ask(
                post(b"/" + function, priority, b"X-Gearman-Background: true", b"X-Gearman-Priority: " + priority)
            )
            assert answer.status == 200
        async with hand_worker(job_server.address, function) as worker:
            for expected in (b"high", b"normal", b"low"):
                handle, _, _, workload = await worker.take()
                assert workload == expected
                worker.complete(handle)


async def job_count(address: tuple[str, int], function: bytes, count: int) -> None:
    """Return once the job server has this many jobs of the function; fails after some hundred questions."""
    for _ in range(500):
        for line in (await ask_text(address, b"status")).splitlines():
            name, *numbers = line.split(b"\t")
            if name == function and int(numbers[0]) == count:
                return
    raise AssertionError(f"never {count} jobs of {function!r}")


class TestOutcome:
    async def test_every_answer_carries_the_common_headers(self, client, worker, function):
        client.send(post(b"/" + function), head(b"DELETE", b"/"), head(b"OPTIONS", b"*"))
        handle, _, _, _ = await worker.take()
        worker.complete(handle)
        for status in (200, 405, 204):
            answer = await client.response()
            assert answer.status == status
            assert answer.headers[b"server"] == f"gatewayx/{__version__}".encode()
            said_s = email.utils.parsedate_to_datetime(answer.headers[b"date"].decode()).timestamp()
            assert abs(said_s - time.time()) < 5

    async def test_WORK_DATA_is_joined_and_warnings_and_status_stay_out(self, client, worker, function):  # noqa: N802
        client.send(post(b"/" + function))
        handle, _, _, _ = await worker.take()
        worker.send(
            encode.work_status(handle, 1, 2),
            encode.work_data(handle, b"one "),
            encode.work_warning(handle, b"WARNING"),
            encode.work_data(handle, b""),
            encode.work_data(handle, b"two\0 "),
            encode.work_status(handle, 2, 2),
        )
        worker.complete(handle, b"end")
        answer = await client.response()
        assert (answer.status, answer.body) == (200, b"one two\0 end")
        assert answer.headers[b"content-length"] == b"12"

    async def test_an_empty_completion_ends_the_gathered_data(self, client, worker, function):
        client.send(post(b"/" + function))
        handle, _, _, _ = await worker.take()
        worker.send(*(encode.work_data(handle, b"%d," % number) for number in range(1000)))
        worker.complete(handle)
        assert (await client.response()).body == b"".join(b"%d," % number for number in range(1000))

    async def test_an_exception_is_500_with_its_data(self, client, worker, function):
        client.send(post(b"/" + function))
        handle, _, unique, _ = await worker.take()
        worker.send(encode.work_data(handle, b"dropped"), encode.work_exception(handle, b"what\0ever"))
        answer = await client.response()
        assert (answer.status, answer.body) == (500, b"what\0ever")
        assert answer.headers[b"content-type"] == b"text/plain"
        assert answer.headers[b"x-gearman-command"] == b"WORK_EXCEPTION"
        assert answer.headers[b"x-gearman-job-handle"] == handle
        assert answer.headers[b"x-gearman-unique"] == unique

    async def test_a_failure_is_500_and_drops_the_gathered_data(self, client, worker, function):
        client.send(post(b"/" + function))
        handle, _, unique, _ = await worker.take()
        worker.send(encode.work_data(handle, b"GATHERED"), encode.work_fail(handle))
        answer = await client.response()
        assert (answer.status, answer.kind()) == (500, "job-failed")
        assert b"GATHERED" not in answer.body
        assert answer.headers[b"x-gearman-command"] == b"WORK_FAIL"
        assert answer.headers[b"x-gearman-job-handle"] == handle
        assert answer.headers[b"x-gearman-unique"] == unique

    # gearmand drops the connection of a worker that gives more than 8 KiB.
    @pytest.mark.parametrize("size_bytes", [9, 5000])
    async def test_a_reason_behind_a_failure_is_in_the_detail(self, client, worker, function, size_bytes):
        client.send(post(b"/" + function))
        handle, _, _, _ = await worker.take()
        worker.send(encode.packet(Magic.REQUEST, PacketType.WORK_FAIL, handle + b"\0" + b"disk full".ljust(size_bytes)))
        answer = await client.response()
        assert (answer.status, answer.kind()) == (500, "job-failed")
        assert answer.headers[b"x-gearman-command"] == b"WORK_FAIL"
        assert answer.headers[b"x-gearman-job-handle"] == handle
        assert "disk full" in answer.problem()["detail"]
        assert len(answer.problem()["detail"]) < 2000

    # Sizes of the WORK_DATA, then of the WORK_COMPLETE.
    @pytest.mark.parametrize(
        "sizes",
        [
            pytest.param((50_000,) * 6 + (1,), id="all-together"),
            pytest.param((MAX_RESULT + 1,), id="one-completion"),
            pytest.param((MAX_RESULT + 1, 0), id="one-data"),
            pytest.param((1, MAX_RESULT), id="data-then-completion"),
            pytest.param((MAX_RESULT * 20, 0), id="far-too-large"),
        ],
    )
    async def test_a_result_too_large_is_502_and_disturbs_no_other_job(self, gateway, worker, function, sizes):
        async with HttpClient(gateway.address) as one, HttpClient(gateway.address) as two:
            one.send(post(b"/" + function, b"large"))
            large, _, _, _ = await worker.take()
            two.send(post(b"/" + function, b"small"))
            small, _, _, _ = await worker.take()
            worker.send(encode.work_data(small, b"before, "))
            worker.send(*(encode.work_data(large, b"x" * size) for size in sizes[:-1]))
            worker.complete(large, b"x" * sizes[-1])
            worker.complete(small, b"after")
            answer = await one.response()
            assert (answer.status, answer.kind()) == (502, "result-too-large")
            assert answer.headers[b"x-gearman-job-handle"] == large
            assert (await two.response()).body == b"before, after"
            assert gateway.count("pool.connections") == 1
            one.send(post(b"/" + function))
            handle, _, _, _ = await worker.take()
            worker.complete(handle, b"still there")
            assert (await one.response()).body == b"still there"

    @pytest.mark.parametrize("sizes", [(MAX_RESULT,), (MAX_RESULT - 1, 1), (100_000, 100_000, 100_000)])
    async def test_a_result_of_the_largest_size_is_whole(self, client, worker, function, sizes):
        parts = [bytes([65 + number]) * size for number, size in enumerate(sizes)]
        client.send(post(b"/" + function))
        handle, _, _, _ = await worker.take()
        worker.send(*(encode.work_data(handle, part) for part in parts[:-1]))
        worker.complete(handle, parts[-1])
        answer = await client.response()
        assert answer.status == 200
        assert answer.body == b"".join(parts)

    async def test_an_exception_too_large_is_502(self, client, worker, function):
        client.send(post(b"/" + function))
        handle, _, _, _ = await worker.take()
        worker.send(encode.work_exception(handle, b"x" * (MAX_RESULT + 1)))
        answer = await client.response()
        assert (answer.status, answer.kind()) == (502, "result-too-large")

    async def test_a_background_job_is_200_once_it_is_queued(self, gateway, client, job_server, function):
        answer = await client.ask(post(b"/" + function, b"workload", b"x-gearman-background:\ttrue "))
        assert (answer.status, answer.body) == (200, b"")
        assert answer.headers[b"x-gearman-command"] == b"JOB_CREATED"
        assert gateway.count("pool.outstanding_jobs") == 0
        async with hand_worker(job_server.address, function) as worker:
            handle, _, unique, workload = await worker.take()
            assert workload == b"workload"
            assert answer.headers[b"x-gearman-job-handle"] == handle
            assert answer.headers[b"x-gearman-unique"] == unique
            worker.complete(handle)

    async def test_a_background_job_outlives_its_client(self, gateway, job_server, function):
        async with HttpClient(gateway.address) as client:
            client.send(post(b"/" + function, b"kept", b"X-Gearman-Background: true"))
            assert (await client.response()).status == 200
        await gateway.let_go()
        async with hand_worker(job_server.address, function) as worker:
            handle, _, _, workload = await worker.take()
            assert workload == b"kept"
            worker.complete(handle)

    async def test_large_workloads_and_results_pass_unchanged(self, job_server, function):
        async with (
            running_gateway([job_server.address]) as gateway,
            hand_worker(job_server.address, function) as worker,
            HttpClient(gateway.address) as client,
        ):
            client.send(post(b"/" + function, LARGE))
            handle, _, _, workload = await worker.take()
            assert workload == LARGE
            worker.complete(handle, LARGE[::-1])
            answer = await client.response()
            assert answer.status == 200
            assert answer.body == LARGE[::-1]

    async def test_many_clients_get_each_their_own_result(self, gateway, worker, function):
        clients = [await HttpClient(gateway.address).connect() for _ in range(50)]
        for number, client in enumerate(clients):
            client.send(post(b"/" + function, b"%d" % number))
        taken = [await worker.take() for _ in clients]
        for handle, _, _, workload in reversed(taken):
            worker.complete(handle, b"result of " + workload)
        for number, client in enumerate(clients):
            assert (await client.response()).body == b"result of %d" % number
            await client.close()


class TestTimeout:
    @pytest.mark.parametrize(
        ("configured_s", "asked"),
        [
            pytest.param(30.0, b"0.2", id="asked-for-less"),
            pytest.param(0.2, b"3600", id="clamped-to-the-setting"),
            pytest.param(0.2, b"9" * 32, id="clamped-however-large"),
            pytest.param(0.2, None, id="the-setting-is-the-default"),
        ],
    )
    async def test_a_job_without_end_is_504_after_its_timeout(self, job_server, function, configured_s, asked):
        lines = () if asked is None else (b"X-Gearman-Timeout: " + asked,)
        async with (
            running_gateway([job_server.address], job_timeout_s=configured_s) as gateway,
            hand_worker(job_server.address, function) as worker,
            HttpClient(gateway.address) as client,
        ):
            began_s = time.monotonic()
            client.send(post(b"/" + function, b"slow", *lines))
            handle, _, unique, _ = await worker.take()
            answer = await client.response()
            assert 0.2 <= time.monotonic() - began_s < 2
            assert (answer.status, answer.kind()) == (504, "job-timeout")
            assert answer.headers[b"x-gearman-job-handle"] == handle
            assert answer.headers[b"x-gearman-unique"] == unique
            worker.complete(handle, b"TOO LATE")
            client.send(post(b"/" + function, b"next"))
            handle, _, _, _ = await worker.take()
            worker.complete(handle, b"in time")
            assert (await client.response()).body == b"in time"

    async def test_a_timeout_of_a_job_that_nobody_takes_requests_its_cancellation(self, gateway, job_server, function):
        answer = await ask(gateway.address, post(b"/" + function, b"", b"X-Gearman-Timeout: 0.2"))
        assert answer.status == 504
        await dropped(job_server.address, answer.headers[b"x-gearman-job-handle"])
        async with hand_worker(job_server.address, function) as worker:
            await worker.no_job()

    async def test_a_late_completion_is_dropped_and_counted(self, gateway, client, worker, function):
        client.send(post(b"/" + function, b"", b"X-Gearman-Timeout: 0.2"))
        handle, _, _, _ = await worker.take()
        assert (await client.response()).status == 504
        before = gateway.count("pool.dropped_packets")
        worker.send(encode.work_data(handle, b"late"))
        worker.complete(handle, b"later")
        await gateway.reaches("pool.dropped_packets", before + 2)
        assert gateway.count("pool.connections") == 1
        assert gateway.count("pool.abandoned_jobs") == 0


async def dropped(address: tuple[str, int], handle: bytes) -> None:
    """Return once the job server has the job only to throw it away (`show jobs`: handle, retries, dropped, queued)."""
    with anyio.fail_after(2):
        while handle + b"\t0\t1\t" not in await ask_text(address, b"show jobs"):
            pass


class TestHangUp:
    @pytest.mark.parametrize("reset", [False, True])
    async def test_a_client_that_is_gone_frees_its_exchange_and_disturbs_nobody(self, gateway, worker, function, reset):
        async with HttpClient(gateway.address) as one, HttpClient(gateway.address) as two:
            one.send(post(b"/" + function, b"gone"))
            gone, _, _, _ = await worker.take()
            two.send(post(b"/" + function, b"stays"))
            stays, _, _, _ = await worker.take()
            if reset:
                one.reset()
            else:
                await one.close()
            await gateway.reaches("http.requests_abandoned", 1)
            assert (gateway.count("gateway.open_exchanges"), gateway.count("pool.outstanding_jobs")) == (1, 1)
            worker.complete(gone, b"for nobody")
            worker.complete(stays, b"for two")
            assert (await two.response()).body == b"for two"
            assert gateway.count("pool.connections") == 1
            assert gateway.count("pool.abandoned_jobs") == 0


class TestWithoutJobServer:
    async def test_a_request_is_503_at_once_and_may_be_repeated(self):
        async with running_gateway([nobody_listens(), nobody_listens()]) as gateway:
            began_s = time.monotonic()
            answer = await ask(gateway.address, post(b"/function", b"workload"))
            assert time.monotonic() - began_s < 1
            assert (answer.status, answer.kind()) == (503, "no-job-server")
            assert int(answer.headers[b"retry-after"]) >= 1
            assert b"connection" not in answer.headers


class TestPluginCompat:
    @pytest.fixture
    async def gateway(self, job_server) -> AsyncIterator[RunningGateway]:
        """A gateway that answers as gearmand's HTTP plugin."""
        async with running_gateway([job_server.address], plugin_compat=True, max_result_bytes=1000) as gateway:
            yield gateway

    async def test_the_default_unique_coalesces_on_the_workload(self, client, worker, function):
        client.send(post(b"/" + function, b"workload"))
        handle, _, unique, _ = await worker.take()
        assert unique == b"-"
        worker.complete(handle, b"result")
        answer = await client.response()
        assert (answer.status, answer.body, answer.headers[b"x-gearman-unique"]) == (200, b"result", b"-")

    async def test_a_unique_that_is_given_is_used(self, client, worker, function):
        client.send(post(b"/" + function, b"workload", b"X-Gearman-Unique: mine"))
        handle, _, unique, _ = await worker.take()
        assert unique == b"mine"
        worker.complete(handle)
        assert (await client.response()).status == 200

    @pytest.mark.parametrize(
        ("end", "command"),
        [
            pytest.param(encode.work_fail, b"WORK_FAIL", id="fail"),
            pytest.param(
                lambda handle: encode.packet(Magic.REQUEST, PacketType.WORK_FAIL, handle + b"\0why"),
                b"WORK_FAIL",
                id="fail-with-a-reason",
            ),
            pytest.param(lambda handle: encode.work_exception(handle, b"what"), b"WORK_EXCEPTION", id="raise"),
        ],
    )
    async def test_a_job_that_fails_is_200_with_the_headers_alone(self, client, worker, function, end, command):
        client.send(post(b"/" + function))
        handle, _, _, _ = await worker.take()
        worker.send(encode.work_data(handle, b"dropped"), end(handle))
        answer = await client.response()
        assert (answer.status, answer.body) == (200, b"")
        assert answer.headers[b"x-gearman-command"] == command
        assert answer.headers[b"x-gearman-job-handle"] == handle

    @pytest.mark.parametrize(
        ("request_bytes", "status"),
        [(post(b"/"), 404), (head(b"DELETE", b"/f"), 405), (post(b"/f", b"", b"X-Gearman-Unique: " + b"u" * 64), 400)],
    )
    async def test_errors_have_no_body(self, client, request_bytes, status):
        answer = await client.ask(request_bytes)
        assert (answer.status, answer.body) == (status, b"")
        assert b"content-type" not in answer.headers


class Broken:
    """Stands in for a table of the gateway's own code, and fails."""

    def __contains__(self, value: object) -> bool:
        raise RuntimeError("our own fault")


class TestOurOwnFaults:
    async def test_an_exception_while_a_head_is_read_is_500_and_ends_nothing_else(
        self, gateway, client, worker, function, monkeypatch, caplog
    ):
        async with HttpClient(gateway.address) as other:
            other.send(post(b"/" + function, b"undisturbed"))
            handle, _, _, _ = await worker.take()
            monkeypatch.setattr(exchange, "PRIORITIES", Broken())
            answer = await client.ask(post(b"/" + function, b"body", b"X-Gearman-Priority: low"))
            monkeypatch.undo()
            assert (answer.status, answer.kind()) == (500, "internal-error")
            assert "our own fault" not in answer.body.decode()
            assert [record.exc_info[1].args for record in caplog.records if record.exc_info] == [("our own fault",)]
            worker.complete(handle, b"served")
            assert (await other.response()).body == b"served"
        # Nor the connection it came over.
        client.send(post(b"/" + function, b"next", b"X-Gearman-Priority: low"))
        handle, _, _, _ = await worker.take()
        worker.complete(handle, b"next")
        assert (await client.response()).body == b"next"

    async def test_an_exception_while_a_job_is_submitted_is_500_and_holds_nothing(
        self, gateway, client, worker, function, monkeypatch
    ):
        client.send(post(b"/" + function, b"w", b"X-Gearman-Unique: same"))
        handle, _, _, _ = await worker.take()
        # The problem of a 409, which is looked up when it is answered.
        monkeypatch.setattr(exchange, "UNIQUE_IN_USE", 409)
        async with HttpClient(gateway.address) as other:
            request = post(b"/" + function, b"w", b"X-Gearman-Unique: same", b"X-Gearman-Background: true")
            answer = await other.ask(request)
            assert (answer.status, answer.kind()) == (500, "internal-error")
            worker.complete(handle, b"served")
            assert (await client.response()).body == b"served"
            other.send(post(b"/" + function, b"next"))
            handle, _, _, _ = await worker.take()
            worker.complete(handle, b"next")
            assert (await other.response()).body == b"next"
