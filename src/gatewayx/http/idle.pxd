"""Who makes room for others: idle connections, unfinished requests, clients that do not read."""

from gatewayx.core.budget cimport Account, ByteBudget, Held
from gatewayx.core.counters cimport Counters, Counts
from gatewayx.core.deadlines cimport DeadlineWheel
from gatewayx.http.arrivals cimport Arrivals
from gatewayx.http.refusals cimport Refusable
from gatewayx.http.request cimport Request

cpdef enum:
    # Idle connections of which it is asked, for each newcomer at max_connections, whether a request has come.
    MAX_LOOKED_AT = 64
    # While an account of the byte budget is crowded, a body or an unread answer must keep the pace at which all of it
    # passes in PACE_S, from PACE_GRACE_S on; small things must move once in STILL_S.
    PACE_S = 30
    PACE_GRACE_S = 2
    STILL_S = 1
    # A connection whose last answer is no older than this is in use: a drain does not close it, for its next request may
    # be on its way (nginx: keepalive_min_timeout).
    IN_USE_S = 2
    # Idle connections that a drain closes in a second, unless there are too many for the time that it has; and so long it
    # takes for few of them.
    CLOSES_PER_S = 500
    LEAST_SPREAD_S = 1


cdef class Occupant(Refusable):
    """A client's connection, as those see it who need its place or its room."""
    # The list in which it stands, None for none, and its neighbours there.
    cdef OccupantList place
    cdef Occupant previous_in_place
    cdef Occupant next_in_place
    # The tick at which it came there.
    cdef long long placed_tick

    # Bytes of its next request have come and are not read yet.
    cdef bint request_waits(self) except -1
    # It was answered before, and no byte of its next request is here: a drain may close it.
    cdef bint unused(self) except -1
    # A drain closes it.
    cdef int end_unused(self) except -1
    # Its unfinished request is all that it has, and the gateway reads it.
    cdef bint only_arrives(self) noexcept
    # Its unfinished request comes too slowly for a crowded account.
    cdef bint arrives_slowly(self, Account account) noexcept
    # Its client takes the answers that count in this crowded account too slowly.
    cdef bint reads_slowly(self, Account account) except -1
    # Tell `arrivals` what its unfinished request has of the byte budget now.
    cdef int tell_arrival(self) except -1
    # It is closed to make room for another connection.
    cdef int evict(self) except -1
    # Its unfinished request is ended, since there is no room for it.
    cdef int end_arrival(self) except -1
    # The same, since it is too slow while there is little room.
    cdef int end_slow_arrival(self) except -1
    # It is closed at once, since its client does not read.
    cdef int end_slow_reader(self) except -1


cdef class OccupantList:
    """Connections in the order in which they came to it; each stands in one list at most."""
    cdef Occupant first
    cdef Occupant last

    cdef int append(self, Occupant occupant) except -1
    cdef int remove(self, Occupant occupant) except -1


cdef class Room:
    cdef ByteBudget budget
    cdef DeadlineWheel wheel
    # Who makes room at max_connections, the first of each first, one list after the other. Dropping: they have their
    # last answer, and a body that it refused is read and dropped. Lingering: they have their last answer. Idle: no byte
    # of a request is there and none is being served.
    cdef OccupantList dropping
    cdef OccupantList lingering
    cdef OccupantList idle
    # Requests of which a part is here; as many as there are connections, at most.
    cdef Arrivals arrivals
    # Connections that do not read their answers, or have more than SMALL_BYTES of them wait behind one that is not there
    # yet, as keys, the longest so first.
    cdef dict unread
    # In a drain: how many idle connections are closed at each tick, how many may be closed now, and the tick up to which
    # these were counted. 0 a tick before.
    cdef Py_ssize_t closes_per_tick
    cdef Py_ssize_t closes_due
    cdef long long closes_tick
    # Keeps the row alive to which `counts` points.
    cdef Counters counted_in
    cdef Counts* counts

    # At max_connections: end whichever connection is needed least; False if all are busy.
    cdef bint make_place(self) except -1
    # Let the claimant's entry have so many bytes; while they do not fit, the youngest unfinished request of the sender
    # who holds most of the account is ended. False if there is none, or if that is the claimant's.
    cdef bint take(self, Occupant claimant, Held* entry, Account account, long long size_bytes) except -1
    # End at most so many of those that are too slow for the room that is left, and in a drain of those whose turn has
    # come; returns how many were ended.
    cpdef int relieve(self, int most) except -1
    # A drain begins: idle connections are closed one after the other, if need be over so many seconds at most.
    cdef int begin_drain(self, double most_s) except -1
    cdef int _end_unused(self, int most) except -1
    cdef Occupant _idlest(self)
    cdef Occupant _stillest(self)
    cdef long long ticks_ago(self, double seconds) noexcept
    cdef int _end_slow_arrivals(self, Account account, int most) except -1
    cdef int _end_slow_readers(self, Account account, int most) except -1


cdef class Unread:
    """Answers that a client does not take as fast as they come."""
    # Since which tick.
    cdef long long began_tick
    # Since which tick its pace is measured, how many bytes had left by then, and how many had been written: once they have left
    # as well, what has come meanwhile is measured anew, for answers that come as things happen may never all have left.
    cdef long long paced_tick
    cdef unsigned long long paced_bytes
    cdef unsigned long long paced_to_bytes
    # How many had left when it was looked at last, and the tick at which that had changed.
    cdef unsigned long long seen_bytes
    cdef long long moved_tick
    # The requests whose answers the stream was given, and the kernel has not all taken; no more than may be under way at once.
    cdef Request first_leaving
    cdef Request last_leaving

    # So many bytes have left of so many that were written: whether that is too slow while the account is crowded.
    cdef bint is_slow(self, DeadlineWheel wheel, Account account, unsigned long long left_bytes, unsigned long long written_bytes) noexcept
