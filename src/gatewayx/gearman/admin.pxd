"""The text protocol of a job server, on a connection of its own."""

from gatewayx.core.counters cimport Counters, Counts
from gatewayx.gearman.upstream cimport UpstreamConnection

cdef enum:
    # Cancellations that are sent or about to be and not answered; above, further ones are left out.
    MAX_PENDING_CANCELS = 16384
    # A line of an answer; gearmand's longest name of a function is below 8 KiB.
    MAX_LINE_BYTES = 16384
    # Bytes of answers that are looked at in one loop turn: a status of a million functions holds up nobody.
    TURN_BYTES = 16384
    # Functions with workers or jobs, of one job server; above, the others count as not known.
    MAX_FUNCTIONS = 65536
    # Names of functions with workers that are listed apart; more than metrics tell apart.
    MAX_SERVED = 128
    # What is kept of a job server's version.
    MAX_VERSION_BYTES = 64


cdef class FunctionStatus:
    """One function at one job server, as its last `status` said."""
    # Jobs that no worker has yet, and those that one has.
    cdef readonly Py_ssize_t queued
    cdef readonly Py_ssize_t running
    # Workers that can do it.
    cdef readonly Py_ssize_t workers
    # The number of the first `status` since which it has always had jobs; 0 for longer than is known.
    cdef readonly long long busy_since


cdef class ServerStatus:
    """What is known of one job server by text."""
    # The text connection that is up; None while none is.
    cdef AdminConnection connection
    # By function, those with workers or jobs; None while no answer is there.
    cdef dict functions
    # There are more functions than are kept.
    cdef bint functions_left_out
    # Jobs queued of all functions together, those left out included, as the last answer said; 0 before the first one.
    cdef readonly long long queued_jobs
    # Jobs running, and workers, counted once for each function; as the one above.
    cdef readonly long long running_jobs
    cdef readonly long long workers_in_all
    # The first MAX_SERVED functions that have workers.
    cdef readonly list served
    # How many `status` were asked for so far, and the number of the last one answered.
    cdef readonly long long asked
    cdef readonly long long answered
    # What it has answered to `version` last; empty before.
    cdef readonly bytes version

    # Workers for the function; -1 if that is not known.
    cdef Py_ssize_t workers(self, bytes function)
    # Jobs queued of the function; -1 if that is not known.
    cdef Py_ssize_t queued(self, bytes function)
    # Whether a job of the function that was accepted when `asked` was so much has ended, as far as can be told.
    cdef bint has_ended(self, bytes function, long long asked)


cdef class Cancellation:
    """One `cancel job` whose answer somebody waits for. Of answered() and lost() exactly one is called, once, unless it is not
    wanted any more before it was sent."""
    # Of the job, at the job server that the text connection is to.
    cdef readonly bytes handle

    # It may still be sent: the job's own connection lives.
    cdef bint is_wanted(self)
    # The job server has answered: OK of queued, running and cancelled ones alike, ERR of one that it does not know.
    cdef int answered(self, bint is_cancelled) except -1
    # The text connection is gone, for this reason; whether the cancellation has arrived is not known.
    cdef int lost(self, str reason) except -1


cdef class AdminConnection(UpstreamConnection):
    # Tells it from every other text connection of this process, from 1: one life of a job server has no more than one at a time,
    # and none is to two lives.
    cdef readonly unsigned int number
    # Where what it learns is kept.
    cdef readonly ServerStatus status
    # Jobs and Cancellations that leave with this loop turn.
    cdef list cancelled_jobs
    # What the answers that are due are: at most MAX_PENDING_CANCELS lines, some of them Cancellations, and one status.
    cdef object due
    # How many of them are cancellations.
    cdef readonly Py_ssize_t pending_cancels
    # What has come and was not looked at before this offset: less than a line, or with `behind` more than a loop turn's
    # share. While it is behind nothing more is read, so it is bounded by one read of the loop's and a line.
    cdef bytes unread
    cdef Py_ssize_t offset
    cdef bint behind
    cdef bint reading_paused
    # The status that is being read; None otherwise.
    cdef dict reading
    cdef bint reading_left_out
    cdef long long reading_queued
    cdef long long reading_running
    cdef long long reading_workers
    cdef list reading_served
    # Loop time of the last byte, or of the last question when nothing was due.
    cdef double heard_at_s
    cdef double asked_at_s
    # When the last `version` or `status` was asked for; the shortest time in which one was answered; how much longer than
    # that the last one took; and the last two at least: about what one costs the job server.
    cdef long long question_at_ns
    cdef double quickest_s
    cdef double last_cost_s
    cdef readonly double status_cost_s
    # Keeps the row alive to which `counts` points.
    cdef Counters counted_in
    cdef Counts* counts

    # Ask that the job be taken out of the queue; gearmand's answer tells nothing, so none is awaited.
    cdef int cancel(self, object job) except -1
    # Ask the same and tell of the answer. Returns None, or in words why it cannot be asked, and then nothing is told.
    cdef str cancel_and_tell(self, Cancellation cancellation)
    cdef int _cancel_later(self, object cancelled) except -1
    cdef int _ask(self, int answer, bytes command) except -1
    cdef int _read_lines(self) except -1
    cdef int _line(self, const char* line, Py_ssize_t line_bytes) except -1
    cdef int _time_answer(self) except -1
    cdef int _status_line(self, const char* line, Py_ssize_t line_bytes) except -1
    cdef int _status_ends(self) except -1
