"""What a client asks for: one job, apart from the answer to it."""

from gatewayx.core.keyed_hash cimport KeyedHash
from gatewayx.gearman.job cimport JobListener
from gatewayx.gearman.packet cimport MAX_UNIQUE_BYTES
from gatewayx.http.records cimport Ending
from gatewayx.http.request cimport BodySource

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


cdef class JobRequest(JobListener):
    """A subclass answers it."""
    cdef bytes function
    # None for one of the gateway's own.
    cdef bytes unique
    cdef UniqueText own_unique
    cdef UniqueOrigin unique_origin
    cdef Priority priority
    cdef bint background
    # How long its client waits: for the end, or of a background job for its JOB_CREATED.
    cdef double timeout_s
    # What the job is given, where that is an object; None before all of it is there, and once the job's packet holds it.
    cdef bytes workload
    # The hash that becomes the job's identity, for the unique "-", by which jobs are merged by their workloads; it takes
    # the workload as it arrives. None for any other unique.
    cdef KeyedHash identity_hash
    # How many bytes the hash had taken before the workload.
    cdef unsigned long long identity_start_bytes

    cdef inline int packet_type(self) noexcept:
        return SUBMIT_TYPES[<int> self.priority][<int> self.background]

    # The process that owns its key has answered, and told how the request has ended. content_type: None for none. headers: whole lines. body: bytes or bytearray.
    cdef int relay_answered(
        self, int status, const Ending* ending, bytes content_type, bytes headers, object body
    ) except -1
    # The same for an answer whose body comes in pieces, each given to relay_piece() as `source` is told that they are wanted;
    # and its end. Returns whether any piece is wanted.
    cdef bint relay_answers(
        self,
        int status,
        const Ending* ending,
        bytes content_type,
        bytes headers,
        long long body_bytes,
        BodySource source,
    ) except -1
    cdef bint relay_piece(self, const char* data, Py_ssize_t size) except -1
    cdef int relay_ended(self) except -1
    # That process takes no more of the body for now, or more again.
    cdef int relay_paused(self, bint pause) except -1
    # That process has not. problem: of http/problems.
    cdef int relay_failed(self, object problem, str detail) except -1
    # Hash the workload with this hash, which has taken function and unique.
    cdef int hash_workload(self, KeyedHash identity_hash) except -1
    # The digest of what the job server merges by, the workload included; None if it merges nothing with this job.
    cdef bytes workload_identity(self)
