"""What a client asks for: one job, apart from the answer to it."""

from gatewayx.core.keyed_hash cimport KeyedHash
from gatewayx.gateway.owners cimport Asked
from gatewayx.gearman.packet cimport MAX_UNIQUE_BYTES

# One of the SUBMIT_JOB* types by priority, then by whether it is a background job.
cdef int[3][2] SUBMIT_TYPES

cdef enum Priority:
    LOW = 0
    NORMAL = 1
    HIGH = 2


cdef enum UniqueOrigin:
    # The gateway made the unique for this job alone: the job server merges nothing with it.
    GATEWAY
    # The client gave it, and may have given it to other jobs.
    CLIENT
    # It is the "-" that stands for no unique with plugin_compat: the job server merges by the workload.
    PLUGIN


# A unique of the gateway's own: digits are the last of it.
cdef struct UniqueText:
    char[MAX_UNIQUE_BYTES] text
    unsigned char size


cdef class JobRequest(Asked):
    """A subclass answers it. Its wait, timeout_s, is for the end, or of a background job for its JOB_CREATED."""
    cdef bytes function
    # None for one of the gateway's own.
    cdef bytes unique
    cdef UniqueText own_unique
    cdef UniqueOrigin unique_origin
    cdef Priority priority
    cdef bint background
    # Its client has said how long it waits.
    cdef bint tells_timeout
    # Its client takes the data as it comes (X-Gearman-Stream). Only with a unique of the gateway's own, and of a foreground job.
    cdef bint streamed
    # The hash that becomes the job's identity, for the unique "-", by which jobs are merged by their workloads; it takes
    # the workload as it arrives. None for any other unique.
    cdef KeyedHash identity_hash
    # How many bytes the hash had taken before the workload.
    cdef unsigned long long identity_start_bytes

    cdef inline int packet_type(self) noexcept:
        return SUBMIT_TYPES[<int> self.priority][<int> self.background]

    # Be what another one is.
    cdef int become(self, JobRequest other) except -1
    # Hash the workload with this hash, which has taken function and unique.
    cdef int hash_workload(self, KeyedHash identity_hash) except -1
    # The digest of what the job server merges by, the workload included; None if it merges nothing with this job.
    cdef bytes workload_identity(self)
