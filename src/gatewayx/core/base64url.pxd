"""Bytes as letters that may stand in a URL, and back: base64url without padding (RFC 4648 5)."""

cdef enum:
    # What no letter stands for.
    NO_LETTER = 0xFF

cdef const char* LETTERS
# What each byte stands for as a letter; NO_LETTER for none.
cdef unsigned char[256] LETTER_VALUE


cdef inline Py_ssize_t letters_of(Py_ssize_t size) noexcept nogil:
    """How many letters so many bytes make."""
    return (size * 4 + 2) // 3


# Write size bytes as letters at `end`, which has room for them; returns what follows them.
cdef char* put_letters(char* end, const char* data, Py_ssize_t size) noexcept nogil
# Read so many letters into `data`, which has room for three bytes each four of them. Returns how many bytes they make,
# or -1 if any is no letter, or they are not what put_letters() makes of any bytes: bits that stand for nothing must be
# 0.
cdef Py_ssize_t read_letters(char* data, const char* letters, Py_ssize_t count) noexcept nogil
