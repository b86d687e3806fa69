"""Whose request a proxy has passed on, by the header in which proxies say so. No I/O."""

from gatewayx.http.request cimport Request
from gatewayx.net.networks cimport Networks
from gatewayx.net.sockets cimport CompactAddress

cdef enum:
    # Of all that a request says, so many entries are looked at, from the right, empty ones too: more proxies stand behind
    # each other nowhere, and a client can send thousands.
    MOST_ENTRIES = 64
    # Of the name that a proxy gives a request.
    MOST_NAME_BYTES = 128


# Where a client's address stands.
cdef enum AddressSource:
    # In its connection: no header says so.
    OF_CONNECTION = 0
    OF_FORWARDED = 1
    OF_X_FORWARDED_FOR = 2


# How far entries were walked.
cdef struct Walk:
    # The last address that was read, of family 0 before the first one.
    CompactAddress found
    int entries


cdef class TrustedProxies:
    # Whose word is taken.
    cdef Networks networks
    # Whoever connects to a unix socket, or to those with these paths.
    cdef bint trusts_unix
    cdef frozenset unix_paths
    # The one header that tells of clients' addresses.
    cdef AddressSource source
    # Tells it from any other one of the process; above 0.
    cdef readonly unsigned int serial

    # Whether the other side of a connection is one of them: its address as Stream.peer() tells it, None for a unix socket,
    # which has this path, None for another one's.
    cdef bint trusts(self, object peer, object path) except -1
    # Read whose request a trusted proxy has passed on; False if the headers tell no address.
    cdef bint read_client(self, Request request, CompactAddress* client) except -1


# The name that a trusted proxy gives the request, X-Request-Id; None unless there is one that is fit to stand in lines and logs.
cdef bytes name_told(Request request)
