"""Who waits for a refusal, and what was refused.

A flood of malformed or late requests is answered slowly: the first ones of each tick at once, the others after a delay
that costs a client who waits for each answer most of its speed. Nothing of it is logged line by line: a kind is counted
and shown by one example.
"""

import collections
import re
import socket

cimport cython

from gatewayx.core.counters cimport Counters
from gatewayx.core.deadlines cimport DeadlineWheel
from gatewayx.http.request cimport Request
from gatewayx.http.response cimport RetryAfter

from libc.math cimport fmax


cdef bytes RETRY_AFTER = b"Retry-After: "
# What comes before a secret: the header's name, a scheme, a parameter, the beginning of a token.
cdef object SECRET = re.compile(rb"authorization|bearer|basic |cookie|token=|gwx_", re.IGNORECASE)


cdef class Refusable(RequestOwner):
    """A client whose refusal may have to wait."""

    cdef int refusal_due(self) except -1:
        raise NotImplementedError

    cdef str peer_host(self):
        raise NotImplementedError


@cython.final
cdef class Refusals:
    """All refusals of a process. loop: the event loop. wheel: tells the tick. counters: where they are counted."""

    def __init__(self, loop, DeadlineWheel wheel not None, Counters counters not None):
        self.counted_in = counters
        self.counts = counters.row
        self.loop = loop
        self.wheel = wheel
        self.retry_after = RetryAfter(loop.time)
        self.events = {}
        self.waiting = collections.deque()

    def take_events(self):
        """What was refused since the last call: kind to (count, the first bytes of one example, its peer's host).

        The bytes are as they came: whoever shows them escapes them.
        """
        events, self.events = self.events, {}
        return {kind: tuple(event) for kind, event in events.items()}

    cdef int note(self, str kind, Refusable client, bytes data, Request request) except -1:
        cdef list event = <list> self.events.get(kind)
        cdef str host
        if event is None:
            host = client.peer_host()
            if request is not None and request.proxy_note is not None and request.proxy_note.host is not None:
                host = request.proxy_note.host.decode("ascii")
            self.events[kind] = [1, _without_secrets(data[:EXAMPLE_BYTES]), host]
        else:
            event[0] += 1
        return 0

    cdef bytes headers(self, object problem, bytes headers):
        if headers is None:
            headers = problem.headers
        if problem.status != 503 and problem.status != 429:
            return headers
        if headers is not None and RETRY_AFTER in headers:
            # Whoever refuses knows how long it takes.
            return headers
        return self.retry_after.line(problem.kind) if headers is None else headers + self.retry_after.line(problem.kind)

    cdef bint must_wait(self, Refusable client) except -1:
        cdef Py_ssize_t waiting = len(self.waiting)
        if self.wheel.tick != self.last_tick:
            self.last_tick = self.wheel.tick
            self.in_tick = 0
        self.in_tick += 1
        if self.in_tick <= PROMPT_REFUSALS or waiting >= MAX_WAITING_REFUSALS:
            return False
        self.counts.refusals_delayed += 1
        client.refusal_due_s = self.loop.time() + REFUSAL_DELAY_MS / 1000.0
        self.waiting.append(client)
        if not self.scheduled:
            self.scheduled = True
            self.loop.call_later(REFUSAL_DELAY_MS / 1000.0, self._answer_waiting)
        return True

    def _answer_waiting(self):
        """Write the refusals whose time has come, and come again for the others."""
        cdef double now_s = self.loop.time()
        cdef double due_s
        cdef int answered = 0
        try:
            while answered < REFUSALS_PER_TURN and self.waiting:
                if (<Refusable> self.waiting[0]).refusal_due_s > now_s:
                    break
                answered += 1
                (<Refusable> self.waiting.popleft()).refusal_due()
        finally:
            self.scheduled = len(self.waiting) > 0
            if self.scheduled:
                due_s = (<Refusable> self.waiting[0]).refusal_due_s
                if due_s > now_s:
                    self.loop.call_later(fmax(due_s - now_s, REFUSAL_TICK_MS / 1000.0), self._answer_waiting)
                else:
                    self.loop.call_soon(self._answer_waiting)


cdef bytes _without_secrets(bytes example):
    """The example up to where a secret may begin: what a client says of itself to be let in is nobody's to read in a log."""
    found = SECRET.search(example)
    return example if found is None else example[: found.end()] + b"..."


cdef bytes address_key(peer):
    if peer is None:
        return None
    host = peer[0]
    if ":" in host:
        return socket.inet_pton(socket.AF_INET6, host.partition("%")[0])[:8]
    return host.encode("ascii")
