"""Response heads and problem+json bodies. No I/O: values in, bytes out."""

cdef enum:
    # Bodies up to here are copied behind their head, so that the answer is one buffer.
    INLINE_BODY_BYTES = 16384
    # In the place of a body's length: the response has no such line, or its body comes in chunks.
    NO_LENGTH = -1
    IN_CHUNKS = -2
    # Retry-After at first, lowest and highest, in seconds, and what the highest grows to. Constant values bring everybody
    # back at once; AWS and gRPC (connection backoff: 20 % jitter, 120 s) spread returns likewise.
    MIN_RETRY_AFTER_S = 1
    MAX_FIRST_RETRY_AFTER_S = 3
    MAX_RETRY_AFTER_S = 30


cdef class ResponseBuilder:
    # The header lines that every response carries, Date included; made anew once a second.
    cdef bytes common_headers
    # What nearly every response begins with: the status line of 200, and they.
    cdef bytes ok_head
    # The second, since the epoch, for which they were made.
    cdef long long common_second
    # Errors are answered without a body, as gearmand's HTTP plugin does.
    cdef public bint empty_error_bodies

    # What compose() has made last; of the builder, until the next one.
    cdef char* composed
    cdef Py_ssize_t composed_room

    # Head and, if it is small, body, in `composed`; returns how many bytes. headers, lines and further_lines: whole
    # header lines, the last of which may be None. body_bytes: what Content-Length says, NO_LENGTH or
    # IN_CHUNKS. connection: the value of the Connection header; NULL for none.
    cdef Py_ssize_t compose(
        self,
        int status,
        bytes content_type,
        const char* headers,
        Py_ssize_t headers_bytes,
        const char* lines,
        Py_ssize_t lines_bytes,
        bytes further_lines,
        const char* body,
        Py_ssize_t body_bytes,
        Py_ssize_t inline_bytes,
        const char* connection,
    ) except -1
    cdef int _make_room(self, Py_ssize_t room_bytes) except -1
    # A whole response that tells of a Problem, with these words and further header lines, and closes the connection. request_id:
    # which one it answers.
    cdef bytes problem(self, object problem, str detail, bytes headers, bytes lines, bytes further_lines, bytes request_id)
    cpdef bint refresh(self, double now_s) except -1


cdef class RetryAfter:
    # Tells monotonic seconds.
    cdef object clock
    # State of the jitter, never 0 (xorshift64: Marsaglia, 2003).
    cdef unsigned long long random_state
    # By kind of refusal: since when it goes on without a pause, and when the last one was; one entry a kind.
    cdef dict spells

    cpdef bytes line(self, str kind)
    # The line for one that may come again in so many nanoseconds.
    cpdef bytes exactly(self, long long wait_ns)
    cdef unsigned long long _random(self) noexcept


cdef bytes problem_body(object problem, str detail, bytes request_id)
