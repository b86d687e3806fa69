"""The parser that turns a client's bytes into requests, one at a time. No I/O."""

from gatewayx.http.chunks cimport ChunkedBody
from gatewayx.http.head cimport HeadReader
from gatewayx.http.limits cimport Limits
from gatewayx.http.plain cimport AT_LINE, PlainHead
from gatewayx.http.request cimport Request, RequestHandler

cpdef enum Event:
    # All bytes are used, or the rest is an unfinished head or line to be given again with what follows it.
    MORE = 0
    # The head of `request` is complete, its body is not.
    HEAD_COMPLETE = 1
    # The whole of `request` is there.
    REQUEST_COMPLETE = 2

cdef enum ParserState:
    IN_HEAD
    SIZED_BODY
    CHUNKED_BODY


cdef class RequestParser:
    # What the connection uses.

    cdef readonly Limits limits
    # The request being read; None between requests, and before its head is complete if that is plain.
    cdef readonly Request request
    # What the last read() came to.
    cdef readonly Event event
    # The head is not plain, or was not from some byte on: HeadReader reads it.
    cdef readonly bint handed_over
    # The head is complete.
    cdef bint head_done
    # There was no room for the body being read: it is dropped, and the request is to be answered so.
    cdef bint over_budget
    # What is kept of the head, in bytes. Of an unfinished plain head that is nothing: it is in the unused bytes.
    cdef Py_ssize_t head_bytes

    # Read on, to the end of a request at most; returns how many bytes were used. `event` says what was reached. After
    # MORE, the unused bytes are an unfinished head or line: they are given again together with what follows them. After
    # REQUEST_COMPLETE, start_next() comes before the next read(). No pointer into data is kept. Raises RequestError; the
    # parser is of no use afterwards.
    cdef Py_ssize_t read(self, const char* data, Py_ssize_t size) except -1
    # Forget the request that was read and be ready for another one.
    cpdef int start_next(self) except -1
    # Let go what is here of the body; the rest is read and dropped.
    cdef int drop_body(self) except -1
    # The request being read as far as an answer needs it, also before its head is complete; None before its request line
    # is. unused: the bytes that read() has not used; NULL if they are not known.
    cdef Request request_so_far(self, const char* unused)

    # Whether the request line is complete.
    cdef inline bint begun(self) noexcept:
        return self.request is not None or self.plain.part >= AT_LINE

    # Whether it has read nothing of a request, so that it may read any connection's next one.
    cdef inline bint untouched(self) noexcept:
        return self.request is None and self.plain.walked == 0 and not self.handed_over

    # Another idle one (http/clients).
    cdef RequestParser next_idle

    # How far it is.

    cdef RequestHandler handler
    # It is a referee's (`httptools_only`): the plain ones are handed over, too.
    cdef bint hands_all_over
    cdef ParserState state
    cdef PlainHead plain
    # None before the first head that is not plain.
    cdef HeadReader reader
    # Bytes still to come of the sized body.
    cdef long long remaining_bytes
    # The chunked body being read; None without one.
    cdef ChunkedBody chunks
    # A body that comes in pieces, with room to grow, which `body_room` counts.
    cdef bytes body_buffer
    cdef Py_ssize_t body_room
    cdef Py_ssize_t body_filled

    cdef Py_ssize_t _read_head(self, const char* data, Py_ssize_t size) except -1
    cdef Py_ssize_t _read_any_head(self, const char* data, Py_ssize_t size) except -1
    cdef Py_ssize_t _take_plain_head(self, const char* data, Py_ssize_t size) except -1
    cdef int _take_wanted_lines(self, Request request, const char* data) except -1
    cdef Py_ssize_t _read_sized_body(self, const char* data, Py_ssize_t size) except -1
    cdef Py_ssize_t _read_chunked_body(self, const char* data, Py_ssize_t size) except -1
    cdef int _finish(self) except -1
    cdef int _take_body(self, const char* piece, Py_ssize_t piece_bytes) except -1
    cdef int _grow_body(self, Py_ssize_t needed_bytes) except -1
    cdef int _resize_body(self, Py_ssize_t room_bytes) except -1
