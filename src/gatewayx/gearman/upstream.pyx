"""The life of a connection to a job server, whatever is spoken over it.

Theory of operation. A connection is made, connects, and greets; the first answer to that brings it up, since only an
answer proves life. `change` is the one writer of its state and knows which state may follow which. `close_for` ends it,
whoever wants that: the keeper, the job server, or what was read. Nothing leads back from CLOSED.
"""

from gatewayx.errors import StateError

# Which states may follow each.
TRANSITIONS = {
    UpstreamState.CONNECTING: (UpstreamState.GREETING, UpstreamState.CLOSED),
    UpstreamState.GREETING: (UpstreamState.UP, UpstreamState.CLOSED),
    UpstreamState.UP: (UpstreamState.RETIRED, UpstreamState.CLOSED),
    UpstreamState.RETIRED: (UpstreamState.CLOSED,),
    UpstreamState.CLOSED: (),
}


cdef class UpstreamConnection:
    """A connection to a job server; an asyncio protocol, to be given to create_connection().

    loop: the event loop. title: what messages call it.
    """

    def __init__(self, loop, str title="connection"):
        self.loop = loop
        self.title = title
        self.came_up = loop.create_future()
        self.gone = loop.create_future()

    @property
    def up(self):
        """Whether the job server has answered, and the connection is open."""
        return self.is_up()

    @property
    def closed(self):
        """Whether it was lost or closed by us."""
        return self.is_closed()

    cpdef int change(self, UpstreamState state) except -1:
        """Go to a state that may follow the present one; raises StateError if it may not."""
        if state not in TRANSITIONS[self.state]:
            raise StateError(f"a {self.title} cannot go from {(<object> self.state).name} to {(<object> state).name}")
        self.state = state
        return 0

    cdef int come_up(self) except -1:
        if self.state == UpstreamState.GREETING:
            self.change(UpstreamState.UP)
            self.came_up.set_result(None)
        return 0

    def close(self, str reason):
        """Close at once; what is under way over the connection is lost."""
        self.close_for(reason)

    cdef int close_for(self, str reason) except -1:
        if self.is_closed():
            return 0
        self.change(UpstreamState.CLOSED)
        self.close_reason = reason
        self.end_all()
        if self.transport is not None:
            self.transport.abort()
        if not self.came_up.done():
            self.came_up.cancel()
        if not self.gone.done():
            self.gone.set_result(None)
        return 0

    cdef int greet(self) except -1:
        return 0

    cdef int end_all(self) except -1:
        return 0

    # What the loop calls.

    def connection_made(self, transport):
        """asyncio: connected."""
        self.transport = transport
        if self.is_closed():
            transport.abort()
            return
        self.peer = transport.get_extra_info("peername")
        self.change(UpstreamState.GREETING)
        self.greet()

    def eof_received(self):
        """asyncio: the job server has closed its side."""
        self._hung_up(f"the job server closed the {self.title}")

    def connection_lost(self, error):
        """asyncio: the connection is gone."""
        self._hung_up(f"the {self.title} was lost" if error is None else f"the {self.title} was lost: {error}")
        self.transport = None

    def _hung_up(self, str reason):
        if not self.is_closed():
            self.hung_up_unanswered = not self.is_up()
        self.close_for(reason)
