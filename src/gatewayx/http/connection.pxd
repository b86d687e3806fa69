"""The clients' side of the process, and one client's connection."""

from gatewayx.core.budget cimport Account, ByteBudget, Held
from gatewayx.core.deadlines cimport DeadlineWheel, Expiring
from gatewayx.http.arrivals cimport Arrival, Arrivals
from gatewayx.http.limits cimport Limits
from gatewayx.http.parser cimport RequestParser
from gatewayx.http.request cimport Request, RequestHandler, RequestOwner
from gatewayx.http.response cimport ResponseBuilder, RetryAfter

cpdef enum:
    # After the last answer, what the client still sends is dropped up to here and this long, so that closing with
    # unread input does not reset the connection and take the answer with it (RFC 9112 9.6).
    LINGER_BYTES = 2097152
    LINGER_S = 2
    # Many clients send all of a body before they read (urllib, Node's http), so after the refusal of one that is still
    # coming more of it is dropped: for so long in all and without a byte (nginx: lingering_time 30 s, lingering_timeout
    # 5 s), up to so many bytes or so many times the largest body, and for so many connections at once. The others
    # linger as after any answer.
    BODY_LINGER_S = 30
    BODY_LINGER_QUIET_S = 5
    BODY_LINGER_BYTES = 67108864
    BODY_LINGER_BODIES = 4
    MAX_BODY_LINGERERS = 256
    # A client that is heard only in a stop, since its connection waited to be accepted or had just been, has so long to
    # begin its one request.
    LAST_CALL_S = 1
    # Connections beside max_connections that linger: clients refused at accept, and those that had to make room before
    # they had all of their answer; above, they are closed at once and may miss it.
    MAX_REFUSED_CONNECTIONS = 256
    # Malformed and late requests that are answered at once, a tick of the wheel; each of the others waits for
    # REFUSAL_DELAY_MS, so that who floods as fast as the answers come is slowed down and everybody else is not
    # (HAProxy: tarpit).
    PROMPT_REFUSALS = 64
    REFUSAL_DELAY_MS = 50
    # How often it is looked whose time has come, and how many are answered at most in a loop turn: those who wait
    # leave as evenly as they came, since a hundred answered together would hold up everybody else.
    REFUSAL_TICK_MS = 2
    REFUSALS_PER_TURN = 16
    # Refusals that wait at once; above, they are answered at once.
    MAX_WAITING_REFUSALS = 10000
    # Of the bytes that came when a request was refused, shown in the log.
    EXAMPLE_BYTES = 64
    # Idle parsers kept for the next request, whichever connection it comes from.
    MAX_IDLE_PARSERS = 64
    # Idle connections of which it is asked, for each newcomer at max_connections, whether a request has come.
    MAX_LOOKED_AT = 64
    # While an account of the byte budget is crowded, a body or an unread answer must keep the pace at which all of it
    # passes in PACE_S, from PACE_GRACE_S on; small things must move once in STILL_S.
    PACE_S = 30
    PACE_GRACE_S = 2
    STILL_S = 1


cdef enum ConnectionState:
    # Requests are read.
    READING
    # The last request has been read; what follows is dropped.
    ANSWERING
    # The last answer was written and the sending side is closed.
    LINGERING
    CLOSED


cdef enum DeadlineKind:
    NO_DEADLINE
    FIRST_BYTE
    HEAD
    BODY
    KEEPALIVE
    WRITE
    LINGER


cdef class ConnectionList:
    """Connections in the order in which they came to it; each stands in one list at most."""
    cdef HttpConnection first
    cdef HttpConnection last

    cdef int append(self, HttpConnection connection) except -1
    cdef int remove(self, HttpConnection connection) except -1


cdef class HttpServer:
    cdef object loop
    cdef DeadlineWheel wheel
    cdef Limits limits
    cdef RequestHandler handler
    cdef ResponseBuilder builder
    cdef ByteBudget budget
    # What every 503 and 429 says of when to come again.
    cdef RetryAfter retry_after
    # All open connections, lingering ones too; at most limits.max_connections, refused ones aside.
    cdef set connections
    # How many of them do not count in max_connections; at most MAX_REFUSED_CONNECTIONS.
    cdef readonly Py_ssize_t refused_connections
    # Who makes room at max_connections, the first of each first, one list after the other. Dropping: they have their
    # last answer, and a body that it refused is read and dropped; with those that make no room, at most
    # MAX_BODY_LINGERERS. Lingering: they have their last answer.
    cdef ConnectionList dropping
    cdef readonly Py_ssize_t body_lingerers
    cdef long long body_linger_bytes
    cdef ConnectionList lingering
    # Idle: no byte of a request is there and none is being served.
    cdef ConnectionList idle
    # Requests of which a part is here; as many as there are connections, at most.
    cdef Arrivals arrivals
    # Connections that do not read their answers, or have more than SMALL_BYTES of them wait behind one that is not there
    # yet, as keys, the longest so first.
    cdef dict unread
    # Open connections by address, or by /64 of IPv6; empty unless they are bounded.
    cdef dict addresses
    # Why requests and connections were refused since the last take_events(): kind to [count, example, peer]. As many
    # entries as there are kinds.
    cdef dict events
    # Connections with something to write in this loop turn.
    cdef list dirty
    cdef list idle_parsers
    # Connections whose refusal waits, the next one due first; at most MAX_WAITING_REFUSALS.
    cdef object waiting_refusals
    # The next look at them is due; there is never more than one.
    cdef bint refusals_scheduled
    # The tick of the last refusal, and how many it had.
    cdef long long refusal_tick
    cdef int refusals_in_tick
    # No more requests: what is in flight is answered, and each connection closed after that.
    cdef readonly bint draining
    # An asyncio.Event: draining, and the last connection is gone.
    cdef readonly object emptied

    # Requests that have begun and whose answers are not written.
    cdef readonly Py_ssize_t requests_in_flight
    cdef readonly unsigned long long connections_accepted
    cdef readonly unsigned long long connections_refused
    # Those that were closed to make room for new ones.
    cdef readonly unsigned long long connections_evicted
    # Unfinished requests, and connections with unread answers, that were ended since the byte budget was crowded or full.
    cdef readonly unsigned long long arrivals_ended
    cdef readonly unsigned long long answers_ended
    cdef readonly unsigned long long requests_answered
    # Requests refused by the parser or by a deadline.
    cdef readonly unsigned long long requests_refused
    # Refusals that did not leave at once.
    cdef readonly unsigned long long refusals_delayed
    # Requests whose client was gone before the answer.
    cdef readonly unsigned long long requests_abandoned
    # Clients that were cut off since they did not read.
    cdef readonly unsigned long long writes_timed_out

    cdef RequestParser take_parser(self)
    cdef int give_back_parser(self, RequestParser parser) except -1
    cdef int mark_dirty(self, HttpConnection connection) except -1
    # Whether the connection's refusal must wait; it is in waiting_refusals then.
    cdef bint refusal_waits(self, HttpConnection connection) except -1
    # Something was refused: counted, and the first of a kind kept as an example.
    cdef int note(self, str kind, HttpConnection connection, bytes data) except -1
    # The header lines of a problem: those given or else its own, and Retry-After where the cause may pass.
    cdef bytes problem_headers(self, object problem, bytes headers)
    # The problem for which a new connection is not let in; None if it is.
    cdef object refusal(self, HttpConnection connection)
    # At max_connections: end whichever connection is needed least; False if all are busy.
    cdef bint make_room(self) except -1
    # End at most so many of those that are too slow for the room that is left; returns how many were ended.
    cpdef int relieve(self, int most) except -1
    cdef HttpConnection _idlest(self)
    cdef HttpConnection _stillest(self)
    cdef long long _ticks_ago(self, double seconds) noexcept
    cdef int _end_still(self, int most) except -1
    cdef int _end_slow_bodies(self, int most) except -1
    cdef int _end_slow_readers(self, Account account, int most) except -1


cdef class HttpConnection(RequestOwner):
    cdef HttpServer server
    cdef object transport
    cdef ConnectionState state
    # Held only while a request is being read: an idle connection costs no parser.
    cdef RequestParser parser
    # The list in which it stands, None for none, and its neighbours there.
    cdef ConnectionList place
    cdef HttpConnection previous_in_place
    cdef HttpConnection next_in_place
    # It does not count in max_connections: refused at accept or evicted, it stands in server.connections to linger.
    cdef bint refused
    # It was accepted in a stop, or so shortly before that no byte had come: one request is served.
    cdef bint late
    # Under which it counts in server.addresses; None if it does not.
    cdef bytes address
    # The unfinished request that it sends; None while there is none.
    cdef Arrival arrival
    # Whom it counts for among the senders of unfinished requests; None until there was one.
    cdef bytes sender_address
    # Bytes that the parser has not taken: an unfinished line, or what came before reading was paused.
    # Of it, what stands before tail_offset was taken; tail_waits: whole requests may be among the rest.
    cdef bytes tail
    cdef Py_ssize_t tail_offset
    cdef bint tail_waits
    # What it has of the byte budget: for the tail, for head and body of the request being read, and for all answers
    # that have not left.
    cdef Held tail_held
    cdef Held head_held
    cdef Held body_held
    cdef Held answers_held
    # The requests that have begun and whose answers are not written, oldest first, and how many they are.
    cdef Request first
    cdef Request last
    cdef int in_flight
    # It stands in server.dirty.
    cdef bint dirty
    # The last answer is a refusal that waits until this loop time.
    cdef bint refusal_waits
    cdef double refusal_due_s
    cdef bint read_paused
    # The client does not read: the kernel's buffer for it is full.
    cdef bint write_paused
    # One deadline at a time is enough: while the client does not read its answers nothing is read from it.
    cdef DeadlineKind deadline_kind
    # Bytes handed to the transport so far, and how many of them the client had when the write deadline was armed.
    cdef unsigned long long written_bytes
    cdef unsigned long long delivered_bytes
    # Bytes of answers that the transport was given and the kernel has not all taken.
    cdef long long unread_bytes
    # Since when the client does not take all of them: the tick, how many had left by then, how many had when it was
    # looked at last, and the tick at which that had changed.
    cdef long long unread_began_tick
    cdef unsigned long long unread_began_bytes
    cdef unsigned long long unread_seen_bytes
    cdef long long unread_moved_tick
    # Seconds that were left for the head being read when its deadline was last armed or put off, -1 if it never was;
    # and the loop time at which it ends while it is armed.
    cdef double head_left_s
    cdef double head_ends_s
    # The tick at which the body being read began, later by what the client was paused since, and its bytes so far.
    cdef long long body_began_tick
    cdef long long body_bytes
    # The tick at which the client was paused.
    cdef long long paused_tick
    # Bytes dropped since the last request was read, and the tick at which the last of them came.
    cdef long long dropped_bytes
    cdef long long dropped_tick
    # The last answer refuses a body that may still be coming; it is one of server.body_lingerers.
    cdef bint body_coming
    cdef bint drops_body
    # The tick at which it has lingered for long enough.
    cdef long long linger_ends_tick

    cdef int begin_drain(self) except -1
    cdef int refuse_unfinished(self) except -1
    # It is closed to make room for another connection.
    cdef int evict(self) except -1
    cdef int flush(self) except -1
    # The refusal has waited long enough.
    cdef int refusal_due(self) except -1
    cdef int abort(self) except -1
    cdef int _process(self, bytes data, Py_ssize_t offset) except -1
    cdef int _keep_tail(self, bytes data, Py_ssize_t offset, bint waits) except -1
    cdef bytes _take_tail(self)
    cdef bytes _join_tail(self, bytes data)
    cdef bytes _tail_example(self)
    cdef bint _begins_nothing(self)
    cdef int _begin(self, Request request, RequestParser parser, Py_ssize_t here_bytes) except -1
    cdef int _completed(self, Request request) except -1
    cdef int _stop_reading(self) except -1
    cdef int max_in_flight(self) noexcept
    # Its unfinished request is ended for others: no room is left, or it is too slow while there is little.
    cdef int end_arrival(self) except -1
    cdef bint is_behind(self) noexcept
    cdef bint reads_behind(self, Account account) except -1
    cdef bint _answers_wait(self) noexcept
    cdef bint _admit(self, Request request, RequestParser parser) except -1
    cdef bint _room(self, Held* entry, Account account, long long size_bytes) except -1
    cdef int _follow_arrival(self) except -1
    cdef int _tell_arrival(self) except -1
    cdef int _forget_arrival(self) except -1
    cdef int _let_arrival_go(self) except -1
    cdef int _hold_answers(self, long long more_bytes) except -1
    cdef int _over_budget(self, Request request) except -1
    cdef int _release(self, Request request) except -1
    cdef int _hand_over(self, Request request) except -1
    cdef int _append(self, Request request) except -1
    cdef int _refuse(self, object problem, str detail, bytes data) except -1
    cdef int _internal_error(self, Request request) except -1
    cdef int _refuse_connection(self, object problem) except -1
    cdef int _mark_dirty(self) except -1
    cdef int _write(self, list buffers) except -1
    cdef int _arm(self, DeadlineKind kind) except -1
    cdef int _arm_for_reading(self) except -1
    cdef double _body_left_s(self) noexcept
    cdef int _update_reading(self) except -1
    cdef bint _serves_last(self) noexcept
    cdef int _linger(self) except -1
    cdef double _linger_left_s(self) noexcept
    cdef int _dropped_much(self) except -1
    cdef int _end_dropping(self) except -1
    cdef int _refuse_for_place(self) except -1
    cdef int _linger_uncounted(self) except -1
    cdef int _end(self) except -1
    cdef int _close(self) except -1
    cdef unsigned long long _delivered(self) except? 0
    cdef bint _undelivered(self) except -1
    cdef int _queued_bytes(self, unsigned long request) except -1
    cdef int _write_deadline_passed(self) except -1
    cdef int _left(self) except -1
    cdef int _drop_requests(self) except -1
    cdef int _drop_parser(self) except -1
