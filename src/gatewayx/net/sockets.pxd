"""Sockets and the clock for programs with connections by the thousand: straight system calls, no objects."""

from gatewayx.net.networks cimport CompactAddress

cdef extern from "<sys/socket.h>" nogil:
    ctypedef unsigned int socklen_t
    cdef struct sockaddr:
        pass
    cdef struct sockaddr_storage:
        unsigned short ss_family

cdef extern from "<sys/uio.h>" nogil:
    cdef struct iovec:
        void* iov_base
        size_t iov_len


cdef class Peer:
    # The address that connections are made to.
    cdef sockaddr_storage address
    cdef socklen_t address_bytes
    # Connections come from as many addresses of the loopback in turn, 127.0.0.2 and up; 0 for the kernel's choice.
    cdef readonly int sources
    cdef int next_source

    # A descriptor that is connecting, or -1 with errno.
    cdef int connect(self, int receive_buffer_bytes) noexcept


# What recv(2), send(2) and sendmsg(2) return, tried again while a signal interrupts them; past glibc's cancellation points,
# as nobody cancels a thread here.
cdef Py_ssize_t receive(int descriptor, char* buffer, Py_ssize_t size) noexcept nogil
cdef Py_ssize_t transmit(int descriptor, const char* data, Py_ssize_t size) noexcept nogil
cdef Py_ssize_t transmit_pieces(int descriptor, iovec* pieces, int count) noexcept nogil
cdef bint would_block() noexcept nogil
cdef void disconnect(int descriptor) noexcept nogil
# A close drops what was not sent and resets the connection, whatever the other side has had (socket(7), SO_LINGER).
cdef void reset_at_close(int descriptor) noexcept nogil
# Send FIN.
cdef void end_sending(int descriptor) noexcept nogil
# Why a connection failed; 0 if it did not. Asking forgets it.
cdef int connect_error(int descriptor) noexcept nogil
# A connection that waited at a socket which listens, non-blocking, and its other side; -1 with errno.
cdef int accept_connection(int descriptor, CompactAddress* peer) noexcept nogil
# The other side of a connection.
cdef void read_peer(int descriptor, CompactAddress* peer) noexcept nogil
# As getpeername() tells it in Python; None for none.
cdef object address_tuple(const CompactAddress* address)
# Which process connected to a unix socket, or listened there, and its user (unix(7), SO_PEERCRED); None for no such socket.
cpdef object connected_process(int descriptor)
# Bytes of a connection that the kernel holds: sent and not confirmed, FIN included (tcp(7), SIOCOUTQ); come and not read
# (SIOCINQ). 0 once the socket is gone. In a unix socket what was sent counts until the other side has read it, and by the
# memory that it takes: more than was written, but nothing for nothing.
cdef int unconfirmed_in(int descriptor) noexcept nogil
cdef int incoming_in(int descriptor) noexcept nogil
# A descriptor that stands for nothing; -1 with errno.
cdef int open_nothing() noexcept nogil
