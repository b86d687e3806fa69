"""GET /v1/openapi.json: the interface as a document, the same for whoever may ask for anything."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

from gatewayx.core.budget cimport RESULTS
from gatewayx.gateway.common cimport Common
from gatewayx.gateway.job_request cimport JobRequest
from gatewayx.gateway.preferences cimport matches_tag, wanted_tags
from gatewayx.http.request cimport METHOD_GET, METHOD_HEAD, Request

from gatewayx.gateway import openapi
from gatewayx.http import outcomes
from gatewayx.http.problems import METHOD_NOT_ALLOWED, TOO_MANY_BYTES, UNEXPECTED_BODY, RequestError

cdef bytes PATH = b"/v1/openapi.json"
cdef bytes ALLOW_DOCUMENT = b"Allow: GET, HEAD, OPTIONS\r\n"
cdef bytes JSON = openapi.CONTENT_TYPE


cdef bint is_openapi(bytes path) noexcept:
    return path == PATH


cdef OpenApiCall read_openapi_call(Common gateway, Request request):
    cdef OpenApiCall call
    if request.method != METHOD_GET and request.method != METHOD_HEAD:
        raise RequestError(METHOD_NOT_ALLOWED, "the document of the interface is read with GET", ALLOW_DOCUMENT)
    if request.content_length > 0 or request.chunked:
        raise RequestError(UNEXPECTED_BODY, "a request for the document of the interface has no body")
    call = OpenApiCall.__new__(OpenApiCall)
    call.gateway = gateway
    call.tags = wanted_tags(request)
    return call


@cython.final
cdef class OpenApiCall(JobRequest):
    """One request for the document of the interface."""

    cdef int perform(self) except -1:
        cdef Request request = self.request
        cdef bytes tag = openapi.entity_tag()
        cdef bytes headers = b"ETag: %b\r\n" % tag
        cdef bytes document = None
        cdef int status = 304
        if self.tags is None or not matches_tag(self.tags, tag):
            status = 200
            document = openapi.body()
            if not self.gateway.pool.budget.reserve(RESULTS, PyBytes_GET_SIZE(document)):
                # Who reads it holds as much of the account as with a result, whoever else reads the same.
                self.gateway.pool.budget.counts.budget_refused += 1
                request.owner.answer_problem(request, TOO_MANY_BYTES, None, None)
                return self.close()
        request.outcome = <int> outcomes.OK if document is not None else <int> outcomes.NOT_MODIFIED
        request.owner.answer(
            request,
            status,
            None if document is None else JSON,
            PyBytes_AS_STRING(headers),
            PyBytes_GET_SIZE(headers),
            document,
        )
        return self.close()

    cdef int abandon(self) except -1:
        return self.close()

    cdef int close(self) except -1:
        if self.request is not None:
            self.request.context = None
            self.request = None
            self.gateway.open_exchanges -= 1
        return 0
