"""Hands requests to the process that owns their key, and their answers back.

Theory of operation. What is said is HTTP/1.1 over a unix socket, to the server of the other process, one request at a time
on a connection that is kept; before each request stands a preamble (http/preamble). The request that goes is made of what
was read of the client's: the target, the lines that say what it asks for, and the workload, with the head or as it arrives. Of the
answer, whose head is one of ours, the status, the type, the lines that say what became of the job, and the body come back, a
large one in pieces as fast as the client takes them; the client's own connection makes the rest. What was relayed is never
relayed again: the owner's Gateway is told by the connection.

Nothing was submitted where no connection can be made. From the first byte on only the answer tells.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint64_t
from libc.string cimport memchr, memcmp, memcpy

cdef extern from "<string.h>" nogil:
    void* memmem(const void* text, size_t text_bytes, const void* part, size_t part_bytes)

from gatewayx.core.budget cimport BODIES, RESULTS, SMALL_BYTES, account_for
from gatewayx.core.digits cimport put_bytes, put_decimal
from gatewayx.http.chunks cimport ChunkedBody
from gatewayx.http.limits cimport Limits
from gatewayx.http.preamble cimport put_preamble
from gatewayx.http.records cimport read_ending
from gatewayx.http.request cimport METHOD_DELETE, METHOD_GET, METHOD_HEAD, METHOD_POST, METHOD_PUT, UNKNOWN_BYTES

from gatewayx.http.problems import (
    JOB_TIMEOUT,
    NO_ROOM_FOR_RESULT,
    OUTCOME_UNKNOWN,
    OWNER_AWAY,
    RELAY_FULL,
    RESULT_TOO_LARGE,
    TOO_MANY_BYTES,
    RequestError,
)
from gatewayx.server.places import State

cdef enum:
    # All of a relayed head but its target and the lines of what it asks for.
    MOST_OTHER_BYTES = 256

cdef str NO_ANSWER = "the worker process that was to answer gave no answer that is one"


cdef inline bint begins(const char* line, Py_ssize_t size, const char* word, Py_ssize_t word_bytes) noexcept:
    return size > word_bytes and memcmp(line, word, word_bytes) == 0


cdef inline bint is_passed_on(const char* line, Py_ssize_t size) noexcept:
    """Whether the client's connection does not make this line of the owner's head by itself."""
    return (
        begins(line, size, b"X-Gearman-", 10)
        or begins(line, size, b"Retry-After:", 12)
        or begins(line, size, b"Location:", 9)
        or begins(line, size, b"Preference-Applied:", 19)
        or begins(line, size, b"Idempotency-Replayed:", 21)
        or begins(line, size, b"ETag:", 5)
        or begins(line, size, b"X-Accel-Buffering:", 18)
        or begins(line, size, b"Vary:", 5)
        or begins(line, size, b"Allow:", 6)
    )


cdef inline long long decimal(const char* text, Py_ssize_t size) noexcept:
    """The number that a Content-Length of ours is; -1 for anything else."""
    cdef long long number = 0
    cdef Py_ssize_t index
    if not 0 < size <= 18:
        return -1
    for index in range(size):
        if not c"0" <= text[index] <= c"9":
            return -1
        number = 10 * number + text[index] - c"0"
    return number


@cython.final
cdef class Relay(Owners):
    """The other processes of a gateway, as owners of keys.

    wheel: where deadlines hang. poller: watches the connections; None if `sockets` needs none. budget: where what is held
    is counted. counters: where requests are counted. places: what the processes share. own: the place of this one.
    sockets: the RelaySockets. max_relayed: requests that may be with others at once, and as many beside them that may wait for long. limits: on how answers are framed.
    """

    def __init__(
        self,
        DeadlineWheel wheel not None,
        TurnPoller poller,
        ByteBudget budget not None,
        Counters counters not None,
        places,
        unsigned int own,
        sockets,
        Py_ssize_t max_relayed,
        Limits limits not None,
    ):
        self.wheel = wheel
        self.poller = poller
        self.budget = budget
        self.counted_in = counters
        self.counts = counters.row
        self.places = places
        self.own = own
        self.sockets = sockets
        self.count = len(places)
        self.max_relayed = max_relayed
        self.limits = limits
        self.idle = [[] for _ in range(self.count)]

    def drain(self):
        """Close all that are idle, and keep none from now on."""
        self.draining = True
        for connections in self.idle:
            for connection in list(connections):
                (<RelayConnection> connection)._close()

    def counters(self):
        """What is held now, by name."""
        return {"relayed": self.relayed, "patient": self.patient, "idle_connections": sum(map(len, self.idle))}

    cdef int elsewhere(self, bytes hashed) noexcept:
        cdef uint64_t number
        memcpy(&number, PyBytes_AS_STRING(hashed), sizeof(number))
        number %= self.count
        return -1 if number == self.own else <int> number

    cdef Relayed relay(self, int place, JobRequest asked, Request request):
        return self._begin(place, asked, request, True)

    cdef Relayed relay_head(self, int place, JobRequest asked, Request request):
        return self._begin(place, asked, request, False)

    cdef RelayedRequest _begin(self, int place, JobRequest asked, Request request, bint whole):
        cdef RelayConnection connection
        cdef bint is_kept
        cdef bint is_counted = False
        # Those that may wait for long count apart, or they would keep out the short ones.
        if (self.patient if asked.is_patient() else self.relayed) >= self.max_relayed:
            asked.relay_failed(RELAY_FULL, None)
            return None
        while True:
            is_kept = bool(self.idle[place])
            connection = self._connection(place)
            if connection is not None:
                # Before the other process can have seen it, and once.
                self.counts.requests_relayed += not is_counted
                is_counted = True
                if connection.ask(asked, request, whole):
                    return connection.current
            # A kept one may be to a process that has ended, of which this one has not heard yet.
            if not is_kept:
                asked.relay_failed(OWNER_AWAY, None)
                return None

    cdef RelayConnection _connection(self, int place):
        cdef list idle = <list> self.idle[place]
        cdef RelayConnection connection
        if idle:
            return <RelayConnection> idle.pop()
        if self.places[place].state == State.EMPTY:
            return None
        connection = RelayConnection.__new__(RelayConnection)
        connection.relay = self
        connection.place = place
        return connection if self.sockets.connect(place, connection, self.poller) else None


@cython.final
cdef class RelayedRequest(Relayed):
    """One request that is with another process."""

    cdef int take(self, const char* piece, Py_ssize_t piece_bytes) except -1:
        return 0 if self.connection is None else self.connection.send(piece, piece_bytes)

    cdef int complete(self) except -1:
        return 0 if self.connection is None else self.connection.complete()

    cdef int wanted(self) except -1:
        return 0 if self.connection is None else self.connection._want(True)

    cdef int abandon(self) except -1:
        cdef RelayConnection connection = self.connection
        if connection is not None:
            # Its owner hears of it by the end of the connection, and cancels as for any client.
            connection._let_go()
            connection._close()
        return 0


@cython.final
cdef class RelayConnection(StreamOwner):
    """A connection to the process at a place."""

    cdef bint ask(self, JobRequest asked, Request request, bint whole) except -1:
        cdef bint has_body = request.method == METHOD_POST or request.method == METHOD_PUT
        cdef bytes workload = asked.workload if whole and has_body and asked.workload is not None else b""
        cdef Py_ssize_t workload_bytes = PyBytes_GET_SIZE(workload)
        cdef bint is_small = workload_bytes <= SMALL_BYTES
        cdef RelayedRequest current = RelayedRequest.__new__(RelayedRequest)
        cdef bytes lines = asked.relayed_lines()
        cdef bytes written
        cdef char* end
        current.connection = self
        current.asked = asked
        self.current = current
        current.is_patient = asked.is_patient()
        self.relay.relayed += not current.is_patient
        self.relay.patient += current.is_patient
        self.sending = not whole
        self.chunked = not whole and request.chunked
        written = PyBytes_FromStringAndSize(
            NULL,
            MOST_OTHER_BYTES
            + PyBytes_GET_SIZE(lines)
            + PyBytes_GET_SIZE(request.path)
            + (0 if request.query is None else PyBytes_GET_SIZE(request.query))
            + (workload_bytes if is_small else 0),
        )
        end = put_preamble(PyBytes_AS_STRING(written), request, asked.token_mark, request.owner.asker(request))
        # An answer to HEAD would leave out the body, whose length the client is told.
        if has_body:
            end = put_bytes(end, b"PUT " if request.method == METHOD_PUT else b"POST ")
        else:
            end = put_bytes(end, b"DELETE " if request.method == METHOD_DELETE else b"GET ")
        end = put_bytes(end, request.path)
        if request.query is not None:
            end = put_bytes(put_bytes(end, b"?"), request.query)
        end = put_bytes(end, b" HTTP/1.1\r\nHost: relay\r\n")
        end = put_bytes(end, lines)
        if self.chunked:
            end = put_bytes(end, b"Transfer-Encoding: chunked\r\n")
        elif has_body and (workload_bytes or not whole):
            end = put_bytes(end, b"Content-Length: ")
            end = put_bytes(put_decimal(end, workload_bytes if whole else request.content_length), b"\r\n")
        end = put_bytes(end, b"\r\n")
        if is_small:
            end = put_bytes(end, workload)
        self.stream.send(PyBytes_AS_STRING(written), end - PyBytes_AS_STRING(written))
        if self.stream.closing():
            # The process has ended since the last request on the connection, and nothing of this one was taken.
            self._let_go()
            self._close()
            return False
        if not is_small:
            self.stream.write(workload)
        workload_bytes = min(workload_bytes, self.stream.pending_bytes())
        if workload_bytes:
            # It was held for the client before.
            self.relay.budget.hold(&self.held, account_for(BODIES, workload_bytes), workload_bytes)
        if whole:
            self.relay.wheel.arm(self, asked.answer_within_s() + GRACE_S)
        return True

    cdef int send(self, const char* piece, Py_ssize_t piece_bytes) except -1:
        if not self.sending or piece_bytes == 0:
            return 0
        if not self.chunked:
            self.stream.send(piece, piece_bytes)
            return self._hold_waiting()
        if self.gathered is None:
            self.gathered = bytearray()
        self.gathered += piece[:piece_bytes]
        if len(self.gathered) >= GATHERED_BYTES:
            self._send_gathered(b"")
        return self._hold_waiting()

    cdef int _send_gathered(self, bytes behind) except -1:
        """Send what was gathered as one chunk, and this behind it."""
        cdef bytearray gathered = self.gathered
        self.gathered = None
        if gathered is not None:
            behind = b"%x\r\n%b\r\n%b" % (len(gathered), gathered, behind)
        self.stream.write(behind)
        return 0

    cdef int complete(self) except -1:
        if not self.sending:
            return 0
        self.sending = False
        if self.chunked:
            self._send_gathered(b"0\r\n\r\n")
        self._hold_waiting()
        if self.current is None:
            return 0
        return self.relay.wheel.arm(self, self.current.asked.answer_within_s() + GRACE_S)

    cdef int _hold_waiting(self) except -1:
        """Hold what the kernel has not taken of the body, or was not given yet; without room the request is given up.

        Its end is among what waits, or still to come: the owner submits nothing.
        """
        cdef ByteBudget budget = self.relay.budget
        cdef Py_ssize_t waiting_bytes = self.stream.pending_bytes()
        if self.gathered is not None:
            waiting_bytes += len(self.gathered)
        if waiting_bytes == self.held.size_bytes or (
            budget.resize(&self.held, account_for(BODIES, waiting_bytes), waiting_bytes)
        ):
            return 0
        budget.counts.budget_refused += 1
        return self._fail(TOO_MANY_BYTES, None)

    # What the stream tells.

    cpdef int opened(self, Stream stream) except -1:
        self.stream = stream
        return 0

    cdef int received(self, const char* data, Py_ssize_t size) except -1:
        cdef bytes joined
        cdef const char* end
        if self.current is None:
            # Nobody has asked for anything.
            return self._close()
        if self.chunks is not None:
            return self._give_chunks(data, size)
        if self.due_bytes:
            return self._give(data, min(size, <Py_ssize_t> self.due_bytes))
        if self.head is not None:
            joined = self.head + data[:size]
            self.head = None
            data = PyBytes_AS_STRING(joined)
            size = PyBytes_GET_SIZE(joined)
        end = <const char*> memmem(data, size, b"\r\n\r\n", 4)
        if end == NULL:
            if size > MAX_ANSWER_HEAD_BYTES:
                return self._fail(OUTCOME_UNKNOWN, NO_ANSWER)
            self.head = data[:size]
            return 0
        if not self._read_head(data, end + 2):
            return self._fail(OUTCOME_UNKNOWN, NO_ANSWER)
        size -= end + 4 - data
        data = end + 4
        if self.body_bytes != UNKNOWN_BYTES:
            size = min(size, <Py_ssize_t> self.body_bytes)
        if size > SMALL_BYTES and not self.relay.budget.reserve(RESULTS, size):
            # The owner does not hold it any more, and others may have taken its place.
            self.relay.budget.counts.budget_refused += 1
            return self._fail(RESULT_TOO_LARGE, NO_ROOM_FOR_RESULT)
        if size == self.body_bytes:
            return self._answered(data[:size])
        # From here on its client sets the pace, by its own deadlines.
        self.relay.wheel.disarm(self)
        if self.body_bytes == UNKNOWN_BYTES:
            self.chunks = ChunkedBody(self.relay.limits, True)
            return self._give_chunks(data, size)
        self.due_bytes = self.body_bytes - size
        return self._begin_pieces(data[:size], False)

    cdef int _begin_pieces(self, bytes first, bint is_whole) except -1:
        """Answer with what came behind the head. No more of it is read before the client wants it."""
        cdef RelayedRequest current = self.current
        self._want(False)
        if not current.asked.relay_answers(
            self.status, &self.ending, self.content_type, self.headers, self.body_bytes, current, first
        ):
            self._let_go()
            return self._close()
        return self._whole() if is_whole else 0

    cdef int _want(self, bint wanted) except -1:
        if self.paused == wanted:
            self.paused = not wanted
            if wanted:
                self.stream.resume()
            else:
                self.stream.pause()
        return 0

    cdef int _give(self, const char* data, Py_ssize_t size) except -1:
        """Give the client a piece that it wants."""
        cdef RelayedRequest current = self.current
        self.due_bytes -= size
        if self.due_bytes:
            return self._want(current.asked.relay_piece(data, size))
        current.asked.relay_piece(data, size)
        return self._whole()

    cdef int _give_chunks(self, const char* data, Py_ssize_t size) except -1:
        """Give the client what is here of a body in chunks. It may be more than it wants by what one read takes."""
        cdef RelayedRequest current = self.current
        cdef bint has_begun = self.due_bytes == UNKNOWN_BYTES
        cdef bint wants = True
        cdef bytearray first = None if has_begun else bytearray()
        cdef bytes joined
        cdef Py_ssize_t used
        if self.cut_line is not None:
            joined = self.cut_line + data[:size]
            self.cut_line = None
            data = PyBytes_AS_STRING(joined)
            size = PyBytes_GET_SIZE(joined)
        while size and not self.chunks.complete:
            try:
                used = self.chunks.read(data, size)
            except RequestError:
                return self._fail(OUTCOME_UNKNOWN, NO_ANSWER)
            data += used
            size -= used
            if self.chunks.piece_bytes:
                if has_begun:
                    wants = current.asked.relay_piece(self.chunks.piece, self.chunks.piece_bytes)
                    if self.current is not current:
                        return 0
                else:
                    first += self.chunks.piece[: self.chunks.piece_bytes]
            elif not self.chunks.complete:
                self.cut_line = data[:size]
                break
        if size and self.chunks.complete:
            # Whatever that is, it is no answer to the next request.
            self.closes = True
        if not has_begun:
            self.due_bytes = UNKNOWN_BYTES
            return self._begin_pieces(bytes(first), self.chunks.complete)
        return self._whole() if self.chunks.complete else self._want(wants)

    cdef int _whole(self) except -1:
        """The client was given all of the body."""
        cdef RelayedRequest current = self._let_go()
        self.due_bytes = 0
        self.chunks = None
        current.asked.relay_ended()
        return self._rest()

    cdef bint _read_head(self, const char* head, const char* end) except -1:
        """Learn what a head says that ends with the line end before `end`; False if it is none of ours.

        The lines that are passed on follow each other (http/response).
        """
        cdef const char* line = head
        cdef const char* line_end
        cdef const char* passed = NULL
        cdef const char* passed_end = NULL
        cdef Py_ssize_t size
        cdef bint has_type = False
        cdef bint has_ending = False
        self.status = 0
        self.body_bytes = 0
        self.closes = False
        while line < end:
            line_end = <const char*> memchr(line, c"\n", end - line)
            if line_end == NULL or line_end == line:
                return False
            size = line_end - 1 - line
            if self.status == 0:
                if size < 12 or memcmp(line, b"HTTP/1.1 ", 9) != 0:
                    return False
                self.status = 100 * (line[9] - c"0") + 10 * (line[10] - c"0") + line[11] - c"0"
                if not 200 <= self.status <= 599:
                    return False
            elif size > 16 and memcmp(line, b"Content-Length: ", 16) == 0:
                self.body_bytes = decimal(line + 16, size - 16)
                if self.body_bytes < 0:
                    return False
            elif size == 26 and memcmp(line, b"Transfer-Encoding: chunked", 26) == 0:
                self.body_bytes = UNKNOWN_BYTES
            elif size > 14 and memcmp(line, b"Content-Type: ", 14) == 0:
                has_type = True
                if (
                    self.content_type is None
                    or PyBytes_GET_SIZE(self.content_type) != size - 14
                    or memcmp(PyBytes_AS_STRING(self.content_type), line + 14, size - 14) != 0
                ):
                    self.content_type = line[14:size]
            elif size == 17 and memcmp(line, b"Connection: close", 17) == 0:
                self.closes = True
            elif not has_ending and read_ending(line, size, &self.ending):
                has_ending = True
            elif is_passed_on(line, size):
                if passed == NULL:
                    passed = line
                elif passed_end != line:
                    return False
                passed_end = line_end + 1
            line = line_end + 1
        if not has_type:
            self.content_type = None
        self.headers = b"" if passed == NULL else passed[: passed_end - passed]
        return self.status != 0 and has_ending

    cdef int _answered(self, object body) except -1:
        cdef RelayedRequest current = self._let_go()
        cdef int status = self.status
        self._rest()
        if status == 204 or status == 304:
            # They have no body, not even an empty one (RFC 9110 8.6).
            body = None
        return current.asked.relay_answered(status, &self.ending, self.content_type, self.headers, body)

    cdef int _rest(self) except -1:
        cdef list idle = <list> self.relay.idle[self.place]
        self.relay.budget.release(&self.held)
        # An answer that came before the end of the body leaves the owner waiting for the rest.
        if self.sending or self.closes or self.relay.draining or len(idle) >= MAX_IDLE_CONNECTIONS:
            return self._close()
        self._want(True)
        idle.append(self)
        return 0

    cdef int _fail(self, object problem, str detail) except -1:
        cdef RelayedRequest current = self._let_go()
        self._close()
        return 0 if current is None else current.asked.relay_failed(problem, detail)

    cdef RelayedRequest _let_go(self):
        cdef RelayedRequest current = self.current
        if current is not None:
            current.connection = None
            self.current = None
            self.relay.relayed -= not current.is_patient
            self.relay.patient -= current.is_patient
            self.relay.wheel.disarm(self)
        return current

    cdef int _close(self) except -1:
        cdef list idle = <list> self.relay.idle[self.place]
        self.head = None
        self.gathered = None
        self.cut_line = None
        self.chunks = None
        self.due_bytes = 0
        self.relay.budget.release(&self.held)
        if self in idle:
            idle.remove(self)
        if self.stream is not None:
            self.stream.abort()
        return 0

    cpdef bint ended(self) except? True:
        self._fail(
            OUTCOME_UNKNOWN,
            "the worker process of the gateway that was to answer has ended, or given the request up; whether the job "
            "ran or will run is not known",
        )
        return False

    cpdef int hung_up(self) except -1:
        return 0

    cpdef int lost(self, error) except -1:
        self.ended()
        self.stream = None
        return 0

    cpdef int pause_writing(self) except -1:
        if self.sending and self.current is not None:
            # The owner has as long for taking more of the body as for the job.
            self.relay.wheel.arm(self, self.current.asked.answer_within_s() + GRACE_S)
            return self.current.asked.relay_paused(True)
        return 0

    cpdef int resume_writing(self) except -1:
        # All that was written is on its way.
        self._hold_waiting()
        if self.sending and self.current is not None:
            self.relay.wheel.disarm(self)
            return self.current.asked.relay_paused(False)
        return 0

    cpdef int deadline_passed(self) except -1:
        return self._fail(JOB_TIMEOUT, "the worker process of the gateway that was to answer gave none in time")

    cdef int end_turn(self) except -1:
        return 0

    cdef int turn_failed(self) except -1:
        return self._close()
