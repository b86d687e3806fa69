"""The lines of a batch: what each asks for, and how each is answered. Bytes in, values out.

A batch is NDJSON, a JSON object a line (github.com/ndjson/ndjson-spec). Lines end with a line feed, before which a carriage return is
white space as any is in JSON (RFC 8259 2); the last one may end with the body. Blank lines are passed over, and counted.

The answers are written by hand: nearly all of what stands in one is known to be plain, and what is not goes through orjson.
"""

import binascii

cimport cython
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8String, PyUnicode_DecodeUTF8
from libc.stdlib cimport free, realloc
from libc.string cimport memchr, memcmp

from gatewayx.core.digits cimport MAX_DIGITS, put, put_bytes, put_decimal
from gatewayx.gateway.job_request cimport HIGH, LOW, NORMAL

import orjson

# MOST_LINE_BYTES and MOST_ID_BYTES, for Python.
globals().update(MOST_LINE_BYTES=<int> MOST_LINE_BYTES, MOST_ID_BYTES=<int> MOST_ID_BYTES)

cdef object read_json = orjson.loads
cdef object write_json = orjson.dumps

cdef enum:
    # The names, numbers and signs of a line's head, without its texts.
    MOST_HEAD_BYTES = 128
    # Behind a body or problem.
    MOST_END_BYTES = 16
    FIRST_ROOM_BYTES = 4096
    # Of a member's name that is not known, in words for its client.
    MOST_TOLD_CHARACTERS = 40

    # The members of a line, as bits.
    ID = 1
    FUNCTION = 2
    WORKLOAD = 4
    WORKLOAD_BASE64 = 8
    UNIQUE = 16
    PRIORITY = 32
    BACKGROUND = 64
    TIMEOUT = 128

cdef dict MEMBERS = {
    "id": ID,
    "function": FUNCTION,
    "workload": WORKLOAD,
    "workload_base64": WORKLOAD_BASE64,
    "unique": UNIQUE,
    "priority": PRIORITY,
    "background": BACKGROUND,
    "timeout": TIMEOUT,
}
cdef dict PRIORITIES = {"low": LOW, "normal": NORMAL, "high": HIGH}

cdef str TOO_LONG = f"the line is longer than {<int> MOST_LINE_BYTES} bytes"
cdef str NO_OBJECT = "the line is no JSON object"

# By byte: what a letter of base64 stands for (RFC 4648 4), -1 for none.
cdef signed char[256] BASE64_VALUE
# By byte: whether it stands for itself in a JSON string (RFC 8259 7), of the ASCII ones; and in a path, where a function has it.
cdef bint[256] IS_PLAIN
cdef bint[256] IS_PATH


cdef void _fill_tables() noexcept:
    cdef const char* letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    cdef const char* unreserved = b"-._~/:"
    cdef int byte
    for byte in range(256):
        BASE64_VALUE[byte] = -1
        IS_PLAIN[byte] = 0x20 <= byte < 0x7F and byte != c'"' and byte != c"\\"
    for byte in range(64):
        BASE64_VALUE[<unsigned char> letters[byte]] = byte
        IS_PATH[<unsigned char> letters[byte]] = letters[byte] != c"+"
    for byte in range(6):
        IS_PATH[<unsigned char> unreserved[byte]] = True


_fill_tables()


# Lines.

cdef inline bint _is_blank(char byte) noexcept:
    return byte == c" " or byte == c"\t" or byte == c"\r"


cdef const char* next_line(
    const char* cursor, const char* end, const char** start, Py_ssize_t* size, long long* number
) noexcept:
    cdef const char* line_end
    number[0] += 1
    while cursor < end and (_is_blank(cursor[0]) or cursor[0] == c"\n"):
        number[0] += cursor[0] == c"\n"
        cursor += 1
    start[0] = cursor
    size[0] = 0
    if cursor == end:
        return end
    line_end = <const char*> memchr(cursor, c"\n", end - cursor)
    cursor = end if line_end == NULL else line_end + 1
    if line_end == NULL:
        line_end = end
    while _is_blank((line_end - 1)[0]):
        line_end -= 1
    size[0] = line_end - start[0]
    return cursor


cdef Py_ssize_t count_lines(const char* cursor, const char* end, Py_ssize_t most) noexcept:
    cdef const char* start
    cdef Py_ssize_t size
    cdef long long number = 0
    cdef Py_ssize_t count = 0
    while cursor < end and count <= most:
        cursor = next_line(cursor, end, &start, &size, &number)
        count += size > 0
    return count


def lines_of(bytes body not None):
    """All lines of a body that are not blank, each with its number, from 1 on and blank ones counted."""
    cdef const char* cursor = PyBytes_AS_STRING(body)
    cdef const char* end = cursor + PyBytes_GET_SIZE(body)
    cdef const char* start
    cdef Py_ssize_t size
    cdef long long number = 0
    cdef list found = []
    while cursor < end:
        cursor = next_line(cursor, end, &start, &size, &number)
        if size:
            found.append((number, start[:size]))
    return found


# What a line asks for.

cdef bytes _base64_decoded(bytes text):
    """RFC 4648 4, padding included and nothing beside; None if it is none. binascii is strict from Python 3.11 on."""
    cdef const unsigned char* cursor = <const unsigned char*> PyBytes_AS_STRING(text)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(text)
    cdef const unsigned char* end = cursor + size
    cdef int missing = 0
    cdef bytes decoded
    cdef char* out
    cdef int bits, value
    if size % 4:
        return None
    while missing < 2 and end > cursor and (end - 1)[0] == c"=":
        end -= 1
        missing += 1
    decoded = PyBytes_FromStringAndSize(NULL, size // 4 * 3 - missing)
    out = PyBytes_AS_STRING(decoded)
    bits = 0
    # How many letters there were of the group of four.
    value = 0
    while cursor < end:
        if BASE64_VALUE[cursor[0]] < 0:
            return None
        bits = (bits << 6 | BASE64_VALUE[cursor[0]]) & 0xFFFFFF
        cursor += 1
        value += 1
        if value == 4:
            out[0] = <char> (bits >> 16)
            out[1] = <char> (bits >> 8)
            out[2] = <char> bits
            out += 3
            value = 0
    if value == 3:
        out[0] = <char> (bits >> 10)
        out[1] = <char> (bits >> 2)
    elif value == 2:
        out[0] = <char> (bits >> 4)
    return decoded


@cython.final
cdef class LineJob:
    """What the line asks for that was read last; the .pxd says what each field means."""

    def read(self, bytes line not None):
        """Read a line of at least one byte; `fault` says whether it is a job."""
        self.read_line(PyBytes_AS_STRING(line), PyBytes_GET_SIZE(line))

    cdef int read_line(self, const char* line, Py_ssize_t size) except -1:
        cdef object members
        self.id = None
        self.function = None
        self.workload = None
        self.unique = None
        self.priority = NORMAL
        self.background = False
        self.timeout_s = 0
        if size > MOST_LINE_BYTES:
            self.fault = TOO_LONG
            return 0
        try:
            members = read_json(PyBytes_FromStringAndSize(line, size))
        except ValueError:
            members = None
        if type(members) is not dict:
            self.fault = NO_OBJECT
            return 0
        self.fault = self._read_members(<dict> members)
        return 0

    cdef str _read_members(self, dict members):
        """Why the members are no job; None if they are one. An id that is one is found whatever else is wrong."""
        cdef int name
        cdef int seen = 0
        cdef str fault = None
        for text, value in members.items():
            name = <int> MEMBERS.get(text, 0)
            if name == 0:
                fault = f"the line has a member that is not known: {text[:MOST_TOLD_CHARACTERS]!a}"
                continue
            if value is None:
                continue
            seen |= name
            if name == FUNCTION:
                if type(value) is str:
                    self.function = <str> value
                else:
                    fault = "function is no string"
            elif name == WORKLOAD:
                if type(value) is str:
                    self.workload = PyUnicode_AsUTF8String(value)
                else:
                    fault = "workload is no string"
            elif name == ID:
                fault = self._read_id(value) or fault
            elif name == WORKLOAD_BASE64:
                self.workload = _base64_decoded(PyUnicode_AsUTF8String(value)) if type(value) is str else None
                if self.workload is None:
                    fault = "workload_base64 is no base64 with its padding (RFC 4648 4)"
            elif name == UNIQUE:
                if type(value) is str:
                    self.unique = PyUnicode_AsUTF8String(value)
                else:
                    fault = "unique is no string"
            elif name == BACKGROUND:
                if type(value) is bool:
                    self.background = value
                else:
                    fault = "background is neither true nor false"
            elif name == PRIORITY:
                priority = PRIORITIES.get(value) if type(value) is str else None
                if priority is None:
                    fault = "priority is none of 'low', 'normal' and 'high'"
                else:
                    self.priority = priority
            else:
                if type(value) is int or type(value) is float:
                    self.timeout_s = value
                if not self.timeout_s > 0:
                    fault = "timeout is no number of seconds above 0"
        if fault is not None:
            return fault
        if self.function is None:
            return "the line names no function"
        if self.workload is None:
            return "the line has neither workload nor workload_base64"
        if seen & (WORKLOAD | WORKLOAD_BASE64) == WORKLOAD | WORKLOAD_BASE64:
            return "the line has both workload and workload_base64"
        return None

    cdef str _read_id(self, object value):
        cdef bytes text
        if type(value) is not str and type(value) is not int:
            return "id is neither a string nor an integer of 64 bits"
        text = write_json(value)
        if PyBytes_GET_SIZE(text) > MOST_ID_BYTES and len(PyUnicode_AsUTF8String(value)) > MOST_ID_BYTES:
            return f"id is longer than {<int> MOST_ID_BYTES} bytes"
        self.id = text
        return None


# Answers.

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


cdef inline bint _is_plain(const char* text, Py_ssize_t size) noexcept:
    """Whether it is short, and stands for itself in a JSON string."""
    cdef Py_ssize_t index
    if size > MOST_PLAIN_BYTES:
        return False
    for index in range(size):
        if not IS_PLAIN[<unsigned char> text[index]]:
            return False
    return True


cdef inline const char* _bytes_of(object body, Py_ssize_t* size):
    if isinstance(body, bytes):
        size[0] = PyBytes_GET_SIZE(body)
        return PyBytes_AS_STRING(body)
    size[0] = PyByteArray_GET_SIZE(body)
    return PyByteArray_AS_STRING(body)


cdef bytes encoded_body(object body, bint* is_text):
    cdef Py_ssize_t size
    cdef const char* start = _bytes_of(body, &size)
    try:
        is_text[0] = True
        return write_json(PyUnicode_DecodeUTF8(start, size, NULL))
    except UnicodeDecodeError:
        is_text[0] = False
        return binascii.b2a_base64(body, newline=False)


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
        elif _is_plain(text.start, text.size):
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
        if _is_plain(start, size):
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


# Functions.

cdef bytes path_of(bytes function):
    """RFC 3986 3.3, with the colon as it is and all else that is not unreserved percent-encoded."""
    cdef const unsigned char* cursor = <const unsigned char*> PyBytes_AS_STRING(function)
    cdef const unsigned char* end = cursor + PyBytes_GET_SIZE(function)
    cdef bytes path = PyBytes_FromStringAndSize(NULL, 1 + 3 * PyBytes_GET_SIZE(function))
    cdef char* start = PyBytes_AS_STRING(path)
    cdef char* out = start + 1
    start[0] = c"/"
    while cursor < end:
        if IS_PATH[cursor[0]]:
            out[0] = cursor[0]
            out += 1
        else:
            out[0] = c"%"
            out[1] = b"0123456789ABCDEF"[cursor[0] >> 4]
            out[2] = b"0123456789ABCDEF"[cursor[0] & 15]
            out += 3
        cursor += 1
    return PyBytes_FromStringAndSize(start, out - start)


def path_of_function(bytes function not None):
    """The path that names the function, percent-encoded."""
    return path_of(function)
