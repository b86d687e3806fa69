"""Background jobs outlive their requests: what their Location tells, on both job servers."""

from __future__ import annotations

import json

import pytest

from support.gateway import RunningGateway, eventually
from support.http import HttpClient, Response, get, head, post

pytestmark = pytest.mark.anyio

BACKGROUND = b"X-Gearman-Background: true"


async def submitted(client: HttpClient, function: bytes, *lines: bytes) -> Response:
    """The answer to a submission of a background job."""
    answer = await client.ask(post(b"/" + function, b"workload", BACKGROUND, *lines))
    assert answer.status == 200
    return answer


async def told(client: HttpClient, location: bytes) -> dict[str, object]:
    """What is told of a job."""
    answer = await client.ask(get(location))
    assert (answer.status, answer.headers[b"content-type"]) == (200, b"application/json")
    return json.loads(answer.body)


class TestLocation:
    async def test_tells_all_that_is_needed(self, gateway, client, function):
        for _ in range(12):
            answer = await submitted(client, function)
            location = answer.headers[b"location"]
            assert location.startswith(b"/v1/jobs/b")
            found = gateway.process.ids.background(location.removeprefix(b"/v1/jobs/"))
            assert found is not None
            assert found.function == function
            assert found.unique == answer.headers[b"x-gearman-unique"]
            assert found.handle == answer.headers[b"x-gearman-job-handle"]
