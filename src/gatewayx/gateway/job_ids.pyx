"""Ids of jobs that outlive their request: made, signed, and read again."""

cimport cython
from libc.stdint cimport uint32_t, uint64_t


cdef class BackgroundId:
    """What the id of a background job tells."""


@cython.final
cdef class JobIds:
    """Makes and reads ids. keys: by the first of which ids are signed, and by any of which they are read."""

    def __init__(self, tuple keys not None):
        self.change(keys)

    def change(self, tuple keys not None):
        """Be as if it had been made with these keys."""

    cdef bytes new_kept(self, int place, uint32_t mark, bytes token_mark):
        raise NotImplementedError

    cdef bint read_kept(self, bytes text, bytes token_mark, KeptPlace* found) except -1:
        raise NotImplementedError

    cdef BackgroundId read_background(self, bytes text, bytes token_mark):
        raise NotImplementedError

    cdef uint64_t server_mark(self, str name) except? 0:
        raise NotImplementedError
