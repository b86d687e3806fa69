"""The header lines of answers to background jobs, the Location of each among them, at little cost."""

from libc.stdint cimport uint32_t, uint64_t

from gatewayx.core.keyed_hash cimport SipState
from gatewayx.gateway.job_ids cimport JobIds, KeptPlace
from gatewayx.gateway.job_request cimport UniqueText
from gatewayx.gearman.job cimport Job

cdef enum:
    # So many kinds of jobs are remembered: of a function, a token, and a life of a job server; each in the place that these tell.
    TEMPLATES = 64
    # Lines of a longer text have no Location; it has room for an id of MOST_ID_BYTES, a handle and a unique.
    TEMPLATE_BYTES = 1536


# The lines of the last job of a kind: the next one's differ in some digits and the tag.
cdef struct Template:
    # What it was made of, by identity, and for: the keys, the life of the job server.
    void* server_name
    void* function
    void* token_mark
    unsigned int changes
    unsigned int life
    # Until when its second is the present one, by now_ns().
    long long second_ends_ns
    # The digits of the number that are not its last LAST_DIGITS, with two of those, as they stand there.
    uint64_t first_number
    # The handle: how many bytes, how many before the last digits, which differ from one to the next, and how many digits it ends with.
    Py_ssize_t handle_bytes
    Py_ssize_t handle_head_bytes
    int handle_digits
    # Of the handle's last word: what all digits have in common where those last digits are.
    uint64_t digits_mask
    # What the hash has taken: up to the function's end, up to the last word, and in all.
    SipState begun
    SipState state
    uint64_t hashed_bytes
    # Where in the text the handle begins and ends, the unique ends, the id's second begins, and its number and its digits end.
    int handle_at
    int handle_end
    int unique_end
    int second_at
    int number_end
    int digits_end
    int size
    char[TEMPLATE_BYTES] text


cdef class BackgroundLocations:
    cdef JobIds ids
    # The process that submits.
    cdef KeptPlace submitter
    cdef Template* templates
    # Keeps alive what each is made of: (server name, function, token mark) or None.
    cdef list made_of

    # The X-Gearman- lines and the Location of a background job that a job server has queued, whose unique is the gateway's own and
    # whose token has this mark, None for none. They are this object's, up to the next call. Returns how many bytes; 0 if its id would
    # be too long.
    cdef Py_ssize_t put_lines(
        self,
        bytes function,
        const UniqueText* unique,
        bytes token_mark,
        Job job,
        const char* handle,
        Py_ssize_t handle_bytes,
        long long now_ns,
        char** lines,
    ) except -1
    cdef Py_ssize_t _remake(
        self,
        int index,
        bytes function,
        const UniqueText* unique,
        bytes token_mark,
        Job job,
        unsigned int life,
        const char* handle,
        Py_ssize_t handle_bytes,
    ) except -1
    cdef int _begin_second(self, Template* template, const UniqueText* unique, long long now_ns) except -1
