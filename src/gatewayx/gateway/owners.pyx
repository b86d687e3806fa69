"""Which process of a gateway owns a key, and how a request comes to it.

Jobs that a job server may merge have to come from one process, which knows of all of them: the owner of their key. What
does it is not known here; server/relay is.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

from gatewayx.gearman.job cimport JobListener
from gatewayx.http.records cimport Ending
from gatewayx.http.request cimport UNKNOWN_BYTES, BodySource, Request

from gatewayx.http.problems import INTERNAL_ERROR


cdef class Asked(JobListener):
    """What another process is asked for, and who is told its answer."""

    cdef int perform(self) except -1:
        raise NotImplementedError

    cdef int abandon(self) except -1:
        raise NotImplementedError

    cdef int fail(self) except -1:
        cdef Request request = self.request
        if request is not None and request.owner is not None and not request.answered():
            request.owner.answer_problem(request, INTERNAL_ERROR, None, None)
        return self.abandon()

    cdef int waited(self) except -1:
        raise NotImplementedError

    cdef int stream_ended(self) except -1:
        raise NotImplementedError

    cdef bytes relayed_lines(self):
        raise NotImplementedError

    cdef int close(self) except -1:
        raise NotImplementedError

    cdef int learn_ending(self, const Ending* ending, bytes headers) except -1:
        raise NotImplementedError

    cdef int drop_body(self) except -1:
        cdef Request request = self.request
        if request is not None and request.body_sink is not None:
            request.body_sink = None
            request.discards_body = True
            if request.owner is not None:
                request.owner.pause_body(False)
        return 0

    cdef int relay_answered(
        self, int status, const Ending* ending, bytes content_type, bytes headers, object body
    ) except -1:
        cdef Request request = self.request
        self.relayed = None
        self.drop_body()
        if request is not None:
            self.learn_ending(ending, headers)
            if request.owner is not None:
                request.owner.answer(
                    request, status, content_type, PyBytes_AS_STRING(headers), PyBytes_GET_SIZE(headers), body
                )
        return self.close()

    cdef bint relay_answers(
        self,
        int status,
        const Ending* ending,
        bytes content_type,
        bytes headers,
        long long body_bytes,
        BodySource source,
    ) except -1:
        cdef Request request = self.request
        self.drop_body()
        if request is not None:
            self.learn_ending(ending, headers)
            if request.owner is not None:
                self.is_endless = body_bytes == UNKNOWN_BYTES
                self.in_pieces = request.owner.answer_in_pieces(
                    request,
                    status,
                    content_type,
                    PyBytes_AS_STRING(headers),
                    PyBytes_GET_SIZE(headers),
                    body_bytes,
                    source,
                    None,
                )
        if not self.in_pieces:
            self.relayed = None
            self.close()
        return self.in_pieces

    cdef bint relay_piece(self, const char* data, Py_ssize_t size) except -1:
        return self.request.owner.answer_piece(self.request, data, size)

    cdef int relay_ended(self) except -1:
        cdef Request request = self.request
        self.relayed = None
        if self.is_endless and request is not None and request.owner is not None:
            request.owner.end_pieces(request)
        return self.close()

    cdef int relay_paused(self, bint pause) except -1:
        if self.request is not None and self.request.owner is not None:
            self.request.owner.pause_body(pause)
        return 0

    cdef int relay_failed(self, object problem, str detail) except -1:
        cdef Request request = self.request
        self.relayed = None
        self.drop_body()
        if request is not None and request.owner is not None:
            if not self.in_pieces or request.owner.take_back(request):
                request.owner.answer_problem(request, problem, detail, None)
        return self.close()


cdef class Relayed(BodySource):
    """A request that another process answers."""

    cdef int abandon(self) except -1:
        raise NotImplementedError

    cdef int complete(self) except -1:
        raise NotImplementedError


cdef class Owners:
    """The processes of a gateway, as owners of keys."""

    cdef int elsewhere(self, bytes hashed) noexcept:
        return -1

    cdef Relayed relay(self, int place, Asked asked, Request request):
        raise NotImplementedError

    cdef Relayed relay_head(self, int place, Asked asked, Request request):
        raise NotImplementedError
