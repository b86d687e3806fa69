"""The access log of a process: which requests have a line, and what it tells of them."""

from gatewayx.core.access_batch cimport AccessBatch
from gatewayx.http.records cimport RequestsLog


cdef class AccessLog(RequestsLog):
    cdef readonly AccessBatch batch
    # Lines tell the unique.
    cdef bint with_unique
    # Of requests that have ended well those have a line whose id is in the sample, of this threshold; or all.
    cdef bint samples
    cdef unsigned long long threshold
    # By the number of an outcome: its name, and the status that goes with it.
    cdef tuple outcomes
    cdef tuple statuses
