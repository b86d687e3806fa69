"""An epoll descriptor of ours that the event loop watches as one of its own (epoll(7), "nested").

A turn of the loop costs one callback, not one for each socket, and reading and writing is straight system calls.
"""

from libc.errno cimport errno
from libc.stdint cimport uint64_t
from libc.string cimport memset
from posix.time cimport CLOCK_MONOTONIC, itimerspec
from posix.unistd cimport close, read

cdef extern from "<sys/epoll.h>" nogil:
    int epoll_create1(int flags)
    int epoll_ctl(int descriptor, int operation, int target, epoll_event* event)
    int epoll_wait(int descriptor, epoll_event* events, int most, int timeout_ms)
    enum:
        EPOLL_CLOEXEC
        EPOLL_CTL_ADD
        EPOLLET

cdef extern from "<sys/timerfd.h>" nogil:
    int timerfd_create(int clock, int flags)
    int timerfd_settime(int descriptor, int flags, const itimerspec* at, itimerspec* before)
    enum:
        TFD_NONBLOCK
        TFD_CLOEXEC
        TFD_TIMER_ABSTIME


cdef class Polled:
    """What owns a socket that a `Poller` watches."""

    cdef int handle(self, unsigned int events) except -1:
        raise NotImplementedError


cdef class Poller:
    """An epoll descriptor that a running loop watches. callback: called without arguments when sockets are ready."""

    def __init__(self, loop, callback):
        self.timer = -1
        self.descriptor = epoll_create1(EPOLL_CLOEXEC)
        if self.descriptor < 0:
            raise OSError(errno, "cannot make an epoll descriptor")
        self.loop = loop
        loop.add_reader(self.descriptor, callback)

    def close(self):
        """Watch no more."""
        if self.descriptor >= 0:
            self.loop.remove_reader(self.descriptor)
            close(self.descriptor)
            self.descriptor = -1
        if self.timer >= 0:
            close(self.timer)
            self.timer = -1

    cdef int add(self, int descriptor, Polled owner) noexcept:
        cdef epoll_event event
        event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET
        event.data.ptr = <void*> owner
        return epoll_ctl(self.descriptor, EPOLL_CTL_ADD, descriptor, &event)

    cdef int serve(self) except -1:
        cdef uint64_t alarms
        cdef int count = epoll_wait(self.descriptor, self.ready, EVENTS_PER_TURN, 0)
        cdef int index
        for index in range(count):
            if self.ready[index].data.ptr == NULL:
                read(self.timer, &alarms, sizeof(alarms))
            else:
                (<Polled> self.ready[index].data.ptr).handle(self.ready[index].events)
        return 0

    cdef int set_alarm(self, long long at_ns) noexcept:
        cdef itimerspec when
        cdef epoll_event event
        if self.timer < 0:
            self.timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)
            event.events = EPOLLIN
            event.data.ptr = NULL
            if self.timer < 0 or epoll_ctl(self.descriptor, EPOLL_CTL_ADD, self.timer, &event) < 0:
                return -1
        memset(&when, 0, sizeof(when))
        when.it_value.tv_sec = at_ns // 1_000_000_000
        when.it_value.tv_nsec = at_ns % 1_000_000_000
        return timerfd_settime(self.timer, TFD_TIMER_ABSTIME, &when, NULL)
