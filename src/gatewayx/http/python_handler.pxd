"""Handlers in plain Python behind our own http room, for a process in which requests are few."""

from gatewayx.http.request cimport BodySource, Request, RequestHandler



cdef class PlainPieces(BodySource):
    # What Content-Length says; UNKNOWN_BYTES for a body that ends when end() says so.
    cdef readonly long long body_bytes
    # What leaves in one write with the head; None for nothing.
    cdef readonly bytes first
    # Called without arguments when the client takes the next piece; None for nobody.
    cdef object on_wanted
    # None before it is the answer to a request.
    cdef Request request
    # So often was a piece wanted, and nobody takes any more.
    cdef readonly int times_wanted
    cdef readonly bint abandoned


cdef class PythonHandler(RequestHandler):
    # Called with a PlainRequest once the request is complete; returns a PlainAnswer.
    cdef object respond
    # The names of the headers that are kept, in lower case.
    cdef frozenset wanted_headers
