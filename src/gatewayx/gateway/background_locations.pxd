"""The header lines of answers to background jobs, the Location of each among them, at little cost."""

from libc.stdint cimport uint32_t, uint64_t

from gatewayx.core.keyed_hash cimport SipState
from gatewayx.gateway.job_ids cimport MOST_HANDLE_DIGITS, NUMBER_DIGITS, SECOND_DIGITS, JobIds, KeptPlace
from gatewayx.gateway.job_request cimport JobRequest
from gatewayx.gearman.job cimport Job

cdef enum:
    # So many lives of job servers, each with a token, are remembered, and functions with one of those: each in the
    # place that a number or an address chooses, from which the next one of that place drives it out.
    ORIGINS = 64
    TEMPLATES = 128
    # What all lines have up to the function in the id, with a handle and a unique of 63 bytes.
    ORIGIN_BYTES = 384
    # And all of them, with an id of MOST_ID_BYTES.
    TEMPLATE_BYTES = 1536


# What jobs have in common that one job server has queued in one life of it, for one token, in one second.
cdef struct Origin:
    # What it was made of, by identity, and for: the keys, the life of the job server.
    void* server_name
    void* token_mark
    unsigned int changes
    unsigned int life
    # Changes whenever anything here does; another one's is never the same. 0 for one that was never made.
    uint64_t stamp
    # Until when its second is the present one, by now_ns().
    long long second_ends_ns
    # The digits of the number before its last LAST_DIGITS.
    uint64_t first_number
    # The handle: how many bytes, how many before its last digits, which differ from one to the next, and how many
    # digits it ends with.
    Py_ssize_t handle_bytes
    Py_ssize_t handle_head_bytes
    int handle_digits
    # Of the handle's last word: the high bits of those last digits.
    uint64_t digits_mask
    # What the hash has taken: up to the handle's part of the id, and up to the function.
    SipState begun
    SipState state
    # The lines up to the function in the id; where in them the handle begins and ends, the unique ends, the id begins.
    char[ORIGIN_BYTES] text
    int size
    int handle_at
    int handle_end
    int unique_end
    int id_at
    # What follows the function in the id up to the tag.
    char[SECOND_DIGITS + NUMBER_DIGITS + MOST_HANDLE_DIGITS] digits


# The lines of the last job of an Origin and a function: the next one's differ in some digits and the tag.
cdef struct Template:
    void* function
    # Of its Origin, when it was made.
    uint64_t stamp
    # What the hash has taken: up to the last word, and in all.
    SipState state
    uint64_t hashed_bytes
    # Where in the text the id's number ends, and its digits.
    int number_end
    int digits_end
    int size
    char[TEMPLATE_BYTES] text


cdef class BackgroundLocations:
    cdef JobIds ids
    # The process that submits.
    cdef KeptPlace submitter
    cdef Origin* origins
    cdef Template* templates
    # Of the Origin that was made last.
    cdef uint64_t stamp
    # Keep alive what each was made of: (server name, token mark), and functions.
    cdef list origins_of
    cdef list functions

    # The X-Gearman- lines and the Location of a background job that a job server has queued, whose unique is the
    # gateway's own, with the handle that it was given, now, by now_ns(). They are this object's, up to the next call.
    # Returns how many bytes; 0 if its id would be too long.
    cdef Py_ssize_t put_lines(
        self,
        JobRequest wanted,
        Job job,
        const char* handle,
        Py_ssize_t handle_bytes,
        long long now_ns,
        char** lines,
    ) except -1
    cdef int _make_origin(
        self, int index, JobRequest wanted, Job job, const char* handle, Py_ssize_t handle_bytes
    ) except -1
    cdef int _begin_second(self, Origin* origin, JobRequest wanted, long long now_ns) except -1
    # Returns 0 if the function's name is too long.
    cdef bint _make_template(self, int index, Origin* origin, JobRequest wanted) except -1
