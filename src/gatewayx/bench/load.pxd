"""The load generator: one process's share of the connections, open or closed loop."""

from gatewayx.bench.response cimport ResponseReader
from gatewayx.bench.template cimport RequestTemplate
from gatewayx.net.poller cimport Polled, Poller
from gatewayx.net.sockets cimport Peer
from gatewayx.core.histogram cimport Histogram

cdef enum:
    RECEIVE_BYTES = 262144
    # Requests that are sent together are gathered in a buffer of this size.
    GATHER_BYTES = 65536
    STATUSES = 1000
    # Of a flood: before, during and after it.
    PHASES = 3


cdef class LoadConnection(Polled):
    cdef LoadGenerator generator
    # -1 while there is none.
    cdef int descriptor
    cdef bint connecting
    # An answer has come on this connection: when it is lost, the next one is made at once.
    cdef bint proved
    # When the connection was begun if a request waits for it, in a closed loop; 0 otherwise.
    cdef long long begun_ns
    cdef long long connect_deadline_ns
    # Requests under way, a ring of `generator.pipeline` places: when due, when sent, its number.
    cdef long long* due_ns
    cdef long long* sent_ns
    cdef unsigned long long* serials
    cdef int first
    cdef int outstanding
    # How many of those, the last ones, have not been sent whole, and how many bytes of the first of these have been.
    cdef int unsent
    cdef Py_ssize_t unsent_at
    cdef ResponseReader reader
    # A piece of the body that is being read differs from what was expected.
    cdef bint mismatch
    # In the generator's list of those that can take a request, since when it can, and the next one there. One that
    # no longer can is passed over when its turn comes.
    cdef bint listed
    cdef long long available_since_ns
    cdef LoadConnection next_available

    cdef int open(self, long long at_ns) except -1
    cdef int receive_answers(self, long long at_ns, unsigned int events) except -1
    cdef bint take(self, long long at_ns, const char* data, Py_ssize_t size) except -1
    cdef bint answered(self, long long at_ns) except -1
    cdef void add_request(self, long long due_ns, long long at_ns) noexcept
    cdef Py_ssize_t _gather(self) noexcept
    cdef int flush(self, long long at_ns) except -1
    cdef int go_on(self, long long at_ns) except -1
    cdef int lost(self, long long at_ns, int kind) except -1
    cdef int sweep(self, long long at_ns) except -1
    cdef void close(self) noexcept


cdef class LoadGenerator:
    cdef object loop
    cdef Peer peer
    cdef Poller poller
    cdef RequestTemplate template
    cdef list connections
    cdef readonly int pipeline
    cdef long long timeout_ns
    # Requests a second; 0 for a closed loop.
    cdef double rate
    cdef int process
    cdef int processes
    cdef char* received
    cdef char* gathered
    # In an open loop: connections that can take a request, the one that has waited longest first.
    cdef LoadConnection first_available
    cdef LoadConnection last_available
    # The run: from when to when requests are sent. 0 before it begins.
    cdef long long begins_ns
    cdef long long ends_ns
    cdef bint sending
    # The number of the next request that is due, in an open loop.
    cdef long long next_due
    cdef unsigned long long next_serial
    # Requests sent whole or in part, of them those until ends_ns and those that have not ended.
    cdef readonly long long sent
    cdef readonly long long sent_in_time
    cdef readonly long long outstanding
    # Good answers in all and until ends_ns; what else requests ended in.
    cdef readonly long long good
    cdef readonly long long good_in_time
    cdef long long errors[6]
    cdef long long statuses[STATUSES]
    cdef readonly long long sent_bytes
    cdef readonly long long received_bytes
    # Latency from when due, from when sent, since the last snapshot, and how late we were ourselves.
    cdef readonly Histogram latency
    cdef readonly Histogram uncorrected
    cdef readonly Histogram interval
    cdef readonly Histogram lateness
    # From when to when the flood lasts; 0 without one. Of what was due before, in and after that time: latency, good
    # answers, and requests that failed.
    cdef long long flood_begins_ns
    cdef long long flood_ends_ns
    cdef list phase_latency
    cdef long long phase_good[PHASES]
    cdef long long phase_failed[PHASES]
    # Connections that could not be made, by errno.
    cdef readonly dict failed_connects
    # What was wrong with the last bad answer; None without one.
    cdef readonly str bad_response
    # The errno of the last connect that failed; 0 without one.
    cdef readonly int connect_errno

    cdef void list_available(self, LoadConnection connection, long long since_ns) noexcept
    cdef int send_due(self) except -1
    cdef LoadConnection _take_available(self)
    cdef long long due_ns(self, long long number) noexcept
    cdef int _fail_unsent(self, long long at_ns) except -1
    cdef int phase_of(self, long long due_ns) noexcept
    cdef void took(self, long long due_ns, long long sent_ns, long long ended_ns) noexcept
    cdef void failed(self, int kind, long long due_ns) noexcept
    cdef int not_connected(self, int error, long long begun_ns, long long at_ns) except -1
