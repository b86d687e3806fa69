"""What the headers of a request ask of the form of its answer: at once or as a kept job, whole or as events.

Names in any case, white space around values ignored (RFC 9110 5.1, 5.5). Whatever is malformed, or not known, is as if it
were not there: so Prefer wants it (RFC 7240 2), and for Accept no answer is refused (RFC 9110 12.5.1).
"""

from typing import NamedTuple

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memchr, memcmp

from gatewayx.core.grammar cimport (
    IS_FIELD_VALUE,
    after_blanks,
    after_token,
    before_blanks,
    decimal,
    is_name,
    is_only_name,
    is_word,
)
from gatewayx.http.request cimport METHOD_POST, METHOD_PUT, HeaderSlice, Request, header_slice, new_request

# The headers, by number; 0 for none of them.
cdef enum Name:
    PREFER = 1
    ACCEPT
    LAST_EVENT_ID
    IF_NONE_MATCH


# A parameter or preference: a token, and behind "=" a value, without its quotes; NULL without one.
cdef struct Pair:
    const char* name
    const char* name_end
    const char* value
    const char* value_end


cdef inline int _name_of(const char* name, Py_ssize_t length) noexcept:
    if length == 6:
        # The other header of six letters that clients send is Origin.
        return _short_name(name, length)
    if length == 13:
        return (
            LAST_EVENT_ID if is_word(name, b"last-eve") and is_word(name + 5, b"event-id")
            else IF_NONE_MATCH if is_word(name, b"if-none-") and is_word(name + 5, b"ne-match") else 0
        )
    return 0


cdef int _short_name(const char* name, Py_ssize_t length) noexcept:
    if (name[0] | 0x20) == c"a":
        return ACCEPT if is_name(name, name + length, b"accept", 6) else 0
    return PREFER if is_name(name, name + length, b"prefer", 6) else 0


cdef bint is_about_answer(const char* name, Py_ssize_t name_bytes) noexcept:
    return _name_of(name, name_bytes) != 0


cdef int read_preferences(Request request, Preferences* preferences) except -1:
    cdef HeaderSlice header
    cdef const char* end
    cdef int index, name
    cdef bint saw_async = False
    cdef bint saw_wait = False
    preferences.respond_async = False
    preferences.wait_s = -1
    preferences.wants_events = False
    preferences.has_event_id = False
    preferences.has_tags = False
    for index in range(request.wanted_headers()):
        header_slice(request, index, &header)
        name = _name_of(header.name, header.name_bytes)
        end = header.value + header.value_bytes
        if name == PREFER:
            if request.method == METHOD_POST:
                _read_prefer(header.value, end, preferences, &saw_async, &saw_wait)
        elif name == ACCEPT:
            preferences.wants_events = preferences.wants_events or _names_events(header.value, end)
        elif name == LAST_EVENT_ID:
            preferences.has_event_id = True
        elif name == IF_NONE_MATCH:
            preferences.has_tags = True
    return 0


cdef bytes last_event_id(Request request):
    cdef HeaderSlice header
    cdef bytes found = None
    cdef int index
    for index in range(request.wanted_headers()):
        header_slice(request, index, &header)
        if _name_of(header.name, header.name_bytes) == LAST_EVENT_ID:
            if found is not None or header.value_bytes > MOST_EVENT_ID_BYTES:
                return b""
            found = PyBytes_FromStringAndSize(header.value, header.value_bytes)
    return found


cdef bytes wanted_tags(Request request):
    cdef HeaderSlice header
    cdef bytes value
    cdef bytes found = None
    cdef int index
    for index in range(request.wanted_headers()):
        header_slice(request, index, &header)
        if _name_of(header.name, header.name_bytes) == IF_NONE_MATCH:
            value = PyBytes_FromStringAndSize(header.value, header.value_bytes)
            found = value if found is None else found + b", " + value
    return found


cdef bint matches_tag(bytes tags, bytes tag) noexcept:
    cdef const char* cursor = PyBytes_AS_STRING(tags)
    cdef const char* end = cursor + PyBytes_GET_SIZE(tags)
    cdef const char* closing
    if is_only_name(cursor, end, b"*", 1):
        return True
    while cursor < end:
        if end - cursor >= 2 and memcmp(cursor, b"W/", 2) == 0:
            cursor += 2
        if cursor < end and cursor[0] == c'"':
            # RFC 9110 8.8.3: no quote is escaped in an entity tag, and a comma is a byte like any other.
            closing = <const char*> memchr(cursor + 1, c'"', end - cursor - 1)
            if closing == NULL:
                return False
            closing += 1
            if closing - cursor == PyBytes_GET_SIZE(tag) and memcmp(cursor, PyBytes_AS_STRING(tag), closing - cursor) == 0:
                return True
            cursor = closing
        else:
            # What is no entity tag is passed over up to the next element.
            cursor = <const char*> memchr(cursor, c",", end - cursor)
            if cursor == NULL:
                return False
        while cursor < end and (cursor[0] == c"," or cursor[0] == c" " or cursor[0] == c"\t"):
            cursor += 1
    return False


# Elements of lists, and what is in them.

cdef const char* _after_element(const char* cursor, const char* end) noexcept:
    """Where the element of a list ends that the text begins with: a comma in a quoted string ends none."""
    while cursor < end and cursor[0] != c",":
        if cursor[0] == c'"':
            cursor = _after_quoted(cursor, end)
            if cursor == NULL:
                return end
        else:
            cursor += 1
    return cursor


cdef const char* _after_quoted(const char* cursor, const char* end) noexcept:
    """RFC 9110 5.6.4: where the quoted string ends that the text begins with; NULL if nothing closes it."""
    cursor += 1
    while cursor < end:
        if cursor[0] == c'"':
            return cursor + 1
        # What is escaped may be a quote.
        cursor += 2 if cursor[0] == c"\\" else 1
    return NULL


cdef const char* _read_pair(const char* cursor, const char* end, Pair* pair) noexcept:
    """Read the token and any value that the text begins with; returns what follows them, NULL if there is none of it."""
    cdef const char* after
    pair.name = cursor
    pair.name_end = after_token(cursor, end)
    pair.value = NULL
    pair.value_end = NULL
    if pair.name_end == cursor:
        return NULL
    cursor = after_blanks(pair.name_end, end)
    if cursor == end or cursor[0] != c"=":
        return cursor
    cursor = after_blanks(cursor + 1, end)
    if cursor < end and cursor[0] == c'"':
        after = _after_quoted(cursor, end)
        if after == NULL:
            return NULL
        pair.value = cursor + 1
        pair.value_end = after - 1
    else:
        # RFC 7240 2: a value of no bytes is as none.
        after = after_token(cursor, end)
        pair.value = cursor
        pair.value_end = after
    return after_blanks(after, end)


cdef bint _is_well_formed(const char* cursor, const char* end) noexcept:
    """Whether parameters follow, each behind a ";", up to the end; some may be empty."""
    cdef Pair parameter
    while cursor != NULL and cursor < end:
        if cursor[0] != c";":
            return False
        cursor = after_blanks(cursor + 1, end)
        if cursor < end and cursor[0] != c";":
            cursor = _read_pair(cursor, end, &parameter)
    return cursor != NULL


cdef int _read_prefer(
    const char* cursor, const char* end, Preferences* preferences, bint* saw_async, bint* saw_wait
) noexcept:
    """Take the preferences of one Prefer line; of those that are given again the first one counts (RFC 7240 2)."""
    cdef const char* element_end
    cdef Pair preference
    cdef const char* after
    cdef long long wait_s
    while cursor < end:
        cursor = after_blanks(cursor, end)
        element_end = _after_element(cursor, end)
        after = _read_pair(cursor, element_end, &preference)
        if after != NULL and _is_well_formed(after, element_end):
            if is_name(preference.name, preference.name_end, b"respond-async", 13):
                if not saw_async[0]:
                    # RFC 7240 4.1: it has no value; one that has would ask for something else.
                    preferences.respond_async = preference.value == preference.value_end
                saw_async[0] = True
            elif is_name(preference.name, preference.name_end, b"wait", 4):
                if not saw_wait[0] and preference.value != NULL:
                    wait_s = decimal(preference.value, preference.value_end)
                    preferences.wait_s = <double> wait_s if _is_number(preference.value, preference.value_end) else -1
                saw_wait[0] = True
        cursor = element_end + 1
    return 0


cdef bint _is_number(const char* cursor, const char* end) noexcept:
    """Whether the text is digits alone."""
    cdef const char* first = cursor
    while cursor < end and c"0" <= cursor[0] <= c"9":
        cursor += 1
    return cursor == end and cursor > first


cdef bint _names_events(const char* cursor, const char* end) noexcept:
    """Whether an Accept line names text/event-stream, and not as what is not wanted."""
    cdef const char* element_end
    cdef const char* type_end
    while cursor < end:
        cursor = after_blanks(cursor, end)
        element_end = _after_element(cursor, end)
        type_end = <const char*> memchr(cursor, c";", element_end - cursor)
        if type_end == NULL:
            type_end = element_end
        if is_only_name(cursor, type_end, b"text/event-stream", EVENT_STREAM_BYTES) and not _is_unwanted(
            type_end, element_end
        ):
            return True
        cursor = element_end + 1
    return False


cdef bint _is_unwanted(const char* cursor, const char* end) noexcept:
    """Whether the parameters of a media range have a weight of 0 (RFC 9110 12.4.2), or are none."""
    cdef Pair parameter
    while cursor < end:
        if cursor[0] != c";":
            return True
        cursor = after_blanks(cursor + 1, end)
        if cursor < end and cursor[0] != c";":
            cursor = _read_pair(cursor, end, &parameter)
            if cursor == NULL:
                return True
            if is_name(parameter.name, parameter.name_end, b"q", 1):
                return _is_zero(parameter.value, parameter.value_end)
    return False


cdef bint _is_zero(const char* cursor, const char* end) noexcept:
    """Whether a weight is 0, 0.0, 0.00 or 0.000, or none."""
    if cursor == end:
        return True
    while cursor < end and (cursor[0] == c"0" or cursor[0] == c"."):
        cursor += 1
    return cursor == end


# For whoever has headers and no request.

class Preferred(NamedTuple):
    """What a request prefers."""

    respond_async: bool
    # -1 without a wait.
    wait_s: float
    wants_events: bool
    # None without one, empty for one that is none of ours.
    event_id: bytes | None
    # The value of If-None-Match; None without one.
    tags: bytes | None


def preferred(list headers not None, bint is_post=True):
    """What these headers, names and values in turn, prefer; is_post: of a POST."""
    cdef Preferences preferences
    cdef Request request = new_request()
    request.method = METHOD_POST if is_post else METHOD_PUT
    request.headers = headers
    read_preferences(request, &preferences)
    return Preferred(
        preferences.respond_async,
        preferences.wait_s,
        preferences.wants_events,
        last_event_id(request) if preferences.has_event_id else None,
        wanted_tags(request) if preferences.has_tags else None,
    )


def tag_matches(bytes tags not None, bytes tag not None):
    """Whether If-None-Match with this value names the entity tag."""
    return matches_tag(tags, tag)
