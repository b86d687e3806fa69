"""The request that the load generator sends again and again, and what the answer to it must be."""

cdef enum Check:
    # The answer need only be one, of whatever body.
    CHECK_FRAMING = 0
    # The body is as long as the request's.
    CHECK_LENGTH = 1
    # The body is the request's.
    CHECK_ECHO = 2
    # The body is the request's, last byte first.
    CHECK_REVERSE = 3


cdef class RequestTemplate:
    # One request, head and body; where its serial number goes is written anew for each.
    cdef bytearray text
    cdef Py_ssize_t size
    # Hexadecimal digits of the serial number, and where they are; 0 digits for requests that are all alike.
    cdef Py_ssize_t serial_at
    cdef int serial_digits
    cdef Check check
    # What the answer's body must be, and where the serial number is in it.
    cdef bytearray expected
    cdef Py_ssize_t expected_serial_at
    cdef readonly Py_ssize_t body_bytes
    cdef readonly bint to_head

    cdef void number(self, unsigned long long serial) noexcept
    cdef bint matches(self, unsigned long long serial, Py_ssize_t at, const char* piece, Py_ssize_t size) noexcept
