"""The kept jobs of a process: found by their ids, bounded in number and bytes, forgotten in their time."""

from gatewayx.core.counters cimport Counters, Counts
from gatewayx.core.deadlines cimport DeadlineWheel, Expiring
from gatewayx.core.shared cimport Shared
from gatewayx.gateway.job_ids cimport JobIds, KeptPlace
from gatewayx.gateway.kept_job cimport KeptJob, KeptState
from gatewayx.gateway.kept_room cimport KeptRoom
from gatewayx.http.response cimport RetryAfter

cdef enum:
    # Requests that wait for an end; beyond, a further one is told at once what is known.
    MOST_WAITING = 16384


cdef class KeptJobs:
    cdef readonly JobIds ids
    cdef DeadlineWheel wheel
    # What their results and events take.
    cdef KeptRoom room
    # Where the numbers of all processes together are bounded.
    cdef Shared shared
    cdef Counters counted_in
    cdef Counts* counts
    # What the processes share (server/places), and which place this one has, with its mark.
    cdef object places
    cdef readonly int place
    cdef unsigned int mark
    # How long a job may take, as default and maximum; how long it is known after its end; and how many there may be.
    cdef readonly double timeout_s
    cdef double ttl_s
    cdef Py_ssize_t max_jobs
    # No new one is taken: the gateway is about to stop.
    cdef public bint stopping
    # By their ids: at most max_jobs.
    cdef dict jobs
    # The KeptRun (gateway/kept_run) of each that has not ended.
    cdef dict runs
    # How many there are by state.
    cdef Py_ssize_t[7] in_state
    # Answers that are streams of events and have not ended, and requests that wait for an end.
    cdef Py_ssize_t streams
    cdef Py_ssize_t waiting
    cdef RetryAfter retry_after
    # An asyncio.Event: no job is left that has not ended.
    cdef readonly object all_ended

    # The problem for which no job is kept now; None for none.
    cdef object refusal(self)
    # A new one, which counts; None if there may be no further one.
    cdef KeptJob begin(self, bytes function, bytes token_mark, object run)
    # It has changed: count it under its state.
    cdef int changed(self, KeptJob job, KeptState before) except -1
    # All who watch were told: count the bytes that it takes. Without room its oldest events are let go, and then its result.
    cdef int hold(self, KeptJob job) except -1
    # It has ended: it is known for ttl_s from now on.
    cdef double expires_s(self, double ended_s) noexcept
    # The job of the id, if it is kept here; None otherwise.
    cdef KeptJob find(self, bytes id)
    # The mark of the process at a place; 0 where there is none.
    cdef unsigned int mark_of(self, int place) except? 0
    # Nobody knows it any more, and what it took is given back.
    cdef int forget(self, KeptJob job) except -1


cdef class Expiry(Expiring):
    """When an ended job is forgotten."""
    cdef KeptJobs jobs
    cdef KeptJob job
