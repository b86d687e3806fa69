"""An in-memory Gearman job server for the demo, the tests and, as the null upstream, the benchmarks."""

from gatewayx.embedded.output cimport Output
from gatewayx.embedded.queues cimport Function, QueuedJob
from gatewayx.gearman.packet cimport PacketReader

cdef enum:
    # A text command is a verb, a function name at most, and numbers.
    MAX_LINE_BYTES = 16384


cdef class ServerConnection(Output):
    cdef JobServer server
    # The first byte has come.
    cdef bint started
    cdef PacketReader reader
    # Bytes of a text command whose line has not ended; None on a binary connection.
    cdef bytes line
    # As a worker: its functions by name in order of CAN_DO, and the jobs it runs by handle.
    cdef readonly dict functions
    cdef dict running
    # As a client: the jobs it waits for, by handle.
    cdef dict waiting
    # The client set the option `exceptions`: it gets WORK_EXCEPTION, which is WORK_FAIL to all others.
    cdef bint exceptions
    # Sent PRE_SLEEP and got no NOOP since.
    cdef bint sleeping
    cdef readonly bytes client_id

    cdef int send_error(self, bytes code, bytes text) except -1
    cdef int dispatch(self) except -1
    cdef int submit(self, int priority, bint background) except -1
    cdef int grab(self, int assign_type) except -1
    cdef int pre_sleep(self) except -1
    cdef int can_do(self, bytes name, object timeout_s) except -1
    cdef int work(self, int packet_type) except -1
    cdef bytes asked_name(self)
    cdef int get_status(self) except -1
    cdef int get_status_unique(self) except -1
    cdef int set_option(self) except -1
    cdef int cant_do(self, bytes name) except -1
    cdef QueuedJob next_job(self)
    cdef int text_received(self, bytes data) except -1
    cdef int hang_up(self) except -1


cdef class JobServer:
    # Jobs of one function, queued and running, and clients of one job; above it a submit is answered ERROR.
    cdef readonly Py_ssize_t max_queue
    # Workloads held in memory over all jobs.
    cdef readonly Py_ssize_t max_workload_bytes
    # Function names remembered; gearmand has no such bound and forgets none.
    cdef readonly Py_ssize_t max_functions
    # One packet's body.
    cdef readonly Py_ssize_t max_body_bytes
    # Unsent bytes of one connection; a peer that lets more pile up is disconnected.
    cdef readonly Py_ssize_t max_output_bytes

    # (host, port) while it listens.
    cdef readonly object address
    # Counters since the start: submits answered JOB_CREATED, of which those that joined an older job; jobs that ended.
    cdef readonly unsigned long long submitted
    cdef readonly unsigned long long coalesced
    cdef readonly unsigned long long finished
    cdef readonly Py_ssize_t workload_bytes

    cdef readonly object loop
    cdef object listener
    # A Future that close() waits for: the last connection is gone.
    cdef object closing
    cdef readonly set open_connections
    # Connections with something in `out`; non-empty while a flush is due.
    cdef list dirty
    # Function by name, QueuedJob by handle.
    cdef readonly dict functions
    cdef readonly dict jobs
    cdef bytes handle_prefix
    cdef unsigned long long handles

    cdef int connection_gone(self, ServerConnection connection) except -1
    cdef int flush_later(self, ServerConnection connection) except -1
    cdef Function function(self, bytes name)
    cdef QueuedJob add_job(self, Function function, bytes unique, bytes workload, int priority)
    cdef int queue(self, QueuedJob job) except -1
    cdef int requeue(self, QueuedJob job) except -1
    cdef int take_from_worker(self, QueuedJob job) except -1
    cdef int end_job(self, QueuedJob job) except -1
    cdef int abandon(self, QueuedJob job, ServerConnection client) except -1
