"""One HTTP request with an idempotency key."""

from gatewayx.gateway.exchange cimport Exchange
from gatewayx.gateway.kept_exchange cimport KeptExchange
from gatewayx.gateway.keys cimport KeyRecord, Keys
from gatewayx.gateway.own_request cimport OwnRequest
from gatewayx.gateway.watching cimport Wait
from gatewayx.http.request cimport BodySink, Request


cdef class KeyedExchange(Exchange):
    # The exchange that it would be without a key, which runs for the key if this is the first request with it.
    cdef Exchange form
    # The header's value as sent, and by what the key is known (gateway/keys).
    cdef bytes key_value
    cdef bytes hashed
    # The fingerprint of the request, which takes the workload as it arrives.
    cdef Fingerprint fingerprint
    # The job is not this request's, but that of an earlier one.
    cdef bint is_repeated
    # None before it waits for the key's answer, and after.
    cdef KeyRecord record
    cdef Wait wait

    # Be the request that was read into the form, with this key; what of it goes without one was looked at. is_owner: its key is
    # this process's.
    cdef int read(self, Exchange form, bytes value, bytes hashed, bint is_owner) except -1
    cdef int _begin(self, bytes fingerprint) except -1
    cdef int _wait(self, KeyRecord record) except -1
    cdef int _answer_kept(self, KeyRecord record) except -1


cdef class KeyRequest(OwnRequest):
    """The client of a key's job, which does not hang up."""
    cdef Keys keys
    cdef KeyRecord record
    # What it runs, where that is to be kept; None otherwise.
    cdef KeptExchange kept

    cdef int _end(self, Request request) except -1


cdef class Fingerprint(BodySink):
    # Of hashlib.
    cdef object hashing
    # It was given a body as that arrived.
    cdef bint has_taken

    cdef bytes of(self, bytes workload)
