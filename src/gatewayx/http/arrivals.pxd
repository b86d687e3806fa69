"""Requests of which a part is here and more must come: by when their last byte came, and by who sends them."""

from gatewayx.core.budget cimport ACCOUNTS, Account
from gatewayx.http.request cimport RequestOwner


cdef class Sender:
    """An IPv4 address, or an IPv6 /64, from which unfinished requests come; or all connections without an address."""
    # Its key in Arrivals.senders; None for connections without an address, which are those of unix sockets.
    cdef bytes address
    # Its arrivals, by when each began.
    cdef Arrival oldest
    cdef Arrival youngest
    # What they have of each account, in bytes.
    cdef long long[ACCOUNTS] held

    # What counts of it where senders are compared, in bytes.
    cdef long long most_held(self, Account account) noexcept


cdef class Arrival:
    """One unfinished head or body."""
    # The client's connection; None once the request is complete, or given up.
    cdef RequestOwner owner
    # Its neighbours in Arrivals.stillest … latest.
    cdef Arrival stiller
    cdef Arrival later
    # The tick of its last byte.
    cdef long long moved_tick
    # Who sends it, and its neighbours there.
    cdef Sender sender
    cdef Arrival older
    cdef Arrival younger
    # What it has of each account, in bytes, as was told last.
    cdef long long[ACCOUNTS] held


cdef class Arrivals:
    # All of them, the one without a byte for longest first.
    cdef Arrival stillest
    cdef Arrival latest
    cdef readonly Py_ssize_t count
    # Sender by address; each has at least one arrival.
    cdef dict senders

    cdef Arrival add(self, RequestOwner owner, bytes address, long long tick)
    cdef int remove(self, Arrival arrival) except -1
    # A byte has come.
    cdef int moved(self, Arrival arrival, long long tick) except -1
    # What it has of an account now.
    cdef int tell_held(self, Arrival arrival, Account account, long long size_bytes) except -1
    # Of those that have something of the account: the youngest of the sender whose arrivals have most of it; None for none.
    cdef Arrival youngest_of_largest(self, Account account)
    cdef void _link_latest(self, Arrival arrival) noexcept
    cdef void _unlink_moved(self, Arrival arrival) noexcept
