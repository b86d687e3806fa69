"""What stands before each request that a process relays to another one of its gateway: who asks.

No request line begins with its first byte, so it is taken for none, and no request for it. No I/O.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

# The fifth byte is the version.
cdef bytes BEGINNING = b"\x00gwx\x01"


cdef bytes make_preamble(bytes address):
    if address is None:
        address = b""
    return BEGINNING + bytes((len(address),)) + address


cdef Py_ssize_t preamble_bytes(bytes begun) noexcept:
    cdef const unsigned char* text = <const unsigned char*> PyBytes_AS_STRING(begun)
    cdef const unsigned char* beginning = <const unsigned char*> PyBytes_AS_STRING(BEGINNING)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(begun)
    cdef Py_ssize_t index
    for index in range(min(size, PREAMBLE_HEAD_BYTES - 1)):
        if text[index] != beginning[index]:
            return MALFORMED_PREAMBLE
    if size < PREAMBLE_HEAD_BYTES:
        return UNFINISHED_PREAMBLE
    if text[PREAMBLE_HEAD_BYTES - 1] > MOST_ADDRESS_BYTES:
        return MALFORMED_PREAMBLE
    if size < PREAMBLE_HEAD_BYTES + text[PREAMBLE_HEAD_BYTES - 1]:
        return UNFINISHED_PREAMBLE
    return PREAMBLE_HEAD_BYTES + text[PREAMBLE_HEAD_BYTES - 1]


cdef bytes preamble_address(bytes begun):
    return begun[PREAMBLE_HEAD_BYTES : preamble_bytes(begun)] or None
