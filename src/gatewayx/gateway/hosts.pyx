"""The names by which the gateway is asked for."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.string cimport memchr, memcmp, memcpy
from posix.strings cimport strncasecmp

from gatewayx.core.grammar cimport is_name
from gatewayx.gateway.asking cimport Value

cdef extern from "arpa/inet.h" nogil:
    int inet_pton(int family, const char* text, void* number)

cdef extern from "netinet/in.h" nogil:
    enum:
        AF_INET
        AF_INET6
        INET6_ADDRSTRLEN

cdef enum:
    # A name of DNS has no more, and a key that is an IPv6 address has fewer.
    MOST_KEY_BYTES = 255
    IPV4_BYTES = 4
    IPV6_BYTES = 16
    # "[" and the address.
    IPV6_KEY_BYTES = 17


@cython.final
cdef class Hosts:
    """Some names of hosts. names: names and addresses, IPv6 in brackets, without ports."""

    def __init__(self, tuple names not None):
        cdef Value value
        cdef char[MOST_KEY_BYTES + 1] key
        cdef Py_ssize_t size
        cdef bytes name
        keys = set()
        for name in names:
            value.text = PyBytes_AS_STRING(name)
            value.size = PyBytes_GET_SIZE(name)
            size = host_key(&value, key)
            keys.add(key[:size])
        self.keys = frozenset(keys)

    cdef bint have(self, const Value* host) except -1:
        cdef char[MOST_KEY_BYTES + 1] key
        cdef Py_ssize_t size
        if self.last is not None and PyBytes_GET_SIZE(self.last) == host.size and (
            memcmp(PyBytes_AS_STRING(self.last), host.text, host.size) == 0
        ):
            return True
        size = host_key(host, key)
        if size == 0 or key[:size] not in self.keys:
            return False
        self.last = host.text[: host.size]
        return True


cdef Py_ssize_t host_key(const Value* host, char* key) noexcept:
    """Write what tells a host from others, its port, the case of letters and a dot at its end aside.

    Returns how many bytes that has, 0 of none; a NUL follows. An IPv6 address may be written in many ways.
    """
    cdef char[INET6_ADDRSTRLEN] address
    cdef const char* end
    cdef Py_ssize_t size = host.size
    cdef Py_ssize_t index
    if size == 0:
        return 0
    if host.text[0] == c"[":
        end = <const char*> memchr(host.text, c"]", size)
        size = 0 if end == NULL else end - host.text - 1
        if size == 0 or size >= INET6_ADDRSTRLEN:
            return 0
        memcpy(address, host.text + 1, size)
        address[size] = 0
        key[0] = c"["
        key[IPV6_KEY_BYTES] = 0
        return IPV6_KEY_BYTES if inet_pton(AF_INET6, address, key + 1) == 1 else 0
    end = <const char*> memchr(host.text, c":", size)
    if end != NULL:
        size = end - host.text
    if size and host.text[size - 1] == c".":
        size -= 1
    if size > MOST_KEY_BYTES:
        return 0
    for index in range(size):
        key[index] = host.text[index]
        if c"A" <= key[index] <= c"Z":
            key[index] |= 0x20
    key[size] = 0
    return size


cdef bint is_own_machine(const Value* host) noexcept:
    cdef char[MOST_KEY_BYTES + 1] key
    cdef unsigned char[IPV4_BYTES] address
    cdef Py_ssize_t size = host_key(host, key)
    if size == IPV6_KEY_BYTES and key[0] == c"[":
        return _is_own_ipv6(<const unsigned char*> key + 1)
    if size >= 9 and memcmp(key + size - 9, b"localhost", 9) == 0:
        # RFC 6761 6.3: names below it are the machine's as well, without a look-up.
        return size == 9 or key[size - 10] == c"."
    return size > 0 and inet_pton(AF_INET, key, address) == 1 and _is_own_ipv4(address)


cdef bint _is_own_ipv4(const unsigned char* address) noexcept:
    # A connection to 0.0.0.0 is one to the machine itself, which browsers have let pages make.
    return address[0] == 127 or memcmp(address, b"\0\0\0\0", IPV4_BYTES) == 0


cdef bint _is_own_ipv6(const unsigned char* address) noexcept:
    if memcmp(address, b"\0\0\0\0\0\0\0\0\0\0", 10) != 0:
        return False
    if address[10] == 0xFF and address[11] == 0xFF:
        return _is_own_ipv4(address + 12)
    return memcmp(address + 10, b"\0\0\0\0\0", 5) == 0 and address[15] <= 1


cdef bint is_origin_of(const Value* origin, const Value* host) noexcept:
    cdef const char* name = <const char*> memchr(origin.text, c":", origin.size)
    cdef const char* end = origin.text + origin.size
    cdef const char* port = b":80"
    cdef Py_ssize_t port_bytes = 3
    cdef Py_ssize_t size
    if name == NULL or end - name < 3 or name[1] != c"/" or name[2] != c"/":
        return False
    if is_name(origin.text, name, b"https", 5):
        port = b":443"
        port_bytes = 4
    elif not is_name(origin.text, name, b"http", 4):
        return False
    name += 3
    size = _before_port(name, end - name, port, port_bytes)
    return (
        size > 0
        and size == _before_port(host.text, host.size, port, port_bytes)
        and strncasecmp(name, host.text, size) == 0
    )


cdef bint is_https_origin_of(const Value* origin, const Value* host) noexcept:
    return origin.size > 6 and is_name(origin.text, origin.text + 6, b"https:", 6) and is_origin_of(origin, host)


cdef Py_ssize_t _before_port(const char* text, Py_ssize_t size, const char* port, Py_ssize_t port_bytes) noexcept:
    """How many bytes there are before this very port, or in all."""
    if size > port_bytes and memcmp(text + size - port_bytes, port, port_bytes) == 0:
        return size - port_bytes
    return size
