"""How often an address, a token and a function may be asked for.

A request counts for its address, then for its token, then for its function. Whoever is refused by one of them has cost those
before it and none behind it: strangers that are refused take nothing from tokens and functions. With one difference: who is
refused by a function has it back at the token, since others may have used up what the function had, and the token has had
nothing for it. An address has asked all the same.
"""

import time

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.list cimport PyList_GET_ITEM
from cpython.object cimport PyObject
from libc.stdint cimport uint64_t
from libc.string cimport memcpy

from gatewayx.core.clock cimport now_ns
from gatewayx.core.digits cimport MAX_DIGITS, put, put_bytes, put_decimal
from gatewayx.core.function_table cimport FunctionTable
from gatewayx.core.rates cimport OF_ADDRESS, OF_FUNCTION, OF_TOKEN, Rate, Rates, left_of, rate_key, rate_of
from gatewayx.core.shared cimport hash_of
from gatewayx.gateway.tokens cimport Token
from gatewayx.http.request cimport Request
from gatewayx.http.response cimport RetryAfter

from gatewayx.http.problems import RATE_EXCEEDED, RequestError

cdef enum:
    # Two numbers, what stands between them, and the end of the line.
    MOST_LIMIT_BYTES = 2 * MAX_DIGITS + 5
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


cdef int _make_ready(Token token) except -1:
    """Find out what is the same for all requests with a token that has a rate.

    draft-ietf-httpapi-ratelimit-headers-11: q in w is what is never refused, since no more of it is let in at once and no less in
    so many seconds.
    """
    cdef Rate* rate = &token.allowance
    rate[0] = rate_of(token.rate, token.burst)
    token.rate_lines = b'RateLimit-Policy: "token";q=%d;w=%d\r\nRateLimit: "token";r=' % (
        rate.capacity_ns // rate.interval_ns, _seconds(rate.capacity_ns)
    )
    return 0


cdef int _tell(Request request, Token token, long long debt_ns, bint with_time) except -1:
    """Say in the answer what the token may have: r can be had now, and nothing more for t seconds."""
    cdef const Rate* rate = &token.allowance
    cdef long long left = left_of(rate, debt_ns)
    cdef char[MOST_LIMIT_BYTES] limit
    cdef char* end = put_decimal(limit, left)
    cdef bytes before = request.answer_lines
    cdef Py_ssize_t before_bytes = 0 if before is None else PyBytes_GET_SIZE(before)
    cdef bytes told
    if with_time:
        end = put_decimal(put(end, b";t=", 3), _seconds((left + 1) * rate.interval_ns - rate.capacity_ns + debt_ns))
    end = put(end, b"\r\n", 2)
    told = PyBytes_FromStringAndSize(NULL, before_bytes + PyBytes_GET_SIZE(token.rate_lines) + (end - limit))
    if before_bytes:
        memcpy(PyBytes_AS_STRING(told), PyBytes_AS_STRING(before), before_bytes)
    put(put_bytes(PyBytes_AS_STRING(told) + before_bytes, token.rate_lines), limit, end - limit)
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
        hashed = request.owner.asker_hash(request)
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

    cdef int check_token(self, Request request, Token token, bint is_told) except -1:
        cdef long long wait_ns, debt_ns
        if token.rate <= 0:
            return 0
        if token.rate_lines is None:
            _make_ready(token)
        wait_ns = _take(self.rates, rate_key(OF_TOKEN, token.rate_key), &token.allowance, request, &debt_ns)
        if is_told:
            _tell(request, token, debt_ns, True)
        if wait_ns:
            raise RequestError(
                RATE_EXCEEDED,
                "more requests came with this token than may; nothing was submitted",
                self.retry_after.exactly(wait_ns),
            )
        return 0

    cdef int check_function(self, Request request, Token token, bytes function, bint is_told) except -1:
        cdef FunctionLimit limit
        cdef long long wait_ns, debt_ns
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
            debt_ns = self.rates.give_back(rate_key(OF_TOKEN, token.rate_key), &token.allowance, now_ns())
            if is_told:
                request.answer_lines = request.answer_lines[: request.answer_lines.index(POLICY)]
                # When it is the function's turn again is another time than the token's.
                _tell(request, token, debt_ns, False)
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
