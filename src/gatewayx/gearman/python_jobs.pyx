"""Jobs, and questions about them, for plain Python: where they are few, as in tests.

A job costs some objects and a tuple an event here, which is why the gateway has listeners of its own.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE

from gatewayx.gearman.job cimport Job, JobListener, StatusListener, Submission
from gatewayx.gearman.packet cimport PacketType
from gatewayx.gearman.pool cimport Pool
from gatewayx.gearman.pooled_server cimport PooledServer


cdef class PythonStatus(StatusListener):
    """Keeps what it is told of one question. on_answer: called with each answer."""

    def __init__(self, on_answer=None):
        self.on_answer = on_answer
        self.answers = []

    def ask(self, Pool pool not None, PooledServer server not None, bytes unique not None):
        """Ask the job server for the job with this unique."""
        pool.ask_unique(server, unique, self)

    def cancel(
        self,
        Pool pool not None,
        PooledServer server not None,
        unsigned int life,
        bytes handle not None,
        bytes unique not None,
    ):
        """Have it take a background job out of its queue, and ask then; why it cannot be asked, or None."""
        return pool.cancel_background(server, life, handle, unique, self)

    cdef int status_told(
        self, bint known, bint running, unsigned int numerator, unsigned int denominator
    ) except -1:
        return self._add(("told", known, running, numerator, denominator))

    cdef int status_lost(self, str reason) except -1:
        return self._add(("lost", reason))

    cdef int _add(self, tuple answer) except -1:
        self.answers.append(answer)
        if self.on_answer is not None:
            self.on_answer(answer)
        return 0


cdef class PythonJob(JobListener):
    """Keeps what it is told of one job. on_event: called with each event."""

    def __init__(self, on_event=None):
        self.on_event = on_event
        self.events = []

    @property
    def life(self):
        """Which life of the job server the job's connection is to; 0 if that cannot be told."""
        return self.job.carrier.life()

    def submit(
        self,
        Pool pool not None,
        bytes function not None,
        bytes workload not None=b"",
        *,
        bytes unique not None,
        int packet_type=PacketType.SUBMIT_JOB,
        bytes identity=None,
        bint streamed=False,
        double timeout_s=60.0,
    ):
        """Submit the job; whether a job server takes it.

        unique: the job's own, unless there is an identity by which jobs are merged. packet_type: one of SUBMIT_JOB*.
        """
        cdef Submission submission
        submission.packet_type = packet_type
        submission.unique = PyBytes_AS_STRING(unique)
        submission.unique_bytes = PyBytes_GET_SIZE(unique)
        submission.workload = PyBytes_AS_STRING(workload)
        submission.workload_bytes = PyBytes_GET_SIZE(workload)
        submission.timeout_s = timeout_s
        submission.own_unique = identity is None
        submission.remembered = False
        submission.streamed = streamed
        submission.rank_key = 0
        self.job = pool.submit(self, function, identity, &submission, workload)
        return self.job is not None

    def cancel(self, PythonStatus status not None):
        """Cancel the job while it is waited for; why the job server cannot be asked, or None."""
        return self.job.carrier.cancel(self.job, status)

    def abandon(self):
        """Wait for it no longer."""
        self.job.carrier.abandon(self.job)

    cdef int _add(self, tuple event) except -1:
        self.events.append(event)
        if self.on_event is not None:
            self.on_event(event)
        return 0

    cdef int job_created(self, Job job, const char* handle, Py_ssize_t handle_bytes) except -1:
        return self._add(("created", PyBytes_FromStringAndSize(handle, handle_bytes)))

    cdef int job_data(self, Job job, bytes data) except -1:
        return self._add(("data", data))

    cdef int job_warning(self, Job job, bytes data) except -1:
        return self._add(("warning", data))

    cdef int job_status(self, Job job, bytes numerator, bytes denominator) except -1:
        return self._add(("status", numerator, denominator))

    cdef int job_completed(self, Job job, object result) except -1:
        return self._add(("completed", bytes(result)))

    cdef int job_failed(self, Job job, bytes reason) except -1:
        return self._add(("failed", reason))

    cdef int job_exception(self, Job job, bytes data) except -1:
        return self._add(("exception", data))

    cdef int job_too_large(self, Job job) except -1:
        return self._add(("too_large",))

    cdef int job_refused(self, Job job, bytes code, bytes text) except -1:
        return self._add(("refused", code, text))

    cdef int job_timed_out(self, Job job) except -1:
        return self._add(("timed_out",))

    cdef int job_broken(self, Job job) except -1:
        return self._add(("broken",))

    cdef int job_lost(self, Job job) except -1:
        return self._add(("lost",))
