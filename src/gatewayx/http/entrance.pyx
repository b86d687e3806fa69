"""Who is let in: connections that count among those of the gateway, and among those of their address."""

cimport cython
from libc.stdint cimport uint64_t

from gatewayx.core.clock cimport now_ns
from gatewayx.core.rates cimport OF_CONNECTIONS, Rates, rate_key
from gatewayx.core.shared cimport CONNECTIONS, Shared, hash_of
from gatewayx.http.idle cimport Occupant
from gatewayx.http.limits cimport Limits


@cython.final
cdef class Entrance:
    """What bounds who is let in, for all connections of a process."""

    def __init__(self, Limits limits not None, Shared shared not None, Rates rates not None):
        self.limits = limits
        self.shared = shared
        self.rates = rates


cdef class Entrant(Occupant):
    """A client's connection, as it counts."""

    cdef bytes own_address(self):
        raise NotImplementedError

    cdef uint64_t hash_address(self) except? 0:
        cdef bytes address = self.own_address()
        if address is not None:
            self.address_hash = hash_of(address)
        return self.address_hash

    cdef bint is_in_time(self) except -1:
        cdef Entrance entrance = self.entrance
        cdef uint64_t hashed
        if entrance.limits.connection_rate.interval_ns == 0:
            return True
        hashed = self.hash_address()
        if hashed == 0:
            # A client of a unix socket.
            return True
        entrance.wait_ns = entrance.rates.take(
            rate_key(OF_CONNECTIONS, hashed), &entrance.limits.connection_rate, now_ns(), NULL
        )
        return entrance.wait_ns == 0

    cdef bint take_place(self) noexcept:
        self.has_place = self.entrance.shared.take(CONNECTIONS, 1, self.entrance.limits.max_connections)
        return self.has_place

    cdef bint take_address(self, unsigned int bound) except -1:
        self.address = self.own_address()
        if self.address is None:
            return True
        # Where the table is full, of which there is twice the room that connections take, the address counts as full.
        self.address_slot = self.entrance.shared.addresses.take(hash_of(self.address), bound)
        if self.address_slot >= 0:
            return True
        self.address = None
        return False

    cdef int give_place(self) except -1:
        cdef Shared shared = self.entrance.shared
        if self.has_place:
            self.has_place = False
            shared.give(CONNECTIONS, 1)
        if self.address_slot >= 0:
            shared.addresses.give(self.address_slot)
            self.address_slot = -1
        return 0
