"""Who makes room for others: idle connections, unfinished requests, clients that do not read.

At max_connections a newcomer takes the place of whoever needs its own least. A claimant that finds its account of the byte
budget full ends the youngest unfinished request of the sender who holds most of it; while an account is crowded, the slow
ones of it are ended at each tick. Nobody waits for anybody's room. A drain closes idle connections, so many at each tick.
"""

cimport cython
from libc.math cimport ceil, fmax, fmin

from gatewayx.core.budget cimport BODIES, RESULTS, SMALL, Account, ByteBudget, Held
from gatewayx.core.counters cimport Counters
from gatewayx.core.deadlines cimport DeadlineWheel
from gatewayx.http.arrivals cimport Arrival, Arrivals


cdef class Occupant(Refusable):
    """A client's connection, as those see it who need its place or its room."""

    cdef bint request_waits(self) except -1:
        raise NotImplementedError

    cdef bint unused(self) except -1:
        raise NotImplementedError

    cdef int end_unused(self) except -1:
        raise NotImplementedError

    cdef bint only_arrives(self) noexcept:
        return False

    cdef bint arrives_slowly(self, Account account) noexcept:
        return False

    cdef bint reads_slowly(self, Account account) except -1:
        raise NotImplementedError

    cdef int tell_arrival(self) except -1:
        raise NotImplementedError

    cdef int evict(self) except -1:
        raise NotImplementedError

    cdef int end_arrival(self) except -1:
        raise NotImplementedError

    cdef int end_slow_arrival(self) except -1:
        raise NotImplementedError

    cdef int end_slow_reader(self) except -1:
        raise NotImplementedError


@cython.final
cdef class OccupantList:
    """Connections in the order in which they came to it."""

    cdef int append(self, Occupant occupant) except -1:
        occupant.place = self
        occupant.previous_in_place = self.last
        if self.last is None:
            self.first = occupant
        else:
            self.last.next_in_place = occupant
        self.last = occupant
        return 0

    cdef int remove(self, Occupant occupant) except -1:
        if occupant.previous_in_place is None:
            self.first = occupant.next_in_place
        else:
            occupant.previous_in_place.next_in_place = occupant.next_in_place
        if occupant.next_in_place is None:
            self.last = occupant.previous_in_place
        else:
            occupant.next_in_place.previous_in_place = occupant.previous_in_place
        occupant.place = None
        occupant.previous_in_place = None
        occupant.next_in_place = None
        return 0


@cython.final
cdef class Room:
    """The places and bytes that the clients of a process share.

    budget: where what is held for clients is counted. wheel: tells the tick. counters: where ends are counted.
    """

    def __init__(self, ByteBudget budget not None, DeadlineWheel wheel not None, Counters counters not None):
        self.counted_in = counters
        self.counts = counters.row
        self.budget = budget
        self.wheel = wheel
        self.dropping = OccupantList()
        self.lingering = OccupantList()
        self.idle = OccupantList()
        self.arrivals = Arrivals()
        self.unread = {}

    cdef bint make_place(self) except -1:
        # A reference of our own: it leaves the list, which may hold the last one.
        cdef Occupant least = self.dropping.first
        if least is None:
            least = self.lingering.first
        if least is None:
            least = self._idlest()
        if least is None:
            least = self._stillest()
        if least is None:
            return False
        self.counts.connections_evicted += 1
        least.evict()
        return True

    cdef bint take(self, Occupant claimant, Held* entry, Account account, long long size_bytes) except -1:
        cdef Arrival youngest
        while not self.budget.resize(entry, account, size_bytes):
            claimant.tell_arrival()
            youngest = self.arrivals.youngest_of_largest(account)
            if youngest is None or youngest.owner is claimant:
                return False
            self.counts.arrivals_ended += 1
            (<Occupant> youngest.owner).end_arrival()
        return True

    cpdef int relieve(self, int most) except -1:
        """End at most so many of those that are too slow for the room that is left; returns how many were ended.

        In a drain also idle connections whose turn to be closed has come.
        """
        cdef int ended = 0
        if self.closes_per_tick:
            ended = self._end_unused(most)
        if self.budget.crowded(SMALL):
            ended += self._end_slow_arrivals(SMALL, most - ended)
            ended += self._end_slow_readers(SMALL, most - ended)
        if self.budget.crowded(BODIES):
            ended += self._end_slow_arrivals(BODIES, most - ended)
        if self.budget.crowded(RESULTS):
            ended += self._end_slow_readers(RESULTS, most - ended)
        return ended

    cdef int begin_drain(self, double most_s) except -1:
        cdef Occupant occupant = self.idle.first
        cdef Py_ssize_t count = 0
        cdef double spread_s, ticks
        while occupant is not None:
            count += 1
            occupant = occupant.next_in_place
        spread_s = fmin(fmax(count / <double> CLOSES_PER_S, LEAST_SPREAD_S), most_s)
        ticks = fmax(spread_s / self.wheel.tick_s, 1)
        # One at least, for those that become idle later.
        self.closes_per_tick = <Py_ssize_t> fmax(ceil(count / ticks), 1)
        self.closes_tick = self.wheel.tick
        return 0

    cdef int _end_unused(self, int most) except -1:
        """Close at most so many idle connections whose turn has come, the longest idle first; returns how many."""
        cdef Occupant occupant = self.idle.first
        cdef Occupant following
        cdef long long unused_tick = self.ticks_ago(IN_USE_S)
        cdef int ended = 0
        self.closes_due += self.closes_per_tick * (self.wheel.tick - self.closes_tick)
        self.closes_tick = self.wheel.tick
        while occupant is not None and occupant.placed_tick <= unused_tick and self.closes_due > 0 and ended < most:
            following = occupant.next_in_place
            if occupant.unused():
                occupant.end_unused()
                self.closes_due -= 1
                ended += 1
            occupant = following
        if ended < most:
            # What nobody was there for is not made up for: that would be many at once.
            self.closes_due = 0
        return ended

    cdef Occupant _idlest(self):
        """The connection that is idle for longest, those aside whose next request has come and is not read yet."""
        cdef Occupant occupant = self.idle.first
        cdef int looked_at = 0
        while occupant is not None and looked_at < MAX_LOOKED_AT:
            if not occupant.request_waits():
                return occupant
            occupant = occupant.next_in_place
            looked_at += 1
        return None

    cdef Occupant _stillest(self):
        """The connection in whose unfinished head or body no byte has come for longest, at least STILL_S; None for none.

        One that the gateway reads no more is not still by its client's fault, and one that has other requests under way
        would take their answers with it.
        """
        cdef Arrival arrival = self.arrivals.stillest
        cdef long long still_tick = self.ticks_ago(STILL_S)
        while arrival is not None and arrival.moved_tick <= still_tick:
            if (<Occupant> arrival.owner).only_arrives():
                return <Occupant> arrival.owner
            arrival = arrival.later
        return None

    cdef long long ticks_ago(self, double seconds) noexcept:
        return self.wheel.tick - <long long> (seconds / self.wheel.tick_s)

    cdef int _end_slow_arrivals(self, Account account, int most) except -1:
        """Unfinished requests that hold something of the account: small ones that stand still, slow bodies."""
        cdef Arrival arrival = self.arrivals.stillest
        cdef Arrival later
        cdef Occupant occupant
        cdef long long still_tick = self.ticks_ago(STILL_S)
        cdef int ended = 0
        while arrival is not None and ended < most and self.budget.crowded(account):
            if account == SMALL and arrival.moved_tick > still_tick:
                break
            later = arrival.later
            occupant = <Occupant> arrival.owner
            if arrival.held[account] > 0 and occupant.arrives_slowly(account):
                occupant.end_slow_arrival()
                self.counts.arrivals_ended += 1
                ended += 1
            arrival = later
        return ended

    cdef int _end_slow_readers(self, Account account, int most) except -1:
        """Connections whose clients take their answers too slowly."""
        cdef Occupant occupant
        cdef int ended = 0
        for item in list(self.unread):
            if ended >= most or not self.budget.crowded(account):
                break
            occupant = <Occupant> item
            if occupant.reads_slowly(account):
                self.counts.answers_ended += 1
                occupant.end_slow_reader()
                ended += 1
        return ended


@cython.final
cdef class Unread:
    """Answers that a client does not take as fast as they come; the .pxd says what each field means."""

    cdef bint is_slow(
        self, DeadlineWheel wheel, Account account, unsigned long long left_bytes, unsigned long long written_bytes
    ) noexcept:
        cdef double passed_s
        if left_bytes != self.seen_bytes:
            self.seen_bytes = left_bytes
            self.moved_tick = wheel.tick
        if account == SMALL:
            return (wheel.tick - self.moved_tick) * wheel.tick_s >= STILL_S
        # In a unix socket small pieces count for more than large ones: it may seem to have taken less than nothing.
        if <long long> (left_bytes - self.paced_to_bytes) >= 0:
            self.paced_tick = wheel.tick
            self.paced_bytes = left_bytes
            self.paced_to_bytes = written_bytes
        passed_s = (wheel.tick - self.paced_tick) * wheel.tick_s
        if passed_s <= PACE_GRACE_S:
            return False
        return <long long> (left_bytes - self.paced_bytes) < (written_bytes - self.paced_bytes) * passed_s / PACE_S
