"""What is told of requests and jobs by function: counts and durations in memory that the processes of a gateway share."""

from libc.stdint cimport uint64_t

cdef enum:
    # Names of functions, of job servers, and of tokens, that are told apart; a further one stands for all others, at place 0.
    MOST_FUNCTIONS = 100
    MOST_SERVERS = 128
    MOST_TOKENS = 128
    FUNCTION_PLACES = 101
    SERVER_PLACES = 129
    TOKEN_PLACES = 129
    OTHER = 0
    # A longer name is one of the others.
    MOST_NAME_BYTES = 512
    # Methods as http/request has them, and outcomes as http/outcomes has them, with room for more.
    METHOD_PLACES = 7
    OUTCOME_PLACES = 128
    BUCKETS = 16
    RESULT_PLACES = 10


# How a job's part in a request ended; an index of RESULTS.
cdef enum Result:
    COMPLETE
    FAIL
    EXCEPTION
    # A background job was accepted.
    QUEUED
    LOST
    TIMEOUT
    REFUSED
    TOO_LARGE
    # It reached no job server.
    UNSENT
    # Its client is gone.
    ABANDONED


# How long something took: how often by bucket, none counted in another, and all of it together.
cdef struct Durations:
    uint64_t[BUCKETS] counts
    uint64_t sum_ns


# What one process counts.
cdef struct MetricsRow:
    uint64_t[FUNCTION_PLACES][METHOD_PLACES][OUTCOME_PLACES] requests
    Durations[FUNCTION_PLACES] requests_took
    Durations[FUNCTION_PLACES] jobs_took
    uint64_t[FUNCTION_PLACES][SERVER_PLACES][RESULT_PLACES] jobs
    uint64_t[TOKEN_PLACES][OUTCOME_PLACES] token_requests
    # In flight now.
    uint64_t[TOKEN_PLACES] token_jobs


cdef struct Name:
    uint64_t size
    char[MOST_NAME_BYTES] text


cdef extern from *:
    int leading_zeros "__builtin_clzll"(unsigned long long number) noexcept nogil


# Upper bounds of the buckets, the last of them never reached; and by the place of a duration's first binary digit the
# bucket of the shortest one that has it there.
cdef long long[BUCKETS] BOUNDS_NS
cdef int[64] FIRST_BUCKETS


cdef inline int bucket_for(long long took_ns) noexcept:
    """Which bucket it counts in: no two bounds have as many binary digits, so that one of them is left to compare with."""
    cdef int bucket = 0 if took_ns <= 0 else FIRST_BUCKETS[63 - leading_zeros(took_ns)]
    return bucket + (took_ns > BOUNDS_NS[bucket])


cdef inline void add_duration(Durations* durations, long long took_ns) noexcept:
    durations.counts[bucket_for(took_ns)] += 1
    durations.sum_ns += took_ns


cdef inline void count_job(MetricsRow* row, int function, int server, int result, long long took_ns) noexcept:
    row.jobs[function][server][result] += 1
    add_duration(&row.jobs_took[function], took_ns)


cdef class Names:
    # Keeps the memory alive.
    cdef object memory
    # In that memory: how many places are taken beside OTHER, how often a name became known, and the names.
    cdef uint64_t* taken
    cdef uint64_t* changes
    cdef Name* texts
    cdef int most
    # Those that this process knows, each with its place, and how many changes it knows.
    cdef dict known
    cdef uint64_t known_changes

    # The place of a name; OTHER if it has none.
    cdef int place_of(self, bytes name) except -1
    # The same, once it was given a place if it had none and one is left.
    cpdef int claim(self, bytes name) except -1
    # The name at a place; None for none.
    cdef bytes name_at(self, int place)
    cdef int _learn(self) except -1
    # By place: the first place with the same name, or OTHER while the place has none.
    cdef list _first_places(self)

    # What changes when a name has got a place.
    cdef inline uint64_t version(self) noexcept:
        return self.changes[0]


cdef class Metrics:
    cdef Py_buffer view
    cdef readonly Names functions
    cdef readonly Names servers
    cdef readonly Names tokens
    cdef readonly int places
    cdef MetricsRow* rows
    # This process's; it stays where it is as long as this object does.
    cdef MetricsRow* own
