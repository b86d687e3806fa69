"""What a client asks for: one job, apart from the answer to it.

A path and X-Gearman- headers become a JobRequest. A subclass answers it: it hands the fields to `Pool.submit` and listens
to the job, as an Exchange does with one response to one request.
"""

from cpython.bytes cimport PyBytes_GET_SIZE

from gatewayx.core.keyed_hash cimport KeyedHash
from gatewayx.gateway.owners cimport Asked
from gatewayx.gearman.packet cimport PacketType

SUBMIT_TYPES[<int> LOW][:] = [PacketType.SUBMIT_JOB_LOW, PacketType.SUBMIT_JOB_LOW_BG]
SUBMIT_TYPES[<int> NORMAL][:] = [PacketType.SUBMIT_JOB, PacketType.SUBMIT_JOB_BG]
SUBMIT_TYPES[<int> HIGH][:] = [PacketType.SUBMIT_JOB_HIGH, PacketType.SUBMIT_JOB_HIGH_BG]

cdef bytes BACKGROUND_LINE = b"X-Gearman-Background: true\r\n"
cdef bytes HIGH_LINE = b"X-Gearman-Priority: high\r\n"
cdef bytes LOW_LINE = b"X-Gearman-Priority: low\r\n"

# A wait is told with so many decimals that the same number is read; one that is shorter would be told as 0.
cdef double LEAST_TIMEOUT_S = 1e-20


cdef class JobRequest(Asked):
    """One job as a client asks for it."""

    cdef bytes relayed_lines(self):
        # No more lines than its client has sent: they are bounded.
        cdef bytes lines = b""
        if self.tells_timeout:
            lines = f"X-Gearman-Timeout: {max(self.timeout_s, LEAST_TIMEOUT_S):.20f}\r\n".encode()
        if self.unique_origin != PLUGIN:
            lines += b"X-Gearman-Unique: %b\r\n" % self.unique
        if self.background:
            lines += BACKGROUND_LINE
        if self.priority != NORMAL:
            lines += HIGH_LINE if self.priority == HIGH else LOW_LINE
        return lines

    cdef int become(self, JobRequest other) except -1:
        self.function = other.function
        self.unique = other.unique
        self.own_unique = other.own_unique
        self.unique_origin = other.unique_origin
        self.priority = other.priority
        self.background = other.background
        self.tells_timeout = other.tells_timeout
        self.streamed = other.streamed
        self.timeout_s = other.timeout_s
        self.identity_hash = other.identity_hash
        self.identity_start_bytes = other.identity_start_bytes
        return 0

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
