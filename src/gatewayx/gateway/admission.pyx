"""Which functions may be asked for, and how many jobs may be in flight.

A request is looked at twice: when its head is there, so that a body is not sent for nothing, and when its job is about
to be submitted, which is what counts. A body that comes slowly takes no job's place.
"""

cimport cython

TOO_MANY_JOBS = ("too-many-jobs", "as many jobs are in flight as may be; nothing was submitted")
TOO_MANY_FUNCTION_JOBS = (
    "too-many-function-jobs", "as many jobs of this function are in flight as may be; nothing was submitted"
)


@cython.final
cdef class Admission:
    """What may be submitted.

    functions: names that may be asked for, as bytes, `*` at the end standing for any rest; empty for any function.
    max_jobs: jobs in flight, above 0. max_function_jobs: (name, bound) pairs, the name as in functions; of several that
    fit a function the full name holds, then the longest beginning. Each function is counted by itself.
    """

    def __init__(self, *, functions=(), Py_ssize_t max_jobs=10_000, max_function_jobs=()):
        if functions:
            self.functions = frozenset(name for name in functions if not name.endswith(b"*"))
            self.function_prefixes = tuple(name[:-1] for name in functions if name.endswith(b"*"))
        self.max_jobs = max_jobs
        self.function_limits = {name: bound for name, bound in max_function_jobs if not name.endswith(b"*")}
        prefixes = [(name[:-1], bound) for name, bound in max_function_jobs if name.endswith(b"*")]
        self.prefix_limits = tuple(sorted(prefixes, key=lambda limit: len(limit[0]), reverse=True))
        self.bounds_functions = bool(max_function_jobs)
        self.function_jobs = {}

    def counters(self):
        """What is held now and was counted since the start, by name."""
        return {"jobs": self.jobs, "functions": len(self.function_jobs), "refused": self.refused}

    cdef bint allows(self, bytes function):
        if self.functions is None or function in self.functions:
            return True
        return function.startswith(self.function_prefixes)

    cdef tuple refusal(self, bytes function):
        if self.jobs >= self.max_jobs:
            self.refused += 1
            return TOO_MANY_JOBS
        if self.bounds_functions:
            limit = self._limit(function)
            if limit >= 0 and self.function_jobs.get(function, 0) >= limit:
                self.refused += 1
                return TOO_MANY_FUNCTION_JOBS
        return None

    cdef int enter(self, bytes function) except -1:
        self.jobs += 1
        if self.bounds_functions and self._limit(function) >= 0:
            self.function_jobs[function] = self.function_jobs.get(function, 0) + 1
        return 0

    cdef int leave(self, bytes function) except -1:
        self.jobs -= 1
        if self.bounds_functions and self._limit(function) >= 0:
            left = self.function_jobs[function] - 1
            if left:
                self.function_jobs[function] = left
            else:
                del self.function_jobs[function]
        return 0

    cdef Py_ssize_t _limit(self, bytes function) except -2:
        """The function's bound; -1 for none."""
        limit = self.function_limits.get(function)
        if limit is not None:
            return limit
        for prefix, bound in self.prefix_limits:
            if function.startswith(prefix):
                return bound
        return -1
