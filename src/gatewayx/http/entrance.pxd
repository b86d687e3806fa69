"""Who is let in: connections that count among those of the gateway, and among those of their address."""

from libc.stdint cimport uint64_t

from gatewayx.core.rates cimport Rates
from gatewayx.core.shared cimport Shared
from gatewayx.core.turns cimport Flag
from gatewayx.http.idle cimport Occupant
from gatewayx.http.limits cimport Limits


cdef class Entrance:
    cdef Limits limits
    # Where connections count, and those of an address, or of a /64 of IPv6, if that has a bound.
    cdef Shared shared
    # How often an address connects; and how long the one has to wait that was refused last, since it does so too often.
    cdef Rates rates
    cdef long long wait_ns


cdef class Entrant(Occupant):
    """A client's connection, as it counts."""
    cdef Entrance entrance
    # Whom it counts for among the connections of an address, if those are bounded, and among the senders of unfinished
    # requests; None until it does.
    cdef bytes address
    # The hash of its address, whether that is known there or not; 0 until somebody asks, and without one.
    cdef uint64_t address_hash
    # Where it counts in shared.addresses, -1 for nowhere; and whether it counts in shared's connections.
    cdef int address_slot
    cdef Flag has_place

    # Whose it is (http/refusals); None for nobody's.
    cdef bytes own_address(self)
    cdef uint64_t hash_address(self) except? 0
    # Whether its address connects no more often than may be.
    cdef bint is_in_time(self) except -1
    # Count among the connections, if one more may be; and among those of its address.
    cdef bint take_place(self) noexcept
    cdef bint take_address(self, unsigned int bound) except -1
    # Count no more, whoever it is that asks first.
    cdef int give_place(self) except -1
