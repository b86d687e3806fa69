"""TLS to clients, over sockets of ours."""

from gatewayx.core.counters cimport Counters, Counts
from gatewayx.core.turns cimport Flag
from gatewayx.net.poller cimport Polled, TurnPoller
from gatewayx.net.stream cimport SocketStream, Stream, StreamOwner
from gatewayx.net.tls_records cimport RecordCount

cdef enum:
    # What passes the memory BIOs at once: they never give back memory that they have once needed (OpenSSL, BUF_MEM_grow()). What is
    # written is a record of so many bytes.
    PIECE_BYTES = 2048
    RECORD_BYTES = 3072
    # What is read of a socket and decrypted in a turn: a record may be so short that it costs fifty times its bytes.
    CIPHERTEXT_BYTES = 16384
    # Records that have nothing for the owner, of those that came at once: each may ask for new keys, which cost more than any request
    # (RFC 8446 4.6.3; OpenSSL bounds empty ones alone).
    MOST_EMPTY_RECORDS = 32
    # A record, and what else comes with the first one: a client waits behind its hello.
    MOST_HELLO_BYTES = 18432
    # What one stream encrypts in a turn, beside the answer that is written first.
    ENCRYPTED_PER_TURN_BYTES = 131072
    # Handshakes are answered in one of so many turns, for so long: one at least. Each takes the time of a signature, in which forty
    # requests could be served, so those who ask have about half of the time. Turns without them are short when nobody asks.
    TURNS_PER_STEP = 4
    HANDSHAKES_NS = 100_000
    # While so many wait for that, no further connection is accepted: others wait in the kernel, where they cost nothing.
    ENOUGH_IN_LINE = 16


cdef enum TlsState:
    # The first record has not come whole.
    HELLO
    # What has come of the handshake waits for its turn.
    IN_LINE
    # The client's next step is due.
    HANDSHAKE
    OPEN
    # It speaks no TLS: bytes pass as they are.
    PLAIN
    # Nothing is decrypted any more.
    OVER


cdef class TlsServer:
    cdef TurnPoller poller
    # An ssl.SSLContext, for handshakes that begin from now on.
    cdef readonly object context
    # Handshakes that wait for their client, who was answered: the oldest first, and how many. As many may wait in the line.
    cdef TlsStream first
    cdef TlsStream last
    cdef Py_ssize_t answered
    cdef Py_ssize_t max_handshakes
    cdef readonly HandshakeLine line
    # Keeps the row alive to which `counts` points.
    cdef Counters counted_in
    cdef Counts* counts

    # The client is about to be answered, in the place of the one who has let wait for longest if there is none else.
    cdef int begin(self, TlsStream stream) except -1
    # The handshake is over, however.
    cdef int end(self, TlsStream stream) except -1


cdef class HandshakeLine(Polled):
    """Those whose next step is due, in the order in which they came; at most TlsServer.max_handshakes newcomers and as many others."""
    cdef TurnPoller poller
    cdef TlsStream first
    cdef TlsStream last
    cdef readonly Py_ssize_t count
    # The turn of the poller from which on TURNS_PER_STEP share the time of steps, and how much of it is spent.
    cdef unsigned int turn
    cdef long long spent_ns

    # Do the stream's next step now if there is time and nobody waits; else when the line has come to it.
    cdef int append(self, TlsStream stream) except -1
    cdef bint _has_time(self) noexcept
    cdef int _serve(self, TlsStream stream) except -1


cdef class Ciphertext(StreamOwner):
    """Stands on the socket for a TlsStream, and hands all to it."""
    cdef TlsStream stream


cdef class TlsStream(Stream):
    cdef TlsServer server
    # None once the connection is gone.
    cdef readonly StreamOwner owner
    # None before it is opened, and once it is gone.
    cdef SocketStream socket
    cdef TlsState state
    # An ssl.SSLObject with its memory BIOs; None before the client's first record, and once it is gone.
    cdef object session
    # What the SSLObject itself calls to read and write, or the SSLObject.
    cdef object engine
    cdef object incoming
    cdef object outgoing
    # What came before the handshake; None for nothing.
    cdef bytes begun
    # Its neighbours among the handshakes under way, and who is next in their line.
    cdef TlsStream previous_handshake
    cdef TlsStream next_handshake
    cdef TlsStream next_in_line
    cdef Flag in_handshake
    # What was written and is not encrypted: pieces, how much of the first one is, and how much there is; None for nothing.
    cdef list unsent
    cdef Py_ssize_t first_sent_bytes
    cdef Py_ssize_t unsent_bytes
    # What was encrypted so far, as it was written.
    cdef unsigned long long encrypted_bytes
    # Where the records are that come; and how many had nothing for the owner, half of them forgotten with each read.
    cdef RecordCount records
    cdef int empty_records
    # The socket takes no more for now; and the owner knows that something waits.
    cdef Flag blocked
    cdef Flag told_to_pause
    # The owner reads no more for now.
    cdef Flag paused
    # The other side has said that it sends no more, or is gone; and the owner was told.
    cdef Flag at_end
    cdef Flag told_end
    # close_notify goes behind what waits, and then FIN, or the end of all; and it has gone.
    cdef Flag eof_due
    cdef Flag closed
    cdef Flag said_end

    cdef int opened_on(self, SocketStream socket) except -1
    cdef int came(self, const char* data, Py_ssize_t size) except -1
    cdef int socket_hung_up(self) except -1
    cdef bint socket_ended(self) except? True
    cdef int gone(self, error) except -1
    cdef int socket_takes(self, bint more) except -1
    cdef int step(self) except -1
    cdef int _hello(self, const char* data, Py_ssize_t size) except -1
    cdef int _shake(self, const char* data, Py_ssize_t size) except -1
    cdef int _shaken(self) except -1
    cdef int _decrypt(self, const char* data, Py_ssize_t size) except -1
    cdef Py_ssize_t _read(self, Py_ssize_t filled) except -1
    cdef int _fail(self, str reason) except -1
    cdef int _end(self) except -1
    cdef int _send_outgoing(self) except -1
    cdef int _put(self, list pieces, Py_ssize_t size) except -1
    cdef int _encrypt(self, Py_ssize_t most_bytes) except -1
    cdef int _finish(self) except -1
    cdef Py_ssize_t _as_written(self, Py_ssize_t size) noexcept
    cdef int _tell_what_waits(self) except -1
