"""What a client has sent of its next request: the bytes, and their room."""

from gatewayx.core.budget cimport Held
from gatewayx.core.turns cimport Flag
from gatewayx.http.arrivals cimport Arrival
from gatewayx.http.clients cimport Client
from gatewayx.http.parser cimport RequestParser
from gatewayx.http.request cimport ID_BYTES, Request


cdef class Unfinished:
    """What is known of a request that came in pieces, and of bytes that wait to be read."""
    # Of the tail, what stands before this offset was taken.
    cdef Py_ssize_t tail_offset
    # What the connection has of the byte budget for the tail, and for head and body of the request being read.
    cdef Held tail_held
    cdef Held head_held
    cdef Held body_held
    # The tick since which the body is paused.
    cdef long long body_paused_tick
    # The beginning of a preamble, None for none; and the name of the request of which it tells.
    cdef bytes preamble
    cdef char[ID_BYTES] relayed_id
    # What it is called by a proxy; None for nothing.
    cdef bytes relayed_name
    # And of a preamble that has told of a token.
    cdef bytes relayed_mark
    # The tick at which the body being read began, later by what the client was paused since, and its bytes so far.
    cdef long long body_began_tick
    cdef long long body_bytes


cdef class ArrivingClient(Client):
    # Held only while a request is being read, from its first byte on: an idle connection costs no parser.
    cdef RequestParser parser
    # The unfinished request that it sends; None while there is none.
    cdef Arrival arrival
    # Bytes that the parser has not taken: an unfinished head or line, or what came before reading was paused.
    # tail_waits: whole requests may be among what of it was not taken.
    cdef bytes tail
    cdef Flag tail_waits
    # Requests are being read from what has come: there may be more of them than is known yet.
    cdef Flag parsing
    # The last answer is a refusal that waits.
    cdef Flag refusal_waits
    # Requests that have begun and whose answers are not written.
    cdef int in_flight
    # What else is known of them; None when there is nothing.
    cdef Unfinished unfinished

    # Abstract: a connection that serves requests says what they do.

    # Answer a request whose framing is in doubt, or that is too slow, and read no more. data: what shows it.
    cdef int refuse(self, object problem, str detail, bytes data) except -1
    # Answer a request for which there is no room; it is read on and dropped.
    cdef int refuse_for_room(self, Request request) except -1

    # For the classes that are derived from it.

    # `unfinished`, made if there is none.
    cdef inline Unfinished parts(self):
        if self.unfinished is None:
            self.unfinished = Unfinished.__new__(Unfinished)
        return self.unfinished

    cdef int keep_tail(self, bytes data, Py_ssize_t offset, bint waits) except -1
    cdef bytes take_tail(self)
    cdef bytes join_tail(self, const char* data, Py_ssize_t size)
    cdef bytes tail_example(self)
    cdef bint begins_nothing(self)
    cdef bint has_begun(self) noexcept
    cdef bint admit(self, Request request, RequestParser parser) except -1
    cdef int drop_parser(self) except -1
    cdef int follow_arrival(self) except -1
    cdef int forget_arrival(self) except -1
    cdef int let_arrival_go(self) except -1
