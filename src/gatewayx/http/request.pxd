"""One request, who takes its answer, and who knows what it means: all that the rooms behind http see of it. No I/O."""

from cpython.bytes cimport PyBytes_GET_SIZE

from gatewayx.core.budget cimport Held
from gatewayx.net.stream cimport StreamOwner

from libc.stdint cimport uint64_t

cdef enum Method:
    METHOD_GET = 0
    METHOD_HEAD = 1
    METHOD_POST = 2
    METHOD_PUT = 3
    METHOD_OPTIONS = 4
    METHOD_DELETE = 5
    # Any other method that llhttp knows.
    METHOD_OTHER = 6


cdef enum:
    # What an object and its place in a list take beside the bytes of a kept header's name or value.
    OBJECT_BYTES = 48
    # Of the name that a request is given here.
    ID_BYTES = 28
    # In the place of a length: the body ends when it ends.
    UNKNOWN_BYTES = -1
    # Of the name that its client has given it so much is kept, and of a trace this.
    MOST_CLIENT_ID_BYTES = 128
    TRACE_ID_BYTES = 32


# A header, where it lies in what was received.
cdef struct HeaderSlice:
    const char* name
    Py_ssize_t name_bytes
    const char* value
    Py_ssize_t value_bytes


cdef class RequestNote:
    """What the access log tells of a request beside what the Request knows. None for what is not known, or not there."""
    # As sent, percent-encoded, without the query.
    cdef bytes path
    # The client's address; its connection, by number, and which request on that it is, both from 1.
    cdef bytes client
    # The name of its token.
    cdef bytes token
    cdef unsigned int connection
    cdef unsigned int number
    # The name that the client has given it (X-Request-Id), and the trace that it is part of (traceparent).
    cdef bytes client_id
    cdef bytes trace
    cdef bytes function
    cdef bytes unique
    # The job's handle, and the job server's name.
    cdef bytes handle
    cdef bytes server

    # All that is kept for it alone.
    cdef Py_ssize_t held_bytes(self)


cdef class ProxyNote:
    """What a trusted proxy tells of a request that it passes on; for a relayed one, what the process tells that relays it."""
    # The client's address as text; as it counts (http/refusals.address_key), which of a request that counts is that of the
    # connection where the proxy tells of none; and the hash of that (core/shared), 0 until somebody asks. None where the connection's own
    # address is meant.
    cdef bytes host
    cdef bytes address
    cdef uint64_t address_hash
    # Where the request counts in shared.addresses while it is in flight, -1 for nowhere.
    cdef int address_slot
    # What the request is called, in place of a name of ours; None for nothing.
    cdef bytes name

    # All that is kept for it alone.
    cdef Py_ssize_t held_bytes(self)


cdef class BodySink:
    """Takes the body of a request as it arrives."""
    cdef int take(self, const char* piece, Py_ssize_t piece_bytes) except -1


cdef class BodySource(BodySink):
    """Has the body of an answer that comes in pieces."""
    # The client takes the next piece.
    cdef int wanted(self) except -1


cdef class Request:
    # What the parser has read.

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
    # The client waits for "100 Continue", and has not been told so.
    cdef readonly bint expects_continue
    # The value of Host, or the host and port of a target that has them, in memory of the parser's until begin() returns; the
    # last one's where there are several, no bytes without one.
    cdef const char* host_start
    cdef Py_ssize_t host_bytes
    # The headers that the handler wants. They are in memory of the parser's until begin() returns: as slices, or as names
    # and values in turn; None without any of the second kind.
    cdef const HeaderSlice* header_slices
    cdef int header_count
    # Of which kinds they are, as bits that the handler gives them.
    cdef int header_kinds
    cdef readonly list headers
    # The whole body once the request is complete, in what was received until handle() returns, or in an object; None for
    # no object.
    cdef const char* body_start
    cdef Py_ssize_t body_bytes
    cdef readonly bytes body

    # What the handler says of it in begin().

    # Is given a body that comes in pieces as it arrives, beside whoever keeps it; None for nobody. A body that comes at once is not
    # given to it.
    cdef BodySink body_hash
    # The same, but nothing of the body is kept here; one that comes at once is not given to it either.
    cdef BodySink body_sink
    # The body is read and dropped: nobody needs it.
    cdef bint discards_body
    # Header lines that the handler wants in the answer, whatever that is; None for none.
    cdef bytes answer_lines
    # The handler's own, and what that takes beside the fields above, in bytes.
    cdef object context
    cdef Py_ssize_t context_bytes

    # What the connection knows of it.

    # The client's connection; None before it has begun, again once its answer is written and all of it has come, and once the client is gone.
    cdef RequestOwner owner
    # The body has arrived, too.
    cdef bint complete
    # What is kept of it once it is complete counts in the byte budget until it is answered.
    cdef Held held
    # "100 Continue" is due as soon as the answers before this one are written.
    cdef bint continue_due
    # The answer: head and small body in one, and a large body beside it; None until it is known, empty once it has left.
    cdef bytes response
    cdef object response_body
    # Who has the rest of its body, of so many bytes or UNKNOWN_BYTES, once its head is known; None for nobody.
    cdef BodySource source
    cdef long long due_bytes
    # What the answer has of its connection's answers_held.
    cdef Py_ssize_t answer_bytes
    # The tick at which the answer was known.
    cdef long long answered_tick
    # The connection ends after the answer.
    cdef bint closes

    # What is told of it (http/records).

    # The name that is made for it; of a relayed one that of the process to which the client is connected. What it is called is
    # told by request_name().
    cdef char[ID_BYTES] id
    # When its head was complete, by now_ns().
    cdef long long begun_ns
    # What its job took until its end was known, -1 without one.
    cdef long long job_ns
    # Among the functions, and for the job the job servers, of core/metrics; how it has ended, of http/outcomes.
    cdef int function_place
    cdef int server_place
    cdef int outcome
    # One more than the place of its token there; 0 without a token.
    cdef int token_place
    # Bytes of head and body as they came, and of the answer.
    cdef long long received_bytes
    cdef long long sent_bytes
    # None unless the access log may tell of it.
    cdef RequestNote note
    # None unless a trusted proxy has told something of it. Requests that the gateway makes itself for this one have the same.
    cdef ProxyNote proxy_note

    # The next request of the same connection.
    cdef Request next

    cdef inline bint answered(self) noexcept:
        return self.response is not None

    # Whether the answer has left, or of one that comes in pieces the head: it was left empty then.
    cdef inline bint has_left(self) noexcept:
        return self.response is not None and PyBytes_GET_SIZE(self.response) == 0

    # How many headers the handler wanted.
    cdef inline int wanted_headers(self):
        return self.header_count if self.headers is None else <int> (len(self.headers) // 2)

    # Nobody needs head and body any more.
    cdef int let_go(self) except -1
    # For whoever outlives the call in which the request was read: make objects of what are slices.
    cdef int keep(self) except -1
    # The body is this object.
    cdef int set_body(self, bytes body) except -1
    # What is still kept of it, in bytes.
    cdef inline Py_ssize_t kept_bytes(self):
        cdef Py_ssize_t kept = self.context_bytes + self.noted_bytes()
        return kept if self.path is None else kept + self.head_and_body_bytes()

    cdef inline Py_ssize_t noted_bytes(self):
        return (0 if self.note is None else self.note.held_bytes()) + (
            0 if self.proxy_note is None else self.proxy_note.held_bytes()
        )

    cdef Py_ssize_t head_and_body_bytes(self)


# One of the headers that the handler wanted, without the white space around its value.
cdef int header_slice(Request request, int index, HeaderSlice* header) except -1


# What it is called: by its proxy, or here.
cdef bytes request_name(Request request)


# An empty Request; a module that is not Request's own would make one through a slower call.
cdef Request new_request()
# One of which nothing was read yet, and which is answered all the same.
cdef Request unread_request()


cdef class RequestOwner(StreamOwner):
    """Who takes the answer to a request: the client's connection, which stands on a stream and has deadlines."""
    # What the handler has found out of the certificate that the client shows, and its alone; None while it has not looked.
    cdef object certified

    # The names in the client's certificate, if it has shown one that was verified, as net/stream has them; None for none.
    cdef object client_names(self)
    # Whether another process of this gateway asks, for a client of its own.
    cdef bint is_relayed(self) noexcept
    # The address that asks by this request, as it counts; None for none.
    cdef bytes asker(self, Request request)
    # The hash of that (core/shared), 0 for none.
    cdef uint64_t asker_hash(self, Request request) except? 0
    # Where another process asks, whose token its client has, as that process tells it; None for none, and for a client of our
    # own. It is known until handle() has returned.
    cdef bytes token_mark(self)
    # headers: further header lines, each with its CRLF, which are the caller's. body: bytes or bytearray; None for an answer that
    # cannot have one, as with 204 and 304.
    cdef int answer(
        self,
        Request request,
        int status,
        bytes content_type,
        const char* headers,
        Py_ssize_t headers_bytes,
        object body,
    ) except -1
    # An answer whose body of body_bytes comes in pieces: its source is told when the client takes them. Returns whether any is
    # wanted; not of an answer to HEAD, nor once nobody is there. With UNKNOWN_BYTES it comes in chunks, or to HTTP/1.0 up to the
    # end of the connection, until end_pieces(). first: a piece that leaves in one write with the head; None for none.
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
    ) except -1
    # A piece of it, which is wanted. Returns whether the next one is, too; if not, the source is told when it is. Of an answer
    # without a length a piece may be given that is not wanted, if its head has left: pieces_waiting() tells how much waits.
    cdef bint answer_piece(self, Request request, const char* data, Py_ssize_t size) except -1
    # The whole of an answer without a length was given. After the last piece of one that has a length nothing is said.
    cdef int end_pieces(self, Request request) except -1
    # How many bytes of it were given that the kernel has not taken yet, head and framing included.
    cdef Py_ssize_t pieces_waiting(self, Request request) except -1
    # The rest of it never comes. Returns whether another answer can be given: the client has had nothing of this one.
    cdef bint take_back(self, Request request) except -1
    # An answer that tells of a Problem (http/problems), with its own words where detail is None and its own header lines
    # where headers is None. A 503 or 429 gets Retry-After by itself, unless they have one.
    cdef int answer_problem(self, Request request, object problem, str detail, bytes headers) except -1
    # Whoever takes the body as it arrives takes no more for now, or more again.
    cdef int pause_body(self, bint pause) except -1
    # The parser asks for room for a body that grows: so many bytes are needed, more are wanted. Returns how many there
    # may be; 0 if those that are needed do not fit.
    cdef Py_ssize_t body_room(self, Request request, Py_ssize_t needed_bytes, Py_ssize_t wanted_bytes) except -1


cdef class RequestHandler:
    """Who knows what requests mean. It answers each through request.owner, now or later."""
    # Whether a header of this name, whose value has so many bytes, is kept for the handler, 0 if not; what is returned of all
    # that are is in the request's header_kinds. The name as sent. Host is kept without being asked for.
    cdef int wants_header(self, const char* name, Py_ssize_t name_bytes, Py_ssize_t value_bytes) except -1
    # The head is complete. An answer given here spares the reading of the body.
    cdef int begin(self, Request request) except -1
    # The request is refused before it has begun, of which no more may be known than is here: which lines its answer has, that is.
    cdef int refused(self, Request request) except -1
    # The whole request is there and not answered yet.
    cdef int handle(self, Request request) except -1
    # The client is gone or was answered otherwise: no answer is wanted any more. Follows every begin() that is not
    # answered.
    cdef int abandon(self, Request request) except -1
