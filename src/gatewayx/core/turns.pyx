"""What runs at the end of a turn of the loop, and in which order.

A write is a system call, so connections gather what they have to write while the loop reads, and write it once. All of
that is done at the end of a turn of the sockets (net/poller), or where something else has made a connection write, in a
callback of the loop. Job servers write first, then clients, so that what was asked for is on its way before anybody is
answered. A client that a failed write has just given an answer still writes in this turn; a job server that a client's
`end_turn` has given a job writes in the next one.
"""

import logging

cimport cython

logger = logging.getLogger("gatewayx")


cdef class TurnEnder(Expiring):
    """A connection that gathers in a turn what it writes at its end; the .pxd says what each method does."""

    cdef int end_turn(self) except -1:
        raise NotImplementedError

    cdef int turn_failed(self) except -1:
        raise NotImplementedError


@cython.final
cdef class Turn:
    """The end of each turn of a loop; one a process. loop: the event loop."""

    def __init__(self, loop):
        self.loop = loop
        self.ending = self._end

    cdef int schedule(self) except -1:
        self.scheduled = True
        self.queued = True
        self.loop.call_soon(self.ending)
        return 0

    def _end(self):
        self.queued = False
        self.end()

    cdef int end(self) except -1:
        cdef TurnEnder ender = self.first_job_server
        # Whoever is added from here on to a line that has been taken is written in the next turn, of which a callback that
        # the loop still has is the end.
        self.scheduled = self.queued
        if ender is not None:
            self.first_job_server = None
            self.last_job_server = None
            while ender is not None:
                ender = _end_line(ender)
        ender = self.first_client
        if ender is not None:
            self.first_client = None
            self.last_client = None
            while ender is not None:
                ender = _end_line(ender)
        return 0


cdef TurnEnder _end_line(TurnEnder ender):
    """Let those from `ender` on end their turn, up to the first that fails; returns whoever is behind that one."""
    cdef TurnEnder following = None
    try:
        while ender is not None:
            following = ender.next_ender
            ender.next_ender = None
            ender.ends_turn = False
            ender.end_turn()
            ender = following
    except Exception:
        try:
            ender.turn_failed()
        except Exception:
            # Those behind it would be left out of every turn to come.
            logger.exception("a connection could not be ended")
        return following
    return None
