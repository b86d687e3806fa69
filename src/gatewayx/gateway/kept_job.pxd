"""A job that outlives its request: what is known of it, and its answer."""

from libc.stdint cimport uint64_t

from gatewayx.core.budget cimport Held
from gatewayx.gateway.events cimport EventLog
from gatewayx.gateway.watching cimport Watched

cpdef enum KeptState:
    # The job server has queued it, and no sign of a worker has come.
    QUEUED = 0
    # A worker has said something of it.
    RUNNING = 1
    # The ends, of which a job has one. WORK_COMPLETE.
    SUCCEEDED = 2
    # WORK_FAIL or WORK_EXCEPTION, or a result that was too large.
    FAILED = 3
    # It was asked to be cancelled and the job server has done so: a worker that had begun goes on for nobody.
    CANCELLED = 4
    # Its end will never be known.
    LOST = 5
    # No end in its time.
    TIMEOUT = 6


cdef class KeptJob(Watched):
    # What its client goes by, and asks for it with.
    cdef readonly bytes id
    cdef readonly bytes function
    cdef readonly KeptState state
    # What has happened.
    cdef EventLog events
    # When it was submitted, when the first sign of a worker came, and when it ended or will be forgotten, since the epoch; 0 for not yet.
    cdef double created_s
    cdef double started_s
    cdef double ended_s
    cdef double expires_s
    # How often it has changed: what ETag tells.
    cdef unsigned long long version

    cdef inline bint has_ended(self) noexcept:
        return self.state >= SUCCEEDED

    # The job as JSON.
    cdef bytes json(self)
