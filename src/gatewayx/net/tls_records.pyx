"""Where the records of TLS end, in bytes as they come (RFC 8446 5.1)."""


cdef int count_records(RecordCount* count, const unsigned char* data, Py_ssize_t size) noexcept nogil:
    cdef int ended = 0
    cdef Py_ssize_t part
    while size > 0:
        if count.left_bytes > 0:
            part = size if size < count.left_bytes else count.left_bytes
            count.left_bytes -= <int> part
            data += part
            size -= part
        else:
            count.head_bytes += 1
            if count.head_bytes > RECORD_HEAD_BYTES - 2:
                count.length = (count.length << 8 | data[0]) & 0xFFFF
            data += 1
            size -= 1
            if count.head_bytes < RECORD_HEAD_BYTES:
                continue
            count.left_bytes = count.length
        if count.left_bytes == 0:
            ended += 1
            count.head_bytes = 0
    return ended


def record_ends(pieces):
    """How many records end in each of these pieces of a connection's bytes; for tests."""
    cdef RecordCount count = RecordCount(0, 0, 0)
    cdef bytes piece
    ended = []
    for piece in pieces:
        ended.append(count_records(&count, piece, len(piece)))
    return ended
