"""One HTTP request whose job outlives it, or whose answer is the events of its job."""

from gatewayx.gateway.event_stream cimport EventStream
from gatewayx.gateway.exchange cimport Exchange
from gatewayx.gateway.kept_job cimport KeptJob
from gatewayx.gateway.kept_run cimport KeptRun
from gatewayx.gateway.watching cimport Wait


cdef class KeptExchange(Exchange):
    # The answer is the job's events.
    cdef bint wants_events
    # How long the end is waited for; 0 for not at all.
    cdef double wait_s
    # None before it is submitted, and once it is answered.
    cdef KeptRun run
    cdef Wait wait
    # Its client has waited for as long as it wanted to: the job server's JOB_CREATED is all that is waited for.
    cdef bint is_confirming
    # The job that its client was told of by its id; None before.
    cdef KeptJob accepted
    # The answer that is under way; None while none is.
    cdef EventStream stream

    cdef double _confirm_s(self) noexcept
    cdef int _answer_end(self, KeptJob kept) except -1
    cdef int _answer_accepted(self, KeptJob kept) except -1
    cdef int _begin_stream(self, KeptJob kept) except -1
    # The job is nobody's any more: it is cancelled and forgotten.
    cdef int _give_up(self) except -1
