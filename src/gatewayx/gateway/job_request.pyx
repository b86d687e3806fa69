"""What a client asks for: one job to run, or something of one that is kept.

A path and X-Gearman- headers become a JobRequest. A subclass answers it, as an Exchange does with one response: it hands the fields to
`Pool.submit` and listens to the job. What a job server says of a job, or that it says nothing any more, comes as one of JobListener's
ends. Each has an answer, the same whether its client still waits for it on the connection that has asked (gateway/exchange) or
comes back for it later (gateway/kept_run): they all stand here.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE

from gatewayx.core.digits cimport put, put_bytes
from gatewayx.core.keyed_hash cimport KeyedHash
from gatewayx.core.metrics cimport Result
from gatewayx.gearman.job cimport Job, JobListener, JobState, printable
from gatewayx.gearman.packet cimport PacketType
from gatewayx.http.records cimport Ending
from gatewayx.http.request cimport UNKNOWN_BYTES, BodySink, BodySource, Request

from gatewayx.http import outcomes
from gatewayx.http.problems import (
    INTERNAL_ERROR,
    JOB_FAILED,
    JOB_REFUSED,
    JOB_TIMEOUT,
    NO_ROOM_FOR_RESULT,
    NOT_SUBMITTED,
    OUTCOME_UNKNOWN,
    RESULT_TOO_LARGE,
)

cdef int OK = outcomes.OK
cdef int EXCEPTION = outcomes.EXCEPTION
cdef int COMPAT_EXCEPTION = outcomes.COMPAT_EXCEPTION
cdef int COMPAT_FAIL = outcomes.COMPAT_FAIL

# What stands before the handle in an answer's head.
HANDLE_NAME = b"X-Gearman-Job-Handle: "

NOTHING_SUBMITTED = "nothing was submitted"

SUBMIT_TYPES[<int> LOW][:] = [PacketType.SUBMIT_JOB_LOW, PacketType.SUBMIT_JOB_LOW_BG]
SUBMIT_TYPES[<int> NORMAL][:] = [PacketType.SUBMIT_JOB, PacketType.SUBMIT_JOB_BG]
SUBMIT_TYPES[<int> HIGH][:] = [PacketType.SUBMIT_JOB_HIGH, PacketType.SUBMIT_JOB_HIGH_BG]

cdef bytes BACKGROUND_LINE = b"X-Gearman-Background: true\r\n"
cdef bytes HIGH_LINE = b"X-Gearman-Priority: high\r\n"
cdef bytes LOW_LINE = b"X-Gearman-Priority: low\r\n"

# A wait is told with so many decimals that the same number is read; one that is shorter would be told as 0.
cdef double LEAST_TIMEOUT_S = 1e-20


cdef class Relayed(BodySource):
    """A request that another process answers."""

    cdef int abandon(self) except -1:
        raise NotImplementedError

    cdef int complete(self) except -1:
        raise NotImplementedError


@cython.final
cdef class HashedBody(BodySink):
    """A body whose hash is taken as it arrives."""

    cdef int take(self, const char* piece, Py_ssize_t piece_bytes) except -1:
        self.hash.take(piece, piece_bytes)
        return 0


cdef class JobRequest(JobListener):
    """One job as a client asks for it, or for something of it."""

    cdef bytes relayed_lines(self):
        # No more lines than its client has sent: they are bounded.
        cdef bytes lines = b""
        if self.tells_timeout:
            lines = f"X-Gearman-Timeout: {max(self.timeout_s, LEAST_TIMEOUT_S):.20f}\r\n".encode()
        if self.unique_origin == CLIENT:
            lines += b"X-Gearman-Unique: %b\r\n" % self.unique
        if self.background:
            lines += BACKGROUND_LINE
        if self.priority != NORMAL:
            lines += HIGH_LINE if self.priority == HIGH else LOW_LINE
        return lines

    cdef int become(self, JobRequest other) except -1:
        self.function = other.function
        self.unique = other.unique
        self.own_unique = other.own_unique
        self.unique_origin = other.unique_origin
        self.priority = other.priority
        self.background = other.background
        self.tells_timeout = other.tells_timeout
        self.streamed = other.streamed
        self.timeout_s = other.timeout_s
        self.identity_hash = other.identity_hash
        self.identity_start_bytes = other.identity_start_bytes
        return 0

    cdef BodySink hash_workload(self, KeyedHash identity_hash):
        cdef HashedBody hashed = HashedBody.__new__(HashedBody)
        self.identity_hash = identity_hash
        self.identity_start_bytes = identity_hash.hashed_bytes
        hashed.hash = identity_hash
        return hashed

    cdef bytes workload_identity(self):
        if not PyBytes_GET_SIZE(self.workload):
            return None
        if self.identity_hash.hashed_bytes == self.identity_start_bytes:
            # The workload came at once, or is the query.
            self.identity_hash.update(self.workload)
        return self.identity_hash.digest()

    # The request.

    cdef bint is_patient(self) noexcept:
        return False

    cdef double answer_within_s(self) noexcept:
        return self.timeout_s

    cdef int perform(self) except -1:
        raise NotImplementedError

    cdef int abandon(self) except -1:
        raise NotImplementedError

    cdef int fail(self) except -1:
        cdef Request request = self.request
        if request is not None and request.owner is not None and not request.answered():
            request.owner.answer_problem(request, INTERNAL_ERROR, None, None)
        return self.abandon()

    cdef int waited(self) except -1:
        raise NotImplementedError

    cdef int stream_ended(self) except -1:
        raise NotImplementedError

    cdef int close(self) except -1:
        raise NotImplementedError

    cdef int learn_ending(self, const Ending* ending, bytes headers) except -1:
        raise NotImplementedError

    cdef int drop_body(self) except -1:
        cdef Request request = self.request
        if request is not None and request.body_sink is not None:
            request.body_sink = None
            request.discards_body = True
            if request.owner is not None:
                request.owner.pause_body(False)
        return 0

    cdef int relay_answered(
        self, int status, const Ending* ending, bytes content_type, bytes headers, object body
    ) except -1:
        cdef Request request = self.request
        self.relayed = None
        self.drop_body()
        if request is not None:
            self.learn_ending(ending, headers)
            if request.owner is not None:
                request.owner.answer(
                    request, status, content_type, PyBytes_AS_STRING(headers), PyBytes_GET_SIZE(headers), body
                )
        return self.close()

    cdef bint relay_answers(
        self,
        int status,
        const Ending* ending,
        bytes content_type,
        bytes headers,
        long long body_bytes,
        BodySource source,
        bytes first,
    ) except -1:
        cdef Request request = self.request
        self.drop_body()
        if request is not None:
            self.learn_ending(ending, headers)
            if request.owner is not None:
                self.is_endless = body_bytes == UNKNOWN_BYTES
                self.in_pieces = request.owner.answer_in_pieces(
                    request,
                    status,
                    content_type,
                    PyBytes_AS_STRING(headers),
                    PyBytes_GET_SIZE(headers),
                    body_bytes,
                    source,
                    first,
                )
        if not self.in_pieces:
            self.relayed = None
            self.close()
        return self.in_pieces

    cdef bint relay_piece(self, const char* data, Py_ssize_t size) except -1:
        return self.request.owner.answer_piece(self.request, data, size)

    cdef int relay_ended(self) except -1:
        cdef Request request = self.request
        self.relayed = None
        if self.is_endless and request is not None and request.owner is not None:
            request.owner.end_pieces(request)
        return self.close()

    cdef int relay_paused(self, bint pause) except -1:
        if self.request is not None and self.request.owner is not None:
            self.request.owner.pause_body(pause)
        return 0

    cdef int relay_failed(self, object problem, str detail) except -1:
        cdef Request request = self.request
        self.relayed = None
        self.drop_body()
        if request is not None and request.owner is not None:
            if not self.in_pieces or request.owner.take_back(request):
                request.owner.answer_problem(request, problem, detail, None)
        return self.close()

    cdef int ended_with(self, Job job, int result, int status, bytes command, object body, int outcome) except -1:
        raise NotImplementedError

    cdef int ended_badly(self, Job job, int result, object problem, str detail, bytes command) except -1:
        raise NotImplementedError

    # What the job server says.

    cdef int job_completed(self, Job job, object result) except -1:
        return self.ended_with(job, Result.COMPLETE, 200, b"WORK_COMPLETE", result, OK)

    cdef int job_failed(self, Job job, bytes reason) except -1:
        cdef str detail = JOB_FAILED.detail
        if self.plugin_compat:
            return self.ended_with(job, Result.FAIL, 200, b"WORK_FAIL", b"", COMPAT_FAIL)
        if reason:
            detail += f": {printable(reason)}"
        return self.ended_badly(job, Result.FAIL, JOB_FAILED, detail, b"WORK_FAIL")

    cdef int job_exception(self, Job job, bytes data) except -1:
        if self.plugin_compat:
            return self.ended_with(job, Result.EXCEPTION, 200, b"WORK_EXCEPTION", b"", COMPAT_EXCEPTION)
        return self.ended_with(job, Result.EXCEPTION, 500, b"WORK_EXCEPTION", data, EXCEPTION)

    cdef int job_too_large(self, Job job) except -1:
        return self.ended_badly(
            job, Result.TOO_LARGE, RESULT_TOO_LARGE, NO_ROOM_FOR_RESULT if job.over_budget else None, None
        )

    cdef int job_refused(self, Job job, bytes code, bytes text) except -1:
        return self.ended_badly(
            job,
            Result.REFUSED,
            JOB_REFUSED,
            f"no job server has queued the job, the last one tried answered {printable(code)}: {printable(text)}",
            None,
        )

    cdef int job_timed_out(self, Job job) except -1:
        if job.reached == JobState.UNSENT:
            detail = f"no job server took the job within {self.timeout_s:g} s; {NOTHING_SUBMITTED}"
        elif job.background:
            detail = f"no confirmation within {self.timeout_s:g} s; whether the job was queued is not known"
        else:
            detail = f"no result within {self.timeout_s:g} s"
        return self.ended_badly(job, Result.TIMEOUT, JOB_TIMEOUT, detail, None)

    cdef int job_lost(self, Job job) except -1:
        if job.reached == JobState.UNSENT:
            return self.ended_badly(
                job, Result.UNSENT, NOT_SUBMITTED, f"nothing was submitted: {_reason(job)}", None
            )
        created = "had been created" if job.reached == JobState.CREATED else "may have been created"
        return self.ended_badly(
            job,
            Result.LOST,
            OUTCOME_UNKNOWN,
            f"{_reason(job)}; the job {created}, and whether it ran or will run is not known",
            None,
        )

    # The head of the answer.

    cdef char* put_headers(self, char* end, const char* handle, Py_ssize_t handle_bytes, bytes command):
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

    cdef char* put_headers_of(self, char* end, Job job, bytes command):
        if job is None or job.handle is None:
            return self.put_headers(end, NULL, 0, command)
        return self.put_headers(end, PyBytes_AS_STRING(job.handle), PyBytes_GET_SIZE(job.handle), command)

    cdef bytes headers_of(self, Job job, bytes command):
        cdef char[MAX_HEADERS_BYTES] headers
        return PyBytes_FromStringAndSize(headers, self.put_headers_of(headers, job, command) - headers)


cdef str _reason(Job job):
    """Why nothing more can be known of the job."""
    if job.carrier.close_reason is None:
        return "the job runs for a request that has gone, and what it had sent was not kept"
    return job.carrier.close_reason.encode("unicode_escape").decode("ascii")
