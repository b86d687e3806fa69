"""Answers that come in pieces, with a length or without one.

Theory of operation. The head waits for its turn as any answer does, with the first piece if that is there; once it has left,
each piece is written as it is given, and nothing behind it before its end. Its source is told that pieces are wanted when
the head has left, and again whenever the kernel has taken all. What it has not taken counts in the byte budget, and whoever
takes it too slowly is ended, as of any answer; while nothing waits no time passes for the client.

Without a length a body comes in chunks. To a client of HTTP/1.0 it ends with the connection, which is reset where the body
is not whole (RFC 9112 6.3 and 8).
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE

from gatewayx.core.digits cimport put, put_hex
from gatewayx.http.answering cimport AnsweringClient
from gatewayx.http.records cimport MOST_LINES_BYTES
from gatewayx.http.request cimport METHOD_HEAD, UNKNOWN_BYTES, BodySource, Request
from gatewayx.http.response cimport IN_CHUNKS, INLINE_BODY_BYTES

from gatewayx.errors import StateError
from gatewayx.http import outcomes

cdef enum:
    # What stands around the data of a chunk: its size as 16 digits at most, and two line ends.
    MOST_FRAME_BYTES = 20

cdef int CUT = outcomes.ANSWER_CUT

# Behind the chunks of a body (RFC 9112 7.1).
cdef bytes LAST_CHUNK = b"0\r\n\r\n"


cdef class PiecewiseClient(AnsweringClient):
    """A client's connection and its answers that come in pieces."""

    cdef bint answer_in_pieces(
        self,
        Request request,
        int status,
        bytes content_type,
        const char* headers,
        Py_ssize_t headers_bytes,
        long long body_bytes,
        BodySource source,
        bytes first,
    ) except -1:
        cdef Py_ssize_t size
        cdef char[MOST_LINES_BYTES] lines
        cdef bint has_body = request.method != METHOD_HEAD
        # A client of HTTP/1.0 knows no chunks (RFC 9112 6.1).
        cdef bint in_chunks = has_body and body_bytes == UNKNOWN_BYTES and request.minor_version > 0
        cdef long long due_bytes = body_bytes
        cdef Py_ssize_t inline_bytes = 0
        if request.owner is None or request.answered():
            return False
        if first and has_body:
            inline_bytes = PyBytes_GET_SIZE(first)
            if body_bytes != UNKNOWN_BYTES:
                due_bytes -= inline_bytes
            elif in_chunks:
                first = b"%x\r\n%b\r\n" % (inline_bytes, first)
                inline_bytes = PyBytes_GET_SIZE(first)
            if inline_bytes > INLINE_BODY_BYTES:
                request.response_body = first
                inline_bytes = 0
        size = self.clients.builder.compose(
            status,
            content_type,
            headers,
            headers_bytes,
            lines,
            self._put_lines(lines, request) - lines,
            request.answer_lines,
            PyBytes_AS_STRING(first) if inline_bytes else NULL,
            IN_CHUNKS if in_chunks else body_bytes,
            inline_bytes,
            self.end_with(request, has_body and body_bytes == UNKNOWN_BYTES and not in_chunks),
        )
        request.response = PyBytes_FromStringAndSize(self.clients.builder.composed, size)
        if has_body and due_bytes:
            request.source = source
            request.due_bytes = due_bytes
        if request.response_body is not None:
            size += PyBytes_GET_SIZE(first)
        self._line_up(request, size)
        return request.source is not None

    cdef bint answer_piece(self, Request request, const char* data, Py_ssize_t size) except -1:
        if request.source is None:
            # Its client is gone.
            return False
        if not request.has_left():
            raise StateError("a piece of an answer whose head has not left")
        if size == 0:
            # It would be the last chunk.
            return not self.write_paused
        if request.due_bytes == UNKNOWN_BYTES and request.minor_version > 0:
            size = self._send_chunk(data, size)
        else:
            self.written_bytes += size
            self.stream.send(data, size)
            if request.due_bytes != UNKNOWN_BYTES:
                request.due_bytes -= size
        request.sent_bytes += size
        if self.write_paused:
            self._hold_waiting(size)
        if request.due_bytes:
            return not self.write_paused
        request.source = None
        self.clients.turn.add_client(self)
        return False

    cdef Py_ssize_t _send_chunk(self, const char* data, Py_ssize_t size) except -1:
        cdef char[MOST_FRAME_BYTES + INLINE_BODY_BYTES] framed
        cdef char* end = put(put_hex(framed, size), b"\r\n", 2)
        cdef Py_ssize_t chunk_bytes = end - framed + size + 2
        self.written_bytes += chunk_bytes
        if size <= INLINE_BODY_BYTES:
            self.stream.send(framed, put(put(end, data, size), b"\r\n", 2) - framed)
        else:
            self.stream.write_all([framed[: end - framed], data[:size], b"\r\n"])
        return chunk_bytes

    cdef int _hold_waiting(self, Py_ssize_t more_bytes) except -1:
        cdef long long waiting_bytes = min(self.unread_bytes + more_bytes, <long long> self.stream.pending_bytes())
        more_bytes = waiting_bytes - self.unread_bytes
        self.unread_bytes = waiting_bytes
        return self.hold_answers(more_bytes)

    cdef int end_pieces(self, Request request) except -1:
        if request.source is None or request.due_bytes != UNKNOWN_BYTES:
            return 0
        request.source = None
        if request.minor_version > 0:
            request.sent_bytes += PyBytes_GET_SIZE(LAST_CHUNK)
            if request.has_left():
                # It leaves in one write with the answers behind it.
                request.response = LAST_CHUNK
            elif request.response_body is None:
                request.response += LAST_CHUNK
            else:
                request.response_body += LAST_CHUNK
        return self.clients.turn.add_client(self)

    cdef Py_ssize_t pieces_waiting(self, Request request) except -1:
        if request.owner is None:
            return 0
        if not request.has_left():
            return request.sent_bytes
        if self.write_paused:
            self._hold_waiting(0)
        return min(<Py_ssize_t> request.sent_bytes, self.stream.pending_bytes())

    cdef bint take_back(self, Request request) except -1:
        if request.source is None:
            return False
        if request.has_left():
            # Whoever has less than was announced, or no end, knows that it is not all.
            self.clients.counts.answers_cut += not self.relayed
            self.abort()
            return False
        self.hold_answers(-request.answer_bytes)
        request.answer_bytes = 0
        request.response = None
        request.response_body = None
        request.source = None
        return True

    cdef int cut_answer(self) except -1:
        if self.first is not None and self.first.source is not None and self.first.has_left():
            self.first.outcome = CUT
        return 0
