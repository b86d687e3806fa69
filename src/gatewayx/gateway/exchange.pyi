"""One HTTP request as one Gearman job; the .pxd has the C-level interface."""


from gatewayx.gateway.job_request import JobRequest
from gatewayx.http.problems import NO_ROOM_FOR_RESULT as NO_ROOM_FOR_RESULT

class Exchange(JobRequest):
    """One request and its job."""
