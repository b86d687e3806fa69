"""Background jobs that outlive their request: what their job servers know of them.

Theory of operation. The id of a background job says all that is needed to ask for it (gateway/job_ids), so nothing is
kept of it here, and any process can answer. A job server is asked by the job's unique, and tells whether it has the job
and whether that runs; how one has ended nobody knows. What it has told is good for a second, for all who ask for that
job: each question walks a hash chain in the one thread that all jobs pass through (libgearman-server/server.cc). How
many questions a second there may be is bounded for each job server over all worker processes; whoever comes beyond that
is told so, and does not wait.

Those who wait for a job's end watch it: one of them asks again when a second is over, and all look at the answer.

Only `cancel job` takes a job out of its queue, by the handle, and a handle is good for one life of its job server:
after a restart the same one names another job. So only the process that was given the handle may cancel, as long as the
text connection that was up at that time is.
"""

import time
from collections import OrderedDict

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

from gatewayx.core.clock cimport now_ns
from gatewayx.core.counters cimport Counters
from gatewayx.core.deadlines cimport DeadlineWheel
from gatewayx.core.rates cimport OF_STATUS_POLLS, Rates, rate_key, rate_of
from gatewayx.core.shared cimport hash_of
from gatewayx.gateway.job_ids cimport BackgroundId, JobIds
from gatewayx.gateway.job_request cimport JobRequest
from gatewayx.gateway.preferences cimport matches_tag
from gatewayx.gateway.watching cimport Watched, Watcher
from gatewayx.gearman.job cimport StatusListener
from gatewayx.gearman.pool cimport Pool
from gatewayx.gearman.pooled_server cimport PooledServer
from gatewayx.http.request cimport Request
from gatewayx.http.response cimport RetryAfter

import orjson

from gatewayx.http import outcomes
from gatewayx.http.problems import (
    JOB_SERVER_AWAY,
    JOB_UNKNOWN,
    NOT_CANCELLABLE,
    OUTCOME_UNKNOWN,
    TOO_MANY_STATUS_POLLS,
)

cdef enum:
    # Of those that came first so many are looked at for one that nobody waits for.
    MOST_LOOKS = 8

cdef long long FRESH_NS = FRESH_S * 1_000_000_000
cdef bytes JSON = b"application/json"

cdef str NOT_CONFIGURED = "the job server of this job is none of the gateway's any more"
cdef str NOT_HERE = (
    "only the process that has submitted the job can cancel it, and that has ended or belongs to another gateway"
)


@cython.final
cdef class KnownJob(Watched):
    """One job at one job server, and what that has told last."""

    cdef int told(self, bint known, bint running, unsigned int numerator, unsigned int denominator) except -1:
        self.told_ns = now_ns()
        self.lost = None
        self.known = known
        self.running = running
        self.numerator = numerator
        self.denominator = denominator
        return 0

    cdef str state(self):
        if not self.known:
            return "gone"
        return "running" if self.running else "queued"

    cdef dict progress(self):
        """What the worker has told last, as far as it has; a job server tells 0 of 0 for nothing."""
        if not self.known or not self.running or not (self.numerator or self.denominator):
            return None
        return {"numerator": self.numerator, "denominator": self.denominator}


@cython.final
cdef class Question(StatusListener):
    """A question to a job server about a job."""

    cdef int status_told(
        self, bint known, bint running, unsigned int numerator, unsigned int denominator
    ) except -1:
        self.job.is_asked = False
        self.job.told(known, running, numerator, denominator)
        return self.job.tell_watchers()

    cdef int status_lost(self, str reason) except -1:
        self.job.is_asked = False
        self.job.lost = reason
        self.job.told_ns = 0
        return self.job.tell_watchers()


@cython.final
cdef class Cancelling(StatusListener):
    """The question that follows a cancellation."""

    cdef int status_told(
        self, bint known, bint running, unsigned int numerator, unsigned int denominator
    ) except -1:
        cdef BackgroundCall call = self.call
        self.job.told(known, running, numerator, denominator)
        return 0 if call is None else call._cancelled()

    cdef int status_lost(self, str reason) except -1:
        cdef BackgroundCall call = self.call
        self.job.told_ns = 0
        if call is None:
            return 0
        return call._answer_problem(OUTCOME_UNKNOWN, f"{reason}; whether the job is cancelled is not known", None)


@cython.final
cdef class BackgroundCall(Watcher):
    """A request about a background job that is not answered yet."""

    cdef int abandon(self) except -1:
        if self.asked is not None:
            self.asked = None
            self.jobs.waiting -= 1
            if self.cancelling is not None:
                self.cancelling.call = None
            self.leave()
        return 0

    cdef int changed(self) except -1:
        if self.job.lost is not None:
            return self._answer_problem(JOB_SERVER_AWAY, f"{JOB_SERVER_AWAY.detail}: {self.job.lost}", None)
        return self._look()

    cdef int time_is_up(self) except -1:
        return self._look()

    cdef int _look(self) except -1:
        """Answer with what is known, or see that more will be."""
        cdef KnownJob job = self.job
        cdef long long now = now_ns()
        cdef long long wait_ns = 0
        # Of the past second, or since it was asked for.
        cdef bint is_told = job.told_ns != 0 and job.told_ns >= self.since_ns
        cdef bint has_time = now < self.ends_ns
        if is_told and (not job.known or (not has_time and now - job.told_ns < 2 * FRESH_NS)):
            return self._answer_state()
        if self.watched is None:
            self.watch(job)
        if not job.is_asked and (not is_told or not has_time or now - job.told_ns >= FRESH_NS):
            if not self.jobs._ask(job, &wait_ns) and not (is_told and has_time):
                self.jobs.counts.status_polls_refused += 1
                return self._answer_problem(TOO_MANY_STATUS_POLLS, None, self.jobs.retry_after.exactly(wait_ns))
        if self.asked is not None and has_time:
            self.wake(self.jobs.wheel, min(FRESH_NS, self.ends_ns - now) / 1e9)
        return 0

    cdef int _answer_state(self) except -1:
        cdef KnownJob job = self.job
        cdef bytes tag = f'"{job.state()}-{job.numerator}-{job.denominator}"'.encode()
        cdef bytes headers = b"ETag: " + tag + b"\r\n"
        if job.known:
            headers += self.jobs.retry_after.exactly(FRESH_NS)
        if self.tags is not None and matches_tag(self.tags, tag):
            return self._answer(304, outcomes.NOT_MODIFIED, headers, None)
        return self._answer(200, outcomes.OK, headers, self._json())

    cdef int _cancelled(self) except -1:
        """The job server was asked to cancel it, and has told this of the job after that."""
        cdef bint will_not_run = self.job.known and not self.job.running
        return self._answer(
            200 if will_not_run else 202, outcomes.OK if will_not_run else outcomes.ACCEPTED, b"", self._json()
        )

    cdef bytes _json(self):
        cdef str text = self.text.decode("ascii")
        return orjson.dumps(
            {
                "id": text,
                "function": self.found.function.decode("utf-8", "backslashreplace"),
                "kind": "background",
                "state": self.job.state(),
                "progress": self.job.progress(),
                "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.found.created_s)),
                "started": None,
                "ended": None,
                "expires": None,
                "result": None,
                "links": {"self": f"/v1/jobs/{text}", "cancel": f"/v1/jobs/{text}/cancel"},
            }
        )

    cdef int _answer(self, int status, int outcome, bytes headers, bytes body) except -1:
        cdef JobRequest asked = self.asked
        cdef Request request = asked.request
        self.abandon()
        if request is not None and request.owner is not None:
            request.outcome = outcome
            request.owner.answer(
                request,
                status,
                None if body is None else JSON,
                PyBytes_AS_STRING(headers),
                PyBytes_GET_SIZE(headers),
                body,
            )
        return asked.close()

    cdef int _answer_problem(self, object problem, str detail, bytes headers) except -1:
        cdef JobRequest asked = self.asked
        self.abandon()
        return _refuse(asked, problem, detail, headers)


@cython.final
cdef class BackgroundJobs:
    """The background jobs of a gateway, as far as their job servers tell of them.

    pool: of the job servers. ids: which ids are read by. wheel: where waits hang. rates, counters: where questions are
    counted, with those of other worker processes. places: each place of the gateway has the `mark` of the process
    there. place: this one. max_status_polls: questions a second to a job server.
    """

    def __init__(
        self,
        Pool pool not None,
        JobIds ids not None,
        DeadlineWheel wheel not None,
        Rates rates not None,
        Counters counters not None,
        places,
        int place,
        long long max_status_polls,
    ):
        self.pool = pool
        self.ids = ids
        self.wheel = wheel
        self.rates = rates
        self.counted_in = counters
        self.counts = counters.row
        self.retry_after = RetryAfter(time.monotonic)
        self.places = places
        self.place = place
        self.known = OrderedDict()
        self.change(max_status_polls)

    def change(self, long long max_status_polls):
        """Be as if it had been made with this."""
        self.rate = rate_of(max_status_polls, max_status_polls)

    cdef int elsewhere(self, BackgroundId found) except -2:
        cdef int place = found.submitter.place
        if place != self.place and place < len(self.places) and self.places[place].mark == found.submitter.mark:
            return place
        return -1

    cdef BackgroundCall see(self, JobRequest asked, BackgroundId found, bytes text, double wait_s, bytes tags):
        cdef BackgroundCall call = self._begin(asked, found, text)
        if call is None:
            return None
        call.tags = tags
        # What was told a second ago is told again; somebody may wait for it already.
        call.since_ns = now_ns() - FRESH_NS
        if wait_s > 0:
            call.ends_ns = now_ns() + <long long> (min(wait_s, MOST_WAIT_S) * 1e9)
        call._look()
        return None if call.asked is None else call

    cdef BackgroundCall cancel(self, JobRequest asked, BackgroundId found, bytes text):
        cdef BackgroundCall call
        cdef str reason
        if not self._is_own(found):
            _refuse(asked, NOT_CANCELLABLE, NOT_HERE, None)
            return None
        call = self._begin(asked, found, text)
        if call is None:
            return None
        call.cancelling = _cancelling(call.job)
        call.cancelling.call = call
        reason = self.pool.cancel_background(call.job.server, found.life, found.handle, found.unique, call.cancelling)
        if reason is not None:
            call._answer_problem(NOT_CANCELLABLE, f"{NOT_CANCELLABLE.detail}: {reason}", None)
        return None if call.asked is None else call

    cdef int forget(self, JobRequest asked, BackgroundId found) except -1:
        cdef Request request = asked.request
        cdef PooledServer server = self._server_of(found)
        if server is not None and self._is_own(found):
            self.pool.cancel_background(
                server, found.life, found.handle, found.unique, _cancelling(self._known_job(server, found.unique))
            )
        request.outcome = outcomes.NO_CONTENT
        request.owner.answer(request, 204, None, NULL, 0, None)
        return asked.close()

    def counters(self):
        """What is held now, by name."""
        return {"waiting": self.waiting}

    cdef bint _is_own(self, BackgroundId found) except -1:
        return found.submitter.place == self.place and found.submitter.mark == self.places[self.place].mark

    cdef PooledServer _server_of(self, BackgroundId found):
        for server in self.pool.servers:
            if self.ids.is_of(found, (<PooledServer> server).name):
                return <PooledServer> server
        return None

    cdef BackgroundCall _begin(self, JobRequest asked, BackgroundId found, bytes text):
        cdef PooledServer server = self._server_of(found)
        cdef BackgroundCall call
        if server is None:
            _refuse(asked, JOB_UNKNOWN, NOT_CONFIGURED, None)
            return None
        if self.waiting >= MOST_WAITING:
            self.counts.status_polls_refused += 1
            _refuse(asked, TOO_MANY_STATUS_POLLS, None, self.retry_after.exactly(FRESH_NS))
            return None
        call = BackgroundCall.__new__(BackgroundCall)
        call.jobs = self
        call.asked = asked
        call.found = found
        call.text = text
        call.job = self._known_job(server, found.unique)
        self.waiting += 1
        return call

    cdef KnownJob _known_job(self, PooledServer server, bytes unique):
        cdef KnownJob job = <KnownJob> self.known.get((server, unique))
        if job is not None:
            return job
        job = KnownJob.__new__(KnownJob)
        job.server = server
        job.unique = unique
        self.known[server, unique] = job
        if len(self.known) > MOST_KNOWN:
            self._forget_oldest()
        return job

    cdef int _forget_oldest(self) except -1:
        """Forget one that nobody waits for. If none is found there are no more of them than requests that wait."""
        cdef KnownJob job
        for _ in range(MOST_LOOKS):
            key, known = self.known.popitem(last=False)
            job = <KnownJob> known
            if not job.is_asked and not job.watchers:
                return 0
            self.known[key] = job
        return 0

    cdef bint _ask(self, KnownJob job, long long* wait_ns) except -1:
        cdef Question question
        wait_ns[0] = self.rates.take(_polls_key(job.server), &self.rate, now_ns(), NULL)
        if wait_ns[0]:
            return False
        self.counts.status_polls += 1
        question = Question.__new__(Question)
        question.job = job
        job.is_asked = True
        try:
            self.pool.ask_unique(job.server, job.unique, question)
        except BaseException:
            job.is_asked = False
            raise
        return True


cdef unsigned long long _polls_key(PooledServer server) except? 0:
    return rate_key(OF_STATUS_POLLS, hash_of(server.name.encode()))


cdef Cancelling _cancelling(KnownJob job):
    cdef Cancelling cancelling = Cancelling.__new__(Cancelling)
    cancelling.job = job
    return cancelling


cdef int _refuse(JobRequest asked, object problem, str detail, bytes headers) except -1:
    cdef Request request = asked.request
    if request is not None and request.owner is not None:
        request.owner.answer_problem(request, problem, detail, headers)
    return asked.close()
