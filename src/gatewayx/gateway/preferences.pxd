"""What the headers of a request ask of the form of its answer: at once or as a kept job, whole or as events."""

from gatewayx.http.request cimport Request

cdef enum:
    # Of a Last-Event-ID; a longer one is none of ours. What is of ours is the id of a job, a point and a number.
    MOST_EVENT_ID_BYTES = 128
    # "text/event-stream".
    EVENT_STREAM_BYTES = 17


# What is asked of the answer; what is said with no effect, or wrongly, is as if it were not there.
cdef struct Preferences:
    # Prefer: respond-async, and wait in seconds, -1 without one. Of a POST alone.
    bint respond_async
    double wait_s
    # Accept names text/event-stream.
    bint wants_events
    # There is a Last-Event-ID, or an If-None-Match.
    bint has_event_id
    bint has_tags


# Whether a header of this name may tell of it; the name as sent.
cdef bint is_about_answer(const char* name, Py_ssize_t name_bytes) noexcept


cdef inline bint tells_of_answer(const char* name, Py_ssize_t name_bytes, Py_ssize_t value_bytes) noexcept:
    """The same, where most headers are of another length, and most Accept too short to name text/event-stream."""
    if name_bytes == 6:
        return (value_bytes >= EVENT_STREAM_BYTES or (name[0] | 0x20) != c"a") and is_about_answer(name, name_bytes)
    return name_bytes == 13 and is_about_answer(name, name_bytes)


cdef int read_preferences(Request request, Preferences* preferences) except -1
# The request's Last-Event-ID; None without one, and no bytes for one that is none of ours: too long, or given twice.
cdef bytes last_event_id(Request request)
# The request's If-None-Match, several lines as one; None without one.
cdef bytes wanted_tags(Request request)
# Whether one of these entity tags is the tag, which has its quotes; those are compared weakly (RFC 9110 8.8.3.2, 13.1.2).
cdef bint matches_tag(bytes tags, bytes tag) noexcept
