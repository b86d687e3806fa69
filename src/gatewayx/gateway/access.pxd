"""Who may ask for a job at all, and who for which."""

from gatewayx.gateway.job_request cimport JobRequest
from gatewayx.gateway.origins cimport Origins
from gatewayx.gateway.rates cimport RateLimits
from gatewayx.gateway.tokens cimport Token, Tokens
from gatewayx.http.request cimport Request


cdef class Access:
    cdef readonly Origins origins
    # None while anybody may ask without a token.
    cdef readonly Tokens tokens
    # None while nobody is bounded.
    cdef readonly RateLimits rates
    # Something was set by which every request is looked at, not only those that say where they come from.
    cdef bint looks_at_all
    # Something was set for which every head is read, not only those with a line that tells who asks.
    cdef bint reads_all
    # Requests are also looked at for the job that they ask for.
    cdef bint limits_jobs
    # The token of the request that was checked last; None for none, and while anybody may ask.
    cdef Token token

    # Look at a request whose head is there. Returns whether it was answered, as a preflight is; raises RequestError.
    cdef bint check(self, Request request) except -1
    # The request that was checked last asks for this function: whether it may; raises RequestError.
    cdef int check_function(self, bytes function) except -1
    # The request that was checked last asks for this job: whether it may; raises RequestError.
    cdef int check_job(self, Request request, JobRequest wanted) except -1
    # A batch that was checked, with this token, None for none, has a further line, which counts as a request of the same address and
    # token: whether it may; raises RequestError.
    cdef int check_further(self, Request request, Token token) except -1
    # One of its lines asks for this job: whether it may; raises RequestError.
    cdef int check_line(self, Request request, Token token, JobRequest wanted) except -1
    # The token of a batch while it is under way, as it is now: None for none; raises RequestError if it is not valid any more.
    cdef Token token_now(self, Tokens tokens, Token token)
    # A request is refused before it has begun: say which lines its answer has.
    cdef int refused(self, Request request) except -1
