"""Response heads and problem+json bodies. No I/O: values in, bytes out."""

import os
import time
from http import HTTPStatus

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.math cimport ceil
from libc.stdlib cimport free, realloc
from libc.string cimport strlen

from gatewayx.core.digits cimport put, put_bytes, put_decimal

import orjson

from gatewayx import __version__

PROBLEM_CONTENT_TYPE = b"application/problem+json"

cdef dict TITLES = {status.value: status.phrase for status in HTTPStatus}
# The names of RFC 9110, where Python's differ between versions.
TITLES.update({413: "Content Too Large", 414: "URI Too Long", 416: "Range Not Satisfiable", 422: "Unprocessable Content"})
cdef dict STATUS_LINES = {
    status: f"HTTP/1.1 {status} {title}\r\n".encode("ascii") for status, title in TITLES.items()
}

cdef tuple WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
cdef tuple MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

cdef enum:
    # Names, line ends, a number and the longest value of Connection: all of a response that its parts do not count.
    MOST_OTHER_BYTES = 96
    FIRST_ROOM_BYTES = 4096
    # Bodies of problems that are kept; details of jobs make any number of them.
    MOST_KNOWN_BODIES = 64

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

# Of the time that a kind of refusal has lasted, clients are asked to wait up to this part.
cdef double RETRY_AFTER_SHARE = 0.3
# And of a time that is known exactly, up to this part more.
cdef double JITTER = 0.2
# Bodies of problems up to the request's name, with the problem, by their details: whoever is refused most often is told the same.
cdef dict KNOWN_BODIES = {}
cdef tuple RETRY_AFTER_LINES = tuple(b"Retry-After: %d\r\n" % seconds for seconds in range(MAX_RETRY_AFTER_S + 1))


@cython.final
cdef class ResponseBuilder:
    """Builds responses; one a process.

    empty_error_bodies: answer errors without a body. now_s: seconds since the epoch.
    """

    def __init__(self, *, bint empty_error_bodies=False, double now_s=0):
        self.empty_error_bodies = empty_error_bodies
        self.common_second = -1
        self.refresh(now_s)
        self._make_room(FIRST_ROOM_BYTES)

    def __dealloc__(self):
        free(self.composed)

    cpdef bint refresh(self, double now_s) except -1:
        """Let Date say now_s, seconds since the epoch (RFC 9110 6.6.1); returns whether it changed."""
        cdef long long second = <long long> now_s
        if second == self.common_second:
            return False
        self.common_second = second
        self.common_headers = (
            f"Server: gatewayx/{__version__}\r\n"
            f"Date: {http_date(second)}\r\n"
            "Cache-Control: no-store\r\n"
            "X-Content-Type-Options: nosniff\r\n"
        ).encode("ascii")
        self.ok_head = <bytes> STATUS_LINES[200] + self.common_headers
        return True

    cdef Py_ssize_t compose(
        self,
        int status,
        bytes content_type,
        const char* headers,
        Py_ssize_t headers_bytes,
        const char* lines,
        Py_ssize_t lines_bytes,
        bytes further_lines,
        const char* body,
        Py_ssize_t body_bytes,
        Py_ssize_t inline_bytes,
        const char* connection,
    ) except -1:
        cdef bytes head = self.ok_head if status == 200 else <bytes> STATUS_LINES[status] + self.common_headers
        cdef Py_ssize_t room_bytes = (
            PyBytes_GET_SIZE(head) + headers_bytes + lines_bytes + inline_bytes + MOST_OTHER_BYTES
        )
        cdef char* end
        if content_type is not None:
            room_bytes += PyBytes_GET_SIZE(content_type)
        if further_lines is not None:
            room_bytes += PyBytes_GET_SIZE(further_lines)
        if room_bytes > self.composed_room:
            self._make_room(room_bytes)
        end = put_bytes(self.composed, head)
        if headers_bytes:
            end = put(end, headers, headers_bytes)
        end = put(end, lines, lines_bytes)
        if further_lines is not None:
            end = put_bytes(end, further_lines)
        if content_type is not None:
            end = put(put_bytes(put(end, b"Content-Type: ", 14), content_type), b"\r\n", 2)
        if body_bytes >= 0:
            end = put(put_decimal(put(end, b"Content-Length: ", 16), body_bytes), b"\r\n", 2)
        elif body_bytes == IN_CHUNKS:
            end = put(end, b"Transfer-Encoding: chunked\r\n", 28)
        if connection != NULL:
            end = put(put(put(end, b"Connection: ", 12), connection, strlen(connection)), b"\r\n", 2)
        end = put(end, b"\r\n", 2)
        if inline_bytes:
            end = put(end, body, inline_bytes)
        return end - self.composed

    cdef int _make_room(self, Py_ssize_t room_bytes) except -1:
        cdef char* room = <char*> realloc(self.composed, room_bytes)
        if room == NULL:
            raise MemoryError
        self.composed = room
        self.composed_room = room_bytes
        return 0

    cdef bytes problem(self, object problem, str detail, bytes headers, bytes lines, bytes further_lines, bytes request_id):
        cdef bytes body = b"" if self.empty_error_bodies else problem_body(problem, detail, request_id)
        cdef Py_ssize_t size = self.compose(
            problem.status,
            None if self.empty_error_bodies else PROBLEM_CONTENT_TYPE,
            NULL if headers is None else PyBytes_AS_STRING(headers),
            0 if headers is None else PyBytes_GET_SIZE(headers),
            PyBytes_AS_STRING(lines),
            PyBytes_GET_SIZE(lines),
            further_lines,
            PyBytes_AS_STRING(body),
            PyBytes_GET_SIZE(body),
            PyBytes_GET_SIZE(body),
            b"close",
        )
        return PyBytes_FromStringAndSize(self.composed, size)


@cython.final
cdef class RetryAfter:
    """How soon clients may come again that were refused for now; one a process.

    Each gets a value of its own between a lowest and a highest one, so that they do not come back together: 1 to 3 s at
    first. While refusals of a kind go on, nothing has recovered, and both grow with the time that this has lasted, up
    to 10 and 30 s. They are back at 1 to 3 s once nobody was refused for twice the highest value.

    clock: tells monotonic seconds. seed: of the jitter, above 0; None for a random one.
    """

    def __init__(self, clock, seed=None):
        self.clock = clock
        self.random_state = int.from_bytes(os.urandom(7), "big") | 1 if seed is None else seed
        self.spells = {}

    cpdef bytes line(self, str kind):
        """The header line, with its CRLF, for one more refusal of this kind."""
        cdef double now_s = self.clock()
        cdef list spell = <list> self.spells.get(kind)
        cdef int highest_s
        cdef int lowest_s
        if spell is None:
            spell = self.spells[kind] = [now_s, now_s]
        highest_s = _highest_retry_after(<double> spell[1] - <double> spell[0])
        if now_s - <double> spell[1] > 2 * highest_s:
            spell[0] = now_s
        spell[1] = now_s
        highest_s = _highest_retry_after(now_s - <double> spell[0])
        lowest_s = max(MIN_RETRY_AFTER_S, highest_s // 3)
        return <bytes> RETRY_AFTER_LINES[lowest_s + <int> (self._random() % (highest_s - lowest_s + 1))]

    cpdef bytes exactly(self, long long wait_ns):
        """The header line, with its CRLF, for one that may come again in so many nanoseconds, and not before.

        Whole seconds (RFC 9110 10.2.3), rounded up, after up to JITTER more, so that those who were refused together do not
        all come at the same time.
        """
        cdef double part = <double> (self._random() >> 11) / (<unsigned long long> 1 << 53)
        return b"Retry-After: %d\r\n" % max(1, <long long> ceil(wait_ns * (1 + JITTER * part) / 1e9))

    cdef unsigned long long _random(self) noexcept:
        self.random_state ^= self.random_state << 13
        self.random_state ^= self.random_state >> 7
        self.random_state ^= self.random_state << 17
        return self.random_state


cdef int _highest_retry_after(double lasted_s) noexcept:
    return <int> max(MAX_FIRST_RETRY_AFTER_S, min(MAX_RETRY_AFTER_S, lasted_s * RETRY_AFTER_SHARE))


def http_date(second):
    """RFC 9110 5.6.7: the IMF-fixdate of a second since the epoch, whatever the locale."""
    year, month, day, hour, minute, in_minute, weekday = time.gmtime(second)[:7]
    return f"{WEEKDAYS[weekday]}, {day:02} {MONTHS[month - 1]} {year:04} {hour:02}:{minute:02}:{in_minute:02} GMT"


cdef bytes problem_body(object problem, str detail, bytes request_id):
    """RFC 9457. detail: text for people, which JSON escapes. request_id: the request of which it tells."""
    cdef tuple known = <tuple> KNOWN_BODIES.get(detail)
    cdef bytes body
    if known is None or known[0] is not problem:
        body = orjson.dumps(
            {
                "type": f"urn:gatewayx:{problem.kind}",
                "title": TITLES[problem.status],
                "status": problem.status,
                "detail": detail,
                "instance": "urn:gatewayx:request:",
            }
        )
        known = (problem, body[: len(body) - 2])
        if len(KNOWN_BODIES) >= MOST_KNOWN_BODIES:
            KNOWN_BODIES.clear()
        KNOWN_BODIES[detail] = known
    return <bytes> known[1] + request_id + b'"}'
