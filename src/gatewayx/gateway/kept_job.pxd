"""A job that outlives its request: what is known of it, and its answer."""

from gatewayx.core.deadlines cimport Expiring
from gatewayx.gateway.events cimport EventLog
from gatewayx.gateway.kept_room cimport KeptAnswer

cpdef enum KeptState:
    # The job server has queued it, and no sign of a worker has come.
    QUEUED = 0
    # A worker has said something of it.
    RUNNING = 1
    # The ends, of which a job has one. WORK_COMPLETE.
    SUCCEEDED = 2
    # WORK_FAIL, WORK_EXCEPTION, or a result that was too large.
    FAILED = 3
    # The job server was asked to cancel it: a worker that had begun goes on for nobody.
    CANCELLED = 4
    # Its end will never be known.
    LOST = 5
    # No end in its time.
    TIMEOUT = 6


# What is known of its cancellation.
cdef enum Cancellation:
    NOT_ASKED
    # The job server was asked, and has not answered.
    ASKED
    # No worker had it, so it will not run.
    WILL_NOT_RUN
    # A worker had it, or may have had it.
    MAY_HAVE_RUN
    # The answer of the job server will never come.
    NOT_KNOWN


cdef class KeptJob(KeptAnswer):
    # What its client goes by, and asks for it with.
    cdef readonly bytes id
    cdef readonly bytes function
    # Only change() writes it.
    cdef readonly KeptState state
    # The job server has queued it: until then nobody was told the id.
    cdef bint is_created
    # What has happened.
    cdef EventLog events
    # When it was submitted, when the first sign of a worker came, when it ended and when it is forgotten, at the latest, since
    # the epoch; 0 for not yet.
    cdef double created_s
    cdef double started_s
    cdef double ended_s
    cdef double expires_s
    # How often it has changed: what ETag tells.
    cdef unsigned long long version
    # Of its last WORK_STATUS; None without one.
    cdef bytes numerator
    cdef bytes denominator
    # Its unique is the client's: others may wait for the same job.
    cdef bint is_shared
    cdef Cancellation cancellation
    # Why that is not known, in a line.
    cdef str cancel_reason

    # When it is forgotten, for KeptJobs; None before its end.
    cdef Expiring expiry
    # The JSON of this version; None if nobody has asked for it.
    cdef bytes shown

    cdef inline bint has_ended(self) noexcept:
        return self.state >= SUCCEEDED

    # Go to a state that may follow the present one; raises StateError, and changes nothing, if it may not.
    cdef int change(self, KeptState state) except -1
    # The job server has queued it.
    cdef int created(self, double now_s) except -1
    # A worker has said something of it.
    cdef int started(self) except -1
    cdef int progressed(self, bytes numerator, bytes denominator) except -1
    # A piece of data, or a warning: an event of this kind.
    cdef int said(self, bytes kind, bytes data) except -1
    # It has ended so, with its answer in place. kind: of the event. reason: what that tells beside; None for nothing. data: the
    # completion's own, or the exception's; None for none.
    cdef int ended(
        self, KeptState state, double ended_s, double expires_s, bytes kind, str reason, bytes data
    ) except -1
    # The job as JSON.
    cdef bytes json(self)
    # Something of that has changed.
    cdef int touch(self) except -1
    cdef dict _told(self)


# The time of day, since the epoch.
cdef double time_of_day() noexcept
