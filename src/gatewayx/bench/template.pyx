"""The request that the load generator sends again and again, and what the answer to it must be."""

from libc.string cimport memcmp

cimport cython

CHECKS = {"framing": CHECK_FRAMING, "length": CHECK_LENGTH, "echo": CHECK_ECHO, "reverse": CHECK_REVERSE}

# The least body that has room for numbers: two characters that tell runs apart and six digits.
LEAST_UNIQUE_BYTES = 8
cdef int MOST_DIGITS = 12
cdef int MOST_TAG_BYTES = 8

cdef char* HEXADECIMAL = b"0123456789abcdef"


@cython.final
cdef class RequestTemplate:
    """The request that is sent again and again.

    head: request line and headers without Content-Length and the empty line, each with its CRLF. body: None for a
    request without one. tag: if not empty, each body is unique: it begins with the start of the tag and a number, in
    place of its own first bytes. check: one of CHECKS. Raises ValueError if the body is too short to be unique.
    """

    def __init__(self, bytes head, body, bytes tag, check):
        cdef Py_ssize_t tag_bytes
        text = bytearray(head)
        body = None if body is None else bytearray(body)
        self.body_bytes = len(body or b"")
        if body is not None:
            text += b"Content-Length: %d\r\n" % len(body)
        text += b"\r\n"
        if tag:
            if self.body_bytes < LEAST_UNIQUE_BYTES:
                raise ValueError(f"unique bodies need {LEAST_UNIQUE_BYTES} bytes, not {self.body_bytes}")
            self.serial_digits = min(MOST_DIGITS, self.body_bytes - 2)
            tag_bytes = min(MOST_TAG_BYTES, self.body_bytes - self.serial_digits, len(tag))
            body[:tag_bytes] = tag[:tag_bytes]
            body[tag_bytes:tag_bytes + self.serial_digits] = b"0" * self.serial_digits
            self.serial_at = len(text) + tag_bytes
            self.expected_serial_at = tag_bytes
        text += body or b""
        self.text = text
        self.size = len(text)
        self.to_head = head.startswith(b"HEAD ")
        self.check = CHECKS[check]
        self.expected = bytearray(body or b"")
        if self.check == CHECK_REVERSE:
            self.expected.reverse()
            self.expected_serial_at = self.body_bytes - self.expected_serial_at - self.serial_digits

    cdef void number(self, unsigned long long serial) noexcept:
        """Make it the request of this number."""
        cdef char* digits = <char*> self.text + self.serial_at
        cdef int position
        for position in range(self.serial_digits - 1, -1, -1):
            digits[position] = HEXADECIMAL[serial & 15]
            serial >>= 4

    cdef bint matches(self, unsigned long long serial, Py_ssize_t at, const char* piece, Py_ssize_t size) noexcept:
        """Whether a piece of the answer's body, so far from its start, is what it must be."""
        cdef char* digits
        cdef int position, step
        if self.check < CHECK_ECHO:
            return True
        if at + size > self.body_bytes:
            return False
        if self.serial_digits:
            digits = <char*> self.expected + self.expected_serial_at
            for step in range(self.serial_digits):
                position = step if self.check == CHECK_REVERSE else self.serial_digits - 1 - step
                digits[position] = HEXADECIMAL[serial & 15]
                serial >>= 4
        return memcmp(<char*> self.expected + at, piece, size) == 0
