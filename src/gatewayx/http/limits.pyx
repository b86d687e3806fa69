"""Every bound on what a client may send or hold, in one table; the .pxd says what each is."""

cimport cython

from gatewayx.core.rates cimport rate_of

from gatewayx.http.problems import (
    BODY_TOO_LARGE,
    CHUNK_EXTENSIONS_TOO_LARGE,
    HEADERS_TOO_LARGE,
    TARGET_TOO_LONG,
    RequestError,
)


@cython.final
cdef class Limits:
    """Bounds on a client, in C. settings: has them as attributes, as gatewayx.config.settings.Settings does."""

    def __init__(self, settings):
        self.change(settings)

    def change(self, settings):
        """Be as these say, for requests that are under way as well."""
        rate = settings.connection_rate
        self.connection_rate = rate_of(0, 0) if rate is None else rate_of(rate.per_s, rate.burst)
        self.max_target_bytes = settings.max_target_bytes
        self.max_header_bytes = settings.max_header_bytes
        self.max_headers = settings.max_headers
        self.max_body_bytes = settings.max_body_bytes
        self.max_chunk_extensions_bytes = settings.max_chunk_extensions_bytes
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

    cdef object target_too_long(self):
        return RequestError(TARGET_TOO_LONG, f"the target is longer than {self.max_target_bytes} bytes")

    cdef object headers_too_large(self):
        return RequestError(
            HEADERS_TOO_LARGE, f"more than {self.max_headers} header lines or {self.max_header_bytes} bytes of them"
        )

    cdef object body_too_large(self):
        return RequestError(BODY_TOO_LARGE, f"the body is larger than {self.max_body_bytes} bytes")

    cdef object chunk_extensions_too_large(self):
        return RequestError(
            CHUNK_EXTENSIONS_TOO_LARGE, f"the chunk extensions are larger than {self.max_chunk_extensions_bytes} bytes"
        )
