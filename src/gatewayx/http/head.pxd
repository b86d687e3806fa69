"""Heads of every kind, read by two readers that must agree. No I/O."""

from gatewayx.http.limits cimport Limits
from gatewayx.http.request cimport Request, RequestHandler

cdef enum:
    # What is still to come of a sized body does not go through llhttp from here on, which would only copy it once more.
    UNPARSED_BODY_BYTES = 65536

# What the header lines of one request have said. All of it is 0 before the first one.
cdef struct HeaderFacts:
    int hosts
    bint host_invalid
    # The target has scheme and host, so that Host is not looked at (RFC 9112 3.2.2), but whether it is valid.
    bint host_in_target
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


cdef class HeadReader:
    # What the parser uses.

    # The request whose head is read; None before its request line is complete.
    cdef Request request
    # What is kept of the head, in bytes.
    cdef Py_ssize_t head_bytes
    # The head is read, and both readers agree on it.
    cdef bint complete
    # llhttp has seen the end of the request.
    cdef bint message_done
    # llhttp takes nothing more: a new one is made before the next request.
    cdef bint spent

    # Read on, to the end of the head, or of the request if a small body is here with it; returns how many bytes were used.
    # Before `complete`, the unused bytes are an unfinished line: they are given again together with what follows them. No
    # empty line stands before the request line. Raises RequestError; the object is of no use afterwards.
    cdef Py_ssize_t read(self, const char* data, Py_ssize_t size) except -1
    # Give llhttp a piece of a sized body; returns it. last: the request ends with it, which llhttp must see, too.
    cdef bytes read_body(self, const char* data, Py_ssize_t size, bint last)
    # The body that came with its head; None without one.
    cdef bytes take_body(self)
    # Forget the request that was read and be ready for another one.
    cdef int start_next(self) except -1
    # Break the reference cycle with httptools.
    cdef int release(self) except -1

    # The walk over the bytes.

    cdef Limits limits
    cdef RequestHandler handler
    # Header lines of this request so far.
    cdef int header_lines
    cdef Py_ssize_t header_bytes
    # The Content-Length of this request's header lines as the walk read it; -1 for none.
    cdef long long seen_length
    # Bytes of the sized body that are given to llhttp with the head.
    cdef long long body_bytes
    cdef bint is_connect

    # llhttp, and what it has told of this request.

    # The httptools parser that calls this object back, and its feed_data; None until there is something to feed.
    cdef object llhttp
    cdef object feed_data
    cdef LlhttpInput input
    cdef HeaderFacts seen
    # The head is complete.
    cdef bint head_done
    # What llhttp has told of the body and nobody has taken.
    cdef bytes body
    # llhttp reads a head that this object has made up, and its callbacks are not about the request.
    cdef bint muted

    cdef int _start_llhttp(self) except -1
    cdef int _unfinished_request_line(self, const char* line, const char* end) except -1
    cdef int _request_line(self, const char* line, const char* end) except -1
    cdef int _target(self, const char* target, const char* end) except -1
    # What a request's host_start points to.
    cdef bytes host
    cdef int _host(self, const char* start, const char* end) except -1
    cdef int _end_head(self) except -1
    cdef int _keep(self, bytes name, bytes value) except -1
    cdef int _check_head(self) except -1
    cdef int _check_body(self, Py_ssize_t size_bytes) except -1
    cdef int _feed(self, const char* data, const char* head_end, const char* end) except -1
    cdef int _pass_upgrade(self, const char* head_end, const char* end) except -1
    cdef object _refusal(self, error)
    cdef object _transfer_encoding_refusal(self)
