"""Jobs that outlive their requests: how they are submitted, asked for and read, on both job servers."""

from __future__ import annotations

import asyncio
import datetime
import re
import time
from typing import Any

import pytest

from gatewayx.embedded import encode
from gatewayx.gearman.packet import Magic, PacketType
from support.fault_proxy import DOWN, FaultProxy
from support.fence import upstream_has_read
from support.gateway import MAX_RESULT, eventually, running_gateway
from support.http import HttpClient, Response, chunked, get, head, post
from support.job_servers import HandWorker, hand_worker, nobody_listens
from support.kept import ASYNC, EVENTS, JOB_FIELDS, KeptClient, at, job_of
from support.peer import dropped, handles
from support.times import NOT_BEFORE, SOON_S, WAIT_S

pytestmark = pytest.mark.anyio

RFC_3339 = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z")
# Headers that differ from answer to answer.
OF_ONE_ANSWER = (b"date", b"x-request-id", b"x-gearman-job-handle", b"x-gearman-unique", b"content-length")
# What a Retry-After of a second may be, once it is jittered.
MOST_RETRY_S = 2


def seconds(told: str | None) -> float:
    """A time as a job tells it."""
    assert told is not None
    assert RFC_3339.fullmatch(told)
    return datetime.datetime.fromisoformat(told.replace("Z", "+00:00")).timestamp()


class TestSubmission:
    async def test_is_202_with_the_job_and_where_it_is(self, kept, worker, function):
        began_s = time.time()
        answer = await kept.http.ask(post(b"/" + function, b"workload", ASYNC))
        job_id = kept.accepted(answer)
        assert answer.status == 202
        assert re.fullmatch(r"k[A-Za-z0-9_-]{40}", job_id)
        assert 1 <= int(answer.headers[b"retry-after"]) <= MOST_RETRY_S
        assert re.fullmatch(rb'"[0-9]+"', answer.headers[b"etag"])
        job = job_of(answer)
        assert (job["state"], job["function"]) == ("queued", function.decode())
        assert (job["progress"], job["started"], job["ended"], job["result"]) == (None, None, None, None)
        assert began_s - 1 <= seconds(job["created"]) <= time.time() + 1
        handle, _, unique, workload = await worker.take()
        assert workload == b"workload"
        assert (answer.headers[b"x-gearman-job-handle"], answer.headers[b"x-gearman-unique"]) == (handle, unique)
        worker.complete(handle)

    async def test_outlives_its_client(self, gateway, kept, worker, function):
        async with HttpClient(gateway.address) as client:
            job_id = kept.accepted(await client.ask(post(b"/" + function, b"w", ASYNC)))
            client.reset()
        await eventually(lambda: gateway.count("http.connections") == 1)
        handle, _, _, _ = await worker.take()
        worker.complete(handle, b"there")
        await kept.until(job_id, lambda job: job["state"] == "succeeded")
        answer = await kept.result(job_id)
        assert (answer.status, answer.body) == (200, b"there")

    async def test_that_ends_within_its_wait_is_answered_with_its_end_and_not_kept(
        self, gateway, kept, worker, function
    ):
        kept.http.send(post(b"/" + function, b"", b"Prefer: respond-async, wait=60"))
        handle, _, unique, _ = await worker.take()
        worker.send_data(handle, b"so")
        worker.complete(handle, b"on")
        answer = await kept.http.response()
        assert (answer.status, answer.body) == (200, b"soon")
        assert b"location" not in answer.headers
        assert b"preference-applied" not in answer.headers
        assert (answer.headers[b"x-gearman-job-handle"], answer.headers[b"x-gearman-unique"]) == (handle, unique)
        assert answer.headers[b"x-gearman-command"] == b"WORK_COMPLETE"

    async def test_that_does_not_end_within_its_wait_is_202_after_it(self, kept, worker, function):
        began_s = time.monotonic()
        job_id = await kept.submit(function, prefer=b"Prefer: wait=1, respond-async")
        assert NOT_BEFORE * 0.7 <= time.monotonic() - began_s < SOON_S
        handle, _, _, _ = await worker.take()
        worker.complete(handle, b"later")
        await kept.until(job_id, lambda job: job["state"] == "succeeded")
        assert (await kept.result(job_id)).body == b"later"

    async def test_whose_client_leaves_within_its_wait_is_cancelled(self, gateway, job_server, function):
        before = await handles(job_server.address)

        async def made() -> set[bytes]:
            while not (found := await handles(job_server.address) - before):
                pass
            return found

        async with HttpClient(gateway.address) as client:
            client.send(post(b"/" + function, b"nobody's", b"Prefer: respond-async, wait=60"))
            new = await asyncio.wait_for(made(), WAIT_S)
        await dropped(job_server.address, *new)
        async with hand_worker(job_server.address, function) as worker:
            await worker.no_job()

    @pytest.mark.parametrize(
        ("method", "lines"),
        [
            (b"PUT", (ASYNC,)),
            (b"GET", (ASYNC,)),
            (b"HEAD", (ASYNC,)),
            (b"HEAD", (EVENTS,)),
            (b"PUT", (EVENTS,)),
            (b"POST", (b"Prefer: wait=0",)),
            (b"POST", (b"Prefer: respond-async=1",)),
            (b"POST", (b"Prefer: respond-sync",)),
            (b"POST", (b"Prefer:",)),
            (b"POST", (b"Accept: */*",)),
        ],
    )
    async def test_what_asks_for_no_kept_job_is_answered_as_ever(
        self, gateway, client, worker, function, method, lines
    ):
        framing = (b"Content-Length: 0",) if method in (b"POST", b"PUT") else ()
        client.send(head(method, b"/" + function, *lines, *framing))
        handle, _, _, _ = await worker.take()
        worker.complete(handle, b"whole")
        answer = await client.response(to_head=method == b"HEAD")
        assert answer.status == 200
        assert b"location" not in answer.headers

    @pytest.mark.parametrize(
        "lines",
        [
            (b"Prefer: respond-async", b"Prefer: respond-async"),
            (b"Prefer: handling=lenient", b"Prefer: RESPOND-ASYNC;foo=bar"),
            (b'Prefer: wait=600;x="a,b" , respond-async, wait=0', b"Prefer: wait=0"),
        ],
    )
    async def test_the_first_of_a_repeated_preference_counts(self, kept, worker, function, lines):
        kept.http.send(post(b"/" + function, b"", *lines))
        handle, _, _, _ = await worker.take()
        if b"wait=600" in lines[0]:
            worker.complete(handle)
            assert (await kept.http.response()).status == 200
            return
        kept.accepted(await kept.http.response())
        worker.complete(handle)

    async def test_wait_is_clamped_however_large_it_is(self, job_server, function):
        async with (
            running_gateway([job_server.address], job_timeout_s=0.5) as gateway,
            KeptClient(gateway.address) as kept,
        ):
            job_id = await kept.submit(function, prefer=b"Prefer: respond-async, wait=" + b"9" * 64)
            assert (await kept.poll(job_id))["state"] == "queued"

    async def test_a_chunked_body_is_its_workload(self, kept, worker, function):
        kept.http.send(head(b"POST", b"/" + function, ASYNC, b"Transfer-Encoding: chunked"), chunked(b"one,", b"two"))
        kept.accepted(await kept.http.response())
        handle, _, _, workload = await worker.take()
        assert workload == b"one,two"
        worker.complete(handle)

    async def test_a_clients_unique_joins_it_to_others(self, gateway, kept, worker, function):
        line = b"X-Gearman-Unique: shared"
        one = await kept.submit(function, b"w", line)
        handle, _, unique, _ = await worker.take()
        other = await kept.submit(function, b"w", line)
        async with HttpClient(gateway.address) as client:
            client.send(post(b"/" + function, b"w", line))
            await gateway.reaches("pool.outstanding_jobs", 3)
            await upstream_has_read(gateway, function)
            worker.complete(handle, b"once")
            assert (await client.response()).body == b"once"
        for job_id in (one, other):
            await kept.until(job_id, lambda job: job["state"] == "succeeded")
            answer = await kept.result(job_id)
            assert (answer.body, answer.headers[b"x-gearman-unique"]) == (b"once", unique)
        assert one != other
        await worker.no_job()

    async def test_without_a_job_server_is_503_and_not_kept(self, function):
        async with running_gateway([nobody_listens()]) as gateway, HttpClient(gateway.address) as client:
            answer = await client.ask(post(b"/" + function, b"", ASYNC))
            assert (answer.status, answer.kind()) == (503, "no-job-server")
            assert b"location" not in answer.headers

    async def test_refusals_of_the_head_are_those_of_any_request(self, client):
        for request, status in (
            (post(b"/f?query", b"", ASYNC), 400),
            (post(b"/", b"", ASYNC), 404),
            (post(b"/f", b"", ASYNC, b"X-Gearman-Timeout: never"), 400),
            (post(b"/f", b"", EVENTS, b"X-Gearman-Background: true"), 400),
        ):
            assert (await client.ask(request)).status == status


class TestState:
    async def test_goes_from_queued_over_running_to_succeeded(self, kept, worker, function):
        job_id = await kept.submit(function)
        queued = await kept.poll(job_id)
        assert queued["state"] == "queued"
        handle, _, _, _ = await worker.take()
        # Nothing is claimed that the job server does not tell: that a worker has it is not among it.
        assert (await kept.poll(job_id))["state"] == "queued"
        worker.send(encode.work_status(handle, 3, 7))
        running = await kept.until(job_id, lambda job: job["state"] == "running")
        assert running["progress"] == {"numerator": 3, "denominator": 7}
        assert seconds(running["started"]) >= seconds(queued["created"])
        assert running["ended"] is None
        worker.send(encode.work_status(handle, 7, 7))
        worker.complete(handle, b"0123456789")
        ended = await kept.until(job_id, lambda job: job["state"] == "succeeded")
        assert ended["progress"] == {"numerator": 7, "denominator": 7}
        assert ended["result"] == {"bytes": 10, "content_type": "text/plain"}
        assert ended["started"] == running["started"]
        assert seconds(ended["ended"]) >= seconds(ended["started"])
        assert seconds(ended["expires"]) - seconds(ended["ended"]) == pytest.approx(300, abs=0.01)
        assert {job["created"] for job in (queued, running, ended)} == {queued["created"]}

    @pytest.mark.parametrize("sign", ["data", "warning", "status"])
    async def test_any_sign_of_the_worker_means_that_it_runs(self, kept, worker, function, sign):
        job_id = await kept.submit(function)
        handle, _, _, _ = await worker.take()
        worker.send(
            encode.work_status(handle, 0, 0) if sign == "status" else getattr(encode, f"work_{sign}")(handle, b"x")
        )
        job = await kept.until(job_id, lambda job: job["state"] == "running")
        assert job["progress"] == ({"numerator": 0, "denominator": 0} if sign == "status" else None)
        worker.complete(handle)

    async def test_a_progress_that_is_no_number_is_told_as_text(self, kept, worker, function):
        job_id = await kept.submit(function)
        handle, _, _, _ = await worker.take()
        worker.send(encode.packet(Magic.REQUEST, PacketType.WORK_STATUS, handle, b"half\x01", b"9" * 10))
        job = await kept.until(job_id, lambda job: job["progress"])
        assert job["progress"]["numerator"] == "half\\x01"
        assert job["progress"]["denominator"] == 9_999_999_999
        worker.complete(handle)

    async def test_while_it_has_not_ended_it_is_told_when_to_come_again(self, kept, worker, function):
        job_id = await kept.submit(function)
        answer = await kept.call(b"GET", at(job_id))
        assert 1 <= int(answer.headers[b"retry-after"]) <= MOST_RETRY_S
        handle, _, _, _ = await worker.take()
        worker.complete(handle)
        await kept.until(job_id, lambda job: job["state"] == "succeeded")
        assert b"retry-after" not in (await kept.call(b"GET", at(job_id))).headers

    async def test_an_etag_is_of_one_state_and_spares_it(self, kept, worker, function):
        job_id = await kept.submit(function)
        first = await kept.call(b"GET", at(job_id))
        tag = first.headers[b"etag"]
        for tags in (tag, b"W/" + tag, b'"x", ' + tag, b"*"):
            same = await kept.call(b"GET", at(job_id), b"If-None-Match: " + tags)
            assert (same.status, same.body, same.headers[b"etag"]) == (304, b"", tag)
            assert b"content-type" not in same.headers
        assert (await kept.call(b"GET", at(job_id), b'If-None-Match: "x"')).status == 200
        handle, _, _, _ = await worker.take()
        seen = {tag}
        for number in range(3):
            worker.send(encode.work_status(handle, number, 3))
            await kept.until(job_id, lambda job, number=number: (job["progress"] or {}).get("numerator") == number)
            changed = await kept.call(b"GET", at(job_id), b"If-None-Match: " + tag)
            assert changed.status == 200
            tag = changed.headers[b"etag"]
            assert tag not in seen
            seen.add(tag)
        worker.complete(handle)
        await kept.until(job_id, lambda job: job["state"] == "succeeded")
        ended = await kept.call(b"GET", at(job_id), b"If-None-Match: " + tag)
        assert ended.status == 200
        assert (await kept.call(b"GET", at(job_id), b"If-None-Match: " + ended.headers[b"etag"])).status == 304

    async def test_a_head_is_as_a_get_without_a_body(self, kept, worker, function):
        job_id = await kept.submit(function)
        for part in ("", "result"):
            whole = await kept.call(b"GET", at(job_id, part))
            alone = await kept.call(b"HEAD", at(job_id, part), to_head=True)
            assert (alone.status, alone.headers[b"content-length"]) == (whole.status, b"%d" % len(whole.body))
            assert alone.headers.keys() == whole.headers.keys()
        handle, _, _, _ = await worker.take()
        worker.complete(handle)


class TestWait:
    async def test_is_over_as_soon_as_the_job_has_ended_for_all_who_wait(self, gateway, kept, worker, function):
        job_id = await kept.submit(function)
        clients = [await HttpClient(gateway.address).connect() for _ in range(50)]
        for client in clients:
            client.send(get(at(job_id, "", "wait=60")))
        await eventually(lambda: gateway.count("gateway.open_exchanges") == len(clients))
        # One of them leaves, and one is cut off.
        await clients.pop().close()
        clients.pop().reset()
        await eventually(lambda: gateway.count("gateway.open_exchanges") == len(clients))
        handle, _, _, _ = await worker.take()
        worker.send(encode.work_status(handle, 1, 2))
        await kept.until(job_id, lambda job: job["progress"])
        assert gateway.count("gateway.open_exchanges") == len(clients)
        worker.complete(handle, b"end")
        for client in clients:
            answer = await client.response()
            assert (answer.status, job_of(answer)["state"]) == (200, "succeeded")
            await client.close()

    async def test_is_over_when_its_time_is(self, kept, function):
        job_id = await kept.submit(function)
        for query in ("wait=0.3", "wait=1", "other=1&wait=0.3&x", "wait=000.3"):
            began_s = time.monotonic()
            assert (await kept.poll(job_id, query))["state"] == "queued"
            assert NOT_BEFORE * 0.15 <= time.monotonic() - began_s < SOON_S

    @pytest.mark.parametrize("query", ["", "wait=0", "wait=0.0", "other", "Wait=60", "x=wait=60", "wait%3D60"])
    async def test_what_asks_for_no_wait_is_answered_at_once(self, kept, function, query):
        job_id = await kept.submit(function)
        assert (await kept.poll(job_id, query))["state"] == "queued"

    @pytest.mark.parametrize(
        "query",
        [
            "wait",
            "wait=",
            "wait=-1",
            "wait=1e3",
            "wait=.5",
            "wait=1.",
            "wait=%31",
            "wait=+1",
            "wait=1&wait=1",
            "wait=x",
        ],
    )
    async def test_one_that_is_none_is_400(self, kept, function, query):
        job_id = await kept.submit(function)
        answer = await kept.call(b"GET", at(job_id, "", query))
        assert (answer.status, answer.kind()) == (400, "unexpected-query")

    @pytest.mark.parametrize(
        "query", ["wait=60", "wait=61", "wait=" + "9" * 200, "wait=" + "0" * 60 + "60." + "9" * 60]
    )
    async def test_however_long_it_is_the_end_ends_it(self, gateway, kept, worker, function, query):
        job_id = await kept.submit(function)
        kept.http.send(get(at(job_id, "", query)))
        await eventually(lambda: gateway.count("gateway.open_exchanges") == 1)
        handle, _, _, _ = await worker.take()
        worker.complete(handle)
        assert job_of(await kept.http.response())["state"] == "succeeded"

    async def test_of_a_result_is_for_the_result(self, gateway, kept, worker, function):
        job_id = await kept.submit(function)
        kept.http.send(get(at(job_id, "result", "wait=60")))
        await eventually(lambda: gateway.count("gateway.open_exchanges") == 1)
        handle, _, _, _ = await worker.take()
        worker.complete(handle, b"it")
        answer = await kept.http.response()
        assert (answer.status, answer.body) == (200, b"it")


async def end_completes(worker: HandWorker, handle: bytes) -> None:
    """Ends well."""
    worker.send(encode.work_status(handle, 1, 2), encode.work_data(handle, b"\xff\0data,"))
    worker.complete(handle, b"end")


async def end_fails(worker: HandWorker, handle: bytes) -> None:
    """Fails."""
    worker.send(encode.work_data(handle, b"dropped"), encode.work_fail(handle))


async def end_fails_with_a_reason(worker: HandWorker, handle: bytes) -> None:
    """Fails, and says why."""
    worker.send(encode.packet(Magic.REQUEST, PacketType.WORK_FAIL, handle + b"\0" + b"disk full"))


async def end_raises(worker: HandWorker, handle: bytes) -> None:
    """Raises an exception."""
    worker.send(encode.work_exception(handle, b"what\0ever"))


async def end_is_too_large(worker: HandWorker, handle: bytes) -> None:
    """Sends more than may be held."""
    worker.complete(handle, b"x" * (MAX_RESULT + 1))


ENDS = {
    end_completes: "succeeded",
    end_fails: "failed",
    end_fails_with_a_reason: "failed",
    end_raises: "failed",
    end_is_too_large: "failed",
}


def likeness(answer: Response) -> tuple[Any, ...]:
    """An answer but for what differs from one to the next."""
    headers = {name: value for name, value in answer.headers.items() if name not in OF_ONE_ANSWER}
    body: Any = answer.body
    if answer.headers[b"content-type"] == b"application/problem+json":
        body = {name: value for name, value in answer.problem().items() if name != "instance"}
    return answer.status, headers, body


class TestResult:
    @pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__.removeprefix("end_"))
    async def test_is_the_answer_of_one_who_has_waited(self, gateway, kept, client, worker, function, end):
        client.send(post(b"/" + function))
        handle, _, _, _ = await worker.take()
        await end(worker, handle)
        waited = await client.response()
        job_id = await kept.submit(function)
        handle, _, unique, _ = await worker.take()
        await end(worker, handle)
        job = await kept.until(job_id, lambda job: job["ended"])
        assert job["state"] == ENDS[end]
        # It is read any number of times.
        for _ in range(3):
            read = await kept.result(job_id)
            assert likeness(read) == likeness(waited)
            assert (read.headers[b"x-gearman-job-handle"], read.headers[b"x-gearman-unique"]) == (handle, unique)
        has_body = read.headers[b"content-type"] == b"text/plain"
        assert job["result"] == ({"bytes": len(read.body), "content_type": "text/plain"} if has_body else None)

    async def test_is_202_while_it_runs(self, kept, worker, function):
        job_id = await kept.submit(function)
        answer = await kept.result(job_id)
        assert answer.status == 202
        assert job_of(answer)["state"] == "queued"
        assert answer.headers[b"location"] == at(job_id)
        assert 1 <= int(answer.headers[b"retry-after"]) <= MOST_RETRY_S
        handle, _, _, _ = await worker.take()
        worker.complete(handle)

    async def test_of_a_lost_job_is_502(self, job_server, function):
        async with (
            FaultProxy(job_server.address) as proxy,
            running_gateway([proxy.address], connections_per_server=1) as gateway,
        ):
            await eventually(lambda: gateway.count("pool.connections") == 1)
            async with KeptClient(gateway.address) as kept:
                job_id = await kept.submit(function)
                proxy.cut(DOWN, 0)
                job = await kept.until(job_id, lambda job: job["ended"])
                assert (job["state"], job["result"]) == ("lost", None)
                answer = await kept.result(job_id)
                assert (answer.status, answer.kind()) == (502, "outcome-unknown")

    @pytest.mark.parametrize(
        ("settings", "line"),
        [
            pytest.param({"kept_timeout_s": 0.5}, (), id="the-setting-is-the-default"),
            pytest.param({"kept_timeout_s": 0.5}, (b"X-Gearman-Timeout: 3600",), id="and-the-most"),
            pytest.param({}, (b"X-Gearman-Timeout: 0.5",), id="asked-for-less"),
        ],
    )
    async def test_of_a_job_without_end_is_504(self, job_server, function, settings, line):
        async with (
            running_gateway([job_server.address], **settings) as gateway,
            KeptClient(gateway.address) as kept,
        ):
            began_s = time.monotonic()
            with gateway.within_a_tick():
                job_id = await kept.submit(function, b"", *line)
            job = await kept.until(job_id, lambda job: job["ended"])
            assert NOT_BEFORE * 0.3 <= time.monotonic() - began_s < SOON_S
            assert (job["state"], job["result"]) == ("timeout", None)
            answer = await kept.result(job_id)
            assert (answer.status, answer.kind()) == (504, "job-timeout")
            await dropped(job_server.address, answer.headers[b"x-gearman-job-handle"])
            async with hand_worker(job_server.address, function) as worker:
                await worker.no_job()

    async def test_its_time_is_that_of_kept_jobs(self, job_server, function):
        async with (
            running_gateway([job_server.address], job_timeout_s=0.2) as gateway,
            KeptClient(gateway.address) as kept,
            hand_worker(job_server.address, function) as worker,
        ):
            long = await kept.submit(function, b"", b"X-Gearman-Timeout: 30")
            default = await kept.submit(function)
            with gateway.within_a_tick():
                short = await kept.submit(function, b"", b"X-Gearman-Timeout: 0.5")
            await kept.until(short, lambda job: job["state"] == "timeout")
            for job_id in (long, default):
                job = await kept.poll(job_id)
                assert job["state"] == "queued"
            taken = [await worker.take() for _ in range(2)]
            for handle, _, _, _ in taken:
                worker.complete(handle)
            for job_id in (long, default):
                await kept.until(job_id, lambda job: job["state"] == "succeeded")


class TestManyAtOnce:
    async def test_each_has_its_own_end(self, gateway, kept, worker, function):
        count = 200
        for number in range(count):
            kept.http.send(post(b"/" + function, b"%d" % number, ASYNC))
        ids = [kept.accepted(await kept.http.response()) for _ in range(count)]
        waiters = [await HttpClient(gateway.address).connect() for _ in range(20)]
        for waiter, job_id in zip(waiters, ids[::10], strict=True):
            waiter.send(get(at(job_id, "result", "wait=60")))
        await eventually(lambda: gateway.count("gateway.open_exchanges") == len(waiters))
        taken = [await worker.take() for _ in ids]
        for handle, _, _, workload in reversed(taken):
            if int(workload) % 3:
                worker.complete(handle, b"result of " + workload)
            else:
                worker.send(encode.work_fail(handle))
        for number, waiter in zip(range(0, count, 10), waiters, strict=True):
            answer = await waiter.response()
            assert answer.status == (200 if number % 3 else 500)
            await waiter.close()
        for number, job_id in enumerate(ids):
            await kept.until(job_id, lambda job: job["ended"])
            answer = await kept.result(job_id)
            assert (answer.status, answer.body == b"result of %d" % number) == (
                (200, True) if number % 3 else (500, False)
            )
        assert set(JOB_FIELDS) == set(await kept.poll(ids[0]))
