"""Which pages may ask, and by which names the gateway is asked for."""

cimport cython

from gatewayx.gateway.asking cimport Asking
from gatewayx.http.request cimport Request


@cython.final
cdef class Origins:
    """Which pages may ask."""

    cdef bint check(self, Request request, Asking* asking) except -1:
        return False

    cdef int name(self, Request request, Asking* asking) except -1:
        return 0
