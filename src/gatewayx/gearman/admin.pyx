"""The text protocol of a job server, on a connection of its own, since its replies are not framed.

Commands are answered in their order: `version` and `cancel job` with a line, `status` with lines up to one that is a
dot. That order is all there is to tell the answers apart by.

`cancel job <handle>` is answered OK for queued, running and cancelled jobs alike, and the job ends with a WORK_FAIL on
the connection that submitted it (libgearman-server/text.cc). Handles begin at 1 again when a job server restarts, so a
cancellation must reach the life of the job server that gave the handle: it is sent only on a connection that has been
up since before the handle was given, and only while the job's own connection lives. A lost connection never comes up
again; a new one is another object.

Whoever cancels a job and still waits for it is told of the answer (Cancellation), since what the job server knows of the job
may be asked for only behind that.

`status` has a line a function: its name, all its jobs, the running ones, the workers that can do it.
"""

from collections import deque

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memchr

from gatewayx.core.clock cimport now_ns
from gatewayx.core.counters cimport Counters
from gatewayx.core.turns cimport Turn
from gatewayx.gearman.upstream cimport UpstreamConnection

# What answers a command.
cdef enum:
    VERSION
    CANCELLATION
    STATUS

cdef enum:
    # Digits of a number that is believed: it fits 63 bits.
    MAX_NUMBER_DIGITS = 18
    # Jobs that are told apart; more count as so many.
    MAX_QUEUED_JOBS = 1000000000
    # Numbers at the end of a line of `status`: jobs, those running, workers.
    NUMBERS = 3

# How many text connections were made so far; 0 is the number of none.
cdef unsigned int connections_made = 0


@cython.final
@cython.freelist(256)
cdef class FunctionStatus:
    """One function at one job server, as its last `status` said."""


@cython.final
cdef class ServerStatus:
    """What is known of one job server by text."""

    def __cinit__(self):
        self.version = b""
        self.served = []

    def functions_now(self):
        """The functions with workers or jobs, as the last `status` said; None while that is not known."""
        return self.functions

    cdef Py_ssize_t workers(self, bytes function):
        cdef FunctionStatus status
        if self.functions is None:
            return -1
        status = <FunctionStatus> self.functions.get(function)
        if status is not None:
            return status.workers
        return -1 if self.functions_left_out else 0

    cdef Py_ssize_t queued(self, bytes function):
        cdef FunctionStatus status
        if self.functions is None:
            return -1
        status = <FunctionStatus> self.functions.get(function)
        if status is not None:
            return status.queued
        return -1 if self.functions_left_out else 0

    cdef bint has_ended(self, bytes function, long long asked):
        cdef FunctionStatus status
        if self.functions is None or self.answered <= asked:
            return False
        status = <FunctionStatus> self.functions.get(function)
        if status is None:
            return not self.functions_left_out
        if status.queued + status.running == 0:
            return True
        # The status before the one since which it is busy had none, and was asked for after the job was accepted.
        return status.busy_since > asked + 1


cdef class Cancellation:
    """One `cancel job` whose answer somebody waits for; see the .pxd."""

    @property
    def connected(self):
        """Whether it may still be sent."""
        return self.is_wanted()

    cdef bint is_wanted(self):
        return True

    cdef int answered(self, bint is_cancelled) except -1:
        raise NotImplementedError

    cdef int lost(self, str reason) except -1:
        raise NotImplementedError


@cython.final
cdef class AdminConnection(UpstreamConnection):
    """A text connection.

    loop: the event loop. turn: where cancellations are written. status: where what it learns is kept. counters: where
    cancellations are counted.
    """

    def __init__(self, loop, Turn turn not None, ServerStatus status not None, Counters counters not None):
        global connections_made
        super().__init__(loop, turn, "text connection")
        connections_made += 1
        if connections_made == 0:
            connections_made = 1
        self.number = connections_made
        self.counted_in = counters
        self.counts = counters.row
        self.status = status
        self.cancelled_jobs = []
        self.due = deque()
        self.unread = b""

    def check(self, double silence_s):
        """Close when nothing came for silence_s though something is due."""
        if self.due and self.loop.time() - self.heard_at_s >= silence_s:
            self.close_for(f"the job server gave no answer by text within {silence_s:g} s")

    def ask_status(self, double interval_s):
        """Ask for the status if that was so long ago and is answered."""
        cdef double now_s = self.loop.time()
        # A timer may be early by the loop's clock.
        if self.is_up() and now_s - self.asked_at_s >= 0.9 * interval_s and STATUS not in self.due:
            self.asked_at_s = now_s
            self.question_at_ns = now_ns()
            self.status.asked += 1
            self._ask(STATUS, b"status\n")

    @property
    def unanswered(self):
        """What it must answer to come up and has not, in words; None if it is not connected."""
        return None if self.stream is None else "version"

    cdef int cancel(self, object job) except -1:
        if not self.is_up():
            return 0
        if self.pending_cancels >= MAX_PENDING_CANCELS:
            self.counts.cancels_left_out += 1
            return 0
        return self._cancel_later(job)

    cdef str cancel_and_tell(self, Cancellation cancellation):
        if not self.is_up():
            return "the job server is not connected by text"
        if self.pending_cancels >= MAX_PENDING_CANCELS:
            self.counts.cancels_left_out += 1
            return "the job server has as many cancellations to answer as may wait"
        self._cancel_later(cancellation)
        return None

    cdef int _cancel_later(self, object cancelled) except -1:
        self.cancelled_jobs.append(cancelled)
        self.pending_cancels += 1
        return self.turn.add_job_server(self)

    cdef int end_turn(self) except -1:
        jobs, self.cancelled_jobs = self.cancelled_jobs, []
        # Those of a connection that is gone are gone with it, and the handle may be somebody else's by now.
        cancelled = [job for job in jobs if job.connected]
        self.pending_cancels -= len(jobs) - len(cancelled)
        if not self.is_up() or not cancelled:
            return 0
        if not self.due:
            self.heard_at_s = self.loop.time()
        # On a connection that is closing they are told so with its end.
        self.due.extend([job if isinstance(job, Cancellation) else CANCELLATION for job in cancelled])
        if self.stream.closing():
            return 0
        self.counts.cancels_requested += len(cancelled)
        return self.stream.write(b"".join([b"cancel job %b\n" % job.handle for job in cancelled]))

    cdef int _ask(self, int answer, bytes command) except -1:
        if not self.due:
            self.heard_at_s = self.loop.time()
        self.due.append(answer)
        self.stream.write(command)
        return 0

    cdef int greet(self) except -1:
        self.asked_at_s = float("-inf")
        self.question_at_ns = now_ns()
        self.quickest_s = float("inf")
        return self._ask(VERSION, b"version\n")

    cdef int received(self, const char* data, Py_ssize_t size) except -1:
        cdef bytes more = PyBytes_FromStringAndSize(data, size)
        if self.is_closed():
            return 0
        if self.offset < PyBytes_GET_SIZE(self.unread):
            more = self.unread[self.offset:] + more
        self.unread = more
        self.offset = 0
        return 0 if self.behind else self._read_lines()

    def _read_on(self):
        """The next loop turn's share of what has come."""
        self.behind = False
        if not self.is_closed():
            self._read_lines()

    cdef int _read_lines(self) except -1:
        cdef bytes received = self.unread
        cdef const char* start = PyBytes_AS_STRING(received)
        cdef Py_ssize_t received_bytes = PyBytes_GET_SIZE(received)
        cdef Py_ssize_t turn_ends = self.offset + TURN_BYTES
        cdef Py_ssize_t begins
        cdef const char* newline
        # What waits here is a sign of life, whatever time it takes us.
        self.heard_at_s = self.loop.time()
        while self.offset < turn_ends:
            begins = self.offset
            newline = <const char*> memchr(start + begins, c"\n", received_bytes - begins)
            if newline == NULL:
                if received_bytes - begins > MAX_LINE_BYTES:
                    return self.close_for("the job server sent a line without an end by text")
                self.unread = self.unread[begins:]
                self.offset = 0
                if self.reading_paused and not self.stream.closing():
                    self.reading_paused = False
                    self.stream.resume()
                return 0
            self.offset = newline + 1 - start
            self._line(start + begins, newline - start - begins)
            if self.is_closed():
                return 0
        self.behind = True
        if not self.reading_paused and not self.stream.closing():
            self.reading_paused = True
            self.stream.pause()
        self.loop.call_soon(self._read_on)
        return 0

    cdef int _line(self, const char* line, Py_ssize_t line_bytes) except -1:
        if not self.due:
            return self.close_for("the job server answered more than it was asked by text")
        answer = self.due[0]
        while line_bytes > 0 and line[line_bytes - 1] == c"\r":
            line_bytes -= 1
        if answer == STATUS and not (line_bytes == 1 and line[0] == c"."):
            return self._status_line(line, line_bytes)
        self.due.popleft()
        if isinstance(answer, Cancellation):
            self.pending_cancels -= 1
            return (<Cancellation> answer).answered(not (line_bytes >= 3 and line[:3] == b"ERR"))
        if answer == CANCELLATION:
            self.pending_cancels -= 1
            return 0
        self._time_answer()
        if answer == STATUS:
            self._status_ends()
        else:
            # gearmand answers "OK 1.1.21", other job servers without the word.
            version = PyBytes_FromStringAndSize(line, min(line_bytes, MAX_VERSION_BYTES))
            self.status.version = version.removeprefix(b"OK").strip()
            self.come_up()
        return 0

    cdef int _time_answer(self) except -1:
        cdef double took_s = (now_ns() - self.question_at_ns) / 1e9
        cdef double cost_s
        # The way to the job server and back is in each answer.
        self.quickest_s = min(self.quickest_s, took_s)
        cost_s = took_s - self.quickest_s
        # One answer that takes long by itself was late, not dear: a machine or a job server stood still meanwhile.
        self.status_cost_s = min(cost_s, self.last_cost_s)
        self.last_cost_s = cost_s
        return 0

    cdef int _status_line(self, const char* line, Py_ssize_t line_bytes) except -1:
        """A function; one that has neither workers nor jobs is not kept, as strangers can make any number of them."""
        cdef FunctionStatus status, before
        cdef bytes function
        cdef long long jobs, running, workers
        cdef long long[NUMBERS] numbers
        cdef Py_ssize_t name_bytes = _numbers_at_end(line, line_bytes, &numbers[0])
        if self.reading is None:
            self.reading = {}
            self.reading_left_out = False
            self.reading_queued = 0
            self.reading_running = 0
            self.reading_workers = 0
            self.reading_served = []
        if name_bytes <= 0:
            # A name with a line end in it; the gateway submits none.
            return 0
        jobs, running, workers = numbers[0], numbers[1], numbers[2]
        if jobs == 0 and workers == 0:
            return 0
        # Bounded, or the numbers of a job server that makes them up would overflow.
        self.reading_queued = min(self.reading_queued + max(jobs - running, 0), MAX_QUEUED_JOBS)
        self.reading_running = min(self.reading_running + running, MAX_QUEUED_JOBS)
        self.reading_workers = min(self.reading_workers + workers, MAX_QUEUED_JOBS)
        if len(self.reading) >= MAX_FUNCTIONS:
            self.reading_left_out = True
            return 0
        status = FunctionStatus.__new__(FunctionStatus)
        status.running = running
        status.queued = max(jobs - running, 0)
        status.workers = workers
        function = PyBytes_FromStringAndSize(line, name_bytes)
        if jobs and self.status.functions is not None:
            before = <FunctionStatus> self.status.functions.get(function)
            if before is not None and before.queued + before.running:
                status.busy_since = before.busy_since
            elif before is not None or not self.status.functions_left_out:
                status.busy_since = self.status.asked
        self.reading[function] = status
        if workers and len(self.reading_served) < MAX_SERVED:
            self.reading_served.append(function)
        return 0

    cdef int _status_ends(self) except -1:
        self.status.functions = {} if self.reading is None else self.reading
        self.status.functions_left_out = self.reading is not None and self.reading_left_out
        self.status.queued_jobs = 0 if self.reading is None else self.reading_queued
        self.status.running_jobs = 0 if self.reading is None else self.reading_running
        self.status.workers_in_all = 0 if self.reading is None else self.reading_workers
        self.status.served = [] if self.reading is None else self.reading_served
        self.status.answered = self.status.asked
        self.reading = None
        return 0

    cdef int end_all(self) except -1:
        """What was to be cancelled is left to run, and of the job server nothing is known."""
        waiting = [*self.due, *self.cancelled_jobs]
        self.cancelled_jobs = []
        self.due.clear()
        self.pending_cancels = 0
        self.reading = None
        self.status.functions = None
        self.status.served = []
        for item in waiting:
            if isinstance(item, Cancellation):
                (<Cancellation> item).lost(self.close_reason)
        return 0


cdef Py_ssize_t _numbers_at_end(const char* line, Py_ssize_t line_bytes, long long* numbers) noexcept:
    """Read the NUMBERS decimal numbers, each behind a tab, that the line ends with; what is before them, -1 without."""
    cdef int index
    cdef int digits
    cdef long long place
    for index in range(NUMBERS - 1, -1, -1):
        numbers[index] = 0
        digits = 0
        place = 1
        while line_bytes > 0 and c"0" <= line[line_bytes - 1] <= c"9" and digits < MAX_NUMBER_DIGITS:
            numbers[index] += place * (line[line_bytes - 1] - c"0")
            place *= 10
            digits += 1
            line_bytes -= 1
        if digits == 0 or line_bytes == 0 or line[line_bytes - 1] != c"\t":
            return -1
        line_bytes -= 1
    return line_bytes
