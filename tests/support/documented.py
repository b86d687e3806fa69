"""Holds the answers that tests get against the OpenAPI document of the interface.

A client of the tests notes which requests it has sent (`Sent`), and each answer must be one that the document has for
its request: status, header names and values, media type, kind of problem, and JSON by its schema. What cannot be told
apart any more, behind bytes that are no request, must be an answer that the document has for some request.
"""

from __future__ import annotations

import functools
import json
import re
from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

from jsonschema import Draft202012Validator

from gatewayx.gateway.openapi import LINE, REFUSALS, TYPE_PREFIX, document

# Addresses where the document does not hold: with --plugin-compat, or of other handlers.
OTHERS: set[tuple[str, int] | str] = set()

REQUEST_LINE = re.compile(rb"([A-Za-z-]+) (\S+) HTTP/1\.[01]")
AUTHORITY = re.compile(rb"^https?://[^/?]*", re.IGNORECASE)
NDJSON = "application/x-ndjson"
PROBLEM_JSON = "application/problem+json"
JOB_PARTS = {"", "/result", "/events", "/cancel"}


class Asked(NamedTuple):
    """What a request asks for, as the document has it. path: a template; None for none of its paths."""

    method: str
    path: str | None


def path_of(target: bytes) -> str | None:
    """The template of the path of a request's target."""
    path = AUTHORITY.sub(b"", target).partition(b"?")[0].decode("latin-1") or "/"
    if path in ("/v1/batch", "/v1/openapi.json"):
        return path
    if path.startswith("/v1/"):
        _, of_jobs, rest = path.partition("/v1/jobs/")
        job_id, slash, part = rest.partition("/")
        return f"/v1/jobs/{{id}}{slash}{part}" if of_jobs and job_id and slash + part in JOB_PARTS else None
    # "*" is asked for its methods (RFC 9110 9.3.7).
    return "/{function}" if path.startswith("/") or path == "*" else None


class Sent:
    """The requests that a client has sent, read from the bytes, whichever way they are cut."""

    def __init__(self) -> None:
        self.requests: deque[Asked] = deque()
        # What has come of a head, or of the frame of a chunk.
        self._rest = bytearray()
        self._body_bytes = 0
        self._in_chunks = False
        self._in_trailers = False
        # From here on nobody knows where a request begins.
        self.is_lost = False

    def feed(self, data: bytes) -> None:
        """Read on."""
        if self.is_lost:
            return
        self._rest += data
        while not self.is_lost and self._step():
            pass

    def next(self) -> Asked | None:
        """The request that the next answer is for; None if that is not known, or no whole head was sent."""
        return self.requests.popleft() if self.requests else None

    def _step(self) -> bool:
        """Take the next part; returns whether there was one."""
        if self._body_bytes:
            taken = min(self._body_bytes, len(self._rest))
            del self._rest[:taken]
            self._body_bytes -= taken
            return taken > 0
        return self._chunk() if self._in_chunks else self._head()

    def _head(self) -> bool:
        while self._rest[:2] == b"\r\n":
            del self._rest[:2]
        end = self._rest.find(b"\r\n\r\n")
        if end < 0:
            return False
        line, *lines = bytes(self._rest[:end]).split(b"\r\n")
        del self._rest[: end + 4]
        found = REQUEST_LINE.fullmatch(line)
        if found is None:
            self.is_lost = True
            return False
        self.requests.append(Asked(found[1].decode(), path_of(found[2])))
        for header in lines:
            name, _, value = header.partition(b":")
            value = value.strip(b" \t")
            if name.lower() == b"content-length":
                self.is_lost = not value.isdigit() or len(value) > 18
                self._body_bytes = 0 if self.is_lost else int(value)
            elif name.lower() == b"transfer-encoding":
                self._in_chunks = True
        return True

    def _chunk(self) -> bool:
        end = self._rest.find(b"\r\n")
        if end < 0:
            return False
        line = bytes(self._rest[:end])
        del self._rest[: end + 2]
        if self._in_trailers:
            self._in_chunks = self._in_trailers = bool(line)
            return True
        size = line.partition(b";")[0].strip()
        if re.fullmatch(rb"[0-9A-Fa-f]{1,15}", size) is None:
            self.is_lost = True
            return False
        self._in_trailers = int(size, 16) == 0
        # With the line end behind it.
        self._body_bytes = 0 if self._in_trailers else int(size, 16) + 2
        return True


@functools.cache
def whole() -> dict[str, Any]:
    """The document."""
    return document()


def resolved(node: Any) -> Any:
    """A part of the document with what it refers to in place."""
    if isinstance(node, list):
        return [resolved(each) for each in node]
    if not isinstance(node, dict):
        return node
    found = {name: resolved(value) for name, value in node.items() if name != "$ref"}
    if "$ref" not in node:
        return found
    target = functools.reduce(lambda within, name: within[name], node["$ref"].split("/")[1:], whole())
    if not found:
        return resolved(target)
    return {"allOf": [resolved(target), found]}


class DocumentedAnswer:
    """The answers of one status that the document has."""

    def __init__(self, response: dict[str, Any]) -> None:
        self.headers = {name.lower(): header for name, header in response["headers"].items()}
        self.values = {name: Draft202012Validator(header["schema"]) for name, header in self.headers.items()}
        self.required = {name for name, header in self.headers.items() if header.get("required")}
        self.schemas = {
            media_type: Draft202012Validator(said.get("schema", {}))
            for media_type, said in response.get("content", {}).items()
        }
        self.lines = {
            media_type: Draft202012Validator(said[LINE])
            for media_type, said in response.get("content", {}).items()
            if LINE in said
        }

    def schema_of(self, media_type: str) -> Draft202012Validator:
        """What a body of this media type must be; fails if there is none of it."""
        found = self.schemas.get(media_type)
        if found is None and media_type != PROBLEM_JSON:
            found = self.schemas.get("*/*")
        assert found is not None, f"no {media_type} is documented"
        return found


@functools.cache
def responses_of(asked: Asked) -> dict[str, DocumentedAnswer]:
    """What the document has for a request, by status."""
    found = None if asked.path is None else whole()["paths"][asked.path].get(asked.method.lower())
    responses = whole()[REFUSALS]["responses"] if found is None else found["responses"]
    return {status: DocumentedAnswer(resolved(response)) for status, response in responses.items()}


@functools.cache
def any_responses() -> set[tuple[int, str | None]]:
    """Every status that the document has, with each kind of problem, or None for no problem."""
    found: set[tuple[int, str | None]] = set()
    operations = [operation for path in whole()["paths"].values() for operation in path.values()]
    for responses in (whole()[REFUSALS]["responses"], *(operation["responses"] for operation in operations)):
        for status, response in resolved(responses).items():
            found.add((int(status), None))
            for said in response.get("content", {}).values():
                kinds = [part for part in said.get("schema", {}).get("allOf", ()) if "status" in part["properties"]]
                found |= {(int(status), kind) for part in kinds for kind in part["properties"]["type"].get("enum", ())}
    return found


@functools.lru_cache(maxsize=4096)
def is_header(asked: Asked, status: int, name: str, value: str) -> bool:
    """Whether an answer may have this header with this value."""
    values = responses_of(asked)[str(status)].values.get(name)
    return values is not None and values.is_valid(value)


def check(
    asked: Asked | None, status: int, headers: Mapping[bytes, bytes], body: bytes | None, *, is_begun: bool = False
) -> None:
    """Fail unless the document has this answer for what was asked; None for what is not known.

    headers: names in lower case. body: None where it is not there, as for HEAD. is_begun: the rest of it follows.
    """
    media_type = headers.get(b"content-type", b"").decode("latin-1").partition(";")[0]
    if asked is None:
        kind = json.loads(body)["type"] if body and media_type == PROBLEM_JSON else None
        assert (status, kind) in any_responses(), f"{status} {kind} is not documented at all"
        return
    documented = responses_of(asked).get(str(status))
    assert documented is not None, f"{status} is not documented for {asked}: {body!r}"
    for name, value in headers.items():
        if name != b"content-type":
            told = name.decode(), value.decode("latin-1")
            assert is_header(asked, status, *told), f"{told} is not documented for {status} of {asked}"
    missing = documented.required - {name.decode() for name in headers}
    assert not missing, f"{missing} is missing in {status} of {asked}"
    if not media_type:
        assert not body
        return
    schema = documented.schema_of(media_type)
    if media_type == NDJSON:
        for line in () if is_begun or body is None else body.splitlines():
            check_line(line)
        return
    if body is not None and not is_begun and media_type in documented.schemas and media_type.endswith("json"):
        check_json(schema, body, f"{status} of {asked}")


# The last body that was valid by a schema, which whoever polls is answered again and again.
_valid: dict[int, bytes] = {}


def check_json(schema: Draft202012Validator, body: bytes, what: str) -> None:
    """Fail unless this is JSON and valid. schema: one that is never let go of."""
    if _valid.get(id(schema)) == body:
        return
    for error in schema.iter_errors(json.loads(body)):
        raise AssertionError(f"{what} is not as documented: {error.message} in {body!r}")
    _valid[id(schema)] = body


@functools.cache
def line_schema() -> Draft202012Validator:
    """What each line of a batch's answer must be."""
    [lines] = responses_of(Asked("POST", "/v1/batch"))["200"].lines.values()
    return lines


def check_line(line: bytes) -> None:
    """Fail unless a batch's answer may have this line."""
    check_json(line_schema(), line, "a line of a batch's answer")


def kinds_of(asked: Asked) -> dict[int, set[str]]:
    """The kinds of problems that are documented for a request, by status."""
    found: dict[int, set[str]] = {}
    operation = whole()["paths"][asked.path][asked.method.lower()]
    for status, response in operation["responses"].items():
        problem = resolved(response).get("content", {}).get(PROBLEM_JSON)
        if problem is not None:
            [told] = [part for part in problem["schema"]["allOf"] if "status" in part["properties"] and len(part) == 1]
            found[int(status)] = {kind.removeprefix(TYPE_PREFIX) for kind in told["properties"]["type"]["enum"]}
    return found


@functools.cache
def event_schema() -> Draft202012Validator:
    """What each event of a job must be."""
    return Draft202012Validator(resolved(whole()["components"]["schemas"]["Event"]))


def check_event(kind: str, data: str, last_id: str) -> None:
    """Fail unless the document has such events."""
    for error in event_schema().iter_errors({"id": last_id, "event": kind, "data": data}):
        raise AssertionError(f"an event is not as documented: {error.message}")
    json.loads(data)
