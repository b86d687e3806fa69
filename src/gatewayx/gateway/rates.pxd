"""How often an address, a token and a function may be asked for."""

from gatewayx.gateway.tokens cimport Token
from gatewayx.http.request cimport Request


cdef class RateLimits:
    # A request of this address, None for none, has come; raises RequestError if it is one too many.
    cdef int check_address(self, bytes address) except -1
    # It asks for a job of this function with this token, None for none; raises RequestError if it is one too many of either.
    # Tokens with a rate get RateLimit lines in the answer, whatever that is.
    cdef int check_job(self, Request request, Token token, bytes function) except -1
