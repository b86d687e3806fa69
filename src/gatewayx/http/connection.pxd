"""Requests in order over each client's connection, and their answers."""

from gatewayx.core.budget cimport Account
from gatewayx.http.arriving cimport ArrivingClient
from gatewayx.http.clients cimport Clients
from gatewayx.http.parser cimport RequestParser
from gatewayx.http.request cimport Request


cdef class HttpServer(Clients):
    pass


cdef class HttpConnection(ArrivingClient):
    # The requests that have begun and whose answers are not written, oldest first.
    cdef Request first
    cdef Request last
    # The last answer is a refusal that waits.
    cdef bint refusal_waits

    cdef int _process(self, const char* data, Py_ssize_t offset, Py_ssize_t end, bytes kept) except -1
    cdef bint _answers_after_end(self) except -1
    cdef int max_in_flight(self) noexcept
    cdef int _begin(self, Request request, RequestParser parser, Py_ssize_t here_bytes) except -1
    cdef int _release(self, Request request) except -1
    cdef int _completed(self, Request request) except -1
    cdef int _hand_over(self, Request request) except -1
    # The last request is known, so what follows is dropped: none of it may be run (RFC 9112 9.6).
    cdef int _stop_reading(self) except -1
    cdef int _append(self, Request request) except -1
    cdef int _internal_error(self, Request request) except -1
    cdef int _update_reading(self) except -1
    cdef int _arm_for_reading(self) except -1
    cdef bint _answers_wait(self) noexcept
    cdef int _refuse_for_place(self) except -1
    cdef bint _serves_last(self) noexcept
    cdef int _drop_requests(self) except -1
