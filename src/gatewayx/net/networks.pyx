"""Addresses of hosts in text, and the networks that they are in.

What a proxy tells of its client comes from the network, so it is read by inet_pton(3), which takes an address in one
notation alone, and is written back by inet_ntop(3), so that one address has one text.
"""

cimport cython
from cpython.unicode cimport PyUnicode_DecodeASCII
from libc.string cimport memchr, memcmp, memcpy, memset, strlen

from gatewayx.address import UNIX_SCHEME

# For Python.
globals().update(MOST_NETWORKS=<int> MOST_NETWORKS)

cdef extern from "<sys/socket.h>" nogil:
    enum:
        AF_INET
        AF_INET6

cdef extern from "<arpa/inet.h>" nogil:
    int inet_pton(int family, const char* text, void* address)
    const char* inet_ntop(int family, const void* address, char* text, unsigned int size)

cdef enum:
    # What comes before an IPv4 address that is written as an IPv6 one, in bytes.
    MAPPED_BYTES = 12

cdef const unsigned char* MAPPED = b"\0\0\0\0\0\0\0\0\0\0\xff\xff"


@cython.final
cdef class Networks:
    """Networks of addresses that something is granted to.

    texts: each an IPv4 or IPv6 address, with or without /LENGTH of its prefix; those that begin with unix: are passed over.
    At most MOST_NETWORKS. Raises ValueError for a text that is none, or for too many.
    """

    def __init__(self, texts=()):
        for text in texts:
            if not text.startswith(UNIX_SCHEME):
                self._add(text)

    def __len__(self):
        return self.count

    def __contains__(self, str host not None):
        """Whether an address is in any of them; False for a text that is no address."""
        cdef CompactAddress address
        return _read(host, &address) and self.contains(&address)

    cdef bint contains(self, const CompactAddress* address) noexcept:
        cdef int number, whole, rest
        for number in range(self.count):
            if self.networks[number].family != address.family:
                continue
            whole = self.networks[number].bits >> 3
            rest = self.networks[number].bits & 7
            if memcmp(self.networks[number].host, address.host, whole):
                continue
            if rest == 0 or ((self.networks[number].host[whole] ^ address.host[whole]) >> (8 - rest)) == 0:
                return True
        return False

    cdef int _add(self, str text) except -1:
        cdef CompactAddress address
        cdef Network* network
        cdef int all_bits, bits
        host, slash, length = text.partition("/")
        if not _read(host, &address):
            raise ValueError(f"{text!r} is no network")
        all_bits = 128 if ":" in host else 32
        bits = all_bits
        if slash:
            bits = int(length) if length.isascii() and length.isdigit() and len(length) <= 3 else -1
        if all_bits == 128 and address.family == AF_INET:
            # Its addresses come here as IPv4 ones.
            bits -= 8 * MAPPED_BYTES
            all_bits = 32
        if not 0 <= bits <= all_bits:
            raise ValueError(f"{text!r} is no network")
        if self.count == MOST_NETWORKS:
            raise ValueError(f"more than {<int> MOST_NETWORKS} networks")
        network = &self.networks[self.count]
        network.family = address.family
        network.bits = bits
        memcpy(network.host, address.host, sizeof(network.host))
        self.count += 1
        return 0


def canonical_address(str text not None):
    """An IPv4 or IPv6 address as it is written everywhere here, IPv4 never in its IPv6 form; None for no address.

    It is read as inet_pton(3) does: without port, brackets, scope and leading zeros.
    """
    cdef CompactAddress address
    return host_text(&address) if _read(text, &address) else None


cdef bint _read(str text, CompactAddress* address) except? True:
    cdef bytes ascii
    if not text.isascii():
        return False
    ascii = text.encode("ascii")
    return read_address(ascii, len(ascii), address)


cdef bint read_address(const char* text, Py_ssize_t size, CompactAddress* address) noexcept:
    cdef char[ADDRESS_TEXT_BYTES] copied
    cdef unsigned char[16] host
    cdef unsigned short family = AF_INET
    if size <= 0 or size >= ADDRESS_TEXT_BYTES or memchr(text, 0, size) != NULL:
        return False
    memcpy(copied, text, size)
    copied[size] = 0
    if memchr(text, c":", size) != NULL:
        family = AF_INET6
    if inet_pton(family, copied, host) != 1:
        return False
    pack_address(family == AF_INET6, host, address)
    return True


cdef void pack_address(bint is_ipv6, const unsigned char* host, CompactAddress* address) noexcept:
    memset(address, 0, sizeof(CompactAddress))
    if is_ipv6 and memcmp(host, MAPPED, MAPPED_BYTES) == 0:
        address.family = AF_INET
        memcpy(address.host, host + MAPPED_BYTES, 4)
        return
    address.family = AF_INET6 if is_ipv6 else AF_INET
    memcpy(address.host, host, 16 if is_ipv6 else 4)


cdef str host_text(const CompactAddress* address):
    cdef char[ADDRESS_TEXT_BYTES] text
    if address.family == 0 or inet_ntop(address.family, address.host, text, sizeof(text)) == NULL:
        return None
    return PyUnicode_DecodeASCII(text, strlen(text), NULL)
