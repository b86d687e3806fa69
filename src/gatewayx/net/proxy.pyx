"""The PROXY header by which a proxy tells whose connection it passes on (haproxy.org, proxy-protocol.txt).

Both versions are read, and nothing is guessed: a connection of which a header is expected begins with one. What the header is not
made of is refused at the byte that shows it, so that whoever waits for more of it waits for a header.
"""

cimport cython
from libc.stdint cimport uint32_t
from libc.string cimport memcmp, memcpy

from gatewayx.net.networks cimport CompactAddress, host_text, pack_address, read_address

# MOST_LINE_BYTES and MOST_REST_BYTES, for Python.
globals().update(MOST_LINE_BYTES=<int> MOST_LINE_BYTES, MOST_REST_BYTES=<int> MOST_REST_BYTES)

cdef const char* SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
cdef const char* LINE_BEGIN = b"PROXY "
cdef const char* UNKNOWN_BEGIN = b"PROXY UNKNOWN "

cdef enum:
    LINE_BEGIN_BYTES = 6
    UNKNOWN_BEGIN_BYTES = 14
    # Commands of version 2, behind the version in one byte (2.2): the proxy speaks for itself, or for a client.
    LOCAL = 0x20
    PROXY = 0x21
    # Families, each with the transport by which the client has reached the proxy: HTTP/3 comes in datagrams.
    UNSPECIFIED = 0x00
    TCP_OVER_4 = 0x11
    UDP_OVER_4 = 0x12
    TCP_OVER_6 = 0x21
    UDP_OVER_6 = 0x22
    UNIX_STREAM = 0x31
    UNIX_DATAGRAM = 0x32
    # Two addresses and two ports of each, or two paths.
    ADDRESSES_OF_4_BYTES = 12
    ADDRESSES_OF_6_BYTES = 36
    PATHS_BYTES = 216
    # A value behind the addresses that is a checksum of all of the header.
    CHECKSUM_TYPE = 0x03
    CHECKSUM_BYTES = 4

# CRC32c by byte (RFC 3309, appendix B).
cdef uint32_t[256] CRC


cdef void _fill_table() noexcept:
    cdef uint32_t value
    cdef int byte, bit
    for byte in range(256):
        value = byte
        for bit in range(8):
            value = (value >> 1) ^ (<uint32_t> 0x82F63B78 if value & 1 else 0)
        CRC[byte] = value


_fill_table()


class ProxyError(Exception):
    """What came is no PROXY header: the fault of whoever has sent it."""


@cython.final
cdef class ProxyHeader:
    """The header of one connection; the .pxd says what each field means."""

    @property
    def host(self):
        """Whose connection it is, as text; None for that of the proxy itself."""
        return host_text(&self.client)

    @property
    def port(self):
        """The client's port; 0 without a host."""
        return self.client.port

    def feed(self, bytes data not None):
        """Take bytes; how many of them belong to the header. Raises ProxyError."""
        return self.take(data, len(data))

    cdef Py_ssize_t take(self, const char* data, Py_ssize_t data_bytes) except -1:
        cdef Py_ssize_t taken = 0
        cdef Py_ssize_t all_bytes, more_bytes
        while taken < data_bytes and not self.is_complete:
            all_bytes = self._all_bytes()
            more_bytes = 1 if all_bytes == 0 else min(all_bytes - self.size, data_bytes - taken)
            memcpy(&self.begun[self.size], data + taken, more_bytes)
            self.size += more_bytes
            taken += more_bytes
            if all_bytes == 0:
                self._read_line()
            elif self.size == self._all_bytes():
                self._read_binary()
        return taken

    cdef Py_ssize_t _all_bytes(self) except -1:
        cdef Py_ssize_t rest_bytes
        if self.size < FIXED_BYTES or memcmp(self.begun, SIGNATURE, SIGNATURE_BYTES):
            # One byte at a time shows which of the two it is.
            return 0
        rest_bytes = self.begun[14] << 8 | self.begun[15]
        if rest_bytes > MOST_REST_BYTES:
            raise ProxyError(f"a PROXY header of more than {FIXED_BYTES + MOST_REST_BYTES} bytes")
        return FIXED_BYTES + rest_bytes

    cdef int _read_line(self) except -1:
        """One more byte has come, of a line or of the part that every header of version 2 has."""
        cdef unsigned char last = self.begun[self.size - 1]
        cdef bint after_cr = self.size > 1 and self.begun[self.size - 2] == c"\r"
        if memcmp(self.begun, SIGNATURE, min(self.size, <Py_ssize_t> SIGNATURE_BYTES)) == 0:
            if self.size == 13 and last != LOCAL and last != PROXY:
                raise ProxyError("a PROXY header of a version or command that is not known")
            if self.size == FIXED_BYTES and self._all_bytes() == FIXED_BYTES:
                return self._read_binary()
            return 0
        if memcmp(self.begun, LINE_BEGIN, min(self.size, <Py_ssize_t> LINE_BEGIN_BYTES)):
            raise ProxyError("the connection does not begin with a PROXY header")
        if last == c"\n":
            if not after_cr:
                raise ProxyError("a PROXY line that does not end with CR and LF")
            return self._end_line(bytes(self.begun[: self.size - 2]))
        if after_cr:
            raise ProxyError("a PROXY line that does not end with CR and LF")
        if not (0x20 <= last < 0x7F or last == c"\r" or self._is_unknown()):
            raise ProxyError("a PROXY line with a byte that is no printable character")
        if self.size == MOST_LINE_BYTES:
            raise ProxyError(f"a PROXY line of more than {<int> MOST_LINE_BYTES} bytes")
        return 0

    cdef bint _is_unknown(self) noexcept:
        """Whether it is a line of which all that follows is to be passed over (2.1)."""
        return self.size >= UNKNOWN_BEGIN_BYTES and memcmp(self.begun, UNKNOWN_BEGIN, UNKNOWN_BEGIN_BYTES) == 0

    cdef int _end_line(self, bytes line) except -1:
        cdef CompactAddress source
        cdef CompactAddress destination
        cdef list parts
        if self._is_unknown() or line == b"PROXY UNKNOWN":
            self.is_complete = True
            return 0
        parts = line.split(b" ")
        if len(parts) != 6 or parts[1] not in (b"TCP4", b"TCP6"):
            raise ProxyError("a PROXY line without a protocol, two addresses and two ports")
        _read_address(parts[2], parts[1] == b"TCP6", &source)
        _read_address(parts[3], parts[1] == b"TCP6", &destination)
        source.port = _port(parts[4])
        _port(parts[5])
        self.client = source
        self.is_complete = True
        return 0

    cdef int _read_binary(self) except -1:
        cdef int family = self.begun[13]
        cdef Py_ssize_t addresses_bytes
        if self.begun[12] == LOCAL:
            # Whatever family it names, and whatever follows, is to be passed over (2.2).
            self.is_proxys_own = True
            self.is_complete = True
            return 0
        if family == TCP_OVER_4 or family == UDP_OVER_4:
            addresses_bytes = ADDRESSES_OF_4_BYTES
        elif family == TCP_OVER_6 or family == UDP_OVER_6:
            addresses_bytes = ADDRESSES_OF_6_BYTES
        elif family == UNIX_STREAM or family == UNIX_DATAGRAM:
            addresses_bytes = PATHS_BYTES
        elif family == UNSPECIFIED:
            addresses_bytes = 0
        else:
            raise ProxyError("a PROXY header of a family or transport that is not known")
        if self.size < FIXED_BYTES + addresses_bytes:
            raise ProxyError("a PROXY header that is too short for its addresses")
        self._check_values(FIXED_BYTES + addresses_bytes)
        if addresses_bytes == ADDRESSES_OF_4_BYTES:
            pack_address(False, &self.begun[FIXED_BYTES], &self.client)
            self.client.port = self.begun[FIXED_BYTES + 8] << 8 | self.begun[FIXED_BYTES + 9]
        elif addresses_bytes == ADDRESSES_OF_6_BYTES:
            pack_address(True, &self.begun[FIXED_BYTES], &self.client)
            self.client.port = self.begun[FIXED_BYTES + 32] << 8 | self.begun[FIXED_BYTES + 33]
        self.is_complete = True
        return 0

    cdef int _check_values(self, Py_ssize_t cursor) except -1:
        """The values behind the addresses, each a type, a length and so many bytes: all are whole, and a checksum, of which there
        is one at most, is right."""
        cdef Py_ssize_t value_bytes
        cdef bint has_checksum = False
        while cursor < self.size:
            if self.size - cursor < 3:
                raise ProxyError("a PROXY header whose values are cut")
            value_bytes = self.begun[cursor + 1] << 8 | self.begun[cursor + 2]
            if value_bytes > self.size - cursor - 3:
                raise ProxyError("a PROXY header whose values are cut")
            if self.begun[cursor] == CHECKSUM_TYPE:
                # Each costs a pass over the whole header, and hundreds would fit into one.
                if has_checksum:
                    raise ProxyError("a PROXY header with two checksums")
                if value_bytes != CHECKSUM_BYTES or not self._is_right(cursor + 3):
                    raise ProxyError("a PROXY header whose checksum is wrong")
                has_checksum = True
            cursor += 3 + value_bytes
        return 0

    cdef bytes example(self, Py_ssize_t most_bytes):
        return self.begun[: min(self.size, most_bytes)]

    cdef bint _is_right(self, Py_ssize_t checksum_at) noexcept:
        cdef uint32_t found = 0
        cdef uint32_t value = 0xFFFFFFFF
        cdef Py_ssize_t index
        cdef unsigned char byte
        for index in range(self.size):
            byte = self.begun[index]
            if checksum_at <= index < checksum_at + CHECKSUM_BYTES:
                # It counts as zeros itself (2.2.3).
                found = found << 8 | byte
                byte = 0
            value = (value >> 8) ^ CRC[(value ^ byte) & 0xFF]
        return found == value ^ 0xFFFFFFFF


cdef int _read_address(bytes text, bint is_6, CompactAddress* address) except -1:
    if (b":" in text) != is_6 or not read_address(text, len(text), address):
        raise ProxyError("a PROXY line whose address is none of its protocol")
    return 0


cdef int _port(bytes text) except -1:
    cdef int port = -1
    if text.isdigit() and len(text) <= 5 and (text[0] != c"0" or len(text) == 1):
        port = int(text)
    if not 0 <= port <= 65535:
        raise ProxyError("a PROXY line whose port is none")
    return port
