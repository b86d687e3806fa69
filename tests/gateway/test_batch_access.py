"""Who may run what in batches, and how much: each line is admitted by itself."""

from __future__ import annotations

import datetime

import pytest
from msgspec import structs

from gatewayx.config.kinds import FunctionBound
from gatewayx.config.rate_kinds import FunctionRate, RateBound
from gatewayx.embedded.worker import AssignedJob, Worker
from support.batches import BatchClient, Line, batch, by_number, job
from support.gateway import eventually, running_gateway
from support.http import HttpClient, ask, post
from support.job_servers import hand_worker
from support.tokens import TokenFile

pytestmark = pytest.mark.anyio

# So slow that nothing comes back while a test runs.
SLOW = 0.01


@pytest.fixture
def file(tmp_path) -> TokenFile:
    """The file of tokens."""
    return TokenFile(tmp_path / "tokens.toml")


def statuses(found: dict[int, Line]) -> list[int]:
    """Of the lines, in their order in the batch."""
    return [found[number].status for number in sorted(found)]


def echo(assigned: AssignedJob) -> bytes:
    """The workload."""
    return assigned.workload


class TestPluginCompat:
    """The plugin reads the path of a function as it comes: the process that owns a unique has to read the same name."""

    @pytest.mark.parametrize(
        ("name", "status"), [("FN", 200), ("FN/x", 200), ("FN x", 400), ("/FN", 400), ("FN?x", 400)]
    )
    async def test_a_unique_needs_a_function_that_a_path_names(self, job_server, function, name, status):
        name = name.replace("FN", function.decode())
        async with (
            running_gateway([job_server.address], plugin_compat=True) as gateway,
            BatchClient(gateway.address) as client,
        ):
            found = await client.run(job(name, "w", unique="u", background=True), job(name, "w", background=True))
        assert statuses(found) == [status, 200]
        assert status == 200 or found[1].kind() == "malformed-line"


class TestTokens:
    async def test_without_one_nothing_is_read(self, job_server, function, file):
        file.write(file.table("shop"))
        async with running_gateway([job_server.address], tokens=str(file.path)) as gateway:
            answer = await ask(gateway.address, batch(job(function, "w", background=True)))
            assert (answer.status, answer.kind()) == (401, "unauthenticated")

    @pytest.mark.parametrize("hidden", [False, True])
    async def test_each_line_asks_for_a_function_that_it_reaches(self, job_server, function, file, hidden):
        name = function.decode()
        file.write(file.table("shop", f'functions = ["{name}", "{name}-img/*"]'))
        async with (
            running_gateway([job_server.address], tokens=str(file.path), hide_functions=hidden) as gateway,
            BatchClient(gateway.address) as client,
        ):
            lines = [job(name + end, "w", background=True) for end in ("", "-img", "-img/a", "x", "")]
            found = await client.run(*lines, headers=(file.line("shop"),))
        refused = (404, "function-not-allowed") if hidden else (403, "not-permitted")
        assert statuses(found) == [200, refused[0], 200, refused[0], 200]
        assert (found[2].kind(), found[4].kind()) == (refused[1], refused[1])

    @pytest.mark.parametrize("left", ["none", "another", "no-tokens", "fewer-functions", "the-same"])
    async def test_what_is_left_of_it_counts_while_a_batch_is_under_way(self, job_server, function, file, left):
        name = function.decode()
        file.write(file.table("shop"))
        async with (
            running_gateway([job_server.address], tokens=str(file.path), max_pipelined=1) as gateway,
            hand_worker(job_server.address, function) as worker,
            BatchClient(gateway.address) as client,
        ):
            client.send(batch(*[job(name, "w")] * 3, headers=(file.line("shop"),)))
            handle, _, _, _ = await worker.take()
            settings = gateway.process.settings
            if left == "no-tokens":
                settings = structs.replace(settings, tokens=None)
            elif left == "another":
                file.write(file.table("other"))
            elif left == "fewer-functions":
                file.write(file.table("shop", 'functions = ["other"]'))
            elif left == "none":
                file.write()
            await gateway.process.reconfigure(settings)
            worker.complete(handle)
            if left in ("no-tokens", "the-same"):
                for _ in range(2):
                    worker.complete((await worker.take())[0])
            found = by_number(await client.answers())
        told = {"none": "unauthenticated", "another": "unauthenticated", "fewer-functions": "not-permitted"}.get(left)
        assert found[1].status == 200
        assert [found[number].problem and found[number].kind() for number in (2, 3)] == [told, told]

    async def test_one_that_expires_ends_with_its_time(self, job_server, function, file):
        file.write(file.table("shop"))
        async with (
            running_gateway([job_server.address], tokens=str(file.path), max_pipelined=1) as gateway,
            hand_worker(job_server.address, function) as worker,
            BatchClient(gateway.address) as client,
        ):
            client.send(batch(*[job(function, "w")] * 2, headers=(file.line("shop"),)))
            handle, _, _, _ = await worker.take()
            expires = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=1.5)
            file.write(file.table("shop", f"expires = {expires.isoformat()}", secret=file.secrets["shop"]))
            await gateway.process.reconfigure(gateway.process.settings)
            await eventually(lambda: datetime.datetime.now(datetime.timezone.utc) > expires)
            worker.complete(handle)
            found = by_number(await client.answers())
        assert (found[1].status, found[2].status, found[2].kind()) == (200, 401, "unauthenticated")

    async def test_a_batch_without_one_ends_where_tokens_are_wanted(self, job_server, function, file):
        file.write(file.table("shop"))
        async with (
            running_gateway([job_server.address], max_pipelined=1) as gateway,
            hand_worker(job_server.address, function) as worker,
            BatchClient(gateway.address) as client,
        ):
            client.send(batch(*[job(function, "w")] * 2))
            handle, _, _, _ = await worker.take()
            await gateway.process.reconfigure(structs.replace(gateway.process.settings, tokens=str(file.path)))
            worker.complete(handle)
            found = by_number(await client.answers())
        assert (found[1].status, found[2].status, found[2].kind()) == (200, 401, "unauthenticated")

    async def test_priority_and_background_are_each_line_s(self, job_server, function, file):
        file.write(file.table("shop", 'highest_priority = "normal"'), file.table("waits", "background = false"))
        async with (
            hand_worker(job_server.address, function) as worker,
            running_gateway([job_server.address], tokens=str(file.path)) as gateway,
            BatchClient(gateway.address) as client,
        ):
            lines = [job(function, "w", background=True, priority=priority) for priority in ("high", "normal", "low")]
            found = await client.run(*lines, headers=(file.line("shop"),))
            assert statuses(found) == [403, 200, 200]
            for _ in range(2):
                worker.complete((await worker.take())[0])
            client.send(batch(job(function, "w", background=True), job(function, "w"), headers=(file.line("waits"),)))
            worker.complete((await worker.take())[0], b"done")
            found = by_number(await client.answers())
            assert (found[1].kind(), found[2].body) == ("not-permitted", b"done")

    async def test_jobs_in_flight_are_those_of_the_token(self, job_server, function, file):
        file.write(file.table("shop", "max_jobs = 2"))
        async with (
            hand_worker(job_server.address, function) as worker,
            running_gateway([job_server.address], tokens=str(file.path)) as gateway,
            BatchClient(gateway.address) as client,
            HttpClient(gateway.address) as other,
        ):
            client.send(batch(*[job(function, "w")] * 4, headers=(file.line("shop"),)))
            taken = [(await worker.take())[0] for _ in range(2)]
            answer = await other.ask(post(b"/" + function, b"w", file.line("shop")))
            assert (answer.status, answer.kind()) == (429, "too-many-token-jobs")
            for handle in taken:
                worker.complete(handle)
            found = by_number(await client.answers())
            assert statuses(found) == [200, 200, 429, 429]
            assert found[3].kind() == "too-many-token-jobs"
            # Each has given its place back.
            client.send(batch(*[job(function, "w")] * 2, headers=(file.line("shop"),)))
            for _ in range(2):
                worker.complete((await worker.take())[0])
            assert statuses(by_number(await client.answers())) == [200, 200]


class TestRates:
    async def test_each_line_is_a_request_of_its_address(self, job_server, function):
        async with (
            running_gateway([job_server.address], rate=RateBound(SLOW, 4)) as gateway,
            BatchClient(gateway.address) as client,
        ):
            good = job(function, "w", background=True)
            # The batch is its first line; one that is no job is a request, too.
            found = await client.run(good, b"{}", b"", good, good, good, b"{}")
            assert [found[number].status for number in (1, 2, 4, 5, 6, 7)] == [200, 400, 200, 200, 429, 429]
            assert found[6].kind() == "rate-exceeded"
            assert 75 <= found[6].problem["retry_after"] <= 120
            assert "your address" in found[6].problem["detail"]
            assert (await client.ask(post(b"/" + function))).status == 429

    async def test_and_of_its_token(self, job_server, function, file):
        file.write(file.table("shop", f"rate = {SLOW}", "burst = 3"))
        async with (
            running_gateway([job_server.address], tokens=str(file.path)) as gateway,
            BatchClient(gateway.address) as client,
        ):
            client.send(batch(*[job(function, "w", background=True)] * 5, headers=(file.line("shop"),)))
            answer = await client.begin()
            # What the head tells is what was left when it left.
            assert answer.headers[b"ratelimit"] == b'"token";r=2;t=100'
            found = by_number(await client.lines())
            assert statuses(found) == [200, 200, 200, 429, 429]
            assert "this token" in found[4].problem["detail"]

    async def test_and_of_its_function_which_costs_the_token_nothing_where_it_refuses(self, job_server, function, file):
        name = function.decode()
        file.write(file.table("shop", f"rate = {SLOW}", "burst = 4"))
        settings = {"tokens": str(file.path), "function_rate": (FunctionRate(name, RateBound(SLOW, 1)),)}
        async with (
            running_gateway([job_server.address], **settings) as gateway,
            BatchClient(gateway.address) as client,
        ):
            limited, free = (job(asked, "w", background=True) for asked in (name, name + "-free"))
            lines = [limited, limited, limited, free, free, free, free]
            found = await client.run(*lines, headers=(file.line("shop"),))
        assert statuses(found) == [200, 429, 429, 200, 200, 200, 429]
        assert "of this function" in found[2].problem["detail"]
        assert "this token" in found[7].problem["detail"]


class TestAdmission:
    async def test_only_what_is_allowed_is_served(self, job_server, function):
        name = function.decode()
        async with (
            running_gateway([job_server.address], function=(name, f"{name}-a*")) as gateway,
            BatchClient(gateway.address) as client,
        ):
            found = await client.run(*(job(name + end, "w", background=True) for end in ("", "-a", "-b", "-ab")))
        assert statuses(found) == [200, 200, 404, 200]
        assert found[3].kind() == "function-not-allowed"

    async def test_what_has_no_worker_is_refused_where_one_is_required(self, job_server, function):
        worker = Worker(job_server.address, {function: echo})
        await worker.start()
        async with (
            running_gateway([job_server.address], require_worker=True, status_interval_s=0.05) as gateway,
            BatchClient(gateway.address) as client,
        ):
            await gateway.told()
            found = await client.run(job(function, "w"), job(function + b"-nobody", "w"))
        await worker.close()
        assert statuses(found) == [200, 503]
        assert found[2].kind() == "no-worker"

    @pytest.mark.parametrize(
        ("bound", "kind"), [("max_jobs", "too-many-jobs"), ("max_function_jobs", "too-many-function-jobs")]
    )
    async def test_bounds_on_jobs_in_flight_hold(self, job_server, function, bound, kind):
        setting = 2 if bound == "max_jobs" else (FunctionBound(function.decode(), 2),)
        async with (
            hand_worker(job_server.address, function) as worker,
            running_gateway([job_server.address], **{bound: setting}) as gateway,
            BatchClient(gateway.address) as client,
        ):
            client.send(batch(*[job(function, "w")] * 4))
            for handle in [(await worker.take())[0] for _ in range(2)]:
                worker.complete(handle)
            found = by_number(await client.answers())
            assert statuses(found) == [200, 200, 503, 503]
            assert found[3].kind() == kind
            assert gateway.process.counted_in.read()["admission_refused"] == 2
            await eventually(lambda: gateway.count("admission.jobs") == 0)
