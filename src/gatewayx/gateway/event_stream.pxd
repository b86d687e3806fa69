"""The events of a kept job as an answer that comes as they happen."""

from gatewayx.core.counters cimport Counts
from gatewayx.core.deadlines cimport DeadlineWheel
from gatewayx.gateway.kept_job cimport KeptJob
from gatewayx.gateway.owners cimport Asked
from gatewayx.gateway.watching cimport Watcher
from gatewayx.http.request cimport Request

cdef enum:
    # Between two comments, which keep proxies from taking a quiet stream for a dead one.
    COMMENT_S = 15


cdef class EventStream(Watcher):
    cdef Request request
    # The request's context, which is told when the stream is over.
    cdef Asked asked
    cdef Counts* counts
    # The number of the next event that its client is to get.
    cdef long long next
    # The client takes what is given.
    cdef bint is_wanted


# Answer the request with the events of a job behind this number, 0 for all: text/event-stream, or 204 once there are none any
# more. headers: further header lines, each with its CRLF. Returns the stream, None once the request is answered whole.
# A stream that is over tells asked.stream_ended().
cdef EventStream begin_stream(
    Asked asked, Request request, KeptJob job, long long after, bytes headers, DeadlineWheel wheel, Counts* counts
)
