"""Whose token a request carries, and what it reaches."""

from libc.stdint cimport uint32_t, uint64_t

from gatewayx.core.function_table cimport FunctionTable
from gatewayx.core.metrics cimport Metrics
from gatewayx.core.rates cimport Rate, Rates
from gatewayx.core.shared cimport KeyTable
from gatewayx.gateway.asking cimport Asking
from gatewayx.gateway.job_request cimport JobRequest
from gatewayx.http.request cimport Request
from gatewayx.http.response cimport RetryAfter

cdef enum:
    SHA256_BYTES = 32
    # A longer token is known to nobody; none is looked at for longer than this takes.
    MOST_TOKEN_BYTES = 1024
    # Of tokens that were good so many are known by a keyed hash.
    RECENT_TOKENS = 1024

cpdef enum:
    # Of one address so many tokens that are not known are answered 401 at once, and one more each ATTEMPT_S.
    ATTEMPTS = 30
    ATTEMPT_S = 2


cdef class Token:
    # What it is called wherever it is told of: the secret itself is known nowhere.
    cdef readonly bytes name
    # By which one process tells another whose it is (gateway/owners): the first bytes of the SHA-256 of the name.
    cdef bytes mark
    # Of its secret; without one only certificates stand for it.
    cdef unsigned char[SHA256_BYTES] sha256
    cdef readonly bint has_secret
    # The names of certificates that stand for it (core/certificate_names).
    cdef readonly tuple names
    # Of which Tokens it is, the last to which it was given.
    cdef object generation
    # The functions that it reaches; all if it is empty.
    cdef FunctionTable functions
    # So many requests a second on average, and so many at once beside; 0 for any number. By what it is counted.
    cdef readonly double rate
    cdef readonly long long burst
    cdef readonly unsigned long long rate_key
    # The same as core/rates has it, and what is told of it in every answer; None until somebody asks (gateway/rates).
    cdef Rate allowance
    cdef bytes rate_lines
    # Where jobs in flight of this process are told of.
    cdef Metrics metrics
    cdef uint64_t* told_jobs
    # Jobs in flight of the name in all worker processes, 0 for any number; and where they count if there is a bound.
    cdef uint32_t max_jobs
    cdef uint64_t jobs_key
    cdef KeyTable jobs
    # A Priority.
    cdef int highest_priority
    cdef bint background
    # Since the epoch; 0 for never.
    cdef long long expires_ns
    # Among the tokens of core/metrics.
    cdef int place

    # Count one more job; the problem for which there may be none, or None. Each enter() that returns None is followed by one
    # leave(), with the place that it has told.
    cdef object enter(self, int* place)
    cdef int leave(self, int place) except -1
    cdef bint has_expired(self) noexcept


# A token that was good, by the keyed hash of its secret.
cdef struct Recent:
    uint64_t[2] hashed
    # One of `tokens`; NULL for none.
    void* token


cdef class Tokens:
    # By the first bytes of their SHA-256: lists of Tokens, of one nearly always. Keeps them alive.
    cdef dict tokens
    # By the names of certificates that stand for them; None while no certificate stands for any.
    cdef dict by_certificate
    # What its own Tokens have, and no others.
    cdef object generation
    # Stand for none: at a connection without a certificate, and at one whose certificate stands for none of them.
    cdef Token nobody
    cdef Token stranger
    # One by the mark of each name.
    cdef dict marks
    # Where tokens that are not known are counted by address, and how many may come.
    cdef Rates rates
    cdef Rate attempts
    cdef RetryAfter retry_after
    # Functions that a token does not reach are as if they were none.
    cdef bint hide_functions
    # Of the keyed hash; this process's own.
    cdef uint64_t[2] key
    # At the place that the hash says. It is made anew with the Tokens, so that it knows none that was taken away.
    cdef Recent[RECENT_TOKENS] recent

    # The token of a request; None if it has none or one that is not known, and was answered so: strangers try tokens as fast as
    # they can, and an exception costs more than a job.
    cdef Token find(self, Request request, Asking* asking)
    # Raise RequestError if the token does not reach the function.
    cdef int check_function(self, Token token, bytes function) except -1
    # The same for what else is asked for. is_submitted: a job of its own will be, so it needs a place among the token's.
    cdef int check_job(self, Token token, JobRequest wanted, bint is_submitted) except -1
    # A token with this mark; None for none.
    cdef Token of_mark(self, bytes mark)
    # The token that the verified certificate of the request's client stands for, whether or not it has expired; `nobody` or `stranger`
    # for none. It is looked for once a connection, and again once there are other Tokens.
    cdef Token of_certificate(self, Request request)
    cdef Token _certified(self, Request request, Asking* asking)
    # The token that a text is the secret of; None for none.
    cdef Token token_of(self, const char* text, Py_ssize_t size)
    cdef Token _known(self, const char* text, Py_ssize_t size)
    # Answer a request whose token is not known.
    cdef int _refuse(self, Request request) except -1
