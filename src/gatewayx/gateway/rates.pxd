"""How often an address, a token and a function may be asked for."""

from libc.stdint cimport uint64_t

from gatewayx.core.function_table cimport FunctionTable
from gatewayx.core.rates cimport Rate, Rates
from gatewayx.gateway.tokens cimport Token
from gatewayx.http.request cimport Request
from gatewayx.http.response cimport RetryAfter

cdef enum:
    # Functions of which it is known whether they have a rate, and what their key is; and of which that is known at a glance.
    MOST_KNOWN_FUNCTIONS = 1024
    RECENT_FUNCTIONS = 64


cdef class FunctionLimit:
    cdef bytes function
    # Any number if its interval is 0.
    cdef Rate rate
    cdef uint64_t key


cdef class RateLimits:
    cdef Rates rates
    # Of an address; any number if its interval is 0.
    cdef Rate address
    # (so many a second, so many at once) of functions.
    cdef FunctionTable functions
    # To a FunctionLimit, those that were asked for lately; and some of them, by where the object of the name is in memory.
    cdef dict known
    cdef list recent
    cdef RetryAfter retry_after

    # A request has come; raises RequestError if it is one too many of its address.
    cdef int check_address(self, Request request) except -1
    # It has this token; raises RequestError if it is one too many of that. If the token has a rate the answer tells of it, whatever
    # the answer is; with is_told false it does not, as that of a batch whose lines are asked for one by one.
    cdef int check_token(self, Request request, Token token, bint is_told) except -1
    # It asks for a job of this function with this token, None for none; raises RequestError if it is one too many of that. Then it is
    # none of the token's.
    cdef int check_function(self, Request request, Token token, bytes function, bint is_told) except -1
    cdef FunctionLimit _limit_of(self, bytes function)
