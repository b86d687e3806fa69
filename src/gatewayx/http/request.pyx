"""One parsed request, and the parser that turns a client's bytes into requests. No I/O.

Theory of operation. llhttp, through httptools, parses heads, but it has no limits, cannot stop between two pipelined
requests, and lets some malformed heads through. So the bytes are first walked line by line here: this code reads the
request line, counts lines and bytes against the limits, and finds where the request ends. Only then are the bytes given
to llhttp, whole lines at a time and never past the end of the request.

Chunked bodies are read here alone: through llhttp every chunk costs Python calls and objects, which a client who sends
one byte a chunk gets for six bytes each. Small sized bodies come with their head and pass llhttp in the same call.

Two readers must agree on a head: where this code sees its end or that of a sized body, llhttp must have called back, and
the other way round. A disagreement is how requests are smuggled, and is refused as malformed. Whatever the cuts between
the pieces that arrive, llhttp is given the same lines before the same limit strikes, so the outcome is the same.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE, _PyBytes_Resize
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from cpython.memoryview cimport PyMemoryView_FromMemory
from cpython.buffer cimport PyBUF_READ
from libc.string cimport memchr, memcmp, memcpy
from posix.strings cimport strncasecmp

from gatewayx.core.deadlines cimport Expiring
from gatewayx.core.grammar cimport (
    HEX_VALUE,
    IS_FIELD_VALUE,
    IS_TARGET,
    after_authority,
    after_blanks,
    after_token,
    decimal,
    is_host,
    is_name,
    is_only_name,
    is_percent_encoded,
    lists_name,
)
from gatewayx.http.limits cimport Limits

from httptools import (
    HttpParserCallbackError,
    HttpParserError,
    HttpParserInvalidMethodError,
    HttpParserUpgrade,
    HttpRequestParser,
)

from gatewayx.http.problems import (
    BODY_TOO_LARGE,
    CHUNK_EXTENSIONS_TOO_LARGE,
    EXPECTATION_FAILED,
    HEADERS_TOO_LARGE,
    MALFORMED_REQUEST,
    METHOD_NOT_ALLOWED,
    TARGET_TOO_LONG,
    TRANSFER_ENCODING_NOT_SUPPORTED,
    VERSION_NOT_SUPPORTED,
    RequestError,
)

cdef enum:
    # A token of a method that is longer is none (llhttp's longest is MKCALENDAR).
    MAX_METHOD_BYTES = 32
    # "HTTP/1.1"
    VERSION_BYTES = 8
    # The digits of a chunk size that fit its type; llhttp refuses an overflow too.
    MAX_CHUNK_SIZE_DIGITS = 15
    # What is wrong in an unfinished chunk line up to here is refused at once.
    PROMPTLY_CHECKED_BYTES = 256
    # The rest of a sized body from here on does not go through llhttp, which would only copy it once more.
    UNPARSED_BODY_BYTES = 65536
    # The first room of a body, which grows by half: whoever declares a length and does not send holds nothing.
    FIRST_BODY_ROOM_BYTES = 4096
    # What an object and its place in a list take beside the bytes of a kept header's name or value.
    OBJECT_BYTES = 48


# What llhttp says of a Transfer-Encoding in which something follows "chunked", or that is empty.
CODING_REASONS = ("Invalid `Transfer-Encoding` header value", "Empty Transfer-Encoding")

@cython.final
@cython.freelist(256)
cdef class Request:
    """One request; the .pxd says what each field means."""

    cdef int let_go(self) except -1:
        self.path = None
        self.query = None
        self.headers = None
        self.body = None
        return 0

    cdef Py_ssize_t head_and_body_bytes(self):
        cdef Py_ssize_t total = PyBytes_GET_SIZE(self.path)
        if self.query is not None:
            total += PyBytes_GET_SIZE(self.query)
        if self.body is not None:
            total += PyBytes_GET_SIZE(self.body)
        if self.headers is not None:
            for text in self.headers:
                total += PyBytes_GET_SIZE(<bytes> text) + OBJECT_BYTES
        return total


cdef class RequestOwner(Expiring):
    """Who takes the answer to a request."""

    cdef int answer(self, Request request, int status, bytes content_type, bytes headers, object body) except -1:
        raise NotImplementedError

    cdef int answer_problem(self, Request request, object problem, str detail, bytes headers) except -1:
        raise NotImplementedError

    cdef Py_ssize_t body_room(self, Request request, Py_ssize_t needed_bytes, Py_ssize_t wanted_bytes) except -1:
        return wanted_bytes


cdef class RequestHandler:
    """Who knows what requests mean."""

    cdef bint wants_header(self, const char* name, Py_ssize_t name_bytes):
        return False

    cdef int begin(self, Request request) except -1:
        return 0

    cdef int handle(self, Request request) except -1:
        raise NotImplementedError

    cdef int abandon(self, Request request) except -1:
        return 0


cdef object _malformed(str detail):
    return RequestError(MALFORMED_REQUEST, detail)


@cython.final
cdef class RequestParser:
    """Turns bytes into requests, one at a time.

    limits: what a request may take. handler: asked which headers to keep; None keeps none. A body that comes in pieces
    asks its request's owner for room.
    """

    def __init__(self, Limits limits not None, RequestHandler handler=None):
        self.limits = limits
        self.handler = handler
        self.parser_spent = True
        self.start_next()

    cdef int start_next(self) except -1:
        """Forget the request that was read and be ready for another one."""
        self.request = None
        self.event = MORE
        self.state = REQUEST_LINE
        self.header_lines = 0
        self.header_bytes = 0
        self.head_bytes = 0
        self.seen_length = -1
        self.remaining_bytes = 0
        self.body_bytes = 0
        self.chunk_extension_bytes = 0
        self.next_line_check_bytes = 0
        self.body_buffer = None
        self.body_room = 0
        self.body_filled = 0
        self.over_budget = False
        self.head_done = False
        self.message_done = False
        self.saw_connection = False
        self.option_close = False
        self.option_keep_alive = False
        self.is_connect = False
        self.unknown_expectation = False
        self.host_headers = 0
        self.host_valid = True
        self.transfer_encodings = 0
        self.transfer_encoding_chunked = False
        if self.parser_spent:
            self.parser = HttpRequestParser(self)
            self.feed_data = self.parser.feed_data
            self.parser_spent = False
        return 0

    cdef int drop_body(self) except -1:
        self.body_buffer = None
        self.body_room = 0
        self.body_filled = 0
        self.request.discards_body = True
        return 0

    def release(self):
        """Break the reference cycle with httptools; the parser is of no use afterwards."""
        self.parser = None
        self.feed_data = None

    cpdef Py_ssize_t feed(self, bytes data, Py_ssize_t offset) except -1:
        """Read on in data from offset, at most to the end of a request; returns the offset of the first unused byte.

        `event` says what was reached. After MORE, the unused bytes are an unfinished line: to be given again together
        with what follows them. After REQUEST_COMPLETE, start_next() comes before the next feed().
        Raises RequestError; the parser is of no use afterwards.
        """
        self.event = MORE
        if self.state <= HEADER_LINES:
            return self._read_head(data, offset)
        if self.state == SIZED_BODY:
            return self._read_sized_body(data, offset)
        return self._read_chunked_body(data, offset)

    def next_request(self):
        """start_next() for Python."""
        self.start_next()

    # The walk over the bytes.

    cdef Py_ssize_t _read_head(self, bytes data, Py_ssize_t offset) except -1:
        cdef const char* start = PyBytes_AS_STRING(data)
        cdef const char* end = start + PyBytes_GET_SIZE(data)
        cdef const char* cursor = start + offset
        cdef const char* fed = cursor
        cdef const char* newline
        cdef const char* head_end = NULL
        cdef Py_ssize_t line_bytes
        cdef Py_ssize_t cut
        cdef object error = None
        if self.state == REQUEST_LINE:
            # RFC 9112 2.2: a server should ignore empty lines before the request line.
            while end - cursor >= 2 and cursor[0] == c"\r" and cursor[1] == c"\n":
                cursor += 2
            if cursor == end or (end - cursor == 1 and cursor[0] == c"\r"):
                return cursor - start
            newline = <const char*> memchr(cursor, c"\n", end - cursor)
            if newline == NULL:
                self._unfinished_request_line(cursor, end - cursor)
                return cursor - start
            self._request_line(cursor, newline - cursor)
            self.state = HEADER_LINES
            fed = cursor
            cursor = newline + 1
        while cursor < end:
            newline = <const char*> memchr(cursor, c"\n", end - cursor)
            if newline == NULL:
                # A lone CR may be the end of the head, which does not count.
                if self.header_bytes + (end - cursor) > self.limits.max_header_bytes and (
                    end - cursor > 1 or cursor[0] != c"\r"
                ):
                    error = self._headers_too_large()
                break
            line_bytes = newline + 1 - cursor
            if line_bytes == 1 or (line_bytes == 2 and cursor[0] == c"\r"):
                cursor = newline + 1
                head_end = cursor
                break
            self.header_bytes += line_bytes
            self.header_lines += 1
            if self.header_bytes > self.limits.max_header_bytes or self.header_lines > self.limits.max_headers:
                error = self._headers_too_large()
                break
            if line_bytes > 16 and (cursor[0] | 0x20) == c"c" and strncasecmp(cursor, b"content-length:", 15) == 0:
                self.seen_length = decimal(cursor + 15, newline - 1)
            cursor = newline + 1
        cut = cursor - start
        if (
            head_end != NULL
            and 0 < self.seen_length <= self.limits.max_body_bytes
            and self.seen_length <= end - head_end
        ):
            # The whole request is here: one call of llhttp instead of two.
            cut += self.seen_length
            self.remaining_bytes = self.seen_length
        try:
            if cut > fed - start:
                self._feed(data, fed - start, cut, head_end - start if head_end != NULL else cut)
        except HttpParserError as parser_error:
            raise self._refusal(parser_error) from None
        if error is not None:
            raise error
        if head_end == NULL:
            if self.head_done:
                raise _malformed("the head ends in an unexpected place")
            return cut
        if not self.head_done:
            raise _malformed("the head does not end with an empty line")
        self._check_head()
        if self.remaining_bytes:
            if self.request.content_length != self.remaining_bytes or not self.message_done:
                raise _malformed("the length of the body is in doubt")
            self._finish()
        elif self.request.chunked:
            self.state = CHUNK_SIZE
            self.event = HEAD_COMPLETE
            # llhttp stays behind before this body.
            self.parser_spent = True
        elif self.request.content_length > 0:
            self.state = SIZED_BODY
            self.remaining_bytes = self.request.content_length
            self.event = HEAD_COMPLETE
            if self.remaining_bytes >= UNPARSED_BODY_BYTES:
                # llhttp stays behind in the middle of this body.
                self.parser_spent = True
        else:
            if not self.message_done:
                raise _malformed("the length of the body is in doubt")
            self._finish()
        if self.event == HEAD_COMPLETE and self.message_done:
            raise _malformed("the length of the body is in doubt")
        return cut

    cdef Py_ssize_t _read_sized_body(self, bytes data, Py_ssize_t offset) except -1:
        cdef Py_ssize_t cut = PyBytes_GET_SIZE(data)
        if cut - offset > self.remaining_bytes:
            cut = offset + <Py_ssize_t> self.remaining_bytes
        if self.parser_spent:
            self._take_body(PyBytes_AS_STRING(data) + offset, cut - offset)
            self.message_done = cut - offset == self.remaining_bytes
        else:
            try:
                self._feed(data, offset, cut, offset)
            except HttpParserError as parser_error:
                raise self._refusal(parser_error) from None
        self.remaining_bytes -= cut - offset
        if self.message_done != (self.remaining_bytes == 0):
            raise _malformed("the length of the body is in doubt")
        if self.message_done:
            self._finish()
        return cut

    cdef Py_ssize_t _read_chunked_body(self, bytes data, Py_ssize_t offset) except -1:
        """RFC 9112 7.1."""
        cdef const char* start = PyBytes_AS_STRING(data)
        cdef const char* end = start + PyBytes_GET_SIZE(data)
        cdef const char* cursor = start + offset
        cdef const char* newline
        cdef Py_ssize_t piece_bytes
        while cursor < end:
            if self.state == CHUNK_DATA:
                piece_bytes = min(end - cursor, <Py_ssize_t> self.remaining_bytes)
                self._take_body(cursor, piece_bytes)
                cursor += piece_bytes
                self.remaining_bytes -= piece_bytes
                if self.remaining_bytes == 0:
                    self.state = CHUNK_END
                continue
            if self.state == CHUNK_END:
                if cursor[0] != c"\r" or (end - cursor > 1 and cursor[1] != c"\n"):
                    raise _malformed("a chunk does not end with CRLF where its size says")
                if end - cursor < 2:
                    break
                cursor += 2
                self.state = CHUNK_SIZE
                continue
            newline = <const char*> memchr(cursor, c"\n", end - cursor)
            if self.state == CHUNK_SIZE:
                self._chunk_line(cursor, end if newline == NULL else newline + 1, newline != NULL)
            elif self._trailer_line(cursor, end if newline == NULL else newline + 1, newline != NULL):
                self._finish()
                return newline + 1 - start
            if newline == NULL:
                break
            cursor = newline + 1
        return cursor - start

    cdef int _chunk_line(self, const char* line, const char* end, bint complete) except -1:
        """chunk-size [ chunk-ext ] CRLF, up to its LF if it is complete; what no further byte can mend is refused."""
        cdef const char* cursor = line
        cdef const char* last = end
        cdef const char* digits
        cdef Py_ssize_t extension_bytes
        cdef Py_ssize_t line_bytes = end - line
        cdef long long size_bytes = 0
        if not complete and line_bytes < self.next_line_check_bytes:
            return 0
        self.next_line_check_bytes = 0
        while cursor < end and cursor[0] == c"0":
            cursor += 1
        digits = cursor
        while cursor < end and HEX_VALUE[<unsigned char> cursor[0]] >= 0:
            if cursor - digits == MAX_CHUNK_SIZE_DIGITS:
                raise _malformed("a chunk's size is malformed")
            size_bytes = size_bytes * 16 + HEX_VALUE[<unsigned char> cursor[0]]
            cursor += 1
        if complete:
            last = end - 2
            if last < line or last[0] != c"\r":
                raise _malformed("a chunk's size does not end with CRLF")
        elif end > line and (end - 1)[0] == c"\r":
            last = end - 1
        if cursor == line and (complete or cursor < end):
            raise _malformed("a chunk's size is malformed")
        # A row of zeros is no extension, but as cheap to send.
        extension_bytes = last - cursor + max(0, digits - line - MAX_CHUNK_SIZE_DIGITS)
        if self.chunk_extension_bytes + extension_bytes > self.limits.max_chunk_extension_bytes:
            raise RequestError(
                CHUNK_EXTENSIONS_TOO_LARGE,
                f"the chunk extensions are larger than {self.limits.max_chunk_extension_bytes} bytes",
            )
        # Behind a CR nothing but the LF may come.
        if cursor < last and not _is_chunk_extension(cursor, last, complete or last < end):
            raise _malformed("a chunk's size or extension is malformed")
        if not complete:
            if line_bytes > PROMPTLY_CHECKED_BYTES:
                # A long line that comes byte by byte is not walked for each of them, unless it is too long by now.
                self.next_line_check_bytes = min(
                    line_bytes + line_bytes // 2,
                    self.limits.max_chunk_extension_bytes - self.chunk_extension_bytes + MAX_CHUNK_SIZE_DIGITS + 2,
                )
            return 0
        self.chunk_extension_bytes += extension_bytes
        self.body_bytes += size_bytes
        if self.body_bytes > self.limits.max_body_bytes:
            raise self._body_too_large()
        self.remaining_bytes = size_bytes
        self.state = CHUNK_DATA if size_bytes else TRAILER_LINES
        self.header_bytes = 0
        self.header_lines = 0
        return 0

    cdef bint _trailer_line(self, const char* line, const char* end, bint complete) except -1:
        """A trailer, which is counted, checked and dropped; returns whether it is the empty line at the end.

        RFC 9110 6.5.1: none that is needed for framing may be sent as a trailer.
        """
        cdef const char* cursor = line
        # The empty line at the end does not count, nor does what may become it.
        if end - line <= 2 and line[0] == c"\r":
            return complete
        self.header_bytes += end - line
        if self.header_bytes > self.limits.max_header_bytes or self.header_lines >= self.limits.max_headers:
            raise self._headers_too_large()
        if not complete:
            # It comes again with what follows it.
            self.header_bytes -= end - line
            return False
        self.header_lines += 1
        end -= 2
        if end < line or end[0] != c"\r":
            raise _malformed("a trailer does not end with CRLF")
        cursor = after_token(cursor, end)
        if cursor == line or cursor == end or cursor[0] != c":":
            raise _malformed("a trailer is not a name, a colon and a value")
        if is_name(line, cursor, b"content-length", 14) or is_name(line, cursor, b"transfer-encoding", 17):
            raise _malformed("a trailer says how the message is framed")
        cursor += 1
        while cursor < end:
            if not IS_FIELD_VALUE[<unsigned char> cursor[0]]:
                raise _malformed("a trailer holds a control byte")
            cursor += 1
        return False

    cdef int _unfinished_request_line(self, const char* line, Py_ssize_t line_bytes) except -1:
        """Refuse what no further byte can mend, so that garbage need not wait for its deadline."""
        cdef Py_ssize_t index = after_token(line, line + line_bytes) - line
        if index > MAX_METHOD_BYTES or (index < line_bytes and (index == 0 or line[index] != c" ")):
            raise _malformed("the request line does not begin with a method")
        cdef const char* space = NULL
        cdef Py_ssize_t target_end = line_bytes
        if index + 1 < line_bytes:
            space = <const char*> memchr(line + index + 1, c" ", line_bytes - index - 1)
        if space != NULL:
            target_end = space - line
        if target_end - index - 1 > self.limits.max_target_bytes:
            raise self._target_too_long()
        if line_bytes - target_end > VERSION_BYTES + 2:
            raise _malformed("the HTTP version is malformed")
        return 0

    cdef int _request_line(self, const char* line, Py_ssize_t line_bytes) except -1:
        """RFC 9112 3: method SP request-target SP HTTP-version, without the leniency that 3 allows."""
        cdef Py_ssize_t method_bytes = after_token(line, line + line_bytes) - line
        cdef const char* target
        cdef const char* version
        cdef const char* end = line + line_bytes
        cdef Request request
        if method_bytes == 0 or method_bytes > MAX_METHOD_BYTES or line_bytes == method_bytes or (
            line[method_bytes] != c" "
        ):
            raise _malformed("the request line does not begin with a method")
        target = line + method_bytes + 1
        version = <const char*> memchr(target, c" ", end - target)
        if (end if version == NULL else version) - target > self.limits.max_target_bytes:
            raise self._target_too_long()
        if version == NULL or version == target or (end - 1)[0] != c"\r":
            raise _malformed("the request line is not a method, a target and a version")
        version += 1
        if (
            end - version != VERSION_BYTES + 1
            or memcmp(version, b"HTTP/", 5) != 0
            or not c"0" <= version[5] <= c"9"
            or version[6] != c"."
            or not c"0" <= version[7] <= c"9"
        ):
            raise _malformed("the HTTP version is malformed")
        if version[5] != c"1" or version[7] > c"1":
            raise RequestError(VERSION_NOT_SUPPORTED)
        request = Request.__new__(Request)
        request.minor_version = version[7] - c"0"
        request.keep_alive = request.minor_version == 1
        request.content_length = -1
        request.method = _method(line, method_bytes)
        self.request = request
        self.head_bytes = version - 1 - target
        self.is_connect = method_bytes == 7 and memcmp(line, b"CONNECT", 7) == 0
        return self._target(target, version - 1 - target)

    cdef int _target(self, const char* target, Py_ssize_t target_bytes) except -1:
        """RFC 9112 3.2: origin-form, absolute-form, asterisk-form with OPTIONS, authority-form with CONNECT."""
        cdef Request request = self.request
        cdef const char* end = target + target_bytes
        cdef const char* path = target
        cdef const char* query = NULL
        cdef const char* cursor = target
        while cursor < end:
            if not IS_TARGET[<unsigned char> cursor[0]]:
                raise _malformed("the target holds a byte that must be percent-encoded")
            if cursor[0] == c"%" and not is_percent_encoded(cursor, end):
                raise _malformed("the target holds a '%' without two hexadecimal digits")
            if cursor[0] == c"?" and query == NULL:
                query = cursor + 1
            cursor += 1
        if self.is_connect:
            request.path = PyBytes_FromStringAndSize(target, target_bytes)
            return 0
        if target[0] != c"/":
            if target_bytes == 1 and target[0] == c"*" and request.method == OPTIONS:
                request.path = b"*"
                return 0
            path = after_authority(target, end)
            if path == NULL:
                raise _malformed("the target is neither a path nor an http URI")
        if query == NULL:
            request.path = PyBytes_FromStringAndSize(path, end - path)
        else:
            request.path = PyBytes_FromStringAndSize(path, query - 1 - path)
            request.query = PyBytes_FromStringAndSize(query, end - query)
        return 0

    # What the limits say.

    cdef object _target_too_long(self):
        return RequestError(TARGET_TOO_LONG, f"the target is longer than {self.limits.max_target_bytes} bytes")

    cdef object _headers_too_large(self):
        return RequestError(
            HEADERS_TOO_LARGE,
            f"more than {self.limits.max_headers} header lines or {self.limits.max_header_bytes} bytes of them",
        )

    cdef object _body_too_large(self):
        return RequestError(BODY_TOO_LARGE, f"the body is larger than {self.limits.max_body_bytes} bytes")

    # llhttp.

    cdef int _feed(self, bytes data, Py_ssize_t start, Py_ssize_t end, Py_ssize_t head_end) except -1:
        """Give data[start:end] to llhttp; of these bytes those from head_end on are body."""
        try:
            if start == 0 and end == PyBytes_GET_SIZE(data):
                self.feed_data(data)
            else:
                self.feed_data(PyMemoryView_FromMemory(PyBytes_AS_STRING(data) + start, end - start, PyBUF_READ))
        except HttpParserUpgrade:
            self._serve_without_upgrade(data, head_end, end)
        except HttpParserCallbackError as error:
            raise error.__context__ from None
        return 0

    cdef int _serve_without_upgrade(self, bytes data, Py_ssize_t head_end, Py_ssize_t end) except -1:
        """Ignore an offered Upgrade (RFC 9110 7.8 allows that).

        llhttp has stopped behind the head, since what follows could be another protocol. A new parser is brought to
        the same place by a head with the same framing and without the offer.
        """
        cdef Request request = self.request
        if self.is_connect:
            return 0
        self.message_done = False
        self.parser = HttpRequestParser(self)
        self.feed_data = self.parser.feed_data
        self.muted = True
        try:
            if request.content_length > 0:
                self.feed_data(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % request.content_length)
            elif self.transfer_encodings:
                self.feed_data(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
            else:
                self.message_done = True
        finally:
            self.muted = False
        if end > head_end:
            self._feed(data, head_end, end, head_end)
        return 0

    cdef object _refusal(self, error):
        """The answer to what llhttp has refused."""
        if isinstance(error, HttpParserInvalidMethodError):
            return _malformed("the method is unknown")
        reason = str(error)
        if self.head_done and self.transfer_encodings and not self.transfer_encoding_chunked:
            # llhttp refuses a coding that it does not know only here.
            return self._transfer_encoding_refusal()
        if reason in CODING_REASONS:
            return self._transfer_encoding_refusal()
        return _malformed(reason)

    cdef object _transfer_encoding_refusal(self):
        # RFC 9112 6.1: a faulty message in HTTP/1.0; 501 for a coding that is not understood.
        if self.request.minor_version == 0:
            return _malformed("Transfer-Encoding is not part of HTTP/1.0")
        return RequestError(TRANSFER_ENCODING_NOT_SUPPORTED)

    def on_header(self, bytes name, bytes value):
        """httptools: a header line, or a trailer, which is never merged into the headers (RFC 9110 6.5.1)."""
        if self.head_done or self.muted:
            return
        cdef const char* name_bytes = PyBytes_AS_STRING(name)
        cdef Py_ssize_t length = PyBytes_GET_SIZE(name)
        cdef const char* value_bytes = PyBytes_AS_STRING(value)
        cdef const char* value_end = value_bytes + PyBytes_GET_SIZE(value)
        if length == 4 and strncasecmp(name_bytes, b"host", 4) == 0:
            self.host_headers += 1
            self.host_valid = self.host_valid and is_host(value_bytes, value_end)
        elif length == 14 and strncasecmp(name_bytes, b"content-length", 14) == 0:
            self.request.content_length = decimal(value_bytes, value_end)
        elif length == 10 and strncasecmp(name_bytes, b"connection", 10) == 0:
            self.saw_connection = True
            # RFC 9110 7.6.1: a list of tokens, of which two say whether the connection persists.
            self.option_close = self.option_close or lists_name(value_bytes, value_end, b"close", 5)
            self.option_keep_alive = self.option_keep_alive or lists_name(value_bytes, value_end, b"keep-alive", 10)
        elif length == 16 and strncasecmp(name_bytes, b"proxy-connection", 16) == 0:
            # It means nothing (RFC 9112 C.2.2), but llhttp takes it for Connection.
            self.saw_connection = True
        elif length == 17 and strncasecmp(name_bytes, b"transfer-encoding", 17) == 0:
            self.transfer_encodings += 1
            self.transfer_encoding_chunked = self.transfer_encodings == 1 and is_only_name(
                value_bytes, value_end, b"chunked", 7
            )
        elif length == 6 and strncasecmp(name_bytes, b"expect", 6) == 0:
            # RFC 9110 10.1.1: an expectation in an HTTP/1.0 request is ignored.
            if self.request.minor_version == 1:
                if is_only_name(value_bytes, value_end, b"100-continue", 12):
                    self.request.expects_continue = True
                else:
                    self.unknown_expectation = True
        elif self.handler is not None and self.handler.wants_header(name_bytes, length):
            if self.request.headers is None:
                self.request.headers = []
            self.request.headers.append(name)
            self.request.headers.append(value)
            self.head_bytes += length + (value_end - value_bytes) + 2 * OBJECT_BYTES

    def on_headers_complete(self):
        """httptools: the head is complete; llhttp knows now whether the connection may live."""
        if self.muted:
            return
        self.head_done = True
        if self.saw_connection:
            # RFC 9112 9.3: close outweighs keep-alive, which in HTTP/1.1 says nothing.
            self.request.keep_alive = not self.option_close and (
                self.request.minor_version == 1 or self.option_keep_alive
            )
            if not self.parser.should_keep_alive():
                # llhttp takes nothing more after this request, whoever is right about its connection.
                self.parser_spent = True

    def on_body(self, bytes data):
        """httptools: a piece of the body, without its framing."""
        cdef Request request = self.request
        cdef Py_ssize_t length = PyBytes_GET_SIZE(data)
        if request.discards_body:
            return
        if request.content_length == length:
            request.body = data
        else:
            self._take_body(PyBytes_AS_STRING(data), length)

    cdef int _take_body(self, const char* piece, Py_ssize_t piece_bytes) except -1:
        """Put a piece of the body in its place."""
        cdef Request request = self.request
        cdef Py_ssize_t filled_bytes = self.body_filled + piece_bytes
        if request.discards_body:
            return 0
        if filled_bytes > self.body_room:
            if not request.chunked and filled_bytes > request.content_length:
                raise _malformed("the body is longer than its Content-Length")
            self._grow_body(filled_bytes)
            if request.discards_body:
                return 0
        memcpy(PyBytes_AS_STRING(self.body_buffer) + self.body_filled, piece, piece_bytes)
        self.body_filled = filled_bytes
        if request.body_hash is not None:
            request.body_hash.take(piece, piece_bytes)
        return 0

    cdef int _grow_body(self, Py_ssize_t needed_bytes) except -1:
        """Make room for so many bytes of the body; drop it if there is none."""
        cdef Request request = self.request
        cdef long long most_bytes = self.limits.max_body_bytes if request.chunked else request.content_length
        cdef Py_ssize_t room_bytes = max(needed_bytes, self.body_room + self.body_room // 2, FIRST_BODY_ROOM_BYTES)
        room_bytes = <Py_ssize_t> min(<long long> room_bytes, most_bytes)
        if request.owner is not None:
            room_bytes = request.owner.body_room(request, needed_bytes, room_bytes)
            if room_bytes == 0:
                self.over_budget = True
                return self.drop_body()
        if self.body_buffer is None:
            self.body_buffer = PyBytes_FromStringAndSize(NULL, room_bytes)
            self.body_room = room_bytes
            return 0
        return self._resize_body(room_bytes)

    cdef int _resize_body(self, Py_ssize_t room_bytes) except -1:
        """Without a copy where the allocator can: the buffer is nobody else's yet."""
        cdef PyObject* buffer = <PyObject*> self.body_buffer
        Py_INCREF(self.body_buffer)
        self.body_buffer = None
        _PyBytes_Resize(&buffer, room_bytes)
        self.body_buffer = <bytes> buffer
        Py_DECREF(self.body_buffer)
        self.body_room = room_bytes
        return 0

    def on_message_complete(self):
        """httptools: the request is complete."""
        if not self.muted:
            self.message_done = True

    cdef int _check_head(self) except -1:
        """What llhttp lets through although RFC 9112 does not."""
        cdef Request request = self.request
        if self.is_connect:
            # RFC 9110 9.3.6: what follows CONNECT may be no HTTP, so the connection cannot go on.
            raise RequestError(METHOD_NOT_ALLOWED, "CONNECT is not served")
        if self.host_headers > 1 or not self.host_valid or (self.host_headers == 0 and request.minor_version == 1):
            raise _malformed("the request needs exactly one Host, and a valid one")
        if self.transfer_encodings:
            if request.minor_version == 0 or not self.transfer_encoding_chunked:
                raise self._transfer_encoding_refusal()
            request.chunked = True
        if request.content_length > self.limits.max_body_bytes:
            raise self._body_too_large()
        if self.unknown_expectation:
            raise RequestError(EXPECTATION_FAILED)
        return 0

    cdef int _finish(self) except -1:
        cdef Request request = self.request
        if request.body is None:
            if self.body_buffer is None:
                request.body = b""
            else:
                if self.body_filled < self.body_room:
                    self._resize_body(self.body_filled)
                request.body = self.body_buffer
                self.body_buffer = None
        # llhttp takes nothing more after a request that ends its connection.
        if not request.keep_alive:
            self.parser_spent = True
        self.event = REQUEST_COMPLETE
        return 0


cdef Method _method(const char* name, Py_ssize_t length) noexcept:
    if length == 4 and memcmp(name, b"POST", 4) == 0:
        return POST
    if length == 3 and memcmp(name, b"GET", 3) == 0:
        return GET
    if length == 3 and memcmp(name, b"PUT", 3) == 0:
        return PUT
    if length == 4 and memcmp(name, b"HEAD", 4) == 0:
        return HEAD
    if length == 7 and memcmp(name, b"OPTIONS", 7) == 0:
        return OPTIONS
    return OTHER


cdef bint _is_chunk_extension(const char* cursor, const char* end, bint complete) noexcept:
    """RFC 9112 7.1.1: *( BWS ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ] ); unless complete, or what may
    become it. So white space stands around ";" and "=", and nowhere else: not before the end of the line.
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
