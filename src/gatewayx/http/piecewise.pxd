"""Answers that come in pieces, with a length or without one."""

from gatewayx.http.answering cimport AnsweringClient


cdef class PiecewiseClient(AnsweringClient):
    # Write a piece of an answer without a length as a chunk; returns how many bytes that was.
    cdef Py_ssize_t _send_chunk(self, const char* data, Py_ssize_t size) except -1
    # Hold what was given to the stream and is not taken, so many bytes more than before at most.
    cdef int _hold_waiting(self, Py_ssize_t more_bytes) except -1
