"""The clock by which durations are measured."""

from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec


cdef inline long long now_ns() noexcept nogil:
    """CLOCK_MONOTONIC: the same in all processes of a machine."""
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <long long> now.tv_sec * 1_000_000_000 + now.tv_nsec


cdef inline long long moment(const long long* moment_ns) noexcept:
    """The time that is known, or else that of the clock: many that came together cost one look at it."""
    return moment_ns[0] if moment_ns[0] else now_ns()
