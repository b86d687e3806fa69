"""Every kind of problem that a client can be told of, once: what it means, and what its answer says.

The answer carries `application/problem+json` (RFC 9457), whose type ends in the kind. The table of problems in
docs/http-api.md is made from PROBLEMS.
"""

from __future__ import annotations

import enum
from typing import NamedTuple


class Retry(enum.Enum):
    """Whether a client may send the same request again; the values are the words of the docs."""

    YES = "yes: nothing was submitted"
    NO = "no: the same request is refused again"
    RAN = "no: the job ran"
    UNKNOWN = "not known: the job may have run, or may yet"


class Problem(NamedTuple):
    """One kind of problem.

    kind: the end of the problem's type. status: of the answer. retry: whether the request may be sent again. closes:
    whether the connection ends with the answer; None if that depends on what is known of the rest of the request. when:
    what has happened, for the docs. detail: the sentence that the answer says of it, unless whoever refuses knows more;
    never raw bytes from the network. headers: further header lines of the answer, each with its CRLF.
    """

    kind: str
    status: int
    retry: Retry
    closes: bool | None
    when: str
    detail: str
    headers: bytes | None = None


class RequestError(Exception):
    """A request that is refused: the client's fault, or room that is not there.

    problem: which kind. detail: what was wrong with this request; the problem's own words if it is None. headers:
    header lines of this answer in place of the problem's own, each with its CRLF; a Retry-After among them is the only
    one.
    """

    def __init__(self, problem: Problem, detail: str | None = None, headers: bytes | None = None) -> None:
        self.problem = problem
        self.headers = headers
        self.detail = problem.detail if detail is None else detail
        super().__init__(self.detail)


# RFC 9110 15.5.6: a 405 names the methods that are served.
ALLOW = b"Allow: GET, HEAD, POST, PUT, OPTIONS\r\n"

# What became of the job.

JOB_FAILED = Problem(
    "job-failed",
    500,
    Retry.RAN,
    False,
    "the job failed (WORK_FAIL), or was cancelled at the job server; `detail` has the worker's reason if it gave one, "
    "and data that came before is dropped",
    "the worker reported that the job failed",
)
RESULT_TOO_LARGE = Problem(
    "result-too-large",
    502,
    Retry.RAN,
    False,
    "the result is larger than `--max-result`, or does not fit beside what is held for others; `detail` says which",
    "the job ran, but its result is larger than the gateway's limit",
)
# Its detail where what others have is the reason.
NO_ROOM_FOR_RESULT = "the job ran, but its result did not fit beside what the gateway holds for others at the moment"
OUTCOME_UNKNOWN = Problem(
    "outcome-unknown",
    502,
    Retry.UNKNOWN,
    False,
    "the connection to the job server was lost after the job was sent; `detail` says whether the job had been created",
    "the connection to the job server was lost; whether the job ran or will run is not known",
)
JOB_TIMEOUT = Problem(
    "job-timeout",
    504,
    Retry.UNKNOWN,
    False,
    "no result in time, or a background job was not accepted in time; nothing was submitted if `detail` says so",
    "no result in time",
)
NO_JOB_SERVER = Problem(
    "no-job-server",
    503,
    Retry.YES,
    False,
    "no job server is connected, or none takes more jobs",
    "no job server takes jobs now; nothing was submitted",
)
NOT_SUBMITTED = Problem(
    "not-submitted",
    503,
    Retry.YES,
    False,
    "the job server was lost before the job was sent, and no other takes it",
    "nothing was submitted",
)
JOB_REFUSED = Problem(
    "job-refused",
    503,
    Retry.YES,
    False,
    "a job server answered ERROR, or every one `QUEUE_ERROR`; code and text of the last are in `detail`",
    "no job server has queued the job",
)

OWNER_AWAY = Problem(
    "owner-away",
    503,
    Retry.YES,
    False,
    "the worker process that owns the request's unique, or keeps its job, is being replaced, or takes no connections",
    "the worker process of the gateway that owns this unique or job is not there at the moment; nothing was submitted",
)
RELAY_FULL = Problem(
    "relay-full",
    503,
    Retry.YES,
    False,
    "a worker process has given others as many requests as `--max-relayed` allows",
    "as many requests as may be are with the other worker processes of the gateway; nothing was submitted",
)

# What may not be submitted now.

NO_WORKER = Problem(
    "no-worker",
    503,
    Retry.YES,
    False,
    "no job server has a worker for the function (`--require-worker`)",
    "no job server has a worker for this function; nothing was submitted",
)
QUEUE_TOO_LONG = Problem(
    "queue-too-long",
    503,
    Retry.YES,
    False,
    "as many jobs of the function wait at every job server as `--max-queued` allows",
    "as many jobs of this function wait at every job server as may; nothing was submitted",
)
UNIQUE_IN_USE = Problem(
    "unique-in-use",
    409,
    Retry.YES,
    False,
    "the unique is that of a background job for a foreground request, or the reverse",
    "a foreground and a background job with this unique would be one job, which is lost with the foreground one's "
    "connection; the other of them was submitted and has not ended as far as is known; this one was not submitted",
)
STOPPING = Problem(
    "stopping",
    503,
    Retry.YES,
    True,
    "the gateway is stopping and the request has not fully arrived",
    "the gateway is stopping and has not submitted the request",
)
TOO_MANY_CONNECTIONS = Problem(
    "too-many-connections",
    503,
    Retry.YES,
    True,
    "`--max-connections` clients, and none of them makes room; or this one does, since of its unfinished request "
    "nothing came for longest",
    "as many connections are open as may be, and none makes room",
)
TOO_MANY_CONNECTIONS_PER_ADDRESS = Problem(
    "too-many-connections-per-address",
    429,
    Retry.YES,
    True,
    "`--max-connections-per-address` of the client's address: connections, or requests that trusted proxies pass on",
    "as many connections from your address are open as may be",
)
TOO_MANY_JOBS = Problem(
    "too-many-jobs",
    503,
    Retry.YES,
    False,
    "`--max-jobs` jobs are in flight",
    "as many jobs are in flight as may be; nothing was submitted",
)
TOO_MANY_FUNCTION_JOBS = Problem(
    "too-many-function-jobs",
    503,
    Retry.YES,
    False,
    "as many jobs of the function are in flight as `--max-function-jobs` allows",
    "as many jobs of this function are in flight as may be; nothing was submitted",
)
TOO_MANY_BYTES = Problem(
    "too-many-bytes",
    503,
    Retry.YES,
    None,
    "the request does not fit beside what is held for others (`--max-held`), or came too slowly while "
    "little room is left",
    "the gateway holds as many bytes as it may; nothing was submitted",
)

# What asks for something that does not exist.

FUNCTION_NOT_ALLOWED = Problem(
    "function-not-allowed",
    404,
    Retry.NO,
    False,
    "the function is not in the list of `--function`",
    "the function is none of those that may be asked for here",
)
NO_FUNCTION = Problem("no-function", 404, Retry.NO, False, "the path names no function", "the path names no function")
RESERVED_PATH = Problem(
    "reserved-path",
    404,
    Retry.NO,
    False,
    "the path begins with `/v1/`",
    "paths that begin with /v1/ are reserved",
)
MALFORMED_FUNCTION = Problem(
    "malformed-function",
    400,
    Retry.NO,
    False,
    "the function's name is too long or holds a control byte",
    "the function's name holds a control byte",
)
MALFORMED_HEADER = Problem(
    "malformed-header",
    400,
    Retry.NO,
    False,
    "an `X-Gearman-` header or `Idempotency-Key` cannot be used",
    "an X-Gearman- header or Idempotency-Key cannot be used",
)
UNEXPECTED_BODY = Problem(
    "unexpected-body",
    400,
    Retry.NO,
    False,
    "GET or HEAD with a body",
    "the workload of a GET is its query, so it has no body",
)
UNEXPECTED_QUERY = Problem(
    "unexpected-query",
    400,
    Retry.NO,
    False,
    "POST or PUT with a query",
    "the workload of a POST or PUT is its body; a query would be lost",
)
METHOD_NOT_ALLOWED = Problem(
    "method-not-allowed",
    405,
    Retry.NO,
    None,
    "a method that submits no job; CONNECT closes",
    "a job is submitted with POST, PUT or GET",
    ALLOW,
)

# Who may not ask. A 401 has a WWW-Authenticate line (RFC 6750 3).

UNAUTHENTICATED = Problem(
    "unauthenticated",
    401,
    Retry.NO,
    False,
    "no token, or one that is not known or has expired (`--tokens`)",
    "a token is needed: Authorization: Bearer",
    b'WWW-Authenticate: Bearer realm="gatewayx"\r\n',
)
NOT_PERMITTED = Problem(
    "not-permitted",
    403,
    Retry.NO,
    False,
    "the token does not reach the function, the priority, or background jobs",
    "the token does not reach what is asked for",
)
FOREIGN_PAGE = Problem(
    "foreign-page",
    403,
    Retry.NO,
    False,
    "a page asks whose origin is not among those of `--origin`; or, without that, one from the web that asks a gateway "
    "on its visitor's own machine",
    "pages of this origin may not ask here",
)
PREFLIGHT_REFUSED = Problem(
    "preflight-refused",
    403,
    Retry.NO,
    False,
    "a browser asks whether a page may ask with a method or a header that is not listed for pages",
    "the method or a header is none of those with which pages may ask",
)
MISDIRECTED = Problem(
    "misdirected",
    421,
    Retry.NO,
    False,
    "the request's host is none of those of `--host`",
    "this gateway is not asked for by this host",
)
RATE_EXCEEDED = Problem(
    "rate-exceeded",
    429,
    Retry.YES,
    False,
    "more requests than `--rate`, `--function-rate` or the token's rate allow; `detail` says which",
    "more requests came than may",
)
TOO_MANY_CONNECTIONS_TOO_FAST = Problem(
    "connection-rate-exceeded",
    429,
    Retry.YES,
    True,
    "more connections of the client's address than `--connection-rate` allows",
    "more connections from your address came than may",
)
TOO_MANY_ATTEMPTS = Problem(
    "too-many-attempts",
    429,
    Retry.YES,
    False,
    "too many tokens of the client's address were not known; further ones that are not are told so for a while",
    "too many tokens that are not known came from your address",
)
TOO_MANY_TOKEN_JOBS = Problem(
    "too-many-token-jobs",
    429,
    Retry.YES,
    False,
    "as many jobs of the token are in flight as its `max_jobs` allows",
    "as many jobs of this token are in flight as may be; nothing was submitted",
)

# What is no HTTP, too large or too slow: the rest of such a connection cannot be told apart.

MALFORMED_REQUEST = Problem(
    "malformed-request",
    400,
    Retry.NO,
    True,
    "head or framing malformed, Host missing, repeated, empty or invalid, Transfer-Encoding together with "
    "Content-Length or on HTTP/1.0",
    "the request is malformed",
)
CHUNK_EXTENSIONS_TOO_LARGE = Problem(
    "chunk-extensions-too-large",
    400,
    Retry.NO,
    True,
    "chunk extensions too large",
    "the chunk extensions are too large",
)
HEAD_TOO_SLOW = Problem(
    "head-too-slow",
    408,
    Retry.YES,
    True,
    "head not complete in time, once its first byte came",
    "the head of the request did not arrive in time",
)
BODY_TOO_SLOW = Problem(
    "body-too-slow",
    408,
    Retry.YES,
    True,
    "no byte of the body in time, or too few for too long",
    "the body of the request did not arrive in time",
)
BODY_TOO_LARGE = Problem(
    "body-too-large", 413, Retry.NO, True, "body too large (`--max-body`)", "the body is too large"
)
TARGET_TOO_LONG = Problem(
    "target-too-long", 414, Retry.NO, True, "target too long (`--max-target`)", "the target is too long"
)
EXPECTATION_FAILED = Problem(
    "expectation-failed",
    417,
    Retry.NO,
    True,
    "`Expect` with anything but `100-continue`",
    "the only expectation met is '100-continue'",
)
HEADERS_TOO_LARGE = Problem(
    "headers-too-large",
    431,
    Retry.NO,
    True,
    "headers, or trailers, too many or too large",
    "the headers are too many or too large",
)
TRANSFER_ENCODING_NOT_SUPPORTED = Problem(
    "transfer-encoding-not-supported",
    501,
    Retry.NO,
    True,
    "Transfer-Encoding other than exactly `chunked`",
    "the only Transfer-Encoding served is 'chunked'",
)
VERSION_NOT_SUPPORTED = Problem(
    "version-not-supported",
    505,
    Retry.NO,
    True,
    "HTTP version well formed, but neither 1.0 nor 1.1",
    "the HTTP version is neither 1.0 nor 1.1",
)
INTERNAL_ERROR = Problem(
    "internal-error",
    500,
    Retry.UNKNOWN,
    None,
    "a defect of the gateway; the log has a traceback",
    "the gateway has failed on this request; the outcome of the job is not known",
)

# What became of a job that outlives its request. They stand last, so that the places of the others stay what they are.

JOB_UNKNOWN = Problem(
    "job-unknown",
    404,
    Retry.NO,
    False,
    "no job of this id is known to whoever asks: it never was, was forgotten, or belongs to another token; or the "
    "process that kept it has ended",
    "no job of this id is known",
)
RESULT_DROPPED = Problem(
    "result-dropped",
    410,
    Retry.RAN,
    False,
    "the result of a kept job had to make room for newer ones",
    "the job has ended, and its result had to make room for newer ones",
)
JOB_CANCELLED = Problem(
    "job-cancelled",
    409,
    Retry.NO,
    False,
    "a cancelled job has no result",
    "the job was cancelled, so it has no result",
)
NOT_KEPT = Problem(
    "not-kept",
    409,
    Retry.NO,
    False,
    "a background job has neither result nor events: job servers drop them",
    "the gateway does not keep this job: of a background job there is neither result nor events",
)
NOT_CANCELLABLE = Problem(
    "not-cancellable",
    409,
    Retry.NO,
    False,
    "the job has ended, others may wait for it, or its job server no longer knows it by the handle that is known here",
    "the job cannot be cancelled",
)
TOO_MANY_KEPT_JOBS = Problem(
    "too-many-kept-jobs",
    503,
    Retry.YES,
    False,
    "as many jobs as `--max-kept-jobs` are kept",
    "as many jobs are kept as may be",
)
JOB_SERVER_AWAY = Problem(
    "job-server-away",
    503,
    Retry.YES,
    False,
    "the job server of a background job cannot be asked now; nothing is known of the job",
    "the job server of this job cannot be asked now",
)
TOO_MANY_STATUS_POLLS = Problem(
    "too-many-status-polls",
    503,
    Retry.YES,
    False,
    "the job server is asked for background jobs as often as `--max-status-polls` lets it be",
    "the job server is asked for jobs as often as it may be",
)

KEY_REUSED = Problem(
    "key-reused",
    422,
    Retry.NO,
    False,
    "the idempotency key came before with another function, workload, priority, or kind of job",
    "this idempotency key came before with another request; nothing was submitted",
)
TOO_MANY_KEYS = Problem(
    "too-many-keys",
    503,
    Retry.YES,
    False,
    "as many idempotency keys as `--max-keys` are known",
    "as many idempotency keys are known as may be; nothing was submitted",
)
BATCH_TOO_LONG = Problem(
    "batch-too-long",
    413,
    Retry.NO,
    False,
    "a batch has more lines than `--max-batch`",
    "the batch has more lines than it may have; nothing was submitted",
)
MALFORMED_LINE = Problem(
    "malformed-line",
    400,
    Retry.NO,
    False,
    "a line of a batch is no job; the other lines are run all the same",
    "the line is no job; nothing was submitted for it",
)
PLAIN_HTTP = Problem(
    "plain-http",
    400,
    Retry.NO,
    True,
    "plain HTTP is sent to a port where clients speak TLS",
    "this is plain HTTP, but this port speaks TLS: use https://; nothing was submitted",
)

# In the order of the docs.
PROBLEMS = tuple(problem for problem in list(vars().values()) if isinstance(problem, Problem))


def markdown_table() -> str:
    """The table of problems in docs/http-api.md."""
    lines = ["| what happened | status | kind | may it be sent again? |", "|---|---|---|---|"]
    for problem in PROBLEMS:
        closed = {True: ", closed", False: "", None: ", may be closed"}[problem.closes]
        lines.append(f"| {problem.when} | {problem.status}{closed} | `{problem.kind}` | {problem.retry.value} |")
    return "\n".join(lines) + "\n"
