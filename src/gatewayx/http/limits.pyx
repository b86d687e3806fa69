"""Every bound on what a client may send or hold, in one table; units, sources and precedents are in the .pxd."""

cimport cython


@cython.final
cdef class Limits:
    """Bounds on a client. Sizes are bytes, times seconds; all above 0, or 0 where the .pxd says that it means any."""

    def __init__(
        self,
        *,
        Py_ssize_t max_target_bytes=8 * 1024,
        Py_ssize_t max_header_bytes=16 * 1024,
        int max_headers=100,
        long long max_body_bytes=8 * 1024 * 1024,
        Py_ssize_t max_chunk_extension_bytes=4 * 1024,
        int max_pipelined=64,
        Py_ssize_t max_connections=10_000,
        Py_ssize_t max_connections_per_address=0,
        double first_byte_timeout_s=10,
        double header_timeout_s=10,
        double body_timeout_s=30,
        Py_ssize_t min_body_rate_bytes=1024,
        double body_rate_grace_s=10,
        double keepalive_timeout_s=75,
        double write_timeout_s=30,
    ):
        self.max_target_bytes = max_target_bytes
        self.max_header_bytes = max_header_bytes
        self.max_headers = max_headers
        self.max_body_bytes = max_body_bytes
        self.max_chunk_extension_bytes = max_chunk_extension_bytes
        self.max_pipelined = max_pipelined
        self.max_connections = max_connections
        self.max_connections_per_address = max_connections_per_address
        self.first_byte_timeout_s = first_byte_timeout_s
        self.header_timeout_s = header_timeout_s
        self.body_timeout_s = body_timeout_s
        self.min_body_rate_bytes = min_body_rate_bytes
        self.body_rate_grace_s = body_rate_grace_s
        self.keepalive_timeout_s = keepalive_timeout_s
        self.write_timeout_s = write_timeout_s
