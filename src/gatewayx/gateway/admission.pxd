"""Which functions may be asked for, and how many jobs may be in flight."""


cdef class Admission:
    # Names that may be asked for, and beginnings of such; None for any.
    cdef frozenset functions
    cdef tuple function_prefixes
    # Jobs in flight of the process: submitted, and neither answered nor given up. HAProxy bounds the same by maxconn and
    # Envoy by max_requests of a cluster (1,024).
    cdef readonly Py_ssize_t max_jobs
    cdef readonly Py_ssize_t jobs
    # Bounds by function name, and by beginnings of names, the longest first; a bound counts each function by itself.
    cdef dict function_limits
    cdef tuple prefix_limits
    # There are bounds by function.
    cdef bint bounds_functions
    # Jobs in flight of each function that has a bound; at most max_jobs entries.
    cdef dict function_jobs
    # Requests refused for want of room.
    cdef readonly unsigned long long refused

    # Whether jobs of this function may be submitted at all.
    cdef bint allows(self, bytes function)
    # Why there is no room for another job of the function, as the kind and the detail of a problem; None if there is.
    cdef tuple refusal(self, bytes function)
    # A job is submitted; it is over. Each enter() is followed by one leave().
    cdef int enter(self, bytes function) except -1
    cdef int leave(self, bytes function) except -1
    cdef Py_ssize_t _limit(self, bytes function) except -2
