"""A client that sends batches, and reads what each line is answered."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass

from support.http import post
from support.streaming import StreamClient

PATH = b"/v1/batch"
NDJSON = b"application/x-ndjson"
MEMBERS = ["id", "line", "status", "command", "handle", "unique"]
# A longer body is not written as text that is more than twice as long.
MOST_ESCAPED_BYTES = 16_384
PROBLEM_MEMBERS = ["type", "title", "status", "detail"]


@dataclass(frozen=True)
class Line:
    """The answer to one line, whose members are all there and in their order."""

    id: object
    line: int
    status: int
    command: str | None
    handle: str | None
    unique: str | None
    body: bytes | None
    problem: dict[str, object] | None

    def kind(self) -> str:
        """The last part of the problem's type."""
        assert self.problem is not None, self
        return str(self.problem["type"]).removeprefix("urn:gatewayx:")


def read_line(text: bytes) -> Line:
    """The answer that a line is; fails on one that is not flawless."""
    assert text.endswith(b"\n")
    members = json.loads(text)
    *head, last = members
    assert head == MEMBERS, text
    assert last in ("body", "body_base64", "problem"), text
    problem = None
    body = None
    if last == "problem":
        problem = members["problem"]
        assert [name for name in problem if name != "retry_after"] == PROBLEM_MEMBERS, text
        assert problem["status"] == members["status"]
        # RFC 9110 10.2.3: whoever is refused for now is told when to come again.
        assert ("retry_after" in problem) == (members["status"] in (429, 503)), text
        assert "retry_after" not in problem or problem["retry_after"] >= 1
    elif last == "body":
        body = members["body"].encode()
    else:
        body = base64.b64decode(members["body_base64"], validate=True)
        try:
            body.decode()
        except UnicodeDecodeError:
            pass
        else:
            # Binary data that happens to be UTF-8.
            assert len(body) > MOST_ESCAPED_BYTES, text
            assert len(json.dumps(body.decode(), ensure_ascii=False).encode()) > 2 * len(body) + 2, text
    return Line(**{name: members[name] for name in MEMBERS}, body=body, problem=problem)


def job(function: bytes | str, workload: str | None = "", **members: object) -> bytes:
    """A line, without its end."""
    name = function.decode() if isinstance(function, bytes) else function
    line: dict[str, object] = {"function": name}
    if workload is not None:
        line["workload"] = workload
    return json.dumps(line | members).encode()


def batch(*lines: bytes, headers: tuple[bytes, ...] = (), version: bytes = b"1.1") -> bytes:
    """A whole request with these lines."""
    return post(PATH, b"".join(line + b"\n" for line in lines), *headers, version=version)


class BatchClient(StreamClient):
    """One connection over which batches go."""

    async def answers(self) -> list[Line]:
        """The lines of the next answer, in the order in which they came; it must be that of a batch that was taken."""
        answer = await self.begin()
        assert answer.status == 200, answer
        assert answer.headers[b"content-type"] == NDJSON
        return await self.lines()

    async def lines(self) -> list[Line]:
        """Those that are to come of an answer that has begun."""
        return [read_line(line) for line in b"".join(await self.pieces()).splitlines(keepends=True)]

    async def run(self, *lines: bytes, headers: tuple[bytes, ...] = ()) -> dict[int, Line]:
        """Send a batch; what each line was answered, by its number. Each was answered once."""
        self.send(batch(*lines, headers=headers))
        return by_number(await self.answers())


def by_number(lines: list[Line]) -> dict[int, Line]:
    """Lines by their numbers; fails if one is there twice."""
    found = {line.line: line for line in lines}
    assert len(found) == len(lines), lines
    return found
