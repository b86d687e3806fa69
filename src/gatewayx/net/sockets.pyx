"""Sockets and the clock for programs with connections by the thousand: straight system calls, no objects."""

import socket

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.errno cimport EAGAIN, EINPROGRESS, EINTR, errno
from libc.stdint cimport uint32_t
from libc.string cimport memcpy, memset
from posix.fcntl cimport O_CLOEXEC, O_RDONLY, open as c_open
from posix.unistd cimport close

from gatewayx.core.clock cimport now_ns

cdef extern from "<sys/socket.h>" nogil:
    int c_socket "socket"(int domain, int kind, int protocol)
    int c_connect "connect"(int descriptor, const sockaddr* address, socklen_t size)
    int c_bind "bind"(int descriptor, const sockaddr* address, socklen_t size)
    int setsockopt(int descriptor, int level, int name, const void* value, socklen_t size)
    int getsockopt(int descriptor, int level, int name, void* value, socklen_t* size)
    int accept4(int descriptor, sockaddr* address, socklen_t* size, int flags)
    int getpeername(int descriptor, sockaddr* address, socklen_t* size)
    int shutdown(int descriptor, int how)
    cdef struct msghdr:
        iovec* msg_iov
        size_t msg_iovlen
    cdef struct linger:
        int l_onoff
        int l_linger
    enum:
        SHUT_WR
        SOCK_STREAM
        SOCK_NONBLOCK
        SOCK_CLOEXEC
        SOL_SOCKET
        SO_ERROR
        SO_LINGER
        SO_PEERCRED
        SO_RCVBUF
        MSG_NOSIGNAL

cdef extern from "<netinet/in.h>" nogil:
    cdef struct in_addr:
        uint32_t s_addr
    cdef struct sockaddr_in:
        unsigned short sin_family
        unsigned short sin_port
        in_addr sin_addr
    cdef struct in6_addr:
        unsigned char s6_addr[16]
    cdef struct sockaddr_in6:
        unsigned short sin6_family
        unsigned short sin6_port
        uint32_t sin6_scope_id
        in6_addr sin6_addr
    unsigned short htons(unsigned short value)
    unsigned short ntohs(unsigned short value)
    uint32_t htonl(uint32_t value)
    bint IN6_IS_ADDR_V4MAPPED(const in6_addr* address)
    enum:
        AF_INET
        AF_INET6
        IPPROTO_TCP
        IPPROTO_IP
        IP_BIND_ADDRESS_NO_PORT

cdef extern from "<netinet/tcp.h>" nogil:
    enum:
        TCP_NODELAY

cdef extern from "<sys/syscall.h>" nogil:
    enum:
        SYS_recvfrom
        SYS_sendto
        SYS_sendmsg

cdef extern from "<unistd.h>" nogil:
    long syscall(long number, ...)

cdef extern from "<sys/ioctl.h>" nogil:
    int ioctl(int descriptor, unsigned long request, ...)
    enum:
        FIONREAD
        TIOCOUTQ

cdef extern from "<arpa/inet.h>" nogil:
    int inet_pton(int family, const char* text, void* address)

from gatewayx.net.names import NumericHost

cdef extern from *:
    """
    #include <malloc.h>
    #ifndef __GLIBC__
    #define malloc_trim(pad) 0
    #endif
    """
    int malloc_trim(size_t pad) nogil


cdef uint32_t FIRST_SOURCE = 0x7F000002


def give_memory_back():
    """Return to the machine what the C library has and nobody uses (malloc_trim(3)); takes a millisecond."""
    malloc_trim(0)


def clock_ns():
    """`now_ns` for Python."""
    return now_ns()


cdef class Peer:
    """The address that connections are made to: IPv4 or IPv6 in numbers, and a port.

    sources: connections come from so many addresses of the loopback in turn, since one address has 28,000 ports and
    a flood uses more in a minute; 0 lets the kernel choose. Raises ValueError for what is no address.
    """

    def __init__(self, str host, int port, int sources=0):
        cdef sockaddr_in* ipv4 = <sockaddr_in*> &self.address
        cdef sockaddr_in6* ipv6 = <sockaddr_in6*> &self.address
        cdef bytes text
        number, _, scope = host.partition("%")
        text = number.encode()
        memset(&self.address, 0, sizeof(self.address))
        if inet_pton(AF_INET, text, &ipv4.sin_addr) == 1:
            ipv4.sin_family = AF_INET
            ipv4.sin_port = htons(port)
            self.address_bytes = sizeof(sockaddr_in)
        elif inet_pton(AF_INET6, text, &ipv6.sin6_addr) == 1:
            ipv6.sin6_family = AF_INET6
            ipv6.sin6_port = htons(port)
            if scope:
                ipv6.sin6_scope_id = int(scope) if scope.isdigit() else socket.if_nametoindex(scope)
            self.address_bytes = sizeof(sockaddr_in6)
        else:
            raise ValueError(f"{host!r} is not an IP address")
        self.sources = sources

    cdef int connect(self, int receive_buffer_bytes) noexcept:
        cdef sockaddr_in source
        cdef int one = 1
        cdef int descriptor = c_socket(self.address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
        if descriptor < 0:
            return -1
        setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one))
        if receive_buffer_bytes:
            setsockopt(descriptor, SOL_SOCKET, SO_RCVBUF, &receive_buffer_bytes, sizeof(receive_buffer_bytes))
        if self.sources:
            memset(&source, 0, sizeof(source))
            source.sin_family = AF_INET
            source.sin_addr.s_addr = htonl(FIRST_SOURCE + self.next_source)
            self.next_source = (self.next_source + 1) % self.sources
            # The port is chosen at connect, where it need only be new for this peer (ip(7)).
            setsockopt(descriptor, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one))
            if c_bind(descriptor, <sockaddr*> &source, sizeof(source)) < 0:
                close(descriptor)
                return -1
        if c_connect(descriptor, <sockaddr*> &self.address, self.address_bytes) < 0 and errno != EINPROGRESS:
            close(descriptor)
            return -1
        return descriptor


cdef Py_ssize_t receive(int descriptor, char* buffer, Py_ssize_t size) noexcept nogil:
    cdef Py_ssize_t received
    while True:
        received = syscall(SYS_recvfrom, descriptor, buffer, size, 0, NULL, NULL)
        if received >= 0 or errno != EINTR:
            return received


cdef Py_ssize_t transmit(int descriptor, const char* data, Py_ssize_t size) noexcept nogil:
    cdef Py_ssize_t sent
    while True:
        sent = syscall(SYS_sendto, descriptor, data, size, <int> MSG_NOSIGNAL, NULL, 0)
        if sent >= 0 or errno != EINTR:
            return sent


cdef Py_ssize_t transmit_pieces(int descriptor, iovec* pieces, int count) noexcept nogil:
    cdef msghdr message
    cdef Py_ssize_t sent
    memset(&message, 0, sizeof(message))
    message.msg_iov = pieces
    message.msg_iovlen = count
    while True:
        sent = syscall(SYS_sendmsg, descriptor, &message, <int> MSG_NOSIGNAL)
        if sent >= 0 or errno != EINTR:
            return sent


cdef bint would_block() noexcept nogil:
    """Whether the call that has just failed would only have had to wait."""
    return errno == EAGAIN


cdef void disconnect(int descriptor) noexcept nogil:
    close(descriptor)


cdef void reset_at_close(int descriptor) noexcept nogil:
    cdef linger at_once
    at_once.l_onoff = 1
    at_once.l_linger = 0
    setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once))


cdef void end_sending(int descriptor) noexcept nogil:
    shutdown(descriptor, SHUT_WR)


cdef int connect_error(int descriptor) noexcept nogil:
    cdef int error = 0
    cdef socklen_t size = sizeof(error)
    getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &error, &size)
    return error


cdef int accept_connection(int descriptor, CompactAddress* peer) noexcept nogil:
    cdef sockaddr_storage address
    cdef socklen_t size = sizeof(address)
    cdef int accepted
    while True:
        accepted = accept4(descriptor, <sockaddr*> &address, &size, SOCK_NONBLOCK | SOCK_CLOEXEC)
        if accepted >= 0:
            _compact(&address, peer)
            return accepted
        if errno != EINTR:
            return -1


cdef void read_peer(int descriptor, CompactAddress* peer) noexcept nogil:
    cdef sockaddr_storage address
    cdef socklen_t size = sizeof(address)
    address.ss_family = 0
    getpeername(descriptor, <sockaddr*> &address, &size)
    _compact(&address, peer)


cdef void _compact(const sockaddr_storage* address, CompactAddress* compact) noexcept nogil:
    cdef const sockaddr_in* ipv4 = <const sockaddr_in*> address
    cdef const sockaddr_in6* ipv6 = <const sockaddr_in6*> address
    memset(compact, 0, sizeof(CompactAddress))
    if address.ss_family == AF_INET:
        compact.family = AF_INET
        compact.port = ntohs(ipv4.sin_port)
        memcpy(compact.host, &ipv4.sin_addr, 4)
    elif address.ss_family == AF_INET6 and IN6_IS_ADDR_V4MAPPED(&ipv6.sin6_addr):
        # A client of IPv4 at a socket that takes both: all of them would pass for one /64.
        compact.family = AF_INET
        compact.port = ntohs(ipv6.sin6_port)
        memcpy(compact.host, &ipv6.sin6_addr.s6_addr[12], 4)
    elif address.ss_family == AF_INET6:
        compact.family = AF_INET6
        compact.port = ntohs(ipv6.sin6_port)
        compact.scope = ipv6.sin6_scope_id
        memcpy(compact.host, &ipv6.sin6_addr, 16)


cpdef object connected_process(int descriptor):
    # struct ucred of <sys/socket.h>: process, user, group.
    cdef int[3] credentials
    cdef socklen_t size = sizeof(credentials)
    if getsockopt(descriptor, SOL_SOCKET, SO_PEERCRED, credentials, &size) < 0 or size != sizeof(credentials):
        return None
    return (credentials[0], <unsigned int> credentials[1])


cdef object address_tuple(const CompactAddress* address):
    cdef int size = 16 if address.family == AF_INET6 else 4
    if address.family == 0:
        return None
    host = socket.inet_ntop(address.family, PyBytes_FromStringAndSize(<const char*> address.host, size))
    if address.family == AF_INET:
        return (host, address.port)
    return (str(NumericHost(address.family, host, address.scope)), address.port, 0, address.scope)


cdef int unconfirmed_in(int descriptor) noexcept nogil:
    return _queued(descriptor, TIOCOUTQ)


cdef int incoming_in(int descriptor) noexcept nogil:
    return _queued(descriptor, FIONREAD)


cdef int _queued(int descriptor, unsigned long request) noexcept nogil:
    """Bytes in the kernel, of one direction."""
    cdef int queued = 0
    return queued if ioctl(descriptor, request, &queued) >= 0 else 0


cdef int open_nothing() noexcept nogil:
    return c_open(b"/dev/null", O_RDONLY | O_CLOEXEC)
