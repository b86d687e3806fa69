"""Deadlines in coarse lists that one tick a process sweeps: no timer per request, O(1) to arm and disarm."""

from cpython.object cimport PyObject

cdef enum:
    WHEEL_SLOTS = 512


cdef class Expiring:
    """Whatever can run out of time: a client connection, a job."""
    # Neighbours in the slot's ring, each of which holds the next; None and NULL while it hangs nowhere.
    cdef Expiring next_expiring
    cdef PyObject* previous_expiring
    # The tick at which this is due, and the one at which it hangs, which is no later; meaningless while it hangs nowhere.
    cdef long long due_tick
    cdef long long hangs_tick

    cpdef int deadline_passed(self) except -1


cdef class DeadlineWheel:
    # One sweep's length; a deadline fires up to two of these late and never early.
    cdef readonly double tick_s
    # Ticks swept so far.
    cdef readonly long long tick
    # How many are armed.
    cdef readonly Py_ssize_t armed
    # Loop time of the last sweep.
    cdef double swept_at_s
    # One ring of Expiring a slot, each closed by a sentinel.
    cdef list slots
    # The sentinel of the ring of those that are due and have not fired yet.
    cdef Expiring due

    cpdef int arm(self, Expiring entry, double after_s) except -1
    cpdef int put_off(self, Expiring entry) except -1
    cpdef int disarm(self, Expiring entry) except -1
    cdef int _hang(self, Expiring entry) except -1
    cdef int _sweep(self, Expiring sentinel) except -1
    cpdef int advance(self, double now_s) except -1
    cpdef int fire(self, int most) except -1
    # How many of the next sweeps, up to so many, have nothing to do.
    cpdef int quiet_ticks(self, int most) except -1
