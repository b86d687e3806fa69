"""The parser that turns a client's bytes into requests, one at a time. No I/O."""

from gatewayx.http.chunks cimport ChunkedBody
from gatewayx.http.limits cimport Limits
from gatewayx.http.request cimport Request, RequestHandler

cpdef enum Event:
    # All bytes are used, or the rest is an unfinished line to be given again with what follows it.
    MORE = 0
    # The head of `request` is complete, its body is not.
    HEAD_COMPLETE = 1
    # The whole of `request` is there.
    REQUEST_COMPLETE = 2

cdef enum ParserState:
    REQUEST_LINE
    HEADER_LINES
    SIZED_BODY
    CHUNKED_BODY

# What the header lines of one request have said. All of it is 0 before the first one.
cdef struct HeaderFacts:
    int hosts
    bint host_invalid
    # There is a Connection or Proxy-Connection; Connection lists "close", or "keep-alive".
    bint saw_connection
    bint option_close
    bint option_keep_alive
    int transfer_encodings
    # The only one is "chunked".
    bint chunked
    bint unknown_expectation


cdef class LlhttpInput:
    """What llhttp is given to read, as a buffer of Python's: bytes that somebody else holds during the call."""
    cdef const char* data
    cdef Py_ssize_t size


cdef class RequestParser:
    # What the connection uses.

    cdef readonly Limits limits
    # The request being read; None between requests.
    cdef readonly Request request
    # What the last read() came to.
    cdef readonly Event event
    # The head is complete.
    cdef bint head_done
    # What is kept of the head, in bytes.
    cdef Py_ssize_t head_bytes
    # There was no room for the body being read: it is dropped, and the request is to be answered so.
    cdef bint over_budget

    # Read on, to the end of a request at most; returns how many bytes were used. `event` says what was reached. After
    # MORE, the unused bytes are an unfinished line: they are given again together with what follows them. After
    # REQUEST_COMPLETE, start_next() comes before the next read(). No pointer into data is kept. Raises RequestError; the
    # parser is of no use afterwards.
    cdef Py_ssize_t read(self, const char* data, Py_ssize_t size) except -1
    # Forget the request that was read and be ready for another one.
    cpdef int start_next(self) except -1
    # Let go what is here of the body; the rest is read and dropped.
    cdef int drop_body(self) except -1

    # The walk over the bytes.

    cdef RequestHandler handler
    cdef ParserState state
    # Header lines of this request so far.
    cdef int header_lines
    cdef Py_ssize_t header_bytes
    # The Content-Length of this request's header lines as the walk read it; -1 for none.
    cdef long long seen_length
    # Bytes still to come of the sized body.
    cdef long long remaining_bytes
    # The chunked body being read; None without one.
    cdef ChunkedBody chunks
    # A body that comes in pieces, with room to grow, which `body_room` counts.
    cdef bytes body_buffer
    cdef Py_ssize_t body_room
    cdef Py_ssize_t body_filled

    # llhttp, and what it has told of this request.

    # The httptools parser that calls this object back, and its feed_data.
    cdef object llhttp
    cdef object feed_data
    cdef LlhttpInput input
    # llhttp takes nothing more: a new one is made before the next request.
    cdef bint llhttp_spent
    cdef HeaderFacts seen
    cdef bint is_connect
    cdef bint message_done
    # llhttp reads a head that this object has made up, and its callbacks are not about the request.
    cdef bint muted

    cdef int _start_llhttp(self) except -1
    cdef Py_ssize_t _read_head(self, const char* data, Py_ssize_t size) except -1
    cdef Py_ssize_t _read_sized_body(self, const char* data, Py_ssize_t size) except -1
    cdef Py_ssize_t _read_chunked_body(self, const char* data, Py_ssize_t size) except -1
    cdef int _unfinished_request_line(self, const char* line, const char* end) except -1
    cdef int _request_line(self, const char* line, const char* end) except -1
    cdef int _target(self, const char* target, const char* end) except -1
    cdef int _end_head(self) except -1
    cdef int _check_head(self) except -1
    cdef int _finish(self) except -1
    cdef int _take_body(self, const char* piece, Py_ssize_t piece_bytes) except -1
    cdef int _grow_body(self, Py_ssize_t needed_bytes) except -1
    cdef int _resize_body(self, Py_ssize_t room_bytes) except -1
    cdef int _feed(self, const char* data, const char* head_end, const char* end) except -1
    cdef int _pass_upgrade(self, const char* head_end, const char* end) except -1
    cdef object _refusal(self, error)
    cdef object _transfer_encoding_refusal(self)
