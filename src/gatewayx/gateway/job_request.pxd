"""What a client asks for: one job to run, or something of one that is kept."""

from gatewayx.core.keyed_hash cimport KeyedHash
from gatewayx.gearman.job cimport Job, JobListener
from gatewayx.gearman.packet cimport MAX_UNIQUE_BYTES
from gatewayx.http.records cimport Ending
from gatewayx.http.request cimport BodySink, BodySource, Request

cdef enum:
    # Of a token's mark: the first bytes of the SHA-256 of its name.
    MARK_BYTES = 16
    # Room for the X-Gearman-* lines of an answer: a handle and a unique of at most 63 bytes, and what is ours.
    MAX_HEADERS_BYTES = 256

# How the detail of a 504 ends whose job has not left for any job server.
cdef str NOTHING_SUBMITTED

# What stands before the handle in an answer's head.
cdef bytes HANDLE_NAME

# One of the SUBMIT_JOB* types by priority, then by whether it is a background job.
cdef int[3][2] SUBMIT_TYPES

cdef enum Priority:
    LOW = 0
    NORMAL = 1
    HIGH = 2


cdef enum UniqueOrigin:
    # The gateway made the unique for this job alone: the job server merges nothing with it.
    GATEWAY
    # The client gave it, and may have given it to other jobs.
    CLIENT
    # It is the "-" that stands for no unique with plugin_compat: the job server merges by the workload.
    PLUGIN


# A unique of the gateway's own: digits are the last of it.
cdef struct UniqueText:
    char[MAX_UNIQUE_BYTES] text
    unsigned char size


cdef class Relayed(BodySource):
    """A request that another process answers; nobody is told of the answer any more once it is abandoned."""
    cdef int abandon(self) except -1
    # All of its body was taken.
    cdef int complete(self) except -1


cdef class HashedBody(BodySink):
    """A body whose hash is taken as it arrives."""
    cdef KeyedHash hash


cdef class JobRequest(JobListener):
    """A request's context (http/request), whose subclass answers it. Another process may have the answer (gateway/owners)."""
    # None once it was answered or abandoned.
    cdef Request request
    # The request as the process has it that is to answer; None if that is this process, and before.
    cdef Relayed relayed
    # The answer that comes from there is being given in pieces, and nobody knows how many there are.
    cdef bint in_pieces
    cdef bint is_endless
    # How long its client waits for the head of the answer.
    cdef double timeout_s
    # What the request has as its body, where that is an object; None before all of it is there, and once it is in other hands.
    cdef bytes workload
    # Whose token its client has, MARK_BYTES long; None for none.
    cdef bytes token_mark

    # The job.

    cdef bytes function
    # None for one of the gateway's own.
    cdef bytes unique
    cdef UniqueText own_unique
    cdef UniqueOrigin unique_origin
    cdef Priority priority
    cdef bint background
    # Its client has said how long it waits.
    cdef bint tells_timeout
    # Its client takes the data as it comes (X-Gearman-Stream). Only with a unique of the gateway's own, and of a foreground job.
    cdef bint streamed
    # The hash that becomes the job's identity, for the unique "-", by which jobs are merged by their workloads; it takes
    # the workload as it arrives. None for any other unique.
    cdef KeyedHash identity_hash
    # How many bytes the hash had taken before the workload.
    cdef unsigned long long identity_start_bytes
    # Answer as gearmand's HTTP plugin does where that differs on purpose.
    cdef bint plugin_compat

    cdef inline int packet_type(self) noexcept:
        return SUBMIT_TYPES[<int> self.priority][<int> self.background]

    # Be what another one is.
    cdef int become(self, JobRequest other) except -1
    # Hash the workload with this hash, which has taken function and unique; returns what takes it as it arrives.
    cdef BodySink hash_workload(self, KeyedHash identity_hash)
    # The digest of what the job server merges by, the workload included; None if it merges nothing with this job.
    cdef bytes workload_identity(self)

    # The request.

    # All of the request is there.
    cdef int perform(self) except -1
    # No answer is wanted any more.
    cdef int abandon(self) except -1
    # The gateway has failed on the request, which is told so.
    cdef int fail(self) except -1
    # The request has its answer, or never will: let go of it.
    cdef int close(self) except -1
    # How the request has ended, as the other process tells; headers: the lines of its answer.
    cdef int learn_ending(self, const Ending* ending, bytes headers) except -1
    # Nobody takes what is still to come of its body.
    cdef int drop_body(self) except -1
    # A wait for a kept job is over (gateway/watching): the job has ended, or time is up.
    cdef int waited(self) except -1

    # An answer that came as things happened is whole, or was ended early (gateway/event_stream).
    cdef int stream_ended(self) except -1

    # It may wait, or its answer may go on, for longer than any job that somebody waits for.
    cdef bint is_patient(self) noexcept
    # How long the other process may take for the head of its answer.
    cdef double answer_within_s(self) noexcept
    # The header lines that make the request which the other process reads, each with its CRLF: beside Host and what frames the body.
    cdef bytes relayed_lines(self)
    # The process that owns its key has answered, and told how the request has ended. content_type: None for none. headers: whole lines. body: bytes or bytearray.
    cdef int relay_answered(
        self, int status, const Ending* ending, bytes content_type, bytes headers, object body
    ) except -1
    # The same for an answer whose body comes in pieces, each given to relay_piece() as `source` is told that they are wanted;
    # and its end. body_bytes: UNKNOWN_BYTES for a body that ends when it ends. first: what has come with the head. Returns whether
    # any piece is wanted.
    cdef bint relay_answers(
        self,
        int status,
        const Ending* ending,
        bytes content_type,
        bytes headers,
        long long body_bytes,
        BodySource source,
        bytes first,
    ) except -1
    cdef bint relay_piece(self, const char* data, Py_ssize_t size) except -1
    cdef int relay_ended(self) except -1
    # That process takes no more of the body for now, or more again.
    cdef int relay_paused(self, bint pause) except -1
    # That process has not. problem: of http/problems.
    cdef int relay_failed(self, object problem, str detail) except -1

    # The end of the job.

    # The job has ended, and this is the answer. result: of core/metrics. command: the packet that has ended it. body: bytes or bytearray.
    # outcome: of http/outcomes.
    cdef int ended_with(self, Job job, int result, int status, bytes command, object body, int outcome) except -1
    # The same with a problem, of http/problems, with its own words where detail is None. command: None for none.
    cdef int ended_badly(self, Job job, int result, object problem, str detail, bytes command) except -1

    # Write the X-Gearman-* lines, with room for MAX_HEADERS_BYTES; returns what follows them. handle: NULL for none. command: None
    # for none.
    cdef char* put_headers(self, char* end, const char* handle, Py_ssize_t handle_bytes, bytes command)
    # The same for a job whose handle is kept; None for no job.
    cdef char* put_headers_of(self, char* end, Job job, bytes command)
    # The lines; job and command may be None.
    cdef bytes headers_of(self, Job job, bytes command)
