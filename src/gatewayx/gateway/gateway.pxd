"""Which requests become jobs."""

from gatewayx.gateway.access cimport Access
from gatewayx.gateway.batch cimport Batches
from gatewayx.gateway.common cimport Common
from gatewayx.gateway.exchange cimport Exchange
from gatewayx.gateway.job_request cimport JobRequest
from gatewayx.gateway.keyed_exchange cimport KeyedExchange
from gatewayx.gateway.routes cimport RecentFunctions
from gatewayx.http.request cimport Request


cdef class Gateway(Common):
    """Makes an Exchange of every request that asks for a job; one a process."""
    cdef readonly Access access
    cdef RecentFunctions functions
    # What GET / is answered with, and its header lines; None where that is the want of a function, which it is but in the demo.
    cdef bytes page
    cdef bytes page_lines

    # Takes what comes to /v1/batch.
    cdef Batches batches

    # Read what the head asks for, whose job may take so long; raises RequestError.
    cdef int _read_head(self, JobRequest wanted, Request request, double timeout_s) except -1
    # The same for a request whose head says something of the form of its answer: what is to answer it.
    cdef JobRequest _read_form(self, Exchange exchange, Request request)
    # The same for a request that has an Idempotency-Key.
    cdef KeyedExchange _read_keyed(self, Exchange exchange, Request request)
    # The request is `asked`'s.
    cdef int _let_in(self, JobRequest asked, Request request) except -1
    # A call about a job.
    cdef int _begin_call(self, Request request) except -1
    # Whose token the client has that asks, by its mark; None for none.
    cdef bytes _token_mark(self, Request request)
