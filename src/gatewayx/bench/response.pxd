"""Reads the answers on one connection. No I/O: bytes in, what they mean out."""

cpdef enum ReadEvent:
    # All bytes are used.
    NEED_MORE = 0
    # A piece of the body: `body` and `body_bytes` until the next call.
    BODY = 1
    # One answer is complete; bytes behind `consumed` belong to the next one.
    COMPLETE = 2
    # What came is no answer; `problem` says why.
    BAD = 3

cdef enum ReadState:
    IN_HEAD = 0
    IN_SIZED_BODY = 1
    IN_CHUNK_SIZE = 2
    IN_CHUNK = 3
    AFTER_CHUNK = 4
    IN_TRAILERS = 5
    # HTTP/1.0: the body ends with the connection.
    UNTIL_CLOSE = 6
    FAILED = 7

cdef enum:
    # Longest head, chunk size line or trailer section that is read.
    MAX_HEAD_BYTES = 65536


cdef class ResponseReader:
    cdef ReadState state
    # The answer belongs to a HEAD request: no body follows, whatever the head says.
    cdef public bint to_head
    # Of the answer that is read or was read last.
    cdef readonly int status
    # The connection lives after this answer.
    cdef readonly bint keep_alive
    cdef readonly long long body_total_bytes
    cdef readonly str problem
    # How many of the bytes last given were used.
    cdef readonly Py_ssize_t consumed
    cdef const char* body
    cdef Py_ssize_t body_bytes
    # How many bytes of a sized body or chunk are still to come.
    cdef long long left_bytes
    # The begun head or line of which the end has not come yet.
    cdef bytearray held

    cdef ReadEvent read(self, const char* data, Py_ssize_t size)
    cdef bint ended(self) noexcept
    cdef bint begun(self) noexcept
    cdef void reset(self) noexcept
    cdef ReadEvent _fail(self, str problem)
    cdef ReadEvent _hold(self, const char* data, Py_ssize_t size)
    cdef ReadEvent _body_of(self, const char* head, Py_ssize_t size)
    cdef ReadEvent _head(self, const char* data, Py_ssize_t size)
    cdef bint _parse_head(self, const char* head, Py_ssize_t size) noexcept
    cdef ReadEvent _complete(self) noexcept
    cdef ReadEvent _chunk_line(self, const char* data, Py_ssize_t size)
