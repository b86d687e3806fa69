"""One line of the access log, composed from a struct without any object of Python."""

cdef enum:
    # Of a line with its line end: PIPE_BUF of Linux, so much a pipe takes whole or not at all (pipe(7)).
    MAX_LINE_BYTES = 4096
    # Bytes of a text within its quotes, and what fits without a cut. An X-Request-Id of ours or of a trusted proxy:
    MAX_ID_TEXT_BYTES = 128
    # A trace id.
    MAX_TRACE_TEXT_BYTES = 32
    # A client's own X-Request-Id, of which 128 bytes are kept (http/request).
    MAX_CLIENT_ID_TEXT_BYTES = 160
    # An IPv6 address with its zone.
    MAX_CLIENT_TEXT_BYTES = 64
    MAX_TOKEN_TEXT_BYTES = 192
    # A method of http/parser, and the kind of a problem.
    MAX_WORD_TEXT_BYTES = 32
    # A function of 512 bytes, each of them %XX in the request.
    MAX_PATH_TEXT_BYTES = 1536
    MAX_FUNCTION_TEXT_BYTES = 832
    # A scheme, a name of 253 bytes and a port.
    MAX_SERVER_TEXT_BYTES = 280
    # A handle or unique of 63 bytes, each of them as %XX.
    MAX_HANDLE_TEXT_BYTES = 192


# Bytes that live as long as the call that is given them. start: NULL leaves the field out of the line.
cdef struct Slice:
    const char* start
    Py_ssize_t size


# What an answer's line tells. Times are nanoseconds.
cdef struct AccessEntry:
    # When the answer had left, or its client was gone, since 1970.
    long long time_ns
    # The gateway's name of the request, the client's own, and the trace that it belongs to.
    Slice id
    Slice client_id
    Slice trace
    # Who asked: an address, and the name of a token.
    Slice client
    Slice token
    Slice method
    # The target without its query.
    Slice path
    # The name as a job server has it.
    Slice function
    int status
    # "ok", or the kind of the problem.
    Slice outcome
    # Bodies with their heads, as they passed the connection.
    long long bytes_in
    long long bytes_out
    # From the end of the request's head to the end of its answer; and its job's part of that, -1 if there was none.
    long long duration_ns
    long long job_ns
    # The job server that had the job, and how that and the client name the job.
    Slice server
    Slice handle
    Slice unique
    # Which connection of the process it was, and the how many-th request there.
    unsigned long long connection
    unsigned long long request


# Write the line with its line end at `line`, which has room for MAX_LINE_BYTES; returns its length.
cdef Py_ssize_t compose(char* line, const AccessEntry* entry) noexcept nogil
# Whether a request of this id is in the part of all that `threshold` stands for, out of 2**64: the same everywhere.
cdef bint is_sampled(const char* id, Py_ssize_t id_bytes, unsigned long long threshold) noexcept nogil
# The threshold of a part from 0 to 1. All are sampled if it is 1, which is_sampled() need not be asked then.
cdef unsigned long long threshold_of(double part) noexcept nogil
# An entry of Python values by their names, for tests; the bytes must live as long as the entry.
cdef int fill(AccessEntry* entry, dict fields) except -1
