"""One HTTP request as one Gearman job."""

from gatewayx.gateway.common cimport Common
from gatewayx.gateway.job_request cimport JobRequest
from gatewayx.gateway.tokens cimport Token
from gatewayx.gearman.job cimport Job, Submission


cdef class Exchange(JobRequest):
    """Answers one request for one job with one HTTP response, which a subclass may give otherwise."""
    cdef Common gateway
    # When the job was submitted, by now_ns(); 0 while there is none whose end is not counted.
    cdef long long submitted_ns
    # None until the request is complete and its job submitted.
    cdef Job job
    # A background job is to be answered as one that was taken (RFC 7240).
    cdef bint responds_async
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
    # Hand the job, which counts in flight, to a job server, and wait for its end. submission: all but its listener.
    cdef int submit_job(self, bytes identity, Submission* submission) except -1
    cdef int _count_job(self, Job job, int result) except -1
    cdef bytes _identity(self)
    cdef int relay_body(self) except -1
    cdef int complete_relayed(self) except -1
    cdef bint _relay(self, bytes identity) except -1
    cdef int _let_go(self) except -1
    cdef bint _would_mix(self, bytes identity) except -1
    # A background job was taken, which its client has asked to be told so. lines: of the answer.
    cdef int _answer_taken(self, bytes lines) except -1
    cdef int _answer(self, Job job, int status, bytes command, object body) except -1
    cdef int _answer_problem(self, Job job, object problem, str detail, bytes command) except -1
