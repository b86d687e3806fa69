"""Which requests become jobs."""

from gatewayx.gateway.access cimport Access
from gatewayx.gateway.common cimport Common
from gatewayx.gateway.job_request cimport JobRequest
from gatewayx.gateway.routes cimport RecentFunctions
from gatewayx.http.request cimport Request


cdef class Gateway(Common):
    """Makes an Exchange of every request that asks for a job; one a process."""
    cdef readonly Access access
    cdef RecentFunctions functions

    cdef int _read_head(self, JobRequest wanted, Request request) except -1
