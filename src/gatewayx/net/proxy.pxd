"""The PROXY header by which a proxy tells whose connection it passes on: bytes in, an address out."""

from gatewayx.net.networks cimport CompactAddress

cdef enum:
    # A line of version 1, its end included.
    MOST_LINE_BYTES = 107
    # Of version 2: what every header has, and what may follow that. It makes 4,096 in all, as nginx takes them
    # (NGX_PROXY_PROTOCOL_MAX_HEADER): clouds and meshes put certificates and identities behind the addresses. A header that
    # is not whole holds all of that, so connections that wait hold at most 4 MiB (MOST_WAITING in net/proxied).
    FIXED_BYTES = 16
    MOST_REST_BYTES = 4080
    SIGNATURE_BYTES = 12


cdef class ProxyHeader:
    # The proxy speaks for itself: what comes is nobody's but its own (2.2, LOCAL).
    cdef readonly bint is_proxys_own
    # All of it has come.
    cdef readonly bint is_complete
    # Whose connection it is; of no family where the proxy speaks for itself, or does not tell: then it is the one that is
    # there.
    cdef CompactAddress client
    # What came of it, of `size` bytes.
    cdef unsigned char[FIXED_BYTES + MOST_REST_BYTES] begun
    cdef Py_ssize_t size

    # Take so many bytes of the connection's first. Returns how many of them belong to the header: the others follow it. Raises
    # ProxyError for what is no header, at the first byte by which it is none.
    cdef Py_ssize_t take(self, const char* data, Py_ssize_t data_bytes) except -1
    # How many bytes the header has in all, as far as is known; 0 for a line, whose end shows that.
    cdef Py_ssize_t _all_bytes(self) except -1
    cdef int _read_line(self) except -1
    cdef int _end_line(self, bytes line) except -1
    cdef bint _is_unknown(self) noexcept
    cdef int _read_binary(self) except -1
    cdef int _check_values(self, Py_ssize_t cursor) except -1
    cdef bint _is_right(self, Py_ssize_t checksum_at) noexcept
    # What has come of it so far, for whoever tells of it: so many bytes at most.
    cdef bytes example(self, Py_ssize_t most_bytes)
