"""Background jobs that outlive their request: what their job servers know of them."""

from gatewayx.core.counters cimport Counts
from gatewayx.core.deadlines cimport DeadlineWheel
from gatewayx.core.rates cimport Rate, Rates
from gatewayx.gateway.job_ids cimport BackgroundId, JobIds
from gatewayx.gateway.job_request cimport JobRequest
from gatewayx.gateway.watching cimport Watched, Watcher
from gatewayx.gearman.job cimport StatusListener
from gatewayx.gearman.pool cimport Pool
from gatewayx.gearman.pooled_server cimport PooledServer
from gatewayx.http.response cimport RetryAfter

cdef enum:
    # What a job server has told is good for so long, and one that waits for a job asks again so often.
    FRESH_S = 1
    # Jobs of which it is remembered what was told; the one that was asked for first goes first.
    MOST_KNOWN = 4096
    # A request waits for a job's end for so long at most.
    MOST_WAIT_S = 60
    # Requests that wait for a job server's answer or a job's end; beyond, they are answered as if it was asked too
    # often.
    MOST_WAITING = 16384


cdef class KnownJob(Watched):
    """One job at one job server, and what that has told last. Those who wait for an answer watch it."""
    cdef PooledServer server
    cdef bytes unique
    # When that was, by now_ns(); 0 for never, and while nothing of it is to be believed any more.
    cdef long long told_ns
    cdef bint known
    cdef bint running
    cdef unsigned int numerator
    cdef unsigned int denominator
    # Why it could not be told, of the last question; None if it could.
    cdef str lost
    # A question is under way.
    cdef bint is_asked

    cdef int told(self, bint known, bint running, unsigned int numerator, unsigned int denominator) except -1
    # What it is called, and how far it has come; None for what nobody has told.
    cdef str state(self)
    cdef dict progress(self)


cdef class Question(StatusListener):
    """A question to a job server about a job."""
    cdef KnownJob job


cdef class Cancelling(StatusListener):
    """The question that follows a cancellation."""
    cdef KnownJob job
    # None once nobody waits for the answer.
    cdef BackgroundCall call


cdef class BackgroundCall(Watcher):
    """A request about a background job that is not answered yet."""
    cdef BackgroundJobs jobs
    # The request's context: it has the request, and is closed with the answer. None once it was answered or abandoned.
    cdef JobRequest asked
    cdef BackgroundId found
    cdef bytes text
    # The If-None-Match of the request (gateway/preferences); None for none.
    cdef bytes tags
    cdef KnownJob job
    # What was told before is not good enough, and until when it waits for the job's end, by now_ns(); 0 for not at all.
    cdef long long since_ns
    cdef long long ends_ns
    # None unless the job is to be cancelled.
    cdef Cancelling cancelling

    # No answer is wanted any more: the context's abandon() calls it.
    cdef int abandon(self) except -1
    cdef int _look(self) except -1
    cdef int _answer_state(self) except -1
    cdef int _cancelled(self) except -1
    cdef bytes _json(self)
    cdef int _answer(self, int status, int outcome, bytes headers, bytes body) except -1
    cdef int _answer_problem(self, object problem, str detail, bytes headers) except -1


cdef class BackgroundJobs:
    cdef Pool pool
    cdef JobIds ids
    cdef DeadlineWheel wheel
    cdef Counts* counts
    # Keeps the row alive to which `counts` points.
    cdef object counted_in
    # How often each job server may be asked, by all worker processes together.
    cdef Rates rates
    cdef Rate rate
    cdef RetryAfter retry_after
    # Of the memory that processes share: whose mark is whose (server/places).
    cdef object places
    cdef int place
    # (PooledServer, unique) to KnownJob, an OrderedDict.
    cdef object known
    # Calls that are under way.
    cdef readonly Py_ssize_t waiting

    # Which other process has to be asked to cancel the job, or to forget it: its place; -1 if it is this one, or nobody
    # can.
    cdef int elsewhere(self, BackgroundId found) except -2
    # Answer asked.request, which wants to see the job: 200 and its JSON, 404 if the job server is none of ours any
    # more, 503 if it cannot be asked now. text: the id. wait_s: answer only at its end, or after so long; 0 for at
    # once. tags: as of BackgroundCall; 304 if the job is as it was. Returns what is to be abandoned with the request,
    # or None if it is answered and `asked` closed.
    cdef BackgroundCall see(self, JobRequest asked, BackgroundId found, bytes text, double wait_s, bytes tags)
    # Cancel the job and answer: 200 if it will not run, 202 if it runs or may have run, 409 if it cannot be asked for.
    # Only the process that has submitted it can (elsewhere()). Returns as see().
    cdef BackgroundCall cancel(self, JobRequest asked, BackgroundId found, bytes text)
    # Answer 204, and cancel the job if that is possible here.
    cdef int forget(self, JobRequest asked, BackgroundId found) except -1
    cdef bint _is_own(self, BackgroundId found) except -1
    cdef PooledServer _server_of(self, BackgroundId found)
    cdef BackgroundCall _begin(self, JobRequest asked, BackgroundId found, bytes text)
    cdef KnownJob _known_job(self, PooledServer server, bytes unique)
    cdef int _forget_oldest(self) except -1
    # Ask its job server for the job; False if that was asked too often, and for how long still.
    cdef bint _ask(self, KnownJob job, long long* wait_ns) except -1
