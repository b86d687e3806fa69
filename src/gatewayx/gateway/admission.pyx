"""Which functions may be asked for, how many jobs may be in flight, and how many may wait for a worker.

A request is looked at twice: when its head is there, so that a body is not sent for nothing, and when its job is about
to be submitted, which is what counts. A body that comes slowly takes no job's place.
"""

cimport cython
from libc.stdint cimport uint32_t

from gatewayx.core.counters cimport Counters
from gatewayx.core.function_table cimport FunctionTable
from gatewayx.core.shared cimport JOBS, Shared, hash_of
from gatewayx.gearman.pool cimport Pool

from gatewayx.core.shared import alone
from gatewayx.http.problems import NO_WORKER, QUEUE_TOO_LONG, TOO_MANY_FUNCTION_JOBS, TOO_MANY_JOBS


@cython.final
cdef class Admission:
    """What may be submitted.

    functions: names that may be asked for, as bytes, `*` at the end standing for any rest; empty for any function.
    max_jobs: jobs in flight, above 0. max_function_jobs: (name, bound) pairs as in FunctionTable, for the jobs in flight
    of each function. max_queued: such pairs for the jobs that wait at the job servers, as `status` tells.
    require_worker: whether a job server must have a worker for the function. counters: where refusals are counted; None
    for counters of its own. shared: where jobs are counted with those of other processes; None if there are none.
    """

    def __init__(
        self,
        *,
        functions=(),
        Py_ssize_t max_jobs=10_000,
        max_function_jobs=(),
        max_queued=(),
        bint require_worker=False,
        Counters counters=None,
        Shared shared=None,
    ):
        self.counted_in = Counters() if counters is None else counters
        self.counts = self.counted_in.row
        self.shared = alone() if shared is None else shared
        self.change(
            functions=functions,
            max_jobs=max_jobs,
            max_function_jobs=max_function_jobs,
            max_queued=max_queued,
            require_worker=require_worker,
        )

    def change(self, *, functions, Py_ssize_t max_jobs, max_function_jobs, max_queued, bint require_worker):
        """Be as if it had been made with these.

        Jobs in flight go on, whatever they are. Those that had no bound as a function's count in none of it.
        """
        self.functions = FunctionTable([(name, True) for name in functions])
        self.max_jobs = max_jobs
        self.job_bounds = FunctionTable(max_function_jobs)
        self.queue_bounds = FunctionTable(max_queued)
        self.require_worker = require_worker
        self.asks_servers = require_worker or not self.queue_bounds.empty

    def counters(self):
        """What is held now and was counted since the start, by name."""
        return {"jobs": self.jobs, "functions": self.shared.functions.keys(), "refused": self.counts.admission_refused}

    cdef bint allows(self, bytes function):
        return self.functions.empty or self.functions.find(function) is not None

    cdef object refusal(self, bytes function, Pool pool):
        cdef object found = self._unserved(function, pool) if self.asks_servers else None
        if found is None:
            if <Py_ssize_t> self.shared.taken(JOBS) >= self.max_jobs:
                found = TOO_MANY_JOBS
            elif not self.job_bounds.empty:
                bound = self.job_bounds.find(function)
                if bound is not None and self.shared.functions.taken(hash_of(function)) >= <uint32_t> bound:
                    found = TOO_MANY_FUNCTION_JOBS
        if found is not None:
            self.counts.admission_refused += 1
        return found

    cdef object enter(self, bytes function, Pool pool, int* place):
        cdef object found = self._unserved(function, pool) if self.asks_servers else None
        place[0] = NO_PLACE
        if found is None:
            found = self._take(function, place)
        if found is None:
            self.jobs += 1
        else:
            self.counts.admission_refused += 1
        return found

    cdef int leave(self, int place) except -1:
        self.jobs -= 1
        self.shared.give(JOBS, 1)
        if place >= 0:
            self.shared.functions.give(place)
        return 0

    cdef object _take(self, bytes function, int* place):
        """Count the job, if it may be counted."""
        if not self.shared.take(JOBS, 1, self.max_jobs):
            return TOO_MANY_JOBS
        if self.job_bounds.empty:
            return None
        bound = self.job_bounds.find(function)
        if bound is None:
            return None
        # Where the table has no room left for its name, a function counts as full.
        place[0] = self.shared.functions.take(hash_of(function), bound)
        if place[0] >= 0:
            return None
        self.shared.give(JOBS, 1)
        return TOO_MANY_FUNCTION_JOBS

    cdef object _unserved(self, bytes function, Pool pool):
        """The problem at the job servers for which no job of the function is submitted."""
        if self.require_worker and pool.lacks_workers(function):
            return NO_WORKER
        if not self.queue_bounds.empty:
            bound = self.queue_bounds.find(function)
            # Fewest is -1 where a job server has not told.
            if bound is not None and pool.fewest_queued(function) >= bound:
                return QUEUE_TOO_LONG
        return None
