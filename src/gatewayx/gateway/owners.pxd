"""Which process of a gateway owns a key, and how a request comes to it."""

from gatewayx.gateway.job_request cimport JobRequest, Relayed
from gatewayx.http.request cimport Request


cdef class Owners:
    """What a Gateway asks where there are several processes."""
    # The place that owns a hash; -1 if it is that of this process.
    cdef int elsewhere(self, bytes hashed) noexcept
    # Have the process at the place answer the request, whose body is in asked.workload; what is known of it comes to
    # asked.relay_answered() or asked.relay_failed(), which may be before this returns: then it returns None.
    cdef Relayed relay(self, int place, JobRequest asked, Request request)
    # The same for a request whose head alone is there: its body goes to the Relayed, and then its end.
    cdef Relayed relay_head(self, int place, JobRequest asked, Request request)
