"""What stands before each request that a process relays to another one of its gateway: who asks."""

from gatewayx.http.request cimport Request

cdef enum:
    # Of what tells a token, as gateway/owners has it; zeros for none.
    MARK_BYTES = 16
    # A byte that begins no request line, three letters, the version, the name that was made for the request (http/request), the
    # token's mark, and how long are the address that follows, and behind that what a proxy calls the request.
    PREAMBLE_HEAD_BYTES = 51
    # An IPv6 network of 64 bits, or the text of an IPv4 address.
    MOST_ADDRESS_BYTES = 15
    # PREAMBLE_HEAD_BYTES and MOST_ADDRESS_BYTES, and MOST_NAME_BYTES of http/forwarded.
    MOST_PREAMBLE_BYTES = 194
    # In the place of a length.
    UNFINISHED_PREAMBLE = 0
    MALFORMED_PREAMBLE = -1

# For this request, of a client whose token has this mark, None for none, and of this address, as refusals.address_key() tells
# it; None for none. It is written at end, which has room for MOST_PREAMBLE_BYTES; returns what follows it.
cdef char* put_preamble(char* end, Request request, bytes mark, bytes address) noexcept
# How many bytes the preamble has with which these begin.
cdef Py_ssize_t preamble_bytes(bytes begun) noexcept
# Whom a whole one tells of, and whose token; None for none.
cdef bytes preamble_address(bytes begun)
cdef bytes preamble_mark(bytes begun)
# What a proxy calls the request; None for nothing.
cdef bytes preamble_name(bytes begun)
# Write the name that it has for the request, with room for ID_BYTES.
cdef void preamble_id(bytes begun, char* request_id) noexcept
