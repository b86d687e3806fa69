"""Which process of a gateway owns a key, and how a request comes to it.

Jobs that a job server may merge have to come from one process, which knows of all of them: the owner of their key. What
does it is not known here; server/relay is.
"""

from gatewayx.gateway.job_request cimport JobRequest, Relayed
from gatewayx.http.request cimport Request


cdef class Owners:
    """The processes of a gateway, as owners of keys."""

    cdef int elsewhere(self, bytes hashed) noexcept:
        return -1

    cdef Relayed relay(self, int place, JobRequest asked, Request request):
        raise NotImplementedError

    cdef Relayed relay_head(self, int place, JobRequest asked, Request request):
        raise NotImplementedError
