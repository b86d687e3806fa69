"""Idempotency-Key: what it says (draft-ietf-httpapi-idempotency-key-header-07).

The draft has a String there (RFC 9651 3.3.3); most clients send the same without quotes, which is a token (RFC 9110 5.6.2). Both are
the same key.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE

from gatewayx.core.grammar cimport after_token
from gatewayx.http.request cimport HeaderSlice, Request, header_slice, new_request

from gatewayx.http.problems import MALFORMED_HEADER, RequestError


cdef bytes key_value(Request request):
    cdef HeaderSlice header
    cdef bytes found = None
    cdef int index
    for index in range(request.wanted_headers()):
        header_slice(request, index, &header)
        if is_key_header(header.name, header.name_bytes):
            if found is not None:
                raise RequestError(MALFORMED_HEADER, "Idempotency-Key is given more than once")
            found = PyBytes_FromStringAndSize(header.value, header.value_bytes)
    return found


cdef bytes key_of_value(bytes value):
    cdef const char* start = PyBytes_AS_STRING(value)
    cdef const char* end = start + PyBytes_GET_SIZE(value)
    cdef bytes key = value
    if start < end and start[0] == c'"':
        key = _unquoted(start + 1, end)
    elif after_token(start, end) != end:
        key = None
    if key is None:
        raise RequestError(MALFORMED_HEADER, "Idempotency-Key is neither a token nor a quoted string of printable ASCII")
    if not 1 <= PyBytes_GET_SIZE(key) <= MOST_KEY_BYTES:
        raise RequestError(MALFORMED_HEADER, f"Idempotency-Key is not 1 to {MOST_KEY_BYTES} bytes long")
    return key


cdef bytes _unquoted(const char* cursor, const char* end):
    """What a String says (RFC 9651 4.2.5) whose opening quote is before this; None if it is none, or anything follows it."""
    cdef bytearray key = bytearray()
    while cursor < end and cursor[0] != c'"':
        if cursor[0] == c"\\":
            cursor += 1
            if cursor == end or (cursor[0] != c'"' and cursor[0] != c"\\"):
                return None
        elif not 0x20 <= <unsigned char> cursor[0] < 0x7F:
            return None
        key.append(<unsigned char> cursor[0])
        cursor += 1
    return bytes(key) if cursor + 1 == end else None


def key_of(list headers not None):
    """The key among these headers, names and values in turn; None without one. Raises RequestError."""
    cdef Request request = new_request()
    cdef bytes value
    request.headers = headers
    value = key_value(request)
    return None if value is None else key_of_value(value)
