"""A request that the gateway makes itself, for a job that no request of a client is alone with."""

from libc.stdint cimport uint64_t

from gatewayx.gateway.common cimport Common
from gatewayx.gateway.exchange cimport Exchange
from gatewayx.http.request cimport Request, RequestOwner


cdef class OwnRequest(RequestOwner):
    """Stands where a client's connection stands: a subclass takes the answer, by answer() or answer_problem()."""
    # What it asks for; None before that, and once it was answered or left.
    cdef Request request
    # The address that asks, and its hash, as RequestOwner tells them of the client for whom it is made.
    cdef bytes asker_name
    cdef uint64_t asker_hashed

    # It is made for this client's request.
    cdef int made_for(self, Request client) except -1
    # Have the job run that was read into the exchange, with this workload. The answer may come before this returns. path: of the
    # function, percent-encoded, by which another process is asked; None where none is. function_place: of core/metrics.
    cdef int submit(
        self, Common gateway, Exchange exchange, bytes path, bytes workload, int function_place, Request client
    ) except -1
    # For the subclass: the answer is here, and nothing more comes.
    cdef int answered(self) except -1
    # Nobody wants the answer any more, as when a client hangs up.
    cdef int leave(self) except -1
