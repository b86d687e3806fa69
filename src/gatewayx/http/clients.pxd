"""All clients of the process, and what one client's connection is before any request: a channel that opens and ends."""

from gatewayx.core.budget cimport Account, Held
from gatewayx.core.counters cimport Counters, Counts
from gatewayx.core.deadlines cimport DeadlineWheel
from gatewayx.core.shared cimport Shared
from gatewayx.core.turns cimport Flag, Turn
from gatewayx.http.entrance cimport Entrance, Entrant
from gatewayx.http.idle cimport OccupantList, Room, Unread
from gatewayx.http.limits cimport Limits
from gatewayx.http.parser cimport RequestParser
from gatewayx.http.refusals cimport Refusals
from gatewayx.http.records cimport Records, RecordsState
from gatewayx.http.request cimport Request, RequestHandler
from gatewayx.http.response cimport ResponseBuilder
from gatewayx.net.stream cimport Stream

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
    # Idle parsers kept for the next request, whichever connection it comes from.
    MAX_IDLE_PARSERS = 64
    # Connections beside max_connections that linger: clients refused at accept, and those that had to make room before
    # they had all of their answer; above, they are closed at once and may miss it.
    MAX_REFUSED_CONNECTIONS = 256


cpdef enum ClientState:
    # The stream is not there yet.
    OPENING
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


cdef class Client


cdef class Clients:
    cdef object loop
    cdef DeadlineWheel wheel
    cdef Limits limits
    cdef RequestHandler handler
    cdef ResponseBuilder builder
    cdef Room room
    cdef Refusals refusals
    # All open connections, lingering ones too, from the first that came on; at most limits.max_connections, refused ones
    # aside.
    cdef Client first_client
    cdef Client last_client
    cdef readonly Py_ssize_t connections
    # How many of them do not count in max_connections; at most MAX_REFUSED_CONNECTIONS.
    cdef readonly Py_ssize_t refused_connections
    # How many of them read a body that their last answer refuses, and drop it; at most MAX_BODY_LINGERERS.
    cdef readonly Py_ssize_t body_lingerers
    cdef long long body_linger_bytes
    # Where connections count, and those of an address, or of a /64 of IPv6, if that has a bound.
    cdef Shared shared
    # Who is let in.
    cdef Entrance entrance
    # Whether the process that has connected to relay is one of this gateway's.
    cdef object relay_peers
    # Where connections write what was gathered in a turn of the loop.
    cdef Turn turn
    # A client that has closed its sending side waits for its answers; else it has hung up.
    cdef readonly bint answers_half_closed
    # Those that no request is being read with, each behind the one that was given back after it; a list would be resized each time.
    cdef RequestParser idle_parser
    cdef Py_ssize_t idle_parsers
    # No new connections: the next answer on each is its last one, and closes it.
    cdef readonly bint draining
    # An asyncio.Event: draining, and the last connection is gone.
    cdef readonly object emptied

    # Requests that have begun and whose answers are not written.
    cdef readonly Py_ssize_t requests_in_flight
    # Tells of each, and which number the last connection has that clients have opened.
    cdef Records records
    cdef RecordsState* record_state
    cdef unsigned int last_serial
    # Keeps the row alive to which `counts` points.
    cdef Counters counted_in
    cdef Counts* counts

    # The problem for which a new connection is not let in; None if it is.
    cdef object refusal(self, Client client)
    cdef int add(self, Client client) except -1
    cdef int remove(self, Client client) except -1
    # All connections now.
    cdef list all_clients(self)
    cdef RequestParser take_parser(self)
    cdef int give_back_parser(self, RequestParser parser) except -1


cdef class Client(Entrant):
    cdef Clients clients
    # None before it is opened and after it is lost.
    cdef Stream stream
    # The connections that came before and after it, as long as it is one of clients'.
    cdef Client previous_client
    cdef Client next_client
    # Changed by change() alone.
    cdef readonly ClientState state
    # One deadline at a time is enough: while the client does not read its answers nothing is read from it.
    cdef DeadlineKind deadline_kind
    # It is one of the connections of clients.
    cdef Flag is_known
    # It does not count in max_connections: refused at accept or evicted, it is one of the connections to linger.
    cdef Flag refused
    # Its client has closed its sending side, and waits for its answers.
    cdef Flag half_closed
    # It was accepted in a stop, or so shortly before that no byte had come: one request is served.
    cdef Flag late
    # As another process of this gateway it has said for whom it asks next.
    cdef Flag introduced
    # Nothing is read from the client: it does not read its answers, or too many of them are due.
    cdef Flag read_paused
    # Whoever takes the body that arrives takes no more for now.
    cdef Flag body_paused
    # The client does not read: the kernel's buffer for it is full.
    cdef Flag write_paused
    # The last answer refuses a body that may still be coming; it is one of clients.body_lingerers.
    cdef Flag body_coming
    cdef Flag drops_body
    # Which of the process's connections it is, modulo 2^32, and how many requests have begun on it; and the client's address as text, once
    # the access log has asked for it.
    cdef unsigned int serial
    cdef unsigned int requests_begun
    cdef bytes host_text
    # The loop time at which the head being read must end, while its deadline is armed; otherwise the seconds that are left
    # for it, -1 if it never was.
    cdef double head_s
    # Bytes handed to the stream so far, and how many of them the client had when the write deadline was armed.
    cdef unsigned long long written_bytes
    cdef unsigned long long delivered_bytes
    # What it has of the byte budget for answers that have not left, and how many bytes of that the stream was given and
    # the kernel has not all taken.
    cdef Held answers_held
    cdef long long unread_bytes
    # How the client takes them; None unless it is write_paused.
    cdef Unread unread
    # Bytes dropped since the last request was read, and the tick at which the last of them came.
    cdef long long dropped_bytes
    cdef long long dropped_tick
    # The tick at which it has lingered for long enough.
    cdef long long linger_ends_tick

    # Abstract: a connection that serves requests says what they do.

    # Nothing more is read or answered: let go of all that is held for requests.
    cdef int let_requests_go(self) except -1
    # The connection is about to be closed before its client has all of what was begun.
    cdef int cut_answer(self) except -1
    # Answer with a problem at once, as the last thing. request: to which, None for one of which nothing is known.
    # headers: in place of the problem's own.
    cdef int write_refusal(self, Request request, object problem, str detail, bytes headers) except -1
    # Seconds in which the next byte of the body must come.
    cdef double body_left_s(self) noexcept
    # The next answer is the last one.
    cdef int begin_drain(self) except -1
    # Serve no more requests than those that are here; answer those that have not fully arrived with 503.
    cdef int refuse_unfinished(self) except -1
    # A deadline of what is being read has passed.
    cdef int read_deadline_passed(self, DeadlineKind kind) except -1

    # For the classes that are derived from it.

    cpdef int change(self, ClientState state) except -1
    cdef int write_pieces(self, list pieces) except -1
    cdef int drop_received(self, Py_ssize_t size_bytes) except -1
    # Count so many bytes of answers more, or less; they are here and cannot be refused any more.
    cdef int hold_answers(self, long long more_bytes) except -1
    # The kernel has all answers that were written, or nobody will ever read them.
    cdef int answers_left(self) except -1
    # The client takes its answers too slowly for a crowded account.
    cdef bint takes_slowly(self, Account account) except -1
    cdef int arm(self, DeadlineKind kind) except -1
    # The last answer is written: send FIN, and drop what the client still sends until it closes.
    cdef int linger(self) except -1
    # It lingers beside max_connections.
    cdef int linger_uncounted(self) except -1
    # A refused body is not waited for any more.
    cdef int end_dropping(self) except -1
    # No answer is due any more: close, but not before the client has what it was answered.
    cdef int end(self) except -1
    cdef int close(self) except -1
    cdef int abort(self) except -1
    # Answer before any request, linger and close.
    cdef int refuse_connection(self, object problem) except -1
    # It is gone: it counts nowhere any more.
    cdef int leave(self) except -1
    cdef double _linger_left_s(self) noexcept
    cdef int _write_deadline_passed(self) except -1
    # How many bytes of the answers the client's kernel has confirmed.
    cdef unsigned long long _delivered(self) except? 0
    # Whether the client's kernel has not confirmed all that was written, FIN included.
    cdef bint _undelivered(self) except -1
