"""Which pages may ask, and by which names the gateway is asked for."""

from gatewayx.gateway.asking cimport Asking
from gatewayx.http.request cimport Request


cdef class Origins:
    # Origins or hosts were set.
    cdef bint is_set

    # Look at where a request comes from. Returns whether it was answered, as a preflight is; raises RequestError. What it says of
    # answer lines the request has from then on.
    cdef bint check(self, Request request, Asking* asking) except -1
    # Set the answer lines alone, of a request that is refused anyhow.
    cdef int name(self, Request request, Asking* asking) except -1
