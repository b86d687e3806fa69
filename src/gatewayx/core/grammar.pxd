"""What texts of HTTP are made of: classes of bytes, numbers, tokens, lists, hosts.

A text is given as the pointer to its first byte and the pointer behind its last one. Nothing here allocates, and what
the path of a request calls for every byte is inline.
"""

from libc.stdint cimport uint64_t
from libc.string cimport memcpy
from posix.strings cimport strncasecmp

cdef enum:
    HIGHEST_PORT = 65535

# RFC 9110 5.6.2: tchar, the bytes of a token.
cdef unsigned char[256] IS_TOKEN
# Bytes that may stand in a target: visible ASCII but "#", which ends it and is never sent (RFC 9112 3.2).
cdef unsigned char[256] IS_TARGET
# Bytes of a reg-name (RFC 3986 3.2.2), percent-encoded ones aside.
cdef unsigned char[256] IS_REG_NAME
# RFC 9110 5.5: bytes of a field's value, white space included; above ASCII as obs-text.
cdef unsigned char[256] IS_FIELD_VALUE
# The value of a hexadecimal digit; -1 of any other byte.
cdef signed char[256] HEX_VALUE


cdef inline bint is_blank(char byte) noexcept:
    """RFC 9110 5.6.3: a byte of OWS or BWS."""
    return byte == c" " or byte == c"\t"


cdef inline const char* after_blanks(const char* cursor, const char* end) noexcept:
    """Where the text begins, blanks before it aside."""
    while cursor < end and is_blank(cursor[0]):
        cursor += 1
    return cursor


cdef inline const char* before_blanks(const char* cursor, const char* end) noexcept:
    """Where the text ends, blanks behind it aside."""
    while cursor < end and is_blank((end - 1)[0]):
        end -= 1
    return end


cdef inline const char* after_token(const char* cursor, const char* end) noexcept:
    """Where the token that the text begins with ends; cursor itself if there is none."""
    while cursor < end and IS_TOKEN[<unsigned char> cursor[0]]:
        cursor += 1
    return cursor


cdef inline bint is_name(const char* cursor, const char* end, const char* name, Py_ssize_t name_bytes) noexcept:
    """Whether the text is the name, letters of any case."""
    return end - cursor == name_bytes and strncasecmp(cursor, name, name_bytes) == 0


cdef inline bint is_word(const char* text, const char* word) noexcept:
    """Whether eight bytes of a token are these, which are lower-case letters and hyphens: in a token, whose letters may be
    of any case, nothing else has the same bits but that of the case.
    """
    cdef uint64_t found, expected
    memcpy(&found, text, 8)
    memcpy(&expected, word, 8)
    return found | <uint64_t> 0x2020202020202020 == expected


cdef inline bint is_only_name(const char* cursor, const char* end, const char* name, Py_ssize_t name_bytes) noexcept:
    """Whether the text is the name, letters of any case, blanks around it aside."""
    cursor = after_blanks(cursor, end)
    return is_name(cursor, before_blanks(cursor, end), name, name_bytes)


cdef inline bint is_percent_encoded(const char* cursor, const char* end) noexcept:
    """RFC 3986 2.1: whether two hexadecimal digits follow the "%" at cursor."""
    return end - cursor >= 3 and HEX_VALUE[<unsigned char> cursor[1]] >= 0 and HEX_VALUE[<unsigned char> cursor[2]] >= 0


cdef inline char* put_percent_decoded(char* out, const char* cursor, const char* end) noexcept:
    """Write the text at `out`, percent-decoded, which makes it no longer; two hexadecimal digits follow each "%".

    Returns what follows it.
    """
    while cursor < end:
        if cursor[0] == c"%":
            out[0] = <char> (HEX_VALUE[<unsigned char> cursor[1]] * 16 + HEX_VALUE[<unsigned char> cursor[2]])
            cursor += 3
        else:
            out[0] = cursor[0]
            cursor += 1
        out += 1
    return out


# The decimal number that the text is, blanks around it aside: -1 if it is none. One that no limit on a size in bytes
# reaches is told as HUGE_NUMBER.
cdef long long decimal(const char* cursor, const char* end) noexcept

# RFC 9110 5.6.1: whether the name is an element of the list, letters of any case. Elements may be empty.
cdef bint lists_name(const char* cursor, const char* end, const char* name, Py_ssize_t name_bytes) noexcept

# RFC 9110 7.2: uri-host [":" port], without userinfo and not empty.
cdef bint is_authority(const char* cursor, const char* end) noexcept

# The value of a Host header. An http URI with an empty host is invalid (RFC 9110 4.2.1), and Host is where its host
# comes from.
cdef bint is_host(const char* cursor, const char* end) noexcept

# Where the path begins in "http://host:port/path", or https; NULL if the text is no such URI.
cdef const char* after_authority(const char* cursor, const char* end) noexcept
