"""Reads the answers on one connection. No I/O: bytes in, what they mean out.

It reads what a load generator must know, strictly: the status, how long the body is (RFC 9112 6.3), whether the
connection lives. An answer that several readers could understand differently is bad.
"""

from libc.string cimport memchr, memcmp
from posix.strings cimport strncasecmp

cimport cython

from gatewayx.core.grammar cimport decimal, is_only_name, lists_name

cdef extern from "string.h" nogil:
    void* memmem(const void* haystack, size_t haystack_bytes, const void* needle, size_t needle_bytes)

cdef long long MAX_BODY_BYTES = 1 << 40


@cython.final
cdef class ResponseReader:
    """The answers on one connection, one after the other.

    `read` is called again with what it left, `data + consumed`, until it says NEED_MORE or BAD. A head that comes in
    pieces is held, up to MAX_HEAD_BYTES.
    """

    def __init__(self, bint to_head=False):
        self.to_head = to_head
        self.held = bytearray()
        self.reset()

    cdef void reset(self) noexcept:
        """Begin anew, on a new connection."""
        self.state = IN_HEAD
        self.status = 0
        self.keep_alive = True
        self.body_total_bytes = 0
        self.problem = None
        self.left_bytes = 0
        self.held.clear()

    cdef bint begun(self) noexcept:
        """Part of an answer has come."""
        return self.state != IN_HEAD or len(self.held) > 0

    cdef bint ended(self) noexcept:
        """The connection has ended: whether that completes the answer."""
        return self.state == UNTIL_CLOSE

    cdef ReadEvent read(self, const char* data, Py_ssize_t size):
        cdef Py_ssize_t taken
        self.consumed = 0
        if self.state == IN_SIZED_BODY and self.left_bytes == 0:
            return self._complete()
        if size == 0:
            return NEED_MORE
        if self.state == IN_HEAD:
            return self._head(data, size)
        if self.state == IN_SIZED_BODY or self.state == IN_CHUNK:
            taken = <Py_ssize_t> min(self.left_bytes, <long long> size)
            self.left_bytes -= taken
            self.body = data
            self.body_bytes = taken
            self.body_total_bytes += taken
            self.consumed = taken
            if self.left_bytes == 0 and self.state == IN_CHUNK:
                self.state = AFTER_CHUNK
            return BODY
        if self.state == UNTIL_CLOSE:
            self.body = data
            self.body_bytes = size
            self.body_total_bytes += size
            self.consumed = size
            return BODY
        if self.state == FAILED:
            return BAD
        return self._chunk_line(data, size)

    cdef ReadEvent _fail(self, str problem):
        self.state = FAILED
        self.problem = problem
        return BAD

    cdef ReadEvent _complete(self) noexcept:
        self.state = IN_HEAD
        return COMPLETE

    cdef ReadEvent _head(self, const char* data, Py_ssize_t size):
        cdef const char* end
        cdef Py_ssize_t used, held = len(self.held)
        cdef Py_ssize_t before
        if held == 0:
            end = <const char*> memmem(data, size, b"\r\n\r\n", 4)
            if end != NULL:
                if end - data + 4 > MAX_HEAD_BYTES:
                    return self._fail("a head or line that does not end")
                self.consumed = end - data + 4
                return self._body_of(data, end - data + 2)
            return self._hold(data, size)
        # The empty line may have begun in what is held.
        before = min(held, 3)
        self.held += data[:size]
        end = <const char*> memmem(<const char*> self.held + held - before, before + size, b"\r\n\r\n", 4)
        if end == NULL:
            del self.held[held:]
            return self._hold(data, size)
        used = end - <const char*> self.held + 4
        if used > MAX_HEAD_BYTES:
            return self._fail("a head or line that does not end")
        self.consumed = used - held
        head = bytes(self.held[:used - 2])
        self.held.clear()
        return self._body_of(<const char*> head, used - 2)

    cdef ReadEvent _hold(self, const char* data, Py_ssize_t size):
        if len(self.held) + size > MAX_HEAD_BYTES:
            return self._fail("a head or line that does not end")
        self.held += data[:size]
        self.consumed = size
        return NEED_MORE

    cdef ReadEvent _body_of(self, const char* head, Py_ssize_t size):
        """What follows the head, whose lines are `size` bytes."""
        if not self._parse_head(head, size):
            return BAD
        if self.status < 200:
            # RFC 9110 15.2: interim, the answer is yet to come. 101 was not asked for.
            if self.status == 101:
                return self._fail("101 without an Upgrade")
            self.state = IN_HEAD
            return NEED_MORE
        return self._complete() if self.state == IN_SIZED_BODY and self.left_bytes == 0 else NEED_MORE

    cdef bint _parse_head(self, const char* head, Py_ssize_t size) noexcept:
        cdef const char* line = head
        cdef const char* end = head + size
        cdef const char* line_end
        cdef const char* colon
        cdef Py_ssize_t length
        cdef long long content_bytes = -1
        cdef bint chunked = False, closes = False
        if (size < 14 or memcmp(head, b"HTTP/1.", 7) or not (head[7] == b"0" or head[7] == b"1") or head[8] != b" "
                or not (b"1" <= head[9] <= b"9") or not (b"0" <= head[10] <= b"9") or not (b"0" <= head[11] <= b"9")
                or not (head[12] == b" " or head[12] == b"\r")):
            self._fail("no status line of HTTP/1")
            return False
        self.status = (head[9] - 48) * 100 + (head[10] - 48) * 10 + head[11] - 48
        self.keep_alive = head[7] == b"1"
        self.body_total_bytes = 0
        line = <const char*> memchr(head, b"\n", size) + 1
        if (line - 2)[0] != b"\r":
            self._fail("a status line without CRLF")
            return False
        while line < end:
            line_end = <const char*> memchr(line, b"\n", end - line)
            if line_end == NULL or (line_end - 1)[0] != b"\r":
                self._fail("a header line without CRLF")
                return False
            length = line_end - line - 1
            colon = <const char*> memchr(line, b":", length)
            # RFC 9112 5.1 and 5.2: what others may take for the header that says how long the body is, or for more of it.
            if colon == NULL or colon == line or memchr(line, b" ", colon - line) or memchr(line, b"\t", colon - line):
                self._fail("a header line without a name")
                return False
            if line[0] == b"C" or line[0] == b"c":
                if length >= 15 and strncasecmp(line, b"Content-Length:", 15) == 0:
                    content_bytes = decimal(line + 15, line + length) if content_bytes < 0 else -1
                    if not 0 <= content_bytes <= MAX_BODY_BYTES:
                        self._fail("a Content-Length that is no length")
                        return False
                elif length > 11 and strncasecmp(line, b"Connection:", 11) == 0:
                    if lists_name(line + 11, line + length, b"close", 5):
                        closes = True
                    elif lists_name(line + 11, line + length, b"keep-alive", 10):
                        self.keep_alive = True
            elif (line[0] == b"T" or line[0] == b"t") and length >= 18 \
                    and strncasecmp(line, b"Transfer-Encoding:", 18) == 0:
                # Nothing else was asked for (RFC 9112 6.1), nor may it be twice or in HTTP/1.0.
                if chunked or head[7] == b"0" or not is_only_name(line + 18, line + length, b"chunked", 7):
                    self._fail("a Transfer-Encoding that is not chunked")
                    return False
                chunked = True
            line = line_end + 1
        # RFC 9112 9.3: close outweighs keep-alive.
        if closes:
            self.keep_alive = False
        if chunked and content_bytes >= 0:
            self._fail("both Content-Length and Transfer-Encoding")
            return False
        if self.to_head or self.status < 200 or self.status == 204 or self.status == 304:
            self.state = IN_SIZED_BODY
            self.left_bytes = 0
        elif chunked:
            self.state = IN_CHUNK_SIZE
        elif content_bytes >= 0:
            self.state = IN_SIZED_BODY
            self.left_bytes = content_bytes
        else:
            self.state = UNTIL_CLOSE
            self.keep_alive = False
        return True

    cdef ReadEvent _chunk_line(self, const char* data, Py_ssize_t size):
        """A line between chunks, or of the trailers."""
        cdef const char* end = <const char*> memchr(data, b"\n", size)
        cdef long long chunk_bytes
        cdef Py_ssize_t length
        if end == NULL:
            return self._hold(data, size)
        self.consumed = end - data + 1
        if len(self.held) + self.consumed > MAX_HEAD_BYTES:
            return self._fail("a head or line that does not end")
        line = bytes(self.held) + data[:self.consumed]
        self.held.clear()
        length = len(line)
        if length < 2 or line[length - 2] != 13:
            return self._fail("a line of a chunked body without CRLF")
        if self.state == AFTER_CHUNK:
            if length != 2:
                return self._fail("a chunk longer than its size")
            self.state = IN_CHUNK_SIZE
        elif self.state == IN_TRAILERS:
            if length == 2:
                return self._complete()
        else:
            chunk_bytes = _read_chunk_size(line)
            if chunk_bytes < 0:
                return self._fail("a chunk size that is none")
            self.left_bytes = chunk_bytes
            self.state = IN_CHUNK if chunk_bytes else IN_TRAILERS
        return NEED_MORE


cdef long long _read_chunk_size(bytes line):
    """The size that a chunk's line begins with; -1 for none. Extensions are passed over (RFC 9112 7.1.1)."""
    digits = line[:len(line) - 2].partition(b";")[0].rstrip(b" \t")
    if not digits or len(digits) > 10 or digits.strip(b"0123456789abcdefABCDEF"):
        return -1
    return int(digits, 16)


def read_all(data, bint ended=False, bint to_head=False, Py_ssize_t piece_bytes=0):
    """What a connection's bytes mean, given at once or piece by piece: ([(status, body, keep_alive)], problem).

    ended: the connection ends after them. problem is None when they are answers and the last one is complete.
    """
    cdef ResponseReader reader = ResponseReader(to_head)
    cdef bytes piece
    cdef Py_ssize_t position
    cdef ReadEvent event
    answers, body = [], bytearray()
    for start in range(0, len(data), piece_bytes or max(len(data), 1)):
        piece = bytes(data[start:start + (piece_bytes or len(data))])
        position = 0
        while True:
            event = reader.read(<const char*> piece + position, len(piece) - position)
            position += reader.consumed
            if event == BODY:
                body += reader.body[:reader.body_bytes]
            elif event == COMPLETE:
                answers.append((reader.status, bytes(body), reader.keep_alive))
                body.clear()
            elif event == BAD:
                return answers, reader.problem
            elif position == len(piece):
                break
    if reader.begun():
        if not ended or not reader.ended():
            return answers, "an answer that is cut off"
        answers.append((reader.status, bytes(body), reader.keep_alive))
    return answers, None
