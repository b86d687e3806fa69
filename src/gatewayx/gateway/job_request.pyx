"""What a client asks for: one job, apart from the answer to it.

A path and X-Gearman- headers become a JobRequest. A subclass answers it: it hands the fields to `Pool.submit` and listens
to the job, as an Exchange does with one response to one request.
"""

from cpython.bytes cimport PyBytes_GET_SIZE

from gatewayx.core.keyed_hash cimport KeyedHash
from gatewayx.gearman.job cimport JobListener
from gatewayx.gearman.packet cimport PacketType
from gatewayx.http.records cimport Ending
from gatewayx.http.request cimport BodySource

SUBMIT_TYPES[<int> LOW][:] = [PacketType.SUBMIT_JOB_LOW, PacketType.SUBMIT_JOB_LOW_BG]
SUBMIT_TYPES[<int> NORMAL][:] = [PacketType.SUBMIT_JOB, PacketType.SUBMIT_JOB_BG]
SUBMIT_TYPES[<int> HIGH][:] = [PacketType.SUBMIT_JOB_HIGH, PacketType.SUBMIT_JOB_HIGH_BG]


cdef class JobRequest(JobListener):
    """One job as a client asks for it."""

    cdef int relay_answered(
        self, int status, const Ending* ending, bytes content_type, bytes headers, object body
    ) except -1:
        raise NotImplementedError

    cdef bint relay_answers(
        self,
        int status,
        const Ending* ending,
        bytes content_type,
        bytes headers,
        long long body_bytes,
        BodySource source,
    ) except -1:
        raise NotImplementedError

    cdef bint relay_piece(self, const char* data, Py_ssize_t size) except -1:
        raise NotImplementedError

    cdef int relay_ended(self) except -1:
        raise NotImplementedError

    cdef int relay_paused(self, bint pause) except -1:
        raise NotImplementedError

    cdef int relay_failed(self, object problem, str detail) except -1:
        raise NotImplementedError

    cdef int hash_workload(self, KeyedHash identity_hash) except -1:
        self.identity_hash = identity_hash
        self.identity_start_bytes = identity_hash.hashed_bytes
        return 0

    cdef bytes workload_identity(self):
        if not PyBytes_GET_SIZE(self.workload):
            return None
        if self.identity_hash.hashed_bytes == self.identity_start_bytes:
            # The workload came at once, or is the query.
            self.identity_hash.update(self.workload)
        return self.identity_hash.digest()
