"""One HTTP request as one Gearman job, and which answer the job's end is.

Theory of operation. `Gateway.begin` makes a JobRequest of the head: a request that asks for something impossible, or for
which there is no room, is answered there, before its body is read. `Gateway.handle` submits the job. From then on the
Exchange listens to the job and refers to the request; whichever comes first, the job's end or the client's hang-up, closes it,
and it is told nothing after that.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE

from gatewayx.core.budget cimport SMALL_BYTES
from gatewayx.core.clock cimport moment
from gatewayx.core.digits cimport put, put_bytes
from gatewayx.core.metrics cimport OTHER, Result, count_job
from gatewayx.gateway.job_telling cimport HANDLE_NAME, note_job, take_ending
from gatewayx.gateway.job_request cimport CLIENT, GATEWAY, JobRequest
from gatewayx.gateway.owners cimport Owners, Relayed
from gatewayx.gateway.tokens cimport Token
from gatewayx.gearman.job cimport Job, JobState, Submission, printable
from gatewayx.gearman.pool cimport Pool
from gatewayx.gearman.ranking cimport rank_key_of
from gatewayx.http.records cimport Ending, RecordsState
from gatewayx.http.request cimport METHOD_GET, METHOD_HEAD, BodySource, Request

from gatewayx.http import outcomes
from gatewayx.http.problems import (
    INTERNAL_ERROR,
    JOB_FAILED,
    JOB_REFUSED,
    JOB_TIMEOUT,
    NO_JOB_SERVER,
    NO_ROOM_FOR_RESULT,
    NOT_SUBMITTED,
    OUTCOME_UNKNOWN,
    RESULT_TOO_LARGE,
    UNEXPECTED_BODY,
    UNIQUE_IN_USE,
)

cdef enum:
    # Room for the X-Gearman-* lines of an answer: a handle and a unique of at most 63 bytes, and what is ours.
    MAX_HEADERS_BYTES = 256


@cython.final
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
        self.job = pool.submit(self, self.function, identity, &submission, self.workload)
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

    cdef int relay_answered(
        self, int status, const Ending* ending, bytes content_type, bytes headers, object body
    ) except -1:
        cdef Request request = self.request
        self.relayed = None
        self._drop_body()
        take_ending(self.gateway.records, request, self, ending, headers)
        if request is not None and request.owner is not None:
            request.owner.answer(
                request, status, content_type, PyBytes_AS_STRING(headers), PyBytes_GET_SIZE(headers), body
            )
        return self._close()

    cdef bint relay_answers(
        self,
        int status,
        const Ending* ending,
        bytes content_type,
        bytes headers,
        long long body_bytes,
        BodySource source,
    ) except -1:
        cdef Request request = self.request
        self._drop_body()
        take_ending(self.gateway.records, request, self, ending, headers)
        if request is not None and request.owner is not None:
            self.in_pieces = request.owner.answer_in_pieces(
                request, status, content_type, PyBytes_AS_STRING(headers), PyBytes_GET_SIZE(headers), body_bytes, source, None
            )
        if not self.in_pieces:
            self.relayed = None
            self._close()
        return self.in_pieces

    cdef bint relay_piece(self, const char* data, Py_ssize_t size) except -1:
        return self.request.owner.answer_piece(self.request, data, size)

    cdef int _drop_body(self) except -1:
        """Nobody takes what is still to come of the body."""
        cdef Request request = self.request
        if request is not None and request.body_sink is not None:
            request.body_sink = None
            request.discards_body = True
            if request.owner is not None:
                request.owner.pause_body(False)
        return 0

    cdef int relay_paused(self, bint pause) except -1:
        if self.request is not None and self.request.owner is not None:
            self.request.owner.pause_body(pause)
        return 0

    cdef int relay_ended(self) except -1:
        self.relayed = None
        return self._close()

    cdef int relay_failed(self, object problem, str detail) except -1:
        self.relayed = None
        self._drop_body()
        if self.in_pieces and self.request is not None and not self.request.owner.take_back(self.request):
            return self._close()
        return self._answer_problem(None, problem, detail, None)

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
        self._close()
        if relayed is not None:
            return relayed.abandon()
        if job is not None:
            job.carrier.abandon(job)
        return 0

    cdef int _close(self) except -1:
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
        cdef Request request = self.request
        if not job.background:
            return 0
        self._count_job(job, Result.QUEUED)
        if request is not None and request.note is not None:
            request.note.handle = handle[:handle_bytes]
        if request is not None and request.owner is not None:
            request.owner.answer(
                request,
                200,
                self.gateway.content_type,
                headers,
                self._put_headers(headers, handle, handle_bytes, b"JOB_CREATED") - headers,
                b"",
            )
        return self._close()

    cdef int job_completed(self, Job job, object result) except -1:
        self._count_job(job, Result.COMPLETE)
        return self._answer(job, 200, b"WORK_COMPLETE", result)

    cdef int job_failed(self, Job job, bytes reason) except -1:
        cdef str detail = JOB_FAILED.detail
        self._count_job(job, Result.FAIL)
        if self.plugin_compat:
            self.request.outcome = <int> outcomes.COMPAT_FAIL
            return self._answer(job, 200, b"WORK_FAIL", b"")
        if reason:
            detail += f": {printable(reason)}"
        return self._answer_problem(job, JOB_FAILED, detail, self._headers(job, b"WORK_FAIL"))

    cdef int job_exception(self, Job job, bytes data) except -1:
        self._count_job(job, Result.EXCEPTION)
        if self.plugin_compat:
            self.request.outcome = <int> outcomes.COMPAT_EXCEPTION
            return self._answer(job, 200, b"WORK_EXCEPTION", b"")
        self.request.outcome = <int> outcomes.EXCEPTION
        return self._answer(job, 500, b"WORK_EXCEPTION", data)

    cdef int job_too_large(self, Job job) except -1:
        self._count_job(job, Result.TOO_LARGE)
        return self._answer_problem(job, RESULT_TOO_LARGE, NO_ROOM_FOR_RESULT if job.over_budget else None, None)

    cdef int job_refused(self, Job job, bytes code, bytes text) except -1:
        self._count_job(job, Result.REFUSED)
        return self._answer_problem(
            job,
            JOB_REFUSED,
            f"no job server has queued the job, the last one tried answered {printable(code)}: {printable(text)}",
            None,
        )

    cdef int job_timed_out(self, Job job) except -1:
        self._count_job(job, Result.TIMEOUT)
        if job.reached == JobState.UNSENT:
            detail = f"no job server took the job within {self.timeout_s:g} s; nothing was submitted"
        elif job.background:
            detail = f"no confirmation within {self.timeout_s:g} s; whether the job was queued is not known"
        else:
            detail = f"no result within {self.timeout_s:g} s"
        return self._answer_problem(job, JOB_TIMEOUT, detail, None)

    cdef int job_lost(self, Job job) except -1:
        self._count_job(job, Result.UNSENT if job.reached == JobState.UNSENT else Result.LOST)
        if job.reached == JobState.UNSENT:
            return self._answer_problem(job, NOT_SUBMITTED, f"nothing was submitted: {_reason(job)}", None)
        created = "had been created" if job.reached == JobState.CREATED else "may have been created"
        return self._answer_problem(
            job,
            OUTCOME_UNKNOWN,
            f"{_reason(job)}; the job {created}, and whether it ran or will run is not known",
            None,
        )

    cdef int job_broken(self, Job job) except -1:
        self._count_job(job, Result.LOST)
        return self._answer_problem(None, INTERNAL_ERROR, None, None)

    # The answer.

    cdef char* _put_headers(self, char* end, const char* handle, Py_ssize_t handle_bytes, bytes command):
        """Write the X-Gearman-* lines, with room for MAX_HEADERS_BYTES; returns what follows them.

        handle: NULL for none. command: None for none.
        """
        if handle != NULL:
            end = put(put_bytes(end, HANDLE_NAME), handle, handle_bytes)
            if command is not None:
                end = put_bytes(put_bytes(end, b"\r\nX-Gearman-Command: "), command)
            end = put_bytes(end, b"\r\n")
        end = put_bytes(end, b"X-Gearman-Unique: ")
        if self.unique is None:
            end = put(end, self.own_unique.text, self.own_unique.size)
        else:
            end = put_bytes(end, self.unique)
        return put_bytes(end, b"\r\n")

    cdef char* _put_headers_of(self, char* end, Job job, bytes command):
        """The same for a job whose handle is kept; None for no job."""
        if job is None or job.handle is None:
            return self._put_headers(end, NULL, 0, command)
        return self._put_headers(end, PyBytes_AS_STRING(job.handle), PyBytes_GET_SIZE(job.handle), command)

    cdef bytes _headers(self, Job job, bytes command):
        """The X-Gearman-* lines; job and command may be None."""
        cdef char[MAX_HEADERS_BYTES] headers
        return PyBytes_FromStringAndSize(headers, self._put_headers_of(headers, job, command) - headers)

    cdef int _answer(self, Job job, int status, bytes command, object body) except -1:
        cdef char[MAX_HEADERS_BYTES] headers
        cdef Request request = self.request
        if request is not None and request.owner is not None:
            request.owner.answer(
                request,
                status,
                self.gateway.content_type,
                headers,
                self._put_headers_of(headers, job, command) - headers,
                body,
            )
        return self._close()

    cdef int _answer_problem(self, Job job, object problem, str detail, bytes headers) except -1:
        cdef Request request = self.request
        if job is not None and headers is None:
            headers = self._headers(job, None)
        if request is not None and request.owner is not None:
            request.owner.answer_problem(request, problem, detail, headers)
        return self._close()


cdef str _reason(Job job):
    """Why nothing more can be known of the job."""
    if job.carrier.close_reason is None:
        return "the job runs for a request that has gone, and what it had sent was not kept"
    return job.carrier.close_reason.encode("unicode_escape").decode("ascii")
