"""What is told of each request: its name, what is counted of it, and the access log.

A request is told of once, by the process to which its client is connected: when its answer has left, or when it is known
that none will. Another process that has answered it, since it owns its key, says how it ended in a line of its answer's
head, which no client sees.
"""

import base64
import os

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING
from libc.string cimport memcmp, memcpy

from gatewayx.core.clock cimport now_ns
from gatewayx.core.digits cimport put, put_bytes, put_decimal
from gatewayx.core.grammar cimport is_word
from gatewayx.core.metrics cimport OUTCOME_PLACES, SERVER_PLACES, Metrics
from gatewayx.core.turns cimport Turn
from gatewayx.http.request cimport (
    ID_BYTES,
    MOST_CLIENT_ID_BYTES,
    TRACE_ID_BYTES,
    HeaderSlice,
    Request,
    RequestNote,
    header_slice,
)

cdef enum:
    # Of a name: base32 digits that tell processes, hosts and restarts apart, 65 random bits of them.
    PROCESS_DIGITS = 13
    # The longest number in an Outcome line has so many digits.
    MOST_ENDING_DIGITS = 18
    # Of a traceparent: a version, the trace, its parent and flags, with dashes between.
    TRACEPARENT_BYTES = 55


cdef class RequestsLog:
    """Where requests are told of once they have ended."""

    cdef int tell(self, Request request, long long took_ns) except -1:
        raise NotImplementedError


@cython.final
cdef class Records:
    """Tells of the requests of a process.

    metrics: where they are counted. turn: tells the time. log: where they are told of one by one; None for nowhere, and may
    be changed. server_timing: answers say how long they took.
    """

    def __init__(
        self, Metrics metrics not None, Turn turn not None, RequestsLog log=None, *, bint server_timing=False
    ):
        self.metrics = metrics
        self.turn = turn
        self.log = log
        self.server_timing = server_timing
        process = base64.b32encode(os.urandom(10))[:PROCESS_DIGITS].lower()
        text = process + b"-" + b"0" * (ID_BYTES - PROCESS_DIGITS - 1)
        memcpy(self.state.last_id, PyBytes_AS_STRING(text), ID_BYTES)
        self.state.counted = metrics.own
        self.state.moment_ns = &turn.moment_ns

    cdef char* put_lines(self, char* end, Request request) noexcept:
        cdef long long took_ns, job_ns
        end = put(end, b"X-Request-Id: ", 14)
        if request.proxy_note is None or request.proxy_note.name is None:
            end = put(end, request.id, ID_BYTES)
        else:
            end = put_bytes(end, request.proxy_note.name)
        end = put(end, b"\r\n", 2)
        if not self.server_timing:
            return end
        # What is told of one request has the clock's own time, not that of the turn.
        took_ns = now_ns() - request.begun_ns
        job_ns = request.job_ns
        end = _put_milliseconds(put(end, b"Server-Timing: gw;dur=", 22), took_ns - max(0, job_ns))
        if job_ns >= 0:
            end = _put_milliseconds(put(end, b", job;dur=", 10), job_ns)
        return put(end, b"\r\n", 2)

    cdef int note(self, Request request, bytes client, unsigned int connection, unsigned int number) except -1:
        cdef RequestNote note = RequestNote.__new__(RequestNote)
        cdef HeaderSlice header
        cdef int index
        cdef int traces = 0
        note.path = request.path
        note.client = client
        note.connection = connection
        note.number = number
        request.note = note
        for index in range(request.wanted_headers()):
            header_slice(request, index, &header)
            if not is_noted(header.name, header.name_bytes):
                continue
            if header.name_bytes == REQUEST_ID_NAME_BYTES:
                # What a trusted proxy calls it is its name.
                if note.client_id is None and (request.proxy_note is None or request.proxy_note.name is None):
                    note.client_id = header.value[: min(header.value_bytes, <Py_ssize_t> MOST_CLIENT_ID_BYTES)]
                continue
            traces += 1
            note.trace = trace_of(header.value, header.value_bytes)
        if traces > 1:
            # Nobody knows which of them it is part of.
            note.trace = None
        return 0

    cdef int log_end(self, Request request) except -1:
        # The log may have been left out since the request began. Another process may have taken the job's time.
        return 0 if self.log is None else self.log.tell(request, max(now_ns() - request.begun_ns, request.job_ns))


cdef inline char* _put_milliseconds(char* end, long long duration_ns) noexcept:
    """With three decimals. Two clocks' readings of one moment may differ by a turn, so that what is left may be below 0."""
    cdef unsigned long long microseconds = <unsigned long long> max(0, duration_ns) // 1000
    cdef int part = <int> (microseconds % 1000)
    end = put_decimal(end, microseconds // 1000)
    end[0] = c"."
    end[1] = <char> (c"0" + part // 100)
    end[2] = <char> (c"0" + part // 10 % 10)
    end[3] = <char> (c"0" + part % 10)
    return end + 4


cdef char* put_ending(char* end, Request request) noexcept:
    end = put_decimal(put(end, b"Outcome: ", 9), request.outcome)
    end = put_decimal(put(end, b" ", 1), request.server_place)
    # One more than what it took, 0 for no job.
    end = put_decimal(put(end, b" ", 1), request.job_ns + 1)
    return put(end, b"\r\n", 2)


cdef bint read_ending(const char* line, Py_ssize_t size, Ending* ending) noexcept:
    cdef long long[3] numbers
    cdef const char* end = line + size
    cdef const char* begun
    cdef int index
    if size < 9 or memcmp(line, b"Outcome: ", 9) != 0:
        return False
    line += 8
    for index in range(3):
        if line == end or line[0] != c" ":
            return False
        line += 1
        begun = line
        numbers[index] = 0
        while line < end and line - begun < MOST_ENDING_DIGITS and c"0" <= line[0] <= c"9":
            numbers[index] = 10 * numbers[index] + line[0] - c"0"
            line += 1
        if line == begun:
            return False
    if line != end or numbers[0] >= OUTCOME_PLACES or numbers[1] >= SERVER_PLACES:
        return False
    ending.outcome = <int> numbers[0]
    ending.server_place = <int> numbers[1]
    ending.job_ns = numbers[2] - 1
    return True


cdef bint is_noted_name(const char* name, Py_ssize_t name_bytes) noexcept:
    if name_bytes == REQUEST_ID_NAME_BYTES:
        return is_word(name, b"x-reques") and is_word(name + 4, b"quest-id")
    return name_bytes == TRACE_NAME_BYTES and is_word(name, b"tracepar") and is_word(name + 3, b"ceparent")


cdef inline bint _are_digits(const char* text, int first, int end, bint may_be_zeros) noexcept:
    """Whether they are hexadecimal ones in small letters, not all of them 0 unless they may be."""
    cdef bint zeros = True
    cdef int index
    for index in range(first, end):
        if not (c"0" <= text[index] <= c"9" or c"a" <= text[index] <= c"f"):
            return False
        zeros = zeros and text[index] == c"0"
    return may_be_zeros or not zeros


cdef bytes trace_of(const char* value, Py_ssize_t size):
    """The trace of a traceparent (W3C Trace Context, 3.2.2 and 4.3); None for one that is none."""
    if (
        size < TRACEPARENT_BYTES
        or not _are_digits(value, 0, 2, True)
        or (value[0] == c"f" and value[1] == c"f")
        or not value[2] == value[35] == value[52] == c"-"
        or not _are_digits(value, 3, 35, False)
        or not _are_digits(value, 36, 52, False)
        or not _are_digits(value, 53, 55, True)
    ):
        return None
    # The first version has no more; a later one has it behind a dash.
    if size > TRACEPARENT_BYTES and (value[55] != c"-" or (value[0] == c"0" and value[1] == c"0")):
        return None
    return value[3 : 3 + TRACE_ID_BYTES]
