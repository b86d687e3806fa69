"""What the X-Gearman- headers of a request ask for.

Names in any case, white space around values ignored (RFC 9110 5.1, 5.5). A header that is given twice, or asks for what
does not exist, is the client's fault. gearmand's HTTP plugin (libgearman-server/plugins/protocol/http/protocol.cc) passes
over what it does not know.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memcmp

from gatewayx.core.grammar cimport is_word
from gatewayx.gateway.job_request cimport CLIENT, HIGH, LOW, NORMAL, JobRequest, Priority
from gatewayx.gearman.packet cimport MAX_UNIQUE_BYTES
from gatewayx.http.request cimport HeaderSlice, Request, header_slice

from gatewayx.http.problems import MALFORMED_HEADER, RequestError

UNIQUE_PREFIX = b"gatewayx-"

# To the plugin "normal" is a word like any other that it does not know.
PLUGIN_PRIORITIES = {b"low": LOW, b"high": HIGH}

cdef enum:
    # The headers that ask for something, as bits.
    UNIQUE = 1
    BACKGROUND = 2
    PRIORITY = 4
    TIMEOUT = 8
    STREAM = 16

HEADER_NAMES = {
    UNIQUE: "X-Gearman-Unique",
    BACKGROUND: "X-Gearman-Background",
    PRIORITY: "X-Gearman-Priority",
    TIMEOUT: "X-Gearman-Timeout",
    STREAM: "X-Gearman-Stream",
}


cdef bint is_ours(const char* name, Py_ssize_t name_bytes) noexcept:
    return 16 <= name_bytes <= 20 and is_word(name, b"x-gearma") and is_word(name + 2, b"gearman-")


cdef int read_headers(JobRequest wanted, Request request, bint refuse_unique, double streamed_timeout_s) except -1:
    cdef double told_s = 0
    cdef HeaderSlice header
    cdef int index, name
    cdef int seen = 0
    for index in range(request.wanted_headers()):
        header_slice(request, index, &header)
        name = _name_of(&header)
        if seen & name:
            raise RequestError(MALFORMED_HEADER, f"{HEADER_NAMES[name]} is given more than once")
        seen |= name
        if name == UNIQUE:
            if refuse_unique:
                raise RequestError(
                    MALFORMED_HEADER, "X-Gearman-Unique is not taken here: the gateway makes every unique"
                )
            wanted.unique = _unique(_value(&header), False)
            wanted.unique_origin = CLIENT
        elif name == BACKGROUND:
            wanted.background = _is(&header, b"true", 4)
            if not wanted.background and not _is(&header, b"false", 5):
                raise RequestError(MALFORMED_HEADER, "X-Gearman-Background is neither 'true' nor 'false'")
        elif name == PRIORITY:
            if _is(&header, b"low", 3):
                wanted.priority = LOW
            elif _is(&header, b"high", 4):
                wanted.priority = HIGH
            elif _is(&header, b"normal", 6):
                wanted.priority = NORMAL
            else:
                raise RequestError(MALFORMED_HEADER, "X-Gearman-Priority is none of 'low', 'normal' and 'high'")
        elif name == TIMEOUT:
            told_s = _timeout(_value(&header))
            wanted.tells_timeout = True
        elif name == STREAM:
            wanted.streamed = _is(&header, b"true", 4)
            if not wanted.streamed and not _is(&header, b"false", 5):
                raise RequestError(MALFORMED_HEADER, "X-Gearman-Stream is neither 'true' nor 'false'")
    if wanted.streamed:
        _check_streamed(wanted)
        wanted.timeout_s = streamed_timeout_s
    if wanted.tells_timeout:
        wanted.timeout_s = min(told_s, wanted.timeout_s)
    return 0


cdef int _check_streamed(JobRequest wanted) except -1:
    """Refuse a streamed job that nobody could stream."""
    if wanted.background:
        raise RequestError(MALFORMED_HEADER, "X-Gearman-Stream asks for data, which a background job has none of")
    if wanted.unique is not None:
        # Whoever is merged with a job that has begun would get the rest of its data, as if that were all.
        raise RequestError(
            MALFORMED_HEADER, "X-Gearman-Stream cannot stand with X-Gearman-Unique: a merged job may have sent data already"
        )
    return 0


cdef int read_plugin_headers(JobRequest wanted, Request request, bint refuse_unique) except -1:
    cdef double most_s = wanted.timeout_s
    cdef HeaderSlice header
    cdef int index, name
    cdef bytes value
    for index in range(request.wanted_headers()):
        # The plugin takes white space around a value for a part of it; RFC 9110 5.5 leaves no choice.
        header_slice(request, index, &header)
        name = _name_of(&header)
        value = _value(&header)
        if name == UNIQUE and value:
            if refuse_unique:
                raise RequestError(MALFORMED_HEADER, "X-Gearman-Unique is not taken here")
            wanted.unique = _unique(value, True)
            wanted.unique_origin = CLIENT
        elif name == BACKGROUND:
            wanted.background = wanted.background or value.lower() == b"true"
        elif name == PRIORITY:
            wanted.priority = <Priority> <int> PLUGIN_PRIORITIES.get(value.lower(), wanted.priority)
        elif name == TIMEOUT:
            try:
                wanted.timeout_s = min(_timeout(value), most_s)
                wanted.tells_timeout = True
            except RequestError:
                # The plugin has no such header, so whatever it holds is taken.
                pass
    return 0


cdef inline bytes _value(const HeaderSlice* header):
    return PyBytes_FromStringAndSize(header.value, header.value_bytes)


cdef inline bint _is(const HeaderSlice* header, const char* word, Py_ssize_t word_bytes) noexcept:
    return header.value_bytes == word_bytes and memcmp(header.value, word, word_bytes) == 0


cdef inline int _name_of(const HeaderSlice* header) noexcept:
    """Which of our headers it is, of those that is_ours() lets in; 0 for none of them."""
    cdef Py_ssize_t length = header.name_bytes
    cdef const char* last = header.name + length - 8
    if length == 16:
        return UNIQUE if is_word(last, b"n-unique") else STREAM if is_word(last, b"n-stream") else 0
    if length == 17:
        return TIMEOUT if is_word(last, b"-timeout") else 0
    if length == 18:
        return PRIORITY if is_word(last, b"priority") else 0
    if length == 20:
        return BACKGROUND if is_word(last, b"ckground") and is_word(last - 2, b"backgrou") else 0
    return 0


cdef bytes _unique(bytes value, bint plugin_compat):
    cdef str fault = unique_fault(value, plugin_compat)
    if fault is not None:
        raise RequestError(MALFORMED_HEADER, f"X-Gearman-Unique {fault}")
    return value


cdef str unique_fault(bytes value, bint plugin_compat):
    """The plugin takes tabs, and keeps no names for itself."""
    cdef const unsigned char* text = <const unsigned char*> PyBytes_AS_STRING(value)
    cdef Py_ssize_t index
    if not 1 <= PyBytes_GET_SIZE(value) <= MAX_UNIQUE_BYTES:
        return f"is not 1 to {MAX_UNIQUE_BYTES} bytes long"
    for index in range(PyBytes_GET_SIZE(value)):
        if (text[index] < 0x20 or text[index] == 0x7F) and not (plugin_compat and text[index] == c"\t"):
            return "holds a control byte"
    if not plugin_compat and value.startswith(UNIQUE_PREFIX):
        return "begins with 'gatewayx-', which is kept for uniques made by the gateway"
    return None


cdef double _timeout(bytes value) except -1:
    whole, point, fraction = value.partition(b".")
    if not whole.isdigit() or (point and not fraction.isdigit()) or len(value) > MAX_TIMEOUT_DIGITS or not float(value):
        raise RequestError(MALFORMED_HEADER, "X-Gearman-Timeout is not a decimal number of seconds above 0")
    return float(value)
