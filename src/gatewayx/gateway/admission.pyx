"""Which functions may be asked for, how many jobs may be in flight, and how many may wait for a worker.

A request is looked at twice: when its head is there, so that a body is not sent for nothing, and when its job is about
to be submitted, which is what counts. A body that comes slowly takes no job's place.
"""

cimport cython

from gatewayx.core.counters cimport Counters
from gatewayx.core.function_table cimport FunctionTable
from gatewayx.gearman.pool cimport Pool

from gatewayx.http.problems import NO_WORKER, QUEUE_TOO_LONG, TOO_MANY_FUNCTION_JOBS, TOO_MANY_JOBS


@cython.final
cdef class Admission:
    """What may be submitted.

    functions: names that may be asked for, as bytes, `*` at the end standing for any rest; empty for any function.
    max_jobs: jobs in flight, above 0. max_function_jobs: (name, bound) pairs as in FunctionTable, for the jobs in flight
    of each function. max_queued: such pairs for the jobs that wait at the job servers, as `status` tells.
    require_worker: whether a job server must have a worker for the function. counters: where refusals are counted; None
    for counters of its own.
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
    ):
        self.counted_in = Counters() if counters is None else counters
        self.counts = self.counted_in.row
        self.functions = FunctionTable([(name, True) for name in functions])
        self.max_jobs = max_jobs
        self.job_bounds = FunctionTable(max_function_jobs)
        self.queue_bounds = FunctionTable(max_queued)
        self.require_worker = require_worker
        self.function_jobs = {}

    def counters(self):
        """What is held now and was counted since the start, by name."""
        return {"jobs": self.jobs, "functions": len(self.function_jobs), "refused": self.counts.admission_refused}

    cdef bint allows(self, bytes function):
        return self.functions.empty or self.functions.find(function) is not None

    cdef object refusal(self, bytes function, Pool pool):
        cdef object found = None
        if self.jobs >= self.max_jobs:
            found = TOO_MANY_JOBS
        elif self.require_worker and pool.lacks_workers(function):
            found = NO_WORKER
        else:
            if not self.job_bounds.empty:
                bound = self.job_bounds.find(function)
                if bound is not None and self.function_jobs.get(function, 0) >= bound:
                    found = TOO_MANY_FUNCTION_JOBS
            if not self.queue_bounds.empty:
                bound = self.queue_bounds.find(function)
                # Fewest is -1 where a job server has not told.
                if bound is not None and pool.fewest_queued(function) >= bound:
                    found = QUEUE_TOO_LONG
        if found is not None:
            self.counts.admission_refused += 1
        return found

    cdef int enter(self, bytes function) except -1:
        self.jobs += 1
        if not self.job_bounds.empty and self.job_bounds.find(function) is not None:
            self.function_jobs[function] = self.function_jobs.get(function, 0) + 1
        return 0

    cdef int leave(self, bytes function) except -1:
        self.jobs -= 1
        if not self.job_bounds.empty and self.job_bounds.find(function) is not None:
            left = self.function_jobs[function] - 1
            if left:
                self.function_jobs[function] = left
            else:
                del self.function_jobs[function]
        return 0
