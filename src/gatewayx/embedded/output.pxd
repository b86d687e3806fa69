"""What a job server's connection and a worker's have in common: packets are gathered and written once a loop turn."""

cdef enum:
    # Up to here a last argument is copied behind its packet's head; above, it is written beside it.
    COPY_BYTES = 16384


cdef class Output:
    # Of the packets sent: Magic.RESPONSE for a job server, Magic.REQUEST for a worker.
    cdef unsigned int magic
    # None before connection_made and after connection_lost.
    cdef readonly object transport
    # The connection is about to close: nothing is written any more, and bytes that come are dropped.
    cdef bint closing
    # Buffers to write at the end of this loop turn; `out_bytes` is their sum.
    cdef list out
    cdef Py_ssize_t out_bytes

    cdef int send(self, int packet_type, tuple leading, bytes last) except -1
    cdef int send_bytes(self, bytes data) except -1
    # The first buffer of this loop turn has come; the derived class has `flush` called at the end of it.
    cdef int flush_later(self) except -1
    cdef int flush(self) except -1
    # The connection is gone.
    cdef int forget_transport(self) except -1
