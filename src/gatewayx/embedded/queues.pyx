"""What the embedded job server keeps of a function: its queues, and each of its jobs from the first submit to its end."""

from collections import deque

from libc.stdlib cimport strtoul


cdef class QueuedJob:
    """One job from its first submit to its end."""


cdef class Function:
    """A function's queues, workers and bounds."""

    def __cinit__(self, bytes name not None):
        self.name = name
        self.queues = tuple([deque() for _ in range(PRIORITIES)])
        self.by_unique = {}
        self.by_workload = {}
        self.workers = {}
        self.max_queue = [0] * PRIORITIES

    cdef QueuedJob find(self, bytes unique, bytes workload):
        """The job that a submit coalesces with (libgearman-server/job.cc, gearman_server_job_add_reducer)."""
        if not unique:
            return None
        if unique == b"-":
            return self.by_workload.get(workload) if workload else None
        return self.by_unique.get(unique)

    cdef int index(self, QueuedJob job) except -1:
        if job.unique == b"-":
            if job.workload:
                self.by_workload[job.workload] = job
        elif job.unique:
            self.by_unique[job.unique] = job
        return 0

    cdef int forget(self, QueuedJob job) except -1:
        if job.unique == b"-":
            if job.workload:
                del self.by_workload[job.workload]
        elif job.unique:
            del self.by_unique[job.unique]
        return 0


cpdef unsigned int leading_number(bytes text) except? 0:
    """As atoi reads a count, within a uint32: digits up to anything else."""
    cdef Py_ssize_t end = 0
    while end < min(len(text), 10) and b"0" <= text[end : end + 1] <= b"9":
        end += 1
    return min(int(text[:end] or b"0"), 0xFFFFFFFF)


cdef unsigned int wrapped_number(bytes text) except? 0:
    return <unsigned int> strtoul(text, NULL, 10)
