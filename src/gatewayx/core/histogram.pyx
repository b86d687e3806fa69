# The functions without the GIL cannot raise.
# cython: nonecheck=False
"""A log-linear histogram of times: equal parts of each power of two, so that every value has the same relative error.

The form is HdrHistogram's (Gil Tene, github.com/HdrHistogram): constant memory, constant time to record, and merging
is adding. From 1 microsecond to 1 hour each value is told with an error of at most 0.4 %; what lies outside counts as
the nearest of the two. Count, lowest, highest and mean are exact.
"""

from operator import index

cimport cython
from libc.float cimport DBL_MAX
from libc.math cimport ceil, sqrt
from libc.string cimport memset

cdef extern from *:
    int __builtin_clzll(unsigned long long) nogil

cdef long long LOWEST_NS = 1_000
cdef long long HIGHEST_NS = 3_600_000_000_000

# 285 years: as nanoseconds it fits a long long.
cdef double LONGEST_S = 9e9

# Steps of the text export between one halving of what is left to 100 % and the next, as in HdrHistogram.
TICKS_PER_HALF_DISTANCE = 5


cdef int bucket_of(long long value_ns) noexcept nogil:
    """The number of the bucket that counts a value."""
    cdef int exponent
    if value_ns < LOWEST_NS:
        value_ns = LOWEST_NS
    elif value_ns > HIGHEST_NS:
        value_ns = HIGHEST_NS
    exponent = 63 - __builtin_clzll(<unsigned long long> value_ns)
    return (exponent - LOWEST_EXPONENT) * PARTS + <int> ((value_ns >> (exponent - PART_BITS)) & (PARTS - 1))


cdef long long _middle_ns(int bucket) noexcept nogil:
    cdef int shift = bucket // PARTS + LOWEST_EXPONENT - PART_BITS
    cdef long long part = PARTS + bucket % PARTS
    return (part << shift) + ((<long long> 1 << shift) >> 1)


@cython.final
cdef class Histogram:
    """Counts times by bucket. 35 KB, whatever is recorded."""

    def __cinit__(self):
        self.clear()

    cpdef clear(self):
        """Forget every value."""
        memset(self.counts, 0, sizeof(self.counts))
        self.count = 0
        self.lowest_ns = 0
        self.highest_ns = 0
        self.sum_ns = 0

    cdef void record_ns(self, long long value_ns) noexcept nogil:
        """Count a time in nanoseconds; one below 0 counts as 0."""
        self.record_many_ns(value_ns, 1)

    cdef void record_many_ns(self, long long value_ns, long long times) noexcept nogil:
        """Count the same time so often, 1 or more."""
        if value_ns < 0:
            value_ns = 0
        self.counts[bucket_of(value_ns)] += times
        if self.count == 0 or value_ns < self.lowest_ns:
            self.lowest_ns = value_ns
        if value_ns > self.highest_ns:
            self.highest_ns = value_ns
        self.count += times
        self.sum_ns += <double> value_ns * times

    def record_s(self, double value_s):
        """Count a time in seconds. Raises ValueError for 285 years and more, and for NaN."""
        if not -LONGEST_S < value_s < LONGEST_S:
            raise ValueError(f"not a time that can be counted: {value_s} s")
        self.record_ns(<long long> (value_s * 1e9 + 0.5))

    def add(self, Histogram other not None):
        """Count every value of another histogram as well."""
        cdef int bucket
        if other.count == 0:
            return
        for bucket in range(BUCKETS):
            self.counts[bucket] += other.counts[bucket]
        self._widen(other.count, other.lowest_ns, other.highest_ns, other.sum_ns)

    cdef _widen(self, long long count, long long lowest_ns, long long highest_ns, double sum_ns):
        self.lowest_ns = lowest_ns if self.count == 0 else min(self.lowest_ns, lowest_ns)
        self.highest_ns = max(self.highest_ns, highest_ns)
        self.count += count
        self.sum_ns += sum_ns

    @property
    def min_s(self):
        """The lowest value, exactly; 0 without any."""
        return self.lowest_ns / 1e9

    @property
    def max_s(self):
        """The highest value, exactly; 0 without any."""
        return self.highest_ns / 1e9

    @property
    def mean_s(self):
        """The exact mean; 0 without values."""
        return self.sum_ns / self.count / 1e9 if self.count else 0.0

    def percentile_s(self, double percentile):
        """The value that so many percent (0 to 100) of all values do not exceed; 0 without values."""
        if not 0 <= percentile <= 100:
            raise ValueError(f"a percentile is 0 to 100, not {percentile}")
        # Without this 99.9 % of 1,000 would be the 1,000th value: the product is a hair above 999.
        return self._value_at_rank_ns(<long long> ceil(percentile / 100 * self.count * (1 - 1e-12))) / 1e9

    cdef long long _value_at_rank_ns(self, long long rank) noexcept:
        cdef long long seen = 0
        cdef int bucket
        if self.count == 0:
            return 0
        if rank >= self.count:
            return self.highest_ns
        if rank < 1:
            return self.lowest_ns
        for bucket in range(BUCKETS):
            seen += self.counts[bucket]
            if seen >= rank:
                break
        return max(self.lowest_ns, min(_middle_ns(bucket), self.highest_ns))

    def buckets(self):
        """The middle of every bucket that has values, in seconds, and their count, in order."""
        cdef int bucket
        return [(_middle_ns(bucket) / 1e9, self.counts[bucket]) for bucket in range(BUCKETS) if self.counts[bucket]]

    def state(self):
        """All of it as numbers, for another process: [lowest_ns, highest_ns, sum_ns, bucket, count, bucket, count …]."""
        cdef int bucket
        state = [self.lowest_ns, self.highest_ns, self.sum_ns]
        for bucket in range(BUCKETS):
            if self.counts[bucket]:
                state += (bucket, self.counts[bucket])
        return state

    def add_state(self, state):
        """Count every value that a `state` holds. Raises ValueError for what no state is, and then counts none of it."""
        cdef Histogram other = Histogram()
        cdef int bucket
        cdef long long count
        try:
            numbers = list(state)
            if len(numbers) < 3 or len(numbers) % 2 == 0:
                raise ValueError(f"not a histogram's state: {len(numbers)} entries")
            other.lowest_ns, other.highest_ns = index(numbers[0]), index(numbers[1])
            other.sum_ns = numbers[2]
            total = 0
            for position in range(3, len(numbers), 2):
                bucket, count = index(numbers[position]), index(numbers[position + 1])
                if not 0 <= bucket < BUCKETS or count < 0:
                    raise ValueError(f"not a histogram's state: bucket {bucket} with {count} values")
                total += count
                # Raises before any count of a bucket, which is at most this, could overflow.
                other.count = total
                other.counts[bucket] += count
            # Raises if the two together are more than fit.
            count = int(self.count) + total
        except (TypeError, OverflowError) as error:
            raise ValueError(f"not a histogram's state: {error}") from error
        if not 0 <= other.lowest_ns <= other.highest_ns or not 0 <= other.sum_ns <= DBL_MAX:
            raise ValueError(f"not a histogram's state: lowest, highest and sum are {numbers[:3]}")
        if not other.count and other.highest_ns:
            raise ValueError("not a histogram's state: a highest value, but no values")
        self.add(other)

    def percentile_distribution(self):
        """HdrHistogram's text of the whole distribution (.hgrm), in milliseconds: what its plotter reads."""
        cdef double mean_ns = self.sum_ns / self.count if self.count else 0
        cdef double squares = 0
        cdef int bucket
        for bucket in range(BUCKETS):
            squares += self.counts[bucket] * (_middle_ns(bucket) - mean_ns) ** 2
        deviation_ns = sqrt(squares / self.count) if self.count else 0.0
        lines = [f"{'Value':>12} {'Percentile':>14} {'TotalCount':>10} {'1/(1-Percentile)':>14}", ""]
        lines += self._percentile_lines()
        lines += [
            f"#[Mean    = {mean_ns / 1e6:12.3f}, StdDeviation   = {deviation_ns / 1e6:12.3f}]",
            f"#[Max     = {self.highest_ns / 1e6:12.3f}, TotalCount     = {self.count:12d}]",
            f"#[Buckets = {HIGHEST_EXPONENT - LOWEST_EXPONENT + 1:12d}, SubBuckets     = {PARTS:12d}]",
        ]
        return "\n".join(lines) + "\n"

    def _percentile_lines(self):
        """One line for each bucket at which the next of the percentiles, ever closer to 100, is reached."""
        cdef int bucket
        cdef long long seen = 0
        percentile = 0.0
        for bucket in range(BUCKETS):
            if not self.counts[bucket]:
                continue
            seen += self.counts[bucket]
            value_ms = max(self.lowest_ns, min(_middle_ns(bucket), self.highest_ns)) / 1e6
            reached = 100.0 * seen / self.count
            while percentile <= reached:
                share = percentile / 100
                yield f"{value_ms:12.3f} {share:14.12f} {seen:10d} {1 / (1 - share):14.2f}"
                halvings = 1
                remaining = 100.0 - percentile
                while remaining * 2 ** halvings <= 100.0:
                    halvings += 1
                percentile += 100.0 / (TICKS_PER_HALF_DISTANCE * 2.0 ** halvings)
                # HdrHistogram has one line at the highest value, and the one of 100 %.
                if seen == self.count:
                    break
        if self.count:
            yield f"{self.highest_ns / 1e6:12.3f} {1:14.12f} {self.count:10d}"
