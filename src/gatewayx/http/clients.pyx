"""All clients of the process, and what one client's connection is before any request: a channel that opens and ends.

Theory of operation. A connection ends with its last answer: after `Connection: close`, after a request that was refused
since its framing is in doubt, while draining. Then it lingers, so that the client can read the answer. `change` alone
changes the state, and knows which changes are legal:

    OPENING -> READING -> ANSWERING -> LINGERING -> CLOSED

A connection that is refused lingers at once, one without an answer that is under way closes at once.
"""

import asyncio
import logging

cimport cython

from gatewayx.core.budget cimport ACCOUNTS, RESULTS, SMALL, SMALL_BYTES, Account, ByteBudget
from gatewayx.core.counters cimport Counters
from gatewayx.core.deadlines cimport DeadlineWheel
from gatewayx.core.rates cimport Rates
from gatewayx.core.shared cimport CONNECTIONS, Shared
from gatewayx.core.turns cimport Turn
from gatewayx.http.entrance cimport Entrance, Entrant
from gatewayx.http.idle cimport OccupantList, Room, Unread
from gatewayx.http.limits cimport Limits
from gatewayx.http.parser cimport RequestParser
from gatewayx.http.forwarded cimport TrustedProxies
from gatewayx.http.refusals cimport Refusals
from gatewayx.http.records cimport Records
from gatewayx.http.request cimport Request, RequestHandler
from gatewayx.http.response cimport ResponseBuilder
from gatewayx.net.stream cimport Stream

from gatewayx.core.metrics import alone as metrics_alone
from gatewayx.core.rates import alone as rates_alone
from gatewayx.core.shared import alone
from gatewayx.errors import StateError
from gatewayx.http.problems import (
    STOPPING,
    TOO_MANY_CONNECTIONS,
    TOO_MANY_CONNECTIONS_PER_ADDRESS,
    TOO_MANY_CONNECTIONS_TOO_FAST,
)

from libc.math cimport fmax, fmin
from libc.stdint cimport uint64_t

logger = logging.getLogger("gatewayx.http")

# By state: the states that may follow, as bits.
cdef int[5] NEXT_STATES
NEXT_STATES[<int> OPENING] = 1 << READING | 1 << LINGERING | 1 << CLOSED
NEXT_STATES[<int> READING] = 1 << ANSWERING | 1 << LINGERING | 1 << CLOSED
NEXT_STATES[<int> ANSWERING] = 1 << LINGERING | 1 << CLOSED
NEXT_STATES[<int> LINGERING] = 1 << CLOSED
# The stream tells of its end later than the connection is closed.
NEXT_STATES[<int> CLOSED] = 1 << CLOSED


cdef class Clients:
    """All client connections of a process, and what they share.

    loop: the event loop. wheel: where the connections' deadlines hang. limits: bounds on each client.
    handler: knows what requests mean. builder: makes responses. budget: where what is held for clients is counted.
    turn: where connections write what was gathered in a turn of the loop. counters: where all is counted.
    answers_half_closed: a client that has closed its sending side waits for its answers; else it has hung up.
    rates: how often addresses connect; None for a table of its own. proxies: whose word on their clients is taken; None
    for nobody's.
    relay_peers: whether Stream.peer_process() is one of this gateway's; None where nobody relays. records: tells of
    requests; None for one that nobody reads.
    """

    def __init__(
        self,
        loop,
        DeadlineWheel wheel not None,
        Limits limits not None,
        RequestHandler handler not None,
        ResponseBuilder builder not None,
        ByteBudget budget not None,
        Turn turn not None,
        Counters counters not None,
        bint answers_half_closed=False,
        Shared shared=None,
        relay_peers=None,
        Records records=None,
        Rates rates=None,
        TrustedProxies proxies=None,
    ):
        self.loop = loop
        self.wheel = wheel
        self.limits = limits
        self.handler = handler
        self.builder = builder
        self.counted_in = counters
        self.counts = counters.row
        self.room = Room(budget, wheel, counters)
        self.refusals = Refusals(loop, wheel, counters)
        self.records = Records(metrics_alone(), turn) if records is None else records
        self.record_state = &self.records.state
        self.shared = alone(limits.max_connections) if shared is None else shared
        self.entrance = Entrance(limits, self.shared, rates_alone(counters) if rates is None else rates)
        self.relay_peers = relay_peers
        self.turn = turn
        self.emptied = asyncio.Event()
        self.change(answers_half_closed, proxies)

    def change(self, bint answers_half_closed, TrustedProxies proxies=None):
        """Be as if it had been made with these, and with the limits as they are now."""
        self.answers_half_closed = answers_half_closed
        self.entrance.proxies = proxies
        self.records.takes_names = proxies is not None
        self.body_linger_bytes = max(<long long> BODY_LINGER_BYTES, BODY_LINGER_BODIES * self.limits.max_body_bytes)

    def drain(self, double idle_s=0):
        """No new connections: the next answer on each is its last one, and closes it once its client has that.

        Idle ones are closed one after the other, the longest idle first, if need be over so many seconds at most; those
        that were in use IN_USE_S ago may be so again, and are closed later.
        """
        self.draining = True
        for connection in self.all_clients():
            (<Client> connection).begin_drain()
        self.room.begin_drain(idle_s)
        if not self.connections:
            self.emptied.set()

    def refuse_unfinished(self):
        """Answer requests that are still arriving with 503, and close connections whose clients have sent nothing."""
        for connection in self.all_clients():
            (<Client> connection).refuse_unfinished()

    def abort(self):
        """Close all connections at once."""
        for connection in self.all_clients():
            (<Client> connection).abort()

    def counters(self):
        """What is held now and was counted since the start, by name."""
        cdef Room room = self.room
        return {
            "connections": self.connections,
            "refused_connections": self.refused_connections,
            "body_lingerers": self.body_lingerers,
            "waiting_refusals": len(self.refusals.waiting),
            "arrivals": room.arrivals.count,
            "senders": len(room.arrivals.senders),
            "unread_connections": len(room.unread),
            "requests_in_flight": self.requests_in_flight,
            "idle_parsers": self.idle_parsers,
            "addresses": self.shared.addresses.keys(),
            "connections_accepted": self.counts.connections_accepted,
            "connections_refused": self.counts.connections_refused,
            "connections_unserved": self.counts.connections_unserved,
            "connections_evicted": self.counts.connections_evicted,
            "arrivals_ended": self.counts.arrivals_ended,
            "answers_ended": self.counts.answers_ended,
            "answers_cut": self.counts.answers_cut,
            "requests_answered": self.counts.requests_answered,
            "requests_refused": self.counts.requests_refused,
            "requests_abandoned": self.counts.requests_abandoned,
            "refusals_delayed": self.counts.refusals_delayed,
            "writes_timed_out": self.counts.writes_timed_out,
        }

    def take_events(self):
        """Refusals.take_events()."""
        return self.refusals.take_events()

    def relieve(self, int most):
        """Room.relieve()."""
        return self.room.relieve(most)

    def is_at_rest(self):
        """Whether ticks have nothing to do here until a byte comes or a deadline passes."""
        cdef Account account
        for account in range(ACCOUNTS):
            if self.room.budget.held[account]:
                return False
        if self.shared.places > 1 and self.shared.taken(CONNECTIONS) >= <uint64_t> self.limits.max_connections:
            return False
        return not self.draining

    def make_places(self):
        """Close those that are needed least, for connections that other processes have refused and that may come again."""
        if self.shared.taken(CONNECTIONS) < <uint64_t> self.limits.max_connections:
            self.shared.forget_wants()
        while self.shared.taken(CONNECTIONS) >= <uint64_t> self.limits.max_connections and self.shared.take_want():
            if not self.room.make_place():
                # Another process may have one.
                self.shared.want_place()
                return

    cdef object refusal(self, Client client):
        cdef Limits limits = self.limits
        if self.draining and not client.late:
            return STOPPING
        if not client.is_of_many():
            if not client.is_in_time():
                return TOO_MANY_CONNECTIONS_TOO_FAST
            if limits.max_connections_per_address and not client.take_address(limits.max_connections_per_address):
                return TOO_MANY_CONNECTIONS_PER_ADDRESS
        # Whoever is closed to make room gives its place back at once.
        if client.take_place() or (self.room.make_place() and client.take_place()):
            return None
        client.give_place()
        client.address = None
        if self.shared.places > 1:
            self.shared.want_place()
        return TOO_MANY_CONNECTIONS

    cdef int add(self, Client client) except -1:
        client.is_known = True
        client.previous_client = self.last_client
        if self.last_client is None:
            self.first_client = client
        else:
            self.last_client.next_client = client
        self.last_client = client
        self.connections += 1
        return 0

    cdef int remove(self, Client client) except -1:
        client.is_known = False
        if client.previous_client is None:
            self.first_client = client.next_client
        else:
            client.previous_client.next_client = client.next_client
        if client.next_client is None:
            self.last_client = client.previous_client
        else:
            client.next_client.previous_client = client.previous_client
        client.previous_client = None
        client.next_client = None
        self.connections -= 1
        return 0

    cdef list all_clients(self):
        cdef list found = []
        cdef Client client = self.first_client
        while client is not None:
            found.append(client)
            client = client.next_client
        return found

    cdef RequestParser take_parser(self):
        cdef RequestParser parser = self.idle_parser
        if parser is None:
            return RequestParser(self.limits, self.handler)
        self.idle_parser = parser.next_idle
        parser.next_idle = None
        self.idle_parsers -= 1
        return parser

    cdef int give_back_parser(self, RequestParser parser) except -1:
        if self.idle_parsers == MAX_IDLE_PARSERS:
            parser.release()
            return 0
        parser.next_idle = self.idle_parser
        self.idle_parser = parser
        self.idle_parsers += 1
        return 0


cdef class Client(Entrant):
    """One client's connection; HttpConnection adds its requests."""

    def __init__(self, Clients clients not None):
        self.clients = clients
        self.entrance = clients.entrance
        self.head_s = -1
        self.address_slot = -1

    cdef int let_requests_go(self) except -1:
        raise NotImplementedError

    cdef int cut_answer(self) except -1:
        raise NotImplementedError

    cdef int write_refusal(self, Request request, object problem, str detail, bytes headers) except -1:
        raise NotImplementedError

    cdef double body_left_s(self) noexcept:
        return 0

    cdef int turn_failed(self) except -1:
        # The loop may know of the connection's end before it has told.
        if self.stream is not None and not self.stream.closing():
            logger.exception("a connection could not be written to")
        return self.abort()

    cdef int begin_drain(self) except -1:
        raise NotImplementedError

    cdef int refuse_unfinished(self) except -1:
        raise NotImplementedError

    cdef int read_deadline_passed(self, DeadlineKind kind) except -1:
        raise NotImplementedError

    cpdef int change(self, ClientState state) except -1:
        """The one place where the state changes."""
        if not NEXT_STATES[<int> self.state] & 1 << <int> state:
            raise StateError(f"a client's connection cannot go from state {<int> self.state} to {<int> state}")
        self.state = state
        return 0

    # Opening and being gone.

    cpdef int opened(self, Stream stream) except -1:
        cdef Clients clients = self.clients
        self.stream = stream
        if not self.relayed:
            clients.last_serial += 1
            self.serial = clients.last_serial
        if self.late:
            clients.emptied.clear()
        if self.relayed and not clients.relay_peers(stream.peer_process()):
            # Whoever it is, it is none of this gateway's processes.
            return self.abort()
        problem = None if self.relayed else clients.refusal(self)
        if problem is not None:
            clients.counts.connections_refused += 1
            return self.refuse_connection(problem)
        self.change(READING)
        if not self.relayed:
            clients.counts.connections_accepted += 1
        clients.add(self)
        return self.arm(FIRST_BYTE)

    cdef object peer(self):
        return self.stream.peer()

    cdef int refuse_connection(self, object problem) except -1:
        cdef Clients clients = self.clients
        cdef bytes headers = None
        if problem is TOO_MANY_CONNECTIONS_TOO_FAST:
            headers = clients.refusals.retry_after.exactly(clients.entrance.wait_ns)
        self.write_refusal(None, problem, problem.detail, headers)
        if clients.refused_connections >= MAX_REFUSED_CONNECTIONS:
            return self.close()
        clients.add(self)
        self.linger()
        return self.linger_uncounted()

    cdef str peer_host(self):
        peer = self.stream.peer()
        return peer[0] if peer else ""

    cdef int leave(self) except -1:
        cdef Clients clients = self.clients
        self.stream = None
        if self.is_known:
            clients.remove(self)
        if self.refused:
            self.refused = False
            clients.refused_connections -= 1
        if self.drops_body:
            self.drops_body = False
            clients.body_lingerers -= 1
        self.give_place()
        self.address = None
        if clients.draining and not clients.connections:
            clients.emptied.set()
        return 0

    # Writing.

    cdef int write_pieces(self, list pieces) except -1:
        for piece in pieces:
            self.written_bytes += len(piece)
        if len(pieces) == 1:
            self.stream.write(<bytes> pieces[0])
        else:
            self.stream.write_all(pieces)
        return 0

    cdef int hold_answers(self, long long more_bytes) except -1:
        cdef ByteBudget budget = self.clients.room.budget
        cdef long long size_bytes = self.answers_held.size_bytes + more_bytes
        cdef Account account = self.answers_held.account if self.answers_held.size_bytes else SMALL
        # Many small answers become a large one if there is room; otherwise they stay where they were let in.
        if size_bytes > SMALL_BYTES and (more_bytes > SMALL_BYTES or budget.reserve(RESULTS, size_bytes)):
            account = RESULTS
        budget.hold(&self.answers_held, account, size_bytes)
        return 0

    cdef int answers_left(self) except -1:
        cdef dict unread = self.clients.room.unread
        if self.unread_bytes:
            self.hold_answers(-self.unread_bytes)
            self.unread_bytes = 0
        if unread and self.answers_held.size_bytes <= SMALL_BYTES:
            unread.pop(self, None)
        return 0

    cpdef int pause_writing(self) except -1:
        self.write_paused = True
        self.unread = Unread.__new__(Unread)
        self.clients.room.unread[self] = None
        self.unread.began_tick = self.clients.wheel.tick
        self.unread.moved_tick = self.unread.began_tick
        self.unread.paced_tick = self.unread.began_tick
        self.unread.paced_bytes = self._delivered()
        self.unread.paced_to_bytes = self.written_bytes
        self.unread.seen_bytes = self.unread.paced_bytes
        return self.arm(WRITE)

    cpdef int resume_writing(self) except -1:
        self.write_paused = False
        self.unread = None
        self.answers_left()
        if self.state == LINGERING:
            return self.arm(LINGER)
        return 0

    cdef bint takes_slowly(self, Account account) except -1:
        return self.write_paused and self.unread.is_slow(
            self.clients.wheel, account, self._delivered(), self.written_bytes
        )

    cdef unsigned long long _delivered(self) except? 0:
        return (
            self.written_bytes
            - <unsigned long long> self.stream.pending_bytes()
            - <unsigned long long> self.stream.unconfirmed_bytes()
        )

    cdef bint _undelivered(self) except -1:
        return self.stream.pending_bytes() > 0 or self.stream.unconfirmed_bytes() > 0

    # Ending.

    cdef int linger(self) except -1:
        cdef Clients clients = self.clients
        self.let_requests_go()
        if self.half_closed or self.stream.closing():
            # Nothing can come that would reset the connection, or it is reset already.
            self.change(CLOSED)
            self.stream.close()
            return 0 if self.write_paused else self.arm(NO_DEADLINE)
        self.change(LINGERING)
        self.stream.write_eof()
        if self.read_paused:
            self.read_paused = False
            self.stream.resume()
        if self.body_coming and not clients.draining and clients.body_lingerers < MAX_BODY_LINGERERS:
            self.drops_body = True
            clients.body_lingerers += 1
        if self.write_paused:
            return 0
        return self.arm(LINGER)

    cdef int linger_uncounted(self) except -1:
        self.refused = True
        self.clients.refused_connections += 1
        self.give_place()
        return self.arm(self.deadline_kind)

    cdef double _linger_left_s(self) noexcept:
        """Seconds for which it lingers yet; a refused body that still comes has to come without long gaps."""
        cdef DeadlineWheel wheel = self.clients.wheel
        cdef double left_s = (self.linger_ends_tick - wheel.tick) * wheel.tick_s
        if not self.drops_body:
            return left_s
        return fmin(left_s, BODY_LINGER_QUIET_S - (wheel.tick - self.dropped_tick) * wheel.tick_s)

    cdef int drop_received(self, Py_ssize_t size_bytes) except -1:
        """So many bytes more have come behind the last request."""
        self.dropped_bytes += size_bytes
        self.dropped_tick = self.clients.wheel.tick
        if self.dropped_bytes <= LINGER_BYTES:
            return 0
        if self.drops_body and self.dropped_bytes <= self.clients.body_linger_bytes:
            return 0
        if self.state == LINGERING and not self._undelivered():
            return self.abort()
        if self.state != CLOSED and not self.read_paused:
            # Its client has to take the answer first; a deadline is armed for that.
            self.read_paused = True
            self.stream.pause()
        return 0

    cdef int end_dropping(self) except -1:
        self.drops_body = False
        self.clients.body_lingerers -= 1
        if not self._undelivered():
            return self.close()
        self.linger_ends_tick = 0
        return 0 if self.write_paused else self.arm(LINGER)

    cdef int end(self) except -1:
        # What the kernel still has of an answer would be lost if bytes came that nobody reads.
        if self._undelivered() and not self.stream.closing():
            return self.linger()
        return self.close()

    cdef int close(self) except -1:
        """Close at once."""
        self.let_requests_go()
        self.arm(NO_DEADLINE)
        self.change(CLOSED)
        if self.stream is not None:
            if self.stream.pending_bytes():
                self.stream.abort()
            else:
                self.stream.close()
        return 0

    cdef int abort(self) except -1:
        if self.stream is not None and not self.stream.closing():
            self.cut_answer()
        self.let_requests_go()
        self.arm(NO_DEADLINE)
        self.change(CLOSED)
        if self.stream is not None:
            self.stream.abort()
        return 0

    # Deadlines.

    cdef int arm(self, DeadlineKind kind) except -1:
        cdef Limits limits = self.clients.limits
        cdef DeadlineWheel wheel = self.clients.wheel
        cdef OccupantList place = None
        cdef double left_s
        if self.relayed and kind != LINGER:
            # Another process keeps it for as long as both are there, and has the deadlines of the client: of its body too, for
            # that process alone knows when it does not read the client.
            kind = NO_DEADLINE
        if kind == NO_DEADLINE and self.deadline_kind == NO_DEADLINE and self.state != CLOSED:
            return 0
        # Where it stands if it may make room for another one.
        if kind == KEEPALIVE or kind == FIRST_BYTE:
            place = self.clients.room.idle
        elif kind == LINGER and not self.refused and not self.relayed:
            place = self.clients.room.dropping if self.drops_body else self.clients.room.lingering
        if self.deadline_kind == HEAD and kind != HEAD:
            self.head_s = fmax(0, self.head_s - <double> self.clients.loop.time())
        self.deadline_kind = kind
        if place is not self.place:
            if self.place is not None:
                self.place.remove(self)
            if place is not None:
                place.append(self)
                self.placed_tick = wheel.tick
        if kind == NO_DEADLINE:
            # A closed connection is let go of at once, not when the sweep comes by.
            return wheel.disarm(self) if self.state == CLOSED else wheel.put_off(self)
        if kind == KEEPALIVE or kind == FIRST_BYTE:
            if self.late:
                return wheel.arm(self, LAST_CALL_S)
            return wheel.arm(self, limits.keepalive_timeout_s if kind == KEEPALIVE else limits.first_byte_timeout_s)
        if kind == HEAD:
            left_s = limits.header_timeout_s if self.head_s < 0 else self.head_s
            self.head_s = <double> self.clients.loop.time() + left_s
            return wheel.arm(self, left_s)
        if kind == BODY:
            return wheel.arm(self, self.body_left_s())
        if kind == LINGER:
            if self.linger_ends_tick == 0:
                self.dropped_tick = wheel.tick
                self.linger_ends_tick = wheel.tick + <long long> (
                    (BODY_LINGER_S if self.drops_body else LINGER_S) / wheel.tick_s
                )
            return wheel.arm(self, self._linger_left_s())
        self.delivered_bytes = self._delivered()
        return wheel.arm(self, limits.write_timeout_s)

    cpdef int deadline_passed(self) except -1:
        cdef DeadlineKind kind = self.deadline_kind
        self.arm(NO_DEADLINE)
        if self.state == CLOSED and kind != WRITE:
            return 0
        if kind == HEAD or kind == BODY:
            return self.read_deadline_passed(kind)
        if kind == WRITE:
            return self._write_deadline_passed()
        if kind == LINGER and self._linger_left_s() > 0:
            return self.arm(LINGER)
        if self._undelivered():
            # The client has not even taken its last answer.
            return self.arm(WRITE)
        return self.close()

    cdef int _write_deadline_passed(self) except -1:
        if not self._undelivered():
            return self.close()
        if self._delivered() != self.delivered_bytes:
            return self.arm(WRITE)
        self.clients.counts.writes_timed_out += 1
        return self.abort()
