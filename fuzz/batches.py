"""What must hold of the answer to a batch: each of its lines is answered once, by the end of its own job."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from typing import Any

from fuzz import batch_lines
from fuzz.responses import Response
from gatewayx.gearman.packet import PacketType

# The function that its path would name.
FUNCTION = b"v1/batch"
CONTENT_TYPE = b"application/x-ndjson"
Ends = Mapping[tuple[bytes, bytes], set[tuple[int, bytes]]]


def is_batch(response: Response) -> bool:
    """Whether it is the answer to a batch that was not refused as a whole."""
    return response.headers.get(b"content-type") == CONTENT_TYPE


def lines_of(body: bytes) -> dict[int, bytes]:
    """The lines of a batch that are not blank, by their numbers."""
    stripped = ((number, line.strip(b" \t\r")) for number, line in enumerate(body.split(b"\n"), 1))
    return {number: line for number, line in stripped if line}


def jobs_of(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Function and workload of each job that a batch asks for."""
    for line in lines_of(body).values():
        asked = batch_lines.expected(line)
        if asked is not None:
            yield asked.function, asked.workload


def answers_in(response: Response) -> list[dict[str, Any]]:
    """The lines of an answer, of which the last may be missing a part if the answer was cut."""
    *lines, rest = response.body.split(b"\n")
    assert not rest or response.unfinished, f"{rest!r} is no whole line"
    return [json.loads(line) for line in lines]


def check_answer(body: bytes, response: Response, ends: Ends, submitted: Mapping[bytes, tuple[bytes, bytes]]) -> None:
    """Fail unless a batch with this body may be answered so.

    ends: how jobs have ended, by handle and unique. submitted: function and workload of jobs, by their uniques.
    """
    asked = lines_of(body)
    answers = answers_in(response)
    numbers = [answer["line"] for answer in answers]
    assert len(set(numbers)) == len(numbers), f"a line was answered twice: {numbers}"
    assert set(numbers) <= asked.keys(), f"{numbers} are not the lines {list(asked)}"
    assert response.unfinished or len(numbers) == len(asked), f"{numbers} are not all of the lines {list(asked)}"
    for answer in answers:
        wanted = batch_lines.expected(asked[answer["line"]])
        if wanted is None:
            assert answer["status"] == 400, answer
            continue
        job = submitted.get((answer["unique"] or "").encode())
        assert job in (None, (wanted.function, wanted.workload)), f"{answer} is about {job}"
        check_end(answer, ends)


def check_end(answer: dict[str, Any], ends: Ends) -> None:
    """Fail unless a line's answer is what its job came to."""
    if "problem" in answer:
        assert answer["problem"]["status"] == answer["status"] >= 400, answer
        return
    packet_type = PacketType[answer["command"]]
    assert answer["status"] == (500 if packet_type == PacketType.WORK_EXCEPTION else 200), answer
    body = answer["body"].encode() if "body" in answer else base64.b64decode(answer["body_base64"])
    job = (answer["handle"].encode(), answer["unique"].encode())
    assert (packet_type, body) in ends.get(job, set()), f"{job} has not ended as {answer['command']}"
