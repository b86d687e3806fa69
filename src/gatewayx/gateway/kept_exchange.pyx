"""One HTTP request whose job outlives it, or whose answer is the events of its job (RFC 7240, respond-async).

Theory of operation. It is an Exchange up to the moment in which the job is submitted. From there on a KeptRun listens to the job,
and this watches what becomes of it. Nobody is told the job's id before the job server has queued the job: what ends before that,
or while its client still waits, has the answer of any request, and is forgotten with it.
"""

cimport cython
from libc.math cimport ceil

from gatewayx.core.clock cimport moment
from gatewayx.gateway.event_stream cimport begin_stream
from gatewayx.gateway.exchange cimport Exchange
from gatewayx.gateway.kept_answers cimport answer_json, answer_kept, location_line
from gatewayx.gateway.kept_job cimport KeptJob
from gatewayx.gateway.kept_jobs cimport KeptJobs
from gatewayx.gateway.kept_run cimport KeptRun
from gatewayx.gateway.tokens cimport Token
from gatewayx.gateway.watching cimport Wait
from gatewayx.gearman.job cimport Submission

from gatewayx.http.problems import JOB_TIMEOUT, NO_JOB_SERVER, TOO_MANY_KEPT_JOBS

cdef bytes ASYNC_LINE = b"Prefer: respond-async\r\n"
cdef bytes APPLIED_LINE = b"Preference-Applied: respond-async\r\n"
cdef bytes EVENTS_LINE = b"Accept: text/event-stream\r\n"


@cython.final
cdef class KeptExchange(Exchange):
    """One request for a job that outlives it."""

    cdef object enter_token(self):
        # The job counts among those of its token where it is kept, for as long as it has not ended.
        return None

    cdef bytes relayed_lines(self):
        cdef bytes lines = Exchange.relayed_lines(self)
        if self.wants_events:
            return lines + EVENTS_LINE
        if self.wait_s > 0:
            return lines + b"Prefer: respond-async, wait=%d\r\n" % <long long> ceil(self.wait_s)
        return lines + ASYNC_LINE

    cdef int submit_job(self, bytes identity, Submission* submission) except -1:
        cdef KeptJobs jobs = self.gateway.kept
        cdef KeptRun run = KeptRun.__new__(KeptRun)
        cdef Token token = self.token
        run.gateway = self.gateway
        run.jobs = jobs
        run.become(self)
        run.function_place = self.request.function_place
        if token is None and self.token_mark is not None:
            # Another process has asked for a client of its own.
            token = self.gateway.token_of(self.token_mark)
        if token is not None:
            refusal = token.enter(&run.token_place)
            if refusal is not None:
                return self._answer_problem(None, refusal, None, None)
            run.token = token
            run.token_entered = True
        run.kept = jobs.begin(self.function, self.token_mark, run)
        if run.kept is None:
            run._leave()
            return self._answer_problem(None, TOO_MANY_KEPT_JOBS, None, None)
        run.kept.is_shared = not submission.own_unique
        # From here on the job counts until it has ended.
        run.entered, self.entered = self.entered, False
        run.job_place = self.job_place
        run.job = self.gateway.pool.submit(run, self.function, identity, submission, self.workload)
        self._let_go()
        if run.job is None:
            run._leave()
            jobs.forget(run.kept)
            return self._answer_problem(None, NO_JOB_SERVER, None, None)
        run.submitted_ns = moment(self.gateway.records.state.moment_ns)
        self.run = run
        self.wait = Wait.__new__(Wait)
        self.wait.asked = self
        self.wait.wait_for(run.kept)
        if self.wait_s <= 0 or self.wants_events:
            self.is_confirming = True
            return self.wait.wake(jobs.wheel, self._confirm_s())
        return self.wait.wake(jobs.wheel, self.wait_s)

    cdef bint is_patient(self) noexcept:
        return self.wants_events

    cdef double answer_within_s(self) noexcept:
        return max(self.wait_s, 0) + self._confirm_s()

    cdef double _confirm_s(self) noexcept:
        """How long a job server has for its JOB_CREATED: as long as for the end of a job that somebody waits for."""
        return min(self.timeout_s, self.gateway.job_timeout_s)

    cdef int waited(self) except -1:
        cdef KeptJob kept = self.run.kept
        if kept.has_ended() and not (self.wants_events and kept.is_created):
            return self._answer_end(kept)
        if kept.is_created:
            if self.wants_events:
                return self._begin_stream(kept)
            if self.is_confirming or self.wait.is_over:
                return self._answer_accepted(kept)
            return 0
        if not self.wait.is_over:
            return 0
        self.wait.is_over = False
        if not self.is_confirming and self.wait_s < self._confirm_s():
            self.is_confirming = True
            return self.wait.wake(self.gateway.kept.wheel, self._confirm_s() - self.wait_s)
        self._give_up()
        return self._answer_problem(
            None, JOB_TIMEOUT, "the job server did not confirm the job in time; its cancellation is requested", None
        )

    cdef int _answer_end(self, KeptJob kept) except -1:
        """Its client has waited for the end, or the job has come to nothing before anybody knew its id."""
        self.run = None
        self.wait.leave()
        self.gateway.kept.forget(kept)
        self.request.job_ns = kept.job_ns
        self.request.server_place = kept.server_place
        if self.request.owner is not None:
            answer_kept(self.request, self.gateway.kept.room, kept)
        return self.close()

    cdef int _answer_accepted(self, KeptJob kept) except -1:
        self.run = None
        self.accepted = kept
        self.wait.leave()
        if self.request.owner is not None:
            answer_json(
                self.request,
                self.gateway.kept,
                202,
                kept,
                kept.headers + location_line(kept.id) + APPLIED_LINE,
            )
        return self.close()

    cdef int _begin_stream(self, KeptJob kept) except -1:
        cdef KeptJobs jobs = self.gateway.kept
        self.run = None
        self.wait.leave()
        if self.request.owner is None:
            return self.close()
        jobs.streams += 1
        self.stream = begin_stream(
            self, self.request, kept, 0, kept.headers + location_line(kept.id), jobs.wheel, jobs.counts
        )
        return self.stream_ended() if self.stream is None else 0

    cdef int stream_ended(self) except -1:
        self.gateway.kept.streams -= 1
        self.stream = None
        return self.close()

    cdef int _give_up(self) except -1:
        cdef KeptRun run = self.run
        self.run = None
        self.wait.leave()
        run.give_up()
        return self.gateway.kept.forget(run.kept)

    cdef int abandon(self) except -1:
        if self.stream is not None:
            # The job goes on: its client knows its id.
            self.stream.leave()
            return self.stream_ended()
        if self.run is not None:
            self._give_up()
        return Exchange.abandon(self)
