"""A line of a batch that is under way."""

from gatewayx.core.budget cimport Held
from gatewayx.gateway.batch_answers cimport AnswerHead
from gatewayx.gateway.common cimport Common
from gatewayx.gateway.exchange cimport Exchange
from gatewayx.gateway.job_request cimport JobRequest
from gatewayx.gateway.own_request cimport OwnRequest


cdef class LineTaker(JobRequest):
    """The batch, as its lines know it."""

    # The line is under way no more.
    cdef int line_ended(self, BatchLine line) except -1
    # Answer a line. body: bytes or bytearray.
    cdef int answer_line(self, bytes id, long long number, int status, const AnswerHead* head, object body) except -1
    # The same with a problem, of http/problems, with its own words where detail is None. headers: lines of the answer's head; None
    # for none.
    cdef int answer_line_problem(self, bytes id, long long number, object problem, str detail, bytes headers) except -1
    # The same with one that another process has told, as JSON.
    cdef int answer_line_told(self, bytes id, long long number, int status, const AnswerHead* head, bytes problem) except -1


cdef class LineExchange(Exchange):
    """The job of a line: a background job's answer has no Location, which lines do not tell."""
    cdef int _tell(self, int status, AnswerHead* head, bytes command, object body) except -1


cdef class BatchLine(OwnRequest):
    """A line that is under way: stands where its job's client would stand."""
    # None once it was answered or left.
    cdef LineTaker batch
    cdef Common gateway
    # As JSON; None without one.
    cdef bytes id
    cdef long long number
    # Its neighbours among those under way.
    cdef BatchLine previous_line
    cdef BatchLine next_line
    # Of an answer that comes in pieces from another process: its head, and what is here of the body, of so many bytes.
    cdef int status
    cdef bytes content_type
    cdef bytes headers
    cdef bytearray pieces
    cdef Py_ssize_t body_bytes
    cdef Held held

    cdef int answer_with(self, int status, const AnswerHead* head, object body) except -1
    cdef int _answer_told(self, int status, const AnswerHead* head, bytes problem) except -1
    # It was never submitted.
    cdef int give_up(self) except -1
    # It is under way no more.
    cdef int leave_batch(self) except -1
    cdef int _drop_pieces(self) except -1
