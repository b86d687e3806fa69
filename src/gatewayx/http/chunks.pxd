"""Chunked bodies (RFC 9112 7.1). No I/O: bytes in, the data of the chunks out."""

from gatewayx.http.limits cimport Limits

cdef enum ChunkState:
    # Within the line with a chunk's size and extensions.
    SIZE_LINE
    CHUNK_DATA
    # Within the CRLF behind the data.
    CHUNK_END
    TRAILER_LINES


cdef class ChunkedBody:
    # The empty line behind the trailers was read.
    cdef readonly bint complete
    # The data that the last read() has come to; it points into what was given then.
    cdef const char* piece
    cdef Py_ssize_t piece_bytes

    # Read on, to the end of one piece of data at most; returns how many bytes were used. Without a piece all are used
    # that can be: the rest belongs to the next request if the body is complete, and is an unfinished line otherwise, to
    # be given again with what follows it. Raises RequestError; the object is of no use afterwards.
    cdef Py_ssize_t read(self, const char* data, Py_ssize_t size) except -1

    # How far it is.

    cdef Limits limits
    # The data of all chunks together may be any number of bytes.
    cdef bint is_endless
    cdef ChunkState state
    # Bytes of the chunk's data still to come.
    cdef long long remaining_bytes
    # What all chunks so far declare, and what their extensions took.
    cdef long long body_bytes
    cdef Py_ssize_t extension_bytes
    # The unfinished size line is looked at again once it has so many bytes; 0 for at once.
    cdef Py_ssize_t next_check_bytes
    # Trailers so far.
    cdef int trailer_lines
    cdef Py_ssize_t trailer_bytes

    cdef int _size_line(self, const char* line, const char* end, bint complete) except -1
    cdef bint _trailer_line(self, const char* line, const char* end, bint complete) except -1
