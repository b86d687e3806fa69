"""Every bound on what a client may send or hold, in one table."""


cdef class Limits:
    # Bytes of the request target; nginx bounds the whole request line by one buffer of 8 KiB.
    cdef readonly Py_ssize_t max_target_bytes
    # Bytes of all header lines of a request, and again of its trailers; Apache bounds a line at 8 KiB, Node all at 16 KiB.
    cdef readonly Py_ssize_t max_header_bytes
    # Header lines of a request, and again of its trailers; Apache: 100.
    cdef readonly int max_headers
    # Bytes of a request's body, however it is framed; nginx: 1 MiB.
    cdef readonly long long max_body_bytes
    # Bytes of all chunk extensions of a request (CVE-2023-39326: extensions are a cheap way to keep a server reading).
    cdef readonly Py_ssize_t max_chunk_extension_bytes
    # Requests of one connection whose answers are not written yet; above, reading pauses.
    cdef readonly int max_pipelined
    # Open connections of the process; above, a new one is answered 503 and closed.
    cdef readonly int max_connections
    # Seconds from accept to the first byte, and from a head's first byte to its end; nginx: 60, HAProxy advises 10.
    cdef readonly double header_timeout_s
    # Seconds without a byte of an unfinished body; nginx: 60.
    cdef readonly double body_timeout_s
    # Seconds between an answer and the next request's first byte; nginx: 75.
    cdef readonly double keepalive_timeout_s
    # Seconds in which a client takes no byte of its answer; nginx: 60.
    cdef readonly double write_timeout_s
