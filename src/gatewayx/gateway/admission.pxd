"""Which functions may be asked for, and how many jobs may be in flight."""

from gatewayx.core.counters cimport Counters, Counts
from gatewayx.core.function_table cimport FunctionTable
from gatewayx.gearman.pool cimport Pool


cdef class Admission:
    # The functions that may be asked for; any if it is empty.
    cdef FunctionTable functions
    # Jobs in flight of the process: submitted, and neither answered nor given up. HAProxy bounds the same by maxconn and
    # Envoy by max_requests of a cluster (1,024).
    cdef readonly Py_ssize_t max_jobs
    cdef readonly Py_ssize_t jobs
    # Bounds on the jobs in flight of a function; each counts by itself.
    cdef FunctionTable job_bounds
    # Bounds on the jobs that may be queued of a function at every job server it may go to.
    cdef FunctionTable queue_bounds
    # Refuse jobs for which no job server has a worker.
    cdef bint require_worker
    # Jobs in flight of each function that has a bound; at most max_jobs entries.
    cdef dict function_jobs
    cdef Counters counted_in
    cdef Counts* counts

    # Whether jobs of this function may be submitted at all.
    cdef bint allows(self, bytes function)
    # The problem for which no job of the function is submitted now; None for none.
    cdef object refusal(self, bytes function, Pool pool)
    # A job is submitted; it is over. Each enter() is followed by one leave().
    cdef int enter(self, bytes function) except -1
    cdef int leave(self, bytes function) except -1
