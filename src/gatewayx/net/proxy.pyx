"""The PROXY header by which a proxy tells whose connection it passes on (haproxy.org, proxy-protocol.txt, 2.2).

Both versions are read, and nothing is guessed: a connection of which a header is expected begins with one. What the header is not
made of is refused at the byte that shows it, so that whoever waits for more of it waits for a header.
"""

import ipaddress

cimport cython
from libc.stdint cimport uint32_t
from libc.string cimport memcmp, memcpy

# MOST_LINE_BYTES and MOST_REST_BYTES, for Python.
globals().update(MOST_LINE_BYTES=<int> MOST_LINE_BYTES, MOST_REST_BYTES=<int> MOST_REST_BYTES)

cdef const char* SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
cdef const char* LINE_BEGIN = b"PROXY "

cdef enum:
    LINE_BEGIN_BYTES = 6
    # Commands of version 2, behind the version in one byte (2.2): the proxy speaks for itself, or for a client.
    LOCAL = 0x20
    PROXY = 0x21
    # Families, with the transport that a stream has.
    UNSPECIFIED = 0x00
    TCP_OVER_4 = 0x11
    TCP_OVER_6 = 0x21
    UNIX_STREAM = 0x31
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
            raise ProxyError(f"a PROXY header of {rest_bytes} bytes more, of which {<int> MOST_REST_BYTES} are allowed")
        return FIXED_BYTES + rest_bytes

    cdef int _read_line(self) except -1:
        """One more byte has come, of a line or of the part that every header of version 2 has."""
        cdef unsigned char last = self.begun[self.size - 1]
        if memcmp(self.begun, SIGNATURE, min(self.size, <Py_ssize_t> SIGNATURE_BYTES)) == 0:
            if self.size == 13 and last != LOCAL and last != PROXY:
                raise ProxyError(f"a PROXY header of a version or command that is not known: 0x{last:02X}")
            if self.size == FIXED_BYTES and self._all_bytes() == FIXED_BYTES:
                return self._read_binary()
            return 0
        if memcmp(self.begun, LINE_BEGIN, min(self.size, <Py_ssize_t> LINE_BEGIN_BYTES)):
            raise ProxyError("the connection does not begin with a PROXY header")
        if last == c"\n":
            if self.begun[self.size - 2] != c"\r":
                raise ProxyError("a PROXY line that does not end with CR and LF")
            return self._end_line(bytes(self.begun[: self.size - 2]))
        if self.begun[self.size - 2] == c"\r" or not (0x20 <= last < 0x7F or last == c"\r"):
            raise ProxyError("a PROXY line holds a control byte")
        if self.size == MOST_LINE_BYTES:
            raise ProxyError(f"a PROXY line of more than {<int> MOST_LINE_BYTES} bytes")
        return 0

    def _end_line(self, bytes line):
        parts = line.decode("ascii").split(" ")
        if parts[1] == "UNKNOWN":
            # What follows is to be passed over (2.1).
            self.is_complete = True
            return 0
        if len(parts) != 6 or parts[1] not in ("TCP4", "TCP6"):
            raise ProxyError("a PROXY line without a protocol, two addresses and two ports")
        family = ipaddress.IPv4Address if parts[1] == "TCP4" else ipaddress.IPv6Address
        source = _address(family, parts[2])
        _address(family, parts[3])
        ports = [_port(text) for text in parts[4:]]
        self.host = source
        self.port = ports[0]
        self.is_complete = True
        return 0

    cdef int _read_binary(self) except -1:
        cdef int family = self.begun[13]
        cdef Py_ssize_t addresses_bytes
        if self.begun[12] == LOCAL:
            # Whatever family it names, and whatever follows, is to be passed over (2.2).
            self.is_complete = True
            return 0
        if family == TCP_OVER_4:
            addresses_bytes = 12
        elif family == TCP_OVER_6:
            addresses_bytes = 36
        elif family == UNIX_STREAM:
            addresses_bytes = 216
        elif family == UNSPECIFIED:
            addresses_bytes = 0
        else:
            raise ProxyError(f"a PROXY header of a family or transport that is not served: 0x{family:02X}")
        if self.size < FIXED_BYTES + addresses_bytes:
            raise ProxyError("a PROXY header that is too short for its addresses")
        self._check_values(FIXED_BYTES + addresses_bytes)
        if family == TCP_OVER_4:
            self.host = str(ipaddress.IPv4Address(bytes(self.begun[FIXED_BYTES : FIXED_BYTES + 4])))
            self.port = self.begun[FIXED_BYTES + 8] << 8 | self.begun[FIXED_BYTES + 9]
        elif family == TCP_OVER_6:
            self.host = str(ipaddress.IPv6Address(bytes(self.begun[FIXED_BYTES : FIXED_BYTES + 16])))
            self.port = self.begun[FIXED_BYTES + 32] << 8 | self.begun[FIXED_BYTES + 33]
        self.is_complete = True
        return 0

    cdef int _check_values(self, Py_ssize_t cursor) except -1:
        """The values behind the addresses, each a type, a length and so many bytes: all are whole, and a checksum is right."""
        cdef Py_ssize_t value_bytes
        while cursor < self.size:
            if self.size - cursor < 3:
                raise ProxyError("a PROXY header whose values are cut")
            value_bytes = self.begun[cursor + 1] << 8 | self.begun[cursor + 2]
            if value_bytes > self.size - cursor - 3:
                raise ProxyError("a PROXY header whose values are cut")
            if self.begun[cursor] == CHECKSUM_TYPE and (
                value_bytes != CHECKSUM_BYTES or not self._is_right(cursor + 3)
            ):
                raise ProxyError("a PROXY header whose checksum is wrong")
            cursor += 3 + value_bytes
        return 0

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


def _address(family, str text):
    try:
        if "%" in text:
            # A scope is of one machine alone.
            raise ValueError
        return str(family(text))
    except ValueError:
        raise ProxyError("a PROXY line whose address is none of its protocol") from None


def _port(str text):
    if not text.isdigit() or (text[0] == "0" and text != "0") or len(text) > 5 or int(text) > 65535:
        raise ProxyError("a PROXY line whose port is none")
    return int(text)
