"""Who waits for something to happen to a kept job, without a timer or Task of its own."""

from gatewayx.core.deadlines cimport DeadlineWheel, Expiring
from gatewayx.gateway.job_request cimport JobRequest
from gatewayx.http.request cimport BodySource


cdef class Watched:
    """What can be watched."""
    # Its Watchers, as the keys, at most one a request under way: those that are told of every change, and those that wait for what
    # comes once, such as the end.
    cdef dict watchers
    cdef dict waiting

    # Tell each of a change that is one of many; or of one that any may wait for.
    cdef int tell_watchers(self) except -1
    cdef int tell_all(self) except -1


cdef class Watcher(BodySource):
    """Waits for a change of what it watches. It is a BodySource for those whose answer comes in pieces."""
    # None before it watches, and once it has left.
    cdef Watched watched
    # Where its time hangs, and the entry there; None for one without a time.
    cdef DeadlineWheel wheel
    cdef Alarm alarm

    cdef int watch(self, Watched watched) except -1
    # The same, but it is told of few changes (Watched.waiting).
    cdef int wait_for(self, Watched watched) except -1
    # It is told of nothing any more, and its time is not up.
    cdef int leave(self) except -1
    # Have time_is_up() called so long from now, in place of when it was asked for before.
    cdef int wake(self, DeadlineWheel wheel, double after_s) except -1
    # What it watches has changed, which may be its end.
    cdef int changed(self) except -1
    cdef int time_is_up(self) except -1
    # One of these has raised the exception that is being handled: its part is ended, and no other's.
    cdef int fail(self) except -1
    # For the subclass: its part is to be ended.
    cdef int failed(self) except -1


cdef class Alarm(Expiring):
    # None once it has left.
    cdef Watcher watcher


cdef class Wait(Watcher):
    """A request that waits for the end of a job, or until its time is up."""
    cdef JobRequest asked
    # Its time was up since somebody has set this to False.
    cdef bint is_over
