"""Floods: connections that no good client makes, many at once or so many a second.

What the server does with each is counted: a connection ends answered with a status, closed without a word, reset, or
never came up; those that leave without waiting end in none of these.
"""

from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdlib cimport atoi
from libc.string cimport memcmp, memset

cimport cython
from gatewayx.core.clock cimport now_ns
from gatewayx.net.poller cimport EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP, EVENTS_PER_CALL, Polled, Poller
from gatewayx.net.sockets cimport Peer, connect_error, disconnect, receive, transmit, would_block

MIXED = "mixed"

# New connections at once, before what has been answered is looked at: as many as a listener's queue holds.
cdef int BURST = 256
cdef long long DRIP_NS = 1_000_000_000
# At most one connection in so many of a mixed flood drips or ignores: such connections last, and would soon be all
# that are open.
cdef int SLOW_PART = 4
# Small, so that a server notices soon that nothing is read.
cdef int IGNORING_BUFFER_BYTES = 4096
# A body that no server takes.
OVERSIZE_BYTES = 1_000_000_000_000
FLOODED_HEADERS = 330
PIPELINED_REQUESTS = 120


def flood_kinds(bytes target, bytes host):
    """Every kind of flood by name, aimed at a request target of a host."""
    head = b"POST " + target + b" HTTP/1.1\r\nHost: " + host + b"\r\n"
    kinds = (
        FloodKind("bad-line", READS, b"AAA\r\n"),
        FloodKind("bad-version", READS, b"GET " + target + b" HTTP/4.7\r\nHost: " + host + b"\r\n\r\n"),
        FloodKind("bad-chunk", READS, head + b"Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n"),
        FloodKind("nul", READS, b"GET " + target + b"?\0 HTTP/1.1\r\nHost: " + host + b"\r\n\r\n"),
        FloodKind("header-flood", READS, head + b"X-Flood: x\r\n" * FLOODED_HEADERS + b"\r\n"),
        FloodKind("half-head", LEAVES, head + b"X-Half: "),
        FloodKind("slow-head", DRIPS, head + b"X-Slow: "),
        FloodKind("slow-body", DRIPS, head + b"Content-Length: 100000\r\n\r\n"),
        FloodKind("no-read", IGNORES, (b"OPTIONS * HTTP/1.1\r\nHost: " + host + b"\r\n\r\n") * PIPELINED_REQUESTS),
        FloodKind("connect", LEAVES, b""),
        FloodKind("oversize", READS, head + b"Content-Length: %d\r\n\r\n" % OVERSIZE_BYTES),
    )
    return {kind.name: kind for kind in kinds}


KIND_NAMES = (*flood_kinds(b"/", b"-"), MIXED)


@cython.final
cdef class FloodKind:
    """What one kind of connection sends, and how it behaves."""

    def __init__(self, str name, Manner manner, bytes text):
        self.name = name
        self.manner = manner
        self.text = text


@cython.final
cdef class FloodConnection(Polled):
    """One hostile client after the other, in one place."""

    def __cinit__(self, FloodGenerator generator):
        self.generator = generator
        self.descriptor = -1

    cdef int open(self, FloodKind kind) except -1:
        cdef FloodGenerator generator = self.generator
        self.kind = kind
        self.sent = False
        self.sent_bytes = 0
        self.answered = False
        generator.opened += 1
        generator.open_now += 1
        generator.slow += kind.manner >= DRIPS
        self.descriptor = generator.peer.connect(IGNORING_BUFFER_BYTES if kind.manner == IGNORES else 0)
        if self.descriptor < 0 or generator.poller.add(self.descriptor, self) < 0:
            generator.failed += 1
            return self.end()
        generator.highest_open = max(generator.highest_open, generator.open_now)
        return 0

    cdef int end(self) except -1:
        cdef FloodGenerator generator = self.generator
        if self.descriptor >= 0:
            generator.poller.remove(self)
            disconnect(self.descriptor)
        self.descriptor = -1
        generator.open_now -= 1
        generator.slow -= self.kind.manner >= DRIPS
        self.next_unused = generator.first_unused
        generator.first_unused = self
        return 0

    cdef int handle(self, unsigned int events) except -1:
        cdef FloodGenerator generator = self.generator
        cdef Py_ssize_t size
        if self.descriptor < 0:
            return 0
        if not self.sent:
            if events & (EPOLLERR | EPOLLHUP) and connect_error(self.descriptor):
                generator.failed += 1
                return self.end()
            if not events & EPOLLOUT:
                return 0
            self.sent = True
            self.next_drip_ns = now_ns() + DRIP_NS
            if self.kind.manner != IGNORES:
                transmit(self.descriptor, <const char*> self.kind.text, len(self.kind.text))
            if self.kind.manner == LEAVES:
                return self.end()
        if self.kind.manner == IGNORES:
            while events & EPOLLOUT:
                # Where the last time ended, or it would become a bad request.
                size = transmit(
                    self.descriptor, <const char*> self.kind.text + self.sent_bytes, len(self.kind.text) - self.sent_bytes
                )
                if size < 0:
                    break
                self.sent_bytes = (self.sent_bytes + size) % len(self.kind.text)
            if events & (EPOLLERR | EPOLLHUP):
                generator.resets += 1
                return self.end()
            return 0
        if not events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR):
            return 0
        while True:
            size = receive(self.descriptor, generator.received, READ_BYTES)
            if size <= 0:
                break
            if not self.answered:
                self.answered = True
                generator.count_answer(size)
        # The client closes once it has its answer, also when the server would keep the connection.
        if size < 0 and would_block() and not self.answered:
            return 0
        if not self.answered:
            if size < 0:
                generator.resets += 1
            else:
                generator.closed_silently += 1
        return self.end()

    cdef int drip(self, long long at_ns) except -1:
        """Another byte of what never ends."""
        if self.descriptor >= 0 and self.sent and self.kind.manner == DRIPS and at_ns >= self.next_drip_ns:
            self.next_drip_ns = at_ns + DRIP_NS
            transmit(self.descriptor, b"x", 1)
        return 0


@cython.final
cdef class FloodGenerator:
    """A flood of one kind or of all in turn.

    loop: the running event loop. peer: whom to flood. kinds: what, in turn. connections: open at once at most. rate: new
    ones a second, 0 for as many as go. Call `begin`, `sweep` about every 50 ms, `finish` when the time is over.
    """

    def __cinit__(self):
        self.received = <char*> PyMem_Malloc(READ_BYTES + 1)
        if self.received == NULL:
            raise MemoryError

    def __dealloc__(self):
        PyMem_Free(self.received)

    def __init__(self, loop, Peer peer not None, list kinds not None, *, int connections, double rate=0):
        cdef FloodConnection connection
        self.peer = peer
        self.kinds = kinds
        self.rate = rate
        memset(self.statuses, 0, sizeof(self.statuses))
        self.connections = [FloodConnection(self) for _ in range(connections)]
        for connection in self.connections:
            connection.next_unused = self.first_unused
            self.first_unused = connection
        self.poller = Poller(loop, self.turn)

    def begin(self, long long begins_ns, long long ends_ns):
        """Flood from one time of the clock to another."""
        self.begins_ns = begins_ns
        self.ends_ns = ends_ns
        self.sending = True
        self.open_due()

    def turn(self):
        """Serve the connections that are ready, and open those that are due."""
        self.poller.serve(EVENTS_PER_CALL)
        self.open_due()

    cdef int open_due(self) except -1:
        cdef long long at_ns = now_ns()
        cdef long long due = 0
        cdef int burst
        cdef FloodConnection connection
        if at_ns >= self.ends_ns:
            self.sending = False
        if not self.sending:
            return 0
        if self.rate:
            due = <long long> ((at_ns - self.begins_ns) * self.rate / 1e9) + 1
        for burst in range(BURST):
            connection = self.first_unused
            if connection is None or (self.rate and self.opened >= due):
                break
            self.first_unused = connection.next_unused
            connection.next_unused = None
            connection.open(self._choose_kind())
        if self.rate and self.first_unused is not None:
            self.poller.set_alarm(max(at_ns, self.begins_ns + <long long> (self.opened * 1e9 / self.rate)))
        return 0

    cdef FloodKind _choose_kind(self):
        """The next kind in turn; while too many connections are slow, the next of the quick kinds."""
        cdef FloodKind kind
        for _ in range(len(self.kinds)):
            kind = self.kinds[self.next_kind]
            self.next_kind = (self.next_kind + 1) % len(self.kinds)
            if kind.manner < DRIPS or self.slow * SLOW_PART < len(self.connections):
                break
        return kind

    cdef int count_answer(self, Py_ssize_t size) except -1:
        """Count an answer by the status in its first bytes; bytes that are no answer count as status 0."""
        cdef int status = 0
        self.received[size] = 0
        if size >= 12 and memcmp(self.received, b"HTTP/1.", 7) == 0:
            status = atoi(self.received + 9)
        self.statuses[status if 0 <= status < STATUSES else 0] += 1
        return 0

    def sweep(self):
        """Send the bytes that are due on slow connections, and end when the time is over."""
        cdef FloodConnection connection
        cdef long long at_ns = now_ns()
        for connection in self.connections:
            connection.drip(at_ns)
        self.open_due()

    @property
    def done(self):
        """The time is over."""
        return self.begins_ns != 0 and now_ns() >= self.ends_ns

    def stop(self):
        """End before the time is over."""
        self.ends_ns = min(self.ends_ns, now_ns())

    def finish(self):
        """Close everything."""
        cdef FloodConnection connection
        self.sending = False
        for connection in self.connections:
            if connection.descriptor >= 0:
                connection.end()
        self.poller.close()

    def snapshot(self):
        """What has happened so far, as JSON can hold it."""
        cdef int status
        return {
            "opened": self.opened,
            "open_now": self.open_now,
            "highest_open": self.highest_open,
            "closed_silently": self.closed_silently,
            "resets": self.resets,
            "failed": self.failed,
            "statuses": {str(status): self.statuses[status] for status in range(STATUSES) if self.statuses[status]},
        }
