"""A kept job while it has not ended: who listens to it, and what it counts among."""

from gatewayx.gateway.common cimport Common
from gatewayx.gateway.job_request cimport JobRequest
from gatewayx.gateway.kept_job cimport KeptJob, KeptState
from gatewayx.gateway.kept_jobs cimport KeptJobs
from gatewayx.gateway.tokens cimport Token
from gatewayx.gearman.job cimport Job, StatusListener


cdef enum CancelReply:
    NO_ANSWER
    CANCELLED_IT
    # The job had ended before.
    KNEW_IT_NOT


cdef class KeptRun(JobRequest):
    cdef Common gateway
    cdef KeptJobs jobs
    cdef KeptJob kept
    # None before it is submitted and once it has ended.
    cdef Job job
    # Bytes of WORK_DATA so far: what follows them in the result is the completion's own.
    cdef Py_ssize_t data_bytes
    # When it was submitted, by now_ns(); 0 once its end is counted. And the place of its function (core/metrics).
    cdef long long submitted_ns
    cdef int function_place
    # What the job server has answered to `cancel job`; and with which words of its worker's, if any, a WORK_FAIL has come that may be the
    # cancellation's or the worker's, None for none.
    cdef CancelReply answer
    cdef str failed_with
    # Where it counts among the jobs in flight, and among those of its token; None without one (gateway/exchange).
    cdef bint entered
    cdef int job_place
    cdef Token token
    cdef bint token_entered
    cdef int token_place

    # Have the job server cancel it; None, or in words why it cannot.
    cdef str cancel(self)
    # Nobody wants to know of it any more: it is cancelled if that is safe, and forgotten.
    cdef int forget(self) except -1
    # The same, but it is known still.
    cdef int give_up(self) except -1
    cdef int _settle(self) except -1
    cdef int _changed(self, KeptState before) except -1
    cdef int _end(self, Job job, int result) except -1
    cdef int _ended(self, KeptState state, bytes kind, str reason, bytes data) except -1
    cdef int _leave(self) except -1


cdef class CancelAnswer(StatusListener):
    """What the job server says of a job that it was asked to cancel."""
    cdef KeptRun run
