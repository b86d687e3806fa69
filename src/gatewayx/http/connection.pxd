"""The clients' side of the process, and one client's connection."""

from gatewayx.deadlines cimport DeadlineWheel, Expiring
from gatewayx.http.limits cimport Limits
from gatewayx.http.request cimport Request, RequestHandler, RequestOwner, RequestParser
from gatewayx.http.response cimport ResponseBuilder

cdef enum:
    # After the last answer, what the client still sends is dropped up to here and this long, so that closing with
    # unread input does not reset the connection and take the answer with it (RFC 9112 9.6).
    LINGER_BYTES = 2097152
    LINGER_S = 2
    # Idle parsers kept for the next request, whichever connection it comes from.
    MAX_IDLE_PARSERS = 64


cdef enum ConnectionState:
    # Requests are read.
    READING
    # The last request has been read; what follows is dropped.
    ANSWERING
    # The last answer was written and the sending side is closed.
    LINGERING
    CLOSED


cdef enum DeadlineKind:
    NO_DEADLINE
    FIRST_BYTE
    HEAD
    BODY
    KEEPALIVE
    WRITE
    LINGER


cdef class HttpServer:
    cdef object loop
    cdef DeadlineWheel wheel
    cdef Limits limits
    cdef RequestHandler handler
    cdef ResponseBuilder builder
    # All open connections; at most limits.max_connections, those being refused aside.
    cdef set connections
    # Connections with something to write in this loop turn.
    cdef list dirty
    cdef list idle_parsers
    # No more requests: what is in flight is answered, and each connection closed after that.
    cdef readonly bint draining
    # An asyncio.Event: draining, and the last connection is gone.
    cdef readonly object emptied

    # Requests that have begun and whose answers are not written.
    cdef readonly Py_ssize_t requests_in_flight
    cdef readonly unsigned long long connections_accepted
    cdef readonly unsigned long long connections_refused
    cdef readonly unsigned long long requests_answered
    # Requests refused by the parser or by a deadline.
    cdef readonly unsigned long long requests_refused
    # Requests whose client was gone before the answer.
    cdef readonly unsigned long long requests_abandoned
    # Clients that were cut off since they did not read.
    cdef readonly unsigned long long writes_timed_out

    cdef RequestParser take_parser(self)
    cdef int give_back_parser(self, RequestParser parser) except -1
    cdef int mark_dirty(self, HttpConnection connection) except -1


cdef class HttpConnection(RequestOwner):
    cdef HttpServer server
    cdef object transport
    cdef ConnectionState state
    # Held only while a request is being read: an idle connection costs no parser.
    cdef RequestParser parser
    # Bytes that the parser has not taken: an unfinished line, or what came before reading was paused.
    cdef bytes tail
    # The requests that have begun and whose answers are not written, oldest first, and how many they are.
    cdef Request first
    cdef Request last
    cdef int in_flight
    # It stands in server.dirty.
    cdef bint dirty
    cdef bint read_paused
    # The client does not read: the kernel's buffer for it is full.
    cdef bint write_paused
    # One deadline at a time is enough: while the client does not read its answers nothing is read from it.
    cdef DeadlineKind deadline_kind
    # Bytes handed to the transport so far, and how many of them had left it when the write deadline was armed.
    cdef unsigned long long written_bytes
    cdef unsigned long long left_bytes
    # Bytes dropped since the last request was read.
    cdef Py_ssize_t dropped_bytes

    cdef int begin_drain(self) except -1
    cdef int refuse_unfinished(self) except -1
    cdef int flush(self) except -1
    cdef int abort(self) except -1
    cdef int _process(self, bytes data) except -1
    cdef int _begin(self, Request request) except -1
    cdef int _hand_over(self, Request request) except -1
    cdef int _append(self, Request request) except -1
    cdef int _refuse(self, object error) except -1
    cdef int _internal_error(self, Request request) except -1
    cdef int _refuse_connection(self, int status, str kind, str detail) except -1
    cdef int _mark_dirty(self) except -1
    cdef int _write(self, list buffers) except -1
    cdef int _arm(self, DeadlineKind kind) except -1
    cdef int _arm_for_reading(self) except -1
    cdef int _update_reading(self) except -1
    cdef int _linger(self) except -1
    cdef int _close(self) except -1
    cdef int _write_deadline_passed(self) except -1
    cdef int _drop_requests(self) except -1
    cdef int _drop_parser(self) except -1
