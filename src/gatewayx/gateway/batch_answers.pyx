"""The lines of a batch's answer, as they are written. Bytes in, values out.

They are written by hand: nearly all of what stands in one is known to be plain, and what is not goes through orjson.
"""

import binascii

cimport cython
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdlib cimport free, realloc
from libc.string cimport memchr, memcmp

from gatewayx.core.digits cimport MAX_DIGITS, put, put_bytes, put_decimal
from gatewayx.gateway.batch_lines cimport after_plain

import orjson

cdef object read_json = orjson.loads
cdef object write_json = orjson.dumps

cdef enum:
    # The names, numbers and signs of a line's head, without its texts.
    MOST_HEAD_BYTES = 128
    # Behind a body or problem.
    MOST_END_BYTES = 16
    FIRST_ROOM_BYTES = 4096
    # A body of so many bytes is text if it is UTF-8, whatever it takes to write it.
    MOST_ESCAPED_BYTES = 16384


cdef inline bint is_plain(const char* text, Py_ssize_t size) noexcept:
    return after_plain(text, text + size) == text + size


cdef int read_answer_head(const char* lines, Py_ssize_t size, AnswerHead* head) except -1:
    """Each line ends with CRLF, and has its value behind a colon and a space, as all of ours."""
    cdef const char* end = lines + size
    cdef const char* line_end
    cdef const char* value
    cdef HeadText* text
    head.command.start = NULL
    head.handle.start = NULL
    head.unique.start = NULL
    head.retry_after_s = -1
    while lines < end:
        line_end = <const char*> memchr(lines, c"\n", end - lines)
        value = <const char*> memchr(lines, c":", end - lines)
        if line_end == NULL or value == NULL or value > line_end:
            raise ValueError("no header lines")
        text = NULL
        if value - lines == 20 and memcmp(lines, b"X-Gearman-Job-Handle", 20) == 0:
            text = &head.handle
        elif value - lines == 17 and memcmp(lines, b"X-Gearman-Command", 17) == 0:
            text = &head.command
        elif value - lines == 16 and memcmp(lines, b"X-Gearman-Unique", 16) == 0:
            text = &head.unique
        elif value - lines == 11 and memcmp(lines, b"Retry-After", 11) == 0:
            head.retry_after_s = int(value[2 : line_end - 1 - value])
        if text != NULL:
            text.start = value + 2
            text.size = line_end - 1 - text.start
        lines = line_end + 1
    return 0


cdef bytes problem_json(bytes body, long long retry_after_s):
    cdef object members
    try:
        members = read_json(body)
    except ValueError:
        return None
    if type(members) is not dict:
        return None
    # A line is told by its id and number, and the answer by its head.
    members.pop("instance", None)
    if retry_after_s >= 0:
        members["retry_after"] = retry_after_s
    return write_json(members)


cdef inline const char* _bytes_of(object body, Py_ssize_t* size):
    if isinstance(body, bytes):
        size[0] = PyBytes_GET_SIZE(body)
        return PyBytes_AS_STRING(body)
    size[0] = PyByteArray_GET_SIZE(body)
    return PyByteArray_AS_STRING(body)


cdef bytes encoded_body(object body, bint* is_text):
    cdef Py_ssize_t size
    cdef const char* start = _bytes_of(body, &size)
    if not _is_much_escaped(start, size):
        try:
            is_text[0] = True
            return write_json(PyUnicode_DecodeUTF8(start, size, NULL))
        except UnicodeDecodeError:
            pass
    is_text[0] = False
    return binascii.b2a_base64(body, newline=False)


cdef bint _is_much_escaped(const char* start, Py_ssize_t size) noexcept:
    """Whether it would take more than twice its bytes as a JSON string: no text does, and it would hold up the loop."""
    cdef long long more_bytes = 0
    cdef Py_ssize_t index
    cdef unsigned char byte
    if size <= MOST_ESCAPED_BYTES:
        return False
    for index in range(size):
        byte = start[index]
        if byte < 0x20:
            more_bytes += 1 if byte == c"\n" or byte == c"\r" or byte == c"\t" else 5
        else:
            more_bytes += byte == c'"' or byte == c"\\"
    return more_bytes > size


@cython.final
@cython.freelist(16)
cdef class AnswerLines:
    """Lines of answers that are gathered; the .pxd says what each method does."""

    def __dealloc__(self):
        free(self.start)

    cdef int clear(self) except -1:
        free(self.start)
        self.start = NULL
        self.size = 0
        self.room = 0
        return 0

    cdef int _grow(self, Py_ssize_t more_bytes) except -1:
        cdef Py_ssize_t room = max(2 * self.room, max(self.size + more_bytes, <Py_ssize_t> FIRST_ROOM_BYTES))
        cdef char* start = <char*> realloc(self.start, room)
        if start == NULL:
            raise MemoryError
        self.start = start
        self.room = room
        return 0

    cdef int put_head(self, bytes id, long long number, int status, const AnswerHead* head) except -1:
        cdef char* end
        cdef Py_ssize_t most_bytes = MOST_HEAD_BYTES + 2 * MAX_DIGITS + (0 if id is None else PyBytes_GET_SIZE(id))
        if self.room - self.size < most_bytes:
            self._grow(most_bytes)
        end = put(self.start + self.size, b'{"id":', 6)
        end = put(end, b"null", 4) if id is None else put_bytes(end, id)
        end = put_decimal(put(end, b',"line":', 8), number)
        end = put_decimal(put(end, b',"status":', 10), status)
        self.size = put(end, b',"command":', 11) - self.start
        self._put_text(&head.command)
        self.size = put(self.start + self.size, b',"handle":', 10) - self.start
        self._put_text(&head.handle)
        self.size = put(self.start + self.size, b',"unique":', 10) - self.start
        return self._put_text(&head.unique)

    cdef int _put_text(self, const HeadText* text) except -1:
        """Write a text of the head, and leave room for what follows it."""
        cdef bytes escaped = None
        cdef Py_ssize_t more_bytes = MOST_HEAD_BYTES
        cdef char* end
        if text.start == NULL:
            pass
        elif is_plain(text.start, text.size):
            more_bytes += text.size
        else:
            escaped = write_json(text.start[: text.size].decode("utf-8", "replace"))
            more_bytes += PyBytes_GET_SIZE(escaped)
        if self.room - self.size < more_bytes:
            self._grow(more_bytes)
        end = self.start + self.size
        if text.start == NULL:
            end = put(end, b"null", 4)
        elif escaped is None:
            end = put(put(put(end, b'"', 1), text.start, text.size), b'"', 1)
        else:
            end = put_bytes(end, escaped)
        self.size = end - self.start
        return 0

    cdef int put_body(self, object body) except -1:
        cdef Py_ssize_t size
        cdef const char* start = _bytes_of(body, &size)
        cdef bytes encoded
        cdef bint is_text = True
        cdef char* end
        if is_plain(start, size):
            if self.room - self.size < MOST_HEAD_BYTES + size:
                self._grow(MOST_HEAD_BYTES + size)
            end = put(put(self.start + self.size, b',"body":"', 9), start, size)
            self.size = put(end, b'"}\n', 3) - self.start
            return 0
        encoded = encoded_body(body, &is_text)
        return self.put_encoded(encoded, is_text)

    cdef int put_encoded(self, bytes encoded, bint is_text) except -1:
        self.put_before_body(is_text)
        if self.room - self.size < PyBytes_GET_SIZE(encoded):
            self._grow(PyBytes_GET_SIZE(encoded))
        self.size = put_bytes(self.start + self.size, encoded) - self.start
        return self.put_behind_body(is_text)

    cdef int put_before_body(self, bint is_text) except -1:
        if self.room - self.size < MOST_HEAD_BYTES:
            self._grow(MOST_HEAD_BYTES)
        if is_text:
            self.size = put(self.start + self.size, b',"body":', 8) - self.start
        else:
            self.size = put(self.start + self.size, b',"body_base64":"', 16) - self.start
        return 0

    cdef int put_behind_body(self, bint is_text) except -1:
        if self.room - self.size < MOST_END_BYTES:
            self._grow(MOST_END_BYTES)
        if is_text:
            self.size = put(self.start + self.size, b"}\n", 2) - self.start
        else:
            self.size = put(self.start + self.size, b'"}\n', 3) - self.start
        return 0

    cdef int put_problem(self, bytes problem) except -1:
        if self.room - self.size < MOST_HEAD_BYTES + PyBytes_GET_SIZE(problem):
            self._grow(MOST_HEAD_BYTES + PyBytes_GET_SIZE(problem))
        self.size = (
            put(put_bytes(put(self.start + self.size, b',"problem":', 11), problem), b"}\n", 2) - self.start
        )
        return 0


def answer_line(
    bytes id,
    long long number,
    int status,
    bytes headers=b"",
    object body=b"",
    bytes problem=None,
):
    """The line that answers another one, as the gateway writes it; see the .pyi."""
    cdef AnswerLines lines = AnswerLines()
    cdef AnswerHead head
    cdef bytes told
    read_answer_head(PyBytes_AS_STRING(headers), PyBytes_GET_SIZE(headers), &head)
    lines.put_head(id, number, status, &head)
    if problem is None:
        lines.put_body(body)
    else:
        told = problem_json(problem, head.retry_after_s)
        if told is None:
            raise ValueError("no problem")
        lines.put_problem(told)
    return lines.start[: lines.size]
