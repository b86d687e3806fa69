"""One HTTP request as one Gearman job."""

from gatewayx.gateway.common cimport Common
from gatewayx.gateway.job_request cimport JobRequest
from gatewayx.gateway.owners cimport Relayed
from gatewayx.gateway.tokens cimport Token
from gatewayx.gearman.job cimport Job
from gatewayx.http.records cimport Ending
from gatewayx.http.request cimport Request


cdef class Exchange(JobRequest):
    """Answers one request for one job with one HTTP response."""
    cdef Common gateway
    # None once it was answered or abandoned.
    cdef Request request
    # When the job was submitted, by now_ns(); 0 while there is none whose end is not counted.
    cdef long long submitted_ns
    # None until the request is complete and its job submitted.
    cdef Job job
    # The request as the process has it that owns its key; None if that is this process, and before.
    cdef Relayed relayed
    # The answer that comes from there is being given in pieces.
    cdef bint in_pieces
    # What the gateway's field was when it began.
    cdef bint plugin_compat
    # Its job counts in flight.
    cdef bint entered
    # Where it counts among the jobs of its function, as Admission.enter() has told.
    cdef int job_place
    # The token that its client has; None for none, and for what another process has asked. Its job counts among the token's.
    cdef Token token
    cdef bint token_entered
    # Where, as Token.enter() has told.
    cdef int token_place

    # Count the job among those of its token; the problem for which it may not, or None.
    cdef object enter_token(self)
    cdef int submit(self) except -1
    cdef int _count_job(self, Job job, int result) except -1
    cdef bytes _identity(self)
    cdef int relay_body(self) except -1
    cdef int complete_relayed(self) except -1
    cdef int _drop_body(self) except -1
    cdef bint _relay(self, bytes identity) except -1
    cdef int _let_go(self) except -1
    cdef bint _would_mix(self, bytes identity) except -1
    cdef int _close(self) except -1
    cdef char* _put_headers(self, char* end, const char* handle, Py_ssize_t handle_bytes, bytes command)
    cdef char* _put_headers_of(self, char* end, Job job, bytes command)
    cdef bytes _headers(self, Job job, bytes command)
    cdef int _answer(self, Job job, int status, bytes command, object body) except -1
    cdef int _answer_problem(self, Job job, object problem, str detail, bytes headers) except -1
