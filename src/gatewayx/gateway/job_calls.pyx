"""Calls about jobs that outlive their requests: /v1/jobs/<id> and what is below it.

Theory of operation. The id says which process keeps the job: that one answers, and any other one relays the call to it. Whether
the id was given to whoever asks is told by the id itself (gateway/job_ids), so that one which was guessed, altered, or belongs to
another token costs the same work as one that is too short, and nobody is asked for it.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memcmp

from gatewayx.core.grammar cimport put_percent_decoded
from gatewayx.gateway.background_jobs cimport BackgroundJobs
from gatewayx.gateway.common cimport Common
from gatewayx.gateway.event_stream cimport begin_stream
from gatewayx.gateway.events cimport read_event_id
from gatewayx.gateway.job_ids cimport BackgroundId, KeptPlace
from gatewayx.gateway.kept_answers cimport answer_json, answer_kept, location_line
from gatewayx.gateway.kept_job cimport (
    ASKED,
    CANCELLED,
    LOST,
    NOT_ASKED,
    NOT_KNOWN,
    TIMEOUT,
    WILL_NOT_RUN,
    KeptJob,
)
from gatewayx.gateway.kept_jobs cimport MOST_WAITING, KeptJobs
from gatewayx.gateway.kept_run cimport KeptRun
from gatewayx.gateway.job_request cimport JobRequest, Relayed
from gatewayx.gateway.openapi_call cimport is_openapi
from gatewayx.gateway.preferences cimport last_event_id, wanted_tags
from gatewayx.gateway.watching cimport Wait
from gatewayx.http.records cimport Ending
from gatewayx.http.request cimport METHOD_DELETE, METHOD_GET, METHOD_HEAD, METHOD_POST, Request

from gatewayx.http import outcomes
from gatewayx.http.problems import (
    JOB_UNKNOWN,
    METHOD_NOT_ALLOWED,
    NOT_CANCELLABLE,
    NOT_KEPT,
    OUTCOME_UNKNOWN,
    OWNER_AWAY,
    RESERVED_PATH,
    UNEXPECTED_BODY,
    UNEXPECTED_QUERY,
    RequestError,
)

cdef bytes JOBS_PATH = b"/v1/jobs/"
# The last part of a path to what it is of; no part is the job.
cdef dict KINDS = {b"": STATE, b"result": RESULT, b"events": EVENTS, b"cancel": CANCEL}
cdef bytes ALLOW_JOB = b"Allow: GET, HEAD, DELETE, OPTIONS\r\n"
cdef bytes ALLOW_CANCEL = b"Allow: POST, OPTIONS\r\n"
cdef bytes ALLOW_BATCH = b"Allow: POST, OPTIONS\r\n"
cdef bytes ALLOW_OTHER = b"Allow: GET, HEAD, OPTIONS\r\n"

cdef enum:
    # A wait with more digits asks for longer than anybody may.
    MOST_WAIT_DIGITS = 18
    # A process that owns a job has so long for an answer that it need not wait for.
    RELAY_S = 10

cdef str ENDED = "no process of this gateway keeps the job any more: the one that kept it has ended, and its jobs with it"


cdef bint is_call(bytes path) noexcept:
    return PyBytes_GET_SIZE(path) >= 4 and memcmp(PyBytes_AS_STRING(path), b"/v1/", 4) == 0


cdef bint is_batch(bytes path) noexcept:
    return PyBytes_GET_SIZE(path) == 9 and memcmp(PyBytes_AS_STRING(path), b"/v1/batch", 9) == 0


cdef bytes allow_line(bytes path):
    if is_openapi(path):
        return ALLOW_OTHER
    if is_batch(path):
        return ALLOW_BATCH
    kind = _parts(path)[1]
    return ALLOW_JOB if kind == STATE else ALLOW_CANCEL if kind == CANCEL else ALLOW_OTHER


cdef tuple _parts(bytes path):
    """The id that a path names, and what of it; raises RequestError."""
    cdef bytes id, part
    if not path.startswith(JOBS_PATH):
        raise RequestError(RESERVED_PATH, "nothing is served at this path below /v1/")
    id, _, part = path[PyBytes_GET_SIZE(JOBS_PATH) :].partition(b"/")
    kind = KINDS.get(part)
    if kind is None or (part == b"" and path.endswith(b"/")):
        raise RequestError(RESERVED_PATH, "nothing is served at this path below /v1/jobs/")
    return id, kind


cdef JobCall read_call(Common gateway, Request request):
    cdef JobCall call = JobCall.__new__(JobCall)
    id, kind = _parts(request.path)
    call.kind = <CallKind> <int> kind
    if call.kind == CANCEL:
        if request.method != METHOD_POST:
            raise RequestError(METHOD_NOT_ALLOWED, "a job is cancelled with POST", ALLOW_CANCEL)
    elif call.kind == STATE and request.method == METHOD_DELETE:
        call.kind = FORGET
    elif request.method != METHOD_GET and request.method != METHOD_HEAD:
        raise RequestError(
            METHOD_NOT_ALLOWED,
            "a job, its result and its events are read with GET",
            ALLOW_JOB if call.kind == STATE else ALLOW_OTHER,
        )
    if call.kind == CANCEL:
        request.discards_body = True
    elif request.content_length > 0 or request.chunked:
        raise RequestError(UNEXPECTED_BODY, "a call about a job has no body")
    if request.query is not None:
        call.wait_s = _wait(request.query)
    call.id = _percent_decoded(id)
    call.gateway = gateway
    call.event_id = last_event_id(request)
    call.tags = wanted_tags(request)
    return call


cdef JobCall read_resumption(Common gateway, Request request, bytes event_id):
    cdef JobCall call = JobCall.__new__(JobCall)
    cdef tuple found = read_event_id(event_id)
    call.kind = EVENTS
    call.id = b"" if found is None else <bytes> found[0]
    call.gateway = gateway
    call.event_id = event_id
    call.resumes = True
    # The workload was sent with the submission that this goes on with.
    request.discards_body = True
    return call


cdef bytes _percent_decoded(bytes text):
    """RFC 3986 2.1; that two hexadecimal digits follow each "%" has been checked with the target."""
    cdef bytes decoded
    cdef char* start
    if b"%" not in text:
        return text
    decoded = PyBytes_FromStringAndSize(NULL, PyBytes_GET_SIZE(text))
    start = PyBytes_AS_STRING(decoded)
    return PyBytes_FromStringAndSize(
        start,
        put_percent_decoded(start, PyBytes_AS_STRING(text), PyBytes_AS_STRING(text) + PyBytes_GET_SIZE(text)) - start,
    )


cdef double _wait(bytes query) except -1:
    """For how long a query asks to wait; raises RequestError. What else it holds is passed over, as what keeps caches away."""
    cdef object found = None
    for parameter in query.split(b"&"):
        name, _, value = parameter.partition(b"=")
        if name != b"wait":
            continue
        if found is not None:
            raise RequestError(UNEXPECTED_QUERY, "wait is given more than once")
        whole, point, fraction = value.partition(b".")
        if not whole.isdigit() or (point and not fraction.isdigit()):
            raise RequestError(UNEXPECTED_QUERY, "wait is not a decimal number of seconds")
        whole = whole.lstrip(b"0")
        if len(whole) > MOST_WAIT_DIGITS:
            found = float(MOST_WAIT_S)
        else:
            found = float(b"0%b.%b" % (whole, fraction[:MOST_WAIT_DIGITS]))
    return 0 if found is None else min(found, MOST_WAIT_S)


cdef class JobCall(JobRequest):
    """One request about one job."""

    cdef int perform(self) except -1:
        cdef KeptJobs jobs = self.gateway.kept
        cdef KeptPlace found
        cdef KeptJob kept
        cdef BackgroundId background
        cdef bint is_here
        if jobs.ids.read_kept(self.id, self.token_mark, &found):
            is_here = found.place == jobs.place
            if jobs.mark_of(found.place) != found.mark:
                return self._unknown(ENDED)
            if not is_here:
                return self._unknown(ENDED) if self.request.owner.is_relayed() else self._relay(found.place)
            kept = jobs.find(self.id)
            return self._unknown(None) if kept is None else self._serve(kept)
        background = jobs.ids.read_background(self.id, self.token_mark)
        if background is None:
            return self._unknown(None)
        return self._serve_background(background)

    cdef int _relay(self, int place) except -1:
        self.workload = b""
        self.timeout_s = self.wait_s + RELAY_S
        self.relayed = self.gateway.owners.relay(place, self, self.request)
        if self.request is not None:
            self.request.let_go()
        return 0

    cdef bint is_patient(self) noexcept:
        return self.kind == EVENTS or self.wait_s > 0

    cdef bytes relayed_lines(self):
        cdef bytes lines = b"Accept: text/event-stream\r\n" if self.resumes else b""
        if self.event_id is not None:
            lines += b"Last-Event-ID: %b\r\n" % self.event_id
        if self.tags is not None:
            lines += b"If-None-Match: %b\r\n" % self.tags
        return lines

    cdef int relay_failed(self, object problem, str detail) except -1:
        if problem is OUTCOME_UNKNOWN and self.kind != CANCEL:
            # To ask again does no harm, and tells whether the job is lost with its process.
            problem, detail = OWNER_AWAY, None
        return JobRequest.relay_failed(self, problem, detail)

    cdef int learn_ending(self, const Ending* ending, bytes headers) except -1:
        self.request.outcome = ending.outcome
        return 0

    # A kept job, which is here.

    cdef int _serve(self, KeptJob kept) except -1:
        cdef KeptJobs jobs = self.gateway.kept
        cdef KeptRun run
        if self.kind == EVENTS:
            return self._begin_stream(kept)
        if self.kind == CANCEL:
            return self._cancel(kept)
        if self.kind == FORGET:
            run = <KeptRun> jobs.runs.get(kept)
            if run is None:
                jobs.forget(kept)
            else:
                run.forget()
            return self._answer_nothing()
        if kept.has_ended() or self.wait_s <= 0 or jobs.waiting >= MOST_WAITING:
            return self._answer(kept)
        return self._wait(kept)

    cdef int _wait(self, KeptJob kept) except -1:
        self.kept = kept
        self.wait = Wait.__new__(Wait)
        self.wait.asked = self
        self.wait.wait_for(kept)
        self.gateway.kept.waiting += 1
        self.request.let_go()
        return self.wait.wake(self.gateway.kept.wheel, self.wait_s) if self.kind != CANCEL else 0

    cdef int waited(self) except -1:
        cdef KeptJob kept = self.kept
        if self.kind == CANCEL:
            if kept.cancellation == ASKED:
                return 0
            self.wait.leave()
            return self._answer_cancelled(kept)
        if not kept.has_ended() and not self.wait.is_over:
            return 0
        self.wait.leave()
        return self._answer(kept)

    cdef int _answer(self, KeptJob kept) except -1:
        cdef KeptJobs jobs = self.gateway.kept
        if self.kind == STATE:
            answer_json(self.request, jobs, 200, kept, b"", self.tags)
        elif kept.has_ended():
            answer_kept(self.request, jobs.room, kept)
        else:
            answer_json(self.request, jobs, 202, kept, location_line(kept.id))
        return self.close()

    cdef int _begin_stream(self, KeptJob kept) except -1:
        cdef KeptJobs jobs = self.gateway.kept
        cdef tuple last = None if self.event_id is None else read_event_id(self.event_id)
        cdef long long after = 0
        if last is not None and last[0] == kept.id:
            after = last[1]
        jobs.streams += 1
        self.stream = begin_stream(self, self.request, kept, after, b"", jobs.wheel, jobs.counts)
        return self.stream_ended() if self.stream is None else 0

    cdef int stream_ended(self) except -1:
        self.gateway.kept.streams -= 1
        self.stream = None
        return self.close()

    # Its cancellation.

    cdef int _cancel(self, KeptJob kept) except -1:
        cdef KeptRun run = <KeptRun> self.gateway.kept.runs.get(kept)
        cdef str reason
        if run is not None and (kept.cancellation == NOT_ASKED or kept.cancellation == NOT_KNOWN):
            if kept.is_shared:
                return self._answer_problem(
                    NOT_CANCELLABLE, "the job has its client's own unique, by which others may wait for it"
                )
            reason = run.cancel()
            if reason is not None:
                return self._answer_problem(NOT_CANCELLABLE, f"the job server cannot be asked to cancel it: {reason}")
        if kept.cancellation == ASKED:
            return self._wait(kept)
        return self._answer_cancelled(kept)

    cdef int _answer_cancelled(self, KeptJob kept) except -1:
        if kept.state == LOST and kept.cancellation == NOT_KNOWN:
            return self._answer_problem(
                OUTCOME_UNKNOWN, f"{kept.cancel_reason}; whether the job was cancelled will never be known"
            )
        if kept.state == LOST or kept.state == TIMEOUT:
            return self._answer_problem(
                NOT_CANCELLABLE, "nobody waits for the job's end any more, and whether it has ended is not known"
            )
        if kept.has_ended() and kept.state != CANCELLED:
            return self._answer_problem(NOT_CANCELLABLE, "the job has ended")
        if kept.cancellation == NOT_ASKED and not kept.has_ended():
            return self._answer_problem(NOT_CANCELLABLE, "the job server has the job, and has not cancelled it")
        if kept.cancellation == NOT_KNOWN and not kept.has_ended():
            return self._answer_problem(
                OUTCOME_UNKNOWN, f"{kept.cancel_reason}; whether the job is cancelled is not known"
            )
        answer_json(self.request, self.gateway.kept, 200 if kept.cancellation == WILL_NOT_RUN else 202, kept, b"")
        return self.close()

    # Other jobs.

    cdef int _serve_background(self, BackgroundId found) except -1:
        cdef BackgroundJobs jobs = self.gateway.background_jobs
        cdef int place
        if self.kind == RESULT or self.kind == EVENTS:
            return self._answer_problem(NOT_KEPT, None)
        if self.kind == STATE:
            self.background = jobs.see(self, found, self.id, self.wait_s, self.tags)
            return 0
        place = jobs.elsewhere(found)
        if place >= 0 and not self.request.owner.is_relayed():
            return self._relay(place)
        if self.kind == FORGET:
            return jobs.forget(self, found)
        self.background = jobs.cancel(self, found, self.id)
        return 0

    cdef int _unknown(self, str detail) except -1:
        if self.resumes:
            # Whoever has its events from here on has all that there are (html.spec.whatwg.org, server-sent events: 204).
            return self._answer_nothing()
        return self._answer_problem(JOB_UNKNOWN, detail)

    cdef int _answer_nothing(self) except -1:
        self.request.outcome = <int> outcomes.NO_CONTENT
        self.request.owner.answer(self.request, 204, None, NULL, 0, None)
        return self.close()

    cdef int _answer_problem(self, object problem, str detail) except -1:
        self.request.owner.answer_problem(self.request, problem, detail, None)
        return self.close()

    cdef int abandon(self) except -1:
        relayed, self.relayed = self.relayed, None
        if self.stream is not None:
            self.stream.leave()
            return self.stream_ended()
        if self.wait is not None:
            self.wait.leave()
        if self.background is not None:
            self.background.abandon()
        self.close()
        return 0 if relayed is None else (<Relayed> relayed).abandon()

    cdef int close(self) except -1:
        if self.request is not None:
            self.request.context = None
            self.request = None
            self.gateway.open_exchanges -= 1
            if self.wait is not None:
                self.gateway.kept.waiting -= 1
        return 0
