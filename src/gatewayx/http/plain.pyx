"""Plain heads, which are nearly all: read in one pass, without llhttp; the .pxd says what plain is.

Theory of operation. The walk never refuses: what it does not know to be right it calls NOT_PLAIN, at the first byte that
says so, and HeadReader judges the head from its request line on. So a doubt costs time and nothing else, and no refusal
depends on this module. A head that comes in pieces is walked on from where the last piece ended; only what is bounded to
a few bytes (method, version, the CR of a line's end) is compared again.
"""

from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from gatewayx.core.grammar cimport IS_TARGET, IS_TOKEN, is_host, is_percent_encoded
from gatewayx.http.limits cimport Limits
from gatewayx.http.request cimport METHOD_GET, METHOD_HEAD, METHOD_OPTIONS, METHOD_POST, METHOD_PUT, Method, RequestHandler

cdef extern from *:
    """
    #if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    #define BYTES_BEFORE_FLAG(flags) (__builtin_ctzll(flags) >> 3)
    #else
    #define BYTES_BEFORE_FLAG(flags) 0
    #endif
    """
    # Of 8 bytes as they stand in memory, those before the first one whose highest bit is set in the flags, which are not
    # 0; or fewer.
    int BYTES_BEFORE_FLAG(uint64_t flags) noexcept

cdef enum:
    # "HTTP/1.1" and CRLF.
    VERSION_LINE_BYTES = 10
    # More could be more than any limit, which HeadReader counts with saturation.
    MAX_LENGTH_DIGITS = 15
    REMEMBERED_HOST_BYTES = 64

# The last valid Host of few bytes.
cdef char[REMEMBERED_HOST_BYTES] valid_host
cdef Py_ssize_t valid_host_bytes = -1

# Bytes of a target that mean nothing to the walk: all but "%" and "?".
cdef unsigned char[256] IS_PLAIN_TARGET


cdef void _fill_tables() noexcept:
    cdef int byte
    for byte in range(256):
        IS_PLAIN_TARGET[byte] = IS_TARGET[byte] and byte != c"%" and byte != c"?"


_fill_tables()


cdef int walk_head(
    PlainHead* head, const char* data, Py_ssize_t size, Limits limits, RequestHandler handler
) except -1:
    cdef int reach
    if head.part < AT_LINE:
        reach = _walk_request_line(head, data, data + size, limits)
        if reach != WHOLE:
            return reach
    return _walk_header_lines(head, data, data + size, limits, handler)


cdef int _walk_request_line(PlainHead* head, const char* data, const char* end, Limits limits) noexcept:
    """WHOLE says that the line is."""
    cdef const char* cursor = data + head.walked
    cdef const char* target
    cdef Py_ssize_t method_bytes
    if head.part == IN_METHOD:
        method_bytes = _method_bytes(&head.method, data, end - data)
        if method_bytes < 0:
            return NOT_PLAIN
        if method_bytes == 0:
            # It is compared again from its beginning.
            head.walked = <unsigned int> (end - data)
            return UNFINISHED
        head.target = <unsigned int> method_bytes
        head.part = IN_TARGET
        cursor = data + method_bytes
    if head.part == IN_TARGET:
        target = data + head.target
        if target < end and target[0] != c"/":
            return NOT_PLAIN
        while True:
            while cursor < end and IS_PLAIN_TARGET[<unsigned char> cursor[0]]:
                cursor += 1
            if cursor == end or (cursor[0] == c"%" and end - cursor < 3):
                if end - target > limits.max_target_bytes:
                    return NOT_PLAIN
                head.walked = <unsigned int> (cursor - data)
                return UNFINISHED
            if cursor[0] == c" ":
                break
            if cursor[0] == c"?":
                cursor += 1
                if head.query == 0:
                    head.query = <unsigned int> (cursor - data)
            elif cursor[0] == c"%" and is_percent_encoded(cursor, end):
                cursor += 3
            else:
                return NOT_PLAIN
        if cursor - target > limits.max_target_bytes:
            return NOT_PLAIN
        head.target_end = <unsigned int> (cursor - data)
        head.part = IN_VERSION
        cursor += 1
    if end - cursor < VERSION_LINE_BYTES:
        head.walked = <unsigned int> (cursor - data)
        return NOT_PLAIN if memcmp(cursor, b"HTTP/1.1\r\n", end - cursor) != 0 else UNFINISHED
    if memcmp(cursor, b"HTTP/1.1\r\n", VERSION_LINE_BYTES) != 0:
        return NOT_PLAIN
    head.lines = head.walked = <unsigned int> (cursor + VERSION_LINE_BYTES - data)
    head.part = AT_LINE
    return WHOLE


cdef Py_ssize_t _method_bytes(Method* method, const char* data, Py_ssize_t size) noexcept:
    """Bytes of the method and the SP behind it; 0 if they are not all here, -1 if no such method begins so."""
    cdef int begun
    begun = _begins_with(data, size, b"POST ", 5)
    if begun:
        method[0] = METHOD_POST
        return 5 if begun > 0 else 0
    begun = _begins_with(data, size, b"GET ", 4)
    if begun:
        method[0] = METHOD_GET
        return 4 if begun > 0 else 0
    begun = _begins_with(data, size, b"PUT ", 4)
    if begun:
        method[0] = METHOD_PUT
        return 4 if begun > 0 else 0
    begun = _begins_with(data, size, b"HEAD ", 5)
    if begun:
        method[0] = METHOD_HEAD
        return 5 if begun > 0 else 0
    begun = _begins_with(data, size, b"OPTIONS ", 8)
    if begun:
        method[0] = METHOD_OPTIONS
        return 8 if begun > 0 else 0
    return -1


cdef inline int _begins_with(const char* data, Py_ssize_t size, const char* word, Py_ssize_t word_bytes) noexcept:
    """1 if the word stands first, -1 if all that is here is a beginning of it, else 0."""
    if size >= word_bytes:
        return memcmp(data, word, word_bytes) == 0
    return -1 if memcmp(data, word, size) == 0 else 0


cdef int _walk_header_lines(
    PlainHead* head, const char* data, const char* end, Limits limits, RequestHandler handler
) except -1:
    cdef const char* cursor = data + head.walked
    cdef const char* line = data + head.line
    cdef const char* name_end = data + head.name_end
    cdef const char* value = data + head.value
    cdef const char* lines = data + head.lines
    cdef HeadPart part = head.part
    while True:
        if part == AT_LINE:
            line = cursor
            if cursor == end:
                break
            if cursor[0] == c"\r":
                if end - cursor == 1:
                    break
                if cursor[1] != c"\n" or not head.has_host:
                    return NOT_PLAIN
                head.end = <unsigned int> (cursor + 2 - data)
                return WHOLE
            part = IN_NAME
        if part == IN_NAME:
            cursor = _after_name(cursor, end)
            if cursor == end:
                break
            if cursor[0] != c":" or cursor == line:
                return NOT_PLAIN
            name_end = cursor
            cursor += 1
            part = IN_BLANKS
        if part == IN_BLANKS:
            while cursor < end and cursor[0] == c" ":
                cursor += 1
            if cursor == end:
                break
            value = cursor
            part = IN_VALUE
        cursor = _after_text(cursor, end)
        if cursor == end or (cursor[0] == c"\r" and end - cursor == 1):
            break
        if cursor[0] != c"\r" or cursor[1] != c"\n" or (cursor > value and (cursor - 1)[0] == c" "):
            return NOT_PLAIN
        head.header_lines += 1
        if cursor + 2 - lines > limits.max_header_bytes or head.header_lines > limits.max_headers:
            return NOT_PLAIN
        if not _take_line(head, data, line, name_end, value, cursor, limits, handler):
            return NOT_PLAIN
        cursor += 2
        part = AT_LINE
    # A lone CR may be the end of the head, which does not count.
    if part != AT_LINE and end - lines > limits.max_header_bytes:
        return NOT_PLAIN
    head.walked = <unsigned int> (cursor - data)
    head.line = <unsigned int> (line - data)
    head.name_end = <unsigned int> (name_end - data)
    head.value = <unsigned int> (value - data)
    head.part = part
    return UNFINISHED


# Eight bytes at once: a byte is flagged in its highest bit. What a byte that is flagged does to those behind it, by a carry or
# a borrow, does not matter, for only the first flag is looked at; those before it borrow and carry nothing.

cdef inline const char* _after_text(const char* cursor, const char* end) noexcept:
    """Where the bytes 0x20 to 0x7E end that the text begins with."""
    cdef uint64_t word
    cdef uint64_t flags
    while end - cursor >= 8:
        memcpy(&word, cursor, 8)
        # Below 0x20 the difference has its highest bit; from 0x7F on the sum has it, but of 0xFF, where the difference does.
        flags = ((word - 0x2020202020202020ULL) | (word + 0x0101010101010101ULL)) & 0x8080808080808080ULL
        if flags:
            cursor += BYTES_BEFORE_FLAG(flags)
            break
        cursor += 8
    while cursor < end and c" " <= cursor[0] <= c"~":
        cursor += 1
    return cursor


cdef inline const char* _after_name(const char* cursor, const char* end) noexcept:
    """Where the tchar end that the text begins with; most are letters and "-"."""
    cdef uint64_t word
    cdef uint64_t small
    cdef uint64_t flags
    while end - cursor >= 8:
        memcpy(&word, cursor, 8)
        small = word | 0x2020202020202020ULL
        # From "a" on the first sum has its highest bit, up to "z" the second has not; "-" leaves nothing to carry.
        flags = (
            ((small + 0x1F1F1F1F1F1F1F1FULL) & ~(small + 0x0505050505050505ULL))
            | ~((word ^ 0x2D2D2D2D2D2D2D2DULL) + 0x7F7F7F7F7F7F7F7FULL)
        ) & ~word
        flags = ~flags & 0x8080808080808080ULL
        if flags:
            cursor += BYTES_BEFORE_FLAG(flags)
            break
        cursor += 8
    while cursor < end and IS_TOKEN[<unsigned char> cursor[0]]:
        cursor += 1
    return cursor


cdef bint _take_line(
    PlainHead* head,
    const char* data,
    const char* name,
    const char* name_end,
    const char* value,
    const char* value_end,
    Limits limits,
    RequestHandler handler,
) except -1:
    """Note what the line says; returns whether the head is still plain."""
    cdef Py_ssize_t name_bytes = name_end - name
    cdef int kind
    if name_bytes == 4:
        if _is_word(name, b"host", 4):
            if head.has_host or not _is_valid_host(value, value_end):
                return False
            head.has_host = True
            head.host = <unsigned int> (value - data)
            head.host_end = <unsigned int> (value_end - data)
            return True
    elif name_bytes == 14:
        if _is_word(name, b"content-length", 14):
            return _take_length(head, value, value_end, limits)
        if _is_word(name, b"http2-settings", 14):
            return False
    elif name_bytes == 10:
        if _is_word(name, b"connection", 10):
            if head.has_connection:
                return False
            head.has_connection = True
            head.closes = value_end - value == 5 and _is_word(value, b"close", 5)
            return head.closes or (value_end - value == 10 and _is_word(value, b"keep-alive", 10))
        if _is_word(name, b"keep-alive", 10):
            return False
    elif name_bytes == 2:
        if _is_word(name, b"te", 2):
            return False
    elif name_bytes == 6:
        if _is_word(name, b"expect", 6):
            return False
    elif name_bytes == 7:
        if _is_word(name, b"trailer", 7) or _is_word(name, b"upgrade", 7):
            return False
    elif name_bytes == 16:
        if _is_word(name, b"proxy-connection", 16):
            return False
    elif name_bytes == 17:
        if _is_word(name, b"transfer-encoding", 17):
            return False
    if handler is None:
        return True
    kind = handler.wants_header(name, name_bytes, value_end - value)
    if kind == 0:
        return True
    head.wanted_kinds |= kind
    return _keep_line(head, data, name, name_end, value, value_end)


cdef inline bint _keep_line(
    PlainHead* head,
    const char* data,
    const char* name,
    const char* name_end,
    const char* value,
    const char* value_end,
) noexcept:
    """Note where a line is that the handler wants; False, and the head is not plain, if there are too many."""
    cdef WantedLine* wanted
    if head.wanted_lines == MAX_WANTED_LINES:
        return False
    wanted = &head.wanted[head.wanted_lines]
    head.wanted_lines += 1
    wanted.name = <unsigned int> (name - data)
    wanted.name_end = <unsigned int> (name_end - data)
    wanted.value = <unsigned int> (value - data)
    wanted.value_end = <unsigned int> (value_end - data)
    return True


cdef bint _take_length(PlainHead* head, const char* cursor, const char* end, Limits limits) noexcept:
    cdef long long number = 0
    if head.content_length >= 0 or cursor == end or end - cursor > MAX_LENGTH_DIGITS:
        return False
    while cursor < end:
        if not c"0" <= cursor[0] <= c"9":
            return False
        number = number * 10 + (cursor[0] - c"0")
        cursor += 1
    head.content_length = number
    return number <= limits.max_body_bytes


cdef inline bint _is_word(const char* text, const char* word, Py_ssize_t word_bytes) noexcept:
    """Whether the text is the word, letters of any case. Both have so many bytes, and the word is in lower case.

    To set the bit 0x20 makes no other byte of a header's name or value a letter, a digit or "-" but the capital letter.
    """
    if word_bytes > 16 and _eight(text + 8) != _eight(word + 8):
        return False
    if word_bytes >= 8:
        return _eight(text) == _eight(word) and _eight(text + word_bytes - 8) == _eight(word + word_bytes - 8)
    if word_bytes >= 4:
        return _four(text) == _four(word) and _four(text + word_bytes - 4) == _four(word + word_bytes - 4)
    return _two(text) == _two(word)


cdef inline uint64_t _eight(const char* text) noexcept:
    cdef uint64_t word
    memcpy(&word, text, 8)
    return word | 0x2020202020202020ULL


cdef inline uint32_t _four(const char* text) noexcept:
    cdef uint32_t word
    memcpy(&word, text, 4)
    return word | 0x20202020U


cdef inline uint16_t _two(const char* text) noexcept:
    cdef uint16_t word
    memcpy(&word, text, 2)
    return <uint16_t> (word | 0x2020)


cdef bint _is_valid_host(const char* value, const char* end) noexcept:
    """is_host(); clients say the same of it again and again."""
    global valid_host_bytes
    cdef Py_ssize_t size = end - value
    if size == valid_host_bytes and memcmp(value, valid_host, size) == 0:
        return True
    if not is_host(value, end):
        return False
    if size <= REMEMBERED_HOST_BYTES:
        memcpy(valid_host, value, size)
        valid_host_bytes = size
    return True
