"""What is told of a request's job: how it ended, how long it took, and where it was."""

from cpython.bytes cimport PyBytes_GET_SIZE

from gatewayx.core.metrics cimport OTHER
from gatewayx.gateway.job_request cimport HANDLE_NAME, JobRequest
from gatewayx.gearman.job cimport Job, JobCarrier
from gatewayx.http.records cimport Ending, Records
from gatewayx.http.request cimport Request, RequestNote


cdef int note_job(Records records, Request request, JobRequest wanted, Job job) except -1:
    cdef JobCarrier carrier = job.carrier
    if carrier is not None and carrier.server_place == OTHER:
        carrier.server_place = records.metrics.servers.claim(carrier.server_name.encode())
        request.server_place = carrier.server_place
    if request.note is None:
        return 0
    return _note_job(request.note, wanted, job.handle, None if carrier is None else carrier.server_name.encode())


cdef int take_ending(
    Records records, Request request, JobRequest wanted, const Ending* ending, bytes headers
) except -1:
    request.outcome = ending.outcome
    request.server_place = ending.server_place
    request.job_ns = ending.job_ns
    if request.note is None:
        return 0
    return _note_job(
        request.note, wanted, _handle_among(headers), records.metrics.servers.name_at(ending.server_place)
    )


cdef int _note_job(RequestNote note, JobRequest wanted, bytes handle, bytes server) except -1:
    note.unique = wanted.own_unique.text[: wanted.own_unique.size] if wanted.unique is None else wanted.unique
    note.handle = handle
    note.server = server
    return 0


cdef bytes _handle_among(bytes headers):
    """The job's handle that the lines of an answer of ours tell; None if they tell none."""
    cdef Py_ssize_t begins = headers.find(HANDLE_NAME)
    return None if begins < 0 else headers[begins + PyBytes_GET_SIZE(HANDLE_NAME) : headers.find(b"\r", begins)]
