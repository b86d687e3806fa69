"""Hands requests to the process that owns their key, and their answers back."""

from gatewayx.core.budget cimport ByteBudget, Held
from gatewayx.core.counters cimport Counters, Counts
from gatewayx.core.deadlines cimport DeadlineWheel
from gatewayx.gateway.job_request cimport JobRequest, Relayed
from gatewayx.gateway.owners cimport Owners
from gatewayx.http.chunks cimport ChunkedBody
from gatewayx.http.limits cimport Limits
from gatewayx.http.records cimport Ending
from gatewayx.http.request cimport Request
from gatewayx.net.poller cimport TurnPoller
from gatewayx.net.stream cimport Stream, StreamOwner

cpdef enum:
    # Connections to a place that are kept for the next request.
    MAX_IDLE_CONNECTIONS = 64

cdef enum:
    # Of an answer's head, which is one of ours.
    MAX_ANSWER_HEAD_BYTES = 16384
    # An owner has so much longer for its answer than the request has told.
    GRACE_S = 2
    # Of a body in chunks so much goes at a time, however small the client's are: each write has its cost.
    GATHERED_BYTES = 16384


cdef class Relay(Owners):
    cdef DeadlineWheel wheel
    cdef TurnPoller poller
    cdef ByteBudget budget
    # What the processes share (server/places), and the place of this one among them.
    cdef object places
    cdef unsigned int own
    cdef unsigned int count
    # Where each place's process is connected to (server/relay_sockets).
    cdef object sockets
    # By place: connections that no request is on.
    cdef list idle
    # Requests that are with others, and how many may be.
    cdef public Py_ssize_t max_relayed
    cdef readonly Py_ssize_t relayed
    # The same for those that may wait for long, of which as many may be beside the others.
    cdef readonly Py_ssize_t patient
    # On how an answer in chunks may be framed.
    cdef Limits limits
    # Connections are not kept any more.
    cdef bint draining
    # Keeps the row alive to which `counts` points.
    cdef Counters counted_in
    cdef Counts* counts

    cdef RelayedRequest _begin(self, int place, JobRequest asked, Request request, bint whole)
    # A connection to the process at a place; None if there is none.
    cdef RelayConnection _connection(self, int place)


cdef class RelayedRequest(Relayed):
    # None once it is answered or abandoned.
    cdef RelayConnection connection
    cdef JobRequest asked
    # It counts among those that may wait for long.
    cdef bint is_patient


cdef class RelayConnection(StreamOwner):
    cdef Relay relay
    cdef int place
    # None before it is opened and once it is gone.
    cdef Stream stream
    # The request that is on it; None while it is idle.
    cdef RelayedRequest current
    # What the budget counts: of the request what the kernel has not taken.
    cdef Held held
    # Its body is being given away as it arrives, in chunks if nobody knows how long it is.
    cdef bint sending
    cdef bint chunked
    # What came of a body in chunks and goes with what is next; None for nothing.
    cdef bytearray gathered
    # Of the answer: the head as far as it is here; then what it says, and the body with so many bytes of it.
    cdef bytes head
    cdef int status
    cdef Ending ending
    cdef bytes content_type
    cdef bytes headers
    cdef bint closes
    cdef long long body_bytes
    # So much of the body is still to come, or UNKNOWN_BYTES: it goes to the client in pieces.
    cdef long long due_bytes
    # Reads a body in chunks; None for one that has a length. And what came of a line between two of them.
    cdef ChunkedBody chunks
    cdef bytes cut_line
    cdef bint paused

    # Give it the request, or the head alone; False if the connection has ended before it took anything.
    cdef bint ask(self, JobRequest asked, Request request, bint whole) except -1
    cdef int send(self, const char* piece, Py_ssize_t piece_bytes) except -1
    cdef int complete(self) except -1
    cdef int _send_gathered(self, bytes behind) except -1
    cdef int _hold_waiting(self) except -1
    cdef bint _read_head(self, const char* head, const char* end) except -1
    cdef int _answered(self, object body) except -1
    # Give the client what has come of a body that goes to it in pieces.
    cdef int _begin_pieces(self, bytes first, bint is_whole) except -1
    cdef int _give_chunks(self, const char* data, Py_ssize_t size) except -1
    cdef int _whole(self) except -1
    cdef int _give(self, const char* data, Py_ssize_t size) except -1
    cdef int _want(self, bint wanted) except -1
    # Keep it for the next request.
    cdef int _rest(self) except -1
    cdef int _fail(self, object problem, str detail) except -1
    # The request is on it no more.
    cdef RelayedRequest _let_go(self)
    cdef int _close(self) except -1
