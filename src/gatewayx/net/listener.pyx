"""Accepts connections in bounded batches, and survives the want of descriptors.

A listening socket is watched level-triggered: what a turn leaves comes again in the next. When the process or the machine
has no descriptor left, that would be for ever, so the socket is not watched until resume(). If there is still none after
PATIENCE_NS, connections are turned away: one descriptor is held in reserve, and is given up to accept the connection and close it.
"""

import logging
import os

cimport cython
from libc.errno cimport EAGAIN, EMFILE, ENFILE, ENOBUFS, ENOMEM, errno

from gatewayx.core.clock cimport now_ns
from gatewayx.core.counters cimport Counters
from gatewayx.net.poller cimport Polled, TurnPoller
from gatewayx.net.sockets cimport CompactAddress, accept_connection, disconnect, open_nothing
from gatewayx.net.stream cimport SocketStream
from gatewayx.net.tls cimport ENOUGH_IN_LINE, HandshakeLine

logger = logging.getLogger("gatewayx")


@cython.final
cdef class Listener(Polled):
    """Accepts the connections of a socket that listens, non-blocking, which is the listener's from here on.

    poller: the process's. bound: the socket. factory: makes the owner of an accepted connection's stream. counters:
    where connections are counted that could not be served. line: where their TLS handshakes wait; None for no TLS. What
    is set on the socket the kernel sets for each connection (tcp(7)). Raises OSError if it cannot be watched.
    """

    def __init__(self, TurnPoller poller not None, bound, factory, Counters counters not None, HandshakeLine line=None):
        self.poller = poller
        self.line = line
        self.counted_in = counters
        self.counts = counters.row
        self.bound = bound
        self.descriptor = bound.fileno()
        self.factory = factory
        self.spare = open_nothing()
        if poller.add_listening(self.descriptor, self) < 0:
            error = errno
            if self.spare >= 0:
                disconnect(self.spare)
            raise OSError(error, os.strerror(error))

    def resume(self):
        """Accept again after a want of descriptors or memory; nothing happens if there was none."""
        if not self.waits:
            return
        self.turns_away = self.wants_since_ns != 0 and now_ns() - self.wants_since_ns >= PATIENCE_NS
        if self.spare < 0:
            self.spare = open_nothing()
        if self.poller.add_listening(self.descriptor, self) == 0:
            self.waits = False

    def stop(self):
        """Accept no more by itself; the kernel still lets connections in, for accept_waiting() to take."""
        self.waits = False
        self.poller.remove_open(self.descriptor, self)
        if self.spare >= 0:
            disconnect(self.spare)
            self.spare = -1

    def accept_waiting(self, factory):
        """Accept one connection that waits, for the owner that `factory` makes; whether there was one.

        Raises OSError.
        """
        cdef CompactAddress peer
        cdef SocketStream stream
        cdef int accepted = accept_connection(self.descriptor, &peer)
        if accepted >= 0:
            stream = self._take(accepted, &peer, factory)
            if stream is not None:
                # What its client has sent is read in the next turn, without waiting for an event.
                stream.readable = True
                self.poller.add_ready(stream)
            return True
        if errno == EAGAIN:
            return False
        raise OSError(errno, os.strerror(errno))

    def close(self):
        """Listen no more; the kernel resets the connections that wait."""
        if self.bound is not None:
            self.stop()
            self.bound.close()
            self.bound = None
            self.descriptor = -1

    cdef int handle(self, unsigned int events) except -1:
        return self.poller.add_accepting(self)

    cdef int left(self) except -1:
        # The turn is over in which connections waited.
        return 0 if self.place < 0 else self._accept()

    cdef int failed(self) except -1:
        logger.exception("an accepted connection could not be begun")
        return 0

    cdef int _accept(self) except -1:
        cdef CompactAddress peer
        cdef int accepted
        for _ in range(ACCEPTS_PER_TURN):
            if self.line is not None and self.line.count >= ENOUGH_IN_LINE:
                # The line has a turn of its own, after which this is told again.
                break
            accepted = accept_connection(self.descriptor, &peer)
            if accepted >= 0:
                self.turns_away = False
                self.wants_since_ns = 0
                self.failures = 0
                self._take(accepted, &peer, self.factory)
            elif errno == EAGAIN:
                break
            elif errno == EMFILE or errno == ENFILE:
                if self.wants_since_ns == 0:
                    self.wants_since_ns = now_ns()
                if not self.turns_away:
                    return self._wait()
                if not self._turn_away():
                    # Nobody waits any more: with an empty queue it is the same error.
                    return self._wait() if self.spare < 0 else 0
            elif errno == ENOBUFS or errno == ENOMEM:
                return self._wait()
            else:
                # Any other error is that connection's alone (accept(2)), unless there is nothing else.
                self.failures += 1
                if self.failures >= MOST_FAILURES:
                    self.failures = 0
                    return self._wait()
        return 0

    cdef SocketStream _take(self, int accepted, const CompactAddress* peer, factory):
        """Make a stream of an accepted connection; None if it had to be closed."""
        cdef SocketStream stream = None
        try:
            stream = SocketStream(self.poller, accepted, factory())
            stream.address = peer[0]
            if self.poller.add(accepted, stream) < 0:
                # The machine has no memory to watch it, or its user no watch left (epoll_ctl(2)).
                disconnect(accepted)
                self.counts.connections_unserved += 1
                return None
            stream.owner.opened(stream)
        except BaseException:
            if stream is None or stream.place < 0:
                disconnect(accepted)
            else:
                stream.abort()
            raise
        return stream

    cdef bint _turn_away(self) except -1:
        """Close a connection for which there is no descriptor; False if there is none, or not even that can be done."""
        cdef CompactAddress peer
        cdef int accepted
        if self.spare < 0:
            return False
        disconnect(self.spare)
        accepted = accept_connection(self.descriptor, &peer)
        if accepted >= 0:
            disconnect(accepted)
            self.counts.connections_unserved += 1
        self.spare = open_nothing()
        return accepted >= 0 and self.spare >= 0

    cdef int _wait(self) except -1:
        self.waits = True
        self.poller.remove_open(self.descriptor, self)
        return 0
