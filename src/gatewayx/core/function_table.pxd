"""Values by function: for full names, and for all that begin alike."""


cdef class FunctionTable:
    # By full name.
    cdef dict names
    # (beginning, value), the longest first.
    cdef tuple beginnings
    cdef readonly bint empty

    # The value for the function; None without one.
    cdef object find(self, bytes function)
