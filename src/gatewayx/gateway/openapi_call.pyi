"""GET /v1/openapi.json; the .pxd has the C-level interface."""

from typing import final

from gatewayx.gateway.job_request import JobRequest

@final
class OpenApiCall(JobRequest):
    """One request for the document of the interface."""
