"""One request, who takes its answer, and who knows what it means: all that the rooms behind http see of it. No I/O."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint64_t

from gatewayx.net.stream cimport StreamOwner


@cython.final
cdef class RequestNote:
    """What the access log tells of a request; the .pxd says what each field means."""

    cdef Py_ssize_t held_bytes(self):
        cdef Py_ssize_t total = OBJECT_BYTES
        for text in (self.path, self.client_id, self.trace, self.handle):
            if text is not None:
                total += PyBytes_GET_SIZE(<bytes> text) + OBJECT_BYTES
        return total


@cython.final
@cython.freelist(64)
cdef class ProxyNote:
    """What a trusted proxy tells of a request; the .pxd says what each field means."""

    def __cinit__(self):
        self.address_slot = -1

    cdef Py_ssize_t held_bytes(self):
        cdef Py_ssize_t total = OBJECT_BYTES
        for text in (self.host, self.address, self.name):
            if text is not None:
                total += PyBytes_GET_SIZE(<bytes> text) + OBJECT_BYTES
        return total


cdef class BodySink:
    """Takes the body of a request as it arrives."""

    cdef int take(self, const char* piece, Py_ssize_t piece_bytes) except -1:
        raise NotImplementedError


cdef class BodySource(BodySink):
    """Has the body of an answer that comes in pieces."""

    cdef int wanted(self) except -1:
        raise NotImplementedError


@cython.final
@cython.freelist(256)
cdef class Request:
    """One request; the .pxd says what each field means."""

    cdef int let_go(self) except -1:
        self.path = None
        self.query = None
        self.headers = None
        self.body = None
        self.header_count = 0
        self.body_start = NULL
        self.body_bytes = 0
        return 0

    cdef int keep(self) except -1:
        cdef const HeaderSlice* header
        cdef int index
        if self.header_count:
            self.headers = []
            for index in range(self.header_count):
                header = &self.header_slices[index]
                self.headers.append(PyBytes_FromStringAndSize(header.name, header.name_bytes))
                self.headers.append(PyBytes_FromStringAndSize(header.value, header.value_bytes))
            self.header_count = 0
        if self.body is None and self.body_start != NULL:
            self.set_body(PyBytes_FromStringAndSize(self.body_start, self.body_bytes))
        return 0

    cdef int set_body(self, bytes body) except -1:
        self.body = body
        self.body_start = PyBytes_AS_STRING(body)
        self.body_bytes = PyBytes_GET_SIZE(body)
        return 0

    cdef Py_ssize_t head_and_body_bytes(self):
        cdef Py_ssize_t total = PyBytes_GET_SIZE(self.path)
        if self.query is not None:
            total += PyBytes_GET_SIZE(self.query)
        if self.body is not None:
            total += PyBytes_GET_SIZE(self.body)
        if self.headers is not None:
            for text in self.headers:
                total += PyBytes_GET_SIZE(<bytes> text) + OBJECT_BYTES
        return total


cdef int header_slice(Request request, int index, HeaderSlice* header) except -1:
    cdef bytes name, value
    if request.headers is None:
        header[0] = request.header_slices[index]
    else:
        name = <bytes> request.headers[2 * index]
        value = <bytes> request.headers[2 * index + 1]
        header.name = PyBytes_AS_STRING(name)
        header.name_bytes = PyBytes_GET_SIZE(name)
        header.value = PyBytes_AS_STRING(value)
        header.value_bytes = PyBytes_GET_SIZE(value)
    while header.value_bytes and (header.value[0] == c" " or header.value[0] == c"\t"):
        header.value += 1
        header.value_bytes -= 1
    while header.value_bytes and (
        header.value[header.value_bytes - 1] == c" " or header.value[header.value_bytes - 1] == c"\t"
    ):
        header.value_bytes -= 1
    return 0


cdef bytes request_name(Request request):
    if request.proxy_note is not None and request.proxy_note.name is not None:
        return request.proxy_note.name
    return request.id[:ID_BYTES]


cdef Request new_request():
    cdef Request request = Request.__new__(Request)
    request.job_ns = -1
    return request


cdef Request unread_request():
    cdef Request request = new_request()
    request.method = METHOD_OTHER
    request.minor_version = 1
    return request


cdef class RequestOwner(StreamOwner):
    """Who takes the answer to a request."""

    cdef object client_names(self):
        return None

    cdef bint is_relayed(self) noexcept:
        return False

    cdef bytes asker(self, Request request):
        return None

    cdef bytes token_mark(self):
        return None

    cdef uint64_t asker_hash(self, Request request) except? 0:
        return 0

    cdef int answer(
        self,
        Request request,
        int status,
        bytes content_type,
        const char* headers,
        Py_ssize_t headers_bytes,
        object body,
    ) except -1:
        raise NotImplementedError

    cdef int pause_body(self, bint pause) except -1:
        raise NotImplementedError

    cdef bint answer_in_pieces(
        self,
        Request request,
        int status,
        bytes content_type,
        const char* headers,
        Py_ssize_t headers_bytes,
        long long body_bytes,
        BodySource source,
        bytes first,
    ) except -1:
        raise NotImplementedError

    cdef bint answer_piece(self, Request request, const char* data, Py_ssize_t size) except -1:
        raise NotImplementedError

    cdef int end_pieces(self, Request request) except -1:
        raise NotImplementedError

    cdef Py_ssize_t pieces_waiting(self, Request request) except -1:
        raise NotImplementedError

    cdef bint take_back(self, Request request) except -1:
        raise NotImplementedError

    cdef int answer_problem(self, Request request, object problem, str detail, bytes headers) except -1:
        raise NotImplementedError

    cdef Py_ssize_t body_room(self, Request request, Py_ssize_t needed_bytes, Py_ssize_t wanted_bytes) except -1:
        return wanted_bytes


cdef class RequestHandler:
    """Who knows what requests mean."""

    cdef int wants_header(self, const char* name, Py_ssize_t name_bytes, Py_ssize_t value_bytes) except -1:
        return 0

    cdef int begin(self, Request request) except -1:
        return 0

    cdef int refused(self, Request request) except -1:
        return 0

    cdef int handle(self, Request request) except -1:
        raise NotImplementedError

    cdef int abandon(self, Request request) except -1:
        return 0
