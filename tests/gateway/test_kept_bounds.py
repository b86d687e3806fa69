"""What bounds jobs that outlive their requests: their number, bytes and times, and all that bounds any job."""

from __future__ import annotations

import datetime
import time

import pytest
from msgspec import structs

from gatewayx.config.kinds import FunctionBound
from gatewayx.config.rate_kinds import RateBound
from gatewayx.config.settings import MEBIBYTE
from gatewayx.core.shared import KEPT_BYTES, KEPT_JOBS
from gatewayx.embedded import encode
from support.gateway import MAX_RESULT, RunningGateway, eventually, running_gateway
from support.http import HttpClient, Response, ask, get, head, post
from support.job_servers import HandWorker, hand_worker
from support.kept import ASYNC, KeptClient, asked, at, job_of
from support.tokens import TokenFile

pytestmark = pytest.mark.anyio

# Of a gateway that is soon full: kept jobs may have a quarter of it.
SMALL_BYTES = 4 * MEBIBYTE
KEPT_PART_BYTES = SMALL_BYTES // 4
# Results that fill that part, and then some.
RESULT_BYTES = 100_000
FILLING = KEPT_PART_BYTES // RESULT_BYTES
MANY = 2 * FILLING
# So many of the largest results fit into another part of that size; what gathers takes an eighth more room.
LIVE = KEPT_PART_BYTES * 8 // (MAX_RESULT * 9)


def now_kept(gateway: RunningGateway) -> dict[str, int]:
    """What the gateway keeps, as it counts itself; fails if all processes together have something else."""
    counters: dict[str, int] = gateway.process.kept.counters()
    assert gateway.process.shared.taken(KEPT_JOBS) == counters["queued"] + counters["running"] + counters["ended"]
    assert gateway.process.shared.taken(KEPT_BYTES) == counters["bytes"]
    return counters


def counted(gateway: RunningGateway, name: str) -> int:
    """What was counted under this name since the start."""
    return gateway.process.counted_in.read()[name]


async def ended(kept: KeptClient, worker: HandWorker, function: bytes, result: bytes = b"", *lines: bytes) -> str:
    """A job that has ended with this result."""
    job_id = await kept.submit(function, b"", *lines)
    handle, _, _, _ = await worker.take()
    worker.complete(handle, result)
    await kept.until(job_id, lambda job: job["ended"])
    return job_id


def is_refused(answer: Response, kind: str, status: int = 503) -> None:
    """Nothing was submitted, and nothing is kept."""
    assert (answer.status, answer.kind()) == (status, kind)
    assert b"location" not in answer.headers


class TestTimeToLive:
    async def test_an_ended_job_is_known_for_so_long_and_then_no_more(self, job_server, function):
        async with (
            # It is asked for within its time, in which the machine may stand still.
            running_gateway([job_server.address], kept_ttl_s=5.0) as gateway,
            hand_worker(job_server.address, function) as worker,
            KeptClient(gateway.address) as kept,
        ):
            job_id = await ended(kept, worker, function, b"x" * 50_000)
            job = await kept.poll(job_id)
            expires_s = datetime.datetime.fromisoformat(job["expires"].replace("Z", "+00:00")).timestamp()
            assert expires_s > time.time()
            await eventually(lambda: not now_kept(gateway)["ended"])
            assert time.time() >= expires_s - 0.01
            assert now_kept(gateway) == dict.fromkeys(("queued", "running", "ended", "bytes", "streams"), 0)
            for part in ("", "result", "events"):
                assert (await kept.call(b"GET", at(job_id, part))).kind() == "job-unknown"
            assert (await kept.cancel(job_id)).kind() == "job-unknown"

    async def test_it_counts_from_the_end(self, job_server, function):
        async with (
            running_gateway([job_server.address], kept_ttl_s=0.5) as gateway,
            hand_worker(job_server.address, function) as worker,
            KeptClient(gateway.address) as kept,
        ):
            job_id = await kept.submit(function)
            handle, _, _, _ = await worker.take()
            assert (await kept.poll(job_id, "wait=1.5"))["state"] == "queued"
            with gateway.within_a_tick():
                worker.complete(handle)
                await kept.until(job_id, lambda job: job["state"] == "succeeded")
            await eventually(lambda: not now_kept(gateway)["ended"])

    async def test_what_is_told_at_first_holds_at_least(self, job_server, function):
        async with (
            running_gateway([job_server.address], kept_timeout_s=7.0, kept_ttl_s=5.0) as gateway,
            KeptClient(gateway.address) as kept,
        ):
            job = await kept.poll(await kept.submit(function))
            created, expires = (
                datetime.datetime.fromisoformat(job[name].replace("Z", "+00:00")) for name in ("created", "expires")
            )
            assert (expires - created).total_seconds() == pytest.approx(12, abs=0.01)


class TestNumber:
    async def test_beyond_it_is_503_until_one_is_forgotten(self, job_server, function):
        async with (
            running_gateway([job_server.address], max_kept_jobs=3) as gateway,
            hand_worker(job_server.address, function) as worker,
            KeptClient(gateway.address) as kept,
        ):
            ids = [await kept.submit(function) for _ in range(2)]
            taken = [await worker.take() for _ in ids]
            for handle, _, _, _ in taken:
                worker.complete(handle)
            ids.append(await ended(kept, worker, function))
            answer = await kept.http.ask(post(b"/" + function, b"", ASYNC))
            is_refused(answer, "too-many-kept-jobs")
            assert int(answer.headers[b"retry-after"]) >= 1
            await worker.no_job()
            # Others are as welcome as ever.
            kept.http.send(post(b"/" + function))
            handle, _, _, _ = await worker.take()
            worker.complete(handle)
            assert (await kept.http.response()).status == 200
            assert (await kept.forget(ids[0])).status == 204
            await kept.submit(function)
            is_refused(await kept.http.ask(post(b"/" + function, b"", ASYNC)), "too-many-kept-jobs")

    async def test_one_that_ends_within_its_wait_has_its_place_back(self, job_server, function):
        async with (
            running_gateway([job_server.address], max_kept_jobs=1) as gateway,
            hand_worker(job_server.address, function) as worker,
            HttpClient(gateway.address) as client,
        ):
            for _ in range(10):
                client.send(post(b"/" + function, b"", b"Prefer: respond-async, wait=60"))
                handle, _, _, _ = await worker.take()
                assert now_kept(gateway)["queued"] == 1
                worker.complete(handle, b"x" * 50_000)
                assert (await client.response()).status == 200
                assert not any(now_kept(gateway).values())

    async def test_a_body_that_comes_late_is_refused_as_well(self, job_server, function):
        async with (
            running_gateway([job_server.address], max_kept_jobs=1) as gateway,
            KeptClient(gateway.address) as kept,
            HttpClient(gateway.address) as late,
        ):
            late.send(head(b"POST", b"/" + function, ASYNC, b"Content-Length: 3"))
            await eventually(lambda: gateway.count("gateway.open_exchanges") == 1)
            await kept.submit(function)
            late.send(b"abc")
            is_refused(await late.response(), "too-many-kept-jobs")
            assert gateway.count("admission.jobs") == 1


class TestBytes:
    async def test_the_oldest_results_make_room_for_newer_ones(self, job_server, function):
        async with (
            running_gateway([job_server.address], max_held_bytes=SMALL_BYTES, max_result_bytes=MAX_RESULT) as gateway,
            hand_worker(job_server.address, function) as worker,
            KeptClient(gateway.address) as kept,
        ):
            ids = []
            for number in range(MANY):
                ids.append(await ended(kept, worker, function, b"%04d" % number * (RESULT_BYTES // 4)))
                assert now_kept(gateway)["bytes"] <= KEPT_PART_BYTES
                assert gateway.count("budget.results_bytes") <= KEPT_PART_BYTES + RESULT_BYTES
            answers = [await kept.result(job_id) for job_id in ids]
            dropped = [answer.status == 410 for answer in answers]
            left = dropped.count(False)
            assert FILLING - 2 <= left <= FILLING
            assert dropped == [True] * (MANY - left) + [False] * left
            assert counted(gateway, "kept_results_dropped") == MANY - left
            for number, answer in enumerate(answers):
                if answer.status == 410:
                    assert answer.kind() == "result-dropped"
                    job = await kept.poll(ids[number])
                    assert (job["state"], job["result"]) == ("succeeded", None)
                else:
                    assert answer.body == b"%04d" % number * (RESULT_BYTES // 4)

    async def test_one_larger_than_all_kept_results_may_be_drops_itself_alone(self, job_server, function):
        async with (
            running_gateway(
                [job_server.address], max_held_bytes=SMALL_BYTES, max_result_bytes=2 * KEPT_PART_BYTES
            ) as gateway,
            hand_worker(job_server.address, function) as worker,
            KeptClient(gateway.address) as kept,
        ):
            small = await ended(kept, worker, function, b"small")
            large = await ended(kept, worker, function, b"x" * (KEPT_PART_BYTES + 1))
            assert (await kept.result(large)).kind() == "result-dropped"
            assert (await kept.poll(large))["state"] == "succeeded"
            assert (await kept.result(small)).body == b"small"
            # Who waits for it has it.
            kept.http.send(post(b"/" + function, b"", b"Prefer: respond-async, wait=60"))
            handle, _, _, _ = await worker.take()
            worker.complete(handle, b"y" * (KEPT_PART_BYTES + 1))
            answer = await kept.http.response()
            assert (answer.status, len(answer.body)) == (200, KEPT_PART_BYTES + 1)

    async def test_who_waits_for_a_result_has_half_of_the_account_at_least(self, job_server, function):
        async with (
            running_gateway([job_server.address], max_held_bytes=SMALL_BYTES, max_result_bytes=MAX_RESULT) as gateway,
            hand_worker(job_server.address, function) as worker,
            KeptClient(gateway.address) as kept,
        ):
            ids = [await ended(kept, worker, function, b"k" * RESULT_BYTES) for _ in range(FILLING)]
            # None of these is whole before all of them are nearly.
            clients = [await HttpClient(gateway.address).connect() for _ in range(LIVE)]
            handles = []
            for client in clients:
                client.send(post(b"/" + function))
                handle, _, _, _ = await worker.take()
                worker.send_data(handle, b"l" * (MAX_RESULT - 1))
                handles.append(handle)
            await eventually(lambda: gateway.count("budget.results_bytes") > MAX_RESULT * len(clients))
            for handle in handles:
                worker.complete(handle, b"l")
            for client in clients:
                answer = await client.response()
                assert (answer.status, len(answer.body)) == (200, MAX_RESULT)
                await client.close()
            # And what is kept has the other half, whoever crowds the account.
            assert [(await kept.result(job_id)).status for job_id in ids] == [200] * len(ids)

    async def test_events_count_and_are_let_go_first(self, job_server, function):
        async with (
            running_gateway([job_server.address], max_held_bytes=SMALL_BYTES, max_result_bytes=MAX_RESULT) as gateway,
            hand_worker(job_server.address, function) as worker,
            KeptClient(gateway.address) as kept,
        ):
            # Each has 64 KiB of events: many more jobs than fit.
            ids = [await kept.submit(function) for _ in range(MANY * 2)]
            for job_id in ids:
                handle, _, _, _ = await worker.take()
                worker.send(*(encode.work_warning(handle, b"w" * 8000) for _ in range(8)))
                await kept.until(job_id, lambda job: job["state"] == "running")
                await worker.settle()
                assert now_kept(gateway)["bytes"] <= KEPT_PART_BYTES
                worker.complete(handle, b"result")
            for job_id in ids:
                await kept.until(job_id, lambda job: job["ended"])
                assert now_kept(gateway)["bytes"] <= KEPT_PART_BYTES
            assert now_kept(gateway)["ended"] == len(ids)


class TestJobsInFlight:
    @pytest.mark.parametrize("bound", ["max_jobs", "max_function_jobs"])
    async def test_it_counts_among_them_until_its_end(self, job_server, function, bound):
        bounds = (
            {"max_jobs": 2} if bound == "max_jobs" else {"max_function_jobs": (FunctionBound(function.decode(), 2),)}
        )
        kind = "too-many-jobs" if bound == "max_jobs" else "too-many-function-jobs"
        async with (
            running_gateway([job_server.address], **bounds) as gateway,
            hand_worker(job_server.address, function) as worker,
            KeptClient(gateway.address) as kept,
        ):
            ids = [await kept.submit(function) for _ in range(2)]
            for lines in ((), (ASYNC,)):
                is_refused(await kept.http.ask(post(b"/" + function, b"", *lines)), kind)
            # What is asked about jobs is none.
            await kept.poll(ids[0])
            handle, _, _, _ = await worker.take()
            worker.complete(handle)
            await kept.until(ids[0], lambda job: job["ended"])
            ids.append(await kept.submit(function))
            is_refused(await kept.http.ask(post(b"/" + function, b"", ASYNC)), kind)
            for job_id in ids[1:]:
                assert (await kept.forget(job_id)).status == 204
            assert (gateway.count("admission.jobs"), gateway.count("admission.functions")) == (0, 0)

    async def test_it_counts_among_those_of_its_token_until_its_end(self, job_server, function, tmp_path):
        file = TokenFile(tmp_path / "tokens.toml")
        file.write(file.table("one", "max_jobs = 1"), file.table("other", "max_jobs = 1"))
        async with (
            running_gateway([job_server.address], tokens=str(file.path)) as gateway,
            hand_worker(job_server.address, function) as worker,
            KeptClient(gateway.address, file.line("one")) as one,
            KeptClient(gateway.address, file.line("other")) as other,
        ):
            for _ in range(3):
                job_id = await one.submit(function)
                for lines in ((), (ASYNC,)):
                    answer = await one.http.ask(post(b"/" + function, b"", file.line("one"), *lines))
                    is_refused(answer, "too-many-token-jobs", 429)
                others = await other.submit(function)
                for _ in range(2):
                    handle, _, _, _ = await worker.take()
                    worker.complete(handle)
                await one.until(job_id, lambda job: job["ended"])
                await other.until(others, lambda job: job["ended"])


class TestAdmission:
    async def test_a_function_without_a_worker_is_refused_before_the_202(self, job_server, function):
        async with running_gateway([job_server.address], require_worker=True) as gateway:
            await gateway.told()
            is_refused(await ask(gateway.address, post(b"/" + function, b"", ASYNC)), "no-worker")
            assert not any(now_kept(gateway).values())

    async def test_a_function_that_is_not_allowed_is_refused_before_the_202(self, job_server):
        async with running_gateway([job_server.address], function=("allowed",)) as gateway:
            is_refused(await ask(gateway.address, post(b"/other", b"", ASYNC)), "function-not-allowed", 404)

    async def test_rates_count_submissions_and_questions(self, job_server, function):
        async with (
            running_gateway([job_server.address], rate=RateBound(0.01, 3)) as gateway,
            HttpClient(gateway.address) as client,
        ):
            answer = await client.ask(post(b"/" + function, b"", ASYNC))
            assert answer.status == 202
            job_id = job_of(answer)["id"]
            assert (await client.ask(get(at(job_id)))).status == 200
            assert (await client.ask(head(b"DELETE", at(job_id)))).status == 204
            is_refused(await client.ask(post(b"/" + function, b"", ASYNC)), "rate-exceeded", 429)
            is_refused(await client.ask(get(at(job_id))), "rate-exceeded", 429)


class TestTokens:
    async def test_a_job_belongs_to_the_name_of_its_token(self, job_server, function, tmp_path):
        file = TokenFile(tmp_path / "tokens.toml")
        # Two of one name, as in a rotation.
        first = file.table("one")
        first_line = file.line("one")
        file.write(first, file.table("one"), file.table("other"))
        second_line, other_line = file.line("one"), file.line("other")
        async with (
            running_gateway([job_server.address], tokens=str(file.path)) as gateway,
            KeptClient(gateway.address, first_line) as kept,
            hand_worker(job_server.address, function) as worker,
        ):
            job_id = await kept.submit(function)
            assert (await asked(gateway.address, at(job_id), second_line)).status == 200
            details = set()
            async with HttpClient(gateway.address) as stranger:
                for method, part in (
                    (b"GET", ""),
                    (b"GET", "result"),
                    (b"GET", "events"),
                    (b"POST", "cancel"),
                    (b"DELETE", ""),
                ):
                    for wanted in (job_id, "k" + "A" * 40):
                        answer = await stranger.ask(head(method, at(wanted, part), other_line, b"Content-Length: 0"))
                        assert (answer.status, answer.kind()) == (404, "job-unknown")
                        details.add(answer.problem()["detail"])
                    assert (await stranger.ask(head(method, at(job_id, part), b"Content-Length: 0"))).status == 401
            assert len(details) == 1
            handle, _, _, _ = await worker.take()
            worker.complete(handle, b"mine")
            await kept.until(job_id, lambda job: job["ended"])
            assert (await kept.result(job_id)).body == b"mine"

    async def test_what_its_token_does_not_reach_is_refused_before_the_202(self, job_server, tmp_path):
        file = TokenFile(tmp_path / "tokens.toml")
        file.write(file.table("one", "functions = ['allowed']"))
        async with running_gateway([job_server.address], tokens=str(file.path)) as gateway:
            is_refused(await ask(gateway.address, post(b"/other", b"", ASYNC, file.line("one"))), "not-permitted", 403)
            is_refused(await ask(gateway.address, post(b"/allowed", b"", ASYNC)), "unauthenticated", 401)


class TestReconfigured:
    async def test_loses_no_job_and_changes_those_that_are_to_come(self, gateway, kept, worker, function):
        settings = gateway.process.settings
        done = await ended(kept, worker, function, b"done")
        running = await kept.submit(function)
        handle, _, _, _ = await worker.take()
        worker.send(encode.work_status(handle, 1, 2))
        await kept.until(running, lambda job: job["progress"])
        queued = await kept.submit(function)
        async with HttpClient(gateway.address) as waiter:
            waiter.send(get(at(queued, "", "wait=60")))
            await eventually(lambda: gateway.count("gateway.open_exchanges") == 1)
            await gateway.process.reconfigure(structs.replace(settings, max_kept_jobs=2, kept_ttl_s=1.0))
            is_refused(await kept.http.ask(post(b"/" + function, b"", ASYNC)), "too-many-kept-jobs")
            with gateway.within_a_tick():
                worker.complete(handle, b"still")
                await kept.until(running, lambda job: job["ended"])
                assert (await kept.result(running)).body == b"still"
            handle, _, _, _ = await worker.take()
            worker.complete(handle)
            assert job_of(await waiter.response())["state"] == "succeeded"
        # Those that have ended since are known for as long as is set now.
        await eventually(lambda: now_kept(gateway)["ended"] == 1)
        assert (await kept.result(done)).body == b"done"
