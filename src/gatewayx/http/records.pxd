"""What is told of each request: its name, what is counted of it, and the access log."""

from libc.string cimport memcpy

from gatewayx.core.clock cimport moment
from gatewayx.core.metrics cimport Metrics, MetricsRow, add_duration
from gatewayx.core.turns cimport Turn
from gatewayx.http.request cimport ID_BYTES, Request

cdef enum:
    # Of the header lines that every answer has of its own: X-Request-Id, with a name of MOST_NAME_BYTES (http/forwarded), and
    # Server-Timing, or Outcome.
    MOST_LINES_BYTES = 320
    # Of the names traceparent and X-Request-Id.
    TRACE_NAME_BYTES = 11
    REQUEST_ID_NAME_BYTES = 12


# How a request has ended, as one process tells it to another that has relayed it; as in Request.
cdef struct Ending:
    int outcome
    int server_place
    long long job_ns


cdef class RequestsLog:
    """Where requests are told of once they have ended."""
    # The request has ended, so long after it began: all of the Request and its note is known.
    cdef int tell(self, Request request, long long took_ns) except -1


# What a request needs of Records on its way.
cdef struct RecordsState:
    MetricsRow* counted
    # What time it is (core/clock).
    const long long* moment_ns
    # The name of the last request: what tells this process from all others, "-", and a number.
    char[ID_BYTES] last_id


cdef inline void begin_record(RecordsState* state, Request request) noexcept:
    """A request has begun, or what is answered as one: it gets its name and time."""
    cdef int place = ID_BYTES - 1
    while state.last_id[place] == c"9":
        state.last_id[place] = c"0"
        place -= 1
    state.last_id[place] += 1
    memcpy(request.id, state.last_id, ID_BYTES)
    request.begun_ns = moment(state.moment_ns)


cdef class Records:
    # Where requests and jobs are counted.
    cdef readonly Metrics metrics
    cdef Turn turn
    # None while nobody logs: then requests get no note.
    cdef public RequestsLog log
    # Answers say how long they took.
    cdef public bint server_timing
    # Somebody is believed who names requests.
    cdef bint takes_names
    cdef RecordsState state

    # Let the access log tell of it; client: its address, None for none. Where its connection and it stand, from 1 on.
    cdef int note(self, Request request, bytes client, unsigned int connection, unsigned int number) except -1
    # Write the lines that say which request an answer is to, and with server_timing how long it took; returns what follows them.
    cdef char* put_lines(self, char* end, Request request) noexcept
    # The answer to a request that has a note has left, or never will.
    cdef int log_end(self, Request request) except -1


cdef inline int end_record(Records records, RecordsState* state, Request request) except -1:
    """Its answer has left, or never will."""
    cdef long long took_ns = moment(state.moment_ns) - request.begun_ns
    state.counted.requests[request.function_place][<int> request.method][request.outcome] += 1
    add_duration(&state.counted.requests_took[request.function_place], took_ns)
    if request.token_place:
        state.counted.token_requests[request.token_place - 1][request.outcome] += 1
    return 0 if request.note is None else records.log_end(request)


# Write the line that tells a process how a request has ended that it has relayed; returns what follows it.
cdef char* put_ending(char* end, Request request) noexcept
# Whether a line, without its end, is such a one; what it tells.
cdef bint read_ending(const char* line, Py_ssize_t size, Ending* ending) noexcept
cdef bint is_noted_name(const char* name, Py_ssize_t name_bytes) noexcept


cdef inline bint is_noted(const char* name, Py_ssize_t name_bytes) noexcept:
    """Whether it is the name of a header that the access log tells of."""
    return TRACE_NAME_BYTES <= name_bytes <= REQUEST_ID_NAME_BYTES and is_noted_name(name, name_bytes)
