"""Answers that are kept for whoever comes for them, and the room that those of a process share.

Theory of operation. What kept answers take stands in the results' account of the byte budget, of which all of them together, over all
processes, have at most half: the other half is left to those who wait. Where a new body does not fit, the oldest ones of this
process make room, and after them the new one itself; of what is dropped it is still known that there was a body.
"""

from collections import OrderedDict

cimport cython

from gatewayx.core.budget cimport RESULTS, ByteBudget
from gatewayx.core.counters cimport Counters
from gatewayx.core.shared cimport KEPT_BYTES, Shared
from gatewayx.gateway.watching cimport Watched

cdef enum:
    # Bodies that make room for one that is new, at most; what does not fit then is dropped itself.
    MOST_DROPPED = 1024


cdef class KeptAnswer(Watched):
    """The answer that a client has, or would have had; the .pxd says what each field means."""

    cdef Py_ssize_t room_bytes(self):
        return self.body_bytes if self.body is not None else 0

    cdef int drop(self) except -1:
        self.body = None
        self.is_dropped = True
        return 0


@cython.final
cdef class KeptRoom:
    """The room of kept answers; the .pyi says what it is made of."""

    def __init__(self, ByteBudget budget not None, Shared shared not None, Counters counters not None):
        self.budget = budget
        self.shared = shared
        self.counted_in = counters
        self.counts = counters.row
        self.bodies = OrderedDict()

    cdef int enter(self, KeptAnswer answer) except -1:
        # One without a byte makes no room by going.
        if answer.body:
            self.bodies[answer] = None
        return 0

    cdef bint hold(self, KeptAnswer answer) except -1:
        cdef long long size_bytes = answer.room_bytes()
        cdef long long more_bytes = size_bytes - answer.held.size_bytes
        cdef long long bound_bytes = self.budget.bounds[RESULTS] // 2
        cdef int dropped = 0
        if more_bytes <= 0:
            self.shared.give(KEPT_BYTES, -more_bytes)
        elif size_bytes > bound_bytes:
            # No other body could make room for it.
            return False
        else:
            if not self._can_make_room(answer, <long long> self.shared.taken(KEPT_BYTES) + more_bytes - bound_bytes):
                return False
            while not self.shared.take(KEPT_BYTES, more_bytes, bound_bytes):
                dropped += 1
                if dropped > MOST_DROPPED or not self._drop_oldest(answer):
                    return False
            while not self.budget.resize(&answer.held, RESULTS, size_bytes):
                dropped += 1
                if dropped > MOST_DROPPED or not self._drop_oldest(answer):
                    self.shared.give(KEPT_BYTES, more_bytes)
                    return False
        self.budget.hold(&answer.held, RESULTS, size_bytes)
        self.held_bytes += more_bytes
        return True

    cdef bint _can_make_room(self, KeptAnswer other, long long needed_bytes) except -1:
        """Whether the bodies that may be dropped for the other answer have so many bytes: none is dropped in vain."""
        cdef int looked = 0
        if needed_bytes <= 0:
            return True
        for oldest in self.bodies:
            if oldest is other or looked == MOST_DROPPED:
                return False
            needed_bytes -= (<KeptAnswer> oldest).body_bytes
            if needed_bytes <= 0:
                return True
            looked += 1
        return False

    cdef bint _drop_oldest(self, KeptAnswer other) except -1:
        """Whether the oldest body was dropped, if it is not that of the other answer."""
        cdef KeptAnswer oldest
        if not self.bodies:
            return False
        oldest = <KeptAnswer> next(iter(self.bodies))
        if oldest is other:
            return False
        self.drop(oldest)
        return self.hold(oldest)

    cdef int drop(self, KeptAnswer answer) except -1:
        self.bodies.pop(answer, None)
        answer.drop()
        self.counts.kept_results_dropped += 1
        return 0

    cdef int leave(self, KeptAnswer answer) except -1:
        self.bodies.pop(answer, None)
        self.held_bytes -= answer.held.size_bytes
        self.shared.give(KEPT_BYTES, answer.held.size_bytes)
        self.budget.release(&answer.held)
        return 0
