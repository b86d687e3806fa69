"""One HTTP request as one Gearman job."""

from gatewayx.gateway.admission cimport Admission
from gatewayx.gateway.job_request cimport JobRequest, UniqueText
from gatewayx.gateway.owners cimport Owners, Relayed
from gatewayx.gateway.routes cimport RecentFunctions
from gatewayx.gearman.job cimport Job
from gatewayx.gearman.pool cimport Pool
from gatewayx.http.records cimport Ending, Records
from gatewayx.http.request cimport Request, RequestHandler


cdef class Gateway(RequestHandler):
    """Makes an Exchange of every request that asks for a job; one a process."""
    cdef Pool pool
    cdef Admission admission
    # Tells of requests and jobs.
    cdef Records records
    # Who else may own the key of a job; None where nobody does.
    cdef Owners owners
    # Bytes of a function's name.
    cdef Py_ssize_t max_function_bytes
    # Content-Type of results.
    cdef bytes content_type
    # Default and maximum of a job's wait.
    cdef double job_timeout_s
    # Clients may not give uniques.
    cdef bint refuse_client_unique
    # Take and answer requests as gearmand's HTTP plugin where it differs on purpose.
    cdef bint plugin_compat
    # The last job's unique: "gatewayx-", what tells this process from all others, "-", and a number.
    cdef UniqueText own_unique
    cdef RecentFunctions functions
    # Exchanges between begin() and their answer or abandonment.
    cdef readonly Py_ssize_t open_exchanges

    # Make the unique of one more job.
    cdef void next_unique(self, UniqueText* unique) noexcept
    cdef int _read_head(self, JobRequest wanted, Request request) except -1


cdef class Exchange(JobRequest):
    """Answers one request for one job with one HTTP response."""
    cdef Gateway gateway
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

    cdef int submit(self) except -1
    cdef int _count_job(self, Job job, int result) except -1
    cdef int abandon(self) except -1
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
