"""Who may ask for a job at all, and who for which.

All of it is looked at when the head is there, before a body is read, and by the process to which the client is connected:
what another one relays was looked at already. First comes what costs least and is cheapest to get wrong for a stranger: the
host and the page that asks, then its token, then how often its address and its token have asked, and last what the token
reaches.
"""

cimport cython

from gatewayx.gateway.asking cimport ABOUT_THE_KEY, ABOUT_WHO_ASKS, Asking, read_asking
from gatewayx.gateway.job_request cimport JobRequest
from gatewayx.gateway.origins cimport Origins
from gatewayx.gateway.rates cimport RateLimits
from gatewayx.gateway.tokens cimport Token, Tokens
from gatewayx.http.request cimport Request

from gatewayx.http.problems import UNAUTHENTICATED, RequestError


@cython.final
cdef class Access:
    """Who may. origins: of pages. tokens: None while anybody may. rates: None while nobody is bounded."""

    def __init__(self, Origins origins=None, Tokens tokens=None, RateLimits rates=None):
        self.change(origins, tokens, rates)

    def change(self, Origins origins=None, Tokens tokens=None, RateLimits rates=None):
        """Be as if it had been made with these, for requests that begin from now on."""
        self.origins = Origins() if origins is None else origins
        self.tokens = tokens
        self.token = None
        self.rates = rates
        self.limits_jobs = tokens is not None or (rates is not None and not rates.functions.empty)
        self.looks_at_all = tokens is not None or rates is not None or self.origins.is_set
        self.reads_all = tokens is not None or self.origins.is_set

    cdef bint check(self, Request request) except -1:
        cdef Asking asking
        self.token = None
        if request.owner.is_relayed():
            return False
        if self.reads_all or request.header_kinds & ABOUT_WHO_ASKS:
            read_asking(request, &asking)
            if self.origins.check(request, &asking):
                return True
        if self.tokens is not None:
            # Before the address, so that nobody without a token takes from what others of the same address have.
            self.token = self.tokens.find(request, &asking)
            if self.token is None:
                return True
        if self.rates is not None:
            self.rates.check_address(request)
            if self.token is not None:
                self.rates.check_token(request, self.token, True)
        return False

    cdef int check_function(self, bytes function) except -1:
        return 0 if self.token is None else self.tokens.check_function(self.token, function)

    cdef int check_job(self, Request request, JobRequest wanted) except -1:
        cdef Token token = self.token
        if request.owner.is_relayed():
            return 0
        if token is not None:
            # Whether a key is known already, and needs no job, is seen where it is looked for.
            self.tokens.check_job(token, wanted, not request.header_kinds & ABOUT_THE_KEY)
        if self.rates is not None:
            self.rates.check_function(request, token, wanted.function, True)
        return 0

    cdef int check_further(self, Request request, Token token) except -1:
        if self.rates is not None and not request.owner.is_relayed():
            self.rates.check_address(request)
            if token is not None:
                self.rates.check_token(request, token, False)
        return 0

    cdef Token token_now(self, Tokens tokens, Token token):
        if self.tokens is not tokens:
            # They were read anew since: what the name may do now is what counts.
            token = None if self.tokens is None or token is None else self.tokens.of_mark(token.mark)
        if self.tokens is not None and (token is None or token.has_expired()):
            raise RequestError(UNAUTHENTICATED, "the token with which the batch came is not valid any more")
        return token

    cdef int check_line(self, Request request, Token token, JobRequest wanted) except -1:
        if token is not None:
            self.tokens.check_function(token, wanted.function)
            self.tokens.check_job(token, wanted, True)
        if self.rates is not None and not request.owner.is_relayed():
            self.rates.check_function(request, token, wanted.function, False)
        return 0

    cdef int refused(self, Request request) except -1:
        cdef Asking asking
        if self.origins.is_set:
            read_asking(request, &asking)
            self.origins.name(request, &asking)
        return 0
