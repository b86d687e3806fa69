"""Jobs that outlive their requests, as a client has them: submitted, asked for by their ids, forgotten in the end."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

from support.gateway import POLL_S
from support.http import HttpClient, Response, get, head, post
from support.times import WAIT_S

ASYNC = b"Prefer: respond-async"
EVENTS = b"Accept: text/event-stream"
JOB_FIELDS = {
    "id",
    "function",
    "kind",
    "state",
    "progress",
    "created",
    "started",
    "ended",
    "expires",
    "result",
    "links",
}
LINKS = ("self", "result", "events", "cancel")


def at(job_id: str, part: str = "", query: str = "") -> bytes:
    """The target of a job, or of this part of it."""
    return f"/v1/jobs/{job_id}{'/' * bool(part)}{part}{'?' * bool(query)}{query}".encode()


def job_of(answer: Response) -> dict[str, Any]:
    """The job that an answer tells; fails unless it is told as documented."""
    assert answer.headers[b"content-type"] == b"application/json", answer
    job = json.loads(answer.body)
    assert set(job) == JOB_FIELDS
    path = f"/v1/jobs/{job['id']}"
    assert job["links"] == {name: path if name == "self" else f"{path}/{name}" for name in LINKS}
    assert job["kind"] == "kept"
    assert job["created"] is not None
    # It is always told how long the job will be known.
    assert job["expires"] is not None
    return dict(job)


class KeptClient:
    """One connection whose jobs are forgotten at its end. lines: headers of every request.

    An asynchronous context manager.
    """

    def __init__(self, address: tuple[str, int] | str, *lines: bytes) -> None:
        self.http = HttpClient(address)
        self.lines = lines
        self.ids: list[str] = []

    async def submit(self, function: bytes, body: bytes = b"", *lines: bytes, prefer: bytes = ASYNC) -> str:
        """Submit a job that is to be kept; its id. Fails unless it is answered 202 as documented."""
        answer = await self.http.ask(post(b"/" + function, body, prefer, *lines, *self.lines))
        assert answer.status == 202, answer
        return self.accepted(answer)

    def accepted(self, answer: Response) -> str:
        """The id that a 202 tells."""
        job = job_of(answer)
        assert answer.headers[b"location"] == job["links"]["self"].encode()
        assert answer.headers[b"preference-applied"] == b"respond-async"
        self.ids.append(job["id"])
        return str(job["id"])

    async def call(self, method: bytes, target: bytes, *lines: bytes, to_head: bool = False) -> Response:
        """The answer to a request without a body."""
        framing = (b"Content-Length: 0",) if method == b"POST" else ()
        return await self.http.ask(head(method, target, *lines, *self.lines, *framing), to_head=to_head)

    async def poll(self, job_id: str, query: str = "") -> dict[str, Any]:
        """The job now."""
        answer = await self.call(b"GET", at(job_id, "", query))
        assert answer.status == 200, answer
        job = job_of(answer)
        assert job["id"] == job_id
        return job

    async def result(self, job_id: str) -> Response:
        """The answer that it would have had."""
        return await self.call(b"GET", at(job_id, "result"))

    async def cancel(self, job_id: str) -> Response:
        """Have it cancelled."""
        return await self.call(b"POST", at(job_id, "cancel"))

    async def forget(self, job_id: str) -> Response:
        """Have it forgotten."""
        return await self.call(b"DELETE", at(job_id))

    async def until(self, job_id: str, is_so: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """The job, once this holds of it: what a worker sends is there some turns of the loops later."""
        ends_s = time.monotonic() + WAIT_S
        while not is_so(job := await self.poll(job_id)):
            assert time.monotonic() < ends_s, f"it never came true of {job}"
            await asyncio.sleep(POLL_S)
        return job

    async def __aenter__(self) -> KeptClient:
        await self.http.connect()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.http.close()
        if exception[0] is None and self.ids:
            async with HttpClient(self.http.address) as http:
                for job_id in self.ids:
                    answer = await http.ask(head(b"DELETE", at(job_id), *self.lines))
                    assert answer.status in (204, 404), answer


async def asked(address: tuple[str, int] | str, target: bytes, *lines: bytes) -> Response:
    """The answer to a GET over a connection of its own."""
    async with HttpClient(address) as http:
        return await http.ask(get(target, *lines))
