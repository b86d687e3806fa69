"""What all exchanges of a process have in common."""

from gatewayx.gateway.admission cimport Admission
from gatewayx.gateway.background_jobs cimport BackgroundJobs
from gatewayx.gateway.background_locations cimport BackgroundLocations
from gatewayx.gateway.job_request cimport UniqueText
from gatewayx.gateway.kept_jobs cimport KeptJobs
from gatewayx.gateway.keys cimport Keys
from gatewayx.gateway.owners cimport Owners
from gatewayx.gateway.tokens cimport Token
from gatewayx.gearman.pool cimport Pool
from gatewayx.http.records cimport Records
from gatewayx.http.request cimport RequestHandler


cdef class Common(RequestHandler):
    cdef Pool pool
    cdef Admission admission
    # Tells of requests and jobs.
    cdef Records records
    # Who else may own the key of a job; None where nobody does.
    cdef Owners owners
    # Jobs that outlive their requests, and background jobs that clients come back to; None where none are served.
    cdef KeptJobs kept
    cdef BackgroundJobs background_jobs
    # Idempotency keys; None where none are taken.
    cdef Keys keys
    # Gives background jobs their Location; None where none may outlive its request.
    cdef BackgroundLocations locations
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
    # Exchanges between begin() and their answer or abandonment.
    cdef readonly Py_ssize_t open_exchanges

    # The token with this mark, of which another process has told; None for none.
    cdef Token token_of(self, bytes mark)
    # Make the unique of one more job.
    cdef void next_unique(self, UniqueText* unique) noexcept
