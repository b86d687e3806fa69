"""A small pipelining Gearman worker for the demo, the tests and the benchmarks."""

from gatewayx.embedded.output cimport Output
from gatewayx.gearman.packet cimport PacketReader


cdef class AssignedJob:
    # The connection it came over; None once it has ended or its connection is gone.
    cdef Worker worker
    cdef readonly bytes handle
    cdef readonly bytes function
    cdef readonly bytes unique
    cdef readonly bytes workload

    cdef Worker connected(self)
    cdef int end(self, int packet_type, bytes data) except -1


cdef class Worker(Output):
    # (host, port) of the job server.
    cdef readonly object address
    # Callables by function name.
    cdef dict functions
    # Jobs grabbed and not ended, and grabs without an answer, together at most.
    cdef readonly int concurrency
    # Jobs that ended, and ERROR packets received, since the start.
    cdef readonly unsigned long long finished
    cdef readonly unsigned long long errors
    # A Future, done once the connection is gone, however that came about.
    cdef readonly object lost

    cdef object loop
    cdef PacketReader reader
    # A Future that start() waits for: the job server has seen every CAN_DO.
    cdef object registered
    # Jobs being run, and GRAB_JOB_UNIQ packets without an answer.
    cdef int running
    cdef int grabs
    # How many grabs may be open: grows with every job, falls to one with NO_JOB.
    cdef int window
    # A NO_JOB came since the last NOOP: when the last grab is answered, sleep.
    cdef bint dry
    # PRE_SLEEP was sent and no NOOP came since.
    cdef bint asleep
    # close() was called: no further job is asked for.
    cdef bint stopping
    # Tasks of asynchronous functions, at most `concurrency`.
    cdef set tasks

    cdef int dispatch(self) except -1
    cdef int run(self, AssignedJob job) except -1
    cdef int function_raised(self, AssignedJob job, object error) except -1
    cdef int job_ended(self) except -1
    cdef int grab(self) except -1
