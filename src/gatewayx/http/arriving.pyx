"""What a client has sent of its next request: the bytes, and their room.

A request that comes whole passes through; one that is cut is an arrival from its first piece to its last, and what is
here of it counts in the byte budget: the tail that the parser has not taken, the head, the body as its room grows.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE, _PyBytes_Resize
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.string cimport memcpy

from gatewayx.core.budget cimport BODIES, SMALL, SMALL_BYTES, Account, ByteBudget, account_for
from gatewayx.core.deadlines cimport DeadlineWheel
from gatewayx.http.clients cimport READING, Client
from gatewayx.http.idle cimport PACE_GRACE_S, PACE_S
from gatewayx.http.limits cimport Limits
from gatewayx.http.refusals cimport EXAMPLE_BYTES
from gatewayx.http.parser cimport RequestParser
from gatewayx.http.request cimport Request

from gatewayx.http.problems import TOO_MANY_BYTES

# Words for what the problem alone does not say.
TOO_SLOW_FOR_ROOM = "the gateway has little room left, and the request came too slowly for that; nothing was submitted"

from libc.math cimport fmax, fmin


@cython.final
@cython.freelist(64)
cdef class Unfinished:
    """What is known of a request that came in pieces; the .pxd says what each field means."""


cdef class ArrivingClient(Client):
    """A client's connection and what has come of its next request."""

    cdef int refuse(self, object problem, str detail, bytes data) except -1:
        raise NotImplementedError

    cdef int refuse_for_room(self, Request request) except -1:
        raise NotImplementedError

    # The tail.


    cdef int keep_tail(self, bytes data, Py_ssize_t offset, bint waits) except -1:
        """Keep what the parser has not taken, from the offset on, if the byte budget has room for it.

        waits: whole requests may be among it; else it is an unfinished line. What waits is taken up once for each answer
        that leaves, so it is copied only when half of it is of no use any more.
        """
        cdef Py_ssize_t size_bytes = PyBytes_GET_SIZE(data)
        if offset and (not waits or (size_bytes - offset) * 2 <= size_bytes):
            data = data[offset:]
            offset = 0
            size_bytes = PyBytes_GET_SIZE(data)
        # An unfinished line is part of a head or of a body's framing; what a pause leaves may be anything.
        cdef Account account = account_for(BODIES, size_bytes) if waits else SMALL
        cdef Unfinished parts = self.parts()
        if self.in_flight and size_bytes <= SMALL_BYTES:
            # A request that is under way frees more than this; each connection has one such piece.
            self.clients.room.budget.hold(&parts.tail_held, SMALL, size_bytes)
        elif not self.clients.room.take(self, &parts.tail_held, account, size_bytes):
            self.clients.room.budget.counts.budget_refused += 1
            return self.refuse(TOO_MANY_BYTES, None, data[offset : offset + EXAMPLE_BYTES])
        self.tail = data
        parts.tail_offset = offset
        self.tail_waits = waits
        return 0

    cdef bytes take_tail(self):
        cdef bytes tail = self.tail
        if tail is not None:
            self.clients.room.budget.release(&self.unfinished.tail_held)
        self.tail = None
        self.tail_waits = False
        return tail

    cdef bytes join_tail(self, const char* data, Py_ssize_t size):
        """What was kept and what came behind it; a line that comes byte by byte is not copied for each of them."""
        cdef PyObject* joined
        cdef Py_ssize_t offset = self.unfinished.tail_offset
        cdef bytes tail = self.take_tail()
        cdef bytes shared
        cdef Py_ssize_t kept_bytes
        if offset:
            tail = tail[offset:]
        kept_bytes = PyBytes_GET_SIZE(tail)
        if kept_bytes == 1:
            # Python shares the bytes objects of one byte.
            shared = tail
            tail = PyBytes_FromStringAndSize(NULL, 1 + size)
            PyBytes_AS_STRING(tail)[0] = PyBytes_AS_STRING(shared)[0]
        else:
            # With one reference, which is handed over, it is resized in place.
            joined = <PyObject*> tail
            Py_INCREF(tail)
            tail = None
            _PyBytes_Resize(&joined, kept_bytes + size)
            tail = <bytes> joined
            Py_DECREF(tail)
        memcpy(PyBytes_AS_STRING(tail) + kept_bytes, data, size)
        return tail

    cdef bytes tail_example(self):
        """The first bytes of what was kept."""
        if self.tail is None:
            return b""
        return self.tail[self.unfinished.tail_offset : self.unfinished.tail_offset + EXAMPLE_BYTES]

    cdef bint begins_nothing(self):
        """Whether what was kept is a lone CR: half an empty line, which begins no head (RFC 9112 2.2)."""
        return PyBytes_GET_SIZE(self.tail) == 1 and PyBytes_AS_STRING(self.tail)[0] == c"\r"

    cdef bint has_begun(self) noexcept:
        """Whether the request line of a request that is being read is complete."""
        return self.parser is not None and self.parser.begun()

    # Room for head and body.

    cdef bint admit(self, Request request, RequestParser parser) except -1:
        """Whether there is room for what is here of the request, and may be for the rest."""
        cdef ByteBudget budget = self.clients.room.budget
        cdef Unfinished parts = self.parts()
        if request.content_length > SMALL_BYTES and budget.crowded(BODIES):
            return False
        if not self.clients.room.take(self, &parts.head_held, SMALL, parser.head_bytes):
            return False
        return request.body_bytes == 0 or self.clients.room.take(
            self, &parts.body_held, account_for(BODIES, request.body_bytes), request.body_bytes
        )

    cdef Py_ssize_t body_room(self, Request request, Py_ssize_t needed_bytes, Py_ssize_t wanted_bytes) except -1:
        cdef ByteBudget budget = self.clients.room.budget
        cdef Unfinished parts = self.parts()
        # A chunked body shows only now that it is large; a sized one has shown it by its head.
        if request.chunked and needed_bytes > SMALL_BYTES and parts.body_held.account == SMALL and budget.crowded(BODIES):
            return 0
        if not budget.resize(&parts.body_held, account_for(BODIES, wanted_bytes), wanted_bytes):
            if not self.clients.room.take(self, &parts.body_held, account_for(BODIES, needed_bytes), needed_bytes):
                return 0
            wanted_bytes = needed_bytes
        self.tell_arrival()
        return wanted_bytes

    cdef int end_arrival(self) except -1:
        cdef Request request = None if self.parser is None else self.parser.request
        if request is None or request.owner is None or request.answered() or self.tail is not None:
            # Half a head or half a line is given up with its connection: what follows could not be told apart.
            self.clients.room.budget.counts.budget_refused += 1
            return self.refuse(TOO_MANY_BYTES, None, self.tail_example())
        self.parser.drop_body()
        return self.refuse_for_room(request)

    cdef int end_slow_arrival(self) except -1:
        cdef bytes shown = self.tail_example()
        if self.parser is not None and self.parser.head_done:
            shown = self.parser.request.path or b""
        return self.refuse(TOO_MANY_BYTES, TOO_SLOW_FOR_ROOM, shown)

    cdef int drop_parser(self) except -1:
        if self.parser is not None:
            self.parser.release()
            self.parser = None
        return self.let_arrival_go()

    # The arrival.

    cdef int follow_arrival(self) except -1:
        """Know an unfinished request from its first piece on, and count what is here of its head."""
        cdef bytes sender
        if self.state != READING or (
            not self.has_begun() and (self.tail is None or self.read_paused or self.begins_nothing())
        ):
            return self.forget_arrival()
        if self.arrival is None:
            sender = self.sender_of(None if self.parser is None else self.parser.request)
            self.arrival = self.clients.room.arrivals.add(self, sender, self.clients.wheel.tick)
            if sender is self.address:
                # One object serves all connections of an address: ten thousand half heads are paid for by each byte.
                self.address = self.arrival.sender.address
        if self.parser is not None and not self.parser.head_done:
            self.parts()
            if not self.clients.room.take(self, &self.unfinished.head_held, SMALL, self.parser.head_bytes):
                self.clients.room.budget.counts.budget_refused += 1
                return self.refuse(TOO_MANY_BYTES, None, self.tail_example())
        return self.tell_arrival()

    cdef int tell_arrival(self) except -1:
        cdef long long[2] held
        if self.arrival is None:
            return 0
        held[SMALL] = 0
        held[BODIES] = 0
        if self.unfinished is not None:
            held[SMALL] += self.unfinished.head_held.size_bytes
            held[self.unfinished.body_held.account] += self.unfinished.body_held.size_bytes
            held[self.unfinished.tail_held.account] += self.unfinished.tail_held.size_bytes
        self.clients.room.arrivals.tell_held(self.arrival, SMALL, held[SMALL])
        return self.clients.room.arrivals.tell_held(self.arrival, BODIES, held[BODIES])

    cdef int forget_arrival(self) except -1:
        if self.arrival is not None:
            self.clients.room.arrivals.remove(self.arrival)
            self.arrival = None
        return 0

    cdef int let_arrival_go(self) except -1:
        """Head and body of the request being read are gone, or in other hands."""
        if self.unfinished is not None:
            self.clients.room.budget.release(&self.unfinished.head_held)
            self.clients.room.budget.release(&self.unfinished.body_held)
        return self.tell_arrival()

    cdef bint arrives_slowly(self, Account account) noexcept:
        cdef DeadlineWheel wheel = self.clients.wheel
        cdef double passed_s
        cdef Request request
        cdef double size_bytes
        if account == SMALL:
            # It stands still: that is why it is asked.
            return not self.read_paused
        if self.parser is None or not self.parser.head_done or self.read_paused:
            return False
        passed_s = (wheel.tick - self.unfinished.body_began_tick) * wheel.tick_s
        if passed_s <= PACE_GRACE_S:
            return False
        request = self.parser.request
        size_bytes = self.clients.limits.max_body_bytes if request.chunked else request.content_length
        return not request.continue_due and self.unfinished.body_bytes < size_bytes * passed_s / PACE_S

    cdef double body_left_s(self) noexcept:
        """Seconds in which the next byte must come: none for long, or all of them too slow."""
        cdef Limits limits = self.clients.limits
        cdef DeadlineWheel wheel = self.clients.wheel
        cdef double allowed_s
        if not limits.min_body_rate_bytes:
            return limits.body_timeout_s
        allowed_s = fmax(limits.body_rate_grace_s, <double> self.unfinished.body_bytes / limits.min_body_rate_bytes)
        return fmin(limits.body_timeout_s, allowed_s - (wheel.tick - self.unfinished.body_began_tick) * wheel.tick_s)
