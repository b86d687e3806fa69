"""Requests with an idempotency key: how they are written, and when two answers are the same one."""

from __future__ import annotations

import itertools

from gatewayx.core.shared import KEPT_KEYS
from support.gateway import RunningGateway, eventually
from support.http import HttpClient, Response, post
from support.job_servers import HandWorker

COUNTED = itertools.count()
REPLAYED = b"idempotency-replayed"
# Headers that differ from one answer to the next.
OF_ONE_ANSWER = (b"date", b"x-request-id", b"retry-after", b"ratelimit", b"connection", REPLAYED)


def new_key() -> bytes:
    """A key that no other request has, long enough to be one without a token."""
    return b"key-%020d" % next(COUNTED)


def key_line(key: bytes) -> bytes:
    """The header that gives a key."""
    return b"Idempotency-Key: " + key


def keyed(function: bytes, body: bytes, key: bytes, *lines: bytes, version: bytes = b"1.1") -> bytes:
    """A POST with a key."""
    return post(b"/" + function, body, key_line(key), *lines, version=version)


def key_of(request: bytes) -> bytes:
    """The key of a request."""
    return request.split(b"Idempotency-Key: ")[1].split(b"\r\n")[0]


def likeness(answer: Response) -> tuple[object, ...]:
    """An answer but for what differs from one to the next."""
    headers = {name: value for name, value in answer.headers.items() if name not in OF_ONE_ANSWER}
    if headers.get(b"content-type") == b"application/problem+json":
        problem = answer.problem()
        del problem["instance"], headers[b"content-length"]
        return answer.status, tuple(sorted(headers.items())), tuple(problem.items())
    return answer.status, tuple(sorted(headers.items())), answer.body


def is_first(answer: Response) -> bool:
    """Whether the answer is that of a request whose own job it tells of."""
    return REPLAYED not in answer.headers


async def ran(client: HttpClient, worker: HandWorker, request: bytes, result: bytes = b"result") -> Response:
    """The answer to a request, which has a job of its own."""
    client.send(request)
    handle, _, _, _ = await worker.take()
    worker.complete(handle, result)
    answer = await client.response()
    assert (answer.status, answer.body) == (200, result)
    assert is_first(answer)
    return answer


def is_again(answer: Response, first: Response) -> bool:
    """Whether the answer is the first one's again, and says so; fails if it differs."""
    assert likeness(answer) == likeness(first)
    assert is_first(first)
    assert answer.headers.get(REPLAYED) == b"true"
    return True


def counted(gateway: RunningGateway, name: str) -> int:
    """What was counted under this name since the start."""
    return gateway.process.counted_in.read()[name]


def known_keys(gateway: RunningGateway) -> int:
    """How many keys the gateway knows; fails if all processes together have another number."""
    known = sum(gateway.process.keys.counters().values())
    assert gateway.process.shared.taken(KEPT_KEYS) == known
    return known


async def waits(gateway: RunningGateway, before: int) -> int:
    """Return once one more request is there than there were, with how many there are."""
    await eventually(lambda: gateway.count("gateway.open_exchanges") > before)
    return gateway.count("gateway.open_exchanges")
