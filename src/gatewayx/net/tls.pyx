"""TLS to clients, over sockets of ours.

Theory of operation. A TlsStream is a stream like any other to the connection that stands on it; below it is a
SocketStream, whose owner is a Ciphertext. Bytes pass OpenSSL through memory BIOs, in pieces: a BIO keeps the memory that
it has once needed. What a socket is read in a turn is decrypted in that turn and handed over at once, so nothing
decrypted ever waits here; what is written waits as it is until the socket takes more, and is encrypted then.

A connection costs a socket and the objects here until its client's first record has come whole, and the line has come to
it: only then is there an SSLObject. The steps of handshakes are done in that line, for HANDSHAKES_NS in one of a few turns,
so that clients that are in have the rest; while the line is long, further connections are not accepted. From its answer on it is one of the handshakes that wait for their client, of which there is a bound: the oldest is given up for a further
one. The deadline is the owner's: a handshake is nothing that it has received.
"""

import logging
import ssl

cimport cython
from cpython.buffer cimport PyBUF_WRITE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.memoryview cimport PyMemoryView_FromMemory

from gatewayx.core.clock cimport now_ns
from gatewayx.core.counters cimport Counters
from gatewayx.net.poller cimport Polled, TurnPoller
from gatewayx.net.stream cimport SocketStream, Stream, StreamOwner
from gatewayx.net.tls_records cimport RECORD_HEAD_BYTES, count_records

from gatewayx.net.tls_reasons import EXPIRED, reason_of, taken_up_too_late

logger = logging.getLogger("gatewayx")

cdef enum:
    # The type of a record that a handshake begins with (RFC 8446 5.1).
    HANDSHAKE_RECORD = 22
    # What is decrypted of a read and of the record that it ends, and room for one record more.
    DECRYPTED_BYTES = CIPHERTEXT_BYTES + 2 * 16384 + 1024

cdef object WantRead = ssl.SSLWantReadError
cdef object TlsError = ssl.SSLError
# Methods as functions: they are not looked up each time.
cdef object bio_write = ssl.MemoryBIO.write
cdef object bio_read = ssl.MemoryBIO.read

# What was decrypted last, of whichever stream: its owner takes what it needs before the call returns.
cdef char[DECRYPTED_BYTES] decrypted
cdef object all_decrypted = PyMemoryView_FromMemory(decrypted, DECRYPTED_BYTES, PyBUF_WRITE)


@cython.final
cdef class TlsServer:
    """TLS for the clients of a process.

    poller: the process's. counters: where handshakes are counted. context: an ssl.SSLContext for servers. max_handshakes: those
    under way at once.
    """

    def __init__(self, TurnPoller poller not None, Counters counters not None, context not None, Py_ssize_t max_handshakes):
        self.poller = poller
        self.counted_in = counters
        self.counts = counters.row
        self.line = HandshakeLine(poller)
        self.change(context, max_handshakes)

    def change(self, context not None, Py_ssize_t max_handshakes):
        """Be as if it had been made with these."""
        self.context = context
        self.max_handshakes = max_handshakes

    def over(self, factory):
        """A factory of those who stand on accepted sockets, for a factory of those who stand on the streams over them."""
        def make(*arguments):
            return TlsStream(self, factory(*arguments)).below()

        return make

    def counters(self):
        """What is held now, by name."""
        return {"handshakes": self.answered + self.line.count}

    cdef int begin(self, TlsStream stream) except -1:
        if self.answered >= self.max_handshakes:
            # Its end is told at the end of the turn.
            self.first.abort()
            self.counts.tls_left += 1
            self.end(self.first)
        stream.in_handshake = True
        stream.previous_handshake = self.last
        if self.last is None:
            self.first = stream
        else:
            self.last.next_handshake = stream
        self.last = stream
        self.answered += 1
        return 0

    cdef int end(self, TlsStream stream) except -1:
        if not stream.in_handshake:
            return 0
        stream.in_handshake = False
        if stream.previous_handshake is None:
            self.first = stream.next_handshake
        else:
            stream.previous_handshake.next_handshake = stream.next_handshake
        if stream.next_handshake is None:
            self.last = stream.previous_handshake
        else:
            stream.next_handshake.previous_handshake = stream.previous_handshake
        stream.previous_handshake = None
        stream.next_handshake = None
        self.answered -= 1
        return 0


@cython.final
cdef class HandshakeLine(Polled):
    """Those whose handshake is to be begun; poller: the process's."""

    def __init__(self, TurnPoller poller not None):
        self.poller = poller

    cdef int append(self, TlsStream stream) except -1:
        if self.first is None and self._has_time():
            return self._serve(stream)
        stream.socket.pause()
        if self.first is None:
            self.first = stream
        else:
            self.last.next_in_line = stream
        self.last = stream
        self.count += 1
        return self.poller.add_ready(self)

    cdef bint _has_time(self) noexcept:
        if self.poller.number - self.turn >= TURNS_PER_STEP:
            self.turn = self.poller.number
            self.spent_ns = 0
        return self.spent_ns < HANDSHAKES_NS

    cdef int _serve(self, TlsStream stream) except -1:
        cdef long long began_ns = now_ns()
        try:
            stream.step()
        except Exception:
            stream.failed()
        self.spent_ns += now_ns() - began_ns
        return 0

    cdef int handle(self, unsigned int events) except -1:
        cdef TlsStream stream
        while self.first is not None and self._has_time():
            stream = self.first
            self.first = stream.next_in_line
            stream.next_in_line = None
            self.count -= 1
            # One that is over meanwhile takes no time.
            if stream.state == IN_LINE and not stream.socket.closing():
                self._serve(stream)
        return 0 if self.first is None else self.poller.add_ready(self)


@cython.final
cdef class Ciphertext(StreamOwner):
    """Stands on the socket for a TlsStream, and hands all to it."""

    cpdef int opened(self, Stream stream) except -1:
        return self.stream.opened_on(<SocketStream?> stream)

    cdef int received(self, const char* data, Py_ssize_t size) except -1:
        return self.stream.came(data, size)

    cpdef int hung_up(self) except -1:
        return self.stream.socket_hung_up()

    cpdef bint ended(self) except? True:
        return self.stream.socket_ended()

    cpdef int lost(self, error) except -1:
        return self.stream.gone(error)

    cpdef int pause_writing(self) except -1:
        return self.stream.socket_takes(False)

    cpdef int resume_writing(self) except -1:
        return self.stream.socket_takes(True)


@cython.final
cdef class TlsStream(Stream):
    """A stream over a SocketStream to a client that speaks TLS. server: the process's. owner: the connection that stands on it."""

    def __init__(self, TlsServer server not None, StreamOwner owner not None):
        self.server = server
        self.owner = owner

    def below(self):
        """Who stands on the socket."""
        cdef Ciphertext ciphertext = Ciphertext()
        ciphertext.stream = self
        return ciphertext

    # What the socket tells.

    cdef int opened_on(self, SocketStream socket) except -1:
        self.socket = socket
        socket.receive_bytes = CIPHERTEXT_BYTES
        return self.owner.opened(self)

    cdef int came(self, const char* data, Py_ssize_t size) except -1:
        if self.state == HELLO:
            return self._hello(data, size)
        if self.state == HANDSHAKE:
            # A client may send its hello in parts, or twice: each step may be the one with the signature.
            self.begun = data[:size]
            self.state = IN_LINE
            return self.server.line.append(self)
        if self.closed or self.state == OVER:
            # Its owner hears no more.
            return 0
        return self._decrypt(data, size) if self.state == OPEN else self.owner.received(data, size)

    cdef int socket_hung_up(self) except -1:
        if self.state == IN_LINE:
            # Who has not been answered cannot have finished; else its end comes behind what it has sent.
            return self.abort() if self.session is None else 0
        # An owner that has paused is told of close_notify when it reads on, and of the FIN behind that now.
        return 0 if self.told_end or self.closed else self.owner.hung_up()

    cdef bint socket_ended(self) except? True:
        if self.state == HELLO or self.state == HANDSHAKE:
            # Nobody is left to shake hands with.
            self.abort()
            return True
        # Without close_notify it is an end as well: what is whole by its own framing was not cut.
        self.at_end = True
        self._end()
        # It is closed from here alone, behind what waits.
        return True

    cdef int gone(self, error) except -1:
        cdef StreamOwner owner = self.owner
        if self.in_handshake or (self.state == IN_LINE and self.session is None):
            self.server.counts.tls_left += 1
            self.server.end(self)
        self.state = OVER
        self.owner = None
        self.session = None
        self.engine = None
        self.incoming = None
        self.outgoing = None
        self.begun = None
        self.unsent = None
        if owner is not None:
            owner.lost(error)
        self.socket = None
        return 0

    cdef int socket_takes(self, bint more) except -1:
        self.blocked = not more
        if self.state == PLAIN and self.owner is not None:
            return self.owner.resume_writing() if more else self.owner.pause_writing()
        if more and self.unsent is not None:
            self._encrypt(ENCRYPTED_PER_TURN_BYTES)
        return self._tell_what_waits()

    # The handshake.

    cdef int _hello(self, const char* data, Py_ssize_t size) except -1:
        """What comes before the first record is whole."""
        cdef const unsigned char* head
        cdef Py_ssize_t here
        self.begun = data[:size] if self.begun is None else self.begun + data[:size]
        head = <const unsigned char*> PyBytes_AS_STRING(self.begun)
        here = PyBytes_GET_SIZE(self.begun)
        if head[0] < 0x7F and (head[0] >= 0x20 or head[0] == c"\r" or head[0] == c"\n"):
            self.state = PLAIN
            self.begun = None
            self.owner.not_understood("plain HTTP", True)
            if self.unsent is not None and not self.socket.closing():
                # A refusal that was written when it was opened.
                self.socket.write_all(self.unsent)
                self.unsent = None
                self.unsent_bytes = 0
                return self._finish()
            return 0
        if head[0] == HANDSHAKE_RECORD and here <= MOST_HELLO_BYTES:
            if here < RECORD_HEAD_BYTES or here < RECORD_HEAD_BYTES + (head[3] << 8 | head[4]):
                return 0
        if self.server.line.count >= self.server.max_handshakes:
            self.server.counts.tls_left += 1
            return self.abort()
        # What is no record OpenSSL answers as TLS wants it.
        self.state = IN_LINE
        return self.server.line.append(self)

    cdef int step(self) except -1:
        """Its turn has come."""
        cdef bytes begun = self.begun
        self.begun = None
        self.state = HANDSHAKE
        if self.session is None:
            self.server.begin(self)
            self.incoming = ssl.MemoryBIO()
            self.outgoing = ssl.MemoryBIO()
            self.session = self.server.context.wrap_bio(self.incoming, self.outgoing, server_side=True)
            self.engine = getattr(self.session, "_sslobj", self.session)
        self._shake(PyBytes_AS_STRING(begun), min(PyBytes_GET_SIZE(begun), <Py_ssize_t> MOST_HELLO_BYTES))
        return 0 if self.closed or self.paused or self.socket is None else self.socket.resume()

    cdef int _shake(self, const char* data, Py_ssize_t size) except -1:
        """Do the next step of the handshake, and read what stands behind the last one."""
        cdef Py_ssize_t piece
        while size > 0 and self.state == HANDSHAKE:
            piece = min(size, <Py_ssize_t> PIECE_BYTES)
            bio_write(self.incoming, PyBytes_FromStringAndSize(data, piece))
            self.empty_records += count_records(&self.records, <const unsigned char*> data, piece)
            data += piece
            size -= piece
            try:
                self.session.do_handshake()
            except WantRead:
                self._send_outgoing()
                continue
            except TlsError as error:
                return self._fail(reason_of(error))
            if taken_up_too_late(self.session):
                return self._fail(EXPIRED)
            self._shaken()
        # Without further bytes there may be some in the BIO.
        return self._decrypt(data, size) if self.state == OPEN else 0

    cdef int _shaken(self) except -1:
        self.state = OPEN
        self.empty_records = 0
        self.server.end(self)
        if self.session.session_reused:
            self.server.counts.tls_resumed += 1
        else:
            self.server.counts.tls_full += 1
        self._send_outgoing()
        if self.unsent is not None:
            # A refusal that was written when it was opened.
            self._encrypt(ENCRYPTED_PER_TURN_BYTES)
            self._tell_what_waits()
        return self._finish() if self.unsent is None else 0

    cdef int _fail(self, str reason) except -1:
        """The other side speaks no TLS that is understood here, as OpenSSL has told it if there are words for that."""
        cdef bint was_handshake = self.state == HANDSHAKE
        if was_handshake:
            self.server.end(self)
            self.server.counts.tls_failed += 1
        self._send_outgoing()
        self.state = OVER
        self.closed = True
        self.unsent = None
        self.owner.not_understood(f"{'a TLS handshake' if was_handshake else 'TLS'} fails: {reason}", False)
        return self.socket.close()

    # Reading.

    cdef int _decrypt(self, const char* data, Py_ssize_t size) except -1:
        cdef Py_ssize_t filled = 0
        cdef Py_ssize_t piece
        self.empty_records //= 2
        try:
            if size == 0:
                filled = self._read(filled)
            while size > 0 and not self.at_end:
                piece = min(size, <Py_ssize_t> PIECE_BYTES)
                bio_write(self.incoming, PyBytes_FromStringAndSize(data, piece))
                self.empty_records += count_records(&self.records, <const unsigned char*> data, piece)
                data += piece
                size -= piece
                filled = self._read(filled)
        except TlsError as error:
            # What was whole in the pieces before its own is good.
            if filled:
                self.owner.received(decrypted, filled)
            return 0 if self.closed or self.owner is None else self._fail(reason_of(error))
        if self.empty_records > MOST_EMPTY_RECORDS:
            self.owner.not_understood("TLS fails: records without anything in them", False)
            return self.abort()
        if self.empty_records and self.outgoing.pending:
            # An answer to an update of keys.
            self._send_outgoing()
        if filled:
            self.owner.received(decrypted, filled)
        return self._end() if self.at_end else 0

    cdef Py_ssize_t _read(self, Py_ssize_t filled) except -1:
        """Decrypt what is whole behind what was; returns how much there is."""
        cdef Py_ssize_t size
        while self.incoming.pending and not self.at_end:
            try:
                size = self.engine.read(
                    DECRYPTED_BYTES - filled,
                    PyMemoryView_FromMemory(decrypted + filled, DECRYPTED_BYTES - filled, PyBUF_WRITE)
                    if filled
                    else all_decrypted,
                )
            except WantRead:
                break
            except ssl.SSLZeroReturnError:
                size = 0
            if size == 0:
                self.at_end = True
            elif self.empty_records > 0:
                self.empty_records -= 1
            filled += size
        return filled

    cdef int _end(self) except -1:
        """The other side sends no more: tell it, once the owner has taken what came before."""
        if self.told_end or self.paused or self.closed or self.owner is None:
            return 0
        self.told_end = True
        return 0 if self.owner.ended() or self.closed else self.close()

    # Writing.

    cpdef int write(self, bytes data) except -1:
        return self._put([data], PyBytes_GET_SIZE(data))

    cpdef int write_all(self, list pieces) except -1:
        cdef Py_ssize_t size = 0
        for piece in pieces:
            size += len(piece)
        return self._put(pieces, size)

    cdef int send(self, const char* data, Py_ssize_t size) except -1:
        return self._put([PyBytes_FromStringAndSize(data, size)], size)

    cdef int _put(self, list pieces, Py_ssize_t size) except -1:
        if self.closed or self.eof_due:
            if self.socket is not None and self.socket.closing():
                # It has failed, which is told at the end of the turn.
                return 0
            raise RuntimeError("a write to a stream that was closed")
        if self.state == PLAIN:
            return self.socket.write_all(pieces)
        if self.state == OVER:
            return 0
        if self.unsent is None:
            self.unsent = pieces if len(pieces) == 1 or size > RECORD_BYTES else [b"".join(pieces)]
            self.first_sent_bytes = 0
            self.unsent_bytes = size
            if self.state == OPEN and not self.blocked:
                self._encrypt(ENCRYPTED_PER_TURN_BYTES)
        else:
            self.unsent = self.unsent + pieces
            self.unsent_bytes += size
        return self._tell_what_waits() if self.state == OPEN else 0

    cdef int _encrypt(self, Py_ssize_t most_bytes) except -1:
        """Encrypt what waits as far as the socket takes it, and let the rest have a turn of its own."""
        cdef list unsent = self.unsent
        cdef list records = []
        cdef Py_ssize_t index = 0
        cdef Py_ssize_t size, piece_bytes
        while index < len(unsent) and most_bytes > 0:
            piece = unsent[index]
            piece_bytes = len(piece)
            size = min(piece_bytes - self.first_sent_bytes, <Py_ssize_t> RECORD_BYTES)
            if size > 0:
                if size < piece_bytes:
                    piece = memoryview(piece)[self.first_sent_bytes : self.first_sent_bytes + size]
                self.engine.write(piece)
                records.append(bio_read(self.outgoing))
            most_bytes -= size
            self.first_sent_bytes += size
            self.unsent_bytes -= size
            self.encrypted_bytes += size
            if self.first_sent_bytes == piece_bytes:
                self.first_sent_bytes = 0
                index += 1
        if index == len(unsent):
            self.unsent = None
        elif index:
            del unsent[:index]
        if len(records) == 1:
            self.socket.write(<bytes> records[0])
        elif records:
            self.socket.write_all(records)
        if self.unsent is None:
            return self._finish()
        return 0 if self.blocked else self.server.poller.add_ready(self)

    cdef int handle(self, unsigned int events) except -1:
        if self.unsent is not None and self.state == OPEN and not self.blocked:
            self._encrypt(ENCRYPTED_PER_TURN_BYTES)
            self._tell_what_waits()
        return self._end() if self.at_end else 0

    cdef int failed(self) except -1:
        logger.exception("a connection's TLS failed")
        return self.abort()

    cdef int _tell_what_waits(self) except -1:
        """Tell the owner whether anything of what it wrote waits for the socket."""
        cdef bint waits = self.unsent is not None or self.blocked
        if self.owner is None or waits == self.told_to_pause or self.state != OPEN:
            return 0
        self.told_to_pause = waits
        if waits:
            return self.owner.pause_writing()
        return 0 if self.closed else self.owner.resume_writing()

    cdef int _send_outgoing(self) except -1:
        """Send what OpenSSL has to say of its own."""
        cdef bytes data = self.outgoing.read()
        if data and not self.socket.closing():
            self.socket.write(data)
        return 0

    cdef int _finish(self) except -1:
        """All that was written is encrypted: say the end if it is due."""
        if not (self.eof_due or self.closed) or self.socket is None:
            return 0
        if not self.said_end and self.state == OPEN:
            self.said_end = True
            try:
                self.session.unwrap()
            except TlsError:
                # The other side's close_notify is not waited for.
                pass
            self._send_outgoing()
        if self.closed:
            return self.socket.close()
        return self.socket.write_eof()

    cpdef int write_eof(self) except -1:
        if self.closed or self.eof_due or self.socket is None:
            return 0
        self.eof_due = True
        if self.unsent is None and (self.state == OPEN or self.state == PLAIN):
            return self._finish()
        return 0

    cpdef int pause(self) except -1:
        self.paused = True
        # A handshake goes on.
        return self.socket.pause() if self.state == OPEN or self.state == PLAIN else 0

    cpdef int resume(self) except -1:
        self.paused = False
        if self.at_end and not self.told_end:
            self.server.poller.add_ready(self)
        return 0 if self.state == IN_LINE else self.socket.resume()

    cpdef int close(self) except -1:
        if self.socket is None:
            return 0
        self.closed = True
        if self.unsent is not None and self.state != OVER:
            return 0
        return self._finish()

    cpdef int abort(self) except -1:
        self.closed = True
        self.unsent = None
        return 0 if self.socket is None else self.socket.abort()

    cpdef int reset(self) except -1:
        self.closed = True
        self.unsent = None
        return 0 if self.socket is None else self.socket.reset()

    cpdef bint closing(self) except -1:
        return self.closed or self.socket is None or self.socket.closing()

    cdef Py_ssize_t _as_written(self, Py_ssize_t size) noexcept:
        """So many of the socket's bytes, as they were written: records are longer, and a handshake was never written."""
        return size if self.state == PLAIN else min(size, <Py_ssize_t> self.encrypted_bytes)

    cpdef Py_ssize_t pending_bytes(self) except -1:
        cdef Py_ssize_t waiting = 0 if self.unsent is None else self.unsent_bytes
        return waiting if self.socket is None else waiting + self._as_written(self.socket.pending_bytes())

    cpdef Py_ssize_t dropped_bytes(self) except -1:
        cdef Py_ssize_t waiting = self.unsent_bytes if self.unsent is None else 0
        return waiting if self.socket is None else waiting + self._as_written(self.socket.dropped_bytes())

    cpdef Py_ssize_t unconfirmed_bytes(self) except -1:
        cdef Py_ssize_t pending
        if self.socket is None:
            return 0
        pending = self.socket.pending_bytes()
        return self._as_written(pending + self.socket.unconfirmed_bytes()) - self._as_written(pending)

    cpdef Py_ssize_t incoming_bytes(self) except -1:
        return 0 if self.socket is None else self.socket.incoming_bytes()

    cpdef object peer(self):
        return None if self.socket is None else self.socket.peer()

    cpdef object client_names(self):
        if self.session is None or self.state != OPEN:
            return None
        found = self.session.getpeercert()
        return None if not found else found.get("subjectAltName", ())
