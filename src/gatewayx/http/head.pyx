"""Heads of every kind, read by two readers that must agree. No I/O.

Theory of operation. llhttp, through httptools, parses heads, but it has no limits, cannot stop between two pipelined
requests, and lets some malformed heads through. So the bytes are first walked line by line here: this code reads the
request line, counts lines and bytes against the limits, and finds where the request ends. Only then are the bytes given
to llhttp, whole lines at a time and never past the end of the request. Chunked bodies do not go through llhttp; a sized
body that is small and comes with its head does, in the same call.

Two readers must agree on a head: where this code sees its end or that of a sized body, llhttp must have called back, and
the other way round. A disagreement is how requests are smuggled, and is refused as malformed. Whatever the cuts between
the pieces that arrive, llhttp is given the same lines before the same limit strikes, so the outcome is the same.

Every refusal of a head is made here: what http/plain does not take comes here from its request line on.
"""

cimport cython
from cpython.buffer cimport PyBuffer_FillInfo
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memchr, memcmp, memset
from posix.strings cimport strncasecmp

from gatewayx.core.grammar cimport (
    IS_TARGET,
    after_authority,
    after_blanks,
    after_token,
    before_blanks,
    decimal,
    is_host,
    is_only_name,
    is_percent_encoded,
    lists_name,
)
from gatewayx.http.limits cimport Limits
from gatewayx.http.request cimport (
    METHOD_GET,
    METHOD_HEAD,
    METHOD_DELETE,
    METHOD_OPTIONS,
    METHOD_OTHER,
    METHOD_POST,
    METHOD_PUT,
    OBJECT_BYTES,
    Method,
    Request,
    RequestHandler,
    new_request,
)

from httptools import (
    HttpParserCallbackError,
    HttpParserError,
    HttpParserInvalidMethodError,
    HttpParserUpgrade,
    HttpRequestParser,
)

from gatewayx.http.problems import (
    EXPECTATION_FAILED,
    MALFORMED_REQUEST,
    METHOD_NOT_ALLOWED,
    TRANSFER_ENCODING_NOT_SUPPORTED,
    VERSION_NOT_SUPPORTED,
    RequestError,
)

cdef enum:
    # A longer token is no method (llhttp's longest is MKCALENDAR).
    MAX_METHOD_BYTES = 32
    # "HTTP/1.1"
    VERSION_BYTES = 8

# What llhttp says of a Transfer-Encoding in which something follows "chunked", or that is empty.
cdef tuple CODING_REASONS = ("Invalid `Transfer-Encoding` header value", "Empty Transfer-Encoding")


cdef object _malformed(str detail):
    return RequestError(MALFORMED_REQUEST, detail)


@cython.final
cdef class LlhttpInput:
    """What llhttp is given to read; one a reader, since making a memoryview costs as much as parsing a short line."""

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        PyBuffer_FillInfo(buffer, self, <void*> self.data, self.size, True, flags)


@cython.final
cdef class HeadReader:
    """Reads heads of every kind, one at a time. limits, handler: as RequestParser has them."""

    def __init__(self, Limits limits not None, RequestHandler handler=None):
        self.limits = limits
        self.handler = handler
        self.input = LlhttpInput.__new__(LlhttpInput)
        self.start_next()

    cdef int release(self) except -1:
        self.llhttp = None
        self.feed_data = None
        return 0

    cdef int start_next(self) except -1:
        self.request = None
        self.head_bytes = 0
        self.complete = False
        self.head_done = False
        self.message_done = False
        self.header_lines = 0
        self.header_bytes = 0
        self.seen_length = -1
        self.body_bytes = 0
        self.body = None
        memset(&self.seen, 0, sizeof(HeaderFacts))
        self.is_connect = False
        if self.spent:
            self.release()
        return 0

    cdef int _start_llhttp(self) except -1:
        self.llhttp = HttpRequestParser(self)
        self.feed_data = self.llhttp.feed_data
        self.spent = False
        return 0

    # The walk over the bytes.

    cdef Py_ssize_t read(self, const char* data, Py_ssize_t size) except -1:
        cdef const char* end = data + size
        cdef const char* cursor = data
        cdef const char* newline
        cdef const char* head_end = NULL
        cdef Py_ssize_t line_bytes
        cdef object error = None
        if self.request is None:
            newline = <const char*> memchr(cursor, c"\n", end - cursor)
            if newline == NULL:
                self._unfinished_request_line(cursor, end)
                return 0
            self._request_line(cursor, newline)
            cursor = newline + 1
        while cursor < end:
            newline = <const char*> memchr(cursor, c"\n", end - cursor)
            if newline == NULL:
                # A lone CR may be the end of the head, which does not count.
                if self.header_bytes + (end - cursor) > self.limits.max_header_bytes and (
                    end - cursor > 1 or cursor[0] != c"\r"
                ):
                    error = self.limits.headers_too_large()
                break
            line_bytes = newline + 1 - cursor
            if line_bytes == 1 or (line_bytes == 2 and cursor[0] == c"\r"):
                cursor = newline + 1
                head_end = cursor
                break
            self.header_bytes += line_bytes
            self.header_lines += 1
            if self.header_bytes > self.limits.max_header_bytes or self.header_lines > self.limits.max_headers:
                error = self.limits.headers_too_large()
                break
            if line_bytes > 16 and (cursor[0] | 0x20) == c"c" and strncasecmp(cursor, b"content-length:", 15) == 0:
                self.seen_length = decimal(cursor + 15, newline - 1)
            cursor = newline + 1
        if (
            head_end != NULL
            and 0 < self.seen_length <= self.limits.max_body_bytes
            and self.seen_length <= end - head_end
        ):
            # The whole request is here: one call of llhttp instead of two.
            cursor += self.seen_length
            self.body_bytes = self.seen_length
        try:
            if cursor > data:
                self._feed(data, cursor if head_end == NULL else head_end, cursor)
        except HttpParserError as parser_error:
            raise self._refusal(parser_error) from None
        if error is not None:
            raise error
        if head_end != NULL:
            self._end_head()
        elif self.head_done:
            raise _malformed("the head ends in an unexpected place")
        return cursor - data

    cdef int _end_head(self) except -1:
        """The walk is at the end of the head, or of the whole request: what llhttp says must agree."""
        cdef Request request = self.request
        if not self.head_done:
            raise _malformed("the head does not end with an empty line")
        self._check_head()
        if self.message_done != (self.body_bytes > 0 or (not request.chunked and request.content_length <= 0)):
            raise _malformed("the length of the body is in doubt")
        if self.body_bytes and request.content_length != self.body_bytes:
            raise _malformed("the length of the body is in doubt")
        self._check_body(self.body_bytes)
        self.complete = True
        # llhttp stays behind before a chunked body, and in the middle of a large one; it takes nothing more after a request
        # that ends its connection.
        if not request.keep_alive or (
            not self.message_done and (request.chunked or request.content_length >= UNPARSED_BODY_BYTES)
        ):
            self.spent = True
        return 0

    cdef bytes read_body(self, const char* data, Py_ssize_t size, bint last):
        try:
            self._feed(data, data, data + size)
        except HttpParserError as parser_error:
            raise self._refusal(parser_error) from None
        if self.message_done != last:
            raise _malformed("the length of the body is in doubt")
        self._check_body(size)
        return self.take_body()

    cdef bytes take_body(self):
        cdef bytes body = self.body
        self.body = None
        return body

    cdef int _check_body(self, Py_ssize_t size_bytes) except -1:
        if (0 if self.body is None else PyBytes_GET_SIZE(self.body)) != size_bytes:
            raise _malformed("the length of the body is in doubt")
        return 0

    cdef int _unfinished_request_line(self, const char* line, const char* end) except -1:
        """Refuse a line that no further byte can make valid, so that garbage need not wait for its deadline."""
        cdef const char* method_end = after_token(line, end)
        cdef const char* target
        cdef const char* target_end
        if method_end - line > MAX_METHOD_BYTES or (
            method_end < end and (method_end == line or method_end[0] != c" ")
        ):
            raise _malformed("the request line does not begin with a method")
        if method_end == end:
            return 0
        target = method_end + 1
        target_end = <const char*> memchr(target, c" ", end - target)
        if (end if target_end == NULL else target_end) - target > self.limits.max_target_bytes:
            raise self.limits.target_too_long()
        if target_end != NULL and end - target_end > VERSION_BYTES + 2:
            raise _malformed("the HTTP version is malformed")
        return 0

    cdef int _request_line(self, const char* line, const char* end) except -1:
        """RFC 9112 3: method SP request-target SP HTTP-version, without the leniency that 3 allows.

        The line ends with a CR; end points to the LF.
        """
        cdef const char* method_end = after_token(line, end)
        cdef Py_ssize_t method_bytes = method_end - line
        cdef const char* target = method_end + 1
        cdef const char* target_end
        cdef const char* version
        cdef Request request
        if method_bytes == 0 or method_bytes > MAX_METHOD_BYTES or method_end == end or method_end[0] != c" ":
            raise _malformed("the request line does not begin with a method")
        target_end = <const char*> memchr(target, c" ", end - target)
        if (end if target_end == NULL else target_end) - target > self.limits.max_target_bytes:
            raise self.limits.target_too_long()
        if target_end != NULL and end - target_end > VERSION_BYTES + 2:
            # The line was refused before its end, with these words, if its end came later.
            raise _malformed("the HTTP version is malformed")
        if target_end == NULL or target_end == target or (end - 1)[0] != c"\r":
            raise _malformed("the request line is not a method, a target and a version")
        version = target_end + 1
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
        request = new_request()
        request.minor_version = version[7] - c"0"
        request.keep_alive = request.minor_version == 1
        request.content_length = -1
        request.method = _method(line, method_bytes)
        self.request = request
        self.head_bytes = target_end - target
        self.is_connect = method_bytes == 7 and memcmp(line, b"CONNECT", 7) == 0
        return self._target(target, target_end)

    cdef int _target(self, const char* target, const char* end) except -1:
        """RFC 9112 3.2: origin-form, absolute-form, asterisk-form with OPTIONS, authority-form with CONNECT."""
        cdef Request request = self.request
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
            request.path = PyBytes_FromStringAndSize(target, end - target)
            return 0
        if target[0] != c"/":
            if end - target == 1 and target[0] == c"*" and request.method == METHOD_OPTIONS:
                request.path = b"*"
                return 0
            path = after_authority(target, end)
            if path == NULL:
                raise _malformed("the target is neither a path nor an http URI")
            self.seen.host_in_target = True
            self._host(<const char*> memchr(target, c"/", path - target) + 2, path)
        if query == NULL:
            request.path = PyBytes_FromStringAndSize(path, end - path)
        else:
            request.path = PyBytes_FromStringAndSize(path, query - 1 - path)
            request.query = PyBytes_FromStringAndSize(query, end - query)
        return 0

    cdef int _host(self, const char* start, const char* end) except -1:
        cdef Request request = self.request
        self.host = PyBytes_FromStringAndSize(start, end - start)
        request.host_start = PyBytes_AS_STRING(self.host)
        request.host_bytes = end - start
        return 0

    cdef int _check_head(self) except -1:
        """Refuse what llhttp lets through although RFC 9112 does not."""
        cdef Request request = self.request
        if self.is_connect:
            # RFC 9110 9.3.6: what follows CONNECT may be no HTTP, so the connection cannot go on.
            raise RequestError(METHOD_NOT_ALLOWED, "CONNECT is not served")
        if self.seen.hosts > 1 or self.seen.host_invalid or (self.seen.hosts == 0 and request.minor_version == 1):
            raise _malformed("the request needs exactly one Host, and a valid one")
        if self.seen.transfer_encodings:
            if request.minor_version == 0 or not self.seen.chunked:
                raise self._transfer_encoding_refusal()
            request.chunked = True
        if request.content_length > self.limits.max_body_bytes:
            raise self.limits.body_too_large()
        if self.seen.unknown_expectation:
            raise RequestError(EXPECTATION_FAILED)
        return 0

    # llhttp.

    cdef int _feed(self, const char* data, const char* head_end, const char* end) except -1:
        """Give llhttp the bytes up to end; those from head_end on are body."""
        if self.llhttp is None:
            self._start_llhttp()
        self.input.data = data
        self.input.size = end - data
        try:
            self.feed_data(self.input)
        except HttpParserUpgrade:
            self._pass_upgrade(head_end, end)
        except HttpParserCallbackError as error:
            raise error.__context__ from None
        return 0

    cdef int _pass_upgrade(self, const char* head_end, const char* end) except -1:
        """Ignore an offered Upgrade (RFC 9110 7.8 allows that).

        llhttp has stopped behind the head, since what follows could be another protocol. A new one is brought to the
        same place by a head with the same framing and without the offer.
        """
        cdef Request request = self.request
        if self.is_connect:
            return 0
        self.message_done = False
        self._start_llhttp()
        self.muted = True
        try:
            if request.content_length > 0:
                self.feed_data(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % request.content_length)
            elif self.seen.transfer_encodings:
                self.feed_data(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
            else:
                self.message_done = True
        finally:
            self.muted = False
        if end > head_end:
            self._feed(head_end, head_end, end)
        return 0

    cdef object _refusal(self, error):
        """The RequestError for what llhttp has refused."""
        if isinstance(error, HttpParserInvalidMethodError):
            return _malformed("the method is unknown")
        reason = str(error)
        if self.head_done and self.seen.transfer_encodings and not self.seen.chunked:
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
        """httptools: a header line."""
        if self.head_done or self.muted:
            return
        cdef int kind
        cdef const char* name_bytes = PyBytes_AS_STRING(name)
        cdef Py_ssize_t length = PyBytes_GET_SIZE(name)
        cdef const char* start = PyBytes_AS_STRING(value)
        cdef const char* end = start + PyBytes_GET_SIZE(value)
        if length == 4 and strncasecmp(name_bytes, b"host", 4) == 0:
            self.seen.hosts += 1
            if not is_host(start, end):
                self.seen.host_invalid = True
            if not self.seen.host_in_target:
                self._host(after_blanks(start, end), before_blanks(start, end))
        elif length == 14 and strncasecmp(name_bytes, b"content-length", 14) == 0:
            self.request.content_length = decimal(start, end)
        elif length == 10 and strncasecmp(name_bytes, b"connection", 10) == 0:
            # RFC 9110 7.6.1: a list of tokens, of which two say whether the connection persists.
            self.seen.saw_connection = True
            self.seen.option_close = self.seen.option_close or lists_name(start, end, b"close", 5)
            self.seen.option_keep_alive = self.seen.option_keep_alive or lists_name(start, end, b"keep-alive", 10)
        elif length == 16 and strncasecmp(name_bytes, b"proxy-connection", 16) == 0:
            # It means nothing (RFC 9112 C.2.2), but llhttp takes it for Connection.
            self.seen.saw_connection = True
        elif length == 17 and strncasecmp(name_bytes, b"transfer-encoding", 17) == 0:
            self.seen.transfer_encodings += 1
            self.seen.chunked = self.seen.transfer_encodings == 1 and is_only_name(start, end, b"chunked", 7)
        elif length == 6 and strncasecmp(name_bytes, b"expect", 6) == 0:
            # RFC 9110 10.1.1: an expectation in an HTTP/1.0 request is ignored.
            if self.request.minor_version == 1:
                if is_only_name(start, end, b"100-continue", 12):
                    self.request.expects_continue = True
                else:
                    self.seen.unknown_expectation = True
        elif self.handler is not None:
            kind = self.handler.wants_header(name_bytes, length, PyBytes_GET_SIZE(value))
            if kind:
                self.request.header_kinds |= kind
                self._keep(name, value)

    cdef int _keep(self, bytes name, bytes value) except -1:
        """The handler wants this header."""
        if self.request.headers is None:
            self.request.headers = []
        self.request.headers.append(name)
        self.request.headers.append(value)
        self.head_bytes += PyBytes_GET_SIZE(name) + PyBytes_GET_SIZE(value) + 2 * OBJECT_BYTES
        return 0

    def on_headers_complete(self):
        """httptools: the head is complete; llhttp knows now whether the connection may live."""
        if self.muted:
            return
        self.head_done = True
        if self.seen.saw_connection:
            # RFC 9112 9.3: close outweighs keep-alive, which in HTTP/1.1 says nothing.
            self.request.keep_alive = not self.seen.option_close and (
                self.request.minor_version == 1 or self.seen.option_keep_alive
            )
            if not self.llhttp.should_keep_alive():
                # llhttp takes nothing more after this request, even if it is wrong and the connection lives.
                self.spent = True

    def on_body(self, bytes data):
        """httptools: a piece of a sized body."""
        self.body = data if self.body is None else self.body + data

    def on_message_complete(self):
        """httptools: the request is complete."""
        if not self.muted:
            self.message_done = True


cdef Method _method(const char* name, Py_ssize_t length) noexcept:
    if length == 4 and memcmp(name, b"POST", 4) == 0:
        return METHOD_POST
    if length == 3 and memcmp(name, b"GET", 3) == 0:
        return METHOD_GET
    if length == 3 and memcmp(name, b"PUT", 3) == 0:
        return METHOD_PUT
    if length == 4 and memcmp(name, b"HEAD", 4) == 0:
        return METHOD_HEAD
    if length == 7 and memcmp(name, b"OPTIONS", 7) == 0:
        return METHOD_OPTIONS
    if length == 6 and memcmp(name, b"DELETE", 6) == 0:
        return METHOD_DELETE
    return METHOD_OTHER
