"""The load generator: one process's share of the connections, open or closed loop.

Closed loop: each connection sends its next request when an answer has come. Open loop (a rate): request number n is due
at a time that the rate alone decides, whatever the server does. It goes to the connection that has been free longest, or
waits for one, and its latency counts from when it was due. A server that stalls then shows every request that it kept
waiting, not only those that happened to be under way ("coordinated omission", Gil Tene; wrk2).

Every request ends in exactly one way: answered, or one of ERROR_KINDS.
"""

from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Malloc
from libc.string cimport memcpy, memset

cimport cython
from gatewayx.bench.response cimport BAD, BODY, COMPLETE, ReadEvent, ResponseReader
from gatewayx.bench.template cimport CHECK_FRAMING, RequestTemplate
from gatewayx.core.clock cimport now_ns
from gatewayx.net.poller cimport EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP, EVENTS_PER_CALL, Polled, Poller
from gatewayx.net.sockets cimport Peer, connect_error, disconnect, receive, transmit, would_block
from gatewayx.core.histogram cimport Histogram
from libc.errno cimport ETIMEDOUT, errno

cdef enum ErrorKind:
    CONNECT = 0
    RESET = 1
    TIMEOUT = 2
    BAD_RESPONSE = 3
    BAD_STATUS = 4
    NOT_SENT = 5

ERROR_KINDS = ("connect", "reset", "timeout", "bad_response", "status", "not_sent")

# The most records that are made of requests that were never sent; above, neighbours share a record.
cdef long long MOST_UNSENT_RECORDS = 1_000_000
# Requests that were due before the end and waited for a connection are still sent so much later.
cdef long long GRACE_NS = 250_000_000


@cython.final
cdef class LoadConnection(Polled):
    """One client: connects again when its connection ends, and never has more than `pipeline` requests under way."""

    def __cinit__(self, LoadGenerator generator):
        cdef int places = generator.pipeline
        self.generator = generator
        self.descriptor = -1
        self.reader = ResponseReader(generator.template.to_head)
        self.due_ns = <long long*> PyMem_Calloc(places, sizeof(long long))
        self.sent_ns = <long long*> PyMem_Calloc(places, sizeof(long long))
        self.serials = <unsigned long long*> PyMem_Calloc(places, sizeof(unsigned long long))
        if self.due_ns == NULL or self.sent_ns == NULL or self.serials == NULL:
            raise MemoryError

    def __dealloc__(self):
        PyMem_Free(self.due_ns)
        PyMem_Free(self.sent_ns)
        PyMem_Free(self.serials)

    cdef int open(self, long long at_ns) except -1:
        cdef LoadGenerator generator = self.generator
        self.reader.reset()
        self.mismatch = False
        self.proved = False
        self.unsent = 0
        self.unsent_at = 0
        # In a closed loop the next request has begun: it only waits to be sent.
        self.begun_ns = at_ns if generator.sending and generator.rate == 0 else 0
        self.connect_deadline_ns = at_ns + generator.timeout_ns
        self.descriptor = generator.peer.connect(0)
        self.connecting = True
        if self.descriptor < 0 or generator.poller.add(self.descriptor, self) < 0:
            error = errno
            self.close()
            return generator.not_connected(error, self.begun_ns, at_ns)
        return 0

    cdef void close(self) noexcept:
        if self.descriptor >= 0:
            self.generator.poller.remove(self)
            disconnect(self.descriptor)
        self.descriptor = -1
        self.connecting = False

    cdef int handle(self, unsigned int events) except -1:
        cdef long long at_ns = now_ns()
        cdef int error
        if self.descriptor < 0:
            return 0
        if self.connecting:
            if not events & (EPOLLOUT | EPOLLERR | EPOLLHUP):
                return 0
            error = connect_error(self.descriptor)
            if error:
                self.close()
                return self.generator.not_connected(error, self.begun_ns, at_ns)
            self.connecting = False
            self.available_since_ns = at_ns
            self.go_on(at_ns)
        elif events & EPOLLOUT and self.unsent:
            self.flush(at_ns)
        # The flush may have lost the connection and opened another one, which has nothing to read yet.
        if self.descriptor >= 0 and not self.connecting and events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR):
            return self.receive_answers(at_ns, events)
        return 0

    cdef int receive_answers(self, long long at_ns, unsigned int events) except -1:
        cdef LoadGenerator generator = self.generator
        cdef Py_ssize_t size
        while True:
            size = receive(self.descriptor, generator.received, RECEIVE_BYTES)
            if size < 0:
                if would_block():
                    break
                return self.lost(at_ns, RESET)
            if size == 0:
                if self.reader.ended() and self.outstanding:
                    self.answered(at_ns)
                    return 0
                return self.lost(at_ns, RESET)
            generator.received_bytes += size
            if not self.take(at_ns, generator.received, size):
                return 0
            # A short read has emptied the socket (epoll(7), question 9), unless its end has come as well.
            if size < RECEIVE_BYTES and not events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR):
                break
            # The answers of the next piece end later than those of this one.
            at_ns = now_ns()
        return self.go_on(at_ns)

    cdef bint take(self, long long at_ns, const char* data, Py_ssize_t size) except -1:
        """Read what came; False once the connection is another one."""
        cdef Py_ssize_t position = 0
        cdef ReadEvent event
        while True:
            event = self.reader.read(data + position, size - position)
            position += self.reader.consumed
            if event == BODY:
                if self.outstanding and not self.mismatch:
                    self.mismatch = not self.generator.template.matches(
                        self.serials[self.first],
                        self.reader.body_total_bytes - self.reader.body_bytes,
                        self.reader.body,
                        self.reader.body_bytes,
                    )
            elif event == COMPLETE:
                if not self.answered(at_ns):
                    return False
            elif event == BAD:
                self.generator.bad_response = self.reader.problem
                self.lost(at_ns, BAD_RESPONSE)
                return False
            elif position == size:
                return True

    cdef bint answered(self, long long at_ns) except -1:
        """The answer to the oldest request is complete; False once the connection is another one."""
        cdef LoadGenerator generator = self.generator
        cdef RequestTemplate template = generator.template
        cdef int status = self.reader.status
        cdef int place = self.first
        cdef bint half_sent
        if self.outstanding == 0:
            generator.bad_response = "an answer to no request"
            generator.failed(BAD_RESPONSE, at_ns)
            self.lost(at_ns, BAD_RESPONSE)
            return False
        half_sent = self.outstanding == self.unsent
        self.first = (place + 1) % generator.pipeline
        self.outstanding -= 1
        generator.outstanding -= 1
        generator.took(self.due_ns[place], self.sent_ns[place], at_ns)
        generator.statuses[status] += 1
        if status >= 400:
            generator.failed(BAD_STATUS, self.due_ns[place])
        elif template.check != CHECK_FRAMING and not template.to_head and (
            self.mismatch or self.reader.body_total_bytes != template.body_bytes
        ):
            generator.bad_response = "a body that is not the right one"
            generator.failed(BAD_RESPONSE, self.due_ns[place])
        else:
            generator.good += 1
            if generator.flood_ends_ns:
                generator.phase_good[generator.phase_of(self.due_ns[place])] += 1
            if at_ns <= generator.ends_ns:
                generator.good_in_time += 1
        self.mismatch = False
        self.proved = True
        if self.reader.keep_alive and not half_sent:
            return True
        # The rest of a request that was answered before its end would be taken for the next one.
        self.lost(at_ns, RESET)
        return False

    cdef int go_on(self, long long at_ns) except -1:
        """Send what there is to send now that the connection is free."""
        cdef LoadGenerator generator = self.generator
        cdef long long begun_ns = self.begun_ns if self.begun_ns else at_ns
        if generator.rate:
            if self.outstanding < generator.pipeline:
                generator.list_available(self, at_ns)
            return 0
        self.begun_ns = 0
        if not generator.sending:
            return 0
        if at_ns >= generator.ends_ns:
            generator.sending = False
            return 0
        while self.outstanding < generator.pipeline:
            self.add_request(begun_ns, begun_ns)
        return self.flush(at_ns)

    cdef void add_request(self, long long due_ns, long long sent_ns) noexcept:
        cdef LoadGenerator generator = self.generator
        cdef int place = (self.first + self.outstanding) % generator.pipeline
        self.due_ns[place] = due_ns
        self.sent_ns[place] = sent_ns
        self.serials[place] = generator.next_serial
        generator.next_serial += 1
        self.outstanding += 1
        self.unsent += 1
        generator.sent += 1
        generator.sent_in_time += sent_ns <= generator.ends_ns
        generator.outstanding += 1

    cdef int flush(self, long long at_ns) except -1:
        """Send until all is sent or the kernel takes no more."""
        cdef LoadGenerator generator = self.generator
        cdef RequestTemplate template = generator.template
        cdef const char* data
        cdef Py_ssize_t size, sent
        while self.unsent:
            if self.unsent == 1 or template.size * 2 > GATHER_BYTES:
                template.number(self.serials[(self.first + self.outstanding - self.unsent) % generator.pipeline])
                data = <const char*> template.text + self.unsent_at
                size = template.size - self.unsent_at
            else:
                data = generator.gathered
                size = self._gather()
            sent = transmit(self.descriptor, data, size)
            if sent < 0:
                return 0 if would_block() else self.lost(at_ns, RESET)
            generator.sent_bytes += sent
            self.unsent_at += sent
            while self.unsent and self.unsent_at >= template.size:
                self.unsent_at -= template.size
                self.unsent -= 1
            if sent < size:
                return 0
        return 0

    cdef Py_ssize_t _gather(self) noexcept:
        """Copy unsent requests into the buffer, one behind the other, as many as fit; returns how many bytes these are."""
        cdef LoadGenerator generator = self.generator
        cdef RequestTemplate template = generator.template
        cdef int place = (self.first + self.outstanding - self.unsent) % generator.pipeline
        cdef Py_ssize_t skipped = self.unsent_at, size = 0
        cdef int count
        for count in range(self.unsent):
            if size + template.size > GATHER_BYTES:
                break
            template.number(self.serials[place])
            memcpy(generator.gathered + size, <const char*> template.text + skipped, template.size - skipped)
            size += template.size - skipped
            skipped = 0
            place = (place + 1) % generator.pipeline
        return size

    cdef int lost(self, long long at_ns, int kind) except -1:
        """The connection is of no more use. Every request under way on it has ended so; connect again."""
        cdef LoadGenerator generator = self.generator
        cdef bint proved = self.proved
        while self.outstanding:
            if kind == TIMEOUT:
                # It took this long at least; to leave it out would make the percentiles better than they were.
                generator.took(self.due_ns[self.first], self.sent_ns[self.first], at_ns)
            generator.failed(kind, self.due_ns[self.first])
            self.first = (self.first + 1) % generator.pipeline
            self.outstanding -= 1
            generator.outstanding -= 1
            if kind == BAD_RESPONSE:
                kind = RESET
        self.close()
        # One that never brought an answer is made anew at the next sweep: a server that only accepts is not flooded.
        if proved and (generator.sending or generator.begins_ns == 0):
            return self.open(at_ns)
        return 0

    cdef int sweep(self, long long at_ns) except -1:
        """What time brings: a connection that was lost is made again, a request that took too long has failed."""
        cdef LoadGenerator generator = self.generator
        if self.descriptor < 0:
            if generator.sending or generator.begins_ns == 0:
                return self.open(at_ns)
        elif self.connecting:
            if at_ns > self.connect_deadline_ns:
                self.close()
                return generator.not_connected(ETIMEDOUT, self.begun_ns, at_ns)
        elif self.outstanding and at_ns - self.sent_ns[self.first] > generator.timeout_ns:
            return self.lost(at_ns, TIMEOUT)
        return 0


@cython.final
cdef class LoadGenerator:
    """One process's share of a load.

    loop: the running event loop. peer: whom to load. connections: how many, 1 or more. pipeline: requests under way on
    each at most. rate: requests a second of all processes together, 0 for a closed loop. process: this one's number
    among so many. timeout_s: for an answer, and for a connection to come up.
    Call `connect`, `begin` once `connected`, `sweep` about every 50 ms, and `finish` once `done` or when enough was waited.
    """

    def __cinit__(self):
        self.received = <char*> PyMem_Malloc(RECEIVE_BYTES)
        self.gathered = <char*> PyMem_Malloc(GATHER_BYTES)
        if self.received == NULL or self.gathered == NULL:
            raise MemoryError

    def __dealloc__(self):
        PyMem_Free(self.received)
        PyMem_Free(self.gathered)

    def __init__(
        self,
        loop,
        Peer peer not None,
        RequestTemplate template not None,
        *,
        int connections,
        int pipeline=1,
        double rate=0,
        int process=0,
        int processes=1,
        double timeout_s=10.0,
    ):
        self.loop = loop
        self.peer = peer
        self.template = template
        self.pipeline = pipeline
        self.rate = rate
        self.process = process
        self.processes = processes
        self.timeout_ns = <long long> (timeout_s * 1e9)
        self.latency = Histogram()
        self.uncorrected = Histogram()
        self.interval = Histogram()
        self.lateness = Histogram()
        memset(self.errors, 0, sizeof(self.errors))
        memset(self.statuses, 0, sizeof(self.statuses))
        memset(self.phase_good, 0, sizeof(self.phase_good))
        memset(self.phase_failed, 0, sizeof(self.phase_failed))
        self.phase_latency = [Histogram() for _ in range(PHASES)]
        self.failed_connects = {}
        self.poller = Poller(loop, self.turn)
        self.connections = [LoadConnection(self) for _ in range(connections)]

    def connect(self):
        """Begin to open every connection."""
        cdef LoadConnection connection
        for connection in self.connections:
            connection.open(now_ns())

    @property
    def connected(self):
        """How many connections are up."""
        cdef LoadConnection connection
        cdef int count = 0
        for connection in self.connections:
            count += connection.descriptor >= 0 and not connection.connecting
        return count

    def begin(self, long long begins_ns, long long ends_ns, long long flood_begins_ns=0, long long flood_ends_ns=0):
        """Send requests from one time of the clock to another; what was counted while connecting is forgotten.

        flood_begins_ns, flood_ends_ns: when somebody floods the same target, for `phases`.
        """
        cdef LoadConnection connection
        self.begins_ns = begins_ns
        self.ends_ns = ends_ns
        self.flood_begins_ns = flood_begins_ns
        self.flood_ends_ns = flood_ends_ns
        self.failed_connects.clear()
        memset(self.errors, 0, sizeof(self.errors))
        self.sending = True
        for connection in self.connections:
            if connection.descriptor >= 0 and not connection.connecting:
                connection.go_on(now_ns())
        if self.rate:
            self.send_due()

    def turn(self):
        """Serve the connections that are ready."""
        self.poller.serve(EVENTS_PER_CALL)
        if self.rate and self.sending:
            self.send_due()

    cdef long long due_ns(self, long long number) noexcept:
        """When this process's request of that number is due: the processes take turns."""
        return self.begins_ns + <long long> ((number * self.processes + self.process) * 1e9 / self.rate)

    cdef int send_due(self) except -1:
        """Send every request that is due and has a connection."""
        cdef LoadConnection connection
        cdef long long at_ns = now_ns()
        cdef long long due_ns = self.due_ns(self.next_due)
        if at_ns >= self.ends_ns + GRACE_NS:
            self.sending = False
            return 0
        while due_ns < self.ends_ns and due_ns <= at_ns:
            connection = self._take_available()
            if connection is None:
                # The next connection that comes free sends on from here.
                return 0
            self.lateness.record_ns(at_ns - max(due_ns, connection.available_since_ns))
            self.next_due += 1
            connection.add_request(due_ns, at_ns)
            if connection.outstanding < self.pipeline:
                self.list_available(connection, connection.available_since_ns)
            connection.flush(at_ns)
            due_ns = self.due_ns(self.next_due)
            at_ns = now_ns()
        if due_ns >= self.ends_ns:
            self.sending = False
        else:
            self.poller.set_alarm(due_ns)
        return 0

    cdef void list_available(self, LoadConnection connection, long long since_ns) noexcept:
        if connection.listed:
            return
        connection.available_since_ns = since_ns
        connection.listed = True
        if self.first_available is None:
            self.first_available = connection
        else:
            self.last_available.next_available = connection
        self.last_available = connection

    cdef LoadConnection _take_available(self):
        cdef LoadConnection connection
        while self.first_available is not None:
            connection = self.first_available
            self.first_available = connection.next_available
            connection.next_available = None
            connection.listed = False
            if connection.descriptor >= 0 and not connection.connecting and connection.outstanding < self.pipeline:
                return connection
        self.last_available = None
        return None

    cdef int phase_of(self, long long due_ns) noexcept:
        return 0 if due_ns < self.flood_begins_ns else 1 if due_ns < self.flood_ends_ns else 2

    cdef void took(self, long long due_ns, long long sent_ns, long long ended_ns) noexcept:
        """Record how long a request took that was answered, or not in time."""
        self.latency.record_ns(ended_ns - due_ns)
        self.interval.record_ns(ended_ns - due_ns)
        if self.rate:
            self.uncorrected.record_ns(ended_ns - sent_ns)
        if self.flood_ends_ns:
            (<Histogram> self.phase_latency[self.phase_of(due_ns)]).record_ns(ended_ns - due_ns)

    cdef void failed(self, int kind, long long due_ns) noexcept:
        self.errors[kind] += 1
        if self.flood_ends_ns:
            self.phase_failed[self.phase_of(due_ns)] += 1

    cdef int not_connected(self, int error, long long begun_ns, long long at_ns) except -1:
        """A connection could not be made. In a closed loop a request waited for it; in an open one that is still due."""
        self.connect_errno = error
        self.failed_connects[error] = self.failed_connects.get(error, 0) + 1
        if self.rate == 0 and self.begins_ns:
            self.failed(CONNECT, begun_ns if begun_ns else at_ns)
        return 0

    def sweep(self):
        """Give up answers that are too late, and make connections again that were lost."""
        cdef LoadConnection connection
        cdef long long at_ns = now_ns()
        for connection in self.connections:
            connection.sweep(at_ns)
        if self.begins_ns and at_ns >= self.ends_ns and not self.rate:
            self.sending = False
        if self.rate and self.sending:
            self.send_due()

    @property
    def done(self):
        """The time is over and every request has ended."""
        cdef bint to_send = self.sending and self.rate != 0
        return self.begins_ns != 0 and now_ns() >= self.ends_ns and self.outstanding == 0 and not to_send

    def stop(self):
        """End before the time is over: send no more."""
        self.ends_ns = min(self.ends_ns, now_ns())
        if not self.rate:
            self.sending = False

    def finish(self, bint cut_off=False):
        """Close everything. What was due and could not be sent, and what is still under way, has failed.

        cut_off: somebody did not want to wait; what is under way is left out of every count.
        """
        cdef LoadConnection connection
        cdef long long at_ns = now_ns()
        self.sending = False
        for connection in self.connections:
            connection.proved = False
            if cut_off:
                self.sent -= connection.outstanding
                self.outstanding -= connection.outstanding
                connection.outstanding = 0
            elif connection.connecting and connection.begun_ns and at_ns - connection.begun_ns > GRACE_NS:
                self.failed(CONNECT, connection.begun_ns)
            connection.lost(at_ns, TIMEOUT)
        self.poller.close()
        if self.rate:
            self._fail_unsent(at_ns)

    cdef int _fail_unsent(self, long long at_ns) except -1:
        """Requests that were due and never sent: there may be very many of them, so neighbours are counted as alike."""
        cdef long long due_ns, step, alike
        cdef int phase
        cdef long long count = <long long> ((self.ends_ns - self.begins_ns) * self.rate / 1e9 / self.processes)
        count = max(count - self.next_due, 0)
        while count and self.due_ns(self.next_due + count - 1) >= self.ends_ns:
            count -= 1
        while self.due_ns(self.next_due + count) < self.ends_ns:
            count += 1
        step = 1 + count // MOST_UNSENT_RECORDS
        while count > 0:
            alike = min(step, count)
            due_ns = self.due_ns(self.next_due)
            self.latency.record_many_ns(at_ns - due_ns, alike)
            self.errors[<int> NOT_SENT] += alike
            if self.flood_ends_ns:
                phase = self.phase_of(due_ns)
                (<Histogram> self.phase_latency[phase]).record_many_ns(at_ns - due_ns, alike)
                self.phase_failed[phase] += alike
            self.next_due += alike
            count -= alike
        return 0

    def phases(self):
        """Latency, good answers and failed requests of what was due before, in and after the flood."""
        cdef int phase
        return [
            {
                "latency": (<Histogram> self.phase_latency[phase]).state(),
                "good": self.phase_good[phase],
                "failed": self.phase_failed[phase],
            }
            for phase in range(PHASES)
        ]

    def snapshot(self):
        """What has happened so far, as JSON can hold it; `interval` is the latency since the last snapshot."""
        cdef int status
        interval = self.interval.state()
        self.interval.clear()
        return {
            "sent": self.sent,
            "ended": self.good + sum([self.errors[number] for number in range(len(ERROR_KINDS))]),
            "sent_in_time": self.sent_in_time,
            "good": self.good,
            "good_in_time": self.good_in_time,
            "errors": {kind: self.errors[number] for number, kind in enumerate(ERROR_KINDS) if self.errors[number]},
            "statuses": {
                str(status): self.statuses[status] for status in range(STATUSES) if self.statuses[status]
            },
            "sent_bytes": self.sent_bytes,
            "received_bytes": self.received_bytes,
            "interval": interval,
        }
