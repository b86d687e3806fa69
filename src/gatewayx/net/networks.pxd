"""Addresses of hosts in text, and the networks that they are in."""

from libc.stdint cimport uint32_t

cdef enum:
    # Networks in one list: as many as there may be in the setting.
    MOST_NETWORKS = 256
    # The longest text of an address: an IPv6 one with an IPv4 one in it, and the NUL (netinet/in.h, INET6_ADDRSTRLEN).
    ADDRESS_TEXT_BYTES = 46


# An IPv4 or IPv6 address and a port in few bytes; family 0 is none, as of whoever connects to a unix socket.
cdef struct CompactAddress:
    unsigned short family
    unsigned short port
    uint32_t scope
    unsigned char host[16]


# All addresses of `family` whose first bits are these.
cdef struct Network:
    unsigned short family
    int bits
    unsigned char host[16]


cdef class Networks:
    cdef int count
    cdef Network[MOST_NETWORKS] networks

    # Whether the address is in any of them; its port and scope do not matter. None is whoever has no address.
    cdef bint contains(self, const CompactAddress* address) noexcept
    cdef int _add(self, str text) except -1


# Read an address that is all of the text, as inet_pton(3) has it: no port, brackets, scope or leading zeros. An IPv4 address
# that is written as an IPv6 one (RFC 4291 2.5.5.2) is the IPv4 address. False for what is none; the address is undefined then.
cdef bint read_address(const char* text, Py_ssize_t size, CompactAddress* address) noexcept
# The same for the bytes of an address, 16 of an IPv6 one, or 4.
cdef void pack_address(bint is_ipv6, const unsigned char* host, CompactAddress* address) noexcept
# The address as inet_ntop(3) writes it, without port and scope; None for none.
cdef str host_text(const CompactAddress* address)
