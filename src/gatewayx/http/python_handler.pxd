"""Handlers in plain Python behind our own http room, for a process in which requests are few."""

from gatewayx.http.request cimport RequestHandler


cdef class PythonHandler(RequestHandler):
    # Called with a PlainRequest once the request is complete; returns a PlainAnswer.
    cdef object respond
    # The names of the headers that are kept, in lower case.
    cdef frozenset wanted_headers
