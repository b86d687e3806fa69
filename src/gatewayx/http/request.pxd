"""One parsed request, and the parser that turns a client's bytes into requests. No I/O."""

from gatewayx.core.budget cimport Held
from gatewayx.core.deadlines cimport Expiring
from gatewayx.http.limits cimport Limits
from gatewayx.core.keyed_hash cimport KeyedHash

cdef enum Method:
    GET = 0
    HEAD = 1
    POST = 2
    PUT = 3
    OPTIONS = 4
    # Any other method that llhttp knows.
    OTHER = 5

cpdef enum Event:
    # All bytes are used, or the rest is an unfinished line to be given again with what follows it.
    MORE = 0
    # The head of `request` is complete, its body is not.
    HEAD_COMPLETE = 1
    # The whole of `request` is there.
    REQUEST_COMPLETE = 2


cdef class Request:
    cdef readonly Method method
    # Path and query as sent, still percent-encoded; "*" for the asterisk-form. Without scheme and authority.
    cdef readonly bytes path
    # What follows the first "?"; None without one.
    cdef readonly bytes query
    # 0 or 1: HTTP/1.0 or HTTP/1.1.
    cdef readonly int minor_version
    # The client lets the connection live after the answer.
    cdef readonly bint keep_alive
    # -1 without a Content-Length.
    cdef readonly long long content_length
    cdef readonly bint chunked
    # It waits for "100 Continue", and has not been told so.
    cdef readonly bint expects_continue
    # Names and values in turn, of the headers that the handler wants.
    cdef readonly list headers
    # The whole body once the request is complete; empty without one.
    cdef readonly bytes body

    # The rest is kept by who answers.

    # Where the answer goes; None once the client is gone.
    cdef RequestOwner owner
    # Takes a body that comes in pieces, as it arrives; set by the handler in begin() if it wants that, else None. Of one
    # that is there at once it takes nothing.
    cdef KeyedHash body_hash
    # Nobody needs the body any more: it is read and dropped.
    cdef bint discards_body
    # What is kept of it once it is complete counts in the byte budget until it is answered; what that is beside the
    # fields above, in bytes, is for the handler to say.
    cdef Held held
    cdef Py_ssize_t context_bytes
    cdef bint complete
    # "100 Continue" is due as soon as the answers before this one are written.
    cdef bint continue_due
    # The answer: head and small body in one, and a large body beside it; None until it is known.
    cdef bytes response
    cdef object response_body
    # What the answer has of its connection's answers_held.
    cdef Py_ssize_t answer_bytes
    # The tick at which it was known.
    cdef long long answered_tick
    # The connection ends after this answer.
    cdef bint closes
    # The next request of the same connection.
    cdef Request next
    # The handler's own.
    cdef object context

    cdef inline bint answered(self) noexcept:
        return self.response is not None

    # Nobody needs head and body any more.
    cdef int let_go(self) except -1
    # What is still kept of it, in bytes.
    cdef inline Py_ssize_t kept_bytes(self):
        return self.context_bytes if self.path is None else self.context_bytes + self.head_and_body_bytes()

    cdef Py_ssize_t head_and_body_bytes(self)


cdef class RequestOwner(Expiring):
    """Who takes the answer to a request: the client's connection, which has deadlines of its own."""
    # headers: further header lines, each with its CRLF; None for none. body: bytes or bytearray.
    cdef int answer(self, Request request, int status, bytes content_type, bytes headers, object body) except -1
    # An answer that tells of a Problem (http/problems), with its own words where detail is None and its own header lines
    # where headers is None. A 503 or 429 gets Retry-After by itself.
    cdef int answer_problem(self, Request request, object problem, str detail, bytes headers) except -1
    # Room for a body that grows: so many bytes are needed, more are wanted. Returns how many there may be; 0 if those that
    # are needed do not fit.
    cdef Py_ssize_t body_room(self, Request request, Py_ssize_t needed_bytes, Py_ssize_t wanted_bytes) except -1


cdef class RequestHandler:
    """Who knows what requests mean. It answers each through request.owner, now or later."""
    # Whether headers of this name are kept for the handler; the name as sent.
    cdef bint wants_header(self, const char* name, Py_ssize_t name_bytes)
    # The head is complete. An answer given here spares the reading of the body.
    cdef int begin(self, Request request) except -1
    # The whole request is there and not answered yet.
    cdef int handle(self, Request request) except -1
    # The client is gone or was answered otherwise: no answer is wanted any more. Follows every begin() that is not
    # answered.
    cdef int abandon(self, Request request) except -1


cdef enum ParserState:
    REQUEST_LINE
    HEADER_LINES
    SIZED_BODY
    CHUNK_SIZE
    CHUNK_DATA
    CHUNK_END
    TRAILER_LINES


cdef class RequestParser:
    cdef readonly Limits limits
    cdef RequestHandler handler
    # The request being read; None between requests.
    cdef readonly Request request
    # What the last feed() came to.
    cdef readonly Event event

    # The httptools parser that calls this object back, and its feed_data.
    cdef object parser
    cdef object feed_data
    # Its state is spoilt: a new one is made before the next request.
    cdef bint parser_spent

    cdef ParserState state
    # Header lines, or trailers, of this request so far.
    cdef int header_lines
    cdef Py_ssize_t header_bytes
    # What is kept of the head, in bytes.
    cdef Py_ssize_t head_bytes
    # The Content-Length of this request's header lines as read here; -1 for none.
    cdef long long seen_length
    # Bytes still to come of the sized body or of the chunk.
    cdef long long remaining_bytes
    # Data and extensions of all chunks so far.
    cdef long long body_bytes
    cdef Py_ssize_t chunk_extension_bytes
    # The unfinished chunk line is looked at again once it has so many bytes; 0 for at once.
    cdef Py_ssize_t next_line_check_bytes
    # A body that comes in pieces, with room to grow, which `body_room` counts.
    cdef bytes body_buffer
    cdef Py_ssize_t body_room
    cdef Py_ssize_t body_filled
    # There was no room for the body being read: it is dropped, and to be answered so.
    cdef bint over_budget

    # What the callbacks have told of this request.
    cdef bint head_done
    cdef bint message_done
    cdef bint saw_connection
    # Connection lists "close", or "keep-alive".
    cdef bint option_close
    cdef bint option_keep_alive
    cdef bint is_connect
    cdef bint unknown_expectation
    cdef int host_headers
    cdef bint host_valid
    cdef int transfer_encodings
    cdef bint transfer_encoding_chunked
    # Callbacks belong to a head that was fed for the parser's own sake.
    cdef bint muted

    cpdef Py_ssize_t feed(self, bytes data, Py_ssize_t offset) except -1
    cdef int start_next(self) except -1
    # Let go what is here of the body; the rest is read and dropped.
    cdef int drop_body(self) except -1
    cdef Py_ssize_t _read_head(self, bytes data, Py_ssize_t offset) except -1
    cdef Py_ssize_t _read_sized_body(self, bytes data, Py_ssize_t offset) except -1
    cdef Py_ssize_t _read_chunked_body(self, bytes data, Py_ssize_t offset) except -1
    cdef int _request_line(self, const char* line, Py_ssize_t line_bytes) except -1
    cdef int _target(self, const char* target, Py_ssize_t target_bytes) except -1
    cdef int _unfinished_request_line(self, const char* line, Py_ssize_t line_bytes) except -1
    cdef int _feed(self, bytes data, Py_ssize_t start, Py_ssize_t end, Py_ssize_t head_end) except -1
    cdef int _serve_without_upgrade(self, bytes data, Py_ssize_t head_end, Py_ssize_t end) except -1
    cdef int _take_body(self, const char* piece, Py_ssize_t piece_bytes) except -1
    cdef int _grow_body(self, Py_ssize_t needed_bytes) except -1
    cdef int _resize_body(self, Py_ssize_t room_bytes) except -1
    cdef int _chunk_line(self, const char* line, const char* end, bint complete) except -1
    cdef bint _trailer_line(self, const char* line, const char* end, bint complete) except -1
    cdef int _check_head(self) except -1
    cdef object _refusal(self, error)
    cdef object _transfer_encoding_refusal(self)
    cdef object _target_too_long(self)
    cdef object _headers_too_large(self)
    cdef object _body_too_large(self)
    cdef int _finish(self) except -1
