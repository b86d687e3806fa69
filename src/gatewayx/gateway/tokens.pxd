"""Whose token a request carries, and what it reaches."""

from gatewayx.gateway.asking cimport Asking
from gatewayx.gateway.job_request cimport JobRequest
from gatewayx.http.request cimport Request


cdef class Token:
    # What it is called wherever it is told of: the secret itself is known nowhere.
    cdef readonly bytes name
    # So many requests a second on average, and so many at once beside; 0 for any number. By what it is counted.
    cdef readonly double rate
    cdef readonly long long burst
    cdef readonly unsigned long long rate_key


cdef class Tokens:
    # The token of a request; raises RequestError for none, or one that is not known.
    cdef Token find(self, Request request, Asking* asking)
    # Raise RequestError if the token does not reach what is asked for.
    cdef int check_job(self, Token token, JobRequest wanted) except -1
