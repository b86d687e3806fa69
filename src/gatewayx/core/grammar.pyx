"""What texts of HTTP are made of: the tables, and what is not called for every byte; the .pxd says what each is."""

from libc.string cimport memchr, memcpy
from posix.strings cimport strncasecmp

cdef extern from "arpa/inet.h" nogil:
    int inet_pton(int family, const char* text, void* number)

cdef extern from "netinet/in.h" nogil:
    enum:
        AF_INET6
        INET6_ADDRSTRLEN
    struct in6_addr:
        pass

# A petabyte: more than any limit on a size in bytes, and ten times it still fits its type.
cdef long long HUGE_NUMBER = 1000000000000000


cdef void _fill_tables() noexcept:
    cdef int byte
    for byte in range(256):
        letter_or_digit = 48 <= byte <= 57 or 65 <= byte <= 90 or 97 <= byte <= 122
        IS_TOKEN[byte] = letter_or_digit or chr(byte) in "!#$%&'*+-.^_`|~"
        IS_TARGET[byte] = 0x21 <= byte <= 0x7E and byte != 0x23
        IS_REG_NAME[byte] = letter_or_digit or chr(byte) in "-._~!$&'()*+,;="
        IS_FIELD_VALUE[byte] = byte == 0x09 or (byte >= 0x20 and byte != 0x7F)
        HEX_VALUE[byte] = -1
        if 48 <= byte <= 57:
            HEX_VALUE[byte] = byte - 48
        elif 65 <= (byte & 0xDF) <= 70:
            HEX_VALUE[byte] = (byte & 0xDF) - 55


_fill_tables()


cdef long long decimal(const char* cursor, const char* end) noexcept:
    cdef long long number = 0
    cdef const char* first = after_blanks(cursor, end)
    end = before_blanks(first, end)
    cursor = first
    while cursor < end and c"0" <= cursor[0] <= c"9":
        number = min(number * 10 + (cursor[0] - c"0"), HUGE_NUMBER)
        cursor += 1
    return number if cursor == end and cursor > first else -1


cdef bint lists_name(const char* cursor, const char* end, const char* name, Py_ssize_t name_bytes) noexcept:
    cdef const char* element_end
    while cursor < end:
        element_end = <const char*> memchr(cursor, c",", end - cursor)
        if element_end == NULL:
            element_end = end
        if is_only_name(cursor, element_end, name, name_bytes):
            return True
        cursor = element_end + 1
    return False


cdef bint is_authority(const char* cursor, const char* end) noexcept:
    cdef const char* first = cursor
    cdef int port = 0
    if cursor < end and cursor[0] == c"[":
        cursor = <const char*> memchr(cursor, c"]", end - cursor)
        if cursor == NULL or not _is_ip_literal(first + 1, cursor):
            return False
        cursor += 1
    else:
        while cursor < end:
            if IS_REG_NAME[<unsigned char> cursor[0]]:
                cursor += 1
            elif cursor[0] == c"%" and is_percent_encoded(cursor, end):
                cursor += 3
            else:
                break
    if cursor == first:
        return False
    if cursor < end:
        if cursor[0] != c":":
            return False
        cursor += 1
        while cursor < end and c"0" <= cursor[0] <= c"9" and port <= HIGHEST_PORT:
            port = port * 10 + (cursor[0] - c"0")
            cursor += 1
    return cursor == end and port <= HIGHEST_PORT


cdef bint _is_ip_literal(const char* text, const char* end) noexcept:
    """RFC 3986 3.2.2: what stands between the brackets: an IPv6 address, or an address of a version yet to come."""
    cdef char[INET6_ADDRSTRLEN] address
    cdef in6_addr number
    cdef const char* cursor = text
    if cursor < end and (cursor[0] | 0x20) == c"v":
        cursor += 1
        while cursor < end and HEX_VALUE[<unsigned char> cursor[0]] >= 0:
            cursor += 1
        if cursor == text + 1 or end - cursor < 2 or cursor[0] != c".":
            return False
        cursor += 1
        while cursor < end and (IS_REG_NAME[<unsigned char> cursor[0]] or cursor[0] == c":"):
            cursor += 1
        return cursor == end
    # inet_pton would stop at a NUL.
    if end - text >= INET6_ADDRSTRLEN or memchr(text, 0, end - text) != NULL:
        return False
    memcpy(address, text, end - text)
    address[end - text] = 0
    return inet_pton(AF_INET6, address, &number) == 1


cdef bint is_host(const char* cursor, const char* end) noexcept:
    return is_authority(cursor, before_blanks(cursor, end))


cdef const char* after_authority(const char* cursor, const char* end) noexcept:
    cdef const char* authority
    if end - cursor > 7 and strncasecmp(cursor, b"http://", 7) == 0:
        authority = cursor + 7
    elif end - cursor > 8 and strncasecmp(cursor, b"https://", 8) == 0:
        authority = cursor + 8
    else:
        return NULL
    cursor = authority
    while cursor < end and cursor[0] != c"/" and cursor[0] != c"?":
        cursor += 1
    return cursor if is_authority(authority, cursor) else NULL
