"""Requests in order over each client's connection, and their answers.

Theory of operation. Requests are parsed one at a time and begun at once, so the jobs of pipelined requests run
together; the answers are written in the order of the requests (RFC 9112 9.3.2), all that are ready in one loop turn
with one write. A connection whose unwritten answers reach the bound, or whose client does not read them, is not read
from: what waits then is in the kernel's buffers, and the client feels it.

A client's connection is built in five layers: `clients` opens and ends it, `arriving` holds what has come of its next
request, `answering` its requests under way and their answers, `piecewise` gives those that come in pieces, and here
requests are read and served. Who makes room for whom is in `idle`.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE

from gatewayx.core.budget cimport BODIES, SMALL, SMALL_BYTES, ByteBudget, account_for
from gatewayx.http.arriving cimport Unfinished
from gatewayx.http.clients cimport (
    ANSWERING,
    BODY,
    CLOSED,
    FIRST_BYTE,
    HEAD,
    KEEPALIVE,
    LINGERING,
    MAX_REFUSED_CONNECTIONS,
    NO_DEADLINE,
    READING,
    WRITE,
    Client,
    Clients,
    DeadlineKind,
)
from gatewayx.http.idle cimport Unread
from gatewayx.http.parser cimport Event, RequestParser
from gatewayx.http.piecewise cimport PiecewiseClient
from gatewayx.http.preamble cimport (
    MALFORMED_PREAMBLE,
    MOST_PREAMBLE_BYTES,
    UNFINISHED_PREAMBLE,
    preamble_address,
    preamble_bytes,
    preamble_id,
    preamble_mark,
    preamble_name,
)
from gatewayx.http.refusals cimport EXAMPLE_BYTES
from gatewayx.http.request cimport Request, unread_request

from gatewayx.http import outcomes
from gatewayx.http.problems import (
    BODY_TOO_SLOW,
    HEAD_TOO_SLOW,
    MALFORMED_REQUEST,
    PLAIN_HTTP,
    STOPPING,
    TOO_MANY_BYTES,
    TOO_MANY_CONNECTIONS,
    TOO_MANY_CONNECTIONS_PER_ADDRESS,
    RequestError,
)

# Words for what the problem alone does not say.
PLACE_NEEDED = (
    "as many connections are open as may be, and of this request nothing came for longest; nothing was submitted"
)
TOO_MANY_IN_FLIGHT = "as many requests from your address are in flight as may be; nothing was submitted"


@cython.final
cdef class HttpServer(Clients):
    """The clients' side of a process; `connection` makes the owner of the stream of an accepted socket."""

    def connection(self, unix_path=None, bint is_anybodys=False):
        """The owner of the stream of one accepted socket, of the unix socket with this path if it is one.

        is_anybodys: whoever is at the other side of the proxy there, what he says is not that proxy's word.
        """
        cdef HttpConnection connection = HttpConnection(self)
        connection.unix_path = unix_path
        connection.is_anybodys = is_anybodys
        return connection

    def relay_connection(self):
        """The owner for a socket that another process of this gateway has connected to: it counts as no connection.

        Each of its requests comes behind a preamble that says who asks (http/preamble).
        """
        cdef HttpConnection connection = HttpConnection(self)
        connection.relayed = True
        return connection

    def late_connection(self, unix_path=None, bint is_anybodys=False):
        """The owner for a socket that had waited to be accepted when the stop began.

        Its client may have sent its request already, and a close would reset it: one request is served, whose answer
        says `Connection: close`, also while draining. If LAST_CALL_S pass without a byte the connection is closed
        silently. `emptied` is not set, or no longer, while it is open: accept first, then wait.
        """
        cdef HttpConnection connection = self.connection(unix_path, is_anybodys)
        connection.late = True
        return connection


@cython.final
cdef class HttpConnection(PiecewiseClient):
    """One client and its requests."""

    cdef object client_names(self):
        return self.stream.client_names()

    cdef bytes token_mark(self):
        return None if self.unfinished is None else self.unfinished.relayed_mark

    # What the stream tells.

    cdef int received(self, const char* data, Py_ssize_t size) except -1:
        cdef bytes joined
        cdef Py_ssize_t taken
        if self.state != READING:
            return self.drop_received(size)
        if self.relayed and not self.introduced and self.parser is None and self.tail is None:
            if self.first is not None:
                # One request at a time, of processes that know that.
                return self.abort()
            taken = self._read_preamble(data, size)
            if taken < 0:
                return 0
            data += taken
            size -= taken
            if size == 0:
                return 0
        if self.arrival is not None:
            self.clients.room.arrivals.moved(self.arrival, self.clients.wheel.tick)
        if self.parser is not None and self.parser.head_done:
            self.unfinished.body_bytes += size
            if self.deadline_kind == BODY:
                # A byte has come: its deadline begins anew.
                self.arm(NO_DEADLINE)
        if self.tail is not None:
            joined = self.join_tail(data, size)
            return self._process(PyBytes_AS_STRING(joined), 0, PyBytes_GET_SIZE(joined), joined)
        return self._process(data, 0, size, None)

    cpdef int not_understood(self, str reason, bint plainly) except -1:
        if not plainly:
            return self.clients.refusals.note(reason, self, b"", None)
        return self.refuse(PLAIN_HTTP, PLAIN_HTTP.detail, b"") if self.state == READING else 0

    cpdef int hung_up(self) except -1:
        if self._waits_half_closed() or (self.state != READING and self.state != ANSWERING):
            return 0
        self.end_turn()
        # A close with input unread would reset the connection, and take with it what was answered.
        return 0 if self.state == LINGERING or self.state == CLOSED else self.linger()

    cpdef bint ended(self) except? True:
        if self._waits_half_closed() and self.state != LINGERING and self._answers_after_end():
            return True
        # The client has hung up; what is ready may still reach one that only closed its sending side.
        if self.state == READING or self.state == ANSWERING:
            self.end_turn()
            self.drop_requests(outcomes.CLIENT_GONE)
        if self.deadline_kind != WRITE:
            self.arm(NO_DEADLINE)
        self.change(CLOSED)
        self.forget_arrival()
        return False

    cdef bint _waits_half_closed(self) noexcept:
        """Whether it may wait for answers once it sends no more; another process closes where its client has hung up."""
        return self.clients.answers_half_closed and not self.relayed

    cdef bint _answers_after_end(self) except -1:
        """The client sends no more, and waits: whether any answer is due. What is unfinished can be no request any more."""
        self.half_closed = True
        if self.state == READING:
            if self.parser is not None or (self.tail is not None and not self.begins_nothing()):
                self.refuse(MALFORMED_REQUEST, "the client closed its sending side within the request", self.tail_example())
            elif self.first is not None:
                self.stop_reading()
        return self.first is not None

    cpdef int lost(self, error) except -1:
        cdef Py_ssize_t dropped_bytes
        self.change(CLOSED)
        self.let_requests_go()
        self.arm(NO_DEADLINE)
        self.answers_left()
        dropped_bytes = self.stream.dropped_bytes()
        if dropped_bytes > 0 and isinstance(error, TimeoutError):
            # The kernel has found first that nobody reads (tcp(7), TCP_USER_TIMEOUT).
            self.clients.counts.writes_timed_out += 1
        self.end_leaving(self.unread, dropped_bytes)
        return self.leave()

    cpdef int pause_writing(self) except -1:
        Client.pause_writing(self)
        return self.update_reading()

    cpdef int resume_writing(self) except -1:
        cdef Unread unread
        if self.unfinished is not None:
            self.unfinished.body_began_tick += self.clients.wheel.tick - self.unread.began_tick
        unread = self.unread
        Client.resume_writing(self)
        self.end_leaving(unread, 0)
        if self.state == READING or self.state == ANSWERING:
            self.arm(NO_DEADLINE)
            self.update_reading()
            self.arm_for_reading()
            if self.first is not None and self.first.source is not None and self.first.has_left():
                return self.first.source.wanted()
        return 0

    # Reading.

    cdef int _process(self, const char* data, Py_ssize_t offset, Py_ssize_t end, bytes kept) except -1:
        """Read requests in data from the offset to the end, and keep what is left.

        kept: the bytes object whose bytes these are; None if they are gone when this returns.
        """
        cdef bint waits = False
        cdef Py_ssize_t used
        cdef RequestParser parser
        cdef Request request
        self.parsing = True
        while offset < end and self.state == READING:
            parser = self.parser
            if self.relayed and not self.introduced and parser is None:
                # Behind a request there is nothing before its answer, and nothing without a preamble after it.
                self.abort()
                break
            if (parser is None or not parser.begun()) and self.in_flight > 0 and self.has_enough():
                waits = True
                break
            if parser is None:
                parser = self.parser = self.clients.take_parser()
            try:
                used = parser.read(data + offset, end - offset)
            except RequestError as error:
                self.refuse(error.problem, error.detail, data[offset : min(end, offset + EXAMPLE_BYTES)])
                if self.last is not None:
                    # As far as it is known where it begins, and never where it ends.
                    self.last.received_bytes += end - offset
                break
            # Whatever is called from here on may refuse, answer or end reading, and drop self.parser with that: what was
            # read is known by the local `parser` alone.
            request = parser.request
            offset += used
            if request is not None:
                request.received_bytes += used
            if parser.over_budget and not request.answered():
                self.refuse_for_room(request)
            if parser.event == Event.MORE:
                break
            if request.owner is None:
                self._begin(request, parser, end - offset)
            if parser.event == Event.REQUEST_COMPLETE:
                self._hand_over(request)
        self.parsing = False
        if self.parser is not None and self.parser.untouched():
            self.clients.give_back_parser(self.parser)
            self.parser = None
        if self.parser is None and self.unfinished is not None:
            self.let_arrival_go()
            self.unfinished = None
        if self.state == READING:
            if offset < end:
                if kept is None:
                    kept = PyBytes_FromStringAndSize(data + offset, end - offset)
                    offset = 0
                self.keep_tail(kept, offset, waits)
            self.update_reading()
        if self.clients.draining and self.state == READING and self.parser is None and self.tail is None:
            # Nothing has begun after all.
            self.begin_drain()
        if self.parser is not None or self.tail is not None or self.arrival is not None:
            self.follow_arrival()
        return self.arm_for_reading()

    cdef Py_ssize_t _read_preamble(self, const char* data, Py_ssize_t size) except -2:
        """Learn who asks; returns how many of these bytes that took, -1 while more is to come, or if it is not right."""
        cdef Py_ssize_t begun_bytes = 0
        cdef Py_ssize_t taken
        cdef bytes joined
        cdef Unfinished parts = self.parts()
        joined = data[: min(size, <Py_ssize_t> MOST_PREAMBLE_BYTES)]
        if parts.preamble is not None:
            begun_bytes = PyBytes_GET_SIZE(parts.preamble)
            joined = parts.preamble + joined
        parts.preamble = None
        taken = preamble_bytes(joined)
        if taken == MALFORMED_PREAMBLE:
            self.abort()
            return -1
        if taken == UNFINISHED_PREAMBLE:
            parts.preamble = joined
            return -1
        self.address = preamble_address(joined)
        preamble_id(joined, parts.relayed_id)
        parts.relayed_name = preamble_name(joined)
        parts.relayed_mark = preamble_mark(joined)
        self.introduced = True
        return taken - begun_bytes

    cdef bint has_enough(self) noexcept:
        """Whether further requests wait behind those that are under way: where nothing fits any more, behind any."""
        return self.in_flight >= self.clients.limits.max_pipelined or self.clients.room.budget.full(SMALL)

    cdef int _begin(self, Request request, RequestParser parser, Py_ssize_t here_bytes) except -1:
        """The head is there, and so many bytes of what follows. parser: who has read it."""
        if self.entrance.proxies is not None:
            self.read_proxy_note(request)
        self.append(request)
        # The next one has a preamble of its own.
        self.introduced = False
        if self.deadline_kind == HEAD:
            self.arm(NO_DEADLINE)
        self.head_s = -1
        if parser.event == Event.REQUEST_COMPLETE:
            self._completed(request)
        if self.entrance.proxies is not None and not self.take_request(request):
            self._refuse_for_address(request)
        else:
            try:
                self.clients.handler.begin(request)
            except Exception:
                self.internal_error(request)
        request.header_count = 0
        request.host_bytes = 0
        if request.answered():
            pass
        elif (
            request.complete
            and request.content_length <= SMALL_BYTES
            and self.clients.room.budget.reserve(SMALL, parser.head_bytes + request.body_bytes)
        ):
            # It came whole: entries would live no longer than this call, for what the handler takes counts on its side.
            pass
        elif not self.admit(request, parser):
            self.refuse_for_room(request)
        if not request.complete:
            # Its age among unfinished requests is its body's.
            self.forget_arrival()
            self.parts()
            self.unfinished.body_began_tick = self.clients.wheel.tick
            self.unfinished.body_bytes = here_bytes
            if request.answered():
                request.discards_body = True
                request.let_go()
            elif request.expects_continue:
                request.continue_due = True
                self.clients.turn.add_client(self)
        return 0

    cdef int refuse_for_room(self, Request request) except -1:
        """Answer a request for which there is no room; it is read on and dropped."""
        self.clients.room.budget.counts.budget_refused += 1
        self.clients.refusals.note(TOO_MANY_BYTES.kind, self, request.path, request)
        self.clients.handler.abandon(request)
        return self.answer_problem(request, TOO_MANY_BYTES, None, None)

    cdef int _refuse_for_address(self, Request request) except -1:
        """Answer a request of a client that has as many in flight as may be; its connection is others' as well, and goes on."""
        self.clients.refusals.note(TOO_MANY_CONNECTIONS_PER_ADDRESS.kind, self, request.path, request)
        self.tell_refused(request)
        return self.answer_problem(request, TOO_MANY_CONNECTIONS_PER_ADDRESS, TOO_MANY_IN_FLIGHT, None)

    cdef int _completed(self, Request request) except -1:
        """All bytes of the request are there."""
        request.complete = True
        self.body_paused = False
        # The deadline was this request's; the next one's head has its own.
        self.arm(NO_DEADLINE)
        # An answer that came before the end of the body has stopped the reading already, unless it was made before the
        # drain and does not say that it is the last one.
        if self.state == READING and (not request.keep_alive or (self.serves_last() and not request.answered())):
            self.stop_reading()
        return 0

    cdef int _hand_over(self, Request request) except -1:
        """The whole request is there."""
        cdef ByteBudget budget = self.clients.room.budget
        if not request.complete:
            self._completed(request)
        if self.arrival is not None:
            self.forget_arrival()
        budget.begin_move()
        try:
            if self.unfinished is not None:
                # What the handler takes over counts on its side.
                self.let_arrival_go()
            self._handle(request)
        finally:
            budget.end_move()
        if self.parser is not None:
            self.parser.start_next()
            self.clients.give_back_parser(self.parser)
            self.parser = None
        return 0

    cdef int _handle(self, Request request) except -1:
        """The handler takes it over, or has its bytes count with the request."""
        cdef Py_ssize_t kept_bytes
        if request.answered():
            return 0
        request.continue_due = False
        try:
            self.clients.handler.handle(request)
        except Exception:
            self.internal_error(request)
        if request.body is None:
            # It stood in what was received, which is gone soon.
            request.body_start = NULL
            request.body_bytes = 0
        if not request.answered():
            kept_bytes = request.kept_bytes()
            self.clients.room.budget.hold(&request.held, account_for(BODIES, kept_bytes), kept_bytes)
        return 0

    cdef int stop_reading(self) except -1:
        """The last request is known, so what follows is dropped: none of it may be run (RFC 9112 9.6)."""
        self.change(ANSWERING)
        self.drop_parser()
        self.take_tail()
        self.forget_arrival()
        # Who does not take its answers still has only so long.
        if self.deadline_kind != WRITE:
            self.arm(NO_DEADLINE)
        if self.first is None:
            # The last answer is written already.
            return self.clients.turn.add_client(self)
        return 0

    cdef Request _request_so_far(self):
        """What is known of the request being read; None for nothing."""
        if self.parser is None:
            return None
        return self.parser.request_so_far(
            NULL if self.tail is None else PyBytes_AS_STRING(self.tail) + self.unfinished.tail_offset
        )

    cdef int refuse(self, object problem, str detail, bytes data) except -1:
        """Answer a request whose framing is in doubt, or that is too slow, and read no more. data: what shows it."""
        cdef Request request = self._request_so_far()
        self.clients.counts.requests_refused += 1
        self.clients.refusals.note(problem.kind, self, data, request)
        self.body_coming = problem.status == 413 or (
            problem.status == 503 and request is not None and request.owner is not None
        )
        self.stop_reading()
        if request is None:
            request = unread_request()
        if request.owner is None:
            self.append(request)
            self.tell_refused(request)
        elif not request.answered():
            self.clients.handler.abandon(request)
            self.release(request)
        else:
            # It was answered by its head; that answer is the last one.
            return 0
        self.refusal_waits = self.clients.refusals.must_wait(self)
        return self.answer_problem(request, problem, detail, None)

    cdef int update_reading(self) except -1:
        """Read from the client, or pause: it does not read its answers, too many are due, or its body is not taken."""
        cdef bint pause = (
            self.write_paused or self.body_paused or (self.in_flight > 0 and not self.has_begun() and self.has_enough())
        )
        cdef Py_ssize_t offset
        cdef bytes tail
        if self.state != READING:
            return 0
        if self.tail_waits and not pause:
            # It ends here again, with less that waits.
            offset = self.unfinished.tail_offset
            tail = self.take_tail()
            return self._process(PyBytes_AS_STRING(tail), offset, PyBytes_GET_SIZE(tail), tail)
        if pause == self.read_paused:
            return 0
        self.read_paused = pause
        if pause:
            self.stream.pause()
        else:
            self.stream.resume()
        return 0

    cdef int pause_body(self, bint pause) except -1:
        if self.body_paused == pause or self.unfinished is None:
            return 0
        self.body_paused = pause
        if pause:
            self.unfinished.body_paused_tick = self.clients.wheel.tick
        else:
            # For that time its client was not slow.
            self.unfinished.body_began_tick += self.clients.wheel.tick - self.unfinished.body_paused_tick
        self.update_reading()
        return 0 if self.parsing else self.arm_for_reading()

    # Deadlines of reading.

    cdef int arm_for_reading(self) except -1:
        """Give the client the time that fits what it is doing; while the gateway pauses it, none is counted."""
        if self.write_paused or self.refusal_waits or (self.state != READING and self.state != ANSWERING):
            return 0
        if self.read_paused or self.state == ANSWERING:
            return self.arm(NO_DEADLINE)
        if self.parser is not None and self.parser.head_done:
            if self.parser.request.continue_due:
                return self.arm(NO_DEADLINE)
            return 0 if self.deadline_kind == BODY else self.arm(BODY)
        if self.parser is not None or (
            self.tail is not None and (not self.begins_nothing() or (self.clients.draining and not self.late))
        ):
            return 0 if self.deadline_kind == HEAD else self.arm(HEAD)
        if self.first is not None:
            return self.arm(NO_DEADLINE)
        if self.deadline_kind == FIRST_BYTE or self.deadline_kind == KEEPALIVE:
            return 0
        return self.arm(KEEPALIVE)

    cdef int read_deadline_passed(self, DeadlineKind kind) except -1:
        if kind == HEAD:
            return self.refuse(HEAD_TOO_SLOW, None, self.tail_example())
        return self.refuse(BODY_TOO_SLOW, None, self.parser.request.path or b"")

    # Making room for others.

    cdef bint request_waits(self) except -1:
        return self.stream.incoming_bytes() > 0

    cdef bint unused(self) except -1:
        return not self.late and not self.request_waits()

    cdef int end_unused(self) except -1:
        return self.end()

    cdef int evict(self) except -1:
        self.give_place()
        if self.state == LINGERING:
            return self.close()
        if self.arrival is not None:
            self._refuse_for_place()
        self.end()
        if self.state == LINGERING:
            if self.clients.refused_connections >= MAX_REFUSED_CONNECTIONS:
                return self.close()
            self.linger_uncounted()
        return 0

    cdef int _refuse_for_place(self) except -1:
        """Answer the unfinished request at once, unless it was answered by its head; nothing else is under way."""
        cdef Request request = self._request_so_far()
        cdef bint was_answered = request is not None and request.answered()
        self.clients.counts.requests_refused += 1
        self.clients.refusals.note(TOO_MANY_CONNECTIONS.kind, self, self.tail_example(), request)
        self.drop_requests(<int> outcomes.OUTCOME_OF_PROBLEM[TOO_MANY_CONNECTIONS.kind])
        self.drop_parser()
        self.take_tail()
        self.forget_arrival()
        if was_answered:
            return 0
        self.clients.counts.requests_answered += 1
        return self.write_refusal(request, TOO_MANY_CONNECTIONS, PLACE_NEEDED, None)

    cdef int end_slow_reader(self) except -1:
        self.clients.refusals.note("answer-read-too-slowly", self, b"", None)
        self.abort()
        # The stream drops what it was given; it tells of its end in the next turn of the loop.
        return self.answers_left()

    # Ending.

    cdef int begin_drain(self) except -1:
        if self.drops_body:
            return self.end_dropping()
        if self.state != READING:
            return 0
        if self.parser is not None or self.tail is not None:
            # A request is arriving; _hand_over() makes it the last one.
            return self.arm_for_reading()
        if self.first is not None:
            # An answer that was made before does not say that it is the last one, so the next request has to.
            return 0 if self.last.answered() else self.stop_reading()
        if self.written_bytes == 0 and not self.late:
            # What its client has sent may be on its way, or here and not read yet.
            self.late = True
            return self.arm(FIRST_BYTE)
        return 0

    cdef int refuse_unfinished(self) except -1:
        if self.state != READING:
            return 0
        if self.parser is None and self.tail is None and not self.stream.incoming_bytes():
            return self.end() if self.first is None else self.stop_reading()
        return self.refuse(STOPPING, None, b"")

