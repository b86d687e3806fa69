"""Who is let in: connections that count among those of the gateway, and among those of their address."""

from libc.stdint cimport uint64_t

from gatewayx.core.rates cimport Rates
from gatewayx.core.shared cimport Shared
from gatewayx.core.turns cimport Flag
from gatewayx.http.forwarded cimport TrustedProxies
from gatewayx.http.idle cimport Occupant
from gatewayx.http.limits cimport Limits
from gatewayx.http.request cimport Request


cdef class Entrance:
    cdef Limits limits
    # Where connections count, and those of an address, or of a /64 of IPv6, if that has a bound.
    cdef Shared shared
    # How often an address connects; and how long the one has to wait that was refused last, since it does so too often.
    cdef Rates rates
    cdef long long wait_ns
    # Who is believed when it tells whose requests it passes on; None for nobody.
    cdef TrustedProxies proxies


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
    # It is another process of this gateway.
    cdef Flag relayed
    # A proxy has passed somebody on at its beginning and has not said whom: what comes is not the proxy's word.
    cdef Flag is_anybodys
    # Whether it is a trusted proxy's connection, as the TrustedProxies with this serial say; 0 until somebody asks.
    cdef Flag is_proxys
    cdef unsigned int judged_by
    # Of the unix socket to which its client has connected; None for another one.
    cdef object unix_path

    # The address of its other side as Stream.peer() has it, and as it counts (http/refusals); None for none.
    cdef object peer(self)
    cdef bytes own_address(self)
    # Whether a trusted proxy is at its other side; and whether that tells of the clients' addresses, so that the connection is of nobody
    # alone.
    cdef bint is_from_proxy(self) except -1
    cdef bint is_of_many(self) except -1
    # Keep what a trusted proxy tells of a request whose head is there and whole; nobody else is listened to.
    cdef int read_proxy_note(self, Request request) except -1
    # Count a request of whose client a proxy may have told among what is in flight of its address, if one more may be; and no more.
    cdef bint take_request(self, Request request) except -1
    cdef int give_request(self, Request request) except -1
    # Whose unfinished request it is, where those of an address are compared: None where nobody knows.
    cdef bytes sender_of(self, Request request)
    cdef uint64_t hash_address(self) except? 0
    # Whether its address connects no more often than may be.
    cdef bint is_in_time(self) except -1
    # Count among the connections, if one more may be; and among those of its address.
    cdef bint take_place(self) noexcept
    cdef bint take_address(self, unsigned int bound) except -1
    # Count no more, whoever it is that asks first.
    cdef int give_place(self) except -1
