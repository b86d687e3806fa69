"""A job that outlives its request: what is known of it, and its answer."""

from gatewayx.gateway.watching cimport Watched


cdef class KeptJob(Watched):
    """A job that outlives its request."""

    cdef bytes json(self):
        raise NotImplementedError
