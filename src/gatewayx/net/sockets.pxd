"""Sockets and the clock for who makes connections by the thousand: straight system calls, no objects."""

from libc.stdint cimport uint32_t, uint64_t

cdef extern from "<sys/socket.h>" nogil:
    ctypedef unsigned int socklen_t
    cdef struct sockaddr:
        pass
    cdef struct sockaddr_storage:
        unsigned short ss_family

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
    # Events that one turn of the loop takes.
    EVENTS_PER_TURN = 512


cdef long long now_ns() noexcept nogil


cdef class Peer:
    # Whom connections are made to.
    cdef sockaddr_storage address
    cdef socklen_t address_bytes
    # Connections come from as many addresses of the loopback in turn, 127.0.0.2 and up; 0 for the kernel's choice.
    cdef readonly int sources
    cdef int next_source

    # A descriptor that is connecting, or -1 with errno.
    cdef int connect(self, int receive_buffer_bytes) noexcept


cdef class Poller:
    # Of its own, watched by the loop: one callback of the loop for all the sockets that are ready.
    cdef readonly int descriptor
    # -1 until the first alarm.
    cdef int timer
    cdef object loop
    cdef epoll_event ready[EVENTS_PER_TURN]

    cdef int add(self, int descriptor, object owner) noexcept
    # How many of `ready` are set; the alarm is taken out.
    cdef int poll(self) noexcept
    cdef int set_alarm(self, long long at_ns) noexcept


cdef Py_ssize_t receive(int descriptor, char* buffer, Py_ssize_t size) noexcept nogil
cdef Py_ssize_t transmit(int descriptor, const char* data, Py_ssize_t size) noexcept nogil
cdef bint would_block() noexcept nogil
cdef void disconnect(int descriptor) noexcept nogil
cdef int connect_error(int descriptor) noexcept nogil
