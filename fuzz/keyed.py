"""What must hold of requests with idempotency keys, of all that a gateway was sent and has answered in one life.

What was sent is read once more, by the parser alone: a connection that is refused by the parser may go on or not, so of
such bytes nothing is said here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from fuzz import batches, key_header
from fuzz.request_parser import Read, outcome
from fuzz.responses import Response
from gatewayx.config.settings import Settings
from gatewayx.http.limits import Limits

REPLAYED = b"idempotency-replayed"
REQUEST_ID = re.compile(rb"[a-z2-7]{13}-[0-9]{14}")
# What an answer tells of its job.
OF_ITS_JOB = (b"x-gearman-command", b"x-gearman-job-handle", b"x-gearman-unique", b"location")
# Ends of jobs that ran, as their worker has told them: nobody makes them but for a job.
TOLD_BY_WORKERS = (200, 500)
KEPT_STATUSES = (200, 202, 500, 502, 504)


class Asked(NamedTuple):
    """A request: what it runs, and its key, None without one."""

    function: bytes
    workload: bytes
    key: bytes | None


def requests_of(sent: bytes, settings: Settings) -> list[Asked] | None:
    """The requests in what a client has sent; None if it was refused before its end."""
    found = []
    for read in outcome([sent], limits=Limits(settings)).reads:
        if isinstance(read, Read):
            found.append(asked_by(read))
        elif type(read).__name__ == "Refused":
            return None
    return found


def asked_by(read: Read) -> Asked:
    """What a request asks for."""
    try:
        key = key_header.expected(read.headers or [])
    except ValueError:
        key = None
    return Asked(unquote_to_bytes(read.path[1:]), read.body or read.query or b"", key)


def told(response: Response) -> tuple[object, ...]:
    """A response but for what differs from one to the next."""
    headers = tuple(response.headers.get(name) for name in OF_ITS_JOB)
    return response.status, headers, REQUEST_ID.sub(b"", response.body)


def check_jobs(asked: list[Asked], accepted: Counter[tuple[bytes, bytes]]) -> None:
    """Fail if a key's job was submitted twice.

    accepted: how many jobs of a function and a workload the job servers have accepted, as far as the gateway knows.
    """
    # Each request without a key may have one, each line of a batch, and each key.
    may_be = Counter((one.function, one.workload) for one in asked if one.key is None)
    for one in asked:
        if one.function == batches.FUNCTION:
            may_be.update(batches.jobs_of(one.workload))
    may_be += Counter((function, workload) for function, workload, _ in {one for one in asked if one.key is not None})
    for job, count in accepted.items():
        assert count <= may_be[job], f"{count} jobs {job} were accepted, of at most {may_be[job]}"


def check_answers(answered: Iterator[tuple[Asked, Response]], submitted: dict[bytes, tuple[bytes, bytes]]) -> None:
    """Fail if the answers of one key tell of two jobs, of one end in two ways, or of another job than was asked for.

    submitted: function and workload of jobs, by their uniques.
    """
    by_key: dict[bytes, list[Response]] = {}
    for asked, response in answered:
        job = submitted.get(response.headers.get(b"x-gearman-unique", b""))
        assert job in (None, (asked.function, asked.workload)), f"{asked} was answered of {job}"
        if asked.key is None:
            assert REPLAYED not in response.headers, "an answer without a key is another request's"
        elif response.status in KEPT_STATUSES and not response.is_cut:
            by_key.setdefault(asked.key, []).append(response)
    for key, responses in by_key.items():
        # Of each request that waits the time may be over, or the way to the owner lost; what was kept is for all.
        kept = {
            told(response)
            for response in responses
            if REPLAYED in response.headers or response.status in TOLD_BY_WORKERS
        }
        assert len(kept) <= 1, f"{key!r} was answered by {kept}"
        first = [
            response
            for response in responses
            if REPLAYED not in response.headers and b"x-gearman-command" in response.headers
        ]
        assert len(first) <= 1, f"{key!r} has run {len(first)} times"
