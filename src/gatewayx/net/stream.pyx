"""What a connection needs from whatever carries its bytes, and the other way round.

Connections know only `Stream`. A SocketStream is a socket of ours in the process's poller; a TransportStream stands on a
transport of the event loop, for TLS; tests put others in their place.

Theory of operation of a SocketStream. Events are edges, so it remembers what they said: `readable` until the kernel has
nothing more, `hung_up` from the other side's FIN on. It is read once in a turn; if there may be more it stands in the
poller's ready line, and so does one that is resumed. A write goes to the kernel at once, and what that does not take is
sent at the next edge. An error of a write is told at the end of the turn, never from within the write: the writer may be
in the midst of another connection's affairs. Closing, too, happens at the end of the turn.
"""

import logging
import os

cimport cython
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport errno
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from gatewayx.net.poller cimport EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP, TurnPoller
from gatewayx.net.sockets cimport (
    address_tuple,
    connect_error,
    connected_process,
    disconnect,
    end_sending,
    incoming_in,
    iovec,
    read_peer,
    receive,
    reset_at_close,
    transmit,
    transmit_pieces,
    unconfirmed_in,
    would_block,
)

logger = logging.getLogger("gatewayx")

# What was received last, of whichever stream: whoever is given it takes what it needs before it returns.
cdef char[RECEIVE_BYTES] received_bytes


cdef class StreamOwner(TurnEnder):
    """A connection that stands on a stream; the .pxd says when each method is called."""

    cpdef int opened(self, Stream stream) except -1:
        raise NotImplementedError

    def receive(self, bytes data):
        """received() for streams in Python: the bytes are handed over in memory of just their size, which is gone then."""
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
        cdef char* copied = <char*> malloc(max(size, 1))
        if copied == NULL:
            raise MemoryError
        memcpy(copied, PyBytes_AS_STRING(data), size)
        try:
            self.received(copied, size)
        finally:
            free(copied)

    def take(self, bytes data):
        """received() for owners in Python."""
        raise NotImplementedError

    cdef int received(self, const char* data, Py_ssize_t size) except -1:
        self.take(data[:size])
        return 0

    cpdef int hung_up(self) except -1:
        return 0

    cpdef bint ended(self) except? True:
        raise NotImplementedError

    cpdef int not_understood(self, str reason, bint plainly) except -1:
        return 0

    cpdef int lost(self, error) except -1:
        raise NotImplementedError

    cpdef int pause_writing(self) except -1:
        raise NotImplementedError

    cpdef int resume_writing(self) except -1:
        raise NotImplementedError


cdef class Stream(Polled):
    """Bytes in order to and from one other side; the .pxd says what each method does."""

    cpdef int write(self, bytes data) except -1:
        raise NotImplementedError

    cpdef int write_all(self, list pieces) except -1:
        raise NotImplementedError

    cdef int send(self, const char* data, Py_ssize_t size) except -1:
        return self.write(PyBytes_FromStringAndSize(data, size))

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

    cpdef int reset(self) except -1:
        return self.abort()

    cpdef bint closing(self) except -1:
        raise NotImplementedError

    cpdef Py_ssize_t pending_bytes(self) except -1:
        raise NotImplementedError

    cpdef Py_ssize_t dropped_bytes(self) except -1:
        return 0

    cpdef Py_ssize_t unconfirmed_bytes(self) except -1:
        raise NotImplementedError

    cpdef Py_ssize_t incoming_bytes(self) except -1:
        raise NotImplementedError

    cpdef object peer(self):
        raise NotImplementedError

    cpdef object peer_process(self):
        return None

    cpdef object client_names(self):
        return None


@cython.final
cdef class SocketStream(Stream):
    """A stream over a socket of our own, non-blocking and connected.

    poller: the process's. descriptor: the socket's, which is the stream's from here on. owner: the connection that stands
    on it. write_high_bytes: the owner is told that the kernel takes no more bytes once more than so many wait; 0 for any.
    """

    def __init__(
        self, TurnPoller poller not None, int descriptor, StreamOwner owner not None, Py_ssize_t write_high_bytes=0
    ):
        self.poller = poller
        self.descriptor = descriptor
        self.owner = owner
        self.write_high_bytes = write_high_bytes
        self.receive_bytes = RECEIVE_BYTES

    def start(self):
        """Watch the socket and tell the owner. Raises OSError, after which the descriptor is still the caller's."""
        read_peer(self.descriptor, &self.address)
        try:
            if self.poller.add(self.descriptor, self) < 0:
                raise OSError(errno, os.strerror(errno))
            self.owner.opened(self)
        except BaseException:
            self.poller.remove(self)
            self.descriptor = -1
            raise

    # What the poller tells.

    cdef int handle(self, unsigned int events) except -1:
        if self.closed and self.unsent is None:
            return 0
        if events & EPOLLOUT and self.unsent is not None:
            self._flush()
        if events & (EPOLLIN | EPOLLPRI | EPOLLRDHUP | EPOLLERR | EPOLLHUP):
            self.readable = True
            if events & EPOLLPRI:
                self.urgent = True
            if events & (EPOLLRDHUP | EPOLLHUP):
                self.hung_up = True
            if events & EPOLLERR:
                if self.closed or self.at_end:
                    return self._break(connect_error(self.descriptor))
                self.fails = True
        if not self.readable or self.closed or self.at_end:
            return 0
        if self.paused:
            if self.fails:
                # Nobody reads up to the error.
                return self._break(connect_error(self.descriptor))
            if self.hung_up and not self.told_hang_up:
                self.told_hang_up = True
                return self.owner.hung_up()
            return 0
        if self.read_in == self.poller.number:
            return self.poller.add_ready(self)
        return self._read()

    cdef int _read(self) except -1:
        cdef Py_ssize_t size = receive(self.descriptor, received_bytes, self.receive_bytes)
        self.read_in = self.poller.number
        if size > 0:
            # What stands before a FIN, or around urgent data (tcp(7)), comes in pieces, and no event tells of the others.
            self.readable = size == self.receive_bytes or self.hung_up or self.fails or self.urgent
            if self.readable:
                self.poller.add_ready(self)
            return self.owner.received(received_bytes, size)
        if size == 0:
            return self._end()
        if would_block():
            self.readable = False
            return 0
        return self._break(errno)

    cdef int _end(self) except -1:
        """The other side sends no more."""
        self.at_end = True
        self.readable = False
        if not self.owner.ended() and not self.closed:
            self.close()
        return 0

    cdef int failed(self) except -1:
        logger.exception("a connection's bytes could not be handled")
        return self._break(0)

    cdef int left(self) except -1:
        cdef StreamOwner owner = self.owner
        self.owner = None
        if self.descriptor >= 0:
            disconnect(self.descriptor)
            self.descriptor = -1
        self.unsent = None
        if owner is not None:
            owner.lost(OSError(self.error, os.strerror(self.error)) if self.error else None)
        return 0

    # What the owner calls.

    cpdef int write(self, bytes data) except -1:
        cdef Py_ssize_t sent = self._transmit(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
        if sent == PyBytes_GET_SIZE(data) or self.broken:
            return 0
        self._keep(data, sent)
        return self._told_what_waits()

    cdef int send(self, const char* data, Py_ssize_t size) except -1:
        cdef Py_ssize_t sent = self._transmit(data, size)
        if sent == size or self.broken:
            return 0
        self._keep(PyBytes_FromStringAndSize(data + sent, size - sent), 0)
        return self._told_what_waits()

    cdef Py_ssize_t _transmit(self, const char* data, Py_ssize_t size) except -1:
        """Give the kernel what it takes, if nothing waits before it; returns how much that was."""
        cdef Py_ssize_t sent
        if self.broken:
            return 0
        if self.closed or self.eof_due:
            raise RuntimeError("a write to a stream that was closed")
        if self.unsent is not None:
            return 0
        sent = transmit(self.descriptor, data, size)
        if sent >= 0:
            return sent
        if not would_block():
            self._break(errno)
        return 0

    cpdef int write_all(self, list pieces) except -1:
        cdef bint at_once = self.unsent is None
        if self.broken:
            return 0
        if self.closed or self.eof_due:
            raise RuntimeError("a write to a stream that was closed")
        for piece in pieces:
            self._keep(piece, 0)
        if at_once:
            self._flush()
        return self._told_what_waits()

    cdef int _keep(self, data, Py_ssize_t sent) except -1:
        """Keep what the kernel has not taken."""
        if self.unsent is None:
            self.unsent = []
            self.first_sent_bytes = sent
        self.unsent.append(data)
        self.unsent_bytes += _size(data) - sent
        return 0

    cdef int _flush(self) except -1:
        """Send what waits, as far as the kernel takes it."""
        cdef iovec[PIECES_PER_CALL] vector
        cdef list unsent = self.unsent
        cdef Py_ssize_t index = 0
        cdef Py_ssize_t sent, left
        cdef int count
        while index < len(unsent):
            count = min(<Py_ssize_t> PIECES_PER_CALL, len(unsent) - index)
            for number in range(count):
                piece = unsent[index + number]
                vector[number].iov_base = _start(piece)
                vector[number].iov_len = _size(piece)
            vector[0].iov_base = <char*> vector[0].iov_base + self.first_sent_bytes
            vector[0].iov_len -= self.first_sent_bytes
            sent = transmit_pieces(self.descriptor, vector, count)
            if sent < 0:
                if not would_block():
                    return self._break(errno)
                break
            self.unsent_bytes -= sent
            while index < len(unsent):
                left = _size(unsent[index]) - self.first_sent_bytes
                if sent < left:
                    self.first_sent_bytes += sent
                    break
                sent -= left
                self.first_sent_bytes = 0
                index += 1
        if index == len(unsent):
            self.unsent = None
            if self.eof_due and not self.closed:
                end_sending(self.descriptor)
            if self.closed:
                self.poller.add_leaving(self)
        elif index:
            del unsent[:index]
        if self.told_to_pause and self.unsent_bytes <= self.write_high_bytes // 4:
            self.told_to_pause = False
            if not self.closed:
                self.owner.resume_writing()
        return 0

    cdef int _told_what_waits(self) except -1:
        """Tell the owner if more waits than it wants to."""
        if self.unsent_bytes > self.write_high_bytes and not self.told_to_pause and not self.broken:
            self.told_to_pause = True
            self.owner.pause_writing()
        return 0

    cpdef int write_eof(self) except -1:
        if self.broken or self.closed or self.eof_due:
            return 0
        self.eof_due = True
        if self.unsent is None:
            end_sending(self.descriptor)
        return 0

    cpdef int pause(self) except -1:
        self.paused = True
        return 0

    cpdef int resume(self) except -1:
        self.paused = False
        if self.readable and not self.closed:
            self.poller.add_ready(self)
        return 0

    cpdef int close(self) except -1:
        self.closed = True
        if self.unsent is None:
            self.poller.add_leaving(self)
        return 0

    cpdef int abort(self) except -1:
        self.closed = True
        self.unsent = None
        if self.descriptor >= 0:
            self.poller.add_leaving(self)
        return 0

    cpdef int reset(self) except -1:
        if self.descriptor >= 0:
            reset_at_close(self.descriptor)
        return self.abort()

    cdef int _break(self, int error) except -1:
        """The connection has failed; what waits to be sent is dropped."""
        if not self.broken:
            self.broken = True
            self.error = error
        return self.abort()

    cpdef bint closing(self) except -1:
        return self.closed

    cpdef Py_ssize_t pending_bytes(self) except -1:
        return 0 if self.unsent is None else self.unsent_bytes

    cpdef Py_ssize_t dropped_bytes(self) except -1:
        return self.unsent_bytes if self.unsent is None else 0

    cpdef Py_ssize_t unconfirmed_bytes(self) except -1:
        return unconfirmed_in(self.descriptor)

    cpdef Py_ssize_t incoming_bytes(self) except -1:
        return incoming_in(self.descriptor)

    cpdef object peer(self):
        return address_tuple(&self.address)

    cpdef object peer_process(self):
        return connected_process(self.descriptor)


cdef inline char* _start(piece) except NULL:
    """The bytes of a bytes object or a bytearray."""
    return PyBytes_AS_STRING(piece) if isinstance(piece, bytes) else PyByteArray_AS_STRING(piece)


cdef inline Py_ssize_t _size(piece) except -1:
    """Bytes of a bytes object or a bytearray."""
    return PyBytes_GET_SIZE(piece) if isinstance(piece, bytes) else PyByteArray_GET_SIZE(piece)


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
            self.owner.received(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))

    def eof_received(self):
        return self.owner is not None and self.owner.ended()

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
        return unconfirmed_in(self._descriptor())

    cpdef Py_ssize_t incoming_bytes(self) except -1:
        return incoming_in(self._descriptor())

    cpdef object peer(self):
        return self.transport.get_extra_info("peername")

    cdef int _descriptor(self) except -2:
        return self.transport.get_extra_info("socket").fileno()
