"""Whose token a request carries, and what it reaches.

Theory of operation. Of a token only its SHA-256 is known here. What a client sends is hashed and looked up by the first bytes
of the hash, and compared with what is found in constant time: how long that takes says something of the hash at most, which
nobody can turn into the secret. To spare the hash for tokens that come again and again, those that were good are known by a
hash with a key of this process's own, of 128 bits, which is compared in constant time as well: nobody who does not know the key
can find a second text for it. A token that is not known never changes anything there.

A client's certificate stands for a token by a name in it. The names are looked up once a connection, and what was found stays there
with the mark of the Tokens that have found it. That counts only where no Authorization is there, which decides alone, and
never for what a browser may send by itself: it shows its user's certificate to whatever page or link has made the request.

An address that sends token after token that is not known is told to wait. Its good tokens are looked at first and always
let in: behind one address there may be others, who must not be locked out by their neighbour.
"""

import hashlib
import os
import time

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint64_t
from libc.string cimport memcpy
from posix.time cimport CLOCK_REALTIME, clock_gettime, timespec

from gatewayx.core.clock cimport now_ns
from gatewayx.core.function_table cimport FunctionTable
from gatewayx.core.grammar cimport is_word
from gatewayx.core.keyed_hash cimport hash_short
from gatewayx.core.metrics cimport Metrics
from gatewayx.core.rates cimport OF_ATTEMPTS, Rates, rate_key, rate_of
from gatewayx.core.shared cimport NO_SLOT, Shared, hash_of
from gatewayx.gateway.asking cimport Asking, Value
from gatewayx.gateway.job_request cimport HIGH, LOW, MARK_BYTES, NORMAL, JobRequest
from gatewayx.gateway.origins cimport is_of_other_page
from gatewayx.http.request cimport Request
from gatewayx.http.response cimport RetryAfter

from gatewayx.core import certificate_names
from gatewayx.http.problems import (
    FUNCTION_NOT_ALLOWED,
    NOT_PERMITTED,
    TOO_MANY_ATTEMPTS,
    TOO_MANY_TOKEN_JOBS,
    UNAUTHENTICATED,
    RequestError,
)

cdef enum:
    # What the table of tokens is looked up by.
    PREFIX_BYTES = 8

cdef object LATEST_NS = 2**63 - 1
cdef dict PRIORITIES = {"low": LOW, "normal": NORMAL, "high": HIGH}

cdef bytes REALM = b'WWW-Authenticate: Bearer realm="gatewayx"'
# RFC 6750 3.1: error codes, for requests that have a token.
cdef bytes INVALID_TOKEN = REALM + b', error="invalid_token"\r\n'
cdef bytes INSUFFICIENT_SCOPE = REALM + b', error="insufficient_scope"\r\n'

cdef str SEVERAL = "there are several Authorization lines; a token comes in one: Authorization: Bearer"
cdef str NOT_BEARER = "the Authorization is none of a token: Authorization: Bearer"
cdef str NO_CERTIFIED = "there is no Authorization: Bearer, and the client's certificate stands for no token"
cdef str OF_OTHER_PAGE = (
    "a browser shows a certificate by itself, so it counts for no page of another origin and no link; Authorization: Bearer does"
)
cdef str CERTIFIED_EXPIRED = "the token for which the client's certificate stands has expired"
cdef str NOT_KNOWN = "the token is not known, or has expired"
cdef str NOT_FUNCTION = "the token does not reach this function"
cdef str NOT_PRIORITY = "the token does not reach this priority"
cdef str NOT_BACKGROUND = "the token does not reach background jobs"


@cython.final
cdef class Token:
    """One token's name and reach.

    sha256: of the secret; None for none. names: of certificates that stand for it, as core/certificate_names has them. shared: where jobs are counted with those of other processes. metrics: where requests and jobs are told
    of. functions: as in FunctionTable; none for all. rate, burst, max_jobs: 0 for any number. expires_s: since the epoch; None
    for never.
    """

    def __init__(
        self,
        bytes name not None,
        bytes sha256,
        Shared shared not None,
        Metrics metrics not None,
        *,
        names=(),
        functions=(),
        double rate=0.0,
        long long burst=0,
        uint32_t max_jobs=0,
        str highest_priority="high",
        bint background=True,
        expires_s=None,
    ):
        self.has_secret = sha256 is not None
        if sha256 is not None:
            if len(sha256) != SHA256_BYTES:
                raise ValueError("not a SHA-256")
            memcpy(self.sha256, PyBytes_AS_STRING(sha256), SHA256_BYTES)
        self.names = tuple(names)
        self.name = name
        self.mark = hashlib.sha256(name).digest()[:MARK_BYTES]
        self.functions = FunctionTable([(function, True) for function in functions])
        self.rate = rate
        self.burst = burst
        # Two tables of a name count together if they have the same rate: a debt says nothing to another one.
        self.rate_key = hash_of(b"\0token-rate\0%a:%d\0" % (rate, burst) + name)
        self.max_jobs = max_jobs
        # No function's name begins so.
        self.jobs_key = hash_of(b"\0token\0" + name)
        self.jobs = shared.functions
        self.highest_priority = PRIORITIES[highest_priority]
        self.background = background
        # One that expires before time began has expired; in three centuries it is nobody's any more.
        self.expires_ns = 0 if expires_s is None else min(max(1, int(expires_s * 1e9)), LATEST_NS)
        self.place = metrics.tokens.claim(name)
        self.metrics = metrics
        self.told_jobs = &metrics.own.token_jobs[self.place]

    cdef object enter(self, int* place):
        place[0] = NO_SLOT
        if self.max_jobs:
            place[0] = self.jobs.take(self.jobs_key, self.max_jobs)
            # Where the table has no room left for its name, it counts as full.
            if place[0] < 0:
                return TOO_MANY_TOKEN_JOBS
        self.told_jobs[0] += 1
        return None

    cdef int leave(self, int place) except -1:
        self.told_jobs[0] -= 1
        if place >= 0:
            self.jobs.give(place)
        return 0

    cdef bint has_expired(self) noexcept:
        cdef timespec now
        if not self.expires_ns:
            return False
        clock_gettime(CLOCK_REALTIME, &now)
        return now.tv_sec * 1_000_000_000 + now.tv_nsec >= self.expires_ns


@cython.final
cdef class Tokens:
    """All tokens.

    rates: where those that are not known are counted by address. hide_functions: functions that a token does not reach are
    as if they were none.
    """

    def __init__(self, Rates rates not None, tokens=(), *, bint hide_functions=False):
        cdef Token token
        cdef bytes key = os.urandom(sizeof(self.key))
        self.tokens = {}
        self.marks = {}
        self.generation = object()
        self.nobody = Token.__new__(Token)
        self.stranger = Token.__new__(Token)
        self.nobody.generation = self.stranger.generation = self.generation
        for token in tokens:
            token.generation = self.generation
            self.marks[token.mark] = token
            if token.has_secret:
                self.tokens.setdefault(token.sha256[:PREFIX_BYTES], []).append(token)
            for name in token.names:
                if self.by_certificate is None:
                    self.by_certificate = {}
                self.by_certificate[name] = token
        self.rates = rates
        self.attempts = rate_of(1.0 / ATTEMPT_S, ATTEMPTS)
        self.retry_after = RetryAfter(time.monotonic)
        self.hide_functions = hide_functions
        memcpy(self.key, PyBytes_AS_STRING(key), sizeof(self.key))

    cdef Token find(self, Request request, Asking* asking):
        cdef const char* text
        cdef Py_ssize_t size
        cdef Token token
        if asking.authorizations == 0:
            token = self._certified(request, asking)
            if token is None:
                return None
        elif asking.authorizations > 1:
            request.owner.answer_problem(request, UNAUTHENTICATED, SEVERAL, None)
            return None
        else:
            text = _secret_in(&asking.authorization, &size)
            if text == NULL:
                request.owner.answer_problem(request, UNAUTHENTICATED, NOT_BEARER, None)
                return None
            token = self.token_of(text, size)
            if token is None or token.has_expired():
                self._refuse(request)
                return None
        request.token_place = token.place + 1
        if request.note is not None:
            request.note.token = token.name
        return token

    cdef int check_function(self, Token token, bytes function) except -1:
        if not token.functions.empty and token.functions.find(function) is None:
            if self.hide_functions:
                raise RequestError(FUNCTION_NOT_ALLOWED)
            raise RequestError(NOT_PERMITTED, NOT_FUNCTION, INSUFFICIENT_SCOPE)
        return 0

    cdef int check_job(self, Token token, JobRequest wanted, bint is_submitted) except -1:
        if <int> wanted.priority > token.highest_priority:
            raise RequestError(NOT_PERMITTED, NOT_PRIORITY, INSUFFICIENT_SCOPE)
        if wanted.background and not token.background:
            raise RequestError(NOT_PERMITTED, NOT_BACKGROUND, INSUFFICIENT_SCOPE)
        if is_submitted and token.max_jobs and token.jobs.taken(token.jobs_key) >= token.max_jobs:
            raise RequestError(TOO_MANY_TOKEN_JOBS)
        return 0

    cdef Token of_mark(self, bytes mark):
        return <Token> self.marks.get(mark)

    cdef Token of_certificate(self, Request request):
        cdef object found = request.owner.certified
        cdef Token token
        cdef object shown
        if found is not None and (<Token> found).generation is self.generation:
            return <Token> found
        token = self.nobody
        try:
            shown = request.owner.client_names()
        except ValueError:
            # Python reads no name of a certificate of which one is no text.
            shown = ()
        if shown is not None:
            token = self.stranger
            for name in certificate_names.texts(shown):
                if name in self.by_certificate:
                    token = <Token> self.by_certificate[name]
                    break
        request.owner.certified = token
        return token

    cdef Token _certified(self, Request request, Asking* asking):
        """The token of a request without Authorization; None if it has none, and was answered so.

        Nobody tries names, which only the authority's certificates have: none of these answers counts as an attempt.
        """
        cdef Token token
        cdef str detail = None
        if self.by_certificate is not None:
            token = self.of_certificate(request)
            if token is self.nobody:
                detail = None
            elif token is self.stranger:
                detail = NO_CERTIFIED
            elif is_of_other_page(asking):
                detail = OF_OTHER_PAGE
            elif token.has_expired():
                detail = CERTIFIED_EXPIRED
            else:
                return token
        request.owner.answer_problem(request, UNAUTHENTICATED, detail, None)
        return None

    cdef Token token_of(self, const char* text, Py_ssize_t size):
        cdef uint64_t[2] hashed
        cdef Recent* recent
        cdef Token token
        if size > MOST_TOKEN_BYTES:
            return None
        hash_short(text, size, self.key, hashed)
        recent = &self.recent[hashed[0] % RECENT_TOKENS]
        if recent.token != NULL and not ((recent.hashed[0] ^ hashed[0]) | (recent.hashed[1] ^ hashed[1])):
            return <Token> recent.token
        token = self._known(text, size)
        if token is not None:
            recent.hashed = hashed
            recent.token = <void*> token
        return token

    cdef Token _known(self, const char* text, Py_ssize_t size):
        cdef bytes sha256 = hashlib.sha256(PyBytes_FromStringAndSize(text, size)).digest()
        cdef Token token
        cdef Token found = None
        for token in self.tokens.get(sha256[:PREFIX_BYTES], ()):
            if _is_same(token.sha256, PyBytes_AS_STRING(sha256)):
                found = token
        return found

    cdef int _refuse(self, Request request) except -1:
        cdef uint64_t hashed = request.owner.asker_hash(request)
        cdef long long wait_ns = 0
        # Clients of a unix socket have no address by which they could be told apart.
        if hashed:
            wait_ns = self.rates.take(rate_key(OF_ATTEMPTS, hashed), &self.attempts, now_ns(), NULL)
        if wait_ns:
            return request.owner.answer_problem(request, TOO_MANY_ATTEMPTS, None, self.retry_after.exactly(wait_ns))
        return request.owner.answer_problem(request, UNAUTHENTICATED, NOT_KNOWN, INVALID_TOKEN)


cdef const char* _secret_in(const Value* authorization, Py_ssize_t* size) noexcept:
    """The token of "Bearer", spaces, token (RFC 6750 2.1); NULL if it is not that. The scheme is of any case (RFC 9110 11.1)."""
    cdef const char* text = authorization.text
    cdef const char* end = text + authorization.size
    cdef char[8] scheme
    if authorization.size < 8:
        return NULL
    memcpy(scheme, text, 8)
    # The space and what follows it are looked at apart from the letters.
    if scheme[6] != c" ":
        return NULL
    scheme[6] = c"-"
    scheme[7] = c"-"
    if not is_word(scheme, b"bearer--"):
        return NULL
    text += 7
    while text < end and text[0] == c" ":
        text += 1
    size[0] = end - text
    return text if text < end else NULL


cdef bint _is_same(const unsigned char* one, const char* other) noexcept:
    """Whether they are the same SHA-256, in constant time."""
    cdef unsigned char difference = 0
    cdef int index
    for index in range(SHA256_BYTES):
        difference |= one[index] ^ <unsigned char> other[index]
    return difference == 0
