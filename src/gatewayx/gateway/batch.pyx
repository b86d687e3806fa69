"""Many jobs in one request: POST /v1/batch.

Theory of operation. The whole body is there before anything is submitted, so that one which is cut or too long is as if it had not
come. The answer's head leaves at once, since no line's outcome is the batch's. From then on a bounded number of lines is under way:
each is a request of the gateway's own (gateway/own_request), admitted as any other, whose answer becomes a line of the batch's.
Answers are gathered and given at the end of the turn in which they came, and so many further lines are begun in their places.

A client that does not take its answers delays the further lines: those under way end all the same, and what they come to waits in the
client's connection, no more than so many answers. Once the client is gone, those under way are nobody's any more, as with any request,
and no further one is begun.
"""

import logging
import time

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE

from gatewayx.core.budget cimport BODIES, RESULTS, SMALL_BYTES, ByteBudget, account_for
from gatewayx.core.turns cimport TurnEnder
from gatewayx.gateway.access cimport Access
from gatewayx.gateway.asking cimport ABOUT_THE_JOB, ABOUT_THE_KEY
from gatewayx.gateway.batch_answers cimport AnswerHead, AnswerLines, encoded_body, problem_json, read_answer_head
from gatewayx.gateway.batch_line cimport BatchLine, LineExchange, LineTaker
from gatewayx.gateway.batch_lines cimport LineJob, count_lines, next_line, path_of
from gatewayx.gateway.common cimport Common
from gatewayx.gateway.headers cimport unique_fault
from gatewayx.gateway.job_calls cimport allow_line
from gatewayx.gateway.job_request cimport CLIENT, GATEWAY, JobRequest, Priority
from gatewayx.gateway.routes cimport checked_function, plugin_function_of
from gatewayx.http.request cimport METHOD_POST, UNKNOWN_BYTES, BodySource, Request
from gatewayx.http.response cimport RetryAfter, problem_body

from gatewayx.http.problems import (
    BATCH_TOO_LONG,
    FUNCTION_NOT_ALLOWED,
    INTERNAL_ERROR,
    MALFORMED_HEADER,
    MALFORMED_LINE,
    METHOD_NOT_ALLOWED,
    NO_FUNCTION,
    NO_ROOM_FOR_RESULT,
    RESULT_TOO_LARGE,
    TOO_MANY_BYTES,
    UNEXPECTED_QUERY,
    RequestError,
)

logger = logging.getLogger("gatewayx.gateway")

# There is no registered name for it; this one is what nearly all who write it use.
cdef bytes NDJSON = b"application/x-ndjson"


@cython.final
cdef class Batches:
    """Makes a batch of each request to /v1/batch; the .pxd says what each field means."""

    def __init__(self, Common gateway not None, Access access not None):
        self.gateway = gateway
        self.access = access
        self.job = LineJob()
        self.retry_after = RetryAfter(time.monotonic)
        self.functions = {}

    def change(self, Py_ssize_t max_lines, Py_ssize_t most_under_way):
        """Let batches that come from now on have so many lines, and any batch so many under way at once; both above 0."""
        self.max_lines = max_lines
        self.most_under_way = most_under_way
        # A name that came lately may be too long now.
        self.functions.clear()
        self.last_name = None
        self.names = self.gateway.records.metrics.functions

    cdef Batch begin(self, Request request):
        cdef Batch batch
        if request.method != METHOD_POST:
            raise RequestError(METHOD_NOT_ALLOWED, "a batch is sent with POST", allow_line(request.path))
        if request.query is not None:
            raise RequestError(UNEXPECTED_QUERY)
        if request.header_kinds & ABOUT_THE_KEY:
            raise RequestError(MALFORMED_HEADER, "Idempotency-Key is for one job, and not taken with a batch")
        if request.header_kinds & ABOUT_THE_JOB:
            # Jobs would run otherwise than their client believes.
            raise RequestError(MALFORMED_HEADER, "each line of a batch says of its own job what X-Gearman- headers say of one")
        batch = Batch.__new__(Batch)
        batch.batches = self
        batch.gateway = self.gateway
        batch.token = self.access.token
        batch.tokens = self.access.tokens
        return batch

    cdef bytes function_of(self, bytes name):
        cdef object known
        if name is self.last_name and self.last_version == self.names.version():
            return self.last_function
        known = self.functions.get(name)
        if known is None:
            if not name:
                raise RequestError(NO_FUNCTION, "the line names no function: it is empty")
            known = checked_function(name, self.gateway.max_function_bytes)
            if len(self.functions) >= MOST_KNOWN_FUNCTIONS:
                self.functions.clear()
            self.functions[name] = known
        # Those who count by function know it at a glance as the same object (gateway/rates).
        self.last_name = name
        self.last_function = <bytes> known
        self.last_version = self.names.version()
        self.last_place = self.names.place_of(self.last_function)
        return self.last_function


@cython.final
cdef class Batch(LineTaker):
    """One batch; the .pxd says what each field means."""

    cdef int perform(self) except -1:
        cdef Request request = self.request
        cdef ByteBudget budget = self.gateway.pool.budget
        cdef Py_ssize_t count = count_lines(
            request.body_start, request.body_start + request.body_bytes, self.batches.max_lines
        )
        if count > self.batches.max_lines:
            request.owner.answer_problem(
                request, BATCH_TOO_LONG, f"the batch has more than {self.batches.max_lines} lines; nothing was submitted", None
            )
            return self.close()
        budget.counts.batches += 1
        if count == 0:
            request.owner.answer(request, 200, NDJSON, NULL, 0, b"")
            return self.close()
        self.body = request.body
        if self.body is None:
            self.body = PyBytes_FromStringAndSize(request.body_start, request.body_bytes)
        self.cursor = PyBytes_AS_STRING(self.body)
        self.end = self.cursor + PyBytes_GET_SIZE(self.body)
        self.asker_name = request.owner.asker(request)
        self.asker_hashed = request.owner.asker_hash(request)
        self.answers = AnswerLines.__new__(AnswerLines)
        self.answer_turn = BatchTurn.__new__(BatchTurn)
        self.answer_turn.batch = self
        self.answer_body = BatchBody.__new__(BatchBody)
        self.answer_body.batch = self
        budget.begin_move()
        try:
            request.let_go()
            if not request.owner.answer_in_pieces(request, 200, NDJSON, NULL, 0, UNKNOWN_BYTES, self.answer_body, None):
                return self.close()
            # The request has let go of it.
            budget.hold(&self.held, account_for(BODIES, PyBytes_GET_SIZE(self.body)), PyBytes_GET_SIZE(self.body))
        finally:
            budget.end_move()
        return 0

    cdef int go_on(self) except -1:
        if self.request is None:
            return 0
        self.going = True
        try:
            self._give()
            self._begin_lines()
            if self.answers.size:
                # Lines that were refused.
                self._give()
        finally:
            self.going = False
        if self.request is None:
            return 0
        if self.cursor == self.end:
            return 0 if self.under_way else self._end()
        if self.takes and self.under_way < self.batches.most_under_way:
            # The turn had enough of it.
            return self.gateway.pool.turn.add_client(self.answer_turn)
        return 0

    cdef int _give(self) except -1:
        cdef Request request = self.request
        if self.answers.size == 0 or request is None or request.owner is None:
            return 0
        self.takes = request.owner.answer_piece(request, self.answers.start, self.answers.size)
        return self.answers.clear()

    cdef int _begin_lines(self) except -1:
        cdef int lines = 0
        cdef const char* first = self.cursor
        cdef const char* start
        cdef Py_ssize_t size
        while (
            self.takes
            and self.under_way < self.batches.most_under_way
            and self.cursor < self.end
            and lines < MOST_LINES_A_TURN
            and self.cursor - first < MOST_BYTES_A_TURN
            and self.request is not None
        ):
            self.cursor = next_line(self.cursor, self.end, &start, &size, &self.number)
            lines += 1
            if size:
                self.begun += 1
                self._begin_line(start, size)
        # The last line's is in other hands.
        self.batches.job.workload = None
        if self.cursor == self.end:
            self._drop_body()
        return 0

    cdef int _begin_line(self, const char* start, Py_ssize_t size) except -1:
        cdef Batches batches = self.batches
        cdef LineJob job = batches.job
        job.id = None
        try:
            job.read_line(start, size)
            self.token = batches.access.token_now(self.tokens, self.token)
            self.tokens = batches.access.tokens
            if self.begun > 1:
                # The first one is the request itself, which was counted.
                batches.access.check_further(self.request, self.token)
            if job.fault is not None:
                raise RequestError(MALFORMED_LINE, job.fault)
            return self._submit(job)
        except RequestError as error:
            return self.answer_line_problem(job.id, self.number, error.problem, error.detail, error.headers)
        except Exception:
            logger.exception("a line of a batch failed")
            return self.answer_line_problem(job.id, self.number, INTERNAL_ERROR, None, None)

    cdef int _submit(self, LineJob job) except -1:
        """Submit the job of a line; raises RequestError."""
        cdef Common gateway = self.gateway
        cdef LineExchange exchange = LineExchange.__new__(LineExchange)
        cdef BatchLine line
        cdef bytes path = None
        cdef str fault
        exchange.function = self.batches.function_of(job.function)
        if not gateway.admission.allows(exchange.function):
            raise RequestError(FUNCTION_NOT_ALLOWED)
        exchange.plugin_compat = gateway.plugin_compat
        exchange.priority = <Priority> job.priority
        exchange.background = job.background
        exchange.timeout_s = gateway.job_timeout_s
        if job.timeout_s > 0:
            exchange.tells_timeout = True
            exchange.timeout_s = min(job.timeout_s, exchange.timeout_s)
        if job.unique is not None:
            fault = self._unique_fault(job.unique)
            if fault is not None:
                raise RequestError(MALFORMED_LINE, f"unique {fault}")
        if self.batches.access.limits_jobs:
            self.batches.access.check_line(self.request, self.token, exchange)
            exchange.token = self.token
            if exchange.token is not None:
                exchange.token_mark = exchange.token.mark
        if PyBytes_GET_SIZE(job.workload) > SMALL_BYTES and (
            not gateway.pool.budget.fits(BODIES, PyBytes_GET_SIZE(job.workload))
        ):
            # Its packet is held beside the batch.
            gateway.pool.budget.counts.budget_refused += 1
            raise RequestError(TOO_MANY_BYTES)
        if job.unique is None:
            exchange.unique_origin = GATEWAY
            gateway.next_unique(&exchange.own_unique)
        else:
            exchange.unique_origin = CLIENT
            exchange.unique = job.unique
            if job.unique == b"-":
                exchange.hash_workload(gateway.pool.start_identity(exchange.function, job.unique))
            path = path_of(exchange.function)
            if gateway.plugin_compat and plugin_function_of(path, None, gateway.max_function_bytes) != exchange.function:
                raise RequestError(
                    MALFORMED_LINE, "with --plugin-compat no path names this function, so that it cannot have a unique"
                )
        line = BatchLine.__new__(BatchLine)
        line.asker_name = self.asker_name
        line.asker_hashed = self.asker_hashed
        line.batch = self
        line.gateway = gateway
        line.id = job.id
        line.number = self.number
        line.next_line = self.first_line
        if self.first_line is not None:
            self.first_line.previous_line = line
        self.first_line = line
        self.under_way += 1
        gateway.pool.budget.counts.batch_jobs += 1
        try:
            return line.submit(
                gateway,
                exchange,
                path,
                job.workload,
                self.batches.last_place,
                self.request,
            )
        except Exception:
            line.give_up()
            raise

    cdef int _drop_body(self) except -1:
        self.body = None
        self.cursor = self.end = NULL
        self.gateway.pool.budget.release(&self.held)
        return 0

    cdef int _end(self) except -1:
        cdef Request request = self.request
        if request.owner is not None:
            request.owner.end_pieces(request)
        return self.close()

    cdef int break_off(self) except -1:
        cdef Request request = self.request
        logger.exception("a batch failed")
        if request is None:
            return 0
        if request.owner is not None:
            request.owner.take_back(request)
        return 0 if self.request is None else self.abandon()

    cdef int abandon(self) except -1:
        cdef BatchLine line = self.first_line
        cdef BatchLine following
        self.first_line = None
        self.under_way = 0
        self.close()
        while line is not None:
            following = line.next_line
            line.previous_line = line.next_line = None
            line.batch = None
            try:
                line.leave()
            except Exception:
                logger.exception("a line of a batch could not be left")
            line = following
        return 0

    cdef int close(self) except -1:
        if self.request is not None:
            self.request.context = None
            self.request = None
            self.gateway.open_exchanges -= 1
            self._drop_body()
            if self.answer_body is not None:
                self.answers.clear()
                self.answer_body.batch = None
                self.answer_turn.batch = None
        return 0

    # Answers of lines.

    cdef int line_ended(self, BatchLine line) except -1:
        if line.previous_line is None:
            self.first_line = line.next_line
        else:
            line.previous_line.next_line = line.next_line
        if line.next_line is not None:
            line.next_line.previous_line = line.previous_line
        line.previous_line = line.next_line = None
        self.under_way -= 1
        return 0

    cdef int answer_line(self, bytes id, long long number, int status, const AnswerHead* head, object body) except -1:
        cdef AnswerLines answers = self.answers
        cdef ByteBudget budget = self.gateway.pool.budget
        cdef Request request = self.request
        cdef bytes encoded = None
        cdef bint is_text = True
        cdef Py_ssize_t written_bytes
        if body is None:
            body = b""
        if len(body) <= GATHERED_BYTES // 8:
            written_bytes = answers.size
            try:
                answers.put_head(id, number, status, head)
                answers.put_body(body)
            except BaseException:
                # Half of it would be read as a part of the next one.
                answers.size = written_bytes
                raise
            return self._answered()
        if budget.fits(account_for(RESULTS, len(body)), len(body)):
            encoded = encoded_body(body, &is_text)
        if encoded is not None and PyBytes_GET_SIZE(encoded) <= GATHERED_BYTES:
            answers.put_head(id, number, status, head)
            answers.put_encoded(encoded, is_text)
            return self._answered()
        if encoded is None or not budget.fits(RESULTS, PyBytes_GET_SIZE(encoded)):
            budget.counts.budget_refused += 1
            return self._answer_problem(id, number, head, RESULT_TOO_LARGE, NO_ROOM_FOR_RESULT)
        # It is copied no more often than any large answer.
        answers.put_head(id, number, status, head)
        answers.put_before_body(is_text)
        self._give()
        if request.owner is not None:
            self.takes = request.owner.answer_piece(request, PyBytes_AS_STRING(encoded), PyBytes_GET_SIZE(encoded))
        answers.put_behind_body(is_text)
        return self._answered()

    cdef int answer_line_problem(self, bytes id, long long number, object problem, str detail, bytes headers) except -1:
        cdef AnswerHead head
        read_answer_head(NULL, 0, &head)
        if headers is not None:
            read_answer_head(PyBytes_AS_STRING(headers), PyBytes_GET_SIZE(headers), &head)
        if head.retry_after_s < 0 and (problem.status == 503 or problem.status == 429):
            head.retry_after_s = int(self.batches.retry_after.line(problem.kind)[13:])
        return self._answer_problem(id, number, &head, problem, detail)

    cdef int _answer_problem(
        self, bytes id, long long number, const AnswerHead* head, object problem, str detail
    ) except -1:
        return self.answer_line_told(
            id,
            number,
            problem.status,
            head,
            problem_json(problem_body(problem, problem.detail if detail is None else detail, b""), head.retry_after_s),
        )

    cdef int answer_line_told(self, bytes id, long long number, int status, const AnswerHead* head, bytes problem) except -1:
        self.answers.put_head(id, number, status, head)
        self.answers.put_problem(problem)
        return self._answered()

    cdef int _answered(self) except -1:
        if self.answers.size >= GATHERED_BYTES:
            self._give()
        return 0 if self.going else self.gateway.pool.turn.add_client(self.answer_turn)

    cdef str _unique_fault(self, bytes unique):
        """Why it may be no unique, in words; None if it may. What no header could say is none."""
        if self.gateway.refuse_client_unique:
            return "is not taken here: the gateway makes every unique"
        if unique.strip(b" \t") != unique:
            return "has white space around it"
        return unique_fault(unique, self.gateway.plugin_compat)


@cython.final
cdef class BatchBody(BodySource):
    """Is told when the client takes answers."""

    cdef int wanted(self) except -1:
        # A reference of our own: the request may drop its while it runs.
        cdef Batch batch = self.batch
        if batch is None:
            return 0
        batch.takes = True
        return batch.go_on()


@cython.final
cdef class BatchTurn(TurnEnder):
    """Has the batch go on at the end of a turn in which lines were answered."""

    cdef int end_turn(self) except -1:
        cdef Batch batch = self.batch
        return 0 if batch is None else batch.go_on()

    cdef int turn_failed(self) except -1:
        cdef Batch batch = self.batch
        return 0 if batch is None else batch.break_off()
