"""What stands before each request that a process relays to another one of its gateway: who asks.

No request line begins with its first byte, so it is taken for none, and no request for it. No I/O.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

from libc.string cimport memcpy

from gatewayx.core.digits cimport put, put_bytes
from gatewayx.http.forwarded cimport MOST_NAME_BYTES
from gatewayx.http.request cimport ID_BYTES, Request

# The fifth byte is the version.
cdef bytes BEGINNING = b"\x00gwx\x04"
cdef bytes NO_MARK = bytes(MARK_BYTES)


cdef char* put_preamble(char* end, Request request, bytes mark, bytes address) noexcept:
    cdef bytes name = None if request.proxy_note is None else request.proxy_note.name
    end = put(put_bytes(end, BEGINNING), request.id, ID_BYTES)
    end = put(end, PyBytes_AS_STRING(NO_MARK if mark is None else mark), MARK_BYTES)
    end[0] = <char> (0 if address is None else PyBytes_GET_SIZE(address))
    end[1] = <char> (0 if name is None else PyBytes_GET_SIZE(name))
    end += 2
    if address is not None:
        end = put_bytes(end, address)
    return end if name is None else put_bytes(end, name)


cdef Py_ssize_t preamble_bytes(bytes begun) noexcept:
    cdef const unsigned char* text = <const unsigned char*> PyBytes_AS_STRING(begun)
    cdef const unsigned char* beginning = <const unsigned char*> PyBytes_AS_STRING(BEGINNING)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(begun)
    cdef Py_ssize_t index, whole
    for index in range(min(size, PyBytes_GET_SIZE(BEGINNING))):
        if text[index] != beginning[index]:
            return MALFORMED_PREAMBLE
    if size < PREAMBLE_HEAD_BYTES:
        return UNFINISHED_PREAMBLE
    if text[PREAMBLE_HEAD_BYTES - 2] > MOST_ADDRESS_BYTES or text[PREAMBLE_HEAD_BYTES - 1] > MOST_NAME_BYTES:
        return MALFORMED_PREAMBLE
    whole = PREAMBLE_HEAD_BYTES + text[PREAMBLE_HEAD_BYTES - 2] + text[PREAMBLE_HEAD_BYTES - 1]
    return UNFINISHED_PREAMBLE if size < whole else whole


cdef inline Py_ssize_t _address_end(bytes begun) noexcept:
    return PREAMBLE_HEAD_BYTES + <unsigned char> PyBytes_AS_STRING(begun)[PREAMBLE_HEAD_BYTES - 2]


cdef bytes preamble_address(bytes begun):
    return begun[PREAMBLE_HEAD_BYTES : _address_end(begun)] or None


cdef bytes preamble_name(bytes begun):
    return begun[_address_end(begun) : preamble_bytes(begun)] or None


cdef bytes preamble_mark(bytes begun):
    cdef bytes mark = begun[PREAMBLE_HEAD_BYTES - 2 - MARK_BYTES : PREAMBLE_HEAD_BYTES - 2]
    return None if mark == NO_MARK else mark


cdef void preamble_id(bytes begun, char* request_id) noexcept:
    memcpy(request_id, PyBytes_AS_STRING(begun) + PyBytes_GET_SIZE(BEGINNING), ID_BYTES)
