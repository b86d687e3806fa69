"""Every bound on what a client may send or hold, in one table; the .pxd says what each is."""

cimport cython


@cython.final
cdef class Limits:
    """Bounds on a client, in C. settings: has them as attributes, as gatewayx.config.settings.Settings does."""

    def __init__(self, settings):
        self.max_target_bytes = settings.max_target_bytes
        self.max_header_bytes = settings.max_header_bytes
        self.max_headers = settings.max_headers
        self.max_body_bytes = settings.max_body_bytes
        self.max_chunk_extension_bytes = settings.max_chunk_extensions_bytes
        self.max_pipelined = settings.max_pipelined
        self.max_connections = settings.max_connections
        self.max_connections_per_address = settings.max_connections_per_address
        self.first_byte_timeout_s = settings.first_byte_timeout_s
        self.header_timeout_s = settings.header_timeout_s
        self.body_timeout_s = settings.body_timeout_s
        self.min_body_rate_bytes = settings.min_body_rate_bytes
        self.body_rate_grace_s = settings.body_rate_grace_s
        self.keepalive_timeout_s = settings.keepalive_timeout_s
        self.write_timeout_s = settings.write_timeout_s
