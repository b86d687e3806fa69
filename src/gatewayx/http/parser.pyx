"""The parser that turns a client's bytes into requests, one at a time. No I/O.

Theory of operation. A head is read in one of two ways. The short one (http/plain) takes what nearly all clients send, in
one pass, and refuses nothing. At the first byte that it does not know to be right it hands the head over, from its
request line on, to the long way: HeadReader (http/head), in which this code and llhttp must agree. So every refusal comes
from the long way, and it is the same wherever the bytes are cut. What the short way takes, the long way takes with the
same outcome: a referee proves it in the tests and the fuzzer.

A plain head that is not complete stays with the bytes that the caller keeps, and is walked on from where it ended; the
body behind it never passes llhttp. Chunked bodies are read in http/chunks.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE, _PyBytes_Resize
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.string cimport memcmp, memcpy

from gatewayx.http.chunks cimport ChunkedBody
from gatewayx.http.head cimport UNPARSED_BODY_BYTES, HeadReader
from gatewayx.http.limits cimport Limits
from gatewayx.http.plain cimport AT_LINE, MAX_WANTED_LINES, NOT_PLAIN, UNFINISHED, WantedLine, forget_head, walk_head
from gatewayx.http.request cimport OBJECT_BYTES, HeaderSlice, Request, RequestHandler, new_request

from gatewayx.http.problems import MALFORMED_REQUEST, RequestError

cdef enum:
    # The first room of a body, which grows by half: whoever declares a length and does not send holds nothing.
    FIRST_BODY_ROOM_BYTES = 4096
    # Paths whose objects may be had again.
    RECENT_PATHS = 8

# The headers that the handler wants of the request that was read last, by whichever parser.
cdef HeaderSlice[MAX_WANTED_LINES] wanted_slices
# Paths that came lately, each at a place that follows from its bytes.
cdef list recent_paths = [b""] * RECENT_PATHS


@cython.final
cdef class RequestParser:
    """Turns bytes into requests, one at a time.

    limits: what a request may take. handler: asked which headers to keep; None keeps none. A body that comes in pieces
    asks its request's owner for room. httptools_only: for the referee, which compares the two ways of a head: no head goes
    the short way.
    """

    def __init__(self, Limits limits not None, RequestHandler handler=None, *, bint httptools_only=False):
        self.limits = limits
        self.handler = handler
        self.hands_all_over = httptools_only
        self.start_next()

    def release(self):
        """Break the reference cycle with httptools; the parser is of no use afterwards."""
        if self.reader is not None:
            self.reader.release()

    def feed(self, bytes data, Py_ssize_t offset):
        """read() for Python, from the offset on: returns the offset of the first unused byte."""
        cdef Py_ssize_t used = self.read(PyBytes_AS_STRING(data) + offset, PyBytes_GET_SIZE(data) - offset)
        if self.request is not None:
            self.request.keep()
        return offset + used

    cpdef int start_next(self) except -1:
        """Forget the request that was read and be ready for another one."""
        if self.handed_over:
            self.reader.start_next()
            self.handed_over = False
        self.request = None
        self.event = MORE
        self.head_done = False
        self.over_budget = False
        self.head_bytes = 0
        self.state = IN_HEAD
        forget_head(&self.plain)
        self.remaining_bytes = 0
        self.chunks = None
        self.body_buffer = None
        self.body_room = 0
        self.body_filled = 0
        return 0

    cdef Py_ssize_t read(self, const char* data, Py_ssize_t size) except -1:
        self.event = MORE
        if self.state == IN_HEAD:
            return self._read_head(data, size)
        if self.state == SIZED_BODY:
            return self._read_sized_body(data, size)
        return self._read_chunked_body(data, size)

    # The head.

    cdef Py_ssize_t _read_head(self, const char* data, Py_ssize_t size) except -1:
        cdef Py_ssize_t skipped = 0
        cdef int reach
        if self.handed_over:
            return self._read_any_head(data, size)
        if self.plain.walked == 0:
            # RFC 9112 2.2: a server should ignore empty lines before the request line.
            while size - skipped >= 2 and data[skipped] == c"\r" and data[skipped + 1] == c"\n":
                skipped += 2
            if skipped == size or (size - skipped == 1 and data[skipped] == c"\r"):
                return skipped
        if self.hands_all_over:
            reach = NOT_PLAIN
        else:
            reach = walk_head(&self.plain, data + skipped, size - skipped, self.limits, self.handler)
            if reach == UNFINISHED:
                return skipped
        if reach == NOT_PLAIN:
            forget_head(&self.plain)
            if self.reader is None:
                self.reader = HeadReader(self.limits, self.handler)
            self.handed_over = True
            return skipped + self._read_any_head(data + skipped, size - skipped)
        return skipped + self._take_plain_head(data + skipped, size - skipped)

    cdef Py_ssize_t _read_any_head(self, const char* data, Py_ssize_t size) except -1:
        """The long way."""
        cdef HeadReader reader = self.reader
        cdef Request request
        cdef Py_ssize_t used
        try:
            used = reader.read(data, size)
        finally:
            # A refusal is answered to the request.
            request = self.request = reader.request
        self.head_bytes = reader.head_bytes
        if not reader.complete:
            return used
        self.head_done = True
        if request.chunked:
            self.state = CHUNKED_BODY
            self.chunks = ChunkedBody(self.limits)
        elif not reader.message_done:
            self.state = SIZED_BODY
            self.remaining_bytes = request.content_length
        else:
            request.set_body(reader.take_body() or b"")
            self._finish()
            return used
        self.event = HEAD_COMPLETE
        return used

    cdef Py_ssize_t _take_plain_head(self, const char* data, Py_ssize_t size) except -1:
        """The short way is at the end of the head; returns how many bytes it and a body that is whole have."""
        cdef Request request = new_request()
        cdef Py_ssize_t head_end = self.plain.end
        cdef Py_ssize_t path_end = self.plain.target_end
        cdef long long length = self.plain.content_length
        if self.plain.query:
            path_end = self.plain.query - 1
            request.query = PyBytes_FromStringAndSize(
                data + self.plain.query, self.plain.target_end - self.plain.query
            )
        request.path = recent_path(data + self.plain.target, path_end - self.plain.target)
        request.method = self.plain.method
        request.host_start = data + self.plain.host
        request.host_bytes = self.plain.host_end - self.plain.host
        request.minor_version = 1
        request.keep_alive = not self.plain.closes
        request.content_length = length
        self.request = request
        self.head_done = True
        self.head_bytes = self.plain.target_end - self.plain.target
        if self.plain.wanted_lines:
            self._take_wanted_lines(request, data)
        if length <= 0:
            request.set_body(b"")
            self.event = REQUEST_COMPLETE
            return head_end
        if length <= size - head_end:
            request.body_start = data + head_end
            request.body_bytes = length
            self.event = REQUEST_COMPLETE
            return head_end + length
        self.state = SIZED_BODY
        self.remaining_bytes = length
        self.event = HEAD_COMPLETE
        return head_end

    cdef int _take_wanted_lines(self, Request request, const char* data) except -1:
        cdef HeaderSlice* header
        cdef WantedLine* line
        cdef int index
        for index in range(self.plain.wanted_lines):
            line = &self.plain.wanted[index]
            header = &wanted_slices[index]
            header.name = data + line.name
            header.name_bytes = line.name_end - line.name
            header.value = data + line.value
            header.value_bytes = line.value_end - line.value
            self.head_bytes += header.name_bytes + header.value_bytes + 2 * OBJECT_BYTES
        request.header_slices = wanted_slices
        request.header_count = self.plain.wanted_lines
        request.header_kinds = self.plain.wanted_kinds
        return 0

    cdef Request request_so_far(self, const char* unused):
        cdef Request request = self.request
        if request is None and self.plain.part >= AT_LINE:
            request = new_request()
            request.method = self.plain.method
            request.minor_version = 1
            request.keep_alive = True
            request.content_length = -1
            if unused != NULL:
                self._take_wanted_lines(request, unused)
                request.keep()
        return request

    cdef int _finish(self) except -1:
        """The request is complete."""
        cdef Request request = self.request
        if request.body is None:
            if self.body_buffer is None:
                request.set_body(b"")
            else:
                if self.body_filled < self.body_room:
                    self._resize_body(self.body_filled)
                request.set_body(self.body_buffer)
                self.body_buffer = None
        self.event = REQUEST_COMPLETE
        return 0

    # The body.

    cdef Py_ssize_t _read_sized_body(self, const char* data, Py_ssize_t size) except -1:
        cdef Request request = self.request
        cdef Py_ssize_t used = <Py_ssize_t> min(<long long> size, self.remaining_bytes)
        cdef bytes piece = None
        if self.handed_over and not self.reader.spent:
            piece = self.reader.read_body(data, used, used == self.remaining_bytes)
        self.remaining_bytes -= used
        if used == request.content_length and used < UNPARSED_BODY_BYTES:
            # It came in one piece, if behind its head.
            if not request.discards_body:
                request.set_body(PyBytes_FromStringAndSize(data, used) if piece is None else piece)
        else:
            self._take_body(data, used)
        if self.remaining_bytes == 0:
            self._finish()
        return used

    cdef Py_ssize_t _read_chunked_body(self, const char* data, Py_ssize_t size) except -1:
        cdef ChunkedBody chunks = self.chunks
        cdef Py_ssize_t used = chunks.read(data, size)
        while chunks.piece_bytes:
            self._take_body(chunks.piece, chunks.piece_bytes)
            used += chunks.read(data + used, size - used)
        if chunks.complete:
            self._finish()
        return used

    cdef int drop_body(self) except -1:
        self.body_buffer = None
        self.body_room = 0
        self.body_filled = 0
        self.request.discards_body = True
        return 0

    cdef int _take_body(self, const char* piece, Py_ssize_t piece_bytes) except -1:
        """Put a piece of the body in its place."""
        cdef Request request = self.request
        cdef Py_ssize_t filled_bytes = self.body_filled + piece_bytes
        if request.discards_body:
            return 0
        if request.body_sink is not None:
            return request.body_sink.take(piece, piece_bytes)
        if filled_bytes > self.body_room:
            if not request.chunked and filled_bytes > request.content_length:
                raise RequestError(MALFORMED_REQUEST, "the body is longer than its Content-Length")
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
        """Resize the buffer, without a copy where the allocator can: only this object has a reference to it."""
        cdef PyObject* buffer = <PyObject*> self.body_buffer
        Py_INCREF(self.body_buffer)
        self.body_buffer = None
        _PyBytes_Resize(&buffer, room_bytes)
        self.body_buffer = <bytes> buffer
        Py_DECREF(self.body_buffer)
        self.body_room = room_bytes
        return 0


cdef bytes recent_path(const char* path, Py_ssize_t path_bytes):
    """The path, which is never empty, as an object: the one that was made for it before, if that is known."""
    cdef Py_ssize_t place = (path_bytes ^ path[path_bytes - 1]) & (RECENT_PATHS - 1)
    cdef bytes known = <bytes> recent_paths[place]
    if PyBytes_GET_SIZE(known) != path_bytes or memcmp(PyBytes_AS_STRING(known), path, path_bytes) != 0:
        known = PyBytes_FromStringAndSize(path, path_bytes)
        recent_paths[place] = known
    return known
