"""Sockets and the clock for programs with connections by the thousand: straight system calls, no objects."""

from libc.stdint cimport uint32_t

cdef extern from "<sys/socket.h>" nogil:
    ctypedef unsigned int socklen_t
    cdef struct sockaddr:
        pass
    cdef struct sockaddr_storage:
        unsigned short ss_family


cdef long long now_ns() noexcept nogil


cdef class Peer:
    # The address that connections are made to.
    cdef sockaddr_storage address
    cdef socklen_t address_bytes
    # Connections come from as many addresses of the loopback in turn, 127.0.0.2 and up; 0 for the kernel's choice.
    cdef readonly int sources
    cdef int next_source

    # A descriptor that is connecting, or -1 with errno.
    cdef int connect(self, int receive_buffer_bytes) noexcept


cdef Py_ssize_t receive(int descriptor, char* buffer, Py_ssize_t size) noexcept nogil
cdef Py_ssize_t transmit(int descriptor, const char* data, Py_ssize_t size) noexcept nogil
cdef bint would_block() noexcept nogil
cdef void disconnect(int descriptor) noexcept nogil
cdef int connect_error(int descriptor) noexcept nogil
