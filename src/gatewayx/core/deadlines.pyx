"""Deadlines in coarse lists that one tick a process sweeps.

A hashed timing wheel (Varghese and Lauck, 1987): a deadline hangs in the ring of the slot at which it is due, one
further than a revolution away is passed over until its turn. Arming and disarming relink two neighbours; what is put
off, or armed for later than before, stays where it hangs until the sweep comes by, and is hung anew or dropped then.

What is due moves to a ring of its own and fires from there, as many at a time as the caller wants: ten thousand clients
that ran out of time together must not keep everybody else waiting.
"""

import logging

cimport cython
from cpython.object cimport PyObject
from libc.math cimport ceil

logger = logging.getLogger("gatewayx")

# Ten years: nothing is armed for longer.
cdef double HORIZON_S = 3.2e8

# When an entry is due that hangs in a ring without a deadline.
cdef long long NEVER = 0x7FFFFFFFFFFFFFFF


cdef class Expiring:
    """Whatever can run out of time; a subclass says in `deadline_passed` what happens then."""

    cpdef int deadline_passed(self) except -1:
        raise NotImplementedError


@cython.final
cdef class DeadlineWheel:
    """All deadlines of a process.

    tick_s: seconds between two sweeps, above 0. now_s: the loop's time at the start.
    A deadline fires at the first sweep after it is due, so up to two ticks late and never early while sweeps are
    on time. Not thread-safe: one loop, one wheel.
    """

    def __cinit__(self, double tick_s, double now_s):
        if not tick_s > 0:
            raise ValueError("tick_s must be above 0")
        self.tick_s = tick_s
        self.swept_at_s = now_s
        self.slots = [_ring() for _ in range(WHEEL_SLOTS)]
        self.due = _ring()

    cpdef int arm(self, Expiring entry, double after_s) except -1:
        """Let entry.deadline_passed() be called after_s seconds from now, instead of when it was armed for before."""
        # What is no number below the horizon would overflow the ticks.
        cdef double horizon_s = min(after_s, HORIZON_S) if after_s > 0 else 0
        # One tick more, since the current one has partly gone by.
        cdef long long due_tick = self.tick + <long long> ceil(horizon_s / self.tick_s) + 1
        if entry.next_expiring is not None:
            if self.tick < entry.hangs_tick <= due_tick:
                # The sweep comes by before it is due, and hangs it anew.
                self.armed += entry.due_tick == NEVER
                entry.due_tick = due_tick
                return 0
            self.disarm(entry)
        entry.due_tick = due_tick
        self._hang(entry)
        self.armed += 1
        return 0

    cpdef int put_off(self, Expiring entry) except -1:
        """Forget entry's deadline, since it will be armed soon again; the wheel may keep the entry alive until then.

        Who does not arm it again calls disarm().
        """
        if entry.next_expiring is None or entry.due_tick == NEVER:
            return 0
        if entry.hangs_tick <= self.tick:
            # It is due already, and the sweep comes by no more.
            return self.disarm(entry)
        entry.due_tick = NEVER
        self.armed -= 1
        return 0

    cpdef int disarm(self, Expiring entry) except -1:
        """Forget entry's deadline, and let go of it; nothing happens when it has none."""
        if entry.next_expiring is None:
            return 0
        self.armed -= entry.due_tick != NEVER
        _unlink(entry)
        return 0

    cpdef int advance(self, double now_s) except -1:
        """Make due what is so at loop time now_s, to be fired by fire(); returns how many those are."""
        cdef long long passed = <long long> ((now_s - self.swept_at_s) / self.tick_s)
        cdef long long first = self.tick + 1
        cdef long long slot
        cdef int moved = 0
        if passed <= 0:
            return 0
        self.tick += passed
        self.swept_at_s += passed * self.tick_s
        if passed > WHEEL_SLOTS:
            first = self.tick - WHEEL_SLOTS + 1
        for slot in range(first, self.tick + 1):
            moved += self._sweep(<Expiring> self.slots[slot % WHEEL_SLOTS])
        return moved

    cdef int _hang(self, Expiring entry) except -1:
        entry.hangs_tick = entry.due_tick
        _link(<Expiring> self.slots[entry.due_tick % WHEEL_SLOTS], entry)
        return 0

    cdef int _sweep(self, Expiring sentinel) except -1:
        cdef Expiring entry = sentinel.next_expiring
        cdef Expiring following
        cdef int moved = 0
        while entry is not sentinel:
            following = entry.next_expiring
            if entry.due_tick <= self.tick:
                _unlink(entry)
                _link(self.due, entry)
                moved += 1
            elif entry.due_tick != entry.hangs_tick:
                _unlink(entry)
                if entry.due_tick != NEVER:
                    self._hang(entry)
            entry = following
        return moved

    cpdef int fire(self, int most) except -1:
        """Fire what is due, at most so many; returns how many fired. An entry's exception is logged, not raised.

        What fires may arm and disarm anything: each is looked for anew.
        """
        cdef Expiring entry
        cdef int fired = 0
        while fired < most:
            entry = self.due.next_expiring
            if entry is self.due:
                break
            self.disarm(entry)
            fired += 1
            try:
                entry.deadline_passed()
            except Exception:
                logger.exception("a deadline's handler failed")
        return fired

    cpdef int quiet_ticks(self, int most) except -1:
        """How many of the next sweeps, up to `most`, would find nothing; 0 while what is due has not fired."""
        cdef Expiring sentinel = self.due
        cdef int quiet
        if sentinel.next_expiring is not sentinel:
            return 0
        for quiet in range(min(most, <int> WHEEL_SLOTS)):
            sentinel = <Expiring> self.slots[(self.tick + 1 + quiet) % WHEEL_SLOTS]
            if sentinel.next_expiring is not sentinel:
                return quiet
        return most


cdef Expiring _ring():
    cdef Expiring sentinel = Expiring()
    sentinel.next_expiring = sentinel
    sentinel.previous_expiring = <PyObject*> sentinel
    return sentinel


cdef inline void _link(Expiring sentinel, Expiring entry) noexcept:
    """Put the entry at the end of the ring."""
    cdef PyObject* last = sentinel.previous_expiring
    entry.previous_expiring = last
    entry.next_expiring = sentinel
    (<Expiring> last).next_expiring = entry
    sentinel.previous_expiring = <PyObject*> entry


cdef inline void _unlink(Expiring entry) noexcept:
    cdef Expiring following = entry.next_expiring
    following.previous_expiring = entry.previous_expiring
    # The caller holds the entry: its neighbour lets go of it.
    (<Expiring> entry.previous_expiring).next_expiring = following
    entry.next_expiring = None
    entry.previous_expiring = NULL
