"""Which functions may be asked for and how many jobs may be in flight, on both job servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from gatewayx.config.kinds import FunctionBound
from support.gateway import RunningGateway, eventually, running_gateway
from support.http import HttpClient, ask, get, head, post
from support.job_servers import HandWorker, hand_worker
from support.peer import ask_text

pytestmark = pytest.mark.anyio

EXPECT = b"Expect: 100-continue"


@pytest.fixture
async def worker(job_server, function: bytes) -> AsyncIterator[HandWorker]:
    """A worker for the test's function."""
    async with hand_worker(job_server.address, function) as worker:
        yield worker


def gateway_with(job_server, **settings: object):
    """A gateway in front of the job server."""
    bounds = settings.pop("max_function_jobs", ())
    return running_gateway(
        [job_server.address], max_function_jobs=tuple(FunctionBound(*bound) for bound in bounds), **settings
    )


async def is_busy(gateway: RunningGateway, kind: str, *request: bytes) -> None:
    """The request is refused for want of room."""
    answer = await ask(gateway.address, *request)
    assert (answer.status, answer.kind()) == (503, kind)
    assert int(answer.headers[b"retry-after"]) >= 1


class TestAllowedFunctions:
    @pytest.mark.parametrize(
        ("allowed", "asked", "served"),
        [
            ("FN", b"FN", True),
            ("FN", b"FN2", False),
            ("FN", b"fn-other", False),
            ("FN/*", b"FN/", True),
            ("FN/*", b"FN/sub", True),
            ("FN/*", b"FN", False),
            ("FN*", b"FN", True),
            ("*", b"FN-whatever", True),
            ("FN x", b"FN%20x", True),
        ],
    )
    async def test_only_what_is_allowed_is_served(self, job_server, function, allowed, asked, served):
        name = function.decode()
        asked = asked.replace(b"FN", function)
        async with gateway_with(job_server, function=(allowed.replace("FN", name), "unrelated")) as gateway:
            answer = await ask(gateway.address, post(b"/" + asked, b"x", b"X-Gearman-Background: true"))
        if served:
            assert answer.status == 200
        else:
            assert (answer.status, answer.kind()) == (404, "function-not-allowed")
            # Every name that it has ever heard costs gearmand memory for good.
            assert asked not in await ask_text(job_server.address, b"status")

    async def test_it_is_refused_before_the_body_is_read(self, job_server):
        async with gateway_with(job_server, function=("other",)) as gateway, HttpClient(gateway.address) as client:
            answer = await client.ask(head(b"POST", b"/f", b"Content-Length: 5", EXPECT))
            assert (answer.status, answer.kind()) == (404, "function-not-allowed")


class TestJobsInFlight:
    async def test_one_too_many_is_503_until_one_has_ended(self, job_server, function, worker):
        request = post(b"/" + function, b"x")
        async with gateway_with(job_server, max_jobs=2) as gateway, HttpClient(gateway.address) as client:
            client.send(request, request)
            handles = [(await worker.take())[0] for _ in range(2)]
            await is_busy(gateway, "too-many-jobs", request)
            # Before 100 Continue.
            await is_busy(gateway, "too-many-jobs", head(b"POST", b"/" + function, b"Content-Length: 1", EXPECT))
            worker.complete(handles[0])
            await client.response()
            client.send(request)
            handles.append((await worker.take())[0])
            await is_busy(gateway, "too-many-jobs", request)
            for handle in handles[1:]:
                worker.complete(handle)
            assert [(await client.response()).status for _ in range(2)] == [200, 200]

    async def test_a_body_that_comes_slowly_takes_no_place(self, job_server, function, worker):
        async with gateway_with(job_server, max_jobs=1) as gateway, HttpClient(gateway.address) as slow:
            slow.send(head(b"POST", b"/" + function, b"Content-Length: 2"), b"a")
            await gateway.reaches("gateway.open_exchanges", 1)
            async with HttpClient(gateway.address) as quick:
                quick.send(post(b"/" + function, b"x"))
                handle, _, _, _ = await worker.take()
                # What counts is the moment of the submission.
                slow.send(b"b")
                answer = await slow.response()
                assert (answer.status, answer.kind()) == (503, "too-many-jobs")
                worker.complete(handle)
                assert (await quick.response()).status == 200

    async def test_a_background_job_and_one_whose_client_left_give_their_place_back(self, job_server, function, worker):
        request = post(b"/" + function, b"x")
        async with gateway_with(job_server, max_jobs=1) as gateway:
            for _ in range(3):
                answer = await ask(gateway.address, post(b"/" + function, b"x", b"X-Gearman-Background: true"))
                assert answer.status == 200
            for _ in range(3):
                worker.complete((await worker.take())[0])
            async with HttpClient(gateway.address) as leaving:
                leaving.send(request)
                handle, _, _, _ = await worker.take()
            await eventually(lambda: gateway.count("admission.jobs") == 0)
            worker.complete(handle)
            answers = asyncio.create_task(ask(gateway.address, request))
            worker.complete((await worker.take())[0])
            assert (await answers).status == 200

    async def test_a_function_s_own_bound_leaves_others_alone(self, job_server, function):
        name = function.decode()
        one, two, free = function + b"/1", function + b"/2", function
        bounds = ((f"{name}/*", 1), (f"{name}/2", 2))
        async with (
            hand_worker(job_server.address, one, two, free) as worker,
            gateway_with(job_server, max_function_jobs=bounds) as gateway,
            HttpClient(gateway.address) as client,
        ):
            taken = []
            for wanted in (one, two, two, free, free, free):
                client.send(post(b"/" + wanted, b"x"))
                taken.append((await worker.take())[0])
            await is_busy(gateway, "too-many-function-jobs", get(b"/" + one + b"?x"))
            await is_busy(gateway, "too-many-function-jobs", get(b"/" + two + b"?x"))
            for handle in taken:
                worker.complete(handle)
            assert {(await client.response()).status for _ in taken} == {200}
            client.send(post(b"/" + one, b"x"))
            worker.complete((await worker.take())[0])
            assert (await client.response()).status == 200

    async def test_a_function_bound_to_nothing_is_never_submitted(self, job_server, function):
        async with gateway_with(job_server, max_function_jobs=((function.decode(), 0),)) as gateway:
            await is_busy(gateway, "too-many-function-jobs", post(b"/" + function, b"x"))
