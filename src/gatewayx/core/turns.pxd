"""What runs at the end of a turn of the loop, and in which order."""

from gatewayx.core.deadlines cimport Expiring


# A bint in one byte: each of ten thousand connections has a dozen.
ctypedef unsigned char Flag


cdef class TurnEnder(Expiring):
    """A connection that gathers in a turn what it writes at its end."""
    # It waits for the end of the turn, and who is next in the same line.
    cdef Flag ends_turn
    cdef TurnEnder next_ender

    # Write what was gathered.
    cdef int end_turn(self) except -1
    # end_turn() has raised the exception that is being handled: it must not come back.
    cdef int turn_failed(self) except -1


cdef class Turn:
    cdef object loop
    # _end(), bound once.
    cdef object ending
    # Two lines of those that have something to write, each in the order in which they came: job servers, which are first,
    # so that what a client has asked for is on its way before anybody is answered; then clients.
    cdef TurnEnder first_job_server
    cdef TurnEnder last_job_server
    cdef TurnEnder first_client
    cdef TurnEnder last_client
    # The end of this turn is due, in the loop or by whoever has begun it; and whether the loop has a callback for it.
    cdef bint scheduled
    cdef bint queued
    # When that came which is looked at now, in a turn of the sockets, 0 outside of one: for moment() of core/clock.
    cdef long long moment_ns

    # The caller has begun a turn at this time, and calls end() and then over() before it returns to the loop.
    cdef inline void begin(self, long long moment_ns) noexcept:
        self.scheduled = True
        self.moment_ns = moment_ns

    cdef inline void over(self) noexcept:
        self.moment_ns = 0

    # Write what was gathered in this turn.
    cdef int end(self) except -1

    # Let it end this turn, once however often it is asked for.
    cdef inline int add_job_server(self, TurnEnder ender) except -1:
        if ender.ends_turn:
            return 0
        ender.ends_turn = True
        if self.first_job_server is None:
            self.first_job_server = ender
        else:
            self.last_job_server.next_ender = ender
        self.last_job_server = ender
        return 0 if self.scheduled else self.schedule()

    cdef inline int add_client(self, TurnEnder ender) except -1:
        if ender.ends_turn:
            return 0
        ender.ends_turn = True
        if self.first_client is None:
            self.first_client = ender
        else:
            self.last_client.next_ender = ender
        self.last_client = ender
        return 0 if self.scheduled else self.schedule()

    cdef int schedule(self) except -1
