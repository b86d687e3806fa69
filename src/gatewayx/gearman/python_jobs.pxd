"""Jobs, and questions about them, for plain Python: where they are few, as in tests."""

from gatewayx.gearman.job cimport Job, JobListener, StatusListener


cdef class PythonStatus(StatusListener):
    # Called with each answer, and may raise; None for nothing.
    cdef object on_answer
    # Each answer, as a tuple: ("told", known, running, numerator, denominator) or ("lost", reason). One is there at most, unless
    # something is wrong.
    cdef readonly list answers

    cdef int _add(self, tuple answer) except -1


cdef class PythonJob(JobListener):
    # None while it is not submitted, and if it could not be.
    cdef readonly Job job
    # Called with each event, and may raise; None for nothing.
    cdef object on_event
    # What it was told, each a tuple that begins with the name of the method without its "job_".
    cdef readonly list events

    cdef int _add(self, tuple event) except -1
