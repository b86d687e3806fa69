"""How often each of many keys may have something: GCRA, in a table that processes share."""

from libc.stdint cimport uint64_t

from gatewayx.core.counters cimport Counters, Counts

cdef enum:
    RATE_ENTRIES = 65536
    # A key has its entry among so many, whose keys fill one cache line and whose times the next one.
    WAYS = 8
    # The lowest bits of a time: some of the key whose it is. Above them are nanoseconds, for nine years of a machine's uptime.
    TAG_BITS = 6


cdef struct Rate:
    # One each so many nanoseconds on average; 0 for any number.
    long long interval_ns
    # What it takes until all of the burst can be had again: burst times interval_ns.
    long long capacity_ns


cdef struct RateSet:
    # 0 for nobody.
    uint64_t[WAYS] keys
    # Each the time at which all of the burst can be had again (TAT), and the key's tag.
    uint64_t[WAYS] times


cdef class Rates:
    # Keeps the memory alive.
    cdef Py_buffer view
    cdef RateSet* sets
    # Where it is counted when an entry is forgiven; keeps the row alive to which `counts` points.
    cdef Counters counted_in
    cdef Counts* counts

    # Take one at this time, by now_ns(). Returns 0, or how many nanoseconds later one can be had, and then nothing was taken. debt_ns:
    # how long it takes from now until all of the burst can be had again; NULL if nobody wants to know.
    cdef long long take(self, uint64_t key, const Rate* rate, long long now_ns, long long* debt_ns) noexcept
    # What take() would return.
    cdef long long wait_ns(self, uint64_t key, const Rate* rate, long long now_ns) noexcept
    # Give back one that was taken; returns debt_ns as of take().
    cdef long long give_back(self, uint64_t key, const Rate* rate, long long now_ns) noexcept
    cdef uint64_t* _time_of(self, uint64_t key, uint64_t* found) noexcept
    cdef uint64_t* _claim(self, uint64_t key, long long now_ns, uint64_t* found) noexcept


cdef enum RateKind:
    # What a key is of: an address that asks, one that connects, or one that gives tokens which are not known; a token; a function; a job
    # server that is asked for background jobs.
    OF_ADDRESS = 1
    OF_CONNECTIONS
    OF_ATTEMPTS
    OF_TOKEN
    OF_FUNCTION
    OF_STATUS_POLLS


cdef inline Rate rate_of(double per_s, long long burst) noexcept:
    """So many a second on average, and so many at once; 0 a second for any number."""
    cdef Rate rate
    rate.interval_ns = max(<long long> (1e9 / per_s + 0.5), 1) if per_s > 0 else 0
    rate.capacity_ns = rate.interval_ns * burst
    return rate


cdef inline uint64_t rate_key(RateKind kind, uint64_t hashed) noexcept:
    """The key of what has this hash (core/shared), apart from that of the same thing in another kind; never 0."""
    cdef uint64_t key = hashed ^ <uint64_t> kind * <uint64_t> 0x9E3779B97F4A7C15
    return key if key else 1


cdef inline long long left_of(const Rate* rate, long long debt_ns) noexcept:
    """How many can be had at once."""
    return (rate.capacity_ns - debt_ns) // rate.interval_ns
