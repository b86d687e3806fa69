"""A submission to a job server, the listener that waits for it, and what both see of its connection."""

from gatewayx.core.budget cimport ByteBudget, Held
from gatewayx.core.deadlines cimport DeadlineWheel, Expiring
from gatewayx.gearman.admin cimport AdminConnection
from gatewayx.gearman.upstream cimport UpstreamConnection

cdef enum:
    # The text that a job server or worker gives as a reason is cut to so many bytes.
    MAX_REASON_BYTES = 400
    # The code of an ERROR is cut to so many bytes; gearmand's longest has half as many (libgearman/strerror.cc).
    MAX_ERROR_CODE_BYTES = 64
    # Workloads up to here are copied behind their packet's head; above, they are handed to the socket as they are.
    INLINE_WORKLOAD_BYTES = 16384

cpdef enum JobState:
    # The job waits in its connection, or for one: no byte of it was handed to a stream, or the job server has queued it
    # nowhere. Whatever happens now, it is submitted nowhere.
    UNSENT = 0
    # The packet was handed to the stream, whatever became of that, and not answered: whether the job is queued is not
    # known.
    WRITTEN = 1
    # The job server has queued it and owes its end. Foreground jobs only.
    CREATED = 2
    # Nothing is owed any more: its end came, or never will.
    ENDED = 3
    # Its listener has gone, or was told an end before the job's own: what the job server still sends is for nobody.
    ABANDONED = 4


# What is submitted; slices that the caller holds during the call.
cdef struct Submission:
    # One of SUBMIT_JOB*.
    int packet_type
    const char* unique
    Py_ssize_t unique_bytes
    const char* workload
    Py_ssize_t workload_bytes
    double timeout_s
    # The unique was made for this job alone: the job server merges nothing with it.
    bint own_unique
    # It is a background job with a client's own unique, which is not to be mixed with foreground ones.
    bint remembered
    # Its listener takes the data as it comes: none of it is gathered, and there may be any number of WORK_DATA. Only with own_unique.
    bint streamed
    # By which job servers are ranked, for a job with an identity.
    unsigned long long rank_key


cdef class StatusListener:
    """Waits for what a job server knows of a job; exactly one of the methods is called, once."""

    # known: the job server has it, whether it is queued, runs, or was cancelled and not collected yet. running: a worker has it.
    # numerator and denominator: of its last WORK_STATUS, 0 without one.
    cdef int status_told(
        self, bint known, bint running, unsigned int numerator, unsigned int denominator
    ) except -1
    # Before either, where the job was to be cancelled: the job server has answered whether it has done so. It has not where it
    # knows no such job, which has ended then.
    cdef int cancel_answered(self, bint is_cancelled) except -1
    # It cannot be known now, for this reason, in a line.
    cdef int status_lost(self, str reason) except -1


cdef class JobListener:
    """Waits for a job. The methods are called in this order: created once, then any number of data, warning and
    status, then exactly one of the others, after which none is called any more. A background job ends with created.
    job_broken follows whichever raised."""

    # handle: its name at the job server, which the listener copies if it needs it later.
    cdef int job_created(self, Job job, const char* handle, Py_ssize_t handle_bytes) except -1
    cdef int job_data(self, Job job, bytes data) except -1
    cdef int job_warning(self, Job job, bytes data) except -1
    cdef int job_status(self, Job job, bytes numerator, bytes denominator) except -1
    # The end. The whole result: the data of all WORK_DATA, then the completion's; bytes or bytearray, not to be changed. Of a
    # streamed job the completion's alone.
    cdef int job_completed(self, Job job, object result) except -1
    # reason: what the worker said of it, at most MAX_REASON_BYTES of any bytes; empty for nothing.
    cdef int job_failed(self, Job job, bytes reason) except -1
    cdef int job_exception(self, Job job, bytes data) except -1
    # The result, or a packet of a streamed job, is larger than the limit, or with job.over_budget than what the process may
    # still hold. The job ran; the rest is skipped.
    cdef int job_too_large(self, Job job) except -1
    # Every job server tried answered the submission with an ERROR packet, this the last one: it is queued nowhere. code
    # and text are at most MAX_ERROR_CODE_BYTES and MAX_REASON_BYTES of any bytes.
    cdef int job_refused(self, Job job, bytes code, bytes text) except -1
    # No end within the job's wait.
    cdef int job_timed_out(self, Job job) except -1
    # One of the other methods has raised: the listener must end its own part, whatever it was about to do.
    cdef int job_broken(self, Job job) except -1
    # The connection is gone; job.reached tells whether the submission may have reached the job server. If not, the job was
    # offered to the other connections before.
    cdef int job_lost(self, Job job) except -1


cdef class JobCarrier(UpstreamConnection):
    """The connection over which jobs are submitted, as far as a job and its listener know it."""
    # Where the jobs' deadlines hang.
    cdef DeadlineWheel wheel
    # Submissions whose end somebody waits for.
    cdef readonly Py_ssize_t outstanding
    # "host:port" of its job server, for messages; and the place of that among those that are told apart (core/metrics).
    cdef readonly str server_name
    cdef int server_place

    # Nobody waits for this job any more; its listener hears nothing from now on. Nothing happens if none did before.
    cdef int abandon(self, Job job) except -1
    # Have the job server take a created job out of its queue, while its listener still waits: `cancel job`, and then GET_STATUS over
    # this connection, whose answer the other listener is told. A WORK_FAIL comes for it meanwhile, whether it ran or not
    # (libgearman-server/text.cc). Returns None, or in words why the job server cannot be asked, and then nothing was done.
    cdef str cancel(self, Job job, StatusListener listener)
    # Which life of the job server this connection is to, by the number of its text connection; 0 if that cannot be told.
    cdef unsigned int life(self) noexcept


cdef class JobRouter:
    """Gives connections their jobs, and is told of what concerns other connections as well."""

    # The job is queued nowhere and its listener waits: whether another connection has it now.
    cdef bint move(self, Job job) except -1
    # A background job that carries a client's own unique was accepted, or its outcome will never be known; or with
    # queued false it was refused or will never be written.
    cdef int background_settled(self, Job job, bint queued) except -1


cdef class Job(Expiring):
    """A submission: from submit() until its end, or until nobody waits for it any more."""

    # Only change() writes it.
    cdef readonly JobState state
    # How far it had come when its listener was told the last time: the state that ENDED or ABANDONED took the place of.
    cdef readonly JobState reached
    # The listener that waits for the end; None in the states ENDED and ABANDONED.
    cdef JobListener listener
    # Where it was submitted; None before it is.
    cdef JobCarrier carrier
    # The next submission of its connection that is unsent, or that waits for its JOB_CREATED or ERROR.
    cdef Job next_pending
    cdef bytes function
    # The submission: its packet, without the workload if that is large, and both their size. Kept until the job server
    # has answered it, since it may have to go to another one; None then.
    cdef bytes packet
    cdef bytes workload
    cdef Py_ssize_t packet_bytes
    # What the packet has of the byte budget.
    cdef Held packet_held
    # A background job ends with its JOB_CREATED: no WORK_* follows.
    cdef readonly bint background
    # Nobody else can wait for it: its unique was made for it alone. So it is cancelled when nobody waits any more.
    cdef readonly bint cancellable
    # What the job server merges by (function and unique, with the unique "-" the workload as well), as a keyed hash; None
    # if it merges nothing with this job. Jobs of one identity go the same way.
    cdef bytes identity
    # By which job servers are ranked for it; only for one with an identity. Others can compute it.
    cdef unsigned long long rank_key
    # It is a background job with a client's own unique, which is not to be mixed with foreground ones.
    cdef bint remembered
    # None of its data is gathered; see Submission.
    cdef readonly bint streamed
    # The router's note of that, until the submission is settled; None otherwise.
    cdef object background_note
    # The job servers that answered ERROR, a bit each.
    cdef unsigned long long refused_by
    # Its result did not fit the byte budget.
    cdef readonly bint over_budget
    # Its name at the job server, unique on this connection only; None until JOB_CREATED, and of a background job always.
    cdef readonly bytes handle
    # The text connection that was up when the handle was given; None if none was.
    cdef AdminConnection admin

    # The rest belongs to the handle, and is used in its original for all jobs that share it: see JobTable.

    # The later jobs that somebody waits for or waited for to the end, which the job server merged with it (same function
    # and unique), in order; None without.
    cdef dict merged
    # How many JOB_CREATED came for the handle: the job server sends every WORK_* packet that often.
    cdef int copies
    # How many copies of the packet at hand have come.
    cdef int copies_seen
    # How many listeners still wait.
    cdef int waiting
    # Data came while nobody waited and was not kept: whoever joins now could only get half a result.
    cdef bint incomplete
    # Data of all WORK_DATA so far, in one piece however small they are; None without.
    cdef readonly bytearray gathered
    # Bytes of result so far, those of the packet at hand included; always 0 of one that is streamed.
    cdef readonly Py_ssize_t result_bytes
    # What the result has of the byte budget.
    cdef Held result_held

    # Somebody waits for its end.
    cdef inline bint is_awaited(self) noexcept:
        return self.state < JobState.ENDED

    # Go to a state that may follow the present one; raises StateError, and changes nothing, if it may not. With
    # ENDED and ABANDONED the listener is let go, and the deadline with it.
    cpdef int change(self, JobState state) except -1
    # Tell the listener of its JOB_CREATED; what it raises ends its own part only.
    cdef int tell_created(self, const char* handle, Py_ssize_t handle_bytes) except -1
    # Tell the listener of a WORK_* packet, one that ends the job included; what it raises ends its own part only. denominator:
    # of a WORK_STATUS, whose numerator is the data.
    cdef int tell(self, int packet_type, bytes data, bytes denominator) except -1
    # The result is too large, with the packet that ends the job or before it.
    cdef int tell_too_large(self, bint ended) except -1
    cdef int tell_refused(self, bytes code, bytes text) except -1
    # Whatever the job server may still do with it cannot be known any more.
    cdef int tell_lost(self) except -1
    cdef int _listener_failed(self, JobListener listener) except -1


# Make the job's packet, and count it in the budget until drop_packet(), in the account of its workload's size. workload:
# the object whose bytes the submission's workload is; None if there is none that will stay.
cdef int make_packet(Job job, ByteBudget budget, bytes function, Submission* submission, bytes workload) except -1
# The job server has answered the submission, or never will.
cdef int drop_packet(Job job, ByteBudget budget) except -1

# What a job server or worker said, with everything but visible ASCII escaped byte by byte.
cdef str printable(bytes text)
