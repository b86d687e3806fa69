"""What is answered of a kept job: its JSON, and the answer that its client would have had."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

from gatewayx.core.budget cimport RESULTS, SMALL_BYTES
from gatewayx.gateway.kept_job cimport KeptJob
from gatewayx.gateway.kept_jobs cimport KeptJobs
from gatewayx.gateway.kept_room cimport KeptAnswer, KeptRoom
from gatewayx.gateway.preferences cimport matches_tag
from gatewayx.http.request cimport Request

from gatewayx.http import outcomes
from gatewayx.http.problems import RESULT_DROPPED, TOO_MANY_BYTES

cdef int OK = outcomes.OK
cdef int NOT_MODIFIED = outcomes.NOT_MODIFIED
cdef int ACCEPTED = outcomes.ACCEPTED

cdef enum:
    # How soon whoever asks for a job may ask again, at the earliest: what comes sooner is better asked for with `wait`.
    POLL_NS = 1_000_000_000

cdef bytes JSON = b"application/json"


cdef bytes location_line(bytes job_id):
    return b"Location: /v1/jobs/%b\r\n" % job_id


cdef bytes retry_line(KeptJobs jobs):
    return jobs.retry_after.exactly(POLL_NS)


cdef int answer_kept(Request request, KeptRoom room, KeptAnswer kept, bytes lines=None) except -1:
    cdef bytes headers = kept.headers
    if lines is not None:
        headers = lines if headers is None else headers + lines
    if kept.is_dropped:
        return request.owner.answer_problem(request, RESULT_DROPPED, None, headers)
    if kept.problem is not None:
        return request.owner.answer_problem(request, kept.problem, kept.detail, headers)
    if kept.body_bytes > SMALL_BYTES and not room.budget.reserve(RESULTS, kept.body_bytes):
        # Who reads it holds as much of the account as with a result of its own, whoever else reads the same.
        room.counts.budget_refused += 1
        return request.owner.answer_problem(
            request, TOO_MANY_BYTES, "the gateway holds as many bytes as it may; the result is kept, and may be asked for again", headers
        )
    request.outcome = kept.outcome
    return request.owner.answer(
        request,
        kept.status,
        kept.content_type,
        PyBytes_AS_STRING(headers),
        PyBytes_GET_SIZE(headers),
        kept.body,
    )


cdef int answer_json(
    Request request, KeptJobs jobs, int status, KeptJob kept, bytes headers, bytes tags=None
) except -1:
    cdef bytes tag = b'"%d"' % kept.version
    headers += b"ETag: %b\r\n" % tag
    if not kept.has_ended():
        headers += retry_line(jobs)
    if tags is not None and matches_tag(tags, tag):
        request.outcome = NOT_MODIFIED
        return request.owner.answer(
            request, 304, None, PyBytes_AS_STRING(headers), PyBytes_GET_SIZE(headers), None
        )
    request.outcome = ACCEPTED if status == 202 else OK
    return request.owner.answer(
        request, status, JSON, PyBytes_AS_STRING(headers), PyBytes_GET_SIZE(headers), kept.json()
    )
