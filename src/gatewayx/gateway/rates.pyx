"""How often an address, a token and a function may be asked for.

A request counts for its address, then for its token, then for its function. Whoever is refused by one of them has cost those
before it and none behind it: strangers that are refused take nothing from tokens and functions. With one difference: who is
refused by a function has it back at the token, since others may have used up what the function had, and the token has had
nothing for it. An address has asked all the same.
"""

import time

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.list cimport PyList_GET_ITEM
from cpython.object cimport PyObject
from libc.stdint cimport uint64_t

from gatewayx.core.clock cimport now_ns
from gatewayx.core.digits cimport put, put_decimal
from gatewayx.core.function_table cimport FunctionTable
from gatewayx.core.rates cimport OF_ADDRESS, OF_FUNCTION, OF_TOKEN, Rate, Rates, left_of, rate_key, rate_of
from gatewayx.core.shared cimport hash_of
from gatewayx.gateway.tokens cimport Token
from gatewayx.http.request cimport Request
from gatewayx.http.response cimport RetryAfter

from gatewayx.http.problems import RATE_EXCEEDED, RequestError

cdef enum:
    # Of both lines, with three numbers of 20 digits and more.
    MOST_LINES_BYTES = 192
    SECOND_NS = 1_000_000_000

cdef bytes POLICY = b"RateLimit-Policy: "


cdef inline unsigned long long _seconds(long long duration_ns) noexcept:
    """Rounded up, and at least 1."""
    return <unsigned long long> max(1, (duration_ns + SECOND_NS - 1) // SECOND_NS)


cdef inline Py_ssize_t _place_of(bytes function) noexcept:
    """A function that is asked for again and again is the same object (gateway/routes)."""
    return <Py_ssize_t> (<size_t> <PyObject*> function >> 5) % RECENT_FUNCTIONS


cdef inline long long _take(Rates rates, uint64_t key, const Rate* rate, Request request, long long* debt_ns) noexcept:
    """Rates.take() at the time of the request, which may be a turn of the loop ago; nobody is refused by that."""
    if rates.take(key, rate, request.begun_ns, debt_ns) == 0:
        return 0
    return rates.take(key, rate, now_ns(), debt_ns)


cdef int _tell(Request request, const Rate* rate, long long debt_ns, bint with_time) except -1:
    """Say in the answer what the token may have, in place of what it says of that already.

    draft-ietf-httpapi-ratelimit-headers-11: q in w is what is never refused, since no more of it is let in at once and no less in
    so many seconds; r can be had now, and nothing more for t seconds.
    """
    cdef char[MOST_LINES_BYTES] lines
    cdef char* end = lines
    cdef long long left = left_of(rate, debt_ns)
    cdef bytes told
    cdef Py_ssize_t before
    end = put_decimal(put(end, b'RateLimit-Policy: "token";q=', 28), rate.capacity_ns // rate.interval_ns)
    end = put_decimal(put(end, b";w=", 3), _seconds(rate.capacity_ns))
    end = put_decimal(put(end, b'\r\nRateLimit: "token";r=', 23), left)
    if with_time:
        end = put_decimal(put(end, b";t=", 3), _seconds((left + 1) * rate.interval_ns - rate.capacity_ns + debt_ns))
    end = put(end, b"\r\n", 2)
    told = PyBytes_FromStringAndSize(lines, end - lines)
    if request.answer_lines is not None:
        before = request.answer_lines.find(POLICY)
        told = (request.answer_lines if before < 0 else request.answer_lines[:before]) + told
    request.answer_lines = told
    return 0


@cython.final
cdef class FunctionLimit:
    """How often one function may be asked for."""


@cython.final
cdef class RateLimits:
    """The rates of a gateway.

    rates: where they are counted. address: of each address, so many a second and so many at once; None for any number.
    functions: the same for functions by name, `*` at the end standing for any rest.
    """

    def __init__(self, Rates rates not None, address=None, functions=()):
        self.rates = rates
        self.address = rate_of(0, 0) if address is None else rate_of(address[0], address[1])
        self.functions = FunctionTable(functions)
        self.known = {}
        self.recent = [None] * RECENT_FUNCTIONS
        self.retry_after = RetryAfter(time.monotonic)

    cdef int check_address(self, Request request) except -1:
        cdef uint64_t hashed
        cdef long long wait_ns
        if self.address.interval_ns == 0:
            return 0
        hashed = request.owner.asker_hash()
        if hashed == 0:
            # A client of a unix socket.
            return 0
        wait_ns = _take(self.rates, rate_key(OF_ADDRESS, hashed), &self.address, request, NULL)
        if wait_ns:
            raise RequestError(
                RATE_EXCEEDED,
                "more requests came from your address than may; nothing was submitted",
                self.retry_after.exactly(wait_ns),
            )
        return 0

    cdef int check_token(self, Request request, Token token) except -1:
        cdef Rate rate
        cdef long long wait_ns, debt_ns
        if token.rate <= 0:
            return 0
        rate = rate_of(token.rate, token.burst)
        wait_ns = _take(self.rates, rate_key(OF_TOKEN, token.rate_key), &rate, request, &debt_ns)
        _tell(request, &rate, debt_ns, True)
        if wait_ns:
            raise RequestError(
                RATE_EXCEEDED,
                "more requests came with this token than may; nothing was submitted",
                self.retry_after.exactly(wait_ns),
            )
        return 0

    cdef int check_function(self, Request request, Token token, bytes function) except -1:
        cdef FunctionLimit limit
        cdef Rate rate
        cdef long long wait_ns
        if self.functions.empty:
            return 0
        limit = <FunctionLimit> PyList_GET_ITEM(self.recent, _place_of(function))
        if limit is None or limit.function is not function:
            limit = self._limit_of(function)
        if limit.rate.interval_ns == 0:
            return 0
        wait_ns = _take(self.rates, limit.key, &limit.rate, request, NULL)
        if wait_ns == 0:
            return 0
        if token is not None and token.rate > 0:
            rate = rate_of(token.rate, token.burst)
            # When it is the function's turn again is another time than the token's.
            _tell(request, &rate, self.rates.give_back(rate_key(OF_TOKEN, token.rate_key), &rate, now_ns()), False)
        raise RequestError(
            RATE_EXCEEDED,
            "more jobs of this function were asked for than may; nothing was submitted",
            self.retry_after.exactly(wait_ns),
        )

    cdef FunctionLimit _limit_of(self, bytes function):
        cdef FunctionLimit limit = <FunctionLimit> self.known.get(function)
        cdef object bound
        if limit is not None:
            self.recent[_place_of(function)] = limit
            return limit
        bound = self.functions.find(function)
        limit = FunctionLimit.__new__(FunctionLimit)
        limit.function = function
        limit.rate = rate_of(0, 0) if bound is None else rate_of(bound[0], bound[1])
        limit.key = rate_key(OF_FUNCTION, hash_of(function))
        if len(self.known) >= MOST_KNOWN_FUNCTIONS:
            self.known.clear()
        self.known[function] = limit
        self.recent[_place_of(function)] = limit
        return limit
