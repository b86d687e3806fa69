"""The names by which the gateway is asked for."""

from gatewayx.gateway.asking cimport Value


cdef class Hosts:
    # What host_key() makes of each.
    cdef frozenset keys
    # The Host that was served last, since clients say the same again and again; None before the first one.
    cdef bytes last

    # Whether the host of this value of Host is one of them.
    cdef bint have(self, const Value* host) except -1


# Whether a browser asks its own machine by it: localhost, a name below that, or an address that means the machine itself.
cdef bint is_own_machine(const Value* host) noexcept
# Whether an origin is that of the host, and of its port. Of the host the scheme is not known.
cdef bint is_origin_of(const Value* origin, const Value* host) noexcept
# The same of a host that is reached by TLS.
cdef bint is_https_origin_of(const Value* origin, const Value* host) noexcept
