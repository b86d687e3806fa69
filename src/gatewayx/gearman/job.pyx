"""A submission to a job server, and how its listener is told.

Theory of operation. A job has a state, which only `Job.change` writes. Somebody waits for it until ENDED or ABANDONED;
these two let go of its listener and its deadline, and `reached` keeps what the state was before them, from which the
listener reads what may have become of the job. A listener's exception is logged and ends nothing but that listener's
part: the connection carries everybody's jobs.
"""

import logging

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize, PyBytes_GET_SIZE

from gatewayx.core.budget cimport BODIES, ByteBudget, account_for
from gatewayx.core.deadlines cimport Expiring
from gatewayx.gearman.packet cimport PacketType, submit_packet
from gatewayx.gearman.upstream cimport UpstreamConnection

from gatewayx.errors import StateError

logger = logging.getLogger("gatewayx.gearman")

# Which states may follow each.
TRANSITIONS = {
    JobState.UNSENT: (JobState.WRITTEN, JobState.ENDED, JobState.ABANDONED),
    # A full queue's ERROR makes it UNSENT again: another job server is tried.
    JobState.WRITTEN: (JobState.UNSENT, JobState.CREATED, JobState.ENDED, JobState.ABANDONED),
    JobState.CREATED: (JobState.ENDED, JobState.ABANDONED),
    JobState.ENDED: (),
    # The end that was still owed has come.
    JobState.ABANDONED: (JobState.ENDED,),
}

cdef enum:
    JOB_STATES = 5

# The same by number, the states that may follow as bits.
cdef unsigned int[JOB_STATES] FOLLOWING
for _state, _following in TRANSITIONS.items():
    for _next in _following:
        FOLLOWING[<int> _state] |= 1 << <int> _next


cdef class StatusListener:
    """Waits for what a job server knows of a job; see the .pxd."""

    cdef int status_told(
        self, bint known, bint running, unsigned int numerator, unsigned int denominator
    ) except -1:
        raise NotImplementedError

    cdef int cancel_answered(self, bint is_cancelled) except -1:
        return 0

    cdef int status_lost(self, str reason) except -1:
        raise NotImplementedError


cdef class JobListener:
    """Waits for a job; see the .pxd for when each method is called."""

    cdef int job_created(self, Job job, const char* handle, Py_ssize_t handle_bytes) except -1:
        return 0

    cdef int job_data(self, Job job, bytes data) except -1:
        return 0

    cdef int job_warning(self, Job job, bytes data) except -1:
        return 0

    cdef int job_status(self, Job job, bytes numerator, bytes denominator) except -1:
        return 0

    cdef int job_completed(self, Job job, object result) except -1:
        raise NotImplementedError

    cdef int job_failed(self, Job job, bytes reason) except -1:
        raise NotImplementedError

    cdef int job_exception(self, Job job, bytes data) except -1:
        raise NotImplementedError

    cdef int job_too_large(self, Job job) except -1:
        raise NotImplementedError

    cdef int job_refused(self, Job job, bytes code, bytes text) except -1:
        raise NotImplementedError

    cdef int job_timed_out(self, Job job) except -1:
        raise NotImplementedError

    cdef int job_lost(self, Job job) except -1:
        raise NotImplementedError

    cdef int job_broken(self, Job job) except -1:
        raise NotImplementedError


cdef class JobCarrier(UpstreamConnection):
    """The connection over which jobs are submitted; see the .pxd."""

    cdef int abandon(self, Job job) except -1:
        raise NotImplementedError

    cdef str cancel(self, Job job, StatusListener listener):
        raise NotImplementedError

    cdef unsigned int life(self) noexcept:
        return 0


cdef class JobRouter:
    """Gives connections their jobs; see the .pxd."""

    cdef bint move(self, Job job) except -1:
        return False

    cdef int background_settled(self, Job job, bint queued) except -1:
        return 0


@cython.final
cdef class Job(Expiring):
    """A submission and what the job server has said of it."""

    @property
    def connected(self):
        """Whether the connection it was submitted over still lives."""
        return not self.carrier.is_closed()

    cpdef int change(self, JobState state) except -1:
        """Go to a state that may follow the present one; raises StateError if it may not."""
        if not FOLLOWING[<int> self.state] >> <int> state & 1:
            raise StateError(f"a job cannot go from {(<object> self.state).name} to {(<object> state).name}")
        if state >= JobState.ENDED and self.state < JobState.ENDED:
            self.reached = self.state
            self.listener = None
            if self.carrier is not None:
                self.carrier.outstanding -= 1
                self.carrier.wheel.disarm(self)
        self.state = state
        return 0

    cpdef int deadline_passed(self) except -1:
        cdef JobListener listener = self.listener
        if listener is None:
            return 0
        self.carrier.abandon(self)
        try:
            return listener.job_timed_out(self)
        except Exception:
            return self._listener_failed(listener)

    cdef int tell_created(self, const char* handle, Py_ssize_t handle_bytes) except -1:
        cdef JobListener listener = self.listener
        if listener is None:
            return 0
        try:
            self.change(JobState.ENDED if self.background else JobState.CREATED)
            listener.job_created(self, handle, handle_bytes)
        except Exception:
            return self._listener_failed(listener)
        return 0

    cdef int tell(self, int packet_type, bytes data, bytes denominator) except -1:
        cdef JobListener listener = self.listener
        if listener is None:
            return 0
        try:
            if packet_type == PacketType.WORK_COMPLETE:
                self.change(JobState.ENDED)
                listener.job_completed(self, data if self.gathered is None else self.gathered)
            elif packet_type == PacketType.WORK_DATA:
                listener.job_data(self, data)
            elif packet_type == PacketType.WORK_WARNING:
                listener.job_warning(self, data)
            elif packet_type == PacketType.WORK_STATUS:
                listener.job_status(self, data, denominator)
            elif packet_type == PacketType.WORK_FAIL:
                self.change(JobState.ENDED)
                listener.job_failed(self, data)
            else:
                self.change(JobState.ENDED)
                listener.job_exception(self, data)
        except Exception:
            return self._listener_failed(listener)
        return 0

    cdef int tell_too_large(self, bint ended) except -1:
        cdef JobListener listener = self.listener
        if listener is None:
            return 0
        try:
            self.change(JobState.ENDED if ended else JobState.ABANDONED)
            return listener.job_too_large(self)
        except Exception:
            return self._listener_failed(listener)

    cdef int tell_refused(self, bytes code, bytes text) except -1:
        cdef JobListener listener = self.listener
        if listener is None:
            return 0
        try:
            self.change(JobState.ENDED)
            return listener.job_refused(self, code, text)
        except Exception:
            return self._listener_failed(listener)

    cdef int tell_lost(self) except -1:
        cdef JobListener listener = self.listener
        if listener is None:
            return 0
        try:
            self.change(JobState.ENDED)
            return listener.job_lost(self)
        except Exception:
            return self._listener_failed(listener)

    cdef int _listener_failed(self, JobListener listener) except -1:
        """The listener has raised, and is told so in its turn."""
        if self.is_awaited():
            self.carrier.abandon(self)
        logger.exception("a job's listener failed")
        try:
            listener.job_broken(self)
        except Exception:
            logger.exception("a job's listener failed again")
        return 0


cdef int make_packet(Job job, ByteBudget budget, bytes function, Submission* submission, bytes workload) except -1:
    cdef Py_ssize_t workload_bytes = submission.workload_bytes
    cdef bint is_large = workload_bytes > INLINE_WORKLOAD_BYTES
    cdef const char* copied = submission.workload
    if is_large:
        copied = NULL
    job.function = function
    job.packet = submit_packet(
        submission.packet_type,
        function,
        submission.unique,
        submission.unique_bytes,
        copied,
        workload_bytes,
    )
    job.packet_bytes = PyBytes_GET_SIZE(job.packet)
    if is_large:
        job.workload = PyBytes_FromStringAndSize(submission.workload, workload_bytes) if workload is None else workload
        job.packet_bytes += workload_bytes
    budget.hold(&job.packet_held, account_for(BODIES, workload_bytes), job.packet_bytes)
    return 0


cdef int drop_packet(Job job, ByteBudget budget) except -1:
    budget.release(&job.packet_held)
    job.packet = None
    job.workload = None
    job.packet_bytes = 0
    return 0


cdef str printable(bytes text):
    return text.decode("latin-1").encode("unicode_escape").decode("ascii")
