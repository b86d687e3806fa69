"""Which path means what."""

from libc.stdint cimport uint64_t

from gatewayx.core.metrics cimport Names

cdef enum:
    # Paths whose functions are remembered.
    RECENT_PATHS = 8


# A path that came lately: its function, the place of that among those that are told apart, and by which version of the
# names it was found.
cdef struct RecentPlace:
    int place
    uint64_t version


cdef class RecentFunctions:
    # At the same index: a path, its function, and what is known of that.
    cdef list paths
    cdef list functions
    cdef RecentPlace[RECENT_PATHS] places
    # The functions that are told apart.
    cdef Names names

    # The place of the function that was asked for last.
    cdef int place

    # function_of(); the parser gives a path that came lately as the same object.
    cdef bytes function_of(self, bytes path, Py_ssize_t max_bytes)


# The function that the path names, of at most max_bytes; raises RouteError.
cdef bytes function_of(bytes path, Py_ssize_t max_bytes)

# The same as gearmand's HTTP plugin reads it; query: None without one.
cdef bytes plugin_function_of(bytes path, bytes query, Py_ssize_t max_bytes)

# A name as it came, if it may be one of at most max_bytes; raises RequestError.
cdef bytes checked_function(bytes function, Py_ssize_t max_bytes)
