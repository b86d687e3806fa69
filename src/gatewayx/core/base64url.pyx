"""Bytes as letters that may stand in a URL, and back: base64url without padding (RFC 4648 5).

Any bytes have one text, and no other text is read: what was signed as a text cannot be written in another way.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memset

LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


cdef void _fill_table() noexcept:
    cdef int value
    memset(LETTER_VALUE, NO_LETTER, sizeof(LETTER_VALUE))
    for value in range(64):
        LETTER_VALUE[<unsigned char> LETTERS[value]] = value


_fill_table()


cdef char* put_letters(char* end, const char* data, Py_ssize_t size) noexcept nogil:
    cdef const unsigned char* source = <const unsigned char*> data
    cdef unsigned int word
    while size >= 3:
        word = <unsigned int> source[0] << 16 | <unsigned int> source[1] << 8 | source[2]
        end[0] = LETTERS[word >> 18]
        end[1] = LETTERS[word >> 12 & 63]
        end[2] = LETTERS[word >> 6 & 63]
        end[3] = LETTERS[word & 63]
        end += 4
        source += 3
        size -= 3
    if size:
        word = <unsigned int> source[0] << 16 | (<unsigned int> source[1] << 8 if size == 2 else 0)
        end[0] = LETTERS[word >> 18]
        end[1] = LETTERS[word >> 12 & 63]
        end += 2
        if size == 2:
            end[0] = LETTERS[word >> 6 & 63]
            end += 1
    return end


cdef Py_ssize_t read_letters(char* data, const char* letters, Py_ssize_t count) noexcept nogil:
    cdef char* end = data
    cdef unsigned int word = 0
    cdef unsigned char value
    cdef int bits = 0
    cdef Py_ssize_t index
    for index in range(count):
        value = LETTER_VALUE[<unsigned char> letters[index]]
        if value == NO_LETTER:
            return -1
        word = word << 6 | value
        bits += 6
        if bits >= 8:
            bits -= 8
            end[0] = <char> (word >> bits & 0xFF)
            end += 1
            word &= (1 << bits) - 1
    return -1 if bits >= 6 or word else end - data


def encoded(bytes data not None):
    """The letters of these bytes."""
    cdef Py_ssize_t count = letters_of(PyBytes_GET_SIZE(data))
    cdef bytes letters = PyBytes_FromStringAndSize(NULL, count)
    put_letters(PyBytes_AS_STRING(letters), PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
    return letters


def decoded(bytes letters not None):
    """The bytes of these letters; None if they are not what encoded() makes of any."""
    cdef Py_ssize_t count = PyBytes_GET_SIZE(letters)
    cdef bytes data = PyBytes_FromStringAndSize(NULL, count)
    cdef Py_ssize_t size = read_letters(PyBytes_AS_STRING(data), PyBytes_AS_STRING(letters), count)
    return None if size < 0 else data[:size]
