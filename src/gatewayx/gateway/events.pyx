"""What happens to a kept job, as events: numbered, encoded as server-sent events, the last of them kept."""

cimport cython


@cython.final
cdef class EventLog:
    """The last events of a job."""

    cdef bytes add(self, bytes kind, bytes data):
        raise NotImplementedError

    cdef bytes event(self, long long number):
        raise NotImplementedError

    cdef bytes gap(self, long long missing):
        raise NotImplementedError

    cdef int forget_oldest(self) except -1:
        raise NotImplementedError

    cdef Py_ssize_t held_bytes(self):
        raise NotImplementedError


cdef object number_of(bytes text):
    raise NotImplementedError


cdef bytes status_data(bytes numerator, bytes denominator):
    raise NotImplementedError


cdef bytes piece_data(bytes piece):
    raise NotImplementedError


cdef tuple read_event_id(bytes text):
    raise NotImplementedError
