"""Requests in order over each client's connection, and their answers."""

from gatewayx.http.clients cimport Clients
from gatewayx.http.parser cimport RequestParser
from gatewayx.http.piecewise cimport PiecewiseClient
from gatewayx.http.request cimport Request


cdef class HttpServer(Clients):
    pass


cdef class HttpConnection(PiecewiseClient):
    cdef int _process(self, const char* data, Py_ssize_t offset, Py_ssize_t end, bytes kept) except -1
    cdef bint _waits_half_closed(self) noexcept
    cdef bint _answers_after_end(self) except -1
    cdef Py_ssize_t _read_preamble(self, const char* data, Py_ssize_t size) except -2
    cdef bint has_enough(self) noexcept
    cdef int _begin(self, Request request, RequestParser parser, Py_ssize_t here_bytes) except -1
    cdef int _completed(self, Request request) except -1
    cdef int _hand_over(self, Request request) except -1
    cdef int _handle(self, Request request) except -1
    cdef Request _request_so_far(self)
    cdef int _refuse_for_address(self, Request request) except -1
    cdef int _refuse_for_place(self) except -1
