"""One HTTP request as one Gearman job, whose data is the answer while it comes (X-Gearman-Stream)."""

from gatewayx.core.budget cimport Held
from gatewayx.gateway.exchange cimport Exchange
from gatewayx.gearman.job cimport Job
from gatewayx.http.request cimport BodySource


cdef class Streamed(Exchange):
    # The body of its answer, once that has begun; None before.
    cdef StreamedBody body
    # Pieces behind the first one that came before the head of the answer has left, in order, and what they take; None and 0
    # for none.
    cdef list waiting
    cdef Held waiting_held
    # The job has ended well, and its last piece is among those that wait.
    cdef bint is_whole

    cdef int _give(self, Job job, bytes piece) except -1
    cdef bint _has_room(self, Py_ssize_t more_bytes) except -1
    # The head of the answer has left.
    cdef int begun(self) except -1
    cdef int _end_body(self) except -1
    # The rest of the answer never comes. Returns whether another one can be given.
    cdef bint _take_back(self) except -1
    cdef int _drop_waiting(self) except -1


cdef class StreamedBody(BodySource):
    # None once the request has ended.
    cdef Streamed exchange
