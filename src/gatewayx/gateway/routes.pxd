"""Which path means what."""

# The function that the path names, of at most max_bytes; raises RouteError.
cdef bytes function_of(bytes path, Py_ssize_t max_bytes)

# The same as gearmand's HTTP plugin reads it; query: None without one.
cdef bytes plugin_function_of(bytes path, bytes query, Py_ssize_t max_bytes)
