"""The kept jobs of a process: found by their ids, bounded in number and bytes, forgotten in their time.

Theory of operation. A job counts from its submission until it is forgotten, with those of all other processes of the gateway. What
it takes stands in the room of kept answers (gateway/kept_room); a job of which the result is gone is still known, and says so. A
job that nobody forgets is forgotten kept_ttl after its end: its Expiry hangs in the wheel that has all deadlines.
"""

import asyncio

cimport cython

from gatewayx.core.counters cimport Counters
from gatewayx.core.deadlines cimport DeadlineWheel, Expiring
from gatewayx.core.shared cimport KEPT_JOBS, Shared
from gatewayx.gateway.events cimport EventLog
from gatewayx.gateway.job_ids cimport JobIds
from gatewayx.gateway.kept_job cimport (
    CANCELLED,
    FAILED,
    LOST,
    QUEUED,
    RUNNING,
    SUCCEEDED,
    TIMEOUT,
    KeptJob,
    KeptState,
)
from gatewayx.gateway.kept_room cimport KeptRoom
from gatewayx.http.response cimport RetryAfter

import time

from gatewayx.http.problems import STOPPING, TOO_MANY_KEPT_JOBS

@cython.final
cdef class KeptJobs:
    """Jobs that outlive their requests; the .pyi says what it is made of."""

    def __init__(
        self,
        JobIds ids not None,
        DeadlineWheel wheel not None,
        KeptRoom room not None,
        Shared shared not None,
        Counters counters not None,
        places,
        int place,
        *,
        double timeout_s,
        double ttl_s,
        Py_ssize_t max_jobs,
    ):
        self.ids = ids
        self.wheel = wheel
        self.room = room
        self.shared = shared
        self.counted_in = counters
        self.counts = counters.row
        self.places = places
        self.place = place
        self.mark = places[place].mark
        self.jobs = {}
        self.runs = {}
        self.retry_after = RetryAfter(time.monotonic)
        self.all_ended = asyncio.Event()
        self.all_ended.set()
        self.change(timeout_s=timeout_s, ttl_s=ttl_s, max_jobs=max_jobs)

    def change(self, *, double timeout_s, double ttl_s, Py_ssize_t max_jobs):
        """Be as if it had been made with these, for jobs that begin or end from now on."""
        self.timeout_s = timeout_s
        self.ttl_s = ttl_s
        self.max_jobs = max_jobs

    def counters(self):
        """What is kept now, by name."""
        cdef Py_ssize_t unfinished = self.in_state[<int> QUEUED] + self.in_state[<int> RUNNING]
        return {
            "queued": self.in_state[<int> QUEUED],
            "running": self.in_state[<int> RUNNING],
            "ended": len(self.jobs) - unfinished,
            "bytes": self.room.held_bytes,
            "streams": self.streams,
        }

    cdef object refusal(self):
        if self.stopping:
            return STOPPING
        if <Py_ssize_t> self.shared.taken(KEPT_JOBS) >= self.max_jobs:
            return TOO_MANY_KEPT_JOBS
        return None

    cdef KeptJob begin(self, bytes function, bytes token_mark, object run):
        cdef KeptJob job
        if not self.shared.take(KEPT_JOBS, 1, self.max_jobs):
            return None
        job = KeptJob.__new__(KeptJob)
        job.id = self.ids.new_kept(self.place, self.mark, token_mark)
        job.function = function
        job.events = EventLog.__new__(EventLog)
        job.events.first = job.events.next = 1
        job.events.job_id = job.id
        self.jobs[job.id] = job
        self.runs[job] = run
        self.in_state[<int> QUEUED] += 1
        self.counts.kept_begun += 1
        self.all_ended.clear()
        self.room.hold(job)
        return job

    cdef int changed(self, KeptJob job, KeptState before) except -1:
        if before != job.state and job.id in self.jobs:
            self.in_state[<int> before] -= 1
            self.in_state[<int> job.state] += 1
            if job.has_ended():
                self._ended(job)
        return 0

    cdef int hold(self, KeptJob job) except -1:
        if job.id not in self.jobs:
            # It was forgotten by somebody who was told of the change.
            return 0
        if not self.room.hold(job):
            while job.events.kept_bytes and not self.room.hold(job):
                job.events.forget_oldest()
            if not self.room.hold(job) and job.body is not None:
                self.room.drop(job)
                self.room.hold(job)
        return 0

    def _ended(self, KeptJob job):
        cdef Expiry expiry = Expiry.__new__(Expiry)
        del self.runs[job]
        if not self.runs:
            self.all_ended.set()
        self.room.enter(job)
        if job.state == SUCCEEDED:
            self.counts.kept_succeeded += 1
        elif job.state == FAILED:
            self.counts.kept_failed += 1
        elif job.state == CANCELLED:
            self.counts.kept_cancelled += 1
        elif job.state == LOST:
            self.counts.kept_lost += 1
        elif job.state == TIMEOUT:
            self.counts.kept_timed_out += 1
        expiry.jobs = self
        expiry.job = job
        job.expiry = expiry
        self.wheel.arm(expiry, self.ttl_s)

    cdef double expires_s(self, double ended_s) noexcept:
        return ended_s + self.ttl_s

    cdef KeptJob find(self, bytes id):
        return <KeptJob> self.jobs.get(id)

    cdef unsigned int mark_of(self, int place) except? 0:
        return self.places[place].mark if 0 <= place < len(self.places) else 0

    cdef int forget(self, KeptJob job) except -1:
        if self.jobs.pop(job.id, None) is None:
            return 0
        if job.expiry is not None:
            self.wheel.disarm(job.expiry)
            job.expiry = None
        self.in_state[<int> job.state] -= 1
        if self.runs.pop(job, None) is not None and not self.runs:
            self.all_ended.set()
        self.shared.give(KEPT_JOBS, 1)
        return self.room.leave(job)


@cython.final
cdef class Expiry(Expiring):
    """When an ended job is forgotten."""

    cpdef int deadline_passed(self) except -1:
        return self.jobs.forget(self.job)
