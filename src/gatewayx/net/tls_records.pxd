"""Where the records of TLS end, in bytes as they come: what they hold nobody can see."""

cdef enum:
    # A type, a version and the length of the rest (RFC 8446 5.1).
    RECORD_HEAD_BYTES = 5


# Of one direction of a connection, from its first byte on; begins as zeros.
cdef struct RecordCount:
    # Of the record that comes: how much of its head has come, the last two bytes of that, and how much of the rest has not.
    int head_bytes
    int length
    int left_bytes


# How many records have their last byte among these.
cdef int count_records(RecordCount* count, const unsigned char* data, Py_ssize_t size) noexcept nogil
