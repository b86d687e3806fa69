"""Connections that proxies pass on, until their PROXY header is whole.

Theory of operation. At an address for proxies a ProxiedConnection is the first owner of an accepted socket's stream. A
peer that is none of the trusted proxies is closed before anything of it is read. When the header is whole, the stream
gets the client's address as its own and a next owner, which is opened then and does not know of the proxy: from there on
nothing of this is left. What is no header is closed without an answer, for whoever has sent it speaks another protocol.
"""

import asyncio

cimport cython

from gatewayx.core.counters cimport Counters
from gatewayx.core.deadlines cimport DeadlineWheel
from gatewayx.net.networks cimport CompactAddress, Networks, host_text
from gatewayx.net.proxy cimport ProxyHeader
from gatewayx.net.stream cimport SocketStream, Stream, StreamOwner

from gatewayx.net.proxy import ProxyError

# For Python.
globals().update(MOST_WAITING=<int> MOST_WAITING, LAST_CALL_S=<int> LAST_CALL_S)

cdef str UNTRUSTED = "a connection of none of the trusted proxies"
cdef str LATE = "a connection whose PROXY header is not whole in time"


@cython.final
cdef class ProxyServer:
    """PROXY headers for a process.

    wheel: where deadlines hang. counters: where refusals are counted. networks: whose connections are taken. timeout_s: for
    a whole header.
    """

    def __init__(
        self, DeadlineWheel wheel not None, Counters counters not None, Networks networks not None, double timeout_s
    ):
        self.wheel = wheel
        self.counted_in = counters
        self.counts = counters.row
        self.events = {}
        self.emptied = asyncio.Event()
        self.change(networks, timeout_s)

    def change(self, Networks networks not None, double timeout_s):
        """Be as if it had been made with these; connections that are there have the deadline that they have."""
        self.networks = networks
        self.timeout_s = timeout_s

    def before(self, factory not None, late_factory not None):
        """A factory of those who stand on accepted sockets.

        factory: of those who stand there once the header is whole; is told whether that passes somebody on without saying
        whom, so that the address is the proxy's and the words are not. late_factory: the same in a stop.
        """
        def make():
            return ProxiedConnection(self, factory, late_factory)

        return make

    def drain(self):
        """The stop has begun: a header that is not whole has LAST_CALL_S left, and so has that of a late connection."""
        cdef ProxiedConnection connection = self.first
        self.draining = True
        while connection is not None:
            self.wheel.arm(connection, LAST_CALL_S)
            connection = connection.next_waiting
        if self.waiting == 0:
            self.emptied.set()

    def abort(self):
        """Close at once all that wait."""
        cdef ProxiedConnection connection = self.first
        while connection is not None:
            connection._end()
            connection = self.first

    def counters(self):
        """What is held now, by name."""
        return {"waiting": self.waiting}

    def take_events(self):
        """What was refused since the last call: kind to (count, the first bytes of one example, its peer's host).

        The bytes are as they came: whoever shows them escapes them.
        """
        events, self.events = self.events, {}
        return {kind: tuple(event) for kind, event in events.items()}

    cdef int add(self, ProxiedConnection connection) except -1:
        cdef ProxiedConnection oldest = self.first
        if self.waiting >= MOST_WAITING:
            self.counts.connections_evicted += 1
            oldest._end()
        connection.is_waiting = True
        connection.previous_waiting = self.last
        if self.last is None:
            self.first = connection
        else:
            self.last.next_waiting = connection
        self.last = connection
        self.waiting += 1
        if self.draining:
            self.emptied.clear()
        return self.wheel.arm(connection, LAST_CALL_S if self.draining else self.timeout_s)

    cdef int remove(self, ProxiedConnection connection) except -1:
        if not connection.is_waiting:
            return 0
        connection.is_waiting = False
        if connection.previous_waiting is None:
            self.first = connection.next_waiting
        else:
            connection.previous_waiting.next_waiting = connection.next_waiting
        if connection.next_waiting is None:
            self.last = connection.previous_waiting
        else:
            connection.next_waiting.previous_waiting = connection.previous_waiting
        connection.previous_waiting = None
        connection.next_waiting = None
        self.waiting -= 1
        self.wheel.disarm(connection)
        if self.draining and self.waiting == 0:
            self.emptied.set()
        return 0

    cdef int note(self, str kind, const CompactAddress* peer, bytes example) except -1:
        cdef list event = <list> self.events.get(kind)
        if event is None:
            self.events[kind] = [1, example, host_text(peer) or ""]
        else:
            event[0] += 1
        return 0


@cython.final
cdef class ProxiedConnection(StreamOwner):
    """Stands on the socket until the header is whole, and never after."""

    def __init__(self, ProxyServer server not None, factory not None, late_factory not None):
        self.server = server
        self.factory = factory
        self.late_factory = late_factory

    cpdef int opened(self, Stream stream) except -1:
        cdef ProxyServer server = self.server
        self.stream = <SocketStream?> stream
        if not server.networks.contains(&self.stream.address):
            server.counts.proxies_untrusted += 1
            server.note(UNTRUSTED, &self.stream.address, b"")
            return self._end()
        return server.add(self)

    cdef int received(self, const char* data, Py_ssize_t size) except -1:
        cdef ProxyServer server = self.server
        cdef Py_ssize_t taken
        if self.header is None:
            self.header = ProxyHeader()
        try:
            taken = self.header.take(data, size)
        except ProxyError as error:
            server.counts.proxy_headers_refused += 1
            server.note(str(error), &self.stream.address, self.header.example(EXAMPLE_BYTES))
            return self._end()
        return self._pass_on(data + taken, size - taken) if self.header.is_complete else 0

    cdef int _pass_on(self, const char* data, Py_ssize_t size) except -1:
        # The stream calls its owner without a reference of its own, and holds another one from here on.
        cdef ProxiedConnection kept = self
        cdef SocketStream stream = self.stream
        cdef bint is_told = self.header.client.family != 0
        cdef StreamOwner owner = <StreamOwner?> (self.late_factory if self.server.draining else self.factory)(
            not is_told and not self.header.is_proxys_own
        )
        if is_told:
            stream.address = self.header.client
        self.stream = None
        stream.owner = owner
        try:
            owner.opened(stream)
        finally:
            # Before that a stop would not know that anybody is there.
            kept.server.remove(kept)
        if size == 0 or stream.closed:
            return 0
        if stream.paused:
            # Whoever is opened and wants none of it is given nothing more either.
            return stream.abort()
        return owner.received(data, size)

    cpdef bint ended(self) except? True:
        # A check that somebody listens, or a header that was cut: nobody is left who could be answered.
        return False

    cpdef int deadline_passed(self) except -1:
        cdef ProxyServer server = self.server
        if not server.draining:
            server.counts.proxy_headers_refused += 1
            server.note(LATE, &self.stream.address, b"" if self.header is None else self.header.example(EXAMPLE_BYTES))
        return self._end()

    cdef int _end(self) except -1:
        self.server.remove(self)
        return 0 if self.stream is None else self.stream.abort()

    cpdef int lost(self, error) except -1:
        self.stream = None
        return self.server.remove(self)

    cpdef int pause_writing(self) except -1:
        return 0

    cpdef int resume_writing(self) except -1:
        return 0
