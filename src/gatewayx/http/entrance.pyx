"""Who is let in: connections that count among those of the gateway, and among those of their address.

Where a trusted proxy tells of the addresses of its clients, its connections are those of all of them. Then none counts for an
address, and requests do: of each client as many may be in flight as connections may be open elsewhere.
"""

cimport cython
from libc.stdint cimport uint64_t

from gatewayx.core.clock cimport now_ns
from gatewayx.core.rates cimport OF_CONNECTIONS, Rates, rate_key
from gatewayx.core.shared cimport CONNECTIONS, Shared, hash_of
from gatewayx.http.forwarded cimport OF_CONNECTION, TrustedProxies, name_told
from gatewayx.http.idle cimport Occupant
from gatewayx.http.limits cimport Limits
from gatewayx.http.refusals cimport address_key
from gatewayx.http.request cimport ProxyNote, Request
from gatewayx.net.networks cimport host_text
from gatewayx.net.sockets cimport CompactAddress


@cython.final
cdef class Entrance:
    """What bounds who is let in, for all connections of a process."""

    def __init__(self, Limits limits not None, Shared shared not None, Rates rates not None):
        self.limits = limits
        self.shared = shared
        self.rates = rates


cdef class Entrant(Occupant):
    """A client's connection, as it counts."""

    cdef object peer(self):
        raise NotImplementedError

    cdef bytes own_address(self):
        return address_key(self.peer())

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

    cdef bint is_relayed(self) noexcept:
        return self.relayed

    cdef bint is_from_proxy(self) except -1:
        cdef TrustedProxies proxies = self.entrance.proxies
        if proxies is None or self.relayed or self.is_anybodys:
            return False
        if self.judged_by != proxies.serial:
            self.is_proxys = proxies.trusts(self.peer(), self.unix_path)
            self.judged_by = proxies.serial
        return self.is_proxys

    cdef bint is_of_many(self) except -1:
        cdef TrustedProxies proxies = self.entrance.proxies
        return proxies is not None and proxies.source != OF_CONNECTION and self.is_from_proxy()

    cdef int read_proxy_note(self, Request request) except -1:
        cdef CompactAddress client
        cdef ProxyNote told
        cdef bytes name
        cdef str host
        cdef bint has_client
        if not self.is_from_proxy():
            return 0
        has_client = self.entrance.proxies.source != OF_CONNECTION and self.entrance.proxies.read_client(request, &client)
        name = name_told(request)
        if not has_client and name is None:
            return 0
        told = request.proxy_note = ProxyNote.__new__(ProxyNote)
        told.name = name
        if has_client:
            host = host_text(&client)
            told.host = host.encode("ascii")
            told.address = address_key((host,))
        return 0

    cdef bytes asker(self, Request request):
        if request.proxy_note is not None and request.proxy_note.address is not None:
            return request.proxy_note.address
        if self.address is None and not self.relayed:
            self.address = self.own_address()
        return self.address

    cdef uint64_t asker_hash(self, Request request) except? 0:
        cdef ProxyNote told = request.proxy_note
        if told is not None and told.address is not None:
            if told.address_hash == 0:
                told.address_hash = hash_of(told.address)
            return told.address_hash
        # Behind a process that relays are the clients of many addresses.
        return self.address_hash if self.address_hash or self.relayed else self.hash_address()

    cdef bint take_request(self, Request request) except -1:
        cdef unsigned int bound = self.entrance.limits.max_connections_per_address
        cdef uint64_t hashed
        if bound == 0 or not self.is_of_many():
            return True
        hashed = self.asker_hash(request)
        if hashed == 0:
            # Of a unix socket, by a proxy that tells nothing.
            return True
        if request.proxy_note is None:
            request.proxy_note = ProxyNote.__new__(ProxyNote)
        # Where the table is full the address counts as full, as for connections.
        request.proxy_note.address_slot = self.entrance.shared.addresses.take(hashed, bound)
        return request.proxy_note.address_slot >= 0

    cdef int give_request(self, Request request) except -1:
        cdef ProxyNote told = request.proxy_note
        if told.address_slot >= 0:
            self.entrance.shared.addresses.give(told.address_slot)
            told.address_slot = -1
        return 0

    cdef bytes sender_of(self, Request request):
        if request is not None and request.proxy_note is not None and request.proxy_note.address is not None:
            return request.proxy_note.address
        # Until its head is whole, what a proxy passes on may be anybody's.
        if (request is None or request.owner is None) and self.is_of_many():
            return None
        if self.address is None and not self.relayed:
            self.address = self.own_address()
        return self.address

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
