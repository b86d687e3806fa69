"""A line of a batch that is under way.

Theory of operation. Its job is that of a request of the gateway's own (gateway/own_request), so that it is admitted, relayed to the
process that owns its unique, and ended as any client's. What differs is the answer, which becomes a line of the batch's: it is handed
over as it is known, and written and read as header lines by nobody but a process that has relayed it.
"""

cimport cython
from cpython.bytearray cimport PyByteArray_GET_SIZE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

from gatewayx.core.budget cimport RESULTS, account_for
from gatewayx.core.metrics cimport Result
from gatewayx.gateway.batch_answers cimport AnswerHead, problem_json, read_answer_head
from gatewayx.gateway.exchange cimport Exchange
from gatewayx.gateway.job_request cimport JobRequest
from gatewayx.gateway.own_request cimport OwnRequest
from gatewayx.gearman.job cimport Job
from gatewayx.gearman.pool cimport Pool
from gatewayx.http.request cimport UNKNOWN_BYTES, BodySource, Request

from gatewayx.http import outcomes
from gatewayx.http.problems import NO_ROOM_FOR_RESULT, PROBLEMS, RESULT_TOO_LARGE
from gatewayx.http.response import PROBLEM_CONTENT_TYPE

cdef int FIRST_PROBLEM = outcomes.FIRST_PROBLEM

cdef bytes PROBLEM_TYPE = PROBLEM_CONTENT_TYPE


cdef class LineTaker(JobRequest):
    """Takes the answers of lines."""

    cdef int line_ended(self, BatchLine line) except -1:
        raise NotImplementedError

    cdef int answer_line(self, bytes id, long long number, int status, const AnswerHead* head, object body) except -1:
        raise NotImplementedError

    cdef int answer_line_problem(self, bytes id, long long number, object problem, str detail, bytes headers) except -1:
        raise NotImplementedError

    cdef int answer_line_told(self, bytes id, long long number, int status, const AnswerHead* head, bytes problem) except -1:
        raise NotImplementedError


@cython.final
cdef class LineExchange(Exchange):
    """The job of a line."""

    cdef int job_created(self, Job job, const char* handle, Py_ssize_t handle_bytes) except -1:
        cdef AnswerHead head
        if not job.background:
            return 0
        self._count_job(job, Result.QUEUED)
        head.handle.start = handle
        head.handle.size = handle_bytes
        return self._tell(200, &head, b"JOB_CREATED", b"")

    cdef int _answer(self, Job job, int status, bytes command, object body) except -1:
        cdef AnswerHead head
        head.handle.start = NULL
        if job is not None and job.handle is not None:
            head.handle.start = PyBytes_AS_STRING(job.handle)
            head.handle.size = PyBytes_GET_SIZE(job.handle)
        return self._tell(status, &head, command, body)

    cdef int _tell(self, int status, AnswerHead* head, bytes command, object body) except -1:
        """Answer the line as put_headers() and its client's connection would, which need not be written and read for it."""
        cdef Request request = self.request
        head.retry_after_s = -1
        head.command.start = NULL
        if head.handle.start != NULL and command is not None:
            head.command.start = PyBytes_AS_STRING(command)
            head.command.size = PyBytes_GET_SIZE(command)
        if self.unique is None:
            head.unique.start = self.own_unique.text
            head.unique.size = self.own_unique.size
        else:
            head.unique.start = PyBytes_AS_STRING(self.unique)
            head.unique.size = PyBytes_GET_SIZE(self.unique)
        if request is not None:
            (<BatchLine> request.owner).answer_with(status, head, body)
        return self.close()


@cython.final
cdef class BatchLine(OwnRequest):
    """A line that is under way; the .pxd says what each field means."""

    cdef int answer(
        self,
        Request request,
        int status,
        bytes content_type,
        const char* headers,
        Py_ssize_t headers_bytes,
        object body,
    ) except -1:
        cdef AnswerHead head
        read_answer_head(headers, headers_bytes, &head)
        if status >= 400 and content_type is not None and content_type == PROBLEM_TYPE:
            problem = problem_json(bytes(body), head.retry_after_s)
            if problem is not None:
                return self._answer_told(status, &head, problem)
        if request.outcome >= FIRST_PROBLEM and not body:
            # With --plugin-compat another process has told of its problem without a word.
            return self.answer_problem(request, PROBLEMS[request.outcome - FIRST_PROBLEM], None, headers[:headers_bytes])
        return self.answer_with(status, &head, body)

    cdef int answer_with(self, int status, const AnswerHead* head, object body) except -1:
        # References of our own: the request and the batch let go of theirs.
        cdef BatchLine line = self
        cdef LineTaker batch = self.batch
        if batch is not None:
            batch.answer_line(self.id, self.number, status, head, body)
        return line.leave_batch()

    cdef int _answer_told(self, int status, const AnswerHead* head, bytes problem) except -1:
        cdef BatchLine line = self
        cdef LineTaker batch = self.batch
        if batch is not None:
            batch.answer_line_told(self.id, self.number, status, head, problem)
        return line.leave_batch()

    cdef int answer_problem(self, Request request, object problem, str detail, bytes headers) except -1:
        cdef BatchLine line = self
        cdef LineTaker batch = self.batch
        try:
            if batch is not None:
                batch.answer_line_problem(self.id, self.number, problem, detail, headers)
        finally:
            # Nothing else would answer it.
            line.leave_batch()
        return 0

    cdef int pause_body(self, bint pause) except -1:
        # All of the line's workload is here.
        return 0

    # An answer from another process that is too large to come at once.

    cdef bint answer_in_pieces(
        self,
        Request request,
        int status,
        bytes content_type,
        const char* headers,
        Py_ssize_t headers_bytes,
        long long body_bytes,
        BodySource source,
        bytes first,
    ) except -1:
        cdef Pool pool = self.gateway.pool
        if (
            # No answer to a line is one without a length.
            body_bytes == UNKNOWN_BYTES
            or body_bytes > pool.max_result_bytes
            or not pool.budget.resize(&self.held, account_for(RESULTS, body_bytes), body_bytes)
        ):
            pool.budget.counts.budget_refused += 1
            self.answer_problem(request, RESULT_TOO_LARGE, NO_ROOM_FOR_RESULT, headers[:headers_bytes])
            return False
        self.status = status
        self.content_type = content_type
        self.headers = headers[:headers_bytes]
        self.body_bytes = body_bytes
        self.pieces = bytearray() if first is None else bytearray(first)
        source.wanted()
        return True

    cdef bint answer_piece(self, Request request, const char* data, Py_ssize_t size) except -1:
        cdef bytearray pieces = self.pieces
        cdef bytes headers = self.headers
        if pieces is None:
            return False
        pieces += data[:size]
        if PyByteArray_GET_SIZE(pieces) < self.body_bytes:
            return True
        # From here on it counts as its batch's answer.
        self._drop_pieces()
        self.answer(
            request, self.status, self.content_type, PyBytes_AS_STRING(headers), PyBytes_GET_SIZE(headers), pieces
        )
        return False

    cdef bint take_back(self, Request request) except -1:
        self._drop_pieces()
        return True

    # Its end.

    cdef int leave_batch(self) except -1:
        cdef LineTaker batch = self.batch
        self.batch = None
        self._drop_pieces()
        if batch is not None:
            batch.line_ended(self)
        return 0 if self.request is None else self.answered()

    cdef int give_up(self) except -1:
        cdef Request request = self.request
        self.leave_batch()
        if request is not None and request.context is not None:
            (<JobRequest> request.context).abandon()
        return 0

    cdef int leave(self) except -1:
        self._drop_pieces()
        return OwnRequest.leave(self)

    cdef int _drop_pieces(self) except -1:
        self.pieces = None
        if self.held.size_bytes:
            self.gateway.pool.budget.release(&self.held)
        return 0
