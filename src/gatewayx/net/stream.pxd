"""What a connection needs from whatever carries its bytes, and the other way round."""

from gatewayx.core.turns cimport TurnEnder


cdef class StreamOwner(TurnEnder):
    """A connection that stands on a stream; both know each other until `lost`."""
    # The connection is there: the first call, and only once.
    cpdef int opened(self, Stream stream) except -1
    # Bytes have come; never while the stream is paused.
    cpdef int received(self, bytes data) except -1
    # The other side sends no more. The stream closes after that, as soon as all that was written has left.
    cpdef int ended(self) except -1
    # The connection is gone: the last call. error: why, None after a close of either side.
    cpdef int lost(self, error) except -1
    # The kernel takes no more bytes: more of them wait than the owner wants to.
    cpdef int pause_writing(self) except -1
    # Few enough wait again.
    cpdef int resume_writing(self) except -1


cdef class Stream:
    """Bytes in order to and from one other side. Of its calls only the writes call the owner back before they return, and
    that with pause_writing() alone.
    """
    # Give bytes to the other side; what the kernel does not take at once is kept, in order, until it does.
    cpdef int write(self, bytes data) except -1
    cpdef int write_all(self, list pieces) except -1
    # Send FIN behind all that was written.
    cpdef int write_eof(self) except -1
    # Read no more.
    cpdef int pause(self) except -1
    # Read again.
    cpdef int resume(self) except -1
    # Close once all that was written has been sent.
    cpdef int close(self) except -1
    # Close at once; what has not been sent is dropped.
    cpdef int abort(self) except -1
    # It was told to close, or the connection is gone.
    cpdef bint closing(self) except -1
    # Bytes that were written and that the kernel has not taken.
    cpdef Py_ssize_t pending_bytes(self) except -1
    # Bytes that the kernel has taken and the other side's has not confirmed, FIN included (tcp(7), SIOCOUTQ).
    cpdef Py_ssize_t unconfirmed_bytes(self) except -1
    # Bytes that have come and are not read yet (tcp(7), SIOCINQ).
    cpdef Py_ssize_t incoming_bytes(self) except -1
    # The other side's address as getpeername() has it; None for none.
    cpdef object peer(self)


cdef class TransportStream(Stream):
    """A stream over a transport of the event loop, whose protocol it is."""
    # None once the connection is gone.
    cdef readonly StreamOwner owner
    # None before the connection is made and after it is lost.
    cdef object transport
    # The owner is told that the kernel takes no more bytes once more than so many wait.
    cdef readonly Py_ssize_t write_high_bytes
    cdef int _queued_bytes(self, unsigned long request) except -1
