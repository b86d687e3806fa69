"""GET /v1/openapi.json."""

cimport cython

from gatewayx.gateway.common cimport Common
from gatewayx.gateway.job_request cimport JobRequest
from gatewayx.http.request cimport Request


@cython.final
cdef class OpenApiCall(JobRequest):
    """One request for the document of the interface (gateway/openapi)."""
    cdef Common gateway
    # Its If-None-Match; None without one.
    cdef bytes tags


# Whether it is the path of the document.
cdef bint is_openapi(bytes path) noexcept
# A request at that path; raises RequestError.
cdef OpenApiCall read_openapi_call(Common gateway, Request request)
