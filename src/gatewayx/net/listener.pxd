"""Accepts connections in bounded batches, and survives the want of descriptors."""

from gatewayx.core.counters cimport Counters, Counts
from gatewayx.net.poller cimport Polled, TurnPoller
from gatewayx.net.sockets cimport CompactAddress
from gatewayx.net.stream cimport SocketStream
from gatewayx.net.tls cimport HandshakeLine

cdef enum:
    # Connections that are accepted in one turn, as many as HAProxy's tune.maxaccept; the others wait in the kernel for the
    # next. Whoever only connects gets no larger part of a turn than the clients that are in.
    ACCEPTS_PER_TURN = 4
    # Accepts in a row that fail for other reasons than want, before nothing is accepted for a while.
    MOST_FAILURES = 64
    # So long connections wait for a descriptor before they are turned away.
    PATIENCE_NS = 1_000_000_000


cdef class Listener(Polled):
    cdef TurnPoller poller
    # The socket that listens, and its descriptor; None and -1 once it is closed.
    cdef object bound
    cdef int descriptor
    # Where TLS handshakes of its connections wait; None for connections without.
    cdef HandshakeLine line
    # Makes the owner of an accepted connection's stream.
    cdef object factory
    # A descriptor to give up when there is no other; -1 if it could not be had again.
    cdef int spare
    # Connections wait, and nothing is done for them until resume(): it is not watched.
    cdef readonly bint waits
    # Since when there has been no descriptor for connections that wait, by now_ns(), 0 if there is one; and it was for so
    # long that they are turned away.
    cdef long long wants_since_ns
    cdef bint turns_away
    # How many accepts in a row have failed, want of descriptors or memory apart.
    cdef int failures
    # Keeps the row alive to which `counts` points.
    cdef Counters counted_in
    cdef Counts* counts

    cdef int _accept(self) except -1
    cdef SocketStream _take(self, int accepted, const CompactAddress* peer, factory)
    cdef int _wait(self) except -1
    cdef bint _turn_away(self) except -1
