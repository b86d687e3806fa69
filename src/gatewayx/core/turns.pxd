"""What runs at the end of a turn of the loop, and in which order."""

from gatewayx.core.deadlines cimport Expiring


cdef class TurnEnder(Expiring):
    """A connection that gathers in a turn what it writes at its end."""
    # It stands in one of the turn's lists.
    cdef bint ends_turn

    # Write what was gathered.
    cdef int end_turn(self) except -1
    # end_turn() has raised the exception that is being handled: it must not come back.
    cdef int turn_failed(self) except -1


cdef class Turn:
    cdef object loop
    # Those that have something to write, in the order in which they came: job servers first, so that what a client has
    # asked for is on its way before anybody is answered; then clients.
    cdef list job_servers
    cdef list clients
    # The end of this turn is due in the loop.
    cdef bint scheduled

    # Let it end this turn, once however often it is asked for.
    cdef int add_job_server(self, TurnEnder ender) except -1
    cdef int add_client(self, TurnEnder ender) except -1
    cdef int _schedule(self) except -1
