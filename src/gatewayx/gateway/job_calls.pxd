"""Calls about jobs that outlive their requests: /v1/jobs/<id> and what is below it."""

from gatewayx.gateway.background_jobs cimport BackgroundCall
from gatewayx.gateway.common cimport Common
from gatewayx.gateway.event_stream cimport EventStream
from gatewayx.gateway.job_ids cimport BackgroundId
from gatewayx.gateway.kept_job cimport KeptJob
from gatewayx.gateway.job_request cimport JobRequest
from gatewayx.gateway.watching cimport Wait
from gatewayx.http.request cimport Request

cdef enum:
    # A job is waited for so long at most, in seconds.
    MOST_WAIT_S = 60

cdef enum CallKind:
    # GET /v1/jobs/<id>, and of its result and events; POST of its cancellation; DELETE of the job.
    STATE
    RESULT
    EVENTS
    CANCEL
    FORGET


cdef class JobCall(JobRequest):
    cdef Common gateway
    cdef CallKind kind
    # The id as it was sent, percent-decoded: any bytes.
    cdef bytes id
    # How long the end is waited for; 0 for not at all.
    cdef double wait_s
    # Its Last-Event-ID and If-None-Match; None without one.
    cdef bytes event_id
    cdef bytes tags
    # It was made of a submission that asks for events and names the last one it has: it submits nothing, and where the job is not known
    # its client is told to ask no more.
    cdef bint resumes
    # The job while it is waited for, or its events are the answer; None otherwise.
    cdef KeptJob kept
    cdef Wait wait
    cdef EventStream stream
    # The same for a background job.
    cdef BackgroundCall background

    cdef int _serve(self, KeptJob kept) except -1
    cdef int _relay(self, int place) except -1
    cdef int _begin_stream(self, KeptJob kept) except -1
    cdef int _serve_background(self, BackgroundId found) except -1
    cdef int _answer(self, KeptJob kept) except -1
    cdef int _wait(self, KeptJob kept) except -1
    cdef int _cancel(self, KeptJob kept) except -1
    cdef int _answer_cancelled(self, KeptJob kept) except -1
    cdef int _answer_nothing(self) except -1
    cdef int _answer_problem(self, object problem, str detail) except -1
    cdef int _unknown(self, str detail) except -1


# Whether it is a path of calls, and no function's.
cdef bint is_call(bytes path) noexcept
# Whether it is that of batches.
cdef bint is_batch(bytes path) noexcept
# The header line that names the methods that are served there; raises RequestError where nothing is.
cdef bytes allow_line(bytes path)
# What the request asks for, as the head says; raises RequestError.
cdef JobCall read_call(Common gateway, Request request)
# The call that a submission is which names the last event that it has.
cdef JobCall read_resumption(Common gateway, Request request, bytes event_id)
