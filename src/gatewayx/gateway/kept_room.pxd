"""Answers that are kept for whoever comes for them, and the room that those of a process share."""

from gatewayx.core.budget cimport ByteBudget, Held
from gatewayx.core.counters cimport Counters, Counts
from gatewayx.core.shared cimport Shared
from gatewayx.gateway.watching cimport Watched


cdef class KeptAnswer(Watched):
    """The answer that a client has, or would have had: a status, Content-Type and body, or a problem with its detail."""
    cdef int status
    # Of http/outcomes.
    cdef int outcome
    cdef bytes content_type
    # Header lines, each whole.
    cdef bytes headers
    # bytes or bytearray; None for a problem, and once it was dropped.
    cdef object body
    cdef Py_ssize_t body_bytes
    cdef object problem
    cdef str detail
    # The body had to make room for others.
    cdef bint is_dropped
    # What its job took, and where it was, for whoever tells of the request that has asked (http/request).
    cdef long long job_ns
    cdef int server_place
    # What it has of the byte budget, which KeptRoom counts.
    cdef Held held

    # What it takes of the room, in bytes.
    cdef Py_ssize_t room_bytes(self)
    # The body makes room for others.
    cdef int drop(self) except -1


cdef class KeptRoom:
    cdef ByteBudget budget
    # Where the bytes of all processes together are bounded.
    cdef Shared shared
    cdef Counters counted_in
    cdef Counts* counts
    # Those whose bodies are here, the oldest first; an OrderedDict: a dict walks over what was deleted before its first
    # entry, each time anew.
    cdef object bodies
    # Bytes that are held for all.
    cdef readonly long long held_bytes

    # Its body is here, and may be dropped from now on.
    cdef int enter(self, KeptAnswer answer) except -1
    # Count what it takes now. Returns whether that fits, once older bodies have made room; without room it has what it had.
    cdef bint hold(self, KeptAnswer answer) except -1
    # Drop its body.
    cdef int drop(self, KeptAnswer answer) except -1
    # Nobody comes for it any more: what it took is given back.
    cdef int leave(self, KeptAnswer answer) except -1
    cdef bint _can_make_room(self, KeptAnswer other, long long needed_bytes) except -1
    cdef bint _drop_oldest(self, KeptAnswer other) except -1
