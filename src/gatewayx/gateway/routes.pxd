"""Which path means what."""

from gatewayx.http.request cimport Request

cdef enum:
    # gearmand drops the whole connection on names above about 8,190 bytes, and everybody else's jobs with it.
    MAX_FUNCTION_BYTES = 512


# The function that the path names; raises RouteError.
cdef bytes function_of(bytes path)
