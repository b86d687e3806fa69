"""What the embedded job server keeps of a function and of a job; the text commands read it, too."""

from gatewayx.embedded.output cimport Output

cdef enum:
    PRIORITIES = 3


cdef class QueuedJob:
    cdef readonly bytes handle
    cdef readonly bytes unique
    cdef bytes workload
    cdef Function function
    # Index into the function's queues: 0 high, 1 normal, 2 low.
    cdef int priority
    # The connections that are told of it, one entry a foreground submit: one may be there twice (coalescing).
    cdef list clients
    # The connection that runs it; None while it is queued.
    cdef readonly Output worker
    # Running time is up: a TimerHandle of CAN_DO_TIMEOUT, or None.
    cdef object timeout
    # Cancelled, or every foreground client is gone: thrown away when a worker would get it (gearmand: ignore_job).
    cdef readonly bint dropped
    # How often a worker was lost while running it.
    cdef readonly unsigned int retries
    cdef unsigned int numerator
    cdef unsigned int denominator


cdef class Function:
    cdef readonly bytes name
    # One deque of QueuedJob a priority.
    cdef tuple queues
    # Every job of the function, queued and running, by its unique, or by its workload where the unique is "-".
    cdef dict by_unique
    cdef dict by_workload
    # ServerConnection: seconds a job may run there (0: any).
    cdef readonly dict workers
    # Jobs in `queues`, and with a worker.
    cdef readonly Py_ssize_t queued
    cdef readonly Py_ssize_t running
    # A submit of a priority is refused while there are this many jobs of the function (0: the server's own bound only).
    cdef readonly list max_queue

    cdef QueuedJob find(self, bytes unique, bytes workload)
    cdef int index(self, QueuedJob job) except -1
    cdef int forget(self, QueuedJob job) except -1


# As atoi reads a count, within a uint32: digits up to anything else.
cpdef unsigned int leading_number(bytes text) except? 0


# As strtoul reads a number and a uint32 keeps it: behind white space and a sign, digits up to anything else, modulo 2^32.
cdef unsigned int wrapped_number(bytes text) except? 0
