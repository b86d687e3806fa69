"""What a connection needs from whatever carries its bytes, and the other way round.

Connections know only `Stream`; the event loop's transports are one kind of it, and whatever tests put in its place another.
"""

cimport cython

cdef extern from "sys/ioctl.h" nogil:
    int ioctl(int descriptor, unsigned long request, ...)
    enum:
        FIONREAD
        TIOCOUTQ


cdef class StreamOwner(TurnEnder):
    """A connection that stands on a stream; the .pxd says when each method is called."""

    cpdef int opened(self, Stream stream) except -1:
        raise NotImplementedError

    cpdef int received(self, bytes data) except -1:
        raise NotImplementedError

    cpdef int ended(self) except -1:
        raise NotImplementedError

    cpdef int lost(self, error) except -1:
        raise NotImplementedError

    cpdef int pause_writing(self) except -1:
        raise NotImplementedError

    cpdef int resume_writing(self) except -1:
        raise NotImplementedError


cdef class Stream:
    """Bytes in order to and from one other side; the .pxd says what each method does."""

    cpdef int write(self, bytes data) except -1:
        raise NotImplementedError

    cpdef int write_all(self, list pieces) except -1:
        raise NotImplementedError

    cpdef int write_eof(self) except -1:
        raise NotImplementedError

    cpdef int pause(self) except -1:
        raise NotImplementedError

    cpdef int resume(self) except -1:
        raise NotImplementedError

    cpdef int close(self) except -1:
        raise NotImplementedError

    cpdef int abort(self) except -1:
        raise NotImplementedError

    cpdef bint closing(self) except -1:
        raise NotImplementedError

    cpdef Py_ssize_t pending_bytes(self) except -1:
        raise NotImplementedError

    cpdef Py_ssize_t unconfirmed_bytes(self) except -1:
        raise NotImplementedError

    cpdef Py_ssize_t incoming_bytes(self) except -1:
        raise NotImplementedError

    cpdef object peer(self):
        raise NotImplementedError


@cython.final
cdef class TransportStream(Stream):
    """A stream over a transport of the event loop, whose protocol it is.

    owner: the connection that stands on it. write_high_bytes: the owner is told that the kernel takes no more bytes once
    more than so many wait; 0 for any.
    """

    def __init__(self, StreamOwner owner not None, Py_ssize_t write_high_bytes=0):
        self.owner = owner
        self.write_high_bytes = write_high_bytes

    # What the loop calls.

    def connection_made(self, transport):
        self.transport = transport
        transport.set_write_buffer_limits(high=self.write_high_bytes)
        self.owner.opened(self)

    def data_received(self, bytes data):
        if self.owner is not None:
            self.owner.received(data)

    def eof_received(self):
        if self.owner is not None:
            self.owner.ended()

    def connection_lost(self, error):
        cdef StreamOwner owner = self.owner
        self.owner = None
        if owner is not None:
            owner.lost(error)
        self.transport = None

    def pause_writing(self):
        if self.owner is not None:
            self.owner.pause_writing()

    def resume_writing(self):
        if self.owner is not None:
            self.owner.resume_writing()

    # What the owner calls.

    cpdef int write(self, bytes data) except -1:
        self.transport.write(data)
        return 0

    cpdef int write_all(self, list pieces) except -1:
        self.transport.writelines(pieces)
        return 0

    cpdef int write_eof(self) except -1:
        self.transport.write_eof()
        return 0

    cpdef int pause(self) except -1:
        self.transport.pause_reading()
        return 0

    cpdef int resume(self) except -1:
        self.transport.resume_reading()
        return 0

    cpdef int close(self) except -1:
        self.transport.close()
        return 0

    cpdef int abort(self) except -1:
        self.transport.abort()
        return 0

    cpdef bint closing(self) except -1:
        return self.transport is None or self.transport.is_closing()

    cpdef Py_ssize_t pending_bytes(self) except -1:
        return self.transport.get_write_buffer_size()

    cpdef Py_ssize_t unconfirmed_bytes(self) except -1:
        return self._queued_bytes(TIOCOUTQ)

    cpdef Py_ssize_t incoming_bytes(self) except -1:
        return self._queued_bytes(FIONREAD)

    cpdef object peer(self):
        return self.transport.get_extra_info("peername")

    cdef int _queued_bytes(self, unsigned long request) except -1:
        """Bytes in the kernel, of one direction; 0 once the socket is gone."""
        cdef int queued = 0
        if ioctl(self.transport.get_extra_info("socket").fileno(), request, &queued) < 0:
            return 0
        return queued
