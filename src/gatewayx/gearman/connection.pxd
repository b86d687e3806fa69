"""One pipelined socket to one job server, and the jobs that were submitted over it."""

from gatewayx.core.budget cimport ByteBudget, Held
from gatewayx.core.deadlines cimport DeadlineWheel, Expiring
from gatewayx.gearman.admin cimport AdminConnection, AdminSlot
from gatewayx.gearman.packet cimport PacketReader

cdef enum:
    # Bytes that wait for a job server that does not read, a connection; above, the connection takes no more jobs.
    MAX_UNSENT_BYTES = 67108864
    # Submissions of one loop turn go over one connection up to here, so that they cost one system call.
    OPEN_WRITE_BYTES = 32768
    # Handed to the socket at once, and no more until the kernel has it: what a job server that does not read has not
    # been given can still go to another.
    WRITE_PORTION_BYTES = 262144
    # Jobs that nobody waits for any more but whose end the job server still owes, a connection; above, the oldest is
    # forgotten and what comes for it is dropped as for an unknown handle.
    MAX_ABANDONED_JOBS = 16384
    # A result up to here is kept whatever the byte budget says: telling that it did not fit takes as much.
    SMALL_RESULT_BYTES = 1024
    # Of the text that a job server or worker gives as a reason; what is beyond is dropped.
    MAX_REASON_BYTES = 400
    # Of the code of an ERROR; gearmand's longest is half of it (libgearman/strerror.cc).
    MAX_ERROR_CODE_BYTES = 64
    # Workloads up to here are copied behind their packet's head; above, they are handed to the socket as they are.
    INLINE_WORKLOAD_BYTES = 16384


cdef class JobListener:
    """Who waits for a job. The methods are called in this order: created once, then any number of data, warning and
    status, then exactly one of the others, after which none is called any more. A background job ends with created.
    job_broken follows whichever raised."""

    cdef int job_created(self, Job job) except -1
    cdef int job_data(self, Job job, bytes data) except -1
    cdef int job_warning(self, Job job, bytes data) except -1
    cdef int job_status(self, Job job, bytes numerator, bytes denominator) except -1
    # The end. The whole result: the data of all WORK_DATA, then the completion's; bytes or bytearray, not to be changed.
    cdef int job_completed(self, Job job, object result) except -1
    # reason: what the worker said of it, at most MAX_REASON_BYTES of any bytes; empty for nothing.
    cdef int job_failed(self, Job job, bytes reason) except -1
    cdef int job_exception(self, Job job, bytes data) except -1
    # The result is larger than the limit, or with job.over_budget than what the process may still hold. The job ran;
    # the rest is skipped.
    cdef int job_too_large(self, Job job) except -1
    # Every job server tried answered the submission with an ERROR packet, this the last one: it is queued nowhere. code
    # and text are at most MAX_ERROR_CODE_BYTES and MAX_REASON_BYTES of any bytes.
    cdef int job_refused(self, Job job, bytes code, bytes text) except -1
    # No end within the job's wait.
    cdef int job_timed_out(self, Job job) except -1
    # One of the other methods has raised: the listener must end its own part, whatever it was about to do.
    cdef int job_broken(self, Job job) except -1
    # The connection is gone; job.written tells whether the submission may have reached the job server. One that has not
    # was offered to the others first.
    cdef int job_lost(self, Job job) except -1


cdef class JobRouter:
    """Who gave a connection its jobs, and hears of what concerns other connections as well."""

    # The job is queued nowhere and its listener waits: whether another connection has it now.
    cdef bint move(self, Job job) except -1
    # A background job that carries a client's own unique was accepted, or its outcome will never be known; or with
    # queued false it was refused or will never be written.
    cdef int background_settled(self, Job job, bint queued) except -1


cdef class Job(Expiring):
    """A submission: from submit() until its end, or until nobody waits for it any more."""

    # Who is told; None once the end was told or nobody waits.
    cdef JobListener listener
    # Where it was submitted.
    cdef JobServerConnection connection
    # The next submission that still waits for its JOB_CREATED or ERROR.
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
    # The router's note of that, until the submission is settled; None otherwise.
    cdef object background_note
    # The submission was handed to the socket.
    cdef readonly bint written
    # The job servers that answered ERROR, a bit each.
    cdef unsigned long long refused_by
    # Its result did not fit the byte budget.
    cdef readonly bint over_budget
    # Its name at the job server, unique on this connection only; None until JOB_CREATED.
    cdef readonly bytes handle

    # The text connection that was up when the handle was given; None if none was.
    cdef AdminConnection admin

    # The rest is used in the first submission that got the handle, for all that share it.

    # The later ones that somebody waits for or waited for to the end, which the job server merged with it (same function
    # and unique), in order; None without.
    cdef dict merged
    # How many JOB_CREATED came for the handle: the job server sends every WORK_* packet that often.
    cdef int copies
    # How many copies of the packet at hand have come.
    cdef int copies_seen
    # How many listeners still wait.
    cdef int waiting
    # Told to all; only copies of the last packet are still owed.
    cdef bint ended
    # Data came while nobody waited and was not kept: whoever joins now could only get half a result.
    cdef bint incomplete
    # Data of all WORK_DATA so far, in one piece however small they are; None without.
    cdef readonly bytearray gathered
    # Bytes of result so far, those of the packet at hand included.
    cdef readonly Py_ssize_t result_bytes
    # What the result has of the byte budget.
    cdef Held result_held


cdef class JobServerConnection:
    cdef object loop
    cdef object transport
    cdef DeadlineWheel wheel
    cdef JobRouter router
    cdef AdminSlot admin_slot
    cdef ByteBudget budget
    cdef PacketReader reader
    # "host:port", for messages.
    cdef readonly str server_name
    # The bit of the job server in Job.refused_by.
    cdef unsigned long long server_bit
    # Which of the connections to this job server it is, from 0.
    cdef readonly int slot
    # Host and port of the other side.
    cdef tuple peer
    # Most bytes of a job's result, over all its packets.
    cdef readonly Py_ssize_t max_result_bytes

    # The job server has answered ECHO_REQ or OPTION_REQ: it lives.
    cdef readonly bint up
    # OPTION_REQ is sent when it is connected; not to a job server that is known to hang up on it.
    cdef public bint asks_option
    # OPTION_REQ was answered by OPTION_RES: the job server sends exceptions; otherwise a WORK_FAIL in their place.
    cdef readonly bint sends_exceptions
    # What is known of the answer to OPTION_REQ, in a line; None before anything is.
    cdef readonly str option_answer
    # OPTION_REQ was sent and not answered, although ECHO_RES may have come.
    cdef bint option_due
    # It takes no more jobs: another connection has taken its place.
    cdef readonly bint retired
    # The other side has hung up before the connection was up.
    cdef readonly bint hung_up_unanswered
    # Lost, or closed by us.
    cdef readonly bint closed
    # Why, in a line; None while it is open.
    cdef readonly str close_reason
    # Futures for who keeps the connection: done when it comes up, and when it is gone.
    cdef readonly object came_up
    cdef readonly object gone

    # Something came since the last check, and an ECHO_REQ was sent by it.
    cdef bint heard
    cdef bint echo_due
    # Bytes handed to the transport so far, those that had arrived at the other side's kernel by the last check (an
    # ECHO_REQ with nothing before it counts as if it had), and the end of the last ECHO_REQ.
    cdef long long written_bytes
    cdef long long arrived_bytes
    cdef long long echo_end_bytes

    # Submissions that were written, in that order, each waiting for its JOB_CREATED or ERROR.
    cdef Job first_pending
    cdef Job last_pending
    # Handle to the first Job that got it, until the last copy of the job's last packet.
    cdef dict jobs
    # The handles of those that nobody waits for though they have not ended, the longest so first.
    cdef readonly dict abandoned
    # Submissions whose end somebody waits for.
    cdef readonly Py_ssize_t outstanding
    # Identities of the jobs that are under way here, and how many have each.
    cdef dict pins

    # Submissions of this loop turn, or held back while the job server does not read; how many of them nobody waits for
    # any more; the size of the others.
    cdef list unsent
    cdef Py_ssize_t unsent_abandoned
    cdef readonly Py_ssize_t unsent_bytes
    cdef bint flush_scheduled
    cdef bint write_paused
    # The job whose large packet is being gathered, and what that has of the byte budget.
    cdef Job large_job
    cdef Held large_held

    # Packets for handles that nobody waits for.
    cdef readonly unsigned long long dropped_packets

    cdef bint accepts_jobs(self)
    # One more job fits, which may be one that is merged with another here.
    cdef bint has_room(self)
    # Submissions of this loop turn are about to leave, and one more fits into their write.
    cdef bint has_open_write(self)
    # Jobs of this identity are under way here.
    cdef bint has_pin(self, bytes identity)
    # The job servers that have refused a job which may still go from here to another one, as bits.
    cdef unsigned long long refusals(self)
    # The job's packet leaves with this loop turn.
    cdef int submit(self, Job job) except -1
    # Nobody waits for this job any more; its listener hears nothing from now on.
    cdef int abandon(self, Job job) except -1
    cdef int _schedule_flush(self) except -1
    cdef int _write(self, list buffers, Py_ssize_t size_bytes) except -1
    cdef int _append_pending(self, Job job) except -1
    cdef int _drop_packet(self, Job job) except -1
    cdef int _unpin(self, Job job) except -1
    cdef int _settle(self, Job job, bint queued) except -1
    cdef int _forget(self, Job first) except -1
    cdef int _packet(self) except -1
    cdef int _large_packet(self) except -1
    cdef int _drop_large(self) except -1
    cdef int _error(self, bytes code, bytes text) except -1
    cdef int _come_up(self) except -1
    cdef int _echoed(self) except -1
    cdef int _job_created(self, bytes handle) except -1
    cdef int _job_refused(self, bytes code, bytes text) except -1
    cdef int _work(self, int packet_type, bytes handle, bint skipped) except -1
    cdef Job _take_pending(self, str packet_name)
    cdef int _tell_all(self, Job first, int packet_type, bytes data) except -1
    cdef int _tell(self, Job job, int event, bytes data) except -1
    cdef int _release(self, Job job) except -1
    cdef int _cancel(self, Job job) except -1
    cdef int _count_abandoned(self, Job first) except -1
    cdef bint _hold_result(self, Job first, Py_ssize_t size_bytes) noexcept
    cdef int _let_result_go(self, Job first) except -1
    cdef int _close(self, str reason) except -1


# Make the job's packet, and count it in the budget until _drop_packet(), in the account of its workload's size.
cdef int make_packet(
    Job job, ByteBudget budget, int packet_type, bytes function, bytes unique, bytes workload
) except -1

# What a job server or worker said, with everything but visible ASCII escaped byte by byte.
cdef str printable(bytes text)
