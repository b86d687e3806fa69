"""Which path means what: everything after the first "/" is the name of a function.

gearmand's HTTP plugin drops every leading "/", and takes the rest up to the space as it stands: the query belongs to
the name, and nothing is percent-decoded (libgearman-server/plugins/protocol/http/protocol.cc, unpack()).
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memchr, memcmp

from gatewayx.core.grammar cimport put_percent_decoded
from gatewayx.core.metrics cimport Names

from gatewayx.http.problems import MALFORMED_FUNCTION, NO_FUNCTION, RESERVED_PATH, RequestError


@cython.final
cdef class RecentFunctions:
    """The functions of paths that came lately; most paths did. The .pxd says what each method does."""

    def __cinit__(self):
        self.paths = [None] * RECENT_PATHS
        self.functions = [None] * RECENT_PATHS

    cdef bytes function_of(self, bytes path, Py_ssize_t max_bytes):
        cdef Py_ssize_t index = PyBytes_GET_SIZE(path) & (RECENT_PATHS - 1)
        cdef bytes function
        if self.paths[index] is path:
            function = <bytes> self.functions[index]
            if self.places[index].version == self.names.version():
                self.place = self.places[index].place
                return function
        else:
            function = function_of(path, max_bytes)
            self.paths[index] = path
            self.functions[index] = function
        self.places[index].version = self.names.version()
        self.place = self.places[index].place = self.names.place_of(function)
        return function


cdef bytes function_of(bytes path, Py_ssize_t max_bytes):
    cdef const char* cursor = PyBytes_AS_STRING(path)
    cdef const char* end = cursor + PyBytes_GET_SIZE(path)
    if cursor < end and cursor[0] == c"/":
        cursor += 1
    if memchr(cursor, c"%", end - cursor) == NULL:
        return checked_function(PyBytes_FromStringAndSize(cursor, end - cursor), max_bytes)
    return checked_function(_percent_decoded(cursor, end), max_bytes)


cdef bytes plugin_function_of(bytes path, bytes query, Py_ssize_t max_bytes):
    cdef bytes function = path.lstrip(b"/")
    return checked_function(function if query is None else function + b"?" + query, max_bytes)


cdef bytes checked_function(bytes function, Py_ssize_t max_bytes):
    """The name as it came, if it may be one."""
    cdef const char* byte = PyBytes_AS_STRING(function)
    cdef const char* end = byte + PyBytes_GET_SIZE(function)
    if byte == end:
        raise RequestError(NO_FUNCTION)
    if end - byte > max_bytes:
        raise RequestError(MALFORMED_FUNCTION, f"the function's name is longer than {max_bytes} bytes")
    if end - byte >= 3 and memcmp(byte, b"v1/", 3) == 0:
        raise RequestError(RESERVED_PATH)
    while byte < end:
        if 0 <= byte[0] < 0x20 or byte[0] == 0x7F:
            raise RequestError(MALFORMED_FUNCTION)
        byte += 1
    return function


cdef bytes _percent_decoded(const char* cursor, const char* end):
    """RFC 3986 2.1; that two hexadecimal digits follow each "%" has been checked with the target."""
    cdef bytes decoded = PyBytes_FromStringAndSize(NULL, end - cursor)
    cdef char* start = PyBytes_AS_STRING(decoded)
    return PyBytes_FromStringAndSize(start, put_percent_decoded(start, cursor, end) - start)
