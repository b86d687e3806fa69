"""The events of a kept job as an answer that comes as they happen.

Theory of operation. A stream has a number, that of the next event its client is to get, and nothing else of its own: the events
are the job's (gateway/events), one encoding for all who listen. What its client does not take it is not given, so nothing gathers
for it here; once the log has let go of an event that it still waits for, it ends, unfinished, while the job goes on. Who has lost
a stream comes again with the id of the last event, and is told of a gap if some are gone.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

from gatewayx.core.counters cimport Counts
from gatewayx.core.deadlines cimport DeadlineWheel
from gatewayx.gateway.events cimport EventLog
from gatewayx.gateway.kept_job cimport KeptJob
from gatewayx.gateway.job_request cimport JobRequest
from gatewayx.gateway.watching cimport Watcher
from gatewayx.http.request cimport METHOD_HEAD, UNKNOWN_BYTES, Request

from gatewayx.core.jitter import random_part
from gatewayx.http import outcomes

cdef bytes CONTENT_TYPE = b"text/event-stream"
# nginx gathers what comes from behind it unless it is told not to (ngx_http_proxy_module, proxy_buffering).
cdef bytes UNBUFFERED_LINE = b"X-Accel-Buffering: no\r\n"
cdef bytes COMMENT = b":\n\n"
cdef bytes NO_EVENT = b""


@cython.final
cdef class EventStream(Watcher):
    """The events of one job, for one client."""

    cdef int _begin(self) except -1:
        """Answer with the head and what is due; the first line shows its client, and who stands before it, that it has begun."""
        cdef bytes first
        self.next = self.begun_with
        first = b"retry: %d\n\n" % (FIRST_RETRY_MS + int(random_part(LAST_RETRY_MS - FIRST_RETRY_MS))) + self._due()
        self.is_wanted = False
        self.next = (<KeptJob> self.watched).events.next
        self.wake(self.wheel, COMMENT_S)
        self.request.owner.answer_in_pieces(
            self.request,
            200,
            CONTENT_TYPE,
            PyBytes_AS_STRING(self.headers),
            PyBytes_GET_SIZE(self.headers),
            UNKNOWN_BYTES,
            self,
            first,
        )
        return 0

    cdef bytes _due(self):
        """What its client is to get of what has happened; no bytes for nothing."""
        cdef EventLog events = (<KeptJob> self.watched).events
        cdef long long oldest = events.oldest()
        if self.next >= events.next:
            return NO_EVENT
        if self.next >= oldest:
            return events.events_from(self.next)
        if oldest == events.next:
            return events.gap(self.next)
        return events.gap(self.next) + events.events_from(oldest)

    cdef int failed(self) except -1:
        return 0 if self.watched is None else self._cut()

    cdef int changed(self) except -1:
        cdef EventLog events = (<KeptJob> self.watched).events
        if self.is_wanted:
            return self._give_due()
        # What its client has not taken yet is kept no more, or will not be.
        return self._cut() if self.next < events.first else 0

    cdef int _cut(self) except -1:
        """The rest of the answer never comes, unless nothing of it has left: then it may begin with something else."""
        cdef Request request = self.request
        if request.owner is not None:
            if request.owner.take_back(request):
                return self._begin()
            self.counts.event_streams_cut += 1
        return self._end()

    cdef int wanted(self) except -1:
        self.is_wanted = True
        return self._give_due()

    cdef int _give_due(self) except -1:
        cdef KeptJob job = <KeptJob> self.watched
        cdef Request request = self.request
        cdef bytes due
        if self.next < job.events.next:
            due = self._due()
            self.next = job.events.next
            self._give(due)
        if self.watched is not None and job.has_ended() and self.next >= job.events.next:
            # The last event is in the connection's hands, which ends the answer behind it.
            request.owner.end_pieces(request)
            return self._end()
        return 0

    cdef int _give(self, bytes piece) except -1:
        # Who is told that its client is gone leaves the request meanwhile.
        cdef Request request = self.request
        self.wake(self.wheel, COMMENT_S)
        self.is_wanted = request.owner.answer_piece(request, PyBytes_AS_STRING(piece), PyBytes_GET_SIZE(piece))
        return 0

    cdef int time_is_up(self) except -1:
        if self.is_wanted:
            return self._give(COMMENT)
        return self.wake(self.wheel, COMMENT_S)

    cdef int leave(self) except -1:
        self.is_wanted = False
        self.request = None
        self.asked = None
        return Watcher.leave(self)

    cdef int _end(self) except -1:
        cdef JobRequest asked = self.asked
        if self.watched is None:
            # Whoever was told of it before has left it.
            return 0
        self.leave()
        return asked.stream_ended()


cdef EventStream begin_stream(
    JobRequest asked, Request request, KeptJob job, long long after, bytes headers, DeadlineWheel wheel, Counts* counts
):
    cdef EventStream stream = EventStream.__new__(EventStream)
    cdef bytes due
    stream.request = request
    stream.asked = asked
    stream.counts = counts
    stream.headers = headers + UNBUFFERED_LINE
    stream.wheel = wheel
    # Whoever has had more than has happened was told by somebody else: only what is new is for it.
    stream.begun_with = min(after + 1, job.events.next)
    stream.next = stream.begun_with
    stream.watched = job
    due = stream._due()
    stream.watched = None
    if job.has_ended():
        if not due:
            request.outcome = <int> outcomes.NO_CONTENT
            request.owner.answer(request, 204, None, PyBytes_AS_STRING(headers), PyBytes_GET_SIZE(headers), None)
            return None
        counts.event_streams += 1
        request.owner.answer(
            request, 200, CONTENT_TYPE, PyBytes_AS_STRING(stream.headers), PyBytes_GET_SIZE(stream.headers), due
        )
        return None
    if request.method == METHOD_HEAD:
        request.owner.answer_in_pieces(
            request,
            200,
            CONTENT_TYPE,
            PyBytes_AS_STRING(stream.headers),
            PyBytes_GET_SIZE(stream.headers),
            UNKNOWN_BYTES,
            stream,
            None,
        )
        return None
    counts.event_streams += 1
    stream.watch(job)
    stream._begin()
    return stream
