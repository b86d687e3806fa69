"""The clients' side of the process, and one client's connection.

Theory of operation. Requests are parsed one at a time and begun at once, so the jobs of pipelined requests run
together; the answers are written in the order of the requests (RFC 9112 9.3.2), all that are ready in one loop turn
with one write. A connection whose unwritten answers reach the bound, or whose client does not read them, is not read
from: what waits then is in the kernel's buffers, and the client feels it.

What is held for clients counts in the byte budget: heads and bodies as they come, bytes that wait to be read, answers
until the kernel has them. Whoever needs room that is not there ends the youngest unfinished request of the sender who
holds most; while an account is crowded, who is slow is ended (`relieve`). Nobody waits for anybody's room.

A connection ends with its last answer: after `Connection: close`, after a request that was refused since its framing
is in doubt, while draining. Then it lingers, so that the client can read the answer.

    READING -> ANSWERING -> LINGERING -> CLOSED    (any state may go straight to CLOSED)
"""

import asyncio
import collections
import logging
import socket

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_Concat, PyBytes_GET_SIZE
from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF

from gatewayx.core.budget cimport BODIES, RESULTS, SMALL, SMALL_BYTES, Account, ByteBudget, Held, account_for
from gatewayx.core.deadlines cimport DeadlineWheel
from gatewayx.http.arrivals cimport Arrival, Arrivals
from gatewayx.http.limits cimport Limits
from gatewayx.http.parser cimport Event, RequestParser
from gatewayx.http.request cimport METHOD_HEAD, Request, RequestHandler, RequestOwner
from gatewayx.http.response cimport INLINE_BODY_BYTES, ResponseBuilder, RetryAfter, problem_body

from gatewayx.http.problems import (
    BODY_TOO_SLOW,
    HEAD_TOO_SLOW,
    INTERNAL_ERROR,
    STOPPING,
    TOO_MANY_BYTES,
    TOO_MANY_CONNECTIONS,
    TOO_MANY_CONNECTIONS_PER_ADDRESS,
    RequestError,
)
from gatewayx.http.response import CONTINUE, PROBLEM_CONTENT_TYPE

from libc.math cimport fmax, fmin

cdef extern from "sys/ioctl.h" nogil:
    int ioctl(int descriptor, unsigned long request, ...)
    enum:
        FIONREAD
        TIOCOUTQ

logger = logging.getLogger("gatewayx.http")

# Words for what the problem alone does not say.
TOO_SLOW_FOR_ROOM = "the gateway has little room left, and the request came too slowly for that; nothing was submitted"
PLACE_NEEDED = (
    "as many connections are open as may be, and of this request nothing came for longest; nothing was submitted"
)


@cython.final
cdef class ConnectionList:
    """Connections in the order in which they came to it."""

    cdef int append(self, HttpConnection connection) except -1:
        connection.place = self
        connection.previous_in_place = self.last
        if self.last is None:
            self.first = connection
        else:
            self.last.next_in_place = connection
        self.last = connection
        return 0

    cdef int remove(self, HttpConnection connection) except -1:
        if connection.previous_in_place is None:
            self.first = connection.next_in_place
        else:
            connection.previous_in_place.next_in_place = connection.next_in_place
        if connection.next_in_place is None:
            self.last = connection.previous_in_place
        else:
            connection.next_in_place.previous_in_place = connection.previous_in_place
        connection.place = None
        connection.previous_in_place = None
        connection.next_in_place = None
        return 0


@cython.final
cdef class HttpServer:
    """All client connections of a process; `connection` is the protocol factory for the loop's create_server().

    loop: the event loop. wheel: where the connections' deadlines hang. limits: bounds on each client.
    handler: knows what requests mean. builder: makes responses. budget: where what is held for clients is counted.
    """

    def __init__(
        self,
        loop,
        DeadlineWheel wheel not None,
        Limits limits not None,
        RequestHandler handler not None,
        ResponseBuilder builder not None,
        ByteBudget budget not None,
    ):
        self.loop = loop
        self.wheel = wheel
        self.limits = limits
        self.body_linger_bytes = max(<long long> BODY_LINGER_BYTES, BODY_LINGER_BODIES * limits.max_body_bytes)
        self.handler = handler
        self.builder = builder
        self.budget = budget
        self.retry_after = RetryAfter(loop.time)
        self.arrivals = Arrivals()
        self.unread = {}
        self.addresses = {}
        self.events = {}
        self.connections = set()
        self.dropping = ConnectionList()
        self.lingering = ConnectionList()
        self.idle = ConnectionList()
        self.dirty = []
        self.idle_parsers = []
        self.waiting_refusals = collections.deque()
        self.emptied = asyncio.Event()

    def connection(self):
        """A protocol for one accepted socket."""
        return HttpConnection(self)

    def late_connection(self):
        """A protocol for a socket that had waited to be accepted when the stop began.

        Its client may have sent its request already, and a close would reset it: one request is served, whose answer
        says `Connection: close`, also while draining. If LAST_CALL_S pass without a byte the connection is closed
        silently. `emptied` is not set, or no longer, while it is open: accept first, then wait.
        """
        cdef HttpConnection connection = HttpConnection(self)
        connection.late = True
        return connection

    def drain(self):
        """No more requests: answer what has begun, and close each connection once its client has its last answer."""
        self.draining = True
        for connection in list(self.connections):
            (<HttpConnection> connection).begin_drain()
        if not self.connections:
            self.emptied.set()

    def refuse_unfinished(self):
        """Answer requests that are still arriving with 503, and close connections whose clients have sent nothing."""
        for connection in list(self.connections):
            (<HttpConnection> connection).refuse_unfinished()

    def abort(self):
        """Close all connections at once."""
        for connection in list(self.connections):
            (<HttpConnection> connection).abort()

    def counters(self):
        """What is held now and was counted since the start, by name."""
        return {
            "connections": len(self.connections),
            "refused_connections": self.refused_connections,
            "body_lingerers": self.body_lingerers,
            "waiting_refusals": len(self.waiting_refusals),
            "addresses": len(self.addresses),
            "arrivals": self.arrivals.count,
            "senders": len(self.arrivals.senders),
            "unread_connections": len(self.unread),
            "requests_in_flight": self.requests_in_flight,
            "idle_parsers": len(self.idle_parsers),
            "connections_accepted": self.connections_accepted,
            "connections_refused": self.connections_refused,
            "connections_evicted": self.connections_evicted,
            "arrivals_ended": self.arrivals_ended,
            "answers_ended": self.answers_ended,
            "requests_answered": self.requests_answered,
            "requests_refused": self.requests_refused,
            "refusals_delayed": self.refusals_delayed,
            "requests_abandoned": self.requests_abandoned,
            "writes_timed_out": self.writes_timed_out,
        }

    def take_events(self):
        """What was refused since the last call: kind to (count, the first bytes of one example, its peer's host).

        The bytes are as they came: whoever shows them escapes them.
        """
        events, self.events = self.events, {}
        return {kind: tuple(event) for kind, event in events.items()}

    cdef int note(self, str kind, HttpConnection connection, bytes data) except -1:
        cdef list event = <list> self.events.get(kind)
        if event is None:
            peer = connection.transport.get_extra_info("peername")
            self.events[kind] = [1, data[:EXAMPLE_BYTES], peer[0] if peer else ""]
        else:
            event[0] += 1
        return 0

    cdef bytes problem_headers(self, object problem, bytes headers):
        if headers is None:
            headers = problem.headers
        if problem.status != 503 and problem.status != 429:
            return headers
        return self.retry_after.line(problem.kind) if headers is None else headers + self.retry_after.line(problem.kind)

    cdef bint refusal_waits(self, HttpConnection connection) except -1:
        cdef Py_ssize_t waiting = len(self.waiting_refusals)
        if self.wheel.tick != self.refusal_tick:
            self.refusal_tick = self.wheel.tick
            self.refusals_in_tick = 0
        self.refusals_in_tick += 1
        if self.refusals_in_tick <= PROMPT_REFUSALS or waiting >= MAX_WAITING_REFUSALS:
            return False
        self.refusals_delayed += 1
        connection.refusal_due_s = self.loop.time() + REFUSAL_DELAY_MS / 1000.0
        self.waiting_refusals.append(connection)
        if not self.refusals_scheduled:
            self.refusals_scheduled = True
            self.loop.call_later(REFUSAL_DELAY_MS / 1000.0, self._answer_waiting)
        return True

    def _answer_waiting(self):
        """Write the refusals whose time has come, and come again for the others."""
        cdef double now_s = self.loop.time()
        cdef double due_s
        cdef int answered = 0
        try:
            while answered < REFUSALS_PER_TURN and self.waiting_refusals:
                if (<HttpConnection> self.waiting_refusals[0]).refusal_due_s > now_s:
                    break
                answered += 1
                (<HttpConnection> self.waiting_refusals.popleft()).refusal_due()
        finally:
            self.refusals_scheduled = len(self.waiting_refusals) > 0
            if self.refusals_scheduled:
                due_s = (<HttpConnection> self.waiting_refusals[0]).refusal_due_s
                if due_s > now_s:
                    self.loop.call_later(fmax(due_s - now_s, REFUSAL_TICK_MS / 1000.0), self._answer_waiting)
                else:
                    self.loop.call_soon(self._answer_waiting)

    cdef object refusal(self, HttpConnection connection):
        cdef Limits limits = self.limits
        if self.draining and not connection.late:
            return STOPPING
        if limits.max_connections_per_address:
            connection.address = _address_key(connection.transport.get_extra_info("peername"))
            if self.addresses.get(connection.address, 0) >= limits.max_connections_per_address:
                connection.address = None
                return TOO_MANY_CONNECTIONS_PER_ADDRESS
        if len(self.connections) - self.refused_connections >= limits.max_connections and not self.make_room():
            connection.address = None
            return TOO_MANY_CONNECTIONS
        return None

    cdef bint make_room(self) except -1:
        # A reference of our own: it leaves the list, which may hold the last one.
        cdef HttpConnection least = self.dropping.first
        if least is None:
            least = self.lingering.first
        if least is None:
            least = self._idlest()
        if least is None:
            least = self._stillest()
        if least is None:
            return False
        self.connections_evicted += 1
        least.evict()
        return True

    cdef HttpConnection _idlest(self):
        """The connection that is idle for longest, those aside whose next request has come and is not read yet."""
        cdef HttpConnection connection = self.idle.first
        cdef int looked_at = 0
        while connection is not None and looked_at < MAX_LOOKED_AT:
            if not connection._queued_bytes(FIONREAD):
                return connection
            connection = connection.next_in_place
            looked_at += 1
        return None

    cdef HttpConnection _stillest(self):
        """The connection in whose unfinished head or body no byte has come for longest, at least STILL_S; None for none.

        One that the gateway reads no more is not still by its client's fault, and one that has other requests under way
        would take their answers with it.
        """
        cdef HttpConnection connection
        cdef Arrival arrival = self.arrivals.stillest
        cdef long long still_tick = self._ticks_ago(STILL_S)
        while arrival is not None and arrival.moved_tick <= still_tick:
            connection = <HttpConnection> arrival.owner
            if not connection.read_paused and (
                connection.first is None or not (connection.first.complete or connection.first.answered())
            ):
                return connection
            arrival = arrival.later
        return None

    cdef long long _ticks_ago(self, double seconds) noexcept:
        return self.wheel.tick - <long long> (seconds / self.wheel.tick_s)

    cpdef int relieve(self, int most) except -1:
        """End at most so many of those that are too slow for the room that is left; returns how many were ended."""
        cdef int ended = 0
        if self.budget.crowded(SMALL):
            ended += self._end_still(most)
            ended += self._end_slow_readers(SMALL, most - ended)
        if self.budget.crowded(BODIES):
            ended += self._end_slow_bodies(most - ended)
        if self.budget.crowded(RESULTS):
            ended += self._end_slow_readers(RESULTS, most - ended)
        return ended

    cdef int _end_still(self, int most) except -1:
        """Small unfinished heads and bodies of which no byte has come for STILL_S."""
        cdef Arrival arrival = self.arrivals.stillest
        cdef Arrival later
        cdef HttpConnection connection
        cdef long long still_tick = self._ticks_ago(STILL_S)
        cdef int ended = 0
        while arrival is not None and arrival.moved_tick <= still_tick and ended < most and self.budget.crowded(SMALL):
            later = arrival.later
            connection = <HttpConnection> arrival.owner
            if arrival.held[SMALL] > 0 and not connection.read_paused:
                connection._refuse(TOO_MANY_BYTES, TOO_SLOW_FOR_ROOM, connection._tail_example())
                self.arrivals_ended += 1
                ended += 1
            arrival = later
        return ended

    cdef int _end_slow_bodies(self, int most) except -1:
        """Bodies that do not keep the pace."""
        cdef Arrival arrival = self.arrivals.stillest
        cdef Arrival later
        cdef HttpConnection connection
        cdef int ended = 0
        while arrival is not None and ended < most and self.budget.crowded(BODIES):
            later = arrival.later
            connection = <HttpConnection> arrival.owner
            if arrival.held[BODIES] > 0 and connection.is_behind():
                connection._refuse(TOO_MANY_BYTES, TOO_SLOW_FOR_ROOM, connection.parser.request.path or b"")
                self.arrivals_ended += 1
                ended += 1
            arrival = later
        return ended

    cdef int _end_slow_readers(self, Account account, int most) except -1:
        """Connections whose clients take their answers too slowly."""
        cdef HttpConnection connection
        cdef int ended = 0
        for item in list(self.unread):
            if ended >= most or not self.budget.crowded(account):
                break
            connection = <HttpConnection> item
            if connection.answers_held.account == account and connection.reads_behind(account):
                self.note("answer-read-too-slowly", connection, b"")
                self.answers_ended += 1
                connection.abort()
                # The transport drops what it was given; it tells of its end in the next turn of the loop.
                connection._left()
                ended += 1
        return ended


    cdef RequestParser take_parser(self):
        if self.idle_parsers:
            return <RequestParser> self.idle_parsers.pop()
        return RequestParser(self.limits, self.handler)

    cdef int give_back_parser(self, RequestParser parser) except -1:
        if len(self.idle_parsers) < MAX_IDLE_PARSERS:
            self.idle_parsers.append(parser)
        else:
            parser.release()
        return 0

    cdef int mark_dirty(self, HttpConnection connection) except -1:
        if not self.dirty:
            self.loop.call_soon(self._flush)
        self.dirty.append(connection)
        return 0

    def _flush(self):
        cdef list dirty = self.dirty
        cdef HttpConnection connection
        self.dirty = []
        for item in dirty:
            connection = <HttpConnection> item
            try:
                connection.flush()
            except Exception:
                # The loop may know of the connection's end before it has told.
                if connection.transport is not None and not connection.transport.is_closing():
                    logger.exception("a connection could not be written to")
                connection.abort()


@cython.final
cdef class HttpConnection(RequestOwner):
    """One client; an asyncio protocol."""

    def __init__(self, HttpServer server not None):
        self.server = server
        self.head_left_s = -1

    # What the loop calls.

    def connection_made(self, transport):
        cdef HttpServer server = self.server
        self.transport = transport
        # The client counts as not reading as soon as the kernel takes no more bytes for it.
        transport.set_write_buffer_limits(high=0)
        if self.late:
            server.emptied.clear()
        refusal = server.refusal(self)
        if refusal is not None:
            server.connections_refused += 1
            self._refuse_connection(refusal)
            return
        server.connections_accepted += 1
        server.connections.add(self)
        if self.address is not None:
            server.addresses[self.address] = server.addresses.get(self.address, 0) + 1
        self._arm(FIRST_BYTE)

    def data_received(self, bytes data):
        if self.state == READING:
            if self.arrival is not None:
                self.server.arrivals.moved(self.arrival, self.server.wheel.tick)
            if self.parser is not None and self.parser.head_done:
                self.body_bytes += PyBytes_GET_SIZE(data)
                if self.deadline_kind == BODY:
                    # A byte has come: its deadline begins anew.
                    self.deadline_kind = NO_DEADLINE
            if self.tail is not None:
                data = self._join_tail(data)
            if self.read_paused:
                self._keep_tail(data, 0, True)
                return
            self._process(data, 0)
            return
        self.dropped_bytes += PyBytes_GET_SIZE(data)
        self.dropped_tick = self.server.wheel.tick
        if self.dropped_bytes > LINGER_BYTES:
            self._dropped_much()

    def eof_received(self):
        # The client has hung up; what is ready may still reach one that only closed its sending side.
        if self.state == READING or self.state == ANSWERING:
            self.flush()
            self._drop_requests()
        if self.deadline_kind != WRITE:
            self._arm(NO_DEADLINE)
        self.state = CLOSED
        self._follow_arrival()

    def connection_lost(self, error):
        self.state = CLOSED
        self._drop_requests()
        self._drop_parser()
        self._arm(NO_DEADLINE)
        self._take_tail()
        self._left()
        self._follow_arrival()
        self.transport = None
        self.server.connections.discard(self)
        if self.refused:
            self.refused = False
            self.server.refused_connections -= 1
        if self.drops_body:
            self.drops_body = False
            self.server.body_lingerers -= 1
        if self.address is not None:
            self._forget_address()
        if self.server.draining and not self.server.connections:
            self.server.emptied.set()

    def _forget_address(self):
        left = self.server.addresses[self.address] - 1
        if left:
            self.server.addresses[self.address] = left
        else:
            del self.server.addresses[self.address]
        self.address = None

    def pause_writing(self):
        self.write_paused = True
        self.paused_tick = self.server.wheel.tick
        self.server.unread[self] = None
        self.unread_began_tick = self.paused_tick
        self.unread_moved_tick = self.paused_tick
        self.unread_began_bytes = self._delivered()
        self.unread_seen_bytes = self.unread_began_bytes
        self._update_reading()
        self._arm(WRITE)

    def resume_writing(self):
        self.write_paused = False
        self.body_began_tick += self.server.wheel.tick - self.paused_tick
        self._left()
        if self.state == LINGERING:
            self._arm(LINGER)
        elif self.state != CLOSED:
            self._arm(NO_DEADLINE)
            self._update_reading()
            self._arm_for_reading()

    # Reading.

    cdef int _process(self, bytes data, Py_ssize_t offset) except -1:
        """Read requests in data from the offset on, and keep what is left."""
        cdef bint waits = False
        cdef Py_ssize_t end = PyBytes_GET_SIZE(data)
        cdef RequestParser parser
        cdef Request request
        while offset < end and self.state == READING:
            parser = self.parser
            if parser is None:
                if self.in_flight >= self.max_in_flight():
                    waits = True
                    break
                parser = self.parser = self.server.take_parser()
            try:
                offset += parser.read(PyBytes_AS_STRING(data) + offset, end - offset)
            except RequestError as error:
                self._refuse(error.problem, error.detail, data[offset : offset + EXAMPLE_BYTES])
                break
            request = parser.request
            if parser.over_budget and not request.answered():
                self._over_budget(request)
            if parser.event == Event.MORE:
                break
            if request.owner is None:
                self._begin(request, parser, end - offset)
            if parser.event == Event.REQUEST_COMPLETE:
                self._hand_over(request)
        if self.parser is not None and self.parser.request is None:
            # An unfinished request line is in `tail`, not in the parser.
            self.server.give_back_parser(self.parser)
            self.parser = None
        if self.state == READING:
            if offset < end:
                self._keep_tail(data, offset, waits)
            self._update_reading()
        if self.server.draining and self.state == READING and self.parser is None and self.tail is None:
            # Nothing has begun after all.
            return self.begin_drain()
        if self.parser is not None or self.tail is not None or self.arrival is not None:
            self._follow_arrival()
        return self._arm_for_reading()

    cdef int max_in_flight(self) noexcept:
        """Requests that the connection may have under way: the answers to more would be held, too."""
        return 1 if self.server.budget.full(SMALL) else self.server.limits.max_pipelined

    cdef int _keep_tail(self, bytes data, Py_ssize_t offset, bint waits) except -1:
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
        if self.in_flight and size_bytes <= SMALL_BYTES:
            # A request that is under way frees more than this; each connection has one such piece.
            self.server.budget.hold(&self.tail_held, SMALL, size_bytes)
        elif not self._room(&self.tail_held, account, size_bytes):
            self.server.budget.refused += 1
            return self._refuse(TOO_MANY_BYTES, None, data[offset : offset + EXAMPLE_BYTES])
        self.tail = data
        self.tail_offset = offset
        self.tail_waits = waits
        return 0

    cdef bytes _take_tail(self):
        cdef bytes tail = self.tail
        self.server.budget.release(&self.tail_held)
        self.tail = None
        self.tail_waits = False
        return tail

    cdef bytes _join_tail(self, bytes data):
        """What was kept and what came behind it; a line that comes byte by byte is not copied for each of them."""
        cdef PyObject* joined
        cdef bytes tail = self._take_tail()
        if self.tail_offset:
            tail = tail[self.tail_offset :]
        # With one reference, which is handed over, it is resized in place.
        joined = <PyObject*> tail
        Py_INCREF(tail)
        tail = None
        PyBytes_Concat(&joined, data)
        if joined == NULL:
            raise MemoryError
        tail = <bytes> joined
        Py_DECREF(tail)
        return tail

    cdef bytes _tail_example(self):
        """The first bytes of what was kept."""
        if self.tail is None:
            return b""
        return self.tail[self.tail_offset : self.tail_offset + EXAMPLE_BYTES]

    cdef bint _begins_nothing(self):
        """Whether what was kept is a lone CR: half an empty line, which begins no head (RFC 9112 2.2)."""
        return PyBytes_GET_SIZE(self.tail) == 1 and PyBytes_AS_STRING(self.tail)[0] == c"\r"

    # Room for what arrives.

    cdef bint _admit(self, Request request, RequestParser parser) except -1:
        """Whether there is room for what is here of the request, and may be for the rest."""
        cdef ByteBudget budget = self.server.budget
        if request.content_length > SMALL_BYTES and budget.crowded(BODIES):
            return False
        if not self._room(&self.head_held, SMALL, parser.head_bytes):
            return False
        return request.body is None or self._room(
            &self.body_held, account_for(BODIES, PyBytes_GET_SIZE(request.body)), PyBytes_GET_SIZE(request.body)
        )

    cdef Py_ssize_t body_room(self, Request request, Py_ssize_t needed_bytes, Py_ssize_t wanted_bytes) except -1:
        cdef ByteBudget budget = self.server.budget
        # A chunked body shows only now that it is large; a sized one has shown it by its head.
        if request.chunked and needed_bytes > SMALL_BYTES and self.body_held.account == SMALL and budget.crowded(BODIES):
            return 0
        if not budget.resize(&self.body_held, account_for(BODIES, wanted_bytes), wanted_bytes):
            if not self._room(&self.body_held, account_for(BODIES, needed_bytes), needed_bytes):
                return 0
            wanted_bytes = needed_bytes
        self._tell_arrival()
        return wanted_bytes

    cdef bint _room(self, Held* entry, Account account, long long size_bytes) except -1:
        """Let the entry have so many bytes; while they do not fit, the youngest unfinished request of the sender who
        holds most of the account is ended. False if there is none, or if that is the one that asks.
        """
        cdef Arrival youngest
        while not self.server.budget.resize(entry, account, size_bytes):
            self._tell_arrival()
            youngest = self.server.arrivals.youngest_of_largest(account)
            if youngest is None or youngest.owner is self:
                return False
            (<HttpConnection> youngest.owner).end_arrival()
        return True

    cdef int end_arrival(self) except -1:
        cdef Request request = None if self.parser is None else self.parser.request
        self.server.arrivals_ended += 1
        if request is None or request.owner is None or request.answered() or self.tail is not None:
            # Half a head or half a line is given up with its connection: what follows could not be told apart.
            self.server.budget.refused += 1
            return self._refuse(TOO_MANY_BYTES, None, self._tail_example())
        self.parser.drop_body()
        return self._over_budget(request)

    cdef int _follow_arrival(self) except -1:
        """Know an unfinished request from its first piece on, and count what is here of its head."""
        if self.state != READING or (
            self.parser is None and (self.tail is None or self.read_paused or self._begins_nothing())
        ):
            return self._forget_arrival()
        if self.arrival is None:
            if self.sender_address is None:
                self.sender_address = _address_key(self.transport.get_extra_info("peername"))
            self.arrival = self.server.arrivals.add(self, self.sender_address, self.server.wheel.tick)
            # One object serves all connections of an address: ten thousand half heads are paid for by each byte.
            self.sender_address = self.arrival.sender.address
        if self.parser is not None and not self.parser.head_done:
            if not self._room(&self.head_held, SMALL, self.parser.head_bytes):
                self.server.budget.refused += 1
                return self._refuse(TOO_MANY_BYTES, None, self._tail_example())
        return self._tell_arrival()

    cdef int _tell_arrival(self) except -1:
        cdef long long[2] held
        if self.arrival is None:
            return 0
        held[SMALL] = self.head_held.size_bytes
        held[BODIES] = 0
        held[self.body_held.account] += self.body_held.size_bytes
        held[self.tail_held.account] += self.tail_held.size_bytes
        self.server.arrivals.tell_held(self.arrival, SMALL, held[SMALL])
        return self.server.arrivals.tell_held(self.arrival, BODIES, held[BODIES])

    cdef int _forget_arrival(self) except -1:
        if self.arrival is not None:
            self.server.arrivals.remove(self.arrival)
            self.arrival = None
        return 0

    cdef int _let_arrival_go(self) except -1:
        """Head and body of the request being read are gone, or in other hands."""
        self.server.budget.release(&self.head_held)
        self.server.budget.release(&self.body_held)
        return self._tell_arrival()

    cdef bint is_behind(self) noexcept:
        """The body comes too slowly for a crowded account."""
        cdef DeadlineWheel wheel = self.server.wheel
        cdef double passed_s = (wheel.tick - self.body_began_tick) * wheel.tick_s
        cdef Request request
        cdef double size_bytes
        if self.parser is None or not self.parser.head_done or self.read_paused or passed_s <= PACE_GRACE_S:
            return False
        request = self.parser.request
        size_bytes = self.server.limits.max_body_bytes if request.chunked else request.content_length
        return not request.continue_due and self.body_bytes < size_bytes * passed_s / PACE_S

    cdef bint reads_behind(self, Account account) except -1:
        """The client takes its answers too slowly for a crowded account, or has them wait for another one too long."""
        cdef DeadlineWheel wheel = self.server.wheel
        cdef unsigned long long left_bytes
        cdef double passed_s
        if self.answers_held.size_bytes - self.unread_bytes > SMALL_BYTES and self._answers_wait():
            return True
        if not self.write_paused:
            return False
        left_bytes = self._delivered()
        passed_s = (wheel.tick - self.unread_began_tick) * wheel.tick_s
        if left_bytes != self.unread_seen_bytes:
            self.unread_seen_bytes = left_bytes
            self.unread_moved_tick = wheel.tick
        if account == SMALL:
            return (wheel.tick - self.unread_moved_tick) * wheel.tick_s >= STILL_S
        if passed_s <= PACE_GRACE_S:
            return False
        return left_bytes - self.unread_began_bytes < (self.written_bytes - self.unread_began_bytes) * passed_s / PACE_S

    cdef bint _answers_wait(self) noexcept:
        """An answer waits for PACE_GRACE_S behind that of another request, so none of it can have left."""
        cdef Request request = self.first
        cdef long long grace_tick = self.server._ticks_ago(PACE_GRACE_S)
        while request is not None:
            if request.answer_bytes and request.answered_tick < grace_tick:
                return True
            request = request.next
        return False

    cdef int _begin(self, Request request, RequestParser parser, Py_ssize_t here_bytes) except -1:
        """The head is there, and so many bytes of what follows. parser: who has read it."""
        self._append(request)
        if self.deadline_kind == HEAD:
            self._arm(NO_DEADLINE)
        self.head_left_s = -1
        if parser.event == Event.REQUEST_COMPLETE:
            self._completed(request)
        try:
            self.server.handler.begin(request)
        except Exception:
            self._internal_error(request)
        if request.answered():
            pass
        elif (
            request.complete
            and request.content_length <= SMALL_BYTES
            and self.server.budget.fits(SMALL, parser.head_bytes + PyBytes_GET_SIZE(request.body))
        ):
            # It came whole: entries would live no longer than this call, for what the handler takes counts on its side.
            pass
        elif not self._admit(request, parser):
            self._over_budget(request)
        if not request.complete:
            # Its age among unfinished requests is its body's.
            self._forget_arrival()
            self.body_began_tick = self.server.wheel.tick
            self.body_bytes = here_bytes
            if request.answered():
                request.discards_body = True
                request.let_go()
            elif request.expects_continue:
                request.continue_due = True
                self._mark_dirty()
        return 0

    cdef int _over_budget(self, Request request) except -1:
        """Answer a request for which there is no room; it is read on and dropped."""
        self.server.budget.refused += 1
        self.server.note(TOO_MANY_BYTES.kind, self, request.path)
        self.server.handler.abandon(request)
        return self.answer_problem(request, TOO_MANY_BYTES, None, None)

    cdef int _release(self, Request request) except -1:
        """What was held for the request is gone, or in other hands."""
        self.server.budget.release(&request.held)
        return 0

    cdef int _completed(self, Request request) except -1:
        """All bytes of the request are there."""
        request.complete = True
        # The deadline was this request's; the next one's head has its own.
        self._arm(NO_DEADLINE)
        if not request.keep_alive or self._serves_last():
            self._stop_reading()
        return 0

    cdef int _hand_over(self, Request request) except -1:
        """The whole request is there."""
        cdef Py_ssize_t kept_bytes
        if not request.complete:
            self._completed(request)
        if self.arrival is not None:
            self._forget_arrival()
        if self.head_held.size_bytes or self.body_held.size_bytes:
            # What the handler takes over counts on its side.
            self._let_arrival_go()
        if not request.answered():
            request.continue_due = False
            try:
                self.server.handler.handle(request)
            except Exception:
                self._internal_error(request)
            if not request.answered():
                kept_bytes = request.kept_bytes()
                self.server.budget.hold(&request.held, account_for(BODIES, kept_bytes), kept_bytes)
        if self.parser is not None:
            self.parser.start_next()
            self.server.give_back_parser(self.parser)
            self.parser = None
        return 0

    cdef int _stop_reading(self) except -1:
        """The last request is known, so what follows is dropped: none of it may be run (RFC 9112 9.6)."""
        self.state = ANSWERING
        self._drop_parser()
        self._take_tail()
        self._forget_arrival()
        # Who does not take its answers still has only so long.
        if self.deadline_kind != WRITE:
            self._arm(NO_DEADLINE)
        if self.first is None:
            # The last answer is written already.
            return self._mark_dirty()
        return 0

    cdef int _append(self, Request request) except -1:
        request.owner = self
        if self.last is None:
            self.first = request
        else:
            self.last.next = request
        self.last = request
        self.in_flight += 1
        self.server.requests_in_flight += 1
        return 0

    cdef int _refuse(self, object problem, str detail, bytes data) except -1:
        """Answer a request whose framing is in doubt, or that is too slow, and read no more. data: what shows it."""
        cdef Request request = None if self.parser is None else self.parser.request
        self.server.requests_refused += 1
        self.server.note(problem.kind, self, data)
        self.body_coming = problem.status == 413 or (
            problem.status == 503 and request is not None and request.owner is not None
        )
        self._stop_reading()
        if request is None:
            request = Request.__new__(Request)
            request.minor_version = 1
        if request.owner is None:
            self._append(request)
        elif not request.answered():
            self.server.handler.abandon(request)
            self._release(request)
        else:
            # It was answered by its head; that answer is the last one.
            return 0
        self.refusal_waits = self.server.refusal_waits(self)
        return self.answer_problem(request, problem, detail, None)

    cdef int _internal_error(self, Request request) except -1:
        logger.exception("a request's handler failed")
        self.server.handler.abandon(request)
        return self.answer_problem(request, INTERNAL_ERROR, "the gateway has failed on this request", None)

    cdef int _update_reading(self) except -1:
        """Read from the client, or pause: it does not read its answers, or too many of them are due."""
        cdef bint pause = self.write_paused or (self.parser is None and self.in_flight >= self.max_in_flight())
        cdef Py_ssize_t offset = self.tail_offset
        if self.state != READING:
            return 0
        if self.tail_waits and not pause:
            # It ends here again, with less that waits.
            return self._process(self._take_tail(), offset)
        if pause == self.read_paused:
            return 0
        self.read_paused = pause
        if pause:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()
        return 0

    # Answering.

    cdef int answer(self, Request request, int status, bytes content_type, bytes headers, object body) except -1:
        cdef const char* body_start = NULL
        cdef const char* connection = NULL
        cdef Py_ssize_t body_bytes = -1
        cdef Py_ssize_t inline_bytes = 0
        if request.owner is None or request.answered():
            return 0
        request.closes = request is self.last and (
            self.state != READING
            or not request.keep_alive
            # A client that waits for "100 Continue" may or may not send the body now (RFC 9110 10.1.1).
            or (not request.complete and (request.expects_continue or self._serves_last()))
        )
        if request.closes:
            if self.state == READING:
                self.body_coming = not request.complete and not request.expects_continue
                self._stop_reading()
            connection = b"close"
        elif request.minor_version == 0:
            connection = b"keep-alive"
        # RFC 9110 8.6: no Content-Length in a 204.
        if body is not None:
            body_bytes = len(body)
            if request.method != METHOD_HEAD and body_bytes > 0:
                if body_bytes > INLINE_BODY_BYTES:
                    request.response_body = body
                else:
                    inline_bytes = body_bytes
                    if isinstance(body, bytes):
                        body_start = PyBytes_AS_STRING(body)
                    else:
                        body_start = PyByteArray_AS_STRING(body)
        request.response = self.server.builder.build(
            status, content_type, headers, body_start, body_bytes, inline_bytes, connection
        )
        if not request.complete and self.parser is not None and self.parser.request is request:
            # What is still to come of its body is dropped.
            self._let_arrival_go()
        self._release(request)
        request.answer_bytes = PyBytes_GET_SIZE(request.response)
        if request.response_body is not None:
            request.answer_bytes += body_bytes
        self._hold_answers(request.answer_bytes)
        request.answered_tick = self.server.wheel.tick
        if request is self.first and not (self.refusal_waits and request is self.last):
            self._mark_dirty()
        elif self.answers_held.size_bytes > SMALL_BYTES:
            # They wait for their turn, and nobody reads them meanwhile.
            self.server.unread[self] = None
        return 0

    cdef int _hold_answers(self, long long more_bytes) except -1:
        """Count so many bytes of answers more, or less; they are here and cannot be refused any more."""
        cdef ByteBudget budget = self.server.budget
        cdef long long size_bytes = self.answers_held.size_bytes + more_bytes
        cdef Account account = self.answers_held.account if self.answers_held.size_bytes else SMALL
        # Many small answers become a large one if there is room; otherwise they stay where they were let in.
        if size_bytes > SMALL_BYTES and (more_bytes > SMALL_BYTES or budget.fits(RESULTS, size_bytes)):
            account = RESULTS
        budget.hold(&self.answers_held, account, size_bytes)
        return 0

    cdef int refusal_due(self) except -1:
        self.refusal_waits = False
        return self._mark_dirty()

    cdef int answer_problem(self, Request request, object problem, str detail, bytes headers) except -1:
        headers = self.server.problem_headers(problem, headers)
        if self.server.builder.empty_error_bodies:
            return self.answer(request, problem.status, None, headers, b"")
        if detail is None:
            detail = problem.detail
        return self.answer(request, problem.status, PROBLEM_CONTENT_TYPE, headers, problem_body(problem, detail))

    cdef int _mark_dirty(self) except -1:
        if not self.dirty:
            self.dirty = True
            self.server.mark_dirty(self)
        return 0

    cdef int flush(self) except -1:
        """Write what is due, in order."""
        cdef Request request = self.first
        cdef list buffers = []
        cdef bint closes = False
        self.dirty = False
        if self.state != READING and self.state != ANSWERING:
            return 0
        while request is not None and request.answered() and not closes:
            if self.refusal_waits and request is self.last:
                break
            buffers.append(request.response)
            if request.response_body is not None:
                buffers.append(request.response_body)
            self.unread_bytes += request.answer_bytes
            request.answer_bytes = 0
            closes = request.closes
            self.in_flight -= 1
            self.server.requests_in_flight -= 1
            self.server.requests_answered += 1
            self.first = request.next
            request.next = None
            request.owner = None if request.complete else self
            request = self.first
        if request is None:
            self.last = None
            closes = closes or (self.state == ANSWERING)
        elif request.continue_due and not closes:
            request.continue_due = False
            # From now on the client does send the body.
            request.expects_continue = False
            buffers.append(CONTINUE)
            # Who has waited for it was not slow.
            self.body_began_tick = self.server.wheel.tick
            self.body_bytes = 0
        if buffers:
            self._write(buffers)
            if not self.write_paused:
                self._left()
        if closes:
            return self._linger()
        self._update_reading()
        return self._arm_for_reading()

    cdef int _write(self, list buffers) except -1:
        for buffer in buffers:
            self.written_bytes += len(buffer)
        if len(buffers) == 1:
            self.transport.write(buffers[0])
        else:
            self.transport.writelines(buffers)
        return 0

    # Ending.

    cdef bint _serves_last(self) noexcept:
        """Whether the next request that is complete is the last one."""
        return self.late or self.server.draining

    cdef int begin_drain(self) except -1:
        if self.drops_body:
            return self._end_dropping()
        if self.state != READING:
            return 0
        if self.parser is not None or self.tail is not None:
            # A request is arriving; _hand_over() makes it the last one.
            return self._arm_for_reading()
        if self.first is not None:
            return self._stop_reading()
        if self.late:
            return 0
        if self.written_bytes == 0 or self._queued_bytes(FIONREAD):
            # What its client has sent may be on its way, or here and not read yet.
            self.late = True
            return 0 if self.write_paused else self._arm(FIRST_BYTE)
        return self._end()

    cdef int refuse_unfinished(self) except -1:
        if self.state != READING:
            return 0
        if self.first is None and self.parser is None and self.tail is None and not self._queued_bytes(FIONREAD):
            return self._end()
        return self._refuse(STOPPING, None, b"")

    cdef int evict(self) except -1:
        if self.state == LINGERING:
            return self._close()
        if self.arrival is not None:
            self._refuse_for_place()
        self._end()
        if self.state == LINGERING:
            if self.server.refused_connections >= MAX_REFUSED_CONNECTIONS:
                return self._close()
            self._linger_uncounted()
        return 0

    cdef int _refuse_for_place(self) except -1:
        """Answer the unfinished request at once, unless it was answered by its head; nothing else is under way."""
        cdef Request request = None if self.parser is None else self.parser.request
        self.server.requests_refused += 1
        self.server.note(TOO_MANY_CONNECTIONS.kind, self, self._tail_example())
        self._drop_requests()
        self._drop_parser()
        self._take_tail()
        self._forget_arrival()
        if request is not None and request.answered():
            return 0
        self.server.requests_answered += 1
        headers = self.server.problem_headers(TOO_MANY_CONNECTIONS, None)
        return self._write([self.server.builder.problem(TOO_MANY_CONNECTIONS, PLACE_NEEDED, headers, b"close")])

    cdef int _linger_uncounted(self) except -1:
        """It lingers beside max_connections."""
        self.refused = True
        self.server.refused_connections += 1
        return self._arm(self.deadline_kind)

    cdef int _linger(self) except -1:
        """The last answer is written: send FIN, and drop what the client still sends until it closes."""
        self._drop_requests()
        self._drop_parser()
        self._take_tail()
        self.state = LINGERING
        self._forget_arrival()
        self.transport.write_eof()
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        if self.body_coming and not self.server.draining and self.server.body_lingerers < MAX_BODY_LINGERERS:
            self.drops_body = True
            self.server.body_lingerers += 1
        if self.write_paused:
            return 0
        return self._arm(LINGER)

    cdef double _linger_left_s(self) noexcept:
        """Seconds for which it lingers yet; a refused body that still comes has to come without long gaps."""
        cdef DeadlineWheel wheel = self.server.wheel
        cdef double left_s = (self.linger_ends_tick - wheel.tick) * wheel.tick_s
        if not self.drops_body:
            return left_s
        return fmin(left_s, BODY_LINGER_QUIET_S - (wheel.tick - self.dropped_tick) * wheel.tick_s)

    cdef int _dropped_much(self) except -1:
        """More came after the last request than is dropped after any answer."""
        if self.drops_body and self.dropped_bytes <= self.server.body_linger_bytes:
            return 0
        if self.state == LINGERING and not self._undelivered():
            return self.abort()
        if self.state != CLOSED and not self.read_paused:
            # Its client has to take the answer first; a deadline is armed for that.
            self.read_paused = True
            self.transport.pause_reading()
        return 0

    cdef int _end_dropping(self) except -1:
        """A refused body is not waited for any more."""
        self.drops_body = False
        self.server.body_lingerers -= 1
        if not self._undelivered():
            return self._close()
        self.linger_ends_tick = 0
        return 0 if self.write_paused else self._arm(LINGER)

    cdef int _end(self) except -1:
        """No answer is due any more: close, but not before the client has what it was answered.

        What the kernel still has of it would be lost if bytes came that nobody reads.
        """
        if self._undelivered() and not self.transport.is_closing():
            return self._linger()
        return self._close()

    cdef int _close(self) except -1:
        """Close at once."""
        self._drop_requests()
        self._arm(NO_DEADLINE)
        self.state = CLOSED
        self._forget_arrival()
        if self.transport is not None:
            if self.transport.get_write_buffer_size():
                self.transport.abort()
            else:
                self.transport.close()
        return 0

    cdef int abort(self) except -1:
        self._drop_requests()
        self._arm(NO_DEADLINE)
        self.state = CLOSED
        self._forget_arrival()
        if self.transport is not None:
            self.transport.abort()
        return 0

    cdef int _refuse_connection(self, object problem) except -1:
        """Answer before any request, linger and close."""
        cdef HttpServer server = self.server
        server.note(problem.kind, self, b"")
        headers = server.problem_headers(problem, None)
        self._write([server.builder.problem(problem, problem.detail, headers, b"close")])
        if server.refused_connections >= MAX_REFUSED_CONNECTIONS:
            return self._close()
        server.connections.add(self)
        self._linger()
        return self._linger_uncounted()

    cdef int _left(self) except -1:
        """The kernel has all answers that were written, or nobody will ever read them."""
        if self.unread_bytes:
            self._hold_answers(-self.unread_bytes)
            self.unread_bytes = 0
        if self.server.unread and self.answers_held.size_bytes <= SMALL_BYTES:
            self.server.unread.pop(self, None)
        return 0

    cdef int _drop_requests(self) except -1:
        """No answer can be given any more."""
        cdef Request request = self.first
        cdef Request following
        self.first = None
        self.last = None
        while request is not None:
            following = request.next
            request.next = None
            request.owner = None
            self._release(request)
            self._hold_answers(-request.answer_bytes)
            request.answer_bytes = 0
            self.in_flight -= 1
            self.server.requests_in_flight -= 1
            self.server.requests_abandoned += 1
            if not request.answered():
                try:
                    self.server.handler.abandon(request)
                except Exception:
                    logger.exception("a request's handler failed")
            request = following
        if self.server.unread and not self.write_paused:
            self.server.unread.pop(self, None)
        return 0

    cdef int _drop_parser(self) except -1:
        if self.parser is not None:
            self.parser.release()
            self.parser = None
        return self._let_arrival_go()

    # Deadlines.

    cdef int _arm(self, DeadlineKind kind) except -1:
        cdef Limits limits = self.server.limits
        cdef DeadlineWheel wheel = self.server.wheel
        cdef ConnectionList place = None
        if kind == NO_DEADLINE and self.deadline_kind == NO_DEADLINE and self.next_expiring is None:
            return 0
        # Where it stands if it may make room for another one.
        if kind == KEEPALIVE or kind == FIRST_BYTE:
            place = self.server.idle
        elif kind == LINGER and not self.refused:
            place = self.server.dropping if self.drops_body else self.server.lingering
        if self.deadline_kind == HEAD and kind != HEAD:
            self.head_left_s = fmax(0, self.head_ends_s - <double> self.server.loop.time())
        self.deadline_kind = kind
        if place is not self.place:
            if self.place is not None:
                self.place.remove(self)
            if place is not None:
                place.append(self)
        if kind == NO_DEADLINE:
            return wheel.disarm(self)
        if kind == KEEPALIVE or kind == FIRST_BYTE:
            if self.late:
                return wheel.arm(self, LAST_CALL_S)
            return wheel.arm(self, limits.keepalive_timeout_s if kind == KEEPALIVE else limits.first_byte_timeout_s)
        if kind == HEAD:
            if self.head_left_s < 0:
                self.head_left_s = limits.header_timeout_s
            self.head_ends_s = <double> self.server.loop.time() + self.head_left_s
            return wheel.arm(self, self.head_left_s)
        if kind == BODY:
            return wheel.arm(self, self._body_left_s())
        if kind == LINGER:
            if self.linger_ends_tick == 0:
                self.dropped_tick = wheel.tick
                self.linger_ends_tick = wheel.tick + <long long> (
                    (BODY_LINGER_S if self.drops_body else LINGER_S) / wheel.tick_s
                )
            return wheel.arm(self, self._linger_left_s())
        self.delivered_bytes = self._delivered()
        return wheel.arm(self, limits.write_timeout_s)

    cdef double _body_left_s(self) noexcept:
        """Seconds in which the next byte must come: none for long, or all of them too slow."""
        cdef Limits limits = self.server.limits
        cdef DeadlineWheel wheel = self.server.wheel
        cdef double allowed_s
        if not limits.min_body_rate_bytes:
            return limits.body_timeout_s
        allowed_s = fmax(limits.body_rate_grace_s, <double> self.body_bytes / limits.min_body_rate_bytes)
        return fmin(limits.body_timeout_s, allowed_s - (wheel.tick - self.body_began_tick) * wheel.tick_s)

    cdef int _arm_for_reading(self) except -1:
        """Give the client the time that fits what it is doing; while the gateway pauses it, none is counted."""
        if self.write_paused or self.refusal_waits or (self.state != READING and self.state != ANSWERING):
            return 0
        if self.read_paused or self.state == ANSWERING:
            return self._arm(NO_DEADLINE)
        if self.parser is not None and self.parser.head_done:
            if self.parser.request.continue_due:
                return self._arm(NO_DEADLINE)
            return 0 if self.deadline_kind == BODY else self._arm(BODY)
        if self.parser is not None or (
            self.tail is not None and (not self._begins_nothing() or (self.server.draining and not self.late))
        ):
            return 0 if self.deadline_kind == HEAD else self._arm(HEAD)
        if self.first is not None:
            return self._arm(NO_DEADLINE)
        if self.deadline_kind == FIRST_BYTE or self.deadline_kind == KEEPALIVE:
            return 0
        return self._arm(KEEPALIVE)

    cpdef int deadline_passed(self) except -1:
        cdef DeadlineKind kind = self.deadline_kind
        self._arm(NO_DEADLINE)
        if self.state == CLOSED and kind != WRITE:
            return 0
        if kind == HEAD:
            return self._refuse(HEAD_TOO_SLOW, None, self._tail_example())
        if kind == BODY:
            return self._refuse(BODY_TOO_SLOW, None, self.parser.request.path or b"")
        if kind == WRITE:
            return self._write_deadline_passed()
        if kind == LINGER and self._linger_left_s() > 0:
            return self._arm(LINGER)
        if self._undelivered():
            # The client has not even taken its last answer.
            return self._arm(WRITE)
        return self._close()

    cdef int _write_deadline_passed(self) except -1:
        if not self._undelivered():
            return self._close()
        if self._delivered() != self.delivered_bytes:
            return self._arm(WRITE)
        self.server.writes_timed_out += 1
        return self.abort()

    # What became of the answers.

    cdef unsigned long long _delivered(self) except? 0:
        """How many bytes of the answers the client's kernel has confirmed."""
        return (
            self.written_bytes
            - <unsigned long long> self.transport.get_write_buffer_size()
            - <unsigned long long> self._queued_bytes(TIOCOUTQ)
        )

    cdef bint _undelivered(self) except -1:
        """Whether the client's kernel has not confirmed all that was written, FIN included."""
        return self.transport.get_write_buffer_size() > 0 or self._queued_bytes(TIOCOUTQ) > 0

    cdef int _queued_bytes(self, unsigned long request) except -1:
        """Bytes in the kernel, of one direction (tcp(7)): SIOCINQ, those not read; SIOCOUTQ, those not confirmed."""
        cdef int queued = 0
        if ioctl(self.transport.get_extra_info("socket").fileno(), request, &queued) < 0:
            # The socket is gone.
            return 0
        return queued


cdef bytes _address_key(peername):
    """Whom an address stands for: itself, or for IPv6 the /64 that one customer has; None for no address."""
    if peername is None:
        return None
    host = peername[0]
    if ":" in host:
        return socket.inet_pton(socket.AF_INET6, host.partition("%")[0])[:8]
    return host.encode("ascii")
