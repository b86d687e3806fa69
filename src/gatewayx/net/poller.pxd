"""An epoll descriptor of ours that the event loop watches as one of its own."""

from libc.stdint cimport uint32_t

cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        void* ptr
    cdef struct epoll_event:
        uint32_t events
        epoll_data_t data
    enum:
        EPOLLIN
        EPOLLOUT
        EPOLLERR
        EPOLLHUP
        EPOLLRDHUP

cdef enum:
    # Events that one turn of the loop takes; the rest comes in the next.
    EVENTS_PER_TURN = 512


cdef class Polled:
    # Called with the EPOLL bits of its socket. It may close any socket of the poller, its own too: what else was ready
    # in the same turn is told all the same, so an owner first looks whether it still has one.
    cdef int handle(self, unsigned int events) except -1


cdef class Poller:
    # The epoll descriptor that the loop watches: one callback of the loop for all the sockets that are ready.
    cdef readonly int descriptor
    # A timerfd in it; -1 until the first alarm.
    cdef int timer
    cdef object loop
    cdef epoll_event ready[EVENTS_PER_TURN]

    # Tell the owner of every change of the socket's readiness; it must outlive the socket. Below 0 with errno.
    cdef int add(self, int descriptor, Polled owner) noexcept
    # For the callback: let the owner of each socket that is ready handle it.
    cdef int serve(self) except -1
    # Have the callback called at a time of `now_ns`: uvloop's own timers are a millisecond coarse.
    cdef int set_alarm(self, long long at_ns) noexcept
