"""The job servers behind this process: keep them connected, choose one for each job."""

from gatewayx.budget cimport ByteBudget
from gatewayx.deadlines cimport DeadlineWheel
from gatewayx.gearman.admin cimport AdminSlot
from gatewayx.gearman.connection cimport Job, JobListener, JobServerConnection


cdef class PooledServer:
    """One job server and the connections to it that are up."""
    cdef readonly str host
    cdef readonly int port
    # "host:port", for messages.
    cdef readonly str name
    # Hash of the name.
    cdef unsigned long long name_hash
    cdef list connections
    # The text connection.
    cdef AdminSlot admin_slot
    # The log has said that it is down: no line for each attempt.
    cdef bint told_down

    # Jobs whose end somebody waits for, over all its connections.
    cdef Py_ssize_t outstanding(self)
    # The connection over which this loop turn's jobs leave, or the one with the fewest jobs outstanding; None if none
    # takes another one.
    cdef JobServerConnection least_loaded(self)
    # The same connection for the same key, as long as the same ones are up; None if none takes a job.
    cdef JobServerConnection pinned(self, unsigned long long key)


cdef class Pool:
    cdef object loop
    cdef DeadlineWheel wheel
    cdef ByteBudget budget
    cdef list servers
    cdef int connections_per_server
    cdef Py_ssize_t max_result_bytes
    # One Task for each connection that is to be kept, not for each job.
    cdef list keepers
    # Connections that go down now are closed by us.
    cdef bint closing
    # Where the next search begins, so that equals take turns.
    cdef Py_ssize_t turn
    # Counted on connections that are gone.
    cdef unsigned long long dropped_packets_before
    cdef unsigned long long cancels_requested_before

    # None when no job server takes jobs now. cancellable: the unique was made for this job alone, so that it may be
    # taken out of the queue once its listener does not wait any more.
    cdef Job submit(
        self,
        JobListener listener,
        int packet_type,
        bytes function,
        bytes unique,
        bytes workload,
        double timeout_s,
        bint cancellable,
    )
    cdef JobServerConnection choose(self)
    # For jobs that the job server may merge with others: the same function and unique go the same way, so that they
    # are merged, and each gets the whole result.
    cdef JobServerConnection choose_pinned(self, bytes function, bytes unique, bytes workload)
