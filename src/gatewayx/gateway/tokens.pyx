"""Whose token a request carries, and what it reaches."""

cimport cython

from gatewayx.gateway.asking cimport Asking
from gatewayx.gateway.job_request cimport JobRequest
from gatewayx.http.request cimport Request


@cython.final
cdef class Token:
    """One token's name and reach."""


@cython.final
cdef class Tokens:
    """All tokens."""

    cdef Token find(self, Request request, Asking* asking):
        return None

    cdef int check_job(self, Token token, JobRequest wanted) except -1:
        return 0
