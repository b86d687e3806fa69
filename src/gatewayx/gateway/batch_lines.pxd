"""The lines of a batch: what each asks for. Bytes in, values out."""

cdef enum:
    # A longer line is not parsed: that would hold up everybody else's.
    MOST_LINE_BYTES = 1048576
    # Of a line's id as UTF-8. It is kept until the line's answer.
    MOST_ID_BYTES = 1024
    # Values of a line, nested ones included. What has more is not read, since each would be an object; a job has eight at most.
    MOST_PARTS = 256


# The first byte that does not stand for itself in a JSON string, or is not ASCII; `end` if each does.
cdef const char* after_plain(const char* text, const char* end) noexcept
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


# The path that names the function.
cdef bytes path_of(bytes function)
