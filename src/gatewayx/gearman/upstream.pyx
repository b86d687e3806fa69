"""The life of a connection to a job server, whatever is spoken over it.

Theory of operation. A connection is made, connects, and greets; the first answer to that brings it up, since only an
answer proves life. `change` is the one writer of its state and knows which state may follow which. `close_for` ends it,
whoever wants that: the keeper, the job server, or what was read. Nothing leads back from CLOSED.
"""

import logging

from gatewayx.core.turns cimport Turn
from gatewayx.net.stream cimport Stream, StreamOwner

from gatewayx.errors import StateError
from gatewayx.gearman.tls import told

logger = logging.getLogger("gatewayx.gearman")

# Which states may follow each.
TRANSITIONS = {
    UpstreamState.CONNECTING: (UpstreamState.GREETING, UpstreamState.CLOSED),
    UpstreamState.GREETING: (UpstreamState.UP, UpstreamState.CLOSED),
    UpstreamState.UP: (UpstreamState.RETIRED, UpstreamState.CLOSED),
    UpstreamState.RETIRED: (UpstreamState.CLOSED,),
    UpstreamState.CLOSED: (),
}


cdef class UpstreamConnection(StreamOwner):
    """A connection to a job server, to be given to create_connection() as the owner of a TransportStream.

    loop: the event loop. turn: where what was gathered in a turn of it is written. title: what messages call it.
    """

    def __init__(self, loop, Turn turn not None, str title="connection"):
        self.loop = loop
        self.turn = turn
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
        try:
            self.end_all()
        finally:
            if self.stream is not None:
                self.stream.abort()
            if not self.came_up.done():
                self.came_up.cancel()
            if not self.gone.done():
                self.gone.set_result(None)
        return 0

    cdef int greet(self) except -1:
        return 0

    cdef int end_all(self) except -1:
        return 0

    # What the stream tells.

    cpdef int opened(self, Stream stream) except -1:
        self.stream = stream
        if self.is_closed():
            return stream.abort()
        self.peer = stream.peer()
        self.change(UpstreamState.GREETING)
        return self.greet()

    cpdef bint ended(self) except? True:
        self._hung_up(f"the job server closed the {self.title}")
        return False

    cpdef int lost(self, error) except -1:
        self._hung_up(f"the {self.title} was lost" if error is None else f"the {self.title} was lost: {told(error)}")
        self.stream = None
        return 0

    # What waits for a job server that does not read is bounded by MAX_UNSENT_BYTES and MAX_PENDING_CANCELS.

    cpdef int pause_writing(self) except -1:
        return 0

    cpdef int resume_writing(self) except -1:
        return 0

    cdef int turn_failed(self) except -1:
        logger.exception("a job server's %s could not be written to", self.title)
        return self.close_for("the gateway has failed to write to the job server")

    cdef int _hung_up(self, str reason) except -1:
        if not self.is_closed():
            self.hung_up_unanswered = not self.is_up()
        return self.close_for(reason)
