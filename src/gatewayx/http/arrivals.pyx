"""Requests of which a part is here and more must come.

Theory of operation. A request that comes whole is never here; one that is cut is, from its first piece to its last. Two
orders say who makes room for others: by the last byte, for connections that stand still, and by sender, for whoever
holds most of what a full account has. Both are intrusive lists: a byte that comes relinks two neighbours.

Whoever comes over a unix socket has no address: behind it are all clients of a proxy, and nothing tells them apart. As one
sender they would hold most together, and be ended for an address that takes as much as it can; so of theirs only the largest
request counts where senders are compared. If that is more than any address holds, the youngest of them is ended: the
largest, which is nearly done, would never be finished while others come.
"""

cimport cython

from gatewayx.core.budget cimport ACCOUNTS, Account
from gatewayx.http.request cimport RequestOwner


@cython.final
cdef class Sender:
    """An IPv4 address, or an IPv6 /64, from which unfinished requests come; or all connections without an address."""

    cdef long long most_held(self, Account account) noexcept:
        cdef long long most = 0
        cdef Arrival arrival
        if self.address is not None:
            return self.held[account]
        arrival = self.oldest
        while arrival is not None:
            if arrival.held[account] > most:
                most = arrival.held[account]
            arrival = arrival.younger
        return most


@cython.final
@cython.freelist(64)
cdef class Arrival:
    """One unfinished head or body; the .pxd says what each field means."""


@cython.final
cdef class Arrivals:
    """All unfinished requests of a process; as many as there are connections, at most."""

    def __init__(self):
        self.senders = {}

    cdef Arrival add(self, RequestOwner owner, bytes address, long long tick):
        cdef Arrival arrival = Arrival.__new__(Arrival)
        cdef Sender sender = <Sender> self.senders.get(address)
        if sender is None:
            sender = self.senders[address] = Sender.__new__(Sender)
            sender.address = address
        arrival.owner = owner
        arrival.sender = sender
        arrival.older = sender.youngest
        if sender.youngest is None:
            sender.oldest = arrival
        else:
            sender.youngest.younger = arrival
        sender.youngest = arrival
        self.count += 1
        arrival.moved_tick = tick
        self._link_latest(arrival)
        return arrival

    cdef int remove(self, Arrival arrival) except -1:
        cdef Sender sender = arrival.sender
        cdef int account
        if arrival.owner is None:
            return 0
        arrival.owner = None
        self.count -= 1
        self._unlink_moved(arrival)
        if arrival.older is None:
            sender.oldest = arrival.younger
        else:
            arrival.older.younger = arrival.younger
        if arrival.younger is None:
            sender.youngest = arrival.older
        else:
            arrival.younger.older = arrival.older
        arrival.older = None
        arrival.younger = None
        for account in range(ACCOUNTS):
            sender.held[account] -= arrival.held[account]
            arrival.held[account] = 0
        if sender.oldest is None:
            del self.senders[sender.address]
        return 0

    cdef int moved(self, Arrival arrival, long long tick) except -1:
        arrival.moved_tick = tick
        if arrival is not self.latest:
            self._unlink_moved(arrival)
            self._link_latest(arrival)
        return 0

    cdef int tell_held(self, Arrival arrival, Account account, long long size_bytes) except -1:
        if arrival.owner is not None:
            arrival.sender.held[account] += size_bytes - arrival.held[account]
            arrival.held[account] = size_bytes
        return 0

    cdef Arrival youngest_of_largest(self, Account account):
        cdef Sender sender, largest = None
        cdef Arrival arrival
        cdef long long held, most = 0
        for item in self.senders.values():
            sender = <Sender> item
            held = sender.most_held(account)
            if held > most:
                most = held
                largest = sender
        if largest is None:
            return None
        arrival = largest.youngest
        while arrival.held[account] == 0:
            arrival = arrival.older
        return arrival

    cdef void _link_latest(self, Arrival arrival) noexcept:
        arrival.stiller = self.latest
        arrival.later = None
        if self.latest is None:
            self.stillest = arrival
        else:
            self.latest.later = arrival
        self.latest = arrival

    cdef void _unlink_moved(self, Arrival arrival) noexcept:
        if arrival.stiller is None:
            self.stillest = arrival.later
        else:
            arrival.stiller.later = arrival.later
        if arrival.later is None:
            self.latest = arrival.stiller
        else:
            arrival.later.stiller = arrival.stiller
        arrival.stiller = None
        arrival.later = None
