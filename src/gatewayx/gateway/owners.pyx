"""Which process of a gateway owns a key, and how a request comes to it.

Jobs that a job server may merge have to come from one process, which knows of all of them: the owner of their key. What
does it is not known here; server/relay is.
"""

from gatewayx.gearman.job cimport JobListener
from gatewayx.http.records cimport Ending
from gatewayx.http.request cimport BodySource, Request


cdef class Asked(JobListener):
    """What another process is asked for, and who is told its answer."""

    cdef int perform(self) except -1:
        raise NotImplementedError

    cdef int abandon(self) except -1:
        raise NotImplementedError

    cdef int waited(self) except -1:
        raise NotImplementedError

    cdef int stream_ended(self) except -1:
        raise NotImplementedError

    cdef bytes relayed_lines(self):
        raise NotImplementedError

    cdef int relay_answered(
        self, int status, const Ending* ending, bytes content_type, bytes headers, object body
    ) except -1:
        raise NotImplementedError

    cdef bint relay_answers(
        self,
        int status,
        const Ending* ending,
        bytes content_type,
        bytes headers,
        long long body_bytes,
        BodySource source,
    ) except -1:
        raise NotImplementedError

    cdef bint relay_piece(self, const char* data, Py_ssize_t size) except -1:
        raise NotImplementedError

    cdef int relay_ended(self) except -1:
        raise NotImplementedError

    cdef int relay_paused(self, bint pause) except -1:
        raise NotImplementedError

    cdef int relay_failed(self, object problem, str detail) except -1:
        raise NotImplementedError


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
