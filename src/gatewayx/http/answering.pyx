"""The requests of a client's connection that are under way, and their answers in the order of the requests.

A request is one of them from the end of its head until its answer is written. They all run at once; an answer that comes
before its turn waits in its Request.
"""

import logging

from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE

from libc.string cimport memcpy

from gatewayx.core.budget cimport SMALL_BYTES, Account
from gatewayx.http.arriving cimport ArrivingClient
from gatewayx.http.clients cimport ANSWERING, READING
from gatewayx.http.idle cimport PACE_GRACE_S, Unread
from gatewayx.http.records cimport MOST_LINES_BYTES, begin_record, end_record, put_ending
from gatewayx.http.request cimport (
    ID_BYTES,
    METHOD_HEAD,
    UNKNOWN_BYTES,
    BodySource,
    ProxyNote,
    Request,
    request_name,
    unread_request,
)
from gatewayx.http.response cimport INLINE_BODY_BYTES, problem_body

from gatewayx.http import outcomes
from gatewayx.http.problems import INTERNAL_ERROR
from gatewayx.http.response import CONTINUE, PROBLEM_CONTENT_TYPE

cdef int CUT = outcomes.ANSWER_CUT
cdef int GONE = outcomes.CLIENT_GONE

# In place of an answer that was sent as it was made.
cdef bytes SENT = b""

logger = logging.getLogger("gatewayx.http")

# The value of Connection in an answer, by what _end_of() tells; NULL for no header.
ctypedef const char* Word
cdef Word[3] CONNECTION_WORDS
CONNECTION_WORDS[:] = [NULL, b"close", b"keep-alive"]


cdef inline int _end_of(AnsweringClient client, Request request, bint ends_its_body=False) except -1:
    """Decide whether the connection ends with the answer, and stop reading if so; an index of CONNECTION_WORDS.

    ends_its_body: nothing else tells where the body ends. Requests behind it get no answer, if a client of HTTP/1.0 has sent any.
    """
    request.closes = ends_its_body or request is client.last and (
        client.state != READING
        or not request.keep_alive
        # A client that waits for "100 Continue" may or may not send the body now (RFC 9110 10.1.1). Another process may have
        # sent all of it, and would ask again behind it.
        or (not request.complete and (request.expects_continue or client.relayed or client.serves_last()))
    )
    if request.closes:
        if client.state == READING:
            client.body_coming = not request.complete and not request.expects_continue
            client.stop_reading()
        return 1
    return 2 if request.minor_version == 0 else 0


cdef class AnsweringClient(ArrivingClient):
    """A client's connection and its requests under way."""

    cdef int stop_reading(self) except -1:
        raise NotImplementedError

    cdef int update_reading(self) except -1:
        raise NotImplementedError

    cdef int arm_for_reading(self) except -1:
        raise NotImplementedError

    # Beginning.

    cdef int note(self, Request request) except -1:
        """Where the request comes from, for those who tell of it: it has begun."""
        if self.relayed:
            # Its client's own process tells of it, and has given it a name.
            if self.unfinished is not None:
                memcpy(request.id, self.unfinished.relayed_id, ID_BYTES)
                if self.unfinished.relayed_name is not None:
                    request.proxy_note = ProxyNote.__new__(ProxyNote)
                    request.proxy_note.name = self.unfinished.relayed_name
            return 0
        if self.clients.records.log is None:
            return 0
        return self.clients.records.note(request, self.host(request), self.serial, self.requests_begun)

    cdef int end_record(self, Request request) except -1:
        if request.proxy_note is not None:
            self.give_request(request)
        return 0 if self.relayed else end_record(self.clients.records, self.clients.record_state, request)

    cdef bytes host(self, Request request):
        """The client's address as text; None if it has none."""
        if request.proxy_note is not None and request.proxy_note.host is not None:
            return request.proxy_note.host
        if self.host_text is None:
            self.host_text = self.peer_host().encode()
        return self.host_text or None

    cdef int write_refusal(self, Request request, object problem, str detail, bytes headers) except -1:
        cdef char[MOST_LINES_BYTES] lines
        cdef bint is_told = request is not None and request.begun_ns != 0
        cdef bytes answer
        if request is None:
            self.clients.refusals.note(problem.kind, self, b"", None)
            request = unread_request()
        if not is_told:
            begin_record(self.clients.record_state, request)
            self.requests_begun += 1
            self.note(request)
            self.tell_refused(request)
            request.outcome = <int> outcomes.OUTCOME_OF_PROBLEM[problem.kind]
        answer = self.clients.builder.problem(
            problem,
            detail,
            self.clients.refusals.headers(problem, headers),
            lines[: self._put_lines(lines, request) - lines],
            request.answer_lines,
            request_name(request),
        )
        request.sent_bytes = PyBytes_GET_SIZE(answer)
        if not is_told:
            self.end_record(request)
        return self.write_pieces([answer])

    cdef int tell_refused(self, Request request) except -1:
        if not self.relayed:
            self.clients.handler.refused(request)
        # Nobody else looks at what is known of its head.
        request.headers = None
        return 0

    cdef int append(self, Request request) except -1:
        request.owner = self
        begin_record(self.clients.record_state, request)
        self.requests_begun += 1
        if self.relayed or self.clients.records.log is not None:
            self.note(request)
        if self.last is None:
            self.first = request
        else:
            self.last.next = request
        self.last = request
        self.in_flight += 1
        self.clients.requests_in_flight += 1
        return 0

    cdef int release(self, Request request) except -1:
        """What was held for the request is gone, or in other hands."""
        self.clients.room.budget.release(&request.held)
        return 0

    cdef bint serves_last(self) noexcept:
        """Whether the next request that is complete is the last one."""
        return self.late or self.clients.draining

    # Answering.

    cdef int answer(
        self,
        Request request,
        int status,
        bytes content_type,
        const char* headers,
        Py_ssize_t headers_bytes,
        object body,
    ) except -1:
        cdef Py_ssize_t size
        cdef const char* body_start = NULL
        cdef const char* connection
        cdef Py_ssize_t body_bytes = -1
        cdef Py_ssize_t inline_bytes = 0
        cdef char[MOST_LINES_BYTES] lines
        if request.owner is None or request.answered():
            return 0
        connection = CONNECTION_WORDS[_end_of(self, request)]
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
        size = self.clients.builder.compose(
            status,
            content_type,
            headers,
            headers_bytes,
            lines,
            self._put_lines(lines, request) - lines,
            request.answer_lines,
            body_start,
            body_bytes,
            inline_bytes,
            connection,
        )
        if self._is_only(request):
            return self._send(request, size)
        request.response = PyBytes_FromStringAndSize(self.clients.builder.composed, size)
        if request.response_body is not None:
            size += body_bytes
        return self._line_up(request, size)

    cdef const char* end_with(self, Request request, bint ends_its_body) except? NULL:
        return CONNECTION_WORDS[_end_of(self, request, ends_its_body)]

    cdef char* _put_lines(self, char* end, Request request) noexcept:
        """Write the header lines that every answer has of its own."""
        return put_ending(end, request) if self.relayed else self.clients.records.put_lines(end, request)

    cdef int _line_up(self, Request request, Py_ssize_t size) except -1:
        """The answer, of which so many bytes are here, leaves when it is its turn."""
        if not request.complete and self.parser is not None and self.parser.request is request:
            # What is still to come of its body is dropped.
            self.let_arrival_go()
        self.release(request)
        request.sent_bytes = size
        # What the log tells of it is kept as long as the answer.
        size += request.noted_bytes()
        request.answer_bytes = size
        self.hold_answers(size)
        request.answered_tick = self.clients.wheel.tick
        if request is self.first and not (self.refusal_waits and request is self.last):
            self.clients.turn.add_client(self)
        elif self.answers_held.size_bytes > SMALL_BYTES:
            # They wait for their turn, and nobody reads them meanwhile.
            self.clients.room.unread[self] = None
        return 0

    cdef bint _is_only(self, Request request) noexcept:
        """Whether its small answer can leave at once: nothing else is under way, waits to leave, or is being read."""
        return (
            request is self.first
            and request is self.last
            and request.complete
            and request.response_body is None
            and not request.closes
            and self.state == READING
            and not self.parsing
            and self.tail is None
            and not self.refusal_waits
            and not self.write_paused
            and self.unread_bytes == 0
        )

    cdef int _send(self, Request request, Py_ssize_t size) except -1:
        """Send the answer that was composed, of the only request under way."""
        self.release(request)
        request.response = SENT
        request.owner = None
        request.sent_bytes = size
        self.first = None
        self.last = None
        self.in_flight = 0
        self.clients.requests_in_flight -= 1
        self.clients.counts.requests_answered += not self.relayed
        self.written_bytes += size
        self.stream.send(self.clients.builder.composed, size)
        if self.write_paused:
            self.unread_bytes = size
            self._wait_until_taken(request)
            return self.hold_answers(size)
        self.end_record(request)
        if self.read_paused:
            self.update_reading()
        return self.arm_for_reading()

    cdef int answer_problem(self, Request request, object problem, str detail, bytes headers) except -1:
        cdef bint is_empty = self.clients.builder.empty_error_bodies
        if request.owner is None or request.answered():
            return 0
        request.outcome = <int> outcomes.OUTCOME_OF_PROBLEM[problem.kind]
        headers = self.clients.refusals.headers(problem, headers)
        return self.answer(
            request,
            problem.status,
            None if is_empty else PROBLEM_CONTENT_TYPE,
            NULL if headers is None else PyBytes_AS_STRING(headers),
            0 if headers is None else PyBytes_GET_SIZE(headers),
            b"" if is_empty else problem_body(
                problem, problem.detail if detail is None else detail, request_name(request)
            ),
        )

    cdef int internal_error(self, Request request) except -1:
        logger.exception("a request's handler failed")
        self.clients.handler.abandon(request)
        return self.answer_problem(request, INTERNAL_ERROR, "the gateway has failed on this request", None)

    cdef int refusal_due(self) except -1:
        self.refusal_waits = False
        return self.clients.turn.add_client(self)

    cdef int end_turn(self) except -1:
        """Write what is due, in order."""
        cdef Request request = self.first
        cdef BodySource source = None
        cdef list buffers = []
        cdef Request leaving = None
        cdef Request last = None
        cdef Request following
        cdef bint closes = False
        if self.state != READING and self.state != ANSWERING:
            return 0
        while request is not None and request.answered() and not closes:
            if self.refusal_waits and request is self.last:
                break
            if request.response is not SENT:
                buffers.append(request.response)
            if request.response_body is not None:
                buffers.append(request.response_body)
            if (request.note is not None or request.proxy_note is not None) and request.answer_bytes:
                self.hold_answers(-request.noted_bytes())
                request.answer_bytes -= request.noted_bytes()
            self.unread_bytes += request.answer_bytes
            request.answer_bytes = 0
            if request.source is not None:
                # Its head leaves, and nothing behind it before its body.
                source = request.source
                request.response = SENT
                request.response_body = None
                break
            closes = request.closes
            self.in_flight -= 1
            self.clients.requests_in_flight -= 1
            self.clients.counts.requests_answered += not self.relayed
            self.first = request.next
            request.next = None
            request.owner = None if request.complete else self
            if leaving is None:
                leaving = request
            else:
                last.next = request
            last = request
            request = self.first
        if request is None:
            self.last = None
            closes = closes or (self.state == ANSWERING)
        elif request.continue_due and not request.answered() and not closes:
            request.continue_due = False
            # From now on the client does send the body.
            request.expects_continue = False
            buffers.append(CONTINUE)
            # Who has waited for it was not slow.
            self.parts()
            self.unfinished.body_began_tick = self.clients.wheel.tick
            self.unfinished.body_bytes = 0
        if buffers:
            self.write_pieces(buffers)
            if not self.write_paused:
                self.answers_left()
        while leaving is not None:
            following = leaving.next
            leaving.next = None
            if self.write_paused:
                self._wait_until_taken(leaving)
            else:
                self.end_record(leaving)
            leaving = following
        if closes:
            return self.linger()
        self.update_reading()
        self.arm_for_reading()
        if source is not None and buffers and not self.write_paused:
            return source.wanted()
        return 0

    cdef int _wait_until_taken(self, Request request) except -1:
        """The stream has its answer, and the kernel does not take all of it yet: it has not ended."""
        cdef Unread unread = self.unread
        request.response = SENT
        request.response_body = None
        self.hold_answers(request.noted_bytes())
        if unread.first_leaving is None:
            unread.first_leaving = request
        else:
            unread.last_leaving.next = request
        unread.last_leaving = request
        return 0

    cdef int end_leaving(self, Unread unread, long long dropped_bytes) except -1:
        """All answers that the stream was given were taken, but for so many bytes of the last ones."""
        cdef Request request, following
        cdef long long taken_bytes = -dropped_bytes
        if unread is None or unread.first_leaving is None:
            return 0
        request = unread.first_leaving
        while request is not None:
            taken_bytes += request.sent_bytes
            request = request.next
        request = unread.first_leaving
        unread.first_leaving = None
        unread.last_leaving = None
        while request is not None:
            following = request.next
            request.next = None
            self.hold_answers(-request.noted_bytes())
            if taken_bytes < request.sent_bytes:
                request.outcome = CUT
                request.sent_bytes = max(0, taken_bytes)
            taken_bytes = max(0, taken_bytes - request.sent_bytes)
            self.end_record(request)
            request = following
        return 0

    # Who has no answer yet, or does not take it.

    cdef bint only_arrives(self) noexcept:
        return not self.relayed and not self.read_paused and (
            self.first is None or not (self.first.complete or self.first.answered())
        )

    cdef bint reads_slowly(self, Account account) except -1:
        if self.answers_held.account != account:
            return False
        if self.answers_held.size_bytes - self.unread_bytes > SMALL_BYTES and self._answers_wait():
            return True
        return self.takes_slowly(account)

    cdef bint _answers_wait(self) noexcept:
        """An answer waits for PACE_GRACE_S behind that of another request, so none of it can have left."""
        cdef Request request = self.first
        cdef long long grace_tick = self.clients.room.ticks_ago(PACE_GRACE_S)
        while request is not None:
            if request.answer_bytes and request.answered_tick < grace_tick:
                return True
            request = request.next
        return False

    # Ending.

    cdef int let_requests_go(self) except -1:
        self.drop_requests(GONE)
        self.drop_parser()
        self.take_tail()
        return self.forget_arrival()

    cdef int _break_off(self, Request request) except -1:
        """The answer has begun, and its rest never comes."""
        request.sent_bytes -= min(request.sent_bytes, self.stream.pending_bytes() + self.stream.dropped_bytes())
        if request.due_bytes == UNKNOWN_BYTES and request.minor_version == 0 and not self.stream.closing():
            # Its body ends with the connection: its client must not take what it has for all of it.
            self.stream.reset()
        return 0

    cdef int drop_requests(self, int outcome) except -1:
        """No answer can be given any more, which is how they end."""
        cdef Request request = self.first
        cdef Request following
        self.first = None
        self.last = None
        if request is not None and request.source is not None and request.has_left():
            self._break_off(request)
        while request is not None:
            following = request.next
            request.next = None
            request.owner = None
            self.release(request)
            self.hold_answers(-request.answer_bytes)
            request.answer_bytes = 0
            self.in_flight -= 1
            self.clients.requests_in_flight -= 1
            self.clients.counts.requests_abandoned += not self.relayed
            if not request.answered() or request.source is not None:
                request.source = None
                try:
                    self.clients.handler.abandon(request)
                except Exception:
                    logger.exception("a request's handler failed")
            if request.outcome != CUT:
                request.outcome = outcome
            self.end_record(request)
            request = following
        if self.clients.room.unread and not self.write_paused:
            self.clients.room.unread.pop(self, None)
        return 0
