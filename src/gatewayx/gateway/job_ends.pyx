"""Which answer the end of a job is: one table, for whoever waits for the job.

Theory of operation. What a job server says of a job, or that it says nothing any more, comes as one of JobListener's ends. Each
has an answer, the same whether its client still waits for it on the connection that has asked (gateway/exchange) or comes back
for it later (gateway/kept_run).
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE

from gatewayx.core.digits cimport put, put_bytes
from gatewayx.core.metrics cimport Result
from gatewayx.gateway.job_request cimport JobRequest
from gatewayx.gateway.job_telling cimport HANDLE_NAME
from gatewayx.gearman.job cimport Job, JobState, printable

from gatewayx.http import outcomes
from gatewayx.http.problems import (
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


cdef class AnsweredJob(JobRequest):
    """A job whose end becomes an answer."""

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
            detail = f"no job server took the job within {self.timeout_s:g} s; nothing was submitted"
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
