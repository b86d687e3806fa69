"""Every bound on what a client may send or hold, in one table. Defaults, ranges and precedents are the settings' own
(config/settings). What all clients together may hold is in core/budget, what they may have running in
gateway/admission."""

from gatewayx.core.rates cimport Rate


cdef class Limits:
    # Bytes of the request target.
    cdef readonly Py_ssize_t max_target_bytes
    # Bytes of all header lines of a request, and again of its trailers.
    cdef readonly Py_ssize_t max_header_bytes
    # Header lines of a request, and again of its trailers.
    cdef readonly int max_headers
    # Bytes of a request's body, however it is framed.
    cdef readonly long long max_body_bytes
    # Bytes of all chunk extensions of a request.
    cdef readonly Py_ssize_t max_chunk_extensions_bytes
    # Requests of one connection whose answers are not written yet; above, reading pauses.
    cdef readonly int max_pipelined
    # Open connections of the process, those being refused aside; above, room is made (Room.make_place), or if that
    # cannot be the new one is answered 503 and closed.
    cdef readonly Py_ssize_t max_connections
    # Open connections of one IPv4 address or one IPv6 /64, 0 for any number.
    cdef readonly Py_ssize_t max_connections_per_address
    # Connections of one address that are accepted.
    cdef Rate connection_rate
    # Seconds from accept to the first byte.
    cdef readonly double first_byte_timeout_s
    # Seconds from a head's first byte to its end.
    cdef readonly double header_timeout_s
    # Seconds without a byte of an unfinished body.
    cdef readonly double body_timeout_s
    # Bytes a second that an unfinished body must average once it took longer than the grace, 0 for any.
    cdef readonly Py_ssize_t min_body_rate_bytes
    # Seconds a body may take at whatever rate.
    cdef readonly double body_rate_grace_s
    # Seconds between an answer and the next request's first byte.
    cdef readonly double keepalive_timeout_s
    # Seconds in which a client takes no byte of its answer.
    cdef readonly double write_timeout_s

    # The RequestError of a request that breaks a bound.
    cdef object target_too_long(self)
    cdef object headers_too_large(self)
    cdef object body_too_large(self)
    cdef object chunk_extensions_too_large(self)
