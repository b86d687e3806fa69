"""Every bound on what a client may send or hold, in one table. What all clients together may hold is in
gatewayx.core.budget, what they may have running in gateway/admission."""


cdef class Limits:
    # Bytes of the request target; nginx bounds the whole request line by one buffer of 8 KiB, Apache by 8190 bytes.
    cdef readonly Py_ssize_t max_target_bytes
    # Bytes of all header lines of a request, and again of its trailers; Node.js bounds all at 16 KiB, nginx at 32 KiB.
    cdef readonly Py_ssize_t max_header_bytes
    # Header lines of a request, and again of its trailers; Apache, hyper, Envoy: 100.
    cdef readonly int max_headers
    # Bytes of a request's body, however it is framed; nginx: 1 MiB, PHP: 8 MiB.
    cdef readonly long long max_body_bytes
    # Bytes of all chunk extensions of a request; hyper: 16 KiB (CVE-2023-39326: a cheap way to keep a server reading).
    cdef readonly Py_ssize_t max_chunk_extension_bytes
    # Requests of one connection whose answers are not written yet; above, reading pauses. nginx has 128 HTTP/2 streams.
    cdef readonly int max_pipelined
    # Open connections of the process, those being refused aside; above, the longest idle is closed to make room (nginx
    # reuses connections so), or if none is idle the new one is answered 503 and closed.
    cdef readonly Py_ssize_t max_connections
    # Open connections of one IPv4 address or one IPv6 /64, 0 for any number; nginx: limit_conn.
    cdef readonly Py_ssize_t max_connections_per_address
    # Seconds from accept to the first byte; HAProxy's timeout http-request counts from there, too.
    cdef readonly double first_byte_timeout_s
    # Seconds from a head's first byte to its end; nginx: 60, HAProxy advises 10.
    cdef readonly double header_timeout_s
    # Seconds without a byte of an unfinished body; nginx: 60.
    cdef readonly double body_timeout_s
    # Bytes a second that an unfinished body must average once it took longer than the grace, 0 for any; Apache
    # RequestReadTimeout: 500, Kestrel MinRequestBodyDataRate: 240.
    cdef readonly Py_ssize_t min_body_rate_bytes
    # Seconds a body may take at whatever rate; Apache: 20, Kestrel: 5.
    cdef readonly double body_rate_grace_s
    # Seconds between an answer and the next request's first byte; nginx: 75.
    cdef readonly double keepalive_timeout_s
    # Seconds in which a client takes no byte of its answer; nginx: 60, h2o: 30.
    cdef readonly double write_timeout_s
