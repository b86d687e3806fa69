"""Ids of jobs that outlive their request: made, signed, and read again."""

from libc.stdint cimport uint32_t, uint64_t

cdef enum:
    # Of the id of a kept job: a letter, and 30 bytes in base64url.
    KEPT_ID_BYTES = 41
    # A longer text is no id.
    MOST_ID_BYTES = 1024


# What the id of a kept job tells: where it is kept, and the mark of the process that keeps it.
cdef struct KeptPlace:
    int place
    uint32_t mark


cdef class BackgroundId:
    """What the id of a background job tells."""
    # Of its job server's name, the keyed hash.
    cdef uint64_t server_mark
    # When it was submitted, since the epoch.
    cdef long long created_s
    # The process that has submitted it, and which life of the job server that knew (gearman/job, JobCarrier.life).
    cdef KeptPlace submitter
    cdef unsigned int life
    cdef bytes unique
    cdef bytes handle
    cdef bytes function


cdef class JobIds:
    # A new id, of 128 random bits, for a job that the process with this place and mark keeps. token_mark: of its token
    # (gateway/owners), None without one; nobody else's token reads the id.
    cdef bytes new_kept(self, int place, uint32_t mark, bytes token_mark)
    # Whether the text is such an id for this token; what it tells.
    cdef bint read_kept(self, bytes text, bytes token_mark, KeptPlace* found) except -1
    # What the text tells, if it is the id of a background job for this token; None for anything else.
    cdef BackgroundId read_background(self, bytes text, bytes token_mark)
    # The mark of a job server's name.
    cdef uint64_t server_mark(self, str name) except? 0
