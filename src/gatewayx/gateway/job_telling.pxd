"""What is told of a request's job: how it ended, how long it took, and where it was."""

from gatewayx.gateway.job_request cimport JobRequest
from gatewayx.gearman.job cimport Job
from gatewayx.http.records cimport Ending, Records
from gatewayx.http.request cimport Request

# The job's part in the request has ended: give its job server a place, and let the request's note tell of it.
cdef int note_job(Records records, Request request, JobRequest wanted, Job job) except -1
# The request has ended as the process has told that owns its key. headers: the lines of its answer.
cdef int take_ending(
    Records records, Request request, JobRequest wanted, const Ending* ending, bytes headers
) except -1
