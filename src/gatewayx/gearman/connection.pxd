"""One pipelined socket to one job server, and the jobs that were submitted over it."""

from gatewayx.core.budget cimport ByteBudget, Held
from gatewayx.gearman.admin cimport AdminConnection, ServerStatus
from gatewayx.gearman.job cimport Job, JobCarrier, JobRouter
from gatewayx.gearman.job_table cimport JobTable
from gatewayx.gearman.packet cimport PacketReader
from gatewayx.gearman.status_questions cimport StatusQuestions

cdef enum:
    # Bytes that wait for a job server that does not read, a connection; above, the connection takes no more jobs.
    MAX_UNSENT_BYTES = 67108864
    # Submissions of one loop turn go over one connection up to here, so that they cost one system call.
    OPEN_WRITE_BYTES = 32768
    # Packets are copied together up to here, so that they cost one system call. Beside the WRITE_HIGH_WATER_BYTES at which
    # the stream pauses us, this or one large packet is what was handed over and not taken by the kernel: what a job server
    # that does not read has not been given can still go to another.
    GATHERED_BYTES = 65536


cdef class JobServerConnection(JobCarrier):
    cdef JobRouter router
    # What the job server's text connection has told.
    cdef ServerStatus status
    # The text connection that was last seen to be to the same job server.
    cdef AdminConnection same_admin
    cdef ByteBudget budget
    cdef PacketReader reader
    # The bit of the job server in Job.refused_by.
    cdef unsigned long long server_bit
    # Which of the connections to this job server it is, from 0.
    cdef readonly int number

    # OPTION_REQ is sent when it is connected; not to a job server that is known to hang up on it.
    cdef public bint asks_option
    # OPTION_REQ was answered by OPTION_RES: the job server sends exceptions; otherwise a WORK_FAIL in their place.
    cdef readonly bint sends_exceptions
    # What is known of the answer to OPTION_REQ, in a line; None before anything is.
    cdef readonly str option_answer
    # OPTION_REQ was sent and not answered, although ECHO_RES may have come.
    cdef bint option_due

    # Something came since the last check, and an ECHO_REQ was sent by it.
    cdef bint heard
    cdef bint echo_due
    # Bytes handed to the stream so far, those that had arrived at the other side's kernel by the last check (an
    # ECHO_REQ with nothing before it counts as if it had), and the end of the last ECHO_REQ.
    cdef long long written_bytes
    cdef long long arrived_bytes
    cdef long long echo_end_bytes

    # Submissions that were written, in that order, each waiting for its JOB_CREATED or ERROR.
    cdef Job oldest_pending
    cdef Job newest_pending
    # Those that the job server has created.
    cdef JobTable table
    # What is asked of jobs that are cancelled while somebody waits for them.
    cdef StatusQuestions questions

    # Submissions of this loop turn, or held back while the job server does not read, in order; how many they are; how many
    # of them nobody waits for any more; the size of the others.
    cdef Job first_unsent
    cdef Job last_unsent
    cdef Py_ssize_t unsent_count
    cdef Py_ssize_t unsent_abandoned
    cdef readonly Py_ssize_t unsent_bytes
    cdef bint write_paused
    # The job whose large packet is being gathered, and what that has of the byte budget.
    cdef Job large_job
    cdef Held large_held

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
    cdef int _write(self, Job job) except -1
    cdef int _flush(self, Py_ssize_t gathered_bytes) except -1
    cdef int _ask_questions(self) except -1
    cdef int _append_pending(self, Job job) except -1
    cdef int _append_unsent(self, Job job) except -1
    cdef Job _take_unsent(self)
    cdef AdminConnection _admin(self)
    cdef int _forget_abandoned(self) except -1
    cdef int _settle(self, Job job, bint queued) except -1
    cdef int _packet(self) except -1
    cdef int _take_packet(self) except -1
    cdef int _large_packet(self) except -1
    cdef int _drop_large(self) except -1
    cdef int _error(self, bytes code, bytes text) except -1
    cdef int _echoed(self) except -1
    cdef int _job_created(self, const char* handle, Py_ssize_t handle_bytes) except -1
    cdef int _job_refused(self, bytes code, bytes text) except -1
    cdef Job _take_pending(self, str packet_name)
    # Whether another connection has the job now, which is queued nowhere.
    cdef bint _move(self, Job job) except -1


# Whether it is what a job server may call a job: 1 to MAX_HANDLE_BYTES visible ASCII bytes (0x21 to 0x7E), as gearmand's
# "H:<host>:<number>".
cdef bint is_handle(const char* byte, Py_ssize_t handle_bytes) noexcept
