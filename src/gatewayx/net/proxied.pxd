"""Connections that proxies pass on, until their PROXY header is whole."""

from gatewayx.core.counters cimport Counters, Counts
from gatewayx.core.deadlines cimport DeadlineWheel
from gatewayx.core.turns cimport Flag
from gatewayx.net.networks cimport CompactAddress, Networks
from gatewayx.net.proxy cimport ProxyHeader
from gatewayx.net.stream cimport SocketStream, StreamOwner

cdef enum:
    # Connections whose header is not whole, of which each holds a ProxyHeader: the oldest makes room for a further one.
    MOST_WAITING = 1024
    # What is shown of a header that is none.
    EXAMPLE_BYTES = 64
    # In a stop, so long for what is left of a header: as long as clients have that had waited to be accepted.
    LAST_CALL_S = 1


cdef class ProxyServer:
    cdef DeadlineWheel wheel
    # Whose connections these may be.
    cdef readonly Networks networks
    # Seconds for a whole header.
    cdef double timeout_s
    # Those whose header is not whole, the oldest first, and how many.
    cdef ProxiedConnection first
    cdef ProxiedConnection last
    cdef readonly Py_ssize_t waiting
    # What was refused since it was asked for, as Refusals.take_events() has it; the kinds are those of ProxyError and one more.
    cdef dict events
    # The stop has begun; and an asyncio.Event, set from then on while no header is waited for.
    cdef bint draining
    cdef readonly object emptied
    # Keeps the row alive to which `counts` points.
    cdef Counters counted_in
    cdef Counts* counts

    cdef int add(self, ProxiedConnection connection) except -1
    # Nothing happens if it is gone already.
    cdef int remove(self, ProxiedConnection connection) except -1
    cdef int note(self, str kind, const CompactAddress* peer, bytes example) except -1


cdef class ProxiedConnection(StreamOwner):
    """Stands on the socket until the header is whole, and never after."""
    cdef ProxyServer server
    # Makes who stands on the socket then; and the same in a stop.
    cdef object factory
    cdef object late_factory
    # None before it is opened, and once it is gone or has its next owner.
    cdef SocketStream stream
    # What has come of the header; None before the first byte.
    cdef ProxyHeader header
    # Its neighbours among those that wait.
    cdef ProxiedConnection previous_waiting
    cdef ProxiedConnection next_waiting
    cdef Flag is_waiting

    # The header is whole, and so many bytes have come behind it.
    cdef int _pass_on(self, const char* data, Py_ssize_t size) except -1
    cdef int _end(self) except -1
