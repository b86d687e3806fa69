"""Every count of a process, in a C struct: on the heap, or in a row of shared memory.

Whoever counts adds to a field of `row`, which costs what a field of its own would. A count never falls.
"""

cimport cython
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdlib cimport calloc, free

# The fields of Counts, in their order.
NAMES = (
    "connections_accepted",
    "connections_refused",
    "connections_unserved",
    "connections_evicted",
    "writes_timed_out",
    "requests_answered",
    "requests_refused",
    "requests_abandoned",
    "requests_relayed",
    "refusals_delayed",
    "arrivals_ended",
    "answers_ended",
    "answers_cut",
    "budget_refused",
    "admission_refused",
    "moved_jobs",
    "dropped_packets",
    "cancels_requested",
    "cancels_left_out",
    "log_lines_dropped",
    "log_events_dropped",
    "rates_forgiven",
    "kept_begun",
    "kept_succeeded",
    "kept_failed",
    "kept_cancelled",
    "kept_lost",
    "kept_timed_out",
    "kept_results_dropped",
    "keys_begun",
    "keys_replayed",
    "keys_joined",
    "keys_reused",
    "batches",
    "batch_jobs",
    "event_streams",
    "event_streams_cut",
    "status_polls",
    "status_polls_refused",
    "tls_full",
    "tls_resumed",
    "tls_failed",
    "tls_left",
    "proxies_untrusted",
    "proxy_headers_refused",
)
# What a row takes.
ROW_BYTES = sizeof(Counts)


# The collector would drop the memory without releasing it, while others still count; Counters are in no cycle of their own.
@cython.final
@cython.no_gc_clear
cdef class Counters:
    """The counts of one process.

    memory: a writable buffer of at least ROW_BYTES bytes, whose counts go on from where they are, such as a row of shared
    memory; None for memory of its own that begins with zeros. offset: where the row begins in it. Raises BufferError or
    ValueError if it cannot be one.
    """

    def __init__(self, memory=None, Py_ssize_t offset=0):
        if self.row != NULL:
            raise ValueError("the counters have their row already")
        if memory is None:
            self.row = <Counts*> calloc(1, sizeof(Counts))
            if self.row == NULL:
                raise MemoryError
            self.owned = True
            return
        PyObject_GetBuffer(memory, &self.view, PyBUF_WRITABLE)
        if offset < 0 or self.view.len - offset < <Py_ssize_t> sizeof(Counts):
            raise ValueError(f"a row of counters takes {ROW_BYTES} bytes")
        self.row = <Counts*> (<char*> self.view.buf + offset)

    def __dealloc__(self):
        if self.owned:
            free(self.row)
        else:
            # Nothing happens if there is no memory, or the garbage collector has let it go already.
            PyBuffer_Release(&self.view)

    def read(self):
        """All counts by name, as they are now."""
        cdef unsigned long long* counts = <unsigned long long*> self.row
        cdef Py_ssize_t index
        return {name: counts[index] for index, name in enumerate(NAMES)}

    def add(self, str name, unsigned long long count):
        """Add to a count by its name, for what is not counted on the way of a request. Raises ValueError."""
        (<unsigned long long*> self.row)[NAMES.index(name)] += count
