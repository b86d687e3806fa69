"""A kept job while it has not ended: who listens to it, and what it counts among.

Theory of operation. The KeptRun stands where an Exchange stands for a request that waits: it is told what the job server says, and
its ends become the KeptJob's (gateway/job_ends). The request that has asked for the job is one of those who watch the KeptJob.

A job server that cancels a job tells its submitter WORK_FAIL at once, whether a worker has the job or not
(libgearman-server/text.cc), and a worker may have failed at the same moment: whose the WORK_FAIL is that comes after the question is
told by the answer to that, which is OK only if the job had not ended. What GET_STATUS tells behind it is told to whoever has
asked to cancel: a job that the job server knows and no worker has had will not run.
"""

cimport cython
from cpython.bytes cimport PyBytes_GET_SIZE

from gatewayx.core.clock cimport moment
from gatewayx.core.metrics cimport OTHER, Result, count_job
from gatewayx.gateway.job_request cimport JobRequest
from gatewayx.gateway.kept_job cimport (
    ASKED,
    CANCELLED,
    FAILED,
    LOST,
    MAY_HAVE_RUN,
    NOT_ASKED,
    NOT_KNOWN,
    SUCCEEDED,
    TIMEOUT,
    WILL_NOT_RUN,
    Cancellation,
    KeptState,
    time_of_day,
)
from gatewayx.gearman.job cimport Job, StatusListener
from gatewayx.http.records cimport RecordsState

from gatewayx.http import outcomes
from gatewayx.http.problems import INTERNAL_ERROR, JOB_CANCELLED, JOB_FAILED, JOB_TIMEOUT, OUTCOME_UNKNOWN

cdef enum:
    # An end's own data up to here is told with its event; a longer one is the result's alone.
    MOST_TOLD_BYTES = 16384
    # The number behind the first event, which says that the job was created.
    FIRST_EVENTS = 2

cdef str GONE = "the job server does not know the job any more; whether it ran is not known"


@cython.final
cdef class KeptRun(JobRequest):
    """Listens to the job of a KeptJob."""

    cdef str cancel(self):
        cdef CancelAnswer answer
        cdef Cancellation before = self.kept.cancellation
        cdef str reason
        if self.job is None:
            return "it was not submitted"
        answer = CancelAnswer.__new__(CancelAnswer)
        answer.run = self
        self.answer = NO_ANSWER
        self.kept.cancellation = ASKED
        reason = self.job.carrier.cancel(self.job, answer)
        if reason is not None:
            self.kept.cancellation = before
        return reason

    cdef int forget(self) except -1:
        if self.job is not None and not self.kept.is_shared and self.kept.cancellation == NOT_ASKED:
            # Also where jobs that nobody waits for are left to run: somebody has asked for the end of this one.
            self.cancel()
        self.give_up()
        return self.jobs.forget(self.kept)

    cdef int give_up(self) except -1:
        cdef Job job = self.job
        if job is None:
            return 0
        self._end(job, Result.ABANDONED)
        job.carrier.abandon(job)
        self._answer_is(JOB_CANCELLED, None)
        return self._ended(CANCELLED, b"cancelled", None, None)

    # What the job server says.

    cdef int job_created(self, Job job, const char* handle, Py_ssize_t handle_bytes) except -1:
        cdef double now_s = time_of_day()
        self.kept.headers = self.headers_of(job, None)
        self.kept.expires_s = self.jobs.expires_s(now_s + self.timeout_s)
        self.kept.created(now_s)
        return self._changed(self.kept.state)

    cdef int job_data(self, Job job, bytes data) except -1:
        cdef KeptState before = self.kept.state
        self.data_bytes += PyBytes_GET_SIZE(data)
        self.kept.said(b"data", data)
        return self._changed(before)

    cdef int job_warning(self, Job job, bytes data) except -1:
        cdef KeptState before = self.kept.state
        self.kept.said(b"warning", data)
        return self._changed(before)

    cdef int job_status(self, Job job, bytes numerator, bytes denominator) except -1:
        cdef KeptState before = self.kept.state
        self.kept.progressed(numerator, denominator)
        return self._changed(before)

    cdef int _changed(self, KeptState before) except -1:
        """Count it anew, and tell those who watch, who may do away with it: what there is no room for they have all the same."""
        cdef bint is_one_of_many = not self.kept.has_ended() and self.kept.events.next > FIRST_EVENTS
        self.jobs.changed(self.kept, before)
        if is_one_of_many:
            self.kept.tell_watchers()
        else:
            self.kept.tell_all()
        self.kept.events.told()
        return self.jobs.hold(self.kept)

    # The end.

    cdef int ended_with(self, Job job, int result, int status, bytes command, object body, int outcome) except -1:
        cdef bytes data = None
        # What was sent before it has events of its own.
        cdef Py_ssize_t own_from = self.data_bytes
        self._end(job, result)
        self.kept.status = status
        self.kept.outcome = outcome
        self.kept.headers = self.headers_of(job, command)
        self.kept.content_type = self.gateway.content_type
        self.kept.body = body
        self.kept.body_bytes = len(body)
        if result != Result.COMPLETE:
            own_from = 0
        if self.kept.body_bytes - own_from <= MOST_TOLD_BYTES:
            data = bytes(memoryview(body)[own_from:])
        if result == Result.COMPLETE:
            return self._ended(SUCCEEDED, b"complete", None, data)
        return self._ended(FAILED, b"exception", None, data)

    cdef int ended_badly(self, Job job, int result, object problem, str detail, bytes command) except -1:
        cdef KeptState state = FAILED
        cdef bytes kind = b"fail"
        self._end(job, result)
        self.kept.headers = self.headers_of(job, command)
        if result == Result.FAIL and self.kept.cancellation != NOT_ASKED:
            # Whose it is, the worker's or the cancellation's, the job server's answer to that tells.
            self.failed_with = detail
            return 0 if self.kept.cancellation == ASKED and self.answer == NO_ANSWER else self._settle()
        if problem is JOB_TIMEOUT:
            state, kind = TIMEOUT, b"timeout"
        elif result == Result.LOST or result == Result.UNSENT or result == Result.REFUSED:
            state, kind = LOST, b"lost"
        self._answer_is(problem, detail)
        return self._ended(state, kind, problem.detail if detail is None else detail, None)

    cdef int _settle(self) except -1:
        """The WORK_FAIL that has come is the job's end."""
        cdef str detail = self.failed_with
        self.failed_with = None
        if self.answer == CANCELLED_IT:
            self._answer_is(JOB_CANCELLED, None)
            return self._ended(CANCELLED, b"cancelled", JOB_CANCELLED.detail, None)
        if self.answer == KNEW_IT_NOT:
            self._answer_is(JOB_FAILED, detail)
            return self._ended(FAILED, b"fail", detail, None)
        detail = f"{detail}; whether since it was cancelled, or as its worker has said, is not known"
        self._answer_is(OUTCOME_UNKNOWN, detail)
        return self._ended(LOST, b"lost", detail, None)

    cdef int job_broken(self, Job job) except -1:
        if self.kept.has_ended():
            return 0
        self._end(job, Result.LOST)
        self._answer_is(INTERNAL_ERROR, None)
        return self._ended(LOST, b"lost", INTERNAL_ERROR.detail, None)

    def _answer_is(self, problem, detail):
        self.kept.problem = problem
        self.kept.detail = detail
        self.kept.status = problem.status
        self.kept.outcome = outcomes.OUTCOME_OF_PROBLEM[problem.kind]

    cdef int _ended(self, KeptState state, bytes kind, str reason, bytes data) except -1:
        cdef KeptState before = self.kept.state
        cdef double now_s = time_of_day()
        self.kept.ended(state, now_s, self.jobs.expires_s(now_s), kind, reason, data)
        return self._changed(before)

    cdef int _end(self, Job job, int result) except -1:
        """The job counts no more, but once as ended."""
        cdef RecordsState* state = &self.gateway.records.state
        self.job = None
        self._leave()
        if self.submitted_ns == 0:
            return 0
        self.kept.job_ns = moment(state.moment_ns) - self.submitted_ns
        self.submitted_ns = 0
        if job.carrier is not None:
            if job.carrier.server_place == OTHER:
                job.carrier.server_place = self.gateway.records.metrics.servers.claim(job.carrier.server_name.encode())
            self.kept.server_place = job.carrier.server_place
        count_job(state.counted, self.function_place, self.kept.server_place, result, self.kept.job_ns)
        return 0

    cdef int _leave(self) except -1:
        if self.entered:
            self.entered = False
            self.gateway.admission.leave(self.job_place)
        if self.token_entered:
            self.token_entered = False
            self.token.leave(self.token_place)
        return 0


@cython.final
cdef class CancelAnswer(StatusListener):
    """What the job server says of a job that it was asked to cancel."""

    cdef int cancel_answered(self, bint is_cancelled) except -1:
        self.run.answer = CANCELLED_IT if is_cancelled else KNEW_IT_NOT
        return 0 if self.run.failed_with is None else self.run._settle()

    cdef int status_told(
        self, bint known, bint running, unsigned int numerator, unsigned int denominator
    ) except -1:
        cdef KeptRun run = self.run
        cdef Job job = run.job
        # A worker that has said something and is gone since has begun it, too.
        cdef bint has_begun = running or run.kept.started_s != 0
        run.kept.cancellation = WILL_NOT_RUN if known and not has_begun else MAY_HAVE_RUN
        if job is None:
            return run.kept.tell_all()
        # Its end has not come, and what the job server has sent of it would have come before this.
        if run.answer == CANCELLED_IT:
            return run.give_up()
        if known:
            run.kept.cancellation = NOT_ASKED
            return run.kept.tell_all()
        run._end(job, Result.LOST)
        job.carrier.abandon(job)
        run._answer_is(OUTCOME_UNKNOWN, GONE)
        return run._ended(LOST, b"lost", GONE, None)

    cdef int status_lost(self, str reason) except -1:
        cdef KeptRun run = self.run
        run.kept.cancellation = NOT_KNOWN
        run.kept.cancel_reason = reason
        return run.kept.tell_all() if run.failed_with is None else run._settle()
