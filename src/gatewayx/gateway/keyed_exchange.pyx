"""One HTTP request with an idempotency key.

Theory of operation. It is an Exchange up to the moment in which its body is there, by which time another process may have it, as
that of a client's unique: the one that owns the key. There the first request with the key has its job run for the key, and this waits,
as every later one does, for what comes of it (gateway/keys). Whoever comes when all is over is answered at once.

Those who only wait, or come later, submit nothing: they take no place among the jobs, and are answered where no job could be
submitted.
"""

import hashlib

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize, PyBytes_GET_SIZE

from gatewayx.gateway.exchange cimport Exchange
from gatewayx.gateway.job_request cimport NOTHING_SUBMITTED
from gatewayx.gateway.kept_answers cimport answer_kept
from gatewayx.gateway.kept_exchange cimport KeptExchange
from gatewayx.gateway.keys cimport KeyRecord, Keys
from gatewayx.gateway.own_request cimport OwnRequest
from gatewayx.gateway.watching cimport Wait
from gatewayx.http.records cimport Ending
from gatewayx.http.request cimport BodySink, Request

from gatewayx.http import outcomes
from gatewayx.http.problems import JOB_TIMEOUT, KEY_REUSED, TOO_MANY_KEYS

cdef dict OUTCOME_OF_PROBLEM = outcomes.OUTCOME_OF_PROBLEM

cdef bytes REPEATED_LINE = b"Idempotency-Replayed: true\r\n"


@cython.final
cdef class KeyedExchange(Exchange):
    """One request with an idempotency key."""

    cdef int read(self, Exchange form, bytes value, bytes hashed, bint is_owner) except -1:
        self.become(form)
        self.form = form
        self.token_mark = form.token_mark
        self.key_value = value
        self.hashed = hashed
        if is_owner:
            self.fingerprint = Fingerprint.__new__(Fingerprint)
            # A function holds no NUL, and the rest has one length: two requests never read alike.
            self.fingerprint.hashing = hashlib.sha256(
                b"%b\0%d%d" % (self.function, self.background, <int> self.priority), usedforsecurity=False
            )
        return 0

    cdef object enter_token(self):
        # The job counts among those of its token where it runs.
        return None

    cdef bytes _identity(self):
        return self.hashed

    cdef bytes relayed_lines(self):
        return self.form.relayed_lines() + b"Idempotency-Key: %b\r\n" % self.key_value

    cdef double answer_within_s(self) noexcept:
        # The first request with the key may have asked for as long as any may.
        return 2 * self.gateway.job_timeout_s

    cdef int submit(self) except -1:
        cdef Request request = self.request
        cdef Keys keys = self.gateway.keys
        cdef KeyRecord record
        cdef bytes fingerprint
        self.workload = request.body
        if self.workload is None:
            self.workload = PyBytes_FromStringAndSize(request.body_start, request.body_bytes)
        if self._relay(self.hashed):
            return 0
        fingerprint = self.fingerprint.of(self.workload)
        record = keys.find(self.hashed)
        if record is None:
            return self._begin(fingerprint)
        if record.fingerprint != fingerprint:
            keys.counts.keys_reused += 1
            return self._answer_problem(None, KEY_REUSED, None, None)
        self.is_repeated = True
        if record.has_ended:
            keys.counts.keys_replayed += 1
            return self._answer_kept(record)
        keys.counts.keys_joined += 1
        self._let_go()
        self._wait(record)
        return self.wait.wake(self.gateway.pool.wheel, self.timeout_s) if self.tells_timeout else 0

    cdef int _begin(self, bytes fingerprint) except -1:
        """The job is the first with its key."""
        cdef Request request = self.request
        cdef Keys keys = self.gateway.keys
        cdef KeyRequest asked = KeyRequest.__new__(KeyRequest)
        cdef KeyRecord record
        cdef Exchange form = self.form
        cdef bytes workload = self.workload
        cdef object refusal = self.gateway.kept.refusal() if isinstance(form, KeptExchange) else None
        if refusal is not None:
            return self._answer_problem(None, refusal, None, None)
        record = keys.begin(self.hashed, fingerprint)
        if record is None:
            return self._answer_problem(None, TOO_MANY_KEYS, None, None)
        form.token = self.token
        if form.token is None and self.token_mark is not None:
            # Another process has asked for a client of its own.
            form.token = self.gateway.token_of(self.token_mark)
        asked.keys = keys
        asked.record = record
        asked.kept = form if isinstance(form, KeptExchange) else None
        asked.made_for(request)
        self._let_go()
        self._wait(record)
        return asked.submit(self.gateway, form, b"/", workload, request.function_place, request)

    cdef int _wait(self, KeyRecord record) except -1:
        self.record = record
        self.wait = Wait.__new__(Wait)
        self.wait.asked = self
        return self.wait.wait_for(record)

    cdef int waited(self) except -1:
        cdef KeyRecord record = self.record
        self.record = None
        self.wait.leave()
        if record.has_ended:
            return self._answer_kept(record)
        return self._answer_problem(
            None, JOB_TIMEOUT, "no result in time; the job of the idempotency key goes on, and can be asked for with it", None
        )

    cdef int _answer_kept(self, KeyRecord record) except -1:
        cdef Ending ending
        cdef Request request = self.request
        if request is not None and request.owner is not None:
            ending.outcome = record.outcome
            ending.server_place = record.server_place
            # It waited for no job of its own.
            ending.job_ns = -1 if self.is_repeated else record.job_ns
            self.learn_ending(&ending, b"" if record.headers is None else record.headers)
            answer_kept(request, self.gateway.keys.room, record, REPEATED_LINE if self.is_repeated else None)
        return self.close()

    cdef int abandon(self) except -1:
        if self.record is not None:
            # The job goes on: its client may come again.
            self.record = None
            self.wait.leave()
        return Exchange.abandon(self)


@cython.final
cdef class KeyRequest(OwnRequest):
    """The client of a key's job, which does not hang up."""

    cdef int answer(
        self,
        Request request,
        int status,
        bytes content_type,
        const char* headers,
        Py_ssize_t headers_bytes,
        object body,
    ) except -1:
        cdef KeyRecord record = self.record
        record.status = status
        record.outcome = request.outcome
        record.content_type = content_type
        record.headers = headers[:headers_bytes]
        if self.kept is not None and self.kept.accepted is not None:
            record.job_id = self.kept.accepted.id
        record.body = body
        record.body_bytes = len(body)
        return self._end(request)

    cdef int answer_problem(self, Request request, object problem, str detail, bytes headers) except -1:
        cdef KeyRecord record = self.record
        record.status = problem.status
        record.outcome = <int> OUTCOME_OF_PROBLEM[problem.kind]
        record.headers = headers
        record.problem = problem
        record.detail = detail
        record.is_released = problem.status == 503 or 400 <= problem.status < 500 or (
            problem is JOB_TIMEOUT and detail is not None and detail.endswith(NOTHING_SUBMITTED)
        )
        return self._end(request)

    cdef int _end(self, Request request) except -1:
        self.record.job_ns = request.job_ns
        self.record.server_place = request.server_place
        self.answered()
        return self.keys.end(self.record)


@cython.final
cdef class Fingerprint(BodySink):
    """What tells a request with a key from others."""

    cdef int take(self, const char* piece, Py_ssize_t piece_bytes) except -1:
        self.has_taken = True
        self.hashing.update(piece[:piece_bytes])
        return 0

    cdef bytes of(self, bytes workload):
        if not self.has_taken:
            # It came at once.
            self.hashing.update(workload)
        return self.hashing.digest()
