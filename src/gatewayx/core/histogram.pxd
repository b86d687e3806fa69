"""A log-linear histogram of times: equal parts of each power of two, so that every value has the same relative error."""

cdef enum:
    # Equal parts of each power of two: a value is told from its neighbour if they differ by 1/128, and a part's middle
    # is at most 1/256 (0.39 %) from any value in it.
    PARTS = 128
    PART_BITS = 7
    # 2**9 ns is the power of two below 1 microsecond, 2**42 ns the one above 1 hour.
    LOWEST_EXPONENT = 9
    HIGHEST_EXPONENT = 41
    BUCKETS = (HIGHEST_EXPONENT - LOWEST_EXPONENT + 1) * PARTS

cdef long long LOWEST_NS
cdef long long HIGHEST_NS


cdef int bucket_of(long long value_ns) noexcept nogil


cdef class Histogram:
    # How often a value fell into each bucket.
    cdef long long counts[BUCKETS]
    # Of all values together.
    cdef readonly long long count
    # Exact, of the values as recorded; 0 while there are none.
    cdef long long lowest_ns
    cdef long long highest_ns
    cdef double sum_ns

    cpdef clear(self)
    cdef void record_ns(self, long long value_ns) noexcept nogil
    cdef void record_many_ns(self, long long value_ns, long long times) noexcept nogil
    cdef _widen(self, long long count, long long lowest_ns, long long highest_ns, double sum_ns)
    cdef long long _value_at_rank_ns(self, long long rank) noexcept
