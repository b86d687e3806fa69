"""Who waits for something to happen to a kept job, without a timer or Task of its own.

Their times hang in the wheel that has all deadlines, and who they are stands with what they watch.
"""

import logging

cimport cython

from gatewayx.core.deadlines cimport DeadlineWheel, Expiring
from gatewayx.http.request cimport BodySource

logger = logging.getLogger("gatewayx.gateway")


cdef class Watched:
    """What can be watched."""

    cdef int tell_watchers(self) except -1:
        return _tell(self.watchers)

    cdef int tell_all(self) except -1:
        _tell(self.watchers)
        return _tell(self.waiting)


cdef class Watcher(BodySource):
    """Waits for a change of what it watches."""

    cdef int watch(self, Watched watched) except -1:
        self.watched = watched
        if watched.watchers is None:
            watched.watchers = {}
        watched.watchers[self] = None
        return 0

    cdef int wait_for(self, Watched watched) except -1:
        self.watched = watched
        if watched.waiting is None:
            watched.waiting = {}
        watched.waiting[self] = None
        return 0

    cdef int leave(self) except -1:
        cdef Watched watched = self.watched
        self.watched = None
        if watched is not None:
            if watched.watchers is not None:
                watched.watchers.pop(self, None)
            if watched.waiting is not None:
                watched.waiting.pop(self, None)
                if not watched.waiting:
                    # What has ended may be kept for long, and in great numbers.
                    watched.waiting = None
        if self.alarm is not None:
            self.alarm.watcher = None
            self.wheel.disarm(self.alarm)
            self.alarm = None
        return 0

    cdef int wake(self, DeadlineWheel wheel, double after_s) except -1:
        self.wheel = wheel
        if self.alarm is None:
            self.alarm = Alarm.__new__(Alarm)
            self.alarm.watcher = self
        return wheel.arm(self.alarm, after_s)

    cdef int changed(self) except -1:
        raise NotImplementedError

    cdef int time_is_up(self) except -1:
        raise NotImplementedError

    cdef int failed(self) except -1:
        raise NotImplementedError

    cdef int fail(self) except -1:
        logger.exception("a request that watches a job failed")
        try:
            self.failed()
        except Exception:
            logger.exception("a request that watches a job failed again")
        return self.leave()


cdef int _tell(dict watchers) except -1:
    if not watchers:
        return 0
    for watcher in list(watchers):
        if watcher in watchers:
            try:
                (<Watcher> watcher).changed()
            except Exception:
                (<Watcher> watcher).fail()
    return 0


@cython.final
cdef class Alarm(Expiring):
    """When a Watcher's time is up."""

    cpdef int deadline_passed(self) except -1:
        cdef Watcher watcher = self.watcher
        if watcher is None:
            return 0
        try:
            return watcher.time_is_up()
        except Exception:
            return watcher.fail()


@cython.final
cdef class Wait(Watcher):
    """A request that waits for the end of a job, or until its time is up."""

    cdef int changed(self) except -1:
        return self.asked.waited()

    cdef int time_is_up(self) except -1:
        self.is_over = True
        return self.asked.waited()

    cdef int failed(self) except -1:
        return self.asked.fail()
