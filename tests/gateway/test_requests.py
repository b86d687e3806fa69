"""Which job a request means: the tables of docs/http-api.md, on both job servers."""

from __future__ import annotations

import time

import pytest

from gatewayx.embedded import encode
from support.fence import upstream_has_read
from support.gateway import running_gateway
from support.http import HttpClient, chunked, get, head, post
from support.job_servers import hand_worker
from support.peer import ask_text
from support.times import WAIT_S

pytestmark = pytest.mark.anyio

BINARY = bytes(range(256))


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


async def job_count(address: tuple[str, int], function: bytes, count: int) -> None:
    """Return once the job server has this many jobs of the function; fails after WAIT_S."""
    ends_s = time.monotonic() + WAIT_S
    while time.monotonic() < ends_s:
        for line in (await ask_text(address, b"status")).splitlines():
            name, *numbers = line.split(b"\t")
            if name == function and int(numbers[0]) == count:
                return
    raise AssertionError(f"never {count} jobs of {function!r}")


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
