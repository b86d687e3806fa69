"""The jobs that a job server has created over one connection: by handle, and by what it merges them by."""

from gatewayx.core.budget cimport ByteBudget
from gatewayx.gearman.job cimport Job
from gatewayx.gearman.packet cimport PacketReader

cdef enum:
    # Jobs that nobody waits for any more but whose end the job server still owes, a connection; above, the oldest is
    # forgotten and what comes for it is dropped as for an unknown handle.
    MAX_ABANDONED_JOBS = 16384
    # A result up to here is kept whatever the byte budget says: telling that it did not fit takes as much.
    SMALL_RESULT_BYTES = 1024


cdef class JobTable:
    cdef ByteBudget budget
    # Most bytes of a job's result, over all its packets.
    cdef Py_ssize_t max_result_bytes
    # Handle to its original, the Job that got it before those that were merged with it, until the last copy of the packet
    # that ends the job.
    cdef dict jobs
    # The handles of those that nobody waits for though they have not ended, in the order in which they became so.
    # An OrderedDict: a dict walks over what was deleted before its first entry, each time anew.
    cdef readonly object abandoned
    # Identities of the jobs that are under way here, and how many have each.
    cdef readonly dict pins

    # A job with an identity is under way here; the job server cannot merge anything with it any more.
    cdef int pin(self, Job job) except -1
    cdef int unpin(self, Job job) except -1
    # The job's JOB_CREATED has come, with its handle; it is told so.
    cdef int add(self, Job job) except -1
    # A created job is abandoned. Returns the original of its handle if nobody waits for that any more, else None.
    cdef Job leave(self, Job job)
    # The original of the handle if a large packet for it is worth keeping: somebody waits, no other copy of the packet has
    # come, and with its data the result is within max_result_bytes. None otherwise.
    cdef Job keeper_of(self, bytes handle, Py_ssize_t data_bytes)
    # A WORK_* packet for the handle, which the reader has in hand; with skipped, its data is not there and never will be.
    cdef int work(self, PacketReader reader, bytes handle, bint skipped) except -1
    # The connection is gone: every job that is still known is told that it is lost.
    cdef int lose_all(self) except -1
    cdef int _tell_all(self, Job original, int packet_type, bytes data, bytes denominator) except -1
    cdef int _tell_each(self, Job original, int packet_type, bytes data, bytes denominator) except -1
    cdef int _tell_all_too_large(self, Job original, int packet_type) except -1
    cdef int _forget(self, Job original) except -1
    cdef int _forgotten(self, Job original) except -1
    cdef int _count_abandoned(self, Job original) except -1
    cdef int _cancel(self, Job original) except -1
    cdef bint _hold_result(self, Job original, Py_ssize_t size_bytes) noexcept
