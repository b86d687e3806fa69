"""Every operation of the HTTP interface, once: what may be asked, with what, and all that can be answered.

The OpenAPI document (gateway/openapi) is made from OPERATIONS. The tests hold docs/http-api.md, and every answer that
they get, against it, so an answer that is new has its place here.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from gatewayx.http import problems
from gatewayx.http.problems import Problem

JSON = "application/json"
PROBLEM_JSON = "application/problem+json"
EVENT_STREAM = "text/event-stream"
LINES = "application/x-ndjson"
# A workload or a result: its bytes are looked at by nobody, and `--content-type` says what a result is called.
ANY = "*/*"

# Seconds, as the headers and the query have them: digits, and behind a point more of them.
DECIMAL = r"^[0-9]+(\.[0-9]+)?$"
# The name of a request: the gateway's own, or that of a trusted proxy (http/forwarded).
REQUEST_NAME = "[A-Za-z0-9._~:/+=@-]{1,128}"
# A token (RFC 9110 5.6.2), or a String (RFC 9651 3.3.3), that says 1 to 255 bytes.
KEY = r"""^([!#$%&'*+.^_`|~0-9A-Za-z-]{1,255}|"([ !#-\[\]-~]|\\["\\]){1,255}")$"""


class Parameter(NamedTuple):
    """What a request says beside its body. place: of OpenAPI, `path`, `query` or `header`. schema: JSON Schema."""

    name: str
    place: str
    meaning: str
    schema: dict[str, Any]


class Answer(NamedTuple):
    """One answer that is no problem.

    content: media types, each to the name of its schema, or None for any bytes; of lines and events, that of each.
    headers: that it may have, beside those of every answer. links: names of operations that can be asked next, of the
    job whose JSON this is.
    """

    status: int
    meaning: str
    content: dict[str, str | None]
    headers: tuple[str, ...] = ()
    links: tuple[str, ...] = ()


class Operation(NamedTuple):
    """One method at one path.

    body: the request's media types, as those of an Answer; None where it has none. problems: that it can be answered,
    beside those of every request. problem_headers: that these may have then, beside those of every answer and those of
    their kind.
    """

    method: str
    path: str
    name: str
    meaning: str
    parameters: tuple[Parameter, ...]
    body: dict[str, str | None] | None
    answers: tuple[Answer, ...]
    problems: tuple[Problem, ...]
    problem_headers: tuple[str, ...] = ()


FUNCTION = Parameter(
    "function",
    "path",
    "The function's name, percent-encoded: at least one byte, at most `--max-function`, and no control bytes. A `/` in "
    "it may be sent as it is or as `%2F`, which mean the same; names that begin with `v1/` are no functions.",
    {"type": "string", "minLength": 1},
)
JOB_ID = Parameter(
    "id",
    "path",
    "The last part of a job's Location.",
    {"type": "string", "minLength": 1},
)
WAIT = Parameter(
    "wait",
    "query",
    "Answer at the job's end, or after so many seconds: a decimal, of which up to 60 count.",
    {"type": "string", "pattern": DECIMAL},
)
UNIQUE = Parameter(
    "X-Gearman-Unique",
    "header",
    "The job's unique: 1 to 63 bytes, not beginning with `gatewayx-`. `-` lets the job server merge jobs of the same "
    "workload. Without it the gateway makes one for this job alone.",
    {"type": "string", "minLength": 1, "maxLength": 63, "not": {"pattern": "^gatewayx-"}},
)
BACKGROUND = Parameter(
    "X-Gearman-Background",
    "header",
    "Whether the job is a background job, which is answered as soon as the job server has accepted it.",
    {"type": "string", "enum": ["true", "false"], "default": "false"},
)
PRIORITY = Parameter(
    "X-Gearman-Priority",
    "header",
    "The job's priority.",
    {"type": "string", "enum": ["low", "normal", "high"], "default": "normal"},
)
TIMEOUT = Parameter(
    "X-Gearman-Timeout",
    "header",
    "Seconds to wait: a decimal above 0, of which up to `--job-timeout` count, of kept and streamed jobs "
    "`--kept-timeout`.",
    {"type": "string", "pattern": r"^(?=.*[1-9])[0-9]+(\.[0-9]+)?$", "maxLength": 18},
)
STREAM = Parameter(
    "X-Gearman-Stream",
    "header",
    "Whether the job's data is the answer while it comes. Not with X-Gearman-Unique, nor with a background job.",
    {"type": "string", "enum": ["true", "false"], "default": "false"},
)
IDEMPOTENCY_KEY = Parameter(
    "Idempotency-Key",
    "header",
    "Who sends the same key again is answered by the same job: a token, or a quoted string of RFC 9651, of 1 to 255 "
    "bytes; at least 22 where the gateway has no `--tokens`. Not with X-Gearman-Unique, X-Gearman-Stream, or an "
    "event stream.",
    {"type": "string", "pattern": KEY},
)
PREFER = Parameter(
    "Prefer",
    "header",
    "`respond-async` keeps the job, which outlives the request; `respond-async, wait=N` does if it has not "
    "ended in N seconds.",
    {"type": "string", "examples": ["respond-async", "respond-async, wait=5"]},
)
ACCEPT = Parameter(
    "Accept",
    "header",
    "`text/event-stream` keeps the job, and its events are the answer.",
    {"type": "string", "examples": ["text/event-stream"]},
)
LAST_EVENT_ID = Parameter(
    "Last-Event-ID",
    "header",
    "The last event that was read. With `Accept: text/event-stream` a submission that has it submits nothing, and goes "
    "on with that job's events.",
    {"type": "string"},
)
IF_NONE_MATCH = Parameter(
    "If-None-Match",
    "header",
    "What is known already, by its ETag.",
    {"type": "string"},
)
# Of every request. What OpenAPI says by other means, such as Authorization and Content-Type, is no parameter there.
OF_ALL = (
    Parameter(
        "X-Request-Id",
        "header",
        "The client's name for the request, for the access log; a trusted proxy's is the request's name.",
        {"type": "string"},
    ),
    Parameter(
        "traceparent", "header", "The trace that the request is part of, for the access log.", {"type": "string"}
    ),
    Parameter(
        "tracestate", "header", "What tracers send beside it; the gateway does not look at it.", {"type": "string"}
    ),
)

# Headers of answers.


class Header(NamedTuple):
    """A header of answers. always: every answer of the gateway has it."""

    name: str
    meaning: str
    schema: dict[str, Any]
    always: bool = False


_TEXT: dict[str, Any] = {"type": "string"}
ON_EVERY_ANSWER = (
    Header("Server", "`gatewayx/<version>`", {"type": "string", "pattern": "^gatewayx/"}, True),
    Header("Date", "the time of the answer", _TEXT, True),
    Header("Cache-Control", "`no-store`", {"const": "no-store"}, True),
    Header("X-Content-Type-Options", "`nosniff`", {"const": "nosniff"}, True),
    Header(
        "X-Request-Id",
        "the request's name, which is the gateway's own unless a trusted proxy has named the request",
        {"type": "string", "pattern": f"^{REQUEST_NAME}$"},
        True,
    ),
    Header("Server-Timing", "with `--server-timing`: how long the gateway and the job took", _TEXT),
    Header("RateLimit-Policy", "to a token with a rate: what it may have", _TEXT),
    Header("RateLimit", "to a token with a rate: what is left of that", _TEXT),
    Header("Vary", "with `--origin`: by what answers differ", _TEXT),
    Header("Access-Control-Allow-Origin", "to pages of `--origin`: that they may see the answer", _TEXT),
    Header("Access-Control-Expose-Headers", "to pages of `--origin`: what of its head they may see", _TEXT),
    Header("Connection", "whether the connection ends", {"enum": ["close", "keep-alive"]}),
    Header("Content-Length", "bytes of the body", {"type": "string", "pattern": "^[0-9]+$"}),
    Header("Transfer-Encoding", "of a body that comes in pieces", {"const": "chunked"}),
)
ON_SOME_ANSWERS = (
    Header("X-Gearman-Job-Handle", "the job server's name for the job", _TEXT),
    Header(
        "X-Gearman-Command",
        "how the job ended, or that it was queued",
        {"enum": ["WORK_COMPLETE", "WORK_FAIL", "WORK_EXCEPTION", "JOB_CREATED"]},
    ),
    Header("X-Gearman-Unique", "the job's unique, given or made", {"type": "string", "minLength": 1, "maxLength": 63}),
    Header("Location", "where the job is asked for", {"type": "string", "pattern": "^/v1/jobs/[A-Za-z0-9_~-]+$"}),
    Header("Preference-Applied", "what of Prefer was done", {"const": "respond-async"}),
    Header("Idempotency-Replayed", "the answer is that of an earlier request with this key", {"const": "true"}),
    Header("ETag", "what If-None-Match may have next time", {"type": "string", "pattern": '^"[^"]+"$'}),
    Header("Retry-After", "seconds after which to come again", {"type": "string", "pattern": "^[1-9][0-9]*$"}),
    Header("X-Accel-Buffering", "that proxies are to pass on events as they come", {"const": "no"}),
    Header("WWW-Authenticate", "what is wrong with the token", {"type": "string", "pattern": "^Bearer "}),
    Header("Allow", "the methods that are served at the path", _TEXT),
    Header("Access-Control-Allow-Methods", "to a preflight: the methods that pages may ask with", _TEXT),
    Header("Access-Control-Allow-Headers", "to a preflight: the headers that pages may send", _TEXT),
    Header("Access-Control-Max-Age", "to a preflight: for how many seconds that holds", _TEXT),
)

# What each kind of problem has beside these.
PROBLEM_HEADERS = {
    401: ("WWW-Authenticate",),
    # RFC 6750 3.1: insufficient_scope.
    403: ("WWW-Authenticate",),
    405: ("Allow",),
    429: ("Retry-After",),
    503: ("Retry-After",),
}

# Problems that any request may be answered, whatever it asks for: connections and heads, then who may ask.
OF_EVERY_REQUEST = (
    problems.MALFORMED_REQUEST,
    problems.CHUNK_EXTENSIONS_TOO_LARGE,
    problems.HEAD_TOO_SLOW,
    problems.BODY_TOO_SLOW,
    problems.BODY_TOO_LARGE,
    problems.TARGET_TOO_LONG,
    problems.EXPECTATION_FAILED,
    problems.HEADERS_TOO_LARGE,
    problems.TRANSFER_ENCODING_NOT_SUPPORTED,
    problems.VERSION_NOT_SUPPORTED,
    problems.TOO_MANY_CONNECTIONS,
    problems.TOO_MANY_CONNECTIONS_PER_ADDRESS,
    problems.TOO_MANY_CONNECTIONS_TOO_FAST,
    problems.TOO_MANY_BYTES,
    problems.STOPPING,
    problems.INTERNAL_ERROR,
    problems.MISDIRECTED,
    problems.FOREIGN_PAGE,
    problems.UNAUTHENTICATED,
    problems.TOO_MANY_ATTEMPTS,
    problems.RATE_EXCEEDED,
)
# What is none of the operations: another method, another path, another protocol.
OF_NO_OPERATION = (
    problems.PLAIN_HTTP,
    problems.METHOD_NOT_ALLOWED,
    problems.NO_FUNCTION,
    problems.RESERVED_PATH,
    problems.PREFLIGHT_REFUSED,
)

_OF_RELAYING = (problems.OWNER_AWAY, problems.RELAY_FULL, problems.OUTCOME_UNKNOWN, problems.JOB_TIMEOUT)
_OF_FUNCTIONS = (
    problems.MALFORMED_FUNCTION,
    problems.NO_FUNCTION,
    problems.RESERVED_PATH,
    problems.FUNCTION_NOT_ALLOWED,
    problems.NOT_PERMITTED,
    problems.MALFORMED_HEADER,
)
_OF_ROOM = (
    problems.NO_WORKER,
    problems.QUEUE_TOO_LONG,
    problems.UNIQUE_IN_USE,
    problems.TOO_MANY_JOBS,
    problems.TOO_MANY_FUNCTION_JOBS,
    problems.TOO_MANY_TOKEN_JOBS,
)
_OF_JOBS = (
    problems.JOB_FAILED,
    problems.RESULT_TOO_LARGE,
    problems.NO_JOB_SERVER,
    problems.NOT_SUBMITTED,
    problems.JOB_REFUSED,
    *_OF_RELAYING,
)
_OF_SUBMISSIONS = (*_OF_FUNCTIONS, *_OF_ROOM, *_OF_JOBS)
_OF_KEPT_SUBMISSIONS = (problems.TOO_MANY_KEPT_JOBS,)
# A submission that goes on with a job's events.
_OF_RESUMPTIONS = (problems.NOT_KEPT,)
_OF_KEYS = (problems.KEY_REUSED, problems.TOO_MANY_KEYS, problems.RESULT_DROPPED)
_OF_CALLS = (problems.JOB_UNKNOWN, problems.UNEXPECTED_QUERY, *_OF_RELAYING)
_OF_QUESTIONS = (*_OF_CALLS, problems.UNEXPECTED_BODY)
_OF_BACKGROUND = (problems.JOB_SERVER_AWAY, problems.TOO_MANY_STATUS_POLLS)

_JOB_HEADERS = ("X-Gearman-Job-Handle", "X-Gearman-Command", "X-Gearman-Unique")
_KEPT_HEADERS = ("Location", "ETag", "Retry-After")
_OF_SUBMITTING = (UNIQUE, BACKGROUND, PRIORITY, TIMEOUT, STREAM)

_OF_THE_JOB = ("readJob", "readResult", "readEvents", "cancelJob", "forgetJob")
_EVENTS_MEANING = "The job's events, each a line of JSON with an id"
_NOTHING_LEFT = Answer(
    204, "All events were read, or the job is not known: nothing is left to tell.", {}, ("Location",)
)


def _submission(method: str, name: str, meaning: str, *, further: tuple[Parameter, ...], takes_body: bool) -> Operation:
    """POST, PUT, GET or HEAD of a function."""
    has_events = ACCEPT in further
    may_be_async = PREFER in further
    done: dict[str, str | None] = {ANY: None, EVENT_STREAM: "Event"} if has_events else {ANY: None}
    headers = (*_JOB_HEADERS, "Location")
    told = "The job has completed: its result. Or a background job was accepted: nothing."
    answers = [Answer(200, told, done, (*headers, "X-Accel-Buffering") if has_events else headers)]
    kinds: tuple[Problem, ...] = _OF_SUBMISSIONS
    if may_be_async:
        told = "The job was accepted, and outlives this request; of a background job the body is empty."
        answers.append(
            Answer(
                202, told, {JSON: "KeptJob", ANY: None}, (*headers, *_KEPT_HEADERS, "Preference-Applied"), _OF_THE_JOB
            )
        )
        kinds += _OF_KEYS
    if has_events:
        answers.append(_NOTHING_LEFT)
        kinds += _OF_KEPT_SUBMISSIONS + _OF_RESUMPTIONS
    answers.append(Answer(500, "The worker has raised an exception, whose data this is.", {ANY: None}, headers))
    if may_be_async:
        answers = [answer._replace(headers=(*answer.headers, "Idempotency-Replayed")) for answer in answers]
    kinds += (problems.UNEXPECTED_QUERY,) if takes_body else (problems.UNEXPECTED_BODY,)
    return Operation(
        method,
        "/{function}",
        name,
        meaning,
        (FUNCTION, *_OF_SUBMITTING, *further),
        {ANY: None} if takes_body else None,
        tuple(answers),
        kinds,
        (*_JOB_HEADERS, "Idempotency-Replayed") if may_be_async else _JOB_HEADERS,
    )


def _options(path: str, name: str, parameters: tuple[Parameter, ...]) -> Operation:
    preflight = ("Access-Control-Allow-Methods", "Access-Control-Allow-Headers", "Access-Control-Max-Age")
    return Operation(
        "OPTIONS",
        path,
        name,
        "Tell the methods that are served here, in Allow; or answer a browser's preflight. Nothing is submitted.",
        parameters,
        None,
        (Answer(204, "These are.", {}, ("Allow", *preflight)),),
        (problems.PREFLIGHT_REFUSED,),
    )


def _call(
    method: str,
    part: str,
    name: str,
    meaning: str,
    parameters: tuple[Parameter, ...],
    answers: tuple[Answer, ...],
    kinds: tuple[Problem, ...],
    problem_headers: tuple[str, ...] = (),
) -> Operation:
    """One of a job."""
    path = f"/v1/jobs/{{id}}{part}"
    return Operation(method, path, name, meaning, (JOB_ID, *parameters), None, answers, kinds, problem_headers)


def _with_head(operation: Operation, name: str) -> tuple[Operation, Operation]:
    """A GET, and HEAD that stands for it."""
    meaning = f"As GET; the answer has the same head and no body. {operation.meaning}"
    return operation, operation._replace(method="HEAD", name=name, meaning=meaning)


_STATE = _call(
    "GET",
    "",
    "readJob",
    "Tell what is known of a job; with `wait` at its end, or after so long.",
    (WAIT, IF_NONE_MATCH),
    (
        Answer(200, "The job.", {JSON: "Job"}, ("ETag", "Retry-After")),
        Answer(304, "Nothing has changed.", {}, ("ETag", "Retry-After")),
    ),
    (*_OF_QUESTIONS, *_OF_BACKGROUND),
)
_RESULT = _call(
    "GET",
    "/result",
    "readResult",
    "Answer what the synchronous answer would have been.",
    (WAIT,),
    (
        Answer(200, "The job has completed: its result.", {ANY: None}, _JOB_HEADERS),
        Answer(202, "The job has not ended.", {JSON: "KeptJob"}, _KEPT_HEADERS),
        Answer(500, "The worker has raised an exception, whose data this is.", {ANY: None}, _JOB_HEADERS),
    ),
    (
        *_OF_QUESTIONS,
        problems.JOB_FAILED,
        problems.RESULT_TOO_LARGE,
        problems.JOB_CANCELLED,
        problems.RESULT_DROPPED,
        problems.NOT_KEPT,
    ),
    _JOB_HEADERS,
)
_EVENTS = _call(
    "GET",
    "/events",
    "readEvents",
    "Tell a job's events as they happen, from the first one that is kept or behind Last-Event-ID.",
    (LAST_EVENT_ID,),
    (
        Answer(200, _EVENTS_MEANING, {EVENT_STREAM: "Event"}, ("X-Accel-Buffering",)),
        _NOTHING_LEFT,
    ),
    (*_OF_QUESTIONS, problems.NOT_KEPT),
)
_DOCUMENT = Operation(
    "GET",
    "/v1/openapi.json",
    "readInterface",
    "This document.",
    (IF_NONE_MATCH,),
    None,
    (
        Answer(200, "The document.", {JSON: "OpenApi"}, ("ETag",)),
        Answer(304, "It is the one that is known already.", {}, ("ETag",)),
    ),
    (problems.UNEXPECTED_BODY,),
)

OPERATIONS: tuple[Operation, ...] = (
    _submission(
        "POST",
        "submit",
        "Submit a job, whose workload is the body, and answer with its result.",
        further=(IDEMPOTENCY_KEY, PREFER, ACCEPT, LAST_EVENT_ID),
        takes_body=True,
    ),
    _submission(
        "PUT",
        "submitByPut",
        "As POST; proxies and clients may repeat it unasked, and then the job runs twice.",
        further=(),
        takes_body=True,
    ),
    _submission(
        "GET",
        "submitByGet",
        "Submit a job whose workload is the query, as sent; proxies and clients may repeat it unasked.",
        further=(ACCEPT, LAST_EVENT_ID),
        takes_body=False,
    ),
    _submission(
        "HEAD",
        "submitByHead",
        "As GET: the job runs. The answer has the same head and no body.",
        further=(),
        takes_body=False,
    ),
    _options("/{function}", "readMethods", (FUNCTION,)),
    *_with_head(_STATE, "readJobHead"),
    _call(
        "DELETE",
        "",
        "forgetJob",
        "Forget a job; it is cancelled if it has not ended and nobody else may wait for it.",
        (),
        (Answer(204, "It is forgotten.", {}),),
        _OF_QUESTIONS,
    ),
    _options("/v1/jobs/{id}", "readJobMethods", (JOB_ID,)),
    *_with_head(_RESULT, "readResultHead"),
    _options("/v1/jobs/{id}/result", "readResultMethods", (JOB_ID,)),
    *_with_head(_EVENTS, "readEventsHead"),
    _options("/v1/jobs/{id}/events", "readEventsMethods", (JOB_ID,)),
    _call(
        "POST",
        "/cancel",
        "cancelJob",
        "Cancel a job. A body is passed over.",
        (),
        (
            Answer(200, "It does not run.", {JSON: "Job"}, ("ETag", "Retry-After")),
            Answer(202, "It may have run, or goes on; its result is dropped.", {JSON: "Job"}, ("ETag", "Retry-After")),
        ),
        (*_OF_CALLS, *_OF_BACKGROUND, problems.NOT_CANCELLABLE),
    ),
    _options("/v1/jobs/{id}/cancel", "readCancelMethods", (JOB_ID,)),
    Operation(
        "POST",
        "/v1/batch",
        "submitBatch",
        "Submit a job for each line of the body, at most `--max-batch`, and answer with a line for each as they end. "
        "The body is read as lines whatever its Content-Type; empty ones do not count.",
        (),
        {LINES: "BatchJob", ANY: None},
        (Answer(200, "A line for each job, in the order of their ends.", {LINES: "BatchAnswer"}),),
        (problems.MALFORMED_HEADER, problems.UNEXPECTED_QUERY, problems.BATCH_TOO_LONG),
    ),
    _options("/v1/batch", "readBatchMethods", ()),
    *_with_head(_DOCUMENT, "readInterfaceHead"),
    _options("/v1/openapi.json", "readInterfaceMethods", ()),
)
