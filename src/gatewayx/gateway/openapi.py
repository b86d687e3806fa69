"""The HTTP interface as an OpenAPI 3.1 document (spec.openapis.org/oas/v3.1.1), made from gateway/operations.

It is the same for all gateways of one version: what the settings bound is told by the settings' names.
"""

from __future__ import annotations

import functools
import hashlib
from typing import Any

import orjson

from gatewayx import __version__
from gatewayx.gateway.operations import (
    LINES,
    OF_ALL,
    OF_EVERY_REQUEST,
    OF_NO_OPERATION,
    ON_EVERY_ANSWER,
    ON_SOME_ANSWERS,
    OPERATIONS,
    PROBLEM_HEADERS,
    PROBLEM_JSON,
    REQUEST_NAME,
    Answer,
    Operation,
    Parameter,
)
from gatewayx.http.problems import PROBLEMS, Problem

CONTENT_TYPE = b"application/json"
# A problem's type begins so (RFC 9457 3.1.1, RFC 8141).
TYPE_PREFIX = "urn:gatewayx:"
# Where the document has what is answered to requests that are none of its operations.
REFUSALS = "x-refusals"
# Where a media type of lines has the schema of each.
LINE = "x-line-schema"

# What an event may be called.
EVENTS = (
    "created",
    "status",
    "data",
    "warning",
    "complete",
    "exception",
    "fail",
    "cancelled",
    "lost",
    "timeout",
    "gap",
)

_STRING: dict[str, Any] = {"type": "string"}
_TIME: dict[str, Any] = {
    "type": "string",
    "format": "date-time",
    "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{3})?Z$",
}
_TIME_OR_NULL: dict[str, Any] = {"anyOf": [_TIME, {"type": "null"}]}
_BASE64: dict[str, Any] = {"type": "string", "contentEncoding": "base64", "pattern": "^[A-Za-z0-9+/]*={0,2}$"}
_NUMBER: dict[str, Any] = {"type": ["integer", "string"], "minimum": 0}
_TEXT_OR_NULL: dict[str, Any] = {"type": ["string", "null"]}


def _object(properties: dict[str, Any], *optional: str, **more: Any) -> dict[str, Any]:
    """An object with these members alone, all of them unless they are optional."""
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
        **more,
    }


def _job(kind: str, states: tuple[str, ...], links: tuple[str, ...], **differing: Any) -> dict[str, Any]:
    path = {"type": "string", "pattern": "^/v1/jobs/"}
    properties: dict[str, Any] = {
        "id": _STRING,
        "function": {"type": "string", "minLength": 1},
        "kind": {"const": kind},
        "state": {"enum": list(states)},
        "progress": {
            "anyOf": [
                _object({"numerator": _NUMBER, "denominator": _NUMBER}),
                {"type": "null"},
            ],
            "description": "of the last WORK_STATUS; a text where the worker has sent no number of at most 18 digits",
        },
        "created": {**_TIME, "description": "when the job server has queued it"},
        "started": {**_TIME_OR_NULL, "description": "the first sign of the worker"},
        "ended": _TIME_OR_NULL,
        "expires": {**_TIME_OR_NULL, "description": "when it is forgotten at the latest"},
        "result": {
            "anyOf": [
                _object({"bytes": {"type": "integer", "minimum": 0}, "content_type": _STRING}),
                {"type": "null"},
            ]
        },
        "links": _object(dict.fromkeys(links, path)),
    }
    return _object(properties | differing)


def _schemas() -> dict[str, Any]:
    null = {"type": "null"}
    kinds = {f"{TYPE_PREFIX}{problem.kind}": problem for problem in PROBLEMS}
    problem = {
        "type": {
            "enum": list(kinds),
            "description": "\n".join(f"- `{kind}`: {problem.when}" for kind, problem in kinds.items()),
        },
        "title": {"type": "string", "minLength": 1},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string", "minLength": 1},
    }
    reference = {"$ref": "#/components/schemas/"}
    return {
        "Problem": _object(
            problem | {"instance": {"type": "string", "pattern": f"^urn:gatewayx:request:{REQUEST_NAME}$"}},
            description="Problem details (RFC 9457). The last part of the type is its kind.",
        ),
        "KeptJob": _job(
            "kept",
            ("queued", "running", "succeeded", "failed", "cancelled", "lost", "timeout"),
            ("self", "result", "events", "cancel"),
            id={"type": "string", "pattern": "^k[A-Za-z0-9_-]{40}$"},
            expires=_TIME,
        ),
        "BackgroundJob": _job(
            "background",
            ("queued", "running", "gone"),
            ("self", "cancel"),
            id={"type": "string", "pattern": "^b[A-Za-z0-9_~-]+$"},
            started=null,
            ended=null,
            expires=null,
            result=null,
        ),
        "Job": {
            "oneOf": [{"$ref": reference["$ref"] + name} for name in ("KeptJob", "BackgroundJob")],
            "discriminator": {
                "propertyName": "kind",
                "mapping": {
                    "kept": reference["$ref"] + "KeptJob",
                    "background": reference["$ref"] + "BackgroundJob",
                },
            },
        },
        "Event": _object(
            {
                "id": {
                    "type": "string",
                    "pattern": r"^k[A-Za-z0-9_-]{40}\.[0-9]+$",
                    "description": "for Last-Event-ID",
                },
                "event": {"enum": list(EVENTS)},
                "data": {"type": "string", "contentMediaType": "application/json"},
            },
            description="One event of a job (html.spec.whatwg.org/multipage/server-sent-events.html).",
        ),
        "BatchJob": _object(
            {
                "id": {"type": ["string", "integer", "null"], "description": "comes back with the answer"},
                "function": {"type": "string", "minLength": 1},
                "workload": {**_TEXT_OR_NULL, "description": "as text; the job gets its UTF-8"},
                "workload_base64": {"anyOf": [_BASE64, null]},
                "unique": {"anyOf": [{"type": "string", "minLength": 1}, null]},
                "priority": {"enum": ["low", "normal", "high", None]},
                "background": {"type": ["boolean", "null"]},
                "timeout": {"type": ["number", "null"], "exclusiveMinimum": 0, "description": "seconds"},
            },
            "id",
            "workload",
            "workload_base64",
            "unique",
            "priority",
            "background",
            "timeout",
            description="One line of a batch, of at most 1 MiB: a job, with one of `workload` and `workload_base64`.",
            oneOf=[
                {"required": ["workload"], "properties": {"workload": _STRING, "workload_base64": null}},
                {"required": ["workload_base64"], "properties": {"workload_base64": _STRING, "workload": null}},
            ],
        ),
        "BatchAnswer": _object(
            {
                "id": {"type": ["string", "integer", "null"]},
                "line": {"type": "integer", "minimum": 1, "description": "which line of the body it answers"},
                "status": {"type": "integer", "minimum": 200, "maximum": 599},
                "command": {"enum": ["WORK_COMPLETE", "WORK_FAIL", "WORK_EXCEPTION", "JOB_CREATED", None]},
                "handle": _TEXT_OR_NULL,
                "unique": _TEXT_OR_NULL,
                "body": {**_STRING, "description": "of a result that is UTF-8"},
                "body_base64": _BASE64,
                "problem": {"$ref": reference["$ref"] + "BatchProblem"},
            },
            "body",
            "body_base64",
            "problem",
            description="One line of a batch's answer: what a request for this job alone would have been answered.",
            oneOf=[{"required": [name]} for name in ("body", "body_base64", "problem")],
        ),
        "BatchProblem": _object(
            problem | {"retry_after": {"type": "integer", "minimum": 1, "description": "seconds"}}, "retry_after"
        ),
        "OpenApi": {"type": "object", "required": ["openapi", "info", "paths"]},
    }


_COMMON_HEADERS = tuple(header.name for header in ON_EVERY_ANSWER)


def _content(content: dict[str, str | None]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for media_type, schema in content.items():
        if media_type == LINES and schema is not None:
            found[media_type] = {"schema": _STRING, LINE: {"$ref": f"#/components/schemas/{schema}"}}
        elif schema is not None:
            found[media_type] = {"schema": {"$ref": f"#/components/schemas/{schema}"}}
        else:
            found[media_type] = {}
    return found


class _Responses:
    """Makes responses. Those that are the same stand once, in `shared`, by their names."""

    def __init__(self) -> None:
        self.shared: dict[str, dict[str, Any]] = {}
        # By what a response is made of.
        self._names: dict[tuple[object, ...], str] = {}

    def of(
        self,
        name: str,
        answers: tuple[Answer, ...],
        problems: tuple[Problem, ...],
        problem_headers: tuple[str, ...],
    ) -> dict[str, Any]:
        """The responses of one operation, by status."""
        by_status: dict[int, dict[Problem, None]] = {}
        for problem in problems:
            by_status.setdefault(problem.status, {})[problem] = None
        answered = {answer.status: answer for answer in answers}
        return {
            str(status): self._response(
                name, status, answered.get(status), tuple(by_status.get(status, ())), problem_headers
            )
            for status in sorted(answered | by_status)
        }

    def _response(
        self,
        name: str,
        status: int,
        answer: Answer | None,
        kinds: tuple[Problem, ...],
        problem_headers: tuple[str, ...],
    ) -> dict[str, Any]:
        answer = Answer(status, "", {}) if answer is None else answer
        headers = answer.headers
        if kinds:
            headers = tuple(dict.fromkeys((*headers, *PROBLEM_HEADERS.get(status, ()), *problem_headers)))
        key = (status, answer.meaning, tuple(answer.content.items()), headers, answer.links, kinds)
        if key not in self._names:
            self._names[key] = f"{name}{status}"
            self.shared[f"{name}{status}"] = _response(answer, kinds, headers)
        return {"$ref": f"#/components/responses/{self._names[key]}"}


def _response(answer: Answer, kinds: tuple[Problem, ...], headers: tuple[str, ...]) -> dict[str, Any]:
    meanings = [answer.meaning] if answer.meaning else []
    content = _content(answer.content)
    if kinds:
        meanings.append(f"A problem: {', '.join(f'`{problem.kind}`' for problem in kinds)}.")
        told = {
            "type": {"enum": [f"{TYPE_PREFIX}{problem.kind}" for problem in kinds]},
            "status": {"const": answer.status},
        }
        content[PROBLEM_JSON] = {"schema": {"$ref": "#/components/schemas/Problem", "properties": told}}
    response: dict[str, Any] = {
        "description": "\n\n".join(meanings),
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in (*headers, *_COMMON_HEADERS)},
    }
    if answer.links:
        response["links"] = {
            name: {"operationId": name, "parameters": {"id": "$response.body#/id"}} for name in answer.links
        }
    return response | {"content": content} if content else response


def _parameter(parameter: Parameter) -> dict[str, Any]:
    told: dict[str, Any] = {
        "name": parameter.name,
        "in": parameter.place,
        "description": parameter.meaning,
        "schema": parameter.schema,
    }
    return told | {"required": True} if parameter.place == "path" else told


def _operation(operation: Operation, responses: _Responses) -> dict[str, Any]:
    parameters = (*operation.parameters, *OF_ALL)
    told: dict[str, Any] = {
        "operationId": operation.name,
        "description": operation.meaning,
        "parameters": [{"$ref": f"#/components/parameters/{parameter.name}"} for parameter in parameters],
        "responses": responses.of(
            operation.name,
            operation.answers,
            (*OF_EVERY_REQUEST, *operation.problems),
            operation.problem_headers,
        ),
    }
    if operation.body is not None:
        told["requestBody"] = {"content": _content(operation.body)}
    return told


def document() -> dict[str, Any]:
    """Return the document, as values that JSON has."""
    responses = _Responses()
    paths: dict[str, Any] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, responses)
    refusals = responses.of("refuse", (), (*OF_EVERY_REQUEST, *OF_NO_OPERATION), ())
    parameters = {
        parameter.name: _parameter(parameter)
        for parameter in (*OF_ALL, *(parameter for operation in OPERATIONS for parameter in operation.parameters))
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "gatewayx",
            "version": __version__,
            "description": "An HTTP/1.1 front for Gearman job servers: a request becomes a job, its result the "
            "response. A gateway with `--plugin-compat` answers otherwise.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        # Where the gateway has tokens; without them anybody may ask.
        "security": [{}, {"token": []}, {"certificate": []}],
        "paths": paths,
        REFUSALS: {
            "description": "The answers to a request that is none of the operations, or whose head cannot be read.",
            "responses": refusals,
        },
        "components": {
            "schemas": _schemas(),
            "parameters": parameters,
            "headers": {
                header.name: {"description": header.meaning, "schema": header.schema}
                | ({"required": True} if header.always else {})
                for header in (*ON_EVERY_ANSWER, *ON_SOME_ANSWERS)
            },
            "responses": responses.shared,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "A token of `--tokens`."},
                "certificate": {"type": "mutualTLS", "description": "A certificate that stands for one."},
            },
        },
    }


@functools.cache
def body() -> bytes:
    """Return the document as it is answered; it is made when it is asked for first."""
    return orjson.dumps(document(), option=orjson.OPT_APPEND_NEWLINE)


@functools.cache
def entity_tag() -> bytes:
    """Return the document's ETag (RFC 9110 8.8.3), which is that of no other."""
    return b'"%b"' % hashlib.sha256(body()).hexdigest()[:32].encode("ascii")
