"""What happens to a kept job, as events: numbered, encoded as server-sent events, the last of them kept.

The format is that of html.spec.whatwg.org/multipage/server-sent-events.html. The data of each event is one line of JSON, in which
no line ends, so it never needs a second `data` field.
"""

import base64
from collections import deque

import orjson

cimport cython
from cpython.bytes cimport PyBytes_GET_SIZE

from gatewayx.gearman.job cimport printable

cdef enum:
    # A number of so many digits fits a signed one of 64 bits.
    MOST_DIGITS = 18


@cython.final
cdef class EventLog:
    """The last events of the job with this id."""

    def __cinit__(self, bytes job_id=None):
        self.job_id = job_id
        self.first = 1
        self.next = 1
        self.kept = deque()

    cpdef bytes add(self, bytes kind, bytes data):
        cdef bytes event = b"id: %b.%d\nevent: %b\ndata: %b\n\n" % (self.job_id, self.next, kind, data)
        cdef Py_ssize_t size = PyBytes_GET_SIZE(event)
        self.passing = None
        self.next += 1
        if size > MOST_EVENT_BYTES:
            self.kept.clear()
            self.kept_bytes = 0
            self.first = self.next
            self.passing = event
            return event
        while self.kept_bytes + size > MOST_EVENT_BYTES or len(self.kept) == MOST_EVENTS:
            self.forget_oldest()
        self.kept.append(event)
        self.kept_bytes += size
        return event

    cpdef int told(self) except -1:
        self.passing = None
        return 0

    cpdef bytes event(self, long long number):
        if number >= self.first:
            return <bytes> self.kept[number - self.first]
        return self.passing

    cpdef bytes events_from(self, long long number):
        if number < self.first:
            return self.passing
        if number == self.next - 1:
            return <bytes> self.kept[number - self.first]
        return b"".join(list(self.kept)[number - self.first :])

    cpdef bytes gap(self, long long missing):
        cdef long long last = self.oldest() - 1
        return b'id: %b.%d\nevent: gap\ndata: {"first":%d,"last":%d}\n\n' % (self.job_id, last, missing, last)

    cpdef int forget_oldest(self) except -1:
        self.kept_bytes -= PyBytes_GET_SIZE(<bytes> self.kept.popleft())
        self.first += 1
        return 0

    cpdef Py_ssize_t held_bytes(self):
        return self.kept_bytes + EVENT_OBJECT_BYTES * len(self.kept)


cpdef object number_of(bytes text):
    if text.isdigit() and PyBytes_GET_SIZE(text) <= MOST_DIGITS:
        return int(text)
    return printable(text[:MOST_NUMBER_BYTES])


cpdef object percent_of(object numerator, object denominator):
    if not isinstance(numerator, int) or not isinstance(denominator, int) or denominator == 0:
        return None
    return min(100, numerator * 100 // denominator)


cpdef bytes status_data(bytes numerator, bytes denominator):
    done = number_of(numerator)
    whole = number_of(denominator)
    return orjson.dumps({"numerator": done, "denominator": whole, "percent": percent_of(done, whole)})


cpdef bytes piece_data(bytes piece):
    try:
        return orjson.dumps({"encoding": "text", "data": piece.decode()})
    except UnicodeDecodeError:
        return orjson.dumps({"encoding": "base64", "data": base64.b64encode(piece).decode("ascii")})


cpdef tuple read_event_id(bytes text):
    job_id, point, number = text.rpartition(b".")
    if not job_id or not number.isdigit() or PyBytes_GET_SIZE(number) > MOST_DIGITS:
        return None
    return job_id, int(number)
