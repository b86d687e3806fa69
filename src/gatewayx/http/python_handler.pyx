"""Handlers in plain Python behind our own http room, for a process in which requests are few.

A request costs some objects here, which is why no worker process uses it. The body is read and dropped.
"""

import logging
from typing import NamedTuple

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE

from gatewayx.http.request cimport (
    METHOD_DELETE,
    METHOD_GET,
    METHOD_HEAD,
    METHOD_OPTIONS,
    METHOD_POST,
    METHOD_PUT,
    UNKNOWN_BYTES,
    BodySource,
    Request,
    RequestHandler,
)

from gatewayx.http.problems import INTERNAL_ERROR

logger = logging.getLogger("gatewayx.http")

# The methods that are told apart; any other is an empty text.
cdef dict METHOD_NAMES = {
    METHOD_GET: "GET",
    METHOD_HEAD: "HEAD",
    METHOD_POST: "POST",
    METHOD_PUT: "PUT",
    METHOD_OPTIONS: "OPTIONS",
    METHOD_DELETE: "DELETE",
}


class PlainRequest(NamedTuple):
    """What a handler in Python sees of a request."""

    # One of GET, HEAD, POST, PUT, OPTIONS and DELETE; empty for any other.
    method: str
    # As sent, still percent-encoded, without the query.
    path: bytes
    # What follows the first "?"; empty without one.
    query: bytes
    # Of the headers that are wanted those that came, by name in lower case; several lines of a name joined by commas.
    headers: dict


class PlainAnswer(NamedTuple):
    """What it answers; to HEAD the body is left out by the connection."""

    status: int
    content_type: bytes
    # bytes, or PlainPieces.
    body: object
    # Further header lines, each with its CRLF.
    header_lines: bytes = b""


@cython.final
cdef class PlainPieces(BodySource):
    """A body that comes in pieces; the stub says what each method does."""

    def __init__(self, long long body_bytes=UNKNOWN_BYTES, bytes first=None, on_wanted=None):
        self.body_bytes = body_bytes
        self.first = first
        self.on_wanted = on_wanted

    cdef int wanted(self) except -1:
        self.times_wanted += 1
        if self.on_wanted is not None:
            self.on_wanted()
        return 0

    def give(self, bytes piece not None):
        """Give the next piece, once any was wanted; returns whether the one after it is."""
        if self.request.owner is None:
            return False
        return self.request.owner.answer_piece(self.request, PyBytes_AS_STRING(piece), PyBytes_GET_SIZE(piece))

    def end(self):
        """Say that the whole of a body without a length was given."""
        if self.request.owner is not None:
            self.request.owner.end_pieces(self.request)

    def waiting_bytes(self):
        """What was given that the kernel has not taken yet."""
        return 0 if self.request.owner is None else self.request.owner.pieces_waiting(self.request)

    def take_back(self):
        """Say that the rest never comes; returns whether another answer could be given."""
        return self.request.owner is not None and self.request.owner.take_back(self.request)


cdef class PythonHandler(RequestHandler):
    """Lets `respond` answer each request.

    respond: takes a PlainRequest and returns a PlainAnswer; an exception is logged and answered 500. wanted_headers: names
    of headers in lower case.
    """

    def __init__(self, respond, wanted_headers):
        self.respond = respond
        self.wanted_headers = frozenset(wanted_headers)

    cdef int wants_header(self, const char* name, Py_ssize_t name_bytes, Py_ssize_t value_bytes) except -1:
        return PyBytes_FromStringAndSize(name, name_bytes).lower() in self.wanted_headers

    cdef int begin(self, Request request) except -1:
        request.keep()
        request.context = request.host_start[: request.host_bytes]
        request.discards_body = True
        return 0

    cdef int handle(self, Request request) except -1:
        # HTTP/1.0 may leave Host out.
        cdef dict headers = {b"host": request.context} if request.context else {}
        cdef bytes header_lines, body
        cdef PlainPieces pieces
        if request.headers is not None:
            for name, value in zip(request.headers[::2], request.headers[1::2]):
                name = name.lower()
                headers[name] = value if name not in headers else headers[name] + b", " + value
        # What follows "?" is the parser's own field as well.
        path = request.path.partition(b"?")[0]
        asked = PlainRequest(METHOD_NAMES.get(request.method, ""), path, request.query or b"", headers)
        try:
            answer = self.respond(asked)
        except Exception:
            logger.exception("a request could not be answered")
            return request.owner.answer_problem(request, INTERNAL_ERROR, None, None)
        header_lines = answer.header_lines
        if isinstance(answer.body, PlainPieces):
            pieces = answer.body
            pieces.request = request
            request.context = pieces
            request.owner.answer_in_pieces(
                request,
                answer.status,
                answer.content_type,
                PyBytes_AS_STRING(header_lines),
                PyBytes_GET_SIZE(header_lines),
                pieces.body_bytes,
                pieces,
                pieces.first,
            )
            return 0
        body = answer.body
        return request.owner.answer(
            request,
            answer.status,
            answer.content_type,
            PyBytes_AS_STRING(header_lines),
            PyBytes_GET_SIZE(header_lines),
            body,
        )

    cdef int abandon(self, Request request) except -1:
        if isinstance(request.context, PlainPieces):
            (<PlainPieces> request.context).abandoned = True
        return 0
