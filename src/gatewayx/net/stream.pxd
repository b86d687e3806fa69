"""What a connection needs from whatever carries its bytes, and the other way round."""

from gatewayx.core.turns cimport Flag, TurnEnder
from gatewayx.net.poller cimport Polled, TurnPoller
from gatewayx.net.sockets cimport CompactAddress

cdef enum:
    # Bytes that a connection is given at once, one time a turn.
    RECEIVE_BYTES = 65536
    # Pieces of what waits to be sent that one system call takes.
    PIECES_PER_CALL = 64


cdef class StreamOwner(TurnEnder):
    """A connection that stands on a stream; both know each other until `lost`."""
    # The connection is there: the first call, and only once.
    cpdef int opened(self, Stream stream) except -1
    # Bytes have come, which are gone when the call returns; never while the stream is paused.
    cdef int received(self, const char* data, Py_ssize_t size) except -1
    # The other side sends no more, as is known while the stream is paused and what has come before is not read: told once.
    # Its end follows as any other, when all of that was read.
    cpdef int hung_up(self) except -1
    # The other side sends no more. Returns whether the stream stays open; else it closes as soon as all that was written
    # has left.
    cpdef bint ended(self) except? True
    # What comes is none of what the stream carries, and the reason; nothing of it can be read. plainly: until it is closed the stream
    # carries bytes as they are. Told once, before lost().
    cpdef int not_understood(self, str reason, bint plainly) except -1
    # The connection is gone: the last call. error: why, None after a close of either side.
    cpdef int lost(self, error) except -1
    # The kernel takes no more bytes: more of them wait than the owner wants to.
    cpdef int pause_writing(self) except -1
    # Few enough wait again.
    cpdef int resume_writing(self) except -1


cdef class Stream(Polled):
    """Bytes in order to and from one other side. Of its calls only the writes call the owner back before they return, and
    that with pause_writing() alone.
    """
    # Give bytes to the other side; what the kernel does not take at once is kept, in order, until it does. A piece may be
    # a bytearray, which nobody changes any more.
    cpdef int write(self, bytes data) except -1
    cpdef int write_all(self, list pieces) except -1
    # The same for bytes that are the caller's, who may change them once the call has returned.
    cdef int send(self, const char* data, Py_ssize_t size) except -1
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
    # The same, and the other side learns that it was not all that it should have had, where the kernel can tell it.
    cpdef int reset(self) except -1
    # It was told to close, or the connection is gone.
    cpdef bint closing(self) except -1
    # Bytes that were written and that the kernel has not taken.
    cpdef Py_ssize_t pending_bytes(self) except -1
    # Once it was aborted or has failed: what was written and will never be taken.
    cpdef Py_ssize_t dropped_bytes(self) except -1
    # Bytes that the kernel has taken and the other side's has not confirmed, FIN included (tcp(7), SIOCOUTQ).
    cpdef Py_ssize_t unconfirmed_bytes(self) except -1
    # Bytes that have come and are not read yet (tcp(7), SIOCINQ).
    cpdef Py_ssize_t incoming_bytes(self) except -1
    # The other side's address as getpeername() has it; None for none.
    cpdef object peer(self)
    # Number and user of the process at the other side of a unix socket, when it connected; None for none.
    cpdef object peer_process(self)
    # The alternative names (SAN) in the certificate that the other side has shown and that was verified, each a kind and a value as
    # ssl.SSLSocket.getpeercert() has them; None for no certificate.
    cpdef object client_names(self)


cdef class SocketStream(Stream):
    """A stream over a socket of our own."""
    # None once the connection is gone.
    cdef readonly StreamOwner owner
    cdef TurnPoller poller
    # -1 once the connection is gone.
    cdef int descriptor
    # Why it is gone, as errno; 0 for no error.
    cdef int error
    cdef CompactAddress address
    # The owner is told that the kernel takes no more bytes once more than so many wait.
    cdef readonly Py_ssize_t write_high_bytes
    # What the kernel has not taken, in order, how much of the first piece it has, and how much there is in all; None for
    # nothing.
    cdef list unsent
    cdef Py_ssize_t first_sent_bytes
    cdef Py_ssize_t unsent_bytes
    # What one read takes at most: RECEIVE_BYTES, or less where bytes cost more than those of others.
    cdef Py_ssize_t receive_bytes
    # The turn in which it was read last.
    cdef unsigned int read_in
    # The kernel may have bytes for it, or its end: to be asked before the next event.
    cdef Flag readable
    # The other side has closed its sending side, as an event told; the owner was told so while it was paused; and it was
    # read up to there.
    cdef Flag hung_up
    cdef Flag told_hang_up
    cdef Flag at_end
    # The connection has failed, as an event told, behind bytes that were not read yet.
    cdef Flag fails
    # Urgent data came: a read ends before it, whatever is behind.
    cdef Flag urgent
    cdef Flag paused
    cdef Flag told_to_pause
    # FIN goes behind what waits to be sent.
    cdef Flag eof_due
    # The owner has closed it, or the connection has failed: nothing is read or told but the end.
    cdef Flag closed
    cdef Flag broken

    cdef int _read(self) except -1
    cdef int _end(self) except -1
    cdef int _flush(self) except -1
    cdef int _keep(self, data, Py_ssize_t sent) except -1
    cdef int _told_what_waits(self) except -1
    cdef Py_ssize_t _transmit(self, const char* data, Py_ssize_t size) except -1
    cdef int _break(self, int error) except -1


cdef class TransportStream(Stream):
    """A stream over a transport of the event loop, whose protocol it is."""
    # None once the connection is gone.
    cdef readonly StreamOwner owner
    # None before the connection is made and after it is lost.
    cdef object transport
    # The owner is told that the kernel takes no more bytes once more than so many wait.
    cdef readonly Py_ssize_t write_high_bytes
    cdef int _descriptor(self) except -2
