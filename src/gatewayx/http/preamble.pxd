"""What stands before each request that a process relays to another one of its gateway: who asks."""

cdef enum:
    # A byte that begins no request line, three letters, the version, the name of the request (http/request), and how long the
    # address is that follows.
    PREAMBLE_HEAD_BYTES = 34
    # An IPv6 network of 64 bits, or the text of an IPv4 address.
    MOST_ADDRESS_BYTES = 15
    MOST_PREAMBLE_BYTES = 49
    # In the place of a length.
    UNFINISHED_PREAMBLE = 0
    MALFORMED_PREAMBLE = -1

# For the request of this name, of a client of this address, as refusals.address_key() tells it; None for none.
# It is written at end, which has room for MOST_PREAMBLE_BYTES; returns what follows it.
cdef char* put_preamble(char* end, const char* request_id, bytes address) noexcept
# How many bytes the preamble has with which these begin.
cdef Py_ssize_t preamble_bytes(bytes begun) noexcept
# Whom a whole one tells of.
cdef bytes preamble_address(bytes begun)
# Write the name that it has for the request, with room for ID_BYTES.
cdef void preamble_id(bytes begun, char* request_id) noexcept
