"""How often an address, a token and a function may be asked for."""

cimport cython

from gatewayx.gateway.tokens cimport Token
from gatewayx.http.request cimport Request


@cython.final
cdef class RateLimits:
    """The rates of a gateway."""

    cdef int check_address(self, bytes address) except -1:
        return 0

    cdef int check_job(self, Request request, Token token, bytes function) except -1:
        return 0
