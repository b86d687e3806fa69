"""Which answer the end of a job is: one table, for whoever waits for the job."""

from gatewayx.gateway.job_request cimport JobRequest
from gatewayx.gearman.job cimport Job

cdef enum:
    # Room for the X-Gearman-* lines of an answer: a handle and a unique of at most 63 bytes, and what is ours.
    MAX_HEADERS_BYTES = 256


cdef class AnsweredJob(JobRequest):
    """A subclass gives the answer, or keeps it."""
    # Answer as gearmand's HTTP plugin does where that differs on purpose.
    cdef bint plugin_compat

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
