"""The lines of a batch: what each asks for, and how each is answered. Bytes in, values out."""

cdef enum:
    # A longer line is not parsed: that would hold up everybody else's.
    MOST_LINE_BYTES = 1048576
    # Of a line's id as UTF-8. It is kept until the line's answer.
    MOST_ID_BYTES = 1024
    # Values of a line, nested ones included. What has more is not read, since each would be an object; a job has eight at most.
    MOST_PARTS = 256


# Find the first line from `cursor` on, before `end`, that is not blank: its first byte, and how many it has without white space around
# it, 0 if there is none. Returns where the next one begins. number: of the line before, and then of this one.
cdef const char* next_line(
    const char* cursor, const char* end, const char** start, Py_ssize_t* size, long long* number
) noexcept
# How many lines of a body are not blank; one more than `most` if there are more.
cdef Py_ssize_t count_lines(const char* cursor, const char* end, Py_ssize_t most) noexcept


cdef class LineJob:
    """What the line asks for that was read last."""
    # The id as JSON; None without one, and where it is none.
    cdef readonly bytes id
    # Why the line is no job, in words; None where it is one.
    cdef readonly str fault
    # As UTF-8: any bytes that can be.
    cdef readonly bytes function
    # That of the last line as an object, which is the same one for the next line if that names the same.
    cdef bytes last_function
    cdef readonly bytes workload
    # None without one.
    cdef readonly bytes unique
    # A Priority of gateway/job_request.
    cdef readonly int priority
    cdef readonly bint background
    # Seconds above 0; 0 where the line tells none.
    cdef readonly double timeout_s

    # Read a line of at least one byte. Whatever it holds, nothing is raised but for want of memory.
    cdef int read_line(self, const char* line, Py_ssize_t size) except -1
    cdef int _forget(self) except -1
    cdef bint _read_plain(self, const char* cursor, const char* end) except -1
    cdef bint _take_text(self, int name, const char* text, Py_ssize_t size) except -1
    cdef bint _take_priority(self, const char* text, Py_ssize_t size) noexcept
    cdef str _read_members(self, dict members)
    cdef str _read_id(self, object value)


# A text of an answer's head; NULL for one that is not there.
cdef struct HeadText:
    const char* start
    Py_ssize_t size


# What the X-Gearman- lines of an answer's head say, and its Retry-After, -1 without one.
cdef struct AnswerHead:
    HeadText command
    HeadText handle
    HeadText unique
    long long retry_after_s

cdef int read_answer_head(const char* lines, Py_ssize_t size, AnswerHead* head) except -1

# What is said of a problem: its body as any request is answered (http/response), without `instance`, and with this Retry-After, -1
# for none. None if it is none.
cdef bytes problem_json(bytes body, long long retry_after_s)


cdef class AnswerLines:
    """Lines of answers that are gathered, in memory that grows."""
    cdef char* start
    cdef Py_ssize_t size
    cdef Py_ssize_t room

    # Write a line up to its body; id: as JSON, None for none.
    cdef int put_head(self, bytes id, long long number, int status, const AnswerHead* head) except -1
    # Then one of: a body, bytes or bytearray; and a problem as JSON.
    cdef int put_body(self, object body) except -1
    cdef int put_problem(self, bytes problem) except -1
    # The same of what encoded_body() has made of a body, and of what stands before and behind that.
    cdef int put_encoded(self, bytes encoded, bint is_text) except -1
    cdef int put_before_body(self, bint is_text) except -1
    cdef int put_behind_body(self, bint is_text) except -1
    cdef int clear(self) except -1
    cdef int _grow(self, Py_ssize_t more_bytes) except -1
    cdef int _put_text(self, const HeadText* text) except -1


# A body as it stands in a line: JSON of a string, with its quotes, if it is UTF-8, and else base64 without them.
cdef bytes encoded_body(object body, bint* is_text)

# The path that names the function.
cdef bytes path_of(bytes function)
