"""Floods: connections that no good client makes, many at once or so many a second."""

from gatewayx.net.poller cimport Polled, Poller
from gatewayx.net.sockets cimport Peer

cdef enum Manner:
    # Sends, reads the answer to its end and is gone.
    READS = 0
    # Sends and is gone.
    LEAVES = 1
    # Sends, and then a byte a second until the server has had enough.
    DRIPS = 2
    # Sends whatever the server takes, again and again, and reads nothing.
    IGNORES = 3

cdef enum:
    READ_BYTES = 65536
    STATUSES = 1000


cdef class FloodKind:
    cdef readonly str name
    cdef Manner manner
    cdef bytes text


cdef class FloodConnection(Polled):
    cdef FloodGenerator generator
    cdef FloodKind kind
    # -1 while there is none.
    cdef int descriptor
    cdef bint sent
    # IGNORES alone: how many bytes of the text have been sent since it last began anew.
    cdef Py_ssize_t sent_bytes
    cdef bint answered
    cdef long long next_drip_ns
    # The next place in the list of those without a connection.
    cdef FloodConnection next_unused

    cdef int open(self, FloodKind kind) except -1
    cdef int end(self) except -1
    cdef int drip(self, long long at_ns) except -1


cdef class FloodGenerator:
    cdef Peer peer
    cdef Poller poller
    cdef list kinds
    cdef list connections
    cdef FloodConnection first_unused
    # New connections a second; 0 for as many as go.
    cdef double rate
    cdef long long begins_ns
    cdef long long ends_ns
    cdef bint sending
    cdef int next_kind
    cdef char* received
    # Connections that drip or ignore, of those open now.
    cdef readonly int slow
    cdef readonly int open_now
    cdef readonly int highest_open
    # Connections in all; how those ended that brought no answer; answers by status.
    cdef readonly long long opened
    cdef readonly long long closed_silently
    cdef readonly long long resets
    cdef readonly long long failed
    cdef long long statuses[STATUSES]

    cdef int open_due(self) except -1
    cdef FloodKind _choose_kind(self)
    cdef int count_answer(self, Py_ssize_t size) except -1
