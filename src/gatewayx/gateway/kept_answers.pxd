"""What is answered of a kept job: its JSON, and the answer that its client would have had."""

from gatewayx.gateway.kept_job cimport KeptJob
from gatewayx.gateway.kept_jobs cimport KeptJobs
from gatewayx.gateway.kept_room cimport KeptAnswer, KeptRoom
from gatewayx.http.request cimport Request

# Answer with an answer that is kept, if there is room for it. lines: further header lines; None for none.
cdef int answer_kept(Request request, KeptRoom room, KeptAnswer kept, bytes lines=*) except -1
# Answer with the job as JSON. headers: further header lines; while it has not ended, when to come again is among them. tags: the request's
# If-None-Match, None for none: if the client has this version it is told so (RFC 9110 13.1.2).
cdef int answer_json(
    Request request, KeptJobs jobs, int status, KeptJob kept, bytes headers, bytes tags=*
) except -1
# The header line that tells where a job is.
cdef bytes location_line(bytes job_id)
# The same for when to come again while it has not ended.
cdef bytes retry_line(KeptJobs jobs)
