"""The lines of a batch: what each asks for. Bytes in, values out.

A batch is NDJSON, a JSON object a line (github.com/ndjson/ndjson-spec). Lines end with a line feed, before which a carriage return is
white space as any is in JSON (RFC 8259 2); the last one may end with the body. Blank lines are passed over, and counted.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8String
from libc.stdint cimport uint64_t
from libc.string cimport memchr, memcmp, memcpy

from gatewayx.gateway.job_request cimport HIGH, LOW, NORMAL

import orjson

# MOST_LINE_BYTES and MOST_ID_BYTES, for Python.
globals().update(MOST_LINE_BYTES=<int> MOST_LINE_BYTES, MOST_ID_BYTES=<int> MOST_ID_BYTES, MOST_PARTS=<int> MOST_PARTS)

cdef object read_json = orjson.loads
cdef object write_json = orjson.dumps

cdef enum:
    # Of a member's name that is not known, in words for its client.
    MOST_TOLD_CHARACTERS = 40
    # An integer with more is read by orjson, which knows which it can.
    MOST_PLAIN_DIGITS = 18

    # The members of a line, as bits.
    ID = 1
    FUNCTION = 2
    WORKLOAD = 4
    WORKLOAD_BASE64 = 8
    UNIQUE = 16
    PRIORITY = 32
    BACKGROUND = 64
    TIMEOUT = 128
    BOTH_WORKLOADS = 12

cdef str TOO_LONG = f"the line is longer than {<int> MOST_LINE_BYTES} bytes"
cdef str NO_OBJECT = "the line is no JSON object"
cdef str TOO_MANY_PARTS = f"the line has more than {<int> MOST_PARTS} values"

# By byte: what a letter of base64 stands for (RFC 4648 4), -1 for none.
cdef signed char[256] BASE64_VALUE
# By byte: whether it stands for itself in a path, where a function has it.
cdef bint[256] IS_PATH


cdef void _fill_tables() noexcept:
    cdef const char* letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    cdef const char* unreserved = b"-._~/:"
    cdef int byte
    for byte in range(256):
        BASE64_VALUE[byte] = -1
    for byte in range(64):
        BASE64_VALUE[<unsigned char> letters[byte]] = byte
        IS_PATH[<unsigned char> letters[byte]] = letters[byte] != c"+"
    for byte in range(6):
        IS_PATH[<unsigned char> unreserved[byte]] = True


_fill_tables()


# Texts.

cdef const char* after_plain(const char* text, const char* end) noexcept:
    """The first byte that does not stand for itself in a JSON string (RFC 8259 7), or is not ASCII; `end` if each does.

    Eight bytes at a time: of those below 0x20, of the quote and of the backslash the high bit is set by what is subtracted, of
    others only behind such a one.
    """
    # A one in each byte.
    cdef uint64_t ones = <uint64_t> 0x0101010101010101
    cdef uint64_t word
    while end - text >= 8:
        memcpy(&word, text, 8)
        if (
            word
            | (word - ones * 0x20)
            | ((word ^ ones * c'"') - ones)
            | ((word ^ ones * c"\\") - ones)
        ) & (ones << 7):
            break
        text += 8
    while text < end and 0x20 <= text[0] and text[0] != c'"' and text[0] != c"\\":
        text += 1
    return text


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

cdef inline const char* _after_blanks(const char* cursor, const char* end) noexcept:
    """Behind white space; there is no line feed in a line."""
    while cursor < end and _is_blank(cursor[0]):
        cursor += 1
    return cursor


cdef inline bint _is(const char* text, const char* word, Py_ssize_t word_bytes) noexcept:
    return memcmp(text, word, word_bytes) == 0


cdef int _member(const char* text, Py_ssize_t size) noexcept:
    """The member of this name, as a bit; 0 for one that is not known."""
    if size == 8:
        if _is(text, b"function", 8):
            return FUNCTION
        if _is(text, b"workload", 8):
            return WORKLOAD
        return PRIORITY if _is(text, b"priority", 8) else 0
    if size == 2:
        return ID if _is(text, b"id", 2) else 0
    if size == 10:
        return BACKGROUND if _is(text, b"background", 10) else 0
    if size == 6:
        return UNIQUE if _is(text, b"unique", 6) else 0
    if size == 7:
        return TIMEOUT if _is(text, b"timeout", 7) else 0
    return WORKLOAD_BASE64 if size == 15 and _is(text, b"workload_base64", 15) else 0


cdef bytes _base64_decoded(const char* text, Py_ssize_t size):
    """RFC 4648 4, padding included and nothing beside; None if it is none. binascii is strict from Python 3.11 on."""
    cdef const unsigned char* cursor = <const unsigned char*> text
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


cdef bint _has_many_parts(const char* cursor, const char* end) noexcept:
    """Whether what may be JSON has more values than any line needs. What begins one is a comma, or the bracket of what holds it."""
    cdef int parts = 0
    cdef bint in_string = False
    while cursor < end and parts <= MOST_PARTS:
        if cursor[0] == c'"':
            in_string = not in_string
        elif in_string:
            # An escaped quote ends no string.
            cursor += cursor[0] == c"\\"
        else:
            parts += cursor[0] == c"," or cursor[0] == c"[" or cursor[0] == c"{"
        cursor += 1
    return parts > MOST_PARTS


@cython.final
cdef class LineJob:
    """What the line asks for that was read last; the .pxd says what each field means."""

    def read(self, bytes line not None):
        """Read a line of at least one byte; `fault` says whether it is a job."""
        self.read_line(PyBytes_AS_STRING(line), PyBytes_GET_SIZE(line))

    cdef int read_line(self, const char* line, Py_ssize_t size) except -1:
        cdef object members
        if size > MOST_LINE_BYTES:
            self._forget()
            self.fault = TOO_LONG
            return 0
        self.fault = None
        if self._read_plain(line, line + size):
            return 0
        self._forget()
        if _has_many_parts(line, line + size):
            self.fault = TOO_MANY_PARTS
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

    cdef int _forget(self) except -1:
        self.id = None
        self.function = None
        self.workload = None
        self.unique = None
        self.priority = NORMAL
        self.background = False
        self.timeout_s = 0
        return 0

    cdef bint _read_plain(self, const char* cursor, const char* end) except -1:
        """Read a line as nearly all are, without an object for each part of it; False, with anything read, if it may be another one.

        It is one where each member is known and there once, a string of plain ASCII, an id that is an integer, or a boolean,
        and is what it has to be. What else JSON may hold, and what is wrong with it, is for orjson to tell.
        """
        cdef const char* text
        cdef const char* text_end
        cdef int name
        cdef int seen = 0
        self._forget()
        if cursor[0] != c"{":
            return False
        while True:
            cursor = _after_blanks(cursor + 1, end)
            if cursor == end or cursor[0] != c'"':
                return False
            text = cursor + 1
            text_end = after_plain(text, end)
            if text_end == end or text_end[0] != c'"':
                return False
            name = _member(text, text_end - text)
            if name == 0 or seen & name:
                return False
            seen |= name
            cursor = _after_blanks(text_end + 1, end)
            if cursor == end or cursor[0] != c":":
                return False
            cursor = _after_blanks(cursor + 1, end)
            if cursor == end:
                return False
            if cursor[0] == c'"':
                text = cursor + 1
                text_end = after_plain(text, end)
                if text_end == end or text_end[0] != c'"' or not self._take_text(name, text, text_end - text):
                    return False
                cursor = text_end + 1
            elif name == BACKGROUND:
                self.background = cursor[0] == c"t"
                text = b"true" if self.background else b"false"
                if end - cursor < 5 - self.background or memcmp(cursor, text, 5 - self.background) != 0:
                    return False
                cursor += 5 - self.background
            elif name == ID:
                text = cursor
                cursor += cursor[0] == c"-"
                text_end = cursor
                while cursor < end and c"0" <= cursor[0] <= c"9":
                    cursor += 1
                if not 0 < cursor - text_end <= MOST_PLAIN_DIGITS or text_end[0] == c"0":
                    return False
                self.id = PyBytes_FromStringAndSize(text, cursor - text)
            else:
                return False
            cursor = _after_blanks(cursor, end)
            if cursor == end:
                return False
            if cursor[0] != c",":
                break
        if cursor[0] != c"}" or cursor + 1 != end:
            return False
        return self.function is not None and self.workload is not None and seen & BOTH_WORKLOADS != BOTH_WORKLOADS

    cdef bint _take_text(self, int name, const char* text, Py_ssize_t size) except -1:
        """Read a member that is a string of plain ASCII; False if it is not what it has to be."""
        if name == WORKLOAD:
            self.workload = PyBytes_FromStringAndSize(text, size)
        elif name == FUNCTION:
            if self.last_function is None or (
                PyBytes_GET_SIZE(self.last_function) != size
                or memcmp(PyBytes_AS_STRING(self.last_function), text, size) != 0
            ):
                self.last_function = PyBytes_FromStringAndSize(text, size)
            self.function = self.last_function
        elif name == ID:
            if size > MOST_ID_BYTES:
                return False
            # With its quotes.
            self.id = PyBytes_FromStringAndSize(text - 1, size + 2)
        elif name == WORKLOAD_BASE64:
            self.workload = _base64_decoded(text, size)
            return self.workload is not None
        elif name == UNIQUE:
            self.unique = PyBytes_FromStringAndSize(text, size)
        elif name == PRIORITY:
            return self._take_priority(text, size)
        else:
            return False
        return True

    cdef bint _take_priority(self, const char* text, Py_ssize_t size) noexcept:
        if size == 3 and memcmp(text, b"low", 3) == 0:
            self.priority = LOW
        elif size == 4 and memcmp(text, b"high", 4) == 0:
            self.priority = HIGH
        else:
            return size == 6 and memcmp(text, b"normal", 6) == 0
        return True

    cdef str _read_members(self, dict members):
        """Why the members are no job; None if they are one. An id that is one is found whatever else is wrong."""
        cdef int name
        cdef int seen = 0
        cdef bytes encoded
        cdef str fault = None
        for text, value in members.items():
            encoded = PyUnicode_AsUTF8String(text)
            name = _member(PyBytes_AS_STRING(encoded), PyBytes_GET_SIZE(encoded))
            if name == 0:
                fault = f"the line has a member that is not known: {text[:MOST_TOLD_CHARACTERS]!a}"
                continue
            if value is None:
                continue
            seen |= name
            if name == FUNCTION:
                if type(value) is str:
                    self.function = PyUnicode_AsUTF8String(value)
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
                self.workload = None
                if type(value) is str:
                    encoded = PyUnicode_AsUTF8String(value)
                    self.workload = _base64_decoded(PyBytes_AS_STRING(encoded), PyBytes_GET_SIZE(encoded))
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
                encoded = PyUnicode_AsUTF8String(value) if type(value) is str else b""
                if not self._take_priority(PyBytes_AS_STRING(encoded), PyBytes_GET_SIZE(encoded)):
                    fault = "priority is none of 'low', 'normal' and 'high'"
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
        if seen & BOTH_WORKLOADS == BOTH_WORKLOADS:
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
