"""The life of a connection to a job server, whatever is spoken over it."""

from gatewayx.core.turns cimport Turn
from gatewayx.net.stream cimport Stream, StreamOwner

cpdef enum:
    # Above so many bytes in our buffer the kernel's is full: the rest waits in the connection, where it is bounded and may still
    # go to another connection.
    WRITE_HIGH_WATER_BYTES = 65536


cpdef enum UpstreamState:
    # It is made, and not connected yet.
    CONNECTING = 0
    # It is connected, and the job server has answered nothing yet: a connect to a frozen one succeeds as well.
    GREETING = 1
    # The job server has answered, so it lives.
    UP = 2
    # Another connection has taken its place: what it has goes on, and nothing new is given to it.
    RETIRED = 3
    # It is lost, or was closed by us. A closed connection never comes back: the next one is another object.
    CLOSED = 4


cdef class UpstreamConnection(StreamOwner):
    cdef object loop
    # Where what was gathered in a turn of the loop is written.
    cdef Turn turn
    # None before it is connected, and once it is gone.
    cdef Stream stream
    # Only change() writes it.
    cdef readonly UpstreamState state
    # Why it is closed, in a line; None while it is open.
    cdef readonly str close_reason
    # The job server has hung up before it had answered.
    cdef readonly bint hung_up_unanswered
    # Futures for the Keeper: done when the connection comes up, and when it is gone.
    cdef readonly object came_up
    cdef readonly object gone
    # Host and port of the other side; None before it is connected.
    cdef readonly tuple peer
    # What messages call it.
    cdef str title

    cdef inline bint is_up(self) noexcept:
        return self.state == UpstreamState.UP or self.state == UpstreamState.RETIRED

    cdef inline bint is_closed(self) noexcept:
        return self.state == UpstreamState.CLOSED

    # Go to a state that may follow the present one; raises StateError, and changes nothing, if it may not.
    cpdef int change(self, UpstreamState state) except -1
    # The job server has answered: nothing happens but the first time.
    cdef int come_up(self) except -1
    # Close at once, for this reason; nothing happens if it is closed.
    cdef int close_for(self, str reason) except -1
    # For subclasses: send what the job server is to answer; end what was under way over the connection.
    cdef int greet(self) except -1
    cdef int end_all(self) except -1
    cdef int _hung_up(self, str reason) except -1
