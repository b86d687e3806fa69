"""Fuzzes gatewayx.gateway.batch_lines: the lines of a batch, what each asks for, and the lines of its answers.

An input is two bytes (what the answers say), a handle, a NUL, and a batch, in which FILLER_MARK stands for FILLER. What
must hold for any bytes:
- nothing is raised: a line is a job, or says why it is none;
- each line that is not blank comes once, in the order of the body, by its number in it;
- a line is a job exactly where the model says so, which checks its members in plain Python, and asks for the same;
- an id is answered as it was sent, also where the line is no job;
- an answer is one line of JSON as Python's own reader has it, with all members in their order, and the handle, the body
  or the problem as they were given;
- the path of a function is that of no other one, and has nothing that would end it.
"""

from __future__ import annotations

import base64
import json
import math
import re
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

import orjson

from gatewayx.gateway.batch_answers import answer_line
from gatewayx.gateway.batch_lines import (
    MOST_ID_BYTES,
    MOST_LINE_BYTES,
    MOST_PARTS,
    LineJob,
    lines_of,
    path_of_function,
)

# What makes lines longer than inputs; four of them are a line that is too long.
FILLER_MARK = b"{256K}"
FILLER = b"w" * (MOST_LINE_BYTES // 4)
MAX_FILLERS = 5
# An input has few lines, or many short ones.
MOST_LINES = 200

STATUSES = (200, 202, 400, 404, 413, 429, 500, 502, 503, 504)
COMMANDS = (b"WORK_COMPLETE", b"JOB_CREATED", b"WORK_FAIL", b"WORK_EXCEPTION")
# Bits of the second byte.
HAS_COMMAND, HAS_HANDLE, HAS_UNIQUE, HAS_RETRY_AFTER, IS_PROBLEM = 1, 2, 4, 8, 16

HEAD = ("id", "line", "status", "command", "handle", "unique")
MEMBERS = {"id", "function", "workload", "workload_base64", "unique", "priority", "background", "timeout"}
# As gateway/job_request numbers them.
PRIORITIES = {"low": 0, "normal": 1, "high": 2}
# RFC 4648 4.
BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
PATH = re.compile(rb"/(?:[A-Za-z0-9._~:/-]|%[0-9A-F]{2})*")


# What stands between quotes, whether it ends or not, and what begins a value outside of it.
STRING = re.compile(rb'"(?:[^"\\]|\\.)*(?:"|\\?\Z)', re.DOTALL)
PART = re.compile(rb"[\[{,]")


class Asked(NamedTuple):
    """What a line asks for."""

    function: bytes
    workload: bytes
    unique: bytes | None
    priority: int
    background: bool
    timeout_s: float


def is_id(value: object) -> bool:
    """Whether a line may have it as its id."""
    if type(value) is str:
        return len(value.encode()) <= MOST_ID_BYTES
    return type(value) is int


def is_timeout(value: object) -> bool:
    """Whether it is a number of seconds."""
    return type(value) in (int, float) and value > 0


def is_base64(value: object) -> bool:
    """Whether it is a text that is base64."""
    return type(value) is str and BASE64.fullmatch(value) is not None


# By member, whether its value is one that it may have.
MAY_BE = {
    "id": is_id,
    "function": lambda value: type(value) is str,
    "workload": lambda value: type(value) is str,
    "workload_base64": is_base64,
    "unique": lambda value: type(value) is str,
    "priority": lambda value: type(value) is str and value in PRIORITIES,
    "background": lambda value: type(value) is bool,
    "timeout": is_timeout,
}


def members_of(line: bytes) -> dict[str, Any] | None:
    """The members of a line's object that are not null; None if it is none."""
    if len(line) > MOST_LINE_BYTES or len(PART.findall(STRING.sub(b"", line))) > MOST_PARTS:
        return None
    try:
        found = orjson.loads(line)
    except ValueError:
        return None
    return {name: value for name, value in found.items() if value is not None} if type(found) is dict else None


def expected(line: bytes) -> Asked | None:
    """What a line asks for; None if it is no job."""
    members = members_of(line)
    if members is None or not orjson.loads(line).keys() <= MEMBERS:
        return None
    if not all(MAY_BE[name](value) for name, value in members.items()):
        return None
    if "function" not in members or ("workload" in members) == ("workload_base64" in members):
        return None
    workload = members["workload"].encode() if "workload" in members else base64.b64decode(members["workload_base64"])
    return Asked(
        members["function"].encode(),
        workload,
        members["unique"].encode() if "unique" in members else None,
        PRIORITIES[members.get("priority", "normal")],
        members.get("background", False),
        float(members.get("timeout", 0)),
    )


def judge_line(job: LineJob, line: bytes) -> None:
    """Fail unless the line is read as the model does."""
    job.read(line)
    model = expected(line)
    members = members_of(line) or {}
    own_id = members.get("id")
    assert job.id == (orjson.dumps(own_id) if is_id(own_id) else None), f"{line[:200]!r} has the id {job.id!r}"
    if model is None:
        assert job.fault, f"{line[:200]!r} is no job"
        assert job.fault.isprintable()
        return
    assert job.fault is None, f"{line[:200]!r} is a job, and not: {job.fault}"
    found = Asked(job.function, job.workload, job.unique, job.priority, job.background, job.timeout_s)
    assert found == model, f"{line[:200]!r} asks for {model}, and not for {found}"
    # What is a job for one reader of JSON is the same one for another.
    assert same_json(json.loads(line), orjson.loads(line))
    path = path_of_function(job.function)
    assert PATH.fullmatch(path)
    assert unquote_to_bytes(path) == b"/" + job.function


def same_json(one: object, other: object) -> bool:
    """Whether two readers have read the same; a number beyond 64 bits may have lost its last digits."""
    if type(one) is dict and type(other) is dict:
        return one.keys() == other.keys() and all(same_json(one[name], other[name]) for name in one)
    if type(one) is int and type(other) is float:
        return math.isclose(one, other)
    return type(one) is type(other) and one == other


def judge_answer(bits: tuple[int, int], handle: bytes, own_id: bytes | None, number: int, body: bytes) -> None:
    """Fail unless the answer to a line is as it must be."""
    status = STATUSES[bits[0] % len(STATUSES)]
    told: list[str | None] = [None, None, None]
    headers = b""
    # Of a head, where a line feed would begin another line.
    text = re.sub(rb"[\r\n]", b"", handle)
    for index, (bit, name, value) in enumerate(
        (
            (HAS_COMMAND, b"X-Gearman-Command", COMMANDS[bits[0] % len(COMMANDS)]),
            (HAS_HANDLE, b"X-Gearman-Job-Handle", text),
            (HAS_UNIQUE, b"X-Gearman-Unique", text[::-1]),
        )
    ):
        if bits[1] & bit:
            headers += b"%b: %b\r\n" % (name, value)
            told[index] = value.decode("utf-8", "replace")
    headers = b"Location: /v1/jobs/k\r\n" + headers
    if bits[1] & HAS_RETRY_AFTER:
        headers += b"Retry-After: %d\r\n" % bits[0]
    problem: dict[str, object] | None = None
    if bits[1] & IS_PROBLEM:
        problem = {"type": "urn:gatewayx:a", "title": "A", "status": status, "detail": body.decode("utf-8", "replace")}
        sent = orjson.dumps(problem | {"instance": "urn:gatewayx:request:b"})
        line = answer_line(own_id, number, status, headers, problem=sent)
        if bits[1] & HAS_RETRY_AFTER:
            problem["retry_after"] = bits[0]
    else:
        line = answer_line(own_id, number, status, headers, body)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    pairs: list[tuple[str, Any]] = json.loads(line, object_pairs_hook=list)
    *begun, (last, value) = pairs
    assert begun == list(
        zip(HEAD, (None if own_id is None else json.loads(own_id), number, status, *told), strict=True)
    )
    if problem is not None:
        assert (last, value) == ("problem", list(problem.items()))
    elif last == "body":
        assert value.encode() == body
    else:
        assert last == "body_base64"
        assert base64.b64decode(value, validate=True) == body
        assert body.decode("utf-8", "replace").encode() != body, "a body that is a text is told as one"


def one_input(data: bytes) -> None:
    """Read an input's batch, and answer each of its lines."""
    if len(data) < 2:
        return
    bits = (data[0], data[1])
    handle, _, body = data[2:].partition(b"\0")
    body = body.replace(FILLER_MARK, FILLER, MAX_FILLERS)
    lines = lines_of(body)
    stripped = ((number, line.strip(b" \t\r")) for number, line in enumerate(body.split(b"\n"), 1))
    assert lines == [(number, line) for number, line in stripped if line]
    job = LineJob()
    for number, line in lines[:MOST_LINES]:
        judge_line(job, line)
        judge_answer(bits, handle, job.id, number, line)
    judge_answer(bits, handle, None, len(lines) + 1, body)


JOB = b'{"function":"f","workload":"w"}'
LINES = (
    JOB,
    b'{"id":"a","function":"a/b:c d%\\u0000","workload_base64":"AP8=","unique":"u","priority":"high"}',
    b'{"id":7,"function":"f","workload":"\\u00e4\\n","timeout":0.5,"background":true}',
    b'{"id":null,"function":"f","workload":"","unique":null,"priority":"low","background":false}',
    b'{"id":-9223372036854775808,"function":"","workload_base64":""}',
    b'{"id":18446744073709551616,"function":"f","workload":"w"}',
    b'{"id":1.5,"function":"f","workload":"w"}',
    b'{"id":true,"function":"f","workload":"w","timeout":true}',
    b'{"id":"b","function":"f"}',
    b'{"id":"c","function":"f","workload":"w","workload_base64":"dw=="}',
    b'{"function":"f","workload":"w","idempotency_key":"k"}',
    b'{"function":"f","workload":"w","timeout":-0.0}',
    b'{"function":"f","workload":"w","timeout":1e400}',
    b'{"function":"f","workload_base64":"dw="}',
    b'{"function":"f","workload_base64":"d==="}',
    b'{"function":"f","workload_base64":"dx=="}',
    b'{"function":"f","function":1,"workload":"w"}',
    b'{"function":"f","workload":"\\ud800"}',
    b'{"function":"f","workload":"\xff"}',
    b'{"id":"' + b"i" * (MOST_ID_BYTES + 1) + b'","function":"f","workload":"w"}',
    b'{"id":"' + b"\\u0001" * 400 + b'","function":"f","workload":"w"}',
    b"[1]",
    b"null",
    b'"a"',
    b"[" * 1500,
    b"{",
    b"}",
    b"nan",
    b'{"function":"f","workload":"' + FILLER_MARK * 3 + b'"}',
    b'{"function":"f","workload":"' + FILLER_MARK * 4 + b'"}',
)


def seeds() -> list[bytes]:
    """Inputs to begin with."""
    inputs = [bytes((number % 10, number)) + b"H:h:1\0" + line for number, line in enumerate(LINES)]
    for bits in range(32):
        inputs.append(bytes((bits % 10, bits)) + b'H:\xff"\\\x01:1\0' + b"\n".join(LINES[bits % 20 : bits % 20 + 3]))
    ends = (b"", b"\n", b"\r\n", b"\n\n", b" \t\r\n \r\n\r", b"\n ")
    inputs += [bytes((0, 7)) + b"H:h:1\0" + end + JOB + end + end + JOB + end for end in ends]
    inputs.append(bytes((0, 7)) + b"H:h:1\0" + (JOB + b"\n") * 100)
    return inputs


TOKENS = [
    b"\0",
    b"\n",
    b"\r\n",
    b"\n\n",
    b'{"',
    b'"}',
    b'":"',
    b'","',
    b":null",
    b":true",
    b":1",
    b":1.5",
    b"\\u0000",
    b"\\",
    b'"',
    b"\xff",
    b"\xc3\xa4",
    b"\x7f",
    b"=",
    b"==",
    JOB,
    FILLER_MARK,
    *(b'"%b":' % name.encode() for name in sorted(MEMBERS)),
]
