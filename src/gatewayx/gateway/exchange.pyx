"""One HTTP request as one Gearman job, and which answer the job's end is.

Theory of operation. `Gateway.begin` makes a JobRequest of the head: a request that asks for something impossible, or for
which there is no room, is answered there, before its body is read. `Gateway.handle` submits the job. From then on the
Exchange listens to the job and refers to the request; whichever comes first, the job's end or the client's hang-up, closes it,
and it is told nothing after that.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE

from gatewayx.core.budget cimport SMALL_BYTES
from gatewayx.core.clock cimport moment
from gatewayx.core.metrics cimport OTHER, Result, count_job
from gatewayx.gateway.job_request cimport CLIENT, GATEWAY, MAX_HEADERS_BYTES, JobRequest, Relayed
from gatewayx.gateway.job_telling cimport note_job, take_ending
from gatewayx.gateway.owners cimport Owners
from gatewayx.gateway.tokens cimport Token
from gatewayx.gearman.job cimport Job, Submission
from gatewayx.gearman.pool cimport Pool
from gatewayx.gearman.ranking cimport rank_key_of
from gatewayx.http.records cimport Ending, RecordsState
from gatewayx.http.request cimport METHOD_GET, METHOD_HEAD, Request

from gatewayx.http import outcomes
from gatewayx.http.problems import INTERNAL_ERROR, NO_JOB_SERVER, UNEXPECTED_BODY, UNIQUE_IN_USE

cdef int ACCEPTED = outcomes.ACCEPTED

cdef bytes ASYNC_LINE = b"Prefer: respond-async\r\n"


cdef class Exchange(JobRequest):
    """One request and its job."""

    cdef int relay_body(self) except -1:
        """Have the owner take the body as it arrives, if another process owns the key and the body is not small."""
        cdef Request request = self.request
        cdef int place
        if (
            self.plugin_compat
            or self.identity_hash is not None
            or request.owner.is_relayed()
            or request.method == METHOD_GET
            or request.method == METHOD_HEAD
            or not (request.chunked or request.content_length > SMALL_BYTES)
        ):
            return 0
        place = self.gateway.owners.elsewhere(self._identity())
        if place < 0:
            return 0
        # From here on the body is the other process's to submit.
        refusal = self.enter_token()
        if refusal is not None:
            return self._answer_problem(None, refusal, None, None)
        self.relayed = self.gateway.owners.relay_head(place, self, request)
        request.body_sink = self.relayed
        return 0

    cdef int complete_relayed(self) except -1:
        """All of the body is there."""
        cdef Request request = self.request
        if request.body_bytes:
            # It came at once, if behind its head.
            self.relayed.take(request.body_start, request.body_bytes)
        if self.relayed is not None:
            request.body_sink = None
            self.relayed.complete()
            self._let_go()
        return 0

    cdef object enter_token(self):
        cdef object refusal = None
        if self.token is not None and not self.token_entered:
            refusal = self.token.enter(&self.token_place)
            self.token_entered = refusal is None
        return refusal

    cdef bytes relayed_lines(self):
        cdef bytes lines = JobRequest.relayed_lines(self)
        return lines + ASYNC_LINE if self.responds_async else lines

    cdef int perform(self) except -1:
        return self.submit() if self.relayed is None else self.complete_relayed()

    cdef int submit(self) except -1:
        cdef Request request = self.request
        cdef Pool pool = self.gateway.pool
        cdef bytes identity = None
        cdef Submission submission
        submission.workload = request.body_start
        submission.workload_bytes = request.body_bytes
        self.workload = request.body
        if request.method == METHOD_GET or request.method == METHOD_HEAD:
            if request.body_bytes and not self.plugin_compat:
                # A chunked body shows its length only now.
                return self._answer_problem(None, UNEXPECTED_BODY, None, None)
            # A body that came with its head was read before anybody knew that the plugin drops it.
            self.workload = b"" if request.query is None or self.plugin_compat else request.query
            submission.workload = PyBytes_AS_STRING(self.workload)
            submission.workload_bytes = PyBytes_GET_SIZE(self.workload)
        if self.token is not None:
            refusal = self.enter_token()
            if refusal is not None:
                return self._answer_problem(None, refusal, None, None)
        submission.own_unique = self.unique_origin == GATEWAY
        if not submission.own_unique:
            if self.workload is None:
                # The job is merged with others by it, or ranked.
                self.workload = PyBytes_FromStringAndSize(submission.workload, submission.workload_bytes)
            identity = self._identity()
            if identity is not None and self._relay(identity):
                return 0
        refusal = self.gateway.admission.enter(self.function, pool, &self.job_place)
        if refusal is not None:
            return self._answer_problem(None, refusal, None, None)
        self.entered = True
        if submission.own_unique:
            submission.unique = self.own_unique.text
            submission.unique_bytes = self.own_unique.size
        else:
            submission.unique = PyBytes_AS_STRING(self.unique)
            submission.unique_bytes = PyBytes_GET_SIZE(self.unique)
            if self.unique_origin == CLIENT and identity is not None and self._would_mix(identity):
                return self._answer_problem(None, UNIQUE_IN_USE, None, None)
        submission.packet_type = self.packet_type()
        submission.timeout_s = self.timeout_s
        submission.streamed = False
        submission.remembered = self.unique_origin == CLIENT and self.background and identity is not None
        submission.rank_key = 0
        if identity is not None:
            submission.rank_key = rank_key_of(self.function, self.unique, self.workload)
        return self.submit_job(identity, &submission)

    cdef int submit_job(self, bytes identity, Submission* submission) except -1:
        self.job = self.gateway.pool.submit(self, self.function, identity, submission, self.workload)
        self._let_go()
        if self.job is None:
            return self._answer_problem(None, NO_JOB_SERVER, None, None)
        self.submitted_ns = moment(self.gateway.records.state.moment_ns)
        return 0

    cdef bytes _identity(self):
        """What the job server merges the job by; None if by nothing."""
        if self.identity_hash is not None:
            return self.workload_identity()
        return self.gateway.pool.start_identity(self.function, self.unique).digest()

    cdef bint _relay(self, bytes identity) except -1:
        """Whether another process answers, since it owns the key: what it was asked by a process is its own to answer."""
        cdef Owners owners = self.gateway.owners
        cdef Request request = self.request
        cdef int place
        if owners is None or request.owner.is_relayed():
            return False
        if self.identity_hash is not None:
            # The workload counts by what ranks it, and as strangers cannot foresee.
            identity = self.gateway.pool.ranked_identity(self.function, self.unique, self.workload)
        place = owners.elsewhere(identity)
        if place < 0:
            return False
        self.relayed = owners.relay(place, self, request)
        if self.request is not None:
            self._let_go()
        return True

    cdef int _let_go(self) except -1:
        """Workload and head are in other hands; of the head only this is still needed."""
        cdef Request request = self.request
        self.workload = None
        request.let_go()
        request.context_bytes = PyBytes_GET_SIZE(self.function)
        if self.unique is not None:
            request.context_bytes += PyBytes_GET_SIZE(self.unique)
        return 0

    cdef int learn_ending(self, const Ending* ending, bytes headers) except -1:
        return take_ending(self.gateway.records, self.request, self, ending, headers)

    cdef bint _would_mix(self, bytes identity) except -1:
        """Whether the job server would merge a foreground and a background job."""
        cdef Pool pool = self.gateway.pool
        if pool.knows_background(identity, self.function):
            return not self.background
        return self.background and pool.has_pinned(identity)

    cdef int abandon(self) except -1:
        """No answer is wanted any more."""
        cdef Job job = self.job
        cdef Relayed relayed = self.relayed
        self.relayed = None
        if job is not None:
            self._count_job(job, Result.ABANDONED)
        self.close()
        if relayed is not None:
            return relayed.abandon()
        if job is not None:
            job.carrier.abandon(job)
        return 0

    cdef int close(self) except -1:
        if self.request is not None:
            self.request.context = None
            self.request = None
            self.job = None
            self.gateway.open_exchanges -= 1
            if self.entered:
                self.entered = False
                self.gateway.admission.leave(self.job_place)
            if self.token_entered:
                self.token_entered = False
                self.token.leave(self.token_place)
        return 0

    cdef int _count_job(self, Job job, int result) except -1:
        """The job's part in the request has ended; it counts once, whatever follows."""
        cdef RecordsState* state = &self.gateway.records.state
        if self.submitted_ns == 0:
            return 0
        self.request.job_ns = moment(state.moment_ns) - self.submitted_ns
        self.submitted_ns = 0
        if job.carrier is not None:
            self.request.server_place = job.carrier.server_place
        if self.request.server_place == OTHER or self.request.note is not None:
            note_job(self.gateway.records, self.request, self, job)
        count_job(state.counted, self.request.function_place, self.request.server_place, result, self.request.job_ns)
        return 0

    # What the job server says.

    cdef int job_created(self, Job job, const char* handle, Py_ssize_t handle_bytes) except -1:
        cdef char[MAX_HEADERS_BYTES] headers
        cdef char* lines = NULL
        cdef Py_ssize_t lines_bytes = 0
        cdef Request request = self.request
        if not job.background:
            return 0
        self._count_job(job, Result.QUEUED)
        if request is not None and request.note is not None:
            request.note.handle = handle[:handle_bytes]
        if request is not None and request.owner is not None:
            if self.unique_origin == GATEWAY and self.gateway.locations is not None:
                lines_bytes = self.gateway.locations.put_lines(
                    self, job, handle, handle_bytes, moment(self.gateway.records.state.moment_ns), &lines
                )
            if lines_bytes == 0:
                lines = headers
                lines_bytes = self.put_headers(headers, handle, handle_bytes, b"JOB_CREATED") - headers
            if self.responds_async:
                self._answer_taken(lines[:lines_bytes])
            else:
                request.owner.answer(request, 200, self.gateway.content_type, lines, lines_bytes, b"")
        return self.close()

    cdef int _answer_taken(self, bytes lines) except -1:
        lines += b"Preference-Applied: respond-async\r\n"
        self.request.outcome = ACCEPTED
        return self.request.owner.answer(
            self.request, 202, self.gateway.content_type, PyBytes_AS_STRING(lines), PyBytes_GET_SIZE(lines), b""
        )

    cdef int ended_with(self, Job job, int result, int status, bytes command, object body, int outcome) except -1:
        self._count_job(job, result)
        self.request.outcome = outcome
        return self._answer(job, status, command, body)

    cdef int ended_badly(self, Job job, int result, object problem, str detail, bytes command) except -1:
        self._count_job(job, result)
        return self._answer_problem(job, problem, detail, command)

    cdef int job_broken(self, Job job) except -1:
        self._count_job(job, Result.LOST)
        return self._answer_problem(None, INTERNAL_ERROR, None, None)

    cdef int _answer(self, Job job, int status, bytes command, object body) except -1:
        cdef char[MAX_HEADERS_BYTES] headers
        cdef Request request = self.request
        if request is not None and request.owner is not None:
            request.owner.answer(
                request,
                status,
                self.gateway.content_type,
                headers,
                self.put_headers_of(headers, job, command) - headers,
                body,
            )
        return self.close()

    cdef int _answer_problem(self, Job job, object problem, str detail, bytes command) except -1:
        cdef Request request = self.request
        cdef bytes headers = None if job is None else self.headers_of(job, command)
        if request is not None and request.owner is not None:
            request.owner.answer_problem(request, problem, detail, headers)
        return self.close()

