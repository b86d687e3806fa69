"""Many jobs in one request: POST /v1/batch."""

from libc.stdint cimport uint64_t

from gatewayx.core.budget cimport Held
from gatewayx.core.metrics cimport Names
from gatewayx.core.turns cimport TurnEnder
from gatewayx.gateway.access cimport Access
from gatewayx.gateway.batch_answers cimport AnswerHead, AnswerLines
from gatewayx.gateway.batch_line cimport BatchLine, LineTaker
from gatewayx.gateway.batch_lines cimport LineJob
from gatewayx.gateway.common cimport Common
from gatewayx.gateway.tokens cimport Token, Tokens
from gatewayx.http.request cimport BodySource, Request
from gatewayx.http.response cimport RetryAfter

cdef enum:
    # In one turn of the loop no more lines of a batch are begun than these, and none once they have so many bytes: others wait meanwhile.
    MOST_LINES_A_TURN = 256
    MOST_BYTES_A_TURN = 262144
    # Answers are given once in a turn, or when they have so many bytes.
    GATHERED_BYTES = 16384
    # Functions whose names are known to be names.
    MOST_KNOWN_FUNCTIONS = 1024


cdef class Batches:
    cdef Common gateway
    cdef Access access
    # Lines of a batch, and those that are under way at once.
    cdef Py_ssize_t max_lines
    cdef Py_ssize_t most_under_way
    # The names of functions that came lately, to the object that each is known as; at most MOST_KNOWN_FUNCTIONS.
    cdef dict functions
    # The name that came last, which function that is, and its place among those that are told apart, in this version of them.
    cdef bytes last_name
    cdef bytes last_function
    cdef int last_place
    cdef uint64_t last_version
    cdef Names names
    # What is read of a line, until its job is submitted.
    cdef LineJob job
    # When lines may be sent again that were refused for now.
    cdef RetryAfter retry_after

    # What is to take the batch whose head is there; raises RequestError.
    cdef Batch begin(self, Request request)
    # The function that a line names, whose place is last_place then; raises RequestError.
    cdef bytes function_of(self, bytes name)


cdef class Batch(LineTaker):
    cdef Batches batches
    cdef Common gateway
    # As Exchange has it, and the tokens among which it was found; None for none.
    cdef Token token
    cdef Tokens tokens
    # Who asks (gateway/own_request).
    cdef bytes asker_name
    cdef uint64_t asker_hashed
    # The lines, from `cursor` to `end` those that were not begun; None once all were. And what the budget counts of it.
    cdef bytes body
    cdef const char* cursor
    cdef const char* end
    cdef Held held
    # The number of the line that was begun last, of which kind so many were.
    cdef long long number
    cdef Py_ssize_t begun
    # The lines that were submitted and are not answered.
    cdef BatchLine first_line
    cdef Py_ssize_t under_way
    # Answers that were not given yet.
    cdef AnswerLines answers
    # The client takes answers: lines are begun.
    cdef bint takes
    # go_on() runs: whoever answers a line need not have it called.
    cdef bint going
    cdef BatchBody answer_body
    cdef BatchTurn answer_turn

    # Give the answers that are here, begin further lines, and end the answer if there are none.
    cdef int go_on(self) except -1
    cdef int _give(self) except -1
    cdef int _begin_lines(self) except -1
    cdef int _begin_line(self, const char* start, Py_ssize_t size) except -1
    cdef int _submit(self, LineJob job) except -1
    cdef int _drop_body(self) except -1
    cdef int _end(self) except -1
    # The answer is broken off, since the gateway has failed on it.
    cdef int break_off(self) except -1
    cdef int _answer_problem(
        self, bytes id, long long number, const AnswerHead* head, object problem, str detail
    ) except -1
    cdef str _unique_fault(self, bytes unique)
    cdef int _answered(self) except -1


cdef class BatchBody(BodySource):
    """Is told when the client takes answers."""
    # None once the batch has ended.
    cdef Batch batch


cdef class BatchTurn(TurnEnder):
    """Has the batch go on at the end of a turn in which lines were answered."""
    # None once the batch has ended.
    cdef Batch batch
