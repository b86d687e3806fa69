"""What is told of requests and jobs by function: counts and durations in memory that the processes of a gateway share.

Each process counts in the row of its place alone, and one that takes the place of another goes on there: no count ever
falls. Whoever reads adds the rows up. Names of functions come from strangers, so only names that an operator has given, or
for which there are workers, get a place, and they never lose it; all others are counted together. Any process may give a place: it
takes one by compare-and-swap, writes the name, and tells of it last. Where one is killed between, the place stays empty. Two
that give the same name a place at once make two of it, which whoever reads adds up.
"""

import itertools
import mmap

cimport cython
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport uint64_t
from libc.string cimport memcpy, memset

cdef extern from *:
    """
    #include <stdint.h>
    static inline uint64_t metrics_load(const uint64_t *word) { return __atomic_load_n(word, __ATOMIC_ACQUIRE); }
    static inline void metrics_store(uint64_t *word, uint64_t value) { __atomic_store_n(word, value, __ATOMIC_RELEASE); }
    static inline void metrics_add(uint64_t *word) { __atomic_add_fetch(word, 1, __ATOMIC_ACQ_REL); }
    static inline int metrics_swap(uint64_t *word, uint64_t expected, uint64_t wanted) {
        return __atomic_compare_exchange_n(word, &expected, wanted, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
    }
    """
    uint64_t metrics_load(const uint64_t* word) noexcept nogil
    void metrics_store(uint64_t* word, uint64_t value) noexcept nogil
    void metrics_add(uint64_t* word) noexcept nogil
    bint metrics_swap(uint64_t* word, uint64_t expected, uint64_t wanted) noexcept nogil

# Upper bounds of all buckets but the last, which has none, in seconds.
BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
# By Result.
RESULTS = (
    "complete",
    "fail",
    "exception",
    "queued",
    "lost",
    "timeout",
    "refused",
    "too-large",
    "unsent",
    "abandoned",
)
# By http/request's Method.
METHODS = ("GET", "HEAD", "POST", "PUT", "OPTIONS", "DELETE", "_other")
# In the place of names that have none.
OTHER_NAME = b"_other"

cdef int _fill_buckets() except -1:
    # In a module's own lines Cython takes a reference too many from what a comprehension's variable was.
    cdef list bounds_ns = [round(bound_s * 1e9) for bound_s in BOUNDS_S]
    cdef int index
    for index in range(BUCKETS - 1):
        BOUNDS_NS[index] = <long long> bounds_ns[index]
    BOUNDS_NS[BUCKETS - 1] = 2**63 - 1
    for index in range(64):
        FIRST_BUCKETS[index] = len([bound_ns for bound_ns in bounds_ns if bound_ns < 2**index])
    return 0


_fill_buckets()


cdef Py_ssize_t _names_bytes(int most) noexcept:
    return 2 * sizeof(uint64_t) + most * sizeof(Name)


def metrics_bytes(int places):
    """What the memory of so many places takes; what is never counted in it takes no memory."""
    cdef Py_ssize_t names_bytes = _names_bytes(MOST_FUNCTIONS) + _names_bytes(MOST_SERVERS) + _names_bytes(MOST_TOKENS)
    return names_bytes + places * sizeof(MetricsRow)


def bucket_of(long long took_ns):
    """Which bucket something counts in that took so long; from 0 on, one for each of BOUNDS_S and the rest."""
    return bucket_for(took_ns)


def alone():
    """The metrics of a process that shares them with nobody."""
    # What is never counted in takes no memory so.
    return Metrics(mmap.mmap(-1, metrics_bytes(1)), 1, 0)


# The collector would drop the memory without releasing it; Metrics are in no cycle of their own.
@cython.final
@cython.no_gc_clear
cdef class Metrics:
    """What the processes of a gateway have counted.

    memory: a writable buffer with metrics_bytes() bytes from `offset` on, zeros at first, aligned to 8 bytes. place: in
    whose row this process counts. Raises BufferError or ValueError if the memory cannot be it.
    """

    def __init__(self, memory, int places, int place, Py_ssize_t offset=0):
        cdef char* start
        if self.rows != NULL:
            raise ValueError("the memory is known already")
        PyObject_GetBuffer(memory, &self.view, PyBUF_WRITABLE)
        if offset < 0 or self.view.len - offset < <Py_ssize_t> metrics_bytes(places):
            raise ValueError("the memory is too small")
        if not 0 <= place < places:
            raise ValueError(f"there is no place {place} among {places}")
        start = <char*> self.view.buf + offset
        self.functions = _names(memory, start, MOST_FUNCTIONS)
        start += _names_bytes(MOST_FUNCTIONS)
        self.servers = _names(memory, start, MOST_SERVERS)
        start += _names_bytes(MOST_SERVERS)
        self.tokens = _names(memory, start, MOST_TOKENS)
        start += _names_bytes(MOST_TOKENS)
        self.places = places
        self.rows = <MetricsRow*> start
        self.own = &self.rows[place]

    def __dealloc__(self):
        PyBuffer_Release(&self.view)

    def requests(self):
        """How many requests have ended: (method, outcome as an index of http/outcomes, place of the function, count).

        All that are not 0, of all processes together.
        """
        cdef dict found = {}
        cdef uint64_t count
        cdef int index, method, outcome, place
        for index, function in enumerate(self.functions._first_places()):
            for method in range(METHOD_PLACES):
                for outcome in range(OUTCOME_PLACES):
                    count = 0
                    for place in range(self.places):
                        count += self.rows[place].requests[index][method][outcome]
                    if count:
                        key = (METHODS[method], outcome, function)
                        found[key] = found.get(key, 0) + count
        return [(*key, count) for key, count in found.items()]

    def jobs(self):
        """How many jobs have ended: (place of the function, place of the job server, one of RESULTS, count)."""
        cdef dict found = {}
        cdef uint64_t count
        cdef int index, server_index, result, place
        cdef list servers = self.servers._first_places()
        for index, function in enumerate(self.functions._first_places()):
            for server_index, server in enumerate(servers):
                for result in range(RESULT_PLACES):
                    count = 0
                    for place in range(self.places):
                        count += self.rows[place].jobs[index][server_index][result]
                    if count:
                        key = (function, server, RESULTS[result])
                        found[key] = found.get(key, 0) + count
        return [(*key, count) for key, count in found.items()]

    def token_requests(self):
        """How many requests with a token have ended: (place of the token, outcome by http/outcomes, count)."""
        cdef dict found = {}
        cdef uint64_t count
        cdef int index, outcome, place
        for index, token in enumerate(self.tokens._first_places()):
            for outcome in range(OUTCOME_PLACES):
                count = 0
                for place in range(self.places):
                    count += self.rows[place].token_requests[index][outcome]
                if count:
                    found[(token, outcome)] = found.get((token, outcome), 0) + count
        return [(*key, count) for key, count in found.items()]

    def token_jobs(self, int place):
        """How many jobs are in flight with the tokens at this place."""
        cdef uint64_t count = 0
        cdef int row
        if not 0 <= place < TOKEN_PLACES:
            raise ValueError(f"there is no place {place}")
        for row in range(self.places):
            count += self.rows[row].token_jobs[place]
        return count

    def forget_jobs(self, int row):
        """The process that counts in this row has ended, and its jobs with it."""
        if not 0 <= row < self.places:
            raise ValueError(f"there is no row {row}")
        memset(self.rows[row].token_jobs, 0, sizeof(self.rows[row].token_jobs))

    def durations(self):
        """How long requests took: (place of the function, how many by BOUNDS_S and in all, seconds together).

        Of each bound it is the number of those that took no longer. A function without a place of its own is at the first.
        """
        return self._durations(False)

    def job_durations(self):
        """The same of the jobs of requests."""
        return self._durations(True)

    def _durations(self, bint of_jobs):
        cdef dict found = {}
        cdef Durations* durations
        cdef int index, bucket, place
        for index, function in enumerate(self.functions._first_places()):
            counts, sum_ns = found.get(function, ([0] * BUCKETS, 0))
            for place in range(self.places):
                durations = &self.rows[place].jobs_took[index] if of_jobs else &self.rows[place].requests_took[index]
                sum_ns += durations.sum_ns
                for bucket in range(BUCKETS):
                    counts[bucket] += durations.counts[bucket]
            found[function] = (counts, sum_ns)
        return [
            (function, tuple(itertools.accumulate(counts)), sum_ns / 1e9) for function, (counts, sum_ns) in found.items()
        ]


@cython.final
cdef class Names:
    """The names that are told apart, by place; the .pxd says what each method does."""

    def names(self):
        """All names by place, from OTHER_NAME on; None for a place that has none."""
        cdef Name* name
        cdef uint64_t index, size
        found = [OTHER_NAME]
        for index in range(metrics_load(self.taken)):
            name = &self.texts[index]
            size = metrics_load(&name.size)
            found.append(name.text[:size] if size else None)
        return found

    cpdef int claim(self, bytes name) except -1:
        cdef Py_ssize_t size = len(name)
        cdef uint64_t taken
        cdef int place = self.place_of(name)
        while place == OTHER and 0 < size <= MOST_NAME_BYTES and name != OTHER_NAME:
            taken = metrics_load(self.taken)
            if taken >= <uint64_t> self.most:
                return OTHER
            if metrics_swap(self.taken, taken, taken + 1):
                memcpy(self.texts[taken].text, PyBytes_AS_STRING(name), size)
                metrics_store(&self.texts[taken].size, size)
                metrics_add(self.changes)
                return self.place_of(name)
        return place

    def find(self, bytes name not None):
        """The place of a name; 0 if it has none."""
        return self.place_of(name)

    cdef int place_of(self, bytes name) except -1:
        if self.known_changes != metrics_load(self.changes):
            self._learn()
        found = self.known.get(name)
        return OTHER if found is None else <int> found

    cdef bytes name_at(self, int place):
        cdef Name* name = &self.texts[place - 1]
        return None if place == OTHER else name.text[: name.size] or None

    cdef int _learn(self) except -1:
        # One that comes meanwhile is learned with the next question.
        self.known_changes = metrics_load(self.changes)
        self.known = {}
        for place, name in enumerate(self.names()):
            if place and name is not None:
                self.known.setdefault(name, place)
        return 0

    cdef list _first_places(self):
        self._learn()
        return [self.known.get(name, OTHER) for name in self.names()]


cdef Names _names(memory, char* start, int most):
    cdef Names names = Names.__new__(Names)
    names.memory = memory
    names.taken = <uint64_t*> start
    names.changes = names.taken + 1
    names.texts = <Name*> (names.changes + 1)
    names.most = most
    names.known = {}
    return names
