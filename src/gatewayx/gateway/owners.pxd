"""Which process of a gateway owns a key, and how a request comes to it."""

from gatewayx.gearman.job cimport JobListener
from gatewayx.http.records cimport Ending
from gatewayx.http.request cimport BodySource, Request

cdef enum:
    # Of a token's mark: the first bytes of the SHA-256 of its name.
    MARK_BYTES = 16


cdef class Asked(JobListener):
    """What a request asks for, which another process may have the answer to. It is the request's context (http/request)."""
    # None once it was answered or abandoned.
    cdef Request request
    # The request as the process has it that is to answer; None if that is this process, and before.
    cdef Relayed relayed
    # The answer that comes from there is being given in pieces, and nobody knows how many there are.
    cdef bint in_pieces
    cdef bint is_endless
    # How long its client waits for the head of the answer.
    cdef double timeout_s
    # What the request has as its body, where that is an object; None before all of it is there, and once it is in other hands.
    cdef bytes workload
    # Whose token its client has, MARK_BYTES long; None for none.
    cdef bytes token_mark

    # All of the request is there.
    cdef int perform(self) except -1
    # No answer is wanted any more.
    cdef int abandon(self) except -1
    # The gateway has failed on the request, which is told so.
    cdef int fail(self) except -1
    # The request has its answer, or never will: let go of it.
    cdef int close(self) except -1
    # How the request has ended, as the other process tells; headers: the lines of its answer.
    cdef int learn_ending(self, const Ending* ending, bytes headers) except -1
    # Nobody takes what is still to come of its body.
    cdef int drop_body(self) except -1
    # A wait for a kept job is over (gateway/watching): the job has ended, or time is up.
    cdef int waited(self) except -1

    # An answer that came as things happened is whole, or was ended early (gateway/event_stream).
    cdef int stream_ended(self) except -1

    # The header lines that make the request which the other process reads, each with its CRLF: beside Host and what frames the body.
    cdef bytes relayed_lines(self)
    # The process that owns its key has answered, and told how the request has ended. content_type: None for none. headers: whole lines. body: bytes or bytearray.
    cdef int relay_answered(
        self, int status, const Ending* ending, bytes content_type, bytes headers, object body
    ) except -1
    # The same for an answer whose body comes in pieces, each given to relay_piece() as `source` is told that they are wanted;
    # and its end. body_bytes: UNKNOWN_BYTES for a body that ends when it ends. Returns whether any piece is wanted.
    cdef bint relay_answers(
        self,
        int status,
        const Ending* ending,
        bytes content_type,
        bytes headers,
        long long body_bytes,
        BodySource source,
    ) except -1
    cdef bint relay_piece(self, const char* data, Py_ssize_t size) except -1
    cdef int relay_ended(self) except -1
    # That process takes no more of the body for now, or more again.
    cdef int relay_paused(self, bint pause) except -1
    # That process has not. problem: of http/problems.
    cdef int relay_failed(self, object problem, str detail) except -1


cdef class Relayed(BodySource):
    """A request that another process answers; nobody is told of the answer any more once it is abandoned."""
    cdef int abandon(self) except -1
    # All of its body was taken.
    cdef int complete(self) except -1


cdef class Owners:
    """What a Gateway asks where there are several processes."""
    # The place that owns a hash; -1 if it is that of this process.
    cdef int elsewhere(self, bytes hashed) noexcept
    # Have the process at the place answer the request, whose body is in asked.workload; what is known of it comes to
    # asked.relay_answered() or asked.relay_failed(), which may be before this returns: then it returns None.
    cdef Relayed relay(self, int place, Asked asked, Request request)
    # The same for a request whose head alone is there: its body goes to the Relayed, and then its end.
    cdef Relayed relay_head(self, int place, Asked asked, Request request)
