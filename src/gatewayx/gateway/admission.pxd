"""Which functions may be asked for, and how many jobs may be in flight."""

from gatewayx.core.counters cimport Counters, Counts
from gatewayx.core.function_table cimport FunctionTable
from gatewayx.core.shared cimport Shared
from gatewayx.gearman.pool cimport Pool

cdef enum:
    # A job of a function without a bound has no place in the table of those that have one.
    NO_PLACE = -1


cdef class Admission:
    # The functions that may be asked for; any if it is empty.
    cdef FunctionTable functions
    # Jobs in flight of the process: submitted, and neither answered nor given up. HAProxy bounds the same by maxconn and
    # Envoy by max_requests of a cluster (1,024).
    cdef readonly Py_ssize_t max_jobs
    # Of this process, and where they count with those of the others.
    cdef readonly Py_ssize_t jobs
    cdef Shared shared
    # Bounds on the jobs in flight of a function; each counts by itself.
    cdef FunctionTable job_bounds
    # Bounds on the jobs that may be queued of a function at every job server it may go to.
    cdef FunctionTable queue_bounds
    # Refuse jobs for which no job server has a worker.
    cdef bint require_worker
    # Either depends on what the job servers have told.
    cdef bint asks_servers
    cdef Counters counted_in
    cdef Counts* counts

    # Whether jobs of this function may be submitted at all.
    cdef bint allows(self, bytes function)
    # The problem for which no job of the function is submitted now; None for none.
    cdef object refusal(self, bytes function, Pool pool)
    # A job is about to be submitted; the problem for which it is not, or None. Each enter() that returns None is followed by
    # one leave(), with the place that the function's job has got, NO_PLACE for none.
    cdef object enter(self, bytes function, Pool pool, int* place)
    cdef int leave(self, int place) except -1
    cdef object _take(self, bytes function, int* place)
    cdef object _unserved(self, bytes function, Pool pool)
