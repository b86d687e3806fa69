"""The requests of a client's connection that are under way, and their answers in the order of the requests."""

from gatewayx.http.arriving cimport ArrivingClient
from gatewayx.http.idle cimport Unread
from gatewayx.http.request cimport Request


cdef class AnsweringClient(ArrivingClient):
    # The requests that have begun and whose answers are not written, oldest first.
    cdef Request first
    cdef Request last

    # Abstract: a connection that reads requests says what they do.

    # The last request is known, so what follows is dropped: none of it may be run (RFC 9112 9.6).
    cdef int stop_reading(self) except -1
    # Read from the client, or pause.
    cdef int update_reading(self) except -1
    # Give the client the time that fits what it is doing.
    cdef int arm_for_reading(self) except -1

    # For the class that is derived from it.

    cdef int note(self, Request request) except -1
    cdef int _wait_until_taken(self, Request request) except -1
    cdef int end_leaving(self, Unread unread, long long dropped_bytes) except -1
    # The request has ended, and is told of.
    cdef int end_record(self, Request request) except -1
    cdef bytes host(self, Request request)
    # The request is refused before it has begun: the handler has its lines in the answer.
    cdef int tell_refused(self, Request request) except -1
    cdef int append(self, Request request) except -1
    cdef int release(self, Request request) except -1
    cdef bint serves_last(self) noexcept
    cdef int internal_error(self, Request request) except -1
    cdef int drop_requests(self, int outcome) except -1
    cdef int _break_off(self, Request request) except -1
    # Decide whether the connection ends with the answer, and stop reading if so; what Connection says, NULL for nothing.
    # ends_its_body: nothing else tells where its body ends.
    cdef const char* end_with(self, Request request, bint ends_its_body) except? NULL
    cdef char* _put_lines(self, char* end, Request request) noexcept
    cdef int _line_up(self, Request request, Py_ssize_t size) except -1
    cdef bint _is_only(self, Request request) noexcept
    cdef int _send(self, Request request, Py_ssize_t size) except -1
    cdef bint _answers_wait(self) noexcept
