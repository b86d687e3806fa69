"""The events of a kept job as an answer that comes as they happen."""

from gatewayx.core.counters cimport Counts
from gatewayx.core.deadlines cimport DeadlineWheel
from gatewayx.gateway.kept_job cimport KeptJob
from gatewayx.gateway.job_request cimport JobRequest
from gatewayx.gateway.watching cimport Watcher
from gatewayx.http.request cimport Request

cdef enum:
    # Between two comments, which keep proxies from taking a quiet stream for a dead one.
    COMMENT_S = 15
    # After how long a browser that was cut off asks again, at least and at most: all are cut off at once when a gateway stops.
    FIRST_RETRY_MS = 1000
    LAST_RETRY_MS = 4000


cdef class EventStream(Watcher):
    cdef Request request
    # The request's context, which is told when the stream is over.
    cdef JobRequest asked
    cdef Counts* counts
    # Header lines of its answer, each with its CRLF.
    cdef bytes headers
    # The number of the event that it began with, and of the next one that its client is to get.
    cdef long long begun_with
    cdef long long next
    # The client takes what is given.
    cdef bint is_wanted

    cdef int _begin(self) except -1
    cdef bytes _due(self)
    cdef int _give(self, bytes piece) except -1
    cdef int _give_due(self) except -1
    cdef int _cut(self) except -1
    cdef int _end(self) except -1


# Answer the request with the events of a job behind this number, 0 for all: text/event-stream, or 204 once there are none any
# more. headers: further header lines, each with its CRLF. Returns the stream, None once the request is answered whole.
# A stream that is over tells asked.stream_ended(); it is left by asked when no answer is wanted any more.
cdef EventStream begin_stream(
    JobRequest asked, Request request, KeptJob job, long long after, bytes headers, DeadlineWheel wheel, Counts* counts
)
