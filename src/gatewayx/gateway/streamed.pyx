"""One HTTP request as one Gearman job, whose data is the answer while it comes (X-Gearman-Stream).

Theory of operation. The first piece of data begins the answer, each further one follows as it comes, and the completion's data is
the last. An end before the first piece is answered as any job's is (gateway/job_ends). A failure after it leaves the body
unfinished, which is how HTTP tells that something is missing (RFC 9112 8): the status has left long before.

Nothing is gathered here but what comes before the head of the answer may leave. What a client does not take waits in its
connection, no more of it than a whole result might have: beyond, the answer ends unfinished, and the job is nobody's any more.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

from gatewayx.core.budget cimport RESULTS, ByteBudget, account_for
from gatewayx.core.metrics cimport Result
from gatewayx.gateway.exchange cimport Exchange
from gatewayx.gearman.job cimport Job, Submission
from gatewayx.http.request cimport UNKNOWN_BYTES, BodySource, Request

from gatewayx.http.problems import INTERNAL_ERROR, RESULT_TOO_LARGE


@cython.final
cdef class Streamed(Exchange):
    """One request and its job, answered while the job runs."""

    cdef int submit_job(self, bytes identity, Submission* submission) except -1:
        submission.streamed = True
        return Exchange.submit_job(self, identity, submission)

    cdef int close(self) except -1:
        self._drop_waiting()
        if self.body is not None:
            self.body.exchange = None
            self.body = None
        return Exchange.close(self)

    # What the job server says.

    cdef int job_data(self, Job job, bytes data) except -1:
        cdef bytes headers
        cdef Request request = self.request
        if not PyBytes_GET_SIZE(data):
            # It says nothing, and in chunks it would be the end.
            return 0
        if self.body is not None:
            return self._give(job, data)
        if request is None or request.owner is None:
            return 0
        headers = self.headers_of(job, None)
        self.body = StreamedBody.__new__(StreamedBody)
        self.body.exchange = self
        request.owner.answer_in_pieces(
            request,
            200,
            self.gateway.content_type,
            PyBytes_AS_STRING(headers),
            PyBytes_GET_SIZE(headers),
            UNKNOWN_BYTES,
            self.body,
            data,
        )
        return 0

    cdef int ended_with(self, Job job, int result, int status, bytes command, object body, int outcome) except -1:
        if self.body is None:
            return Exchange.ended_with(self, job, result, status, command, body, outcome)
        self._count_job(job, result)
        self.job = None
        if result != Result.COMPLETE:
            if self._take_back():
                return Exchange.ended_with(self, job, result, status, command, body, outcome)
            return self.close()
        self.request.outcome = outcome
        if len(body):
            self._give(job, body)
        self.is_whole = True
        return self.begun() if self.request is not None and self.request.has_left() else 0

    cdef int ended_badly(self, Job job, int result, object problem, str detail, bytes command) except -1:
        if self.body is not None:
            self._count_job(job, result)
            self.job = None
            if not self._take_back():
                return self.close()
        return Exchange.ended_badly(self, job, result, problem, detail, command)

    cdef int job_broken(self, Job job) except -1:
        return self.ended_badly(job, Result.LOST, INTERNAL_ERROR, None, None)

    # The body.

    cdef int _give(self, Job job, bytes piece) except -1:
        cdef Request request = self.request
        cdef Py_ssize_t size = PyBytes_GET_SIZE(piece)
        if request is None or request.owner is None:
            return 0
        if not self._has_room(size):
            self._count_job(job, Result.ABANDONED)
            self.job = None
            job.carrier.abandon(job)
            if self._take_back():
                return self._answer_problem(job, RESULT_TOO_LARGE, None, None)
            return self.close()
        if request.has_left():
            self.begun()
            if self.request is not None:
                request.owner.answer_piece(request, PyBytes_AS_STRING(piece), size)
            return 0
        if self.waiting is None:
            self.waiting = []
        self.waiting.append(piece)
        size += self.waiting_held.size_bytes
        self.gateway.pool.budget.hold(&self.waiting_held, account_for(RESULTS, size), size)
        return 0

    cdef bint _has_room(self, Py_ssize_t more_bytes) except -1:
        """Whether so much more may wait for its client to take it."""
        cdef ByteBudget budget = self.gateway.pool.budget
        cdef Py_ssize_t waiting_bytes = self.waiting_held.size_bytes + self.request.owner.pieces_waiting(self.request)
        if waiting_bytes + more_bytes > self.gateway.pool.max_result_bytes:
            return False
        if waiting_bytes and not budget.fits(account_for(RESULTS, waiting_bytes + more_bytes), more_bytes):
            budget.counts.budget_refused += 1
            return False
        return True

    cdef int begun(self) except -1:
        cdef Request request = self.request
        cdef list waiting = self.waiting
        cdef bytes piece
        if waiting is not None:
            self._drop_waiting()
            for piece in waiting:
                if request is None or request.owner is None:
                    return 0
                request.owner.answer_piece(request, PyBytes_AS_STRING(piece), PyBytes_GET_SIZE(piece))
        return self._end_body() if self.is_whole else 0

    cdef int _end_body(self) except -1:
        cdef Request request = self.request
        if request is not None and request.owner is not None:
            request.owner.end_pieces(request)
        return self.close()

    cdef bint _take_back(self) except -1:
        cdef Request request = self.request
        self._drop_waiting()
        return request is not None and request.owner is not None and request.owner.take_back(request)

    cdef int _drop_waiting(self) except -1:
        self.waiting = None
        if self.waiting_held.size_bytes:
            self.gateway.pool.budget.release(&self.waiting_held)
        return 0


@cython.final
cdef class StreamedBody(BodySource):
    """The body of a streamed answer."""

    cdef int wanted(self) except -1:
        # A reference of our own: the request may drop its while it runs.
        cdef Streamed exchange = self.exchange
        return 0 if exchange is None else exchange.begun()
