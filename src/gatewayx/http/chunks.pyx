"""Chunked bodies (RFC 9112 7.1). No I/O: bytes in, the data of the chunks out.

They are read here, without llhttp: through httptools every chunk costs Python calls and objects, which a client who
sends one byte a chunk gets for six bytes each. Extensions and trailers are checked, counted and dropped.

A line is refused for what stands first in it, however it is cut into pieces.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memchr

from gatewayx.core.grammar cimport HEX_VALUE, IS_FIELD_VALUE, after_blanks, after_token, is_name
from gatewayx.http.limits cimport Limits

from gatewayx.http.problems import MALFORMED_REQUEST, RequestError

cdef enum:
    # The digits of a chunk's size that fit its type.
    MAX_SIZE_DIGITS = 15
    # What is wrong in an unfinished size line up to here is refused at once.
    PROMPTLY_CHECKED_BYTES = 256


@cython.final
cdef class ChunkedBody:
    """One chunked body. limits: what its chunks, extensions and trailers may take. is_endless: but for the chunks' data."""

    def __init__(self, Limits limits not None, bint is_endless=False):
        self.limits = limits
        self.is_endless = is_endless
        self.state = SIZE_LINE

    def feed(self, bytes data, Py_ssize_t offset):
        """read() for Python, from the offset on: returns the offset of the first unused byte, and the piece of data.

        The piece is empty where more bytes are needed, or the body is complete.
        """
        offset += self.read(PyBytes_AS_STRING(data) + offset, PyBytes_GET_SIZE(data) - offset)
        return offset, PyBytes_FromStringAndSize(self.piece, self.piece_bytes)

    cdef Py_ssize_t read(self, const char* data, Py_ssize_t size) except -1:
        cdef const char* end = data + size
        cdef const char* cursor = data
        cdef const char* newline
        self.piece_bytes = 0
        while cursor < end:
            if self.state == CHUNK_DATA:
                self.piece = cursor
                self.piece_bytes = min(end - cursor, <Py_ssize_t> self.remaining_bytes)
                self.remaining_bytes -= self.piece_bytes
                if self.remaining_bytes == 0:
                    self.state = CHUNK_END
                return cursor + self.piece_bytes - data
            if self.state == CHUNK_END:
                if cursor[0] != c"\r" or (end - cursor > 1 and cursor[1] != c"\n"):
                    raise RequestError(MALFORMED_REQUEST, "a chunk does not end with CRLF where its size says")
                if end - cursor < 2:
                    break
                cursor += 2
                self.state = SIZE_LINE
                continue
            newline = <const char*> memchr(cursor, c"\n", end - cursor)
            if self.state == SIZE_LINE:
                self._size_line(cursor, end if newline == NULL else newline + 1, newline != NULL)
            elif self._trailer_line(cursor, end if newline == NULL else newline + 1, newline != NULL):
                self.complete = True
                return newline + 1 - data
            if newline == NULL:
                break
            cursor = newline + 1
        return cursor - data

    cdef int _size_line(self, const char* line, const char* end, bint complete) except -1:
        """chunk-size [ chunk-ext ] CRLF, to its LF if it is complete; refused where no further byte can make it valid."""
        cdef Py_ssize_t line_bytes = end - line
        cdef Py_ssize_t left_bytes = self.limits.max_chunk_extensions_bytes - self.extension_bytes
        cdef Py_ssize_t extension_bytes
        cdef const char* digits = line
        cdef const char* cursor
        cdef const char* last = end
        cdef bint ends_well = True
        cdef long long size_bytes = 0
        if not complete and line_bytes < self.next_check_bytes:
            return 0
        self.next_check_bytes = 0
        while digits < end and digits[0] == c"0":
            digits += 1
        # A row of zeros is no extension, but as cheap to send.
        extension_bytes = max(0, digits - line - MAX_SIZE_DIGITS)
        if extension_bytes > left_bytes:
            raise self.limits.chunk_extensions_too_large()
        cursor = digits
        while cursor < end and HEX_VALUE[<unsigned char> cursor[0]] >= 0:
            if cursor - digits == MAX_SIZE_DIGITS:
                raise RequestError(MALFORMED_REQUEST, "a chunk's size is malformed")
            size_bytes = size_bytes * 16 + HEX_VALUE[<unsigned char> cursor[0]]
            cursor += 1
        if cursor == line and cursor < end:
            raise RequestError(MALFORMED_REQUEST, "a chunk's size is malformed")
        if complete:
            last = end - 1
            ends_well = last > line and (last - 1)[0] == c"\r"
        if ends_well and last > line and (last - 1)[0] == c"\r":
            last -= 1
        extension_bytes += last - cursor
        if extension_bytes > left_bytes:
            if not _is_extension(cursor, last - (extension_bytes - left_bytes), False):
                raise RequestError(MALFORMED_REQUEST, "a chunk's size or extension is malformed")
            raise self.limits.chunk_extensions_too_large()
        if not ends_well:
            raise RequestError(MALFORMED_REQUEST, "a chunk's size does not end with CRLF")
        # Behind a CR nothing but the LF may come.
        if not _is_extension(cursor, last, complete or last < end):
            raise RequestError(MALFORMED_REQUEST, "a chunk's size or extension is malformed")
        if not complete:
            if line_bytes > PROMPTLY_CHECKED_BYTES:
                # A long line that comes byte by byte is not walked for each of them, unless it is too long by now.
                self.next_check_bytes = min(line_bytes + line_bytes // 2, left_bytes + MAX_SIZE_DIGITS + 2)
            return 0
        self.extension_bytes += extension_bytes
        self.body_bytes += size_bytes
        if self.body_bytes > self.limits.max_body_bytes and not self.is_endless:
            raise self.limits.body_too_large()
        self.remaining_bytes = size_bytes
        self.state = CHUNK_DATA if size_bytes else TRAILER_LINES
        return 0

    cdef bint _trailer_line(self, const char* line, const char* end, bint complete) except -1:
        """A trailer, which is counted, checked and dropped; returns whether it is the empty line at the end.

        RFC 9110 6.5.1: none that is needed for framing may be sent as a trailer.
        """
        cdef const char* cursor = line
        # The empty line at the end does not count, nor does what may become it.
        if end - line <= 2 and line[0] == c"\r":
            return complete
        if (
            self.trailer_bytes + (end - line) > self.limits.max_header_bytes
            or self.trailer_lines >= self.limits.max_headers
        ):
            raise self.limits.headers_too_large()
        if not complete:
            return False
        self.trailer_bytes += end - line
        self.trailer_lines += 1
        end -= 2
        if end < line or end[0] != c"\r":
            raise RequestError(MALFORMED_REQUEST, "a trailer does not end with CRLF")
        cursor = after_token(cursor, end)
        if cursor == line or cursor == end or cursor[0] != c":":
            raise RequestError(MALFORMED_REQUEST, "a trailer is not a name, a colon and a value")
        if is_name(line, cursor, b"content-length", 14) or is_name(line, cursor, b"transfer-encoding", 17):
            raise RequestError(MALFORMED_REQUEST, "a trailer says how the message is framed")
        cursor += 1
        while cursor < end:
            if not IS_FIELD_VALUE[<unsigned char> cursor[0]]:
                raise RequestError(MALFORMED_REQUEST, "a trailer holds a control byte")
            cursor += 1
        return False


cdef bint _is_extension(const char* cursor, const char* end, bint complete) noexcept:
    """Whether the text is a chunk-ext, or if it is not complete whether it may become one.

    RFC 9112 7.1.1: *( BWS ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ] ). So blanks stand around ";" and "=",
    and nowhere else: not before the end of the line.
    """
    cdef const char* word
    while cursor < end:
        cursor = after_blanks(cursor, end)
        if cursor == end:
            return not complete
        if cursor[0] != c";":
            return False
        cursor = after_blanks(cursor + 1, end)
        word = cursor
        cursor = after_token(cursor, end)
        if cursor == end and not complete:
            return True
        if cursor == word:
            return False
        word = after_blanks(cursor, end)
        if word == end or word[0] != c"=":
            continue
        cursor = after_blanks(word + 1, end)
        if cursor < end and cursor[0] == c'"':
            cursor += 1
            while cursor < end and cursor[0] != c'"':
                if cursor[0] == c"\\":
                    cursor += 1
                    if cursor == end:
                        break
                if not IS_FIELD_VALUE[<unsigned char> cursor[0]]:
                    return False
                cursor += 1
            if cursor == end:
                return not complete
            cursor += 1
            continue
        word = cursor
        cursor = after_token(cursor, end)
        if cursor == word:
            return cursor == end and not complete
    return True
