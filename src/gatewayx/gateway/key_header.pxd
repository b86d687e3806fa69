"""Idempotency-Key: what it says (draft-ietf-httpapi-idempotency-key-header-07)."""

from gatewayx.core.grammar cimport is_word
from gatewayx.http.request cimport Request

cdef enum:
    # Of a key, without quotes and escapes.
    MOST_KEY_BYTES = 255
    # A key by which anybody may ask for the answer that somebody else was given has to be one that nobody guesses: so many
    # characters are what base64 makes of 128 bits.
    LEAST_OPEN_KEY_BYTES = 22


cdef inline bint is_key_header(const char* name, Py_ssize_t name_bytes) noexcept:
    """Whether it is the header; the name as sent. Every header that is not another one is asked for."""
    return name_bytes == 15 and is_word(name, b"idempote") and is_word(name + 7, b"ency-key")


# The value as sent, of a request that has the header; raises RequestError if there are several.
cdef bytes key_value(Request request)
# The key that a value is; raises RequestError if it is none.
cdef bytes key_of_value(bytes value)
