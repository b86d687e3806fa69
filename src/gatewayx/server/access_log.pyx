"""The access log of a process: which requests have a line, and what it tells of them.

A request has a line once its answer has left, or is known never to come. Those with another outcome than "ok" always have
one, the others if their id is in the sample.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.string cimport memset
from posix.time cimport CLOCK_REALTIME, clock_gettime, timespec

from gatewayx.core.access_batch cimport AccessBatch
from gatewayx.core.access_line cimport AccessEntry, Slice, is_sampled, threshold_of
from gatewayx.core.counters cimport Counters
from gatewayx.http.records cimport RequestsLog
from gatewayx.http.request cimport ID_BYTES, Request, RequestNote
from gatewayx.http import outcomes

# In the order of Method (http/request).
cdef tuple METHODS = (b"GET", b"HEAD", b"POST", b"PUT", b"OPTIONS", b"DELETE", b"OTHER")
# A name that is "ok" in http/outcomes.
cdef bytes OK = b"ok"


cdef inline void tell(Slice* field, bytes text) noexcept:
    if text is not None:
        field.start = PyBytes_AS_STRING(text)
        field.size = PyBytes_GET_SIZE(text)


@cython.final
cdef class AccessLog(RequestsLog):
    """Makes a line of each request. counters: where it counts lines that are dropped."""

    def __init__(self, Counters counters not None):
        self.batch = AccessBatch(counters)
        self.outcomes = tuple([OK if name == "ok" else name.encode() for name, _ in outcomes.OUTCOMES])
        self.statuses = tuple([status for _, status in outcomes.OUTCOMES])
        self.samples = False

    def change(self, double sample, *, bint with_unique):
        """sample: the part of the requests with the outcome "ok" that have a line. with_unique: lines tell uniques."""
        self.samples = sample < 1
        self.threshold = threshold_of(sample)
        self.with_unique = with_unique

    cdef int tell(self, Request request, long long took_ns) except -1:
        cdef AccessEntry entry
        cdef RequestNote note = request.note
        cdef bytes outcome = <bytes> self.outcomes[request.outcome]
        cdef timespec now
        memset(&entry, 0, sizeof(AccessEntry))
        if request.proxy_note is None or request.proxy_note.name is None:
            entry.id.start = request.id
            entry.id.size = ID_BYTES
        else:
            tell(&entry.id, request.proxy_note.name)
        if self.samples and outcome is OK and not is_sampled(entry.id.start, entry.id.size, self.threshold):
            return 0
        clock_gettime(CLOCK_REALTIME, &now)
        entry.time_ns = now.tv_sec * 1_000_000_000 + now.tv_nsec
        tell(&entry.client_id, note.client_id)
        tell(&entry.trace, note.trace)
        tell(&entry.client, note.client)
        tell(&entry.token, note.token)
        tell(&entry.method, <bytes> METHODS[request.method])
        tell(&entry.path, note.path)
        tell(&entry.function, note.function)
        entry.status = <int> self.statuses[request.outcome]
        tell(&entry.outcome, outcome)
        entry.bytes_in = request.received_bytes
        entry.bytes_out = request.sent_bytes
        entry.duration_ns = took_ns
        entry.job_ns = request.job_ns
        tell(&entry.server, note.server)
        tell(&entry.handle, note.handle)
        if self.with_unique:
            tell(&entry.unique, note.unique)
        entry.connection = note.connection
        entry.request = note.number
        return self.batch.add(&entry)
