"""The lines of a batch's answer, as they are written. Bytes in, values out."""

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


# A body as it stands in a line: JSON of a string, with its quotes, if it is UTF-8, and else base64 without them. What is large and would
# take more than twice its bytes as a string, as binary data that happens to be UTF-8, is base64 as well.
cdef bytes encoded_body(object body, bint* is_text)
