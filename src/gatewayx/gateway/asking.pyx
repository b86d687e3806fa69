"""Which headers of a request tell who asks, and from where."""

from libc.string cimport memset

from gatewayx.core.grammar cimport is_word
from gatewayx.http.request cimport HeaderSlice, Request, header_slice

# Each by its number; 0 for no header of these.
cdef enum Name:
    ORIGIN = 1
    FETCH_SITE
    FETCH_MODE
    AUTHORIZATION
    WANTED_METHOD
    WANTED_HEADERS
    FORWARDED


cdef int _name_of(const char* name, Py_ssize_t length) noexcept:
    cdef const char* last = name + length - 8
    if length == 6:
        return ORIGIN if (name[0] | 0x20) == c"o" and (
            (name[1] | 0x20) == c"r"
            and (name[2] | 0x20) == c"i"
            and (name[3] | 0x20) == c"g"
            and (name[4] | 0x20) == c"i"
            and (name[5] | 0x20) == c"n"
        ) else 0
    if length == 3:
        return FORWARDED if (name[0] | 0x20) == c"v" and (name[1] | 0x20) == c"i" and (name[2] | 0x20) == c"a" else 0
    if length == 9:
        return FORWARDED if is_word(name, b"forwarde") and is_word(last, b"orwarded") else 0
    if length == 13:
        return AUTHORIZATION if is_word(name, b"authoriz") and is_word(last, b"rization") else 0
    if length == 14:
        if not is_word(name, b"sec-fetc"):
            return 0
        return FETCH_SITE if is_word(last, b"tch-site") else FETCH_MODE if is_word(last, b"tch-mode") else 0
    if length == 15:
        return FORWARDED if is_word(name, b"x-forwar") and is_word(last, b"rded-for") else 0
    if length == 29:
        return WANTED_METHOD if (
            is_word(name, b"access-c")
            and is_word(name + 8, b"ontrol-r")
            and is_word(name + 16, b"equest-m")
            and is_word(last, b"t-method")
        ) else 0
    if length == 30:
        return WANTED_HEADERS if (
            is_word(name, b"access-c")
            and is_word(name + 8, b"ontrol-r")
            and is_word(name + 16, b"equest-h")
            and is_word(last, b"-headers")
        ) else 0
    return 0


cdef bint tells_who_asks(const char* name, Py_ssize_t name_bytes) noexcept:
    return _name_of(name, name_bytes) != 0


cdef inline int _take(Value* value, const HeaderSlice* header) noexcept:
    if value.text == NULL:
        value.text = header.value
        value.size = header.value_bytes
    return 0


cdef int read_asking(Request request, Asking* asking) except -1:
    cdef HeaderSlice header
    cdef int index, name
    memset(asking, 0, sizeof(Asking))
    asking.host.text = request.host_start
    asking.host.size = request.host_bytes
    for index in range(request.wanted_headers()):
        header_slice(request, index, &header)
        name = _name_of(header.name, header.name_bytes)
        if name == ORIGIN:
            asking.origins += 1
            _take(&asking.origin, &header)
        elif name == FETCH_SITE:
            _take(&asking.fetch_site, &header)
        elif name == FETCH_MODE:
            _take(&asking.fetch_mode, &header)
        elif name == AUTHORIZATION:
            asking.authorizations += 1
            _take(&asking.authorization, &header)
        elif name == WANTED_METHOD:
            _take(&asking.wanted_method, &header)
        elif name == WANTED_HEADERS:
            _take(&asking.wanted_headers, &header)
        elif name == FORWARDED:
            asking.forwarded = True
    return 0
