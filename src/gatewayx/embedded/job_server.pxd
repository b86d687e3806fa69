"""An in-memory Gearman job server for the demo, the tests and, as the null upstream, the benchmarks."""

from gatewayx.gearman.packet cimport PacketReader

cdef enum:
    PRIORITIES = 3
    # Up to here a last argument is copied behind its packet's head; above, it is written beside it.
    COPY_BYTES = 16384
    # A text command is a verb, a function name at most, and numbers.
    MAX_LINE_BYTES = 16384


cdef class QueuedJob:
    cdef bytes handle
    cdef bytes unique
    cdef bytes workload
    cdef Function function
    # Index into the function's queues: 0 high, 1 normal, 2 low.
    cdef int priority
    # Who hears of it, one entry a foreground submit: one connection may be there twice (coalescing).
    cdef list clients
    # The connection that runs it; None while it is queued.
    cdef ServerConnection worker
    # Running time is up: a TimerHandle of CAN_DO_TIMEOUT, or None.
    cdef object timeout
    # Cancelled, or every foreground client is gone: thrown away when a worker would get it (gearmand: ignore_job).
    cdef bint dropped
    # How often a worker was lost while running it.
    cdef unsigned int retries
    cdef unsigned int numerator
    cdef unsigned int denominator


cdef class Function:
    cdef bytes name
    # One deque of QueuedJob a priority.
    cdef tuple queues
    # Every job of the function, queued and running, by its unique, or by its workload where the unique is "-".
    cdef dict by_unique
    cdef dict by_workload
    # ServerConnection: seconds a job may run there (0: any).
    cdef dict workers
    # Jobs in `queues`, and with a worker.
    cdef Py_ssize_t queued
    cdef Py_ssize_t running
    # A submit of a priority is refused while there are this many jobs of the function (0: the server's own bound only).
    cdef list max_queue

    cdef QueuedJob find(self, bytes unique, bytes workload)
    cdef int index(self, QueuedJob job) except -1
    cdef int forget(self, QueuedJob job) except -1


cdef class ServerConnection:
    cdef JobServer server
    # None before connection_made and after connection_lost.
    cdef object transport
    # Nothing may be written any more, what comes is not looked at.
    cdef bint closing
    # The first byte has come.
    cdef bint started
    cdef PacketReader reader
    # Bytes of a text command whose line has not ended; None on a binary connection.
    cdef bytes line
    # Buffers to write at the end of this loop turn; `out_bytes` is their sum.
    cdef list out
    cdef Py_ssize_t out_bytes
    # As a worker: its functions by name in order of CAN_DO, and the jobs it runs by handle.
    cdef dict functions
    cdef dict running
    # As a client: the jobs it waits for, by handle.
    cdef dict waiting
    # Wants WORK_EXCEPTION as such.
    cdef bint exceptions
    # Sent PRE_SLEEP and got no NOOP since.
    cdef bint sleeping
    cdef bytes client_id

    cdef int send(self, int packet_type, tuple leading, bytes last) except -1
    cdef int send_bytes(self, bytes data) except -1
    cdef int send_error(self, bytes code, bytes text) except -1
    cdef int flush(self) except -1
    cdef int dispatch(self) except -1
    cdef int submit(self, int priority, bint background) except -1
    cdef int grab(self, int assign_type) except -1
    cdef int pre_sleep(self) except -1
    cdef int can_do(self, bytes name, object timeout_s) except -1
    cdef int work(self, int packet_type) except -1
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

    cdef object loop
    cdef object listener
    # A Future that close() waits for: the last connection is gone.
    cdef object closing
    cdef set open_connections
    # Connections with something in `out`; non-empty while a flush is due.
    cdef list dirty
    cdef dict functions
    # QueuedJob by handle.
    cdef dict jobs
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
    cdef bytes run_text(self, list words)
