"""Whose request a proxy has passed on, by the header in which proxies say so. No I/O.

Theory of operation. Each proxy adds, at the right end, whom it has the request from. What stands left of the entry of the
last trusted proxy was written by whoever connected to that one, and may be anything. So entries are read from the right, and
each only from its own bytes: an address that is a trusted proxy's is passed over, the first that is not is the client, and
nothing left of that is looked at. An entry that is no address is the end as well, since who stands left of it is nobody's
word; the client is then the last address that was read. This is why a line of Forwarded is not read from the left, as RFC 7239
has it: a quote that a client leaves open would swallow what the proxies have added.

All lines of the header are one list (RFC 9110 5.3), but no entry goes on from one line to the next.
"""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.string cimport memchr, memset

from gatewayx.core.grammar cimport (
    IS_FIELD_VALUE,
    IS_TOKEN,
    after_blanks,
    after_token,
    before_blanks,
    is_name,
    is_word,
)
from gatewayx.http.request cimport HeaderSlice, Request, header_slice, new_request
from gatewayx.net.networks cimport Networks, host_text, read_address
from gatewayx.net.sockets cimport CompactAddress

cdef enum:
    # The longest text of a node of RFC 7239 6: an address in brackets and an obfuscated port, of which more is nobody's.
    MOST_NODE_BYTES = 128
    # RFC 7239 6.1: port.
    MOST_PORT_DIGITS = 5
    FORWARDED_NAME_BYTES = 9
    X_FORWARDED_FOR_NAME_BYTES = 15
    X_REQUEST_ID_NAME_BYTES = 12

globals().update(MOST_ENTRIES=<int> MOST_ENTRIES, MOST_NAME_BYTES=<int> MOST_NAME_BYTES)

cdef str UNIX_SCHEME = "unix:"
cdef dict SOURCES = {"connection": OF_CONNECTION, "forwarded": OF_FORWARDED, "x-forwarded-for": OF_X_FORWARDED_FOR}

# How many were made.
cdef unsigned int made = 0


@cython.final
cdef class TrustedProxies:
    """The proxies that are believed; the .pyi says how they are told."""

    def __init__(self, trusted, str client_address="connection"):
        global made
        cdef list texts = list(trusted)
        if client_address not in SOURCES:
            raise ValueError(f"{client_address!r} is none of {', '.join(SOURCES)}")
        self.source = <AddressSource> <int> SOURCES[client_address]
        self.networks = Networks(texts)
        self.trusts_unix = UNIX_SCHEME in texts
        self.unix_paths = frozenset(
            [text[len(UNIX_SCHEME) :] for text in texts if text.startswith(UNIX_SCHEME) and text != UNIX_SCHEME]
        )
        made += 1
        self.serial = made

    @property
    def reads_clients(self):
        return self.source != OF_CONNECTION

    def are(self, str host, str path=None):
        return self.trusts(None if host is None else (host, 0), path)

    def client_of(self, headers):
        cdef CompactAddress client
        cdef Request request = _request_with(headers)
        return host_text(&client) if self.read_client(request, &client) else None

    cdef bint trusts(self, object peer, object path) except -1:
        if peer is None:
            return self.trusts_unix or path in self.unix_paths
        return peer[0].partition("%")[0] in self.networks

    cdef bint read_client(self, Request request, CompactAddress* client) except -1:
        cdef HeaderSlice header
        cdef Walk walk
        cdef int index = request.wanted_headers()
        cdef bint goes_on = True
        memset(&walk, 0, sizeof(Walk))
        while goes_on and index > 0:
            index -= 1
            header_slice(request, index, &header)
            if self.source == OF_FORWARDED:
                if _is_forwarded(&header):
                    goes_on = _walk_forwarded(&walk, header.value, header.value + header.value_bytes, self.networks)
            elif _is_x_forwarded_for(&header):
                goes_on = _walk_x_forwarded_for(&walk, header.value, header.value + header.value_bytes, self.networks)
        client[0] = walk.found
        return walk.found.family != 0


cdef inline bint _is_forwarded(const HeaderSlice* header) noexcept:
    return header.name_bytes == FORWARDED_NAME_BYTES and (
        is_word(header.name, b"forwarde") and is_word(header.name + 1, b"orwarded")
    )


cdef inline bint _is_x_forwarded_for(const HeaderSlice* header) noexcept:
    return header.name_bytes == X_FORWARDED_FOR_NAME_BYTES and (
        is_word(header.name, b"x-forwar") and is_word(header.name + 7, b"rded-for")
    )


cdef inline bint _take(Walk* walk, const CompactAddress* address, Networks networks) noexcept:
    """The next entry is this address; returns whether the walk goes on."""
    walk.found = address[0]
    return networks.contains(address)


# X-Forwarded-For: addresses with commas between them.

cdef bint _walk_x_forwarded_for(Walk* walk, const char* start, const char* end, Networks networks) noexcept:
    """Walk a line; returns whether the walk goes on with the line before it."""
    cdef CompactAddress address
    cdef const char* entry
    cdef const char* first
    cdef const char* last
    while walk.entries < MOST_ENTRIES:
        walk.entries += 1
        entry = end
        while entry > start and (entry - 1)[0] != c",":
            entry -= 1
        first = after_blanks(entry, end)
        last = before_blanks(first, end)
        if first < last:
            if not _read_node(first, last, False, &address) or not _take(walk, &address, networks):
                return False
        # Else nothing stands there, which a list may have (RFC 9110 5.6.1.2).
        if entry == start:
            return True
        end = entry - 1
    return False


# Forwarded (RFC 7239 4): elements with commas between them, each of pairs with semicolons between them.

cdef bint _walk_forwarded(Walk* walk, const char* start, const char* end, Networks networks) noexcept:
    """The same for a line of Forwarded."""
    cdef CompactAddress address
    cdef const char* element
    cdef const char* first
    cdef const char* last
    while walk.entries < MOST_ENTRIES:
        walk.entries += 1
        element = _element_start(start, end)
        if element == NULL:
            return False
        first = after_blanks(element, end)
        last = before_blanks(first, end)
        if first < last:
            if not _read_element(first, last, &address) or not _take(walk, &address, networks):
                return False
        if element == start:
            return True
        end = element - 1
    return False


cdef const char* _element_start(const char* start, const char* end) noexcept:
    """Where the last element begins, behind a comma that no quotes are around; NULL if quotes are open at the line's start.

    Going to the left, a quote that an even number of backslashes stands before ends or begins a quoted string (RFC 9110 5.6.4).
    """
    cdef const char* cursor = end
    cdef const char* before
    cdef bint quoted = False
    while cursor > start:
        cursor -= 1
        if cursor[0] == c"," and not quoted:
            return cursor + 1
        if cursor[0] == c'"':
            before = cursor
            while before > start and (before - 1)[0] == c"\\":
                before -= 1
            if (cursor - before) % 2 == 0:
                quoted = not quoted
            cursor = before
    return NULL if quoted else start


cdef bint _read_element(const char* cursor, const char* end, CompactAddress* address) noexcept:
    """Read the address in the one pair of the element that is named for; False if there is none, or the element is none."""
    cdef char[MOST_NODE_BYTES] node
    cdef Py_ssize_t node_bytes
    cdef const char* name
    cdef bint is_for
    cdef int found = 0
    while True:
        # Blanks around a semicolon are not in the grammar, and in its examples (RFC 7239 4) nobody takes them for a fault.
        cursor = after_blanks(cursor, end)
        if cursor < end and cursor[0] != c";":
            name = cursor
            cursor = after_token(cursor, end)
            if cursor == name or cursor == end or cursor[0] != c"=":
                return False
            is_for = is_name(name, cursor, b"for", 3)
            cursor = _after_value(cursor + 1, end, node if is_for else NULL, &node_bytes)
            if cursor == NULL:
                return False
            if is_for:
                found += 1
                if found > 1 or not _read_node(node, node + node_bytes, True, address):
                    return False
            cursor = after_blanks(cursor, end)
        if cursor == end:
            return found == 1
        if cursor[0] != c";":
            return False
        cursor += 1


cdef const char* _after_value(const char* cursor, const char* end, char* value, Py_ssize_t* value_bytes) noexcept:
    """Read a token or a quoted string, and put what it says into value, which has room for MOST_NODE_BYTES, unless that is NULL.

    Returns what follows it; NULL if it is neither, or there is no room for what it says.
    """
    cdef bint quoted = cursor < end and cursor[0] == c'"'
    cdef Py_ssize_t size = 0
    cdef const char* start = cursor
    if quoted:
        cursor += 1
    while cursor < end:
        if quoted:
            if cursor[0] == c'"':
                break
            if cursor[0] == c"\\":
                cursor += 1
                if cursor == end:
                    return NULL
            if not IS_FIELD_VALUE[<unsigned char> cursor[0]]:
                return NULL
        elif not IS_TOKEN[<unsigned char> cursor[0]]:
            break
        if value != NULL:
            if size == MOST_NODE_BYTES:
                return NULL
            value[size] = cursor[0]
        size += 1
        cursor += 1
    value_bytes[0] = size
    if quoted:
        return NULL if cursor == end else cursor + 1
    return NULL if cursor == start else cursor


# A node: an address, with or without a port.

cdef bint _read_node(const char* start, const char* end, bint in_brackets, CompactAddress* address) noexcept:
    """Read the address of an entry. in_brackets: brackets are around one of IPv6, as RFC 7239 6 has it, else they may be.

    A port of IPv6 has brackets before it, else it would be a part of the address; one of IPv4 has none.
    """
    cdef const char* close
    cdef const char* colon
    if start < end and start[0] == c"[":
        close = <const char*> memchr(start, c"]", end - start)
        if close == NULL or not _is_end(close + 1, end):
            return False
        return (
            memchr(start, c":", close - start) != NULL
            and _read_with_zone(start + 1, close, address)
        )
    colon = <const char*> memchr(start, c":", end - start)
    if colon == NULL:
        return read_address(start, end - start, address)
    if memchr(colon + 1, c":", end - colon - 1) == NULL:
        return _is_end(colon, end) and read_address(start, colon - start, address)
    return not in_brackets and _read_with_zone(start, end, address)


cdef bint _read_with_zone(const char* start, const char* end, CompactAddress* address) noexcept:
    """Read an address of IPv6 that may have a zone (RFC 4007 11), as link-local ones have of which some proxies tell.

    The zone is one of the proxy's, and means nothing here.
    """
    cdef const char* percent = <const char*> memchr(start, c"%", end - start)
    if percent != NULL:
        if percent + 1 == end or after_token(percent + 1, end) != end:
            return False
        end = percent
    return read_address(start, end - start, address)


cdef bint _is_end(const char* cursor, const char* end) noexcept:
    """Whether nothing follows an address, or a port: digits, or what stands in the place of one (RFC 7239 6.3)."""
    cdef Py_ssize_t digits = 0
    if cursor == end:
        return True
    if cursor[0] != c":":
        return False
    cursor += 1
    if cursor < end and cursor[0] == c"_":
        cursor += 1
        if cursor == end:
            return False
        while cursor < end:
            if not (
                c"a" <= (cursor[0] | 0x20) <= c"z" or c"0" <= cursor[0] <= c"9" or cursor[0] in (c".", c"_", c"-")
            ):
                return False
            cursor += 1
        return True
    while cursor < end and c"0" <= cursor[0] <= c"9":
        cursor += 1
        digits += 1
    return cursor == end and 1 <= digits <= MOST_PORT_DIGITS


# The request's name.

cdef inline bint _is_x_request_id(const HeaderSlice* header) noexcept:
    return header.name_bytes == X_REQUEST_ID_NAME_BYTES and (
        is_word(header.name, b"x-reques") and is_word(header.name + 4, b"quest-id")
    )


cdef inline bint _is_in_names(char byte) noexcept:
    """Whether it stands in a header, a URN, a line of JSON and a shell's word as it is."""
    return (
        c"a" <= (byte | 0x20) <= c"z"
        or c"-" <= byte <= c":"
        or byte == c"_"
        or byte == c"~"
        or byte == c"+"
        or byte == c"="
        or byte == c"@"
    )


cdef bytes name_told(Request request):
    cdef HeaderSlice header
    cdef HeaderSlice name
    cdef int index
    cdef int found = 0
    for index in range(request.wanted_headers()):
        header_slice(request, index, &header)
        if _is_x_request_id(&header):
            name = header
            found += 1
    if found != 1 or not 0 < name.value_bytes <= MOST_NAME_BYTES:
        return None
    for index in range(name.value_bytes):
        if not _is_in_names(name.value[index]):
            return None
    return PyBytes_FromStringAndSize(name.value, name.value_bytes)


def name_of(headers):
    return name_told(_request_with(headers))


cdef Request _request_with(headers):
    cdef Request request = new_request()
    request.headers = list(headers)
    return request
