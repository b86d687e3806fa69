"""What runs at the end of a turn of the loop, and in which order.

A write is a system call, so connections gather what they have to write while the loop reads, and write it once. All of
that is one callback of the loop: job servers come first, then clients, among them those whom the job servers' turn has
just given something to write. What a client's turn gives a job server is written in the next turn.
"""

cimport cython


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
        self.job_servers = []
        self.clients = []

    cdef int add_job_server(self, TurnEnder ender) except -1:
        if not ender.ends_turn:
            ender.ends_turn = True
            self.job_servers.append(ender)
            if not self.scheduled:
                self._schedule()
        return 0

    cdef int add_client(self, TurnEnder ender) except -1:
        if not ender.ends_turn:
            ender.ends_turn = True
            self.clients.append(ender)
            if not self.scheduled:
                self._schedule()
        return 0

    cdef int _schedule(self) except -1:
        self.scheduled = True
        self.loop.call_soon(self._end)
        return 0

    def _end(self):
        cdef list enders
        # What is added from here on and has missed its place is the next turn's.
        self.scheduled = False
        enders, self.job_servers = self.job_servers, []
        _end_all(enders)
        enders, self.clients = self.clients, []
        _end_all(enders)


cdef int _end_all(list enders) except -1:
    cdef TurnEnder ender
    for item in enders:
        ender = <TurnEnder> item
        ender.ends_turn = False
        try:
            ender.end_turn()
        except Exception:
            ender.turn_failed()
    return 0
