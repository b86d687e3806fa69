"""An in-memory Gearman job server: both sides of the binary protocol and the text commands, in one process.

It answers as gearmand does, its oddities included (coalescing, dropped jobs, cancellation), so that what is tested
against it holds against gearmand; each oddity names where gearmand's source has it. It leaves out persistence, jobs
at a time (SUBMIT_JOB_SCHED, SUBMIT_JOB_EPOCH) and reducers, which are answered ERROR. Unlike gearmand, everything
it holds is bounded.

Replies are gathered a connection and written once a loop turn.
"""

import asyncio
import logging
import socket

from gatewayx.embedded.output cimport COPY_BYTES, Output
from gatewayx.embedded.queues cimport Function, QueuedJob, wrapped_number
from gatewayx.gearman.packet cimport (
    MAX_FUNCTION_BYTES,
    MAX_HANDLE_BYTES,
    MAX_UNIQUE_BYTES,
    PACKET,
    Magic,
    PacketReader,
    PacketType,
    ends_job,
    is_work,
    pack,
    packet_head,
)

from gatewayx.embedded import text
from gatewayx.gearman.errors import ProtocolError

logger = logging.getLogger(__name__)

cdef bytes NOOP_PACKET = pack(Magic.RESPONSE, PacketType.NOOP, (), b"")
cdef bytes NO_JOB_PACKET = pack(Magic.RESPONSE, PacketType.NO_JOB, (), b"")

cdef enum:
    HIGH = 0
    NORMAL = 1
    LOW = 2


cdef class ServerConnection(Output):
    """The asyncio protocol of one client, worker or text connection; its first byte tells text from binary."""

    def __cinit__(self, JobServer server not None):
        self.server = server
        self.magic = Magic.RESPONSE
        self.reader = PacketReader(Magic.REQUEST, max_body_bytes=server.max_body_bytes)
        self.functions = {}
        self.running = {}
        self.waiting = {}
        self.client_id = b"-"

    def connection_made(self, transport):
        """asyncio: the connection is up."""
        self.transport = transport
        transport.set_write_buffer_limits(high=self.server.max_output_bytes)
        self.server.open_connections.add(self)
        # The connection was accepted in the loop turn in which the server went away.
        if self.server.listener is None:
            self.closing = True
            transport.abort()

    def data_received(self, bytes data not None):
        """asyncio: bytes came; a broken stream closes the connection."""
        try:
            if not self.started:
                self.started = True
                self.line = b"" if data[0] else None
            if self.line is not None:
                self.text_received(data)
                return
            self.reader.feed(data)
            while not self.closing and self.reader.take() == PACKET:
                self.dispatch()
        except ProtocolError as error:
            logger.info("closing a connection: %s", error)
            self.hang_up()

    def eof_received(self):
        """asyncio: the peer has sent everything, and reads no answer any more: the transport closes."""

    def pause_writing(self):
        """asyncio: `max_output_bytes` are unsent, the peer does not read."""
        logger.info("closing a connection that left %d bytes unread", self.server.max_output_bytes)
        self.closing = True
        self.transport.abort()

    def resume_writing(self):
        """asyncio: unsent bytes went down again."""

    def connection_lost(self, error):
        """asyncio: the connection is gone; its running jobs are queued again, its foreground jobs abandoned."""
        cdef Function function
        self.forget_transport()
        for function in self.functions.values():
            function.workers.pop(self, None)
        self.functions.clear()
        for job in list(self.running.values()):
            self.server.requeue(job)
        for job in list(self.waiting.values()):
            self.server.abandon(job, self)
        self.server.connection_gone(self)

    cdef int flush_later(self) except -1:
        return self.server.flush_later(self)

    cdef int send_error(self, bytes code, bytes text) except -1:
        return self.send(PacketType.ERROR, (code,), text)

    cdef int dispatch(self) except -1:
        """What gearmand does with each type (libgearman-server/server.cc, gearman_server_run_command)."""
        cdef int packet_type = self.reader.type
        cdef PacketReader reader = self.reader
        if packet_type == PacketType.SUBMIT_JOB:
            return self.submit(NORMAL, False)
        if packet_type == PacketType.GRAB_JOB:
            return self.grab(PacketType.JOB_ASSIGN)
        if packet_type == PacketType.GRAB_JOB_UNIQ or packet_type == PacketType.GRAB_JOB_ALL:
            return self.grab(PacketType.JOB_ASSIGN_UNIQ)
        if is_work(packet_type):
            return self.work(packet_type)
        if packet_type == PacketType.SUBMIT_JOB_BG:
            return self.submit(NORMAL, True)
        if packet_type == PacketType.SUBMIT_JOB_HIGH:
            return self.submit(HIGH, False)
        if packet_type == PacketType.SUBMIT_JOB_HIGH_BG:
            return self.submit(HIGH, True)
        if packet_type == PacketType.SUBMIT_JOB_LOW:
            return self.submit(LOW, False)
        if packet_type == PacketType.SUBMIT_JOB_LOW_BG:
            return self.submit(LOW, True)
        if packet_type == PacketType.PRE_SLEEP:
            return self.pre_sleep()
        if packet_type == PacketType.CAN_DO:
            return self.can_do(reader.argument(0), b"0")
        if packet_type == PacketType.CAN_DO_TIMEOUT:
            return self.can_do(reader.argument(0), reader.argument(1))
        if packet_type == PacketType.CANT_DO:
            return self.cant_do(reader.argument(0))
        if packet_type == PacketType.RESET_ABILITIES:
            for name in list(self.functions):
                self.cant_do(name)
            return 0
        if packet_type == PacketType.ECHO_REQ:
            return self.send(PacketType.ECHO_RES, (), reader.argument(0))
        if packet_type == PacketType.GET_STATUS:
            return self.get_status()
        if packet_type == PacketType.GET_STATUS_UNIQUE:
            return self.get_status_unique()
        if packet_type == PacketType.OPTION_REQ:
            return self.set_option()
        if packet_type == PacketType.SET_CLIENT_ID:
            self.client_id = reader.argument(0)
            return 0
        return self.send_error(b"INVALID_COMMAND", b"Command not expected")

    cdef int submit(self, int priority, bint background) except -1:
        cdef JobServer server = self.server
        cdef bytes unique
        cdef bytes workload
        cdef QueuedJob job
        cdef Function function
        if self.reader.lengths[0] > MAX_FUNCTION_BYTES or self.reader.lengths[1] > MAX_UNIQUE_BYTES + 1:
            return self.send_error(b"ARGUMENT_TOO_LARGE", b"Unique value too large")
        function = server.function(self.reader.argument(0))
        if function is None:
            return self.send_error(b"QUEUE_ERROR", b"Too many functions")
        unique = self.reader.argument(1)
        workload = self.reader.argument(2)
        job = function.find(unique, workload)
        if job is not None:
            if not background and len(job.clients) >= server.max_queue:
                return self.send_error(b"QUEUE_ERROR", b"Job queue is full")
            server.coalesced += 1
        else:
            job = server.add_job(function, unique, workload, priority)
            if job is None:
                return self.send_error(b"QUEUE_ERROR", b"Job queue is full")
            server.queue(job)
        server.submitted += 1
        if not background:
            job.clients.append(self)
            self.waiting[job.handle] = job
        return self.send(PacketType.JOB_CREATED, (), job.handle)

    cdef int can_do(self, bytes name, object timeout_s) except -1:
        cdef Function function
        cdef object limit_s
        try:
            limit_s = max(0, int(timeout_s))
        except ValueError:
            return self.hang_up()
        function = self.server.function(name) if len(name) <= MAX_FUNCTION_BYTES else None
        if function is None:
            return self.send_error(b"QUEUE_ERROR", b"Too many functions")
        function.workers[self] = limit_s
        self.functions[name] = function
        return 0

    cdef QueuedJob next_job(self):
        """The job this worker would get, still queued; dropped ones on the way to it are thrown away."""
        cdef Function function
        cdef QueuedJob job
        for function in self.functions.values():
            if function.queued == 0:
                continue
            for queue in function.queues:
                while queue:
                    job = queue[0]
                    if not job.dropped:
                        return job
                    queue.popleft()
                    function.queued -= 1
                    self.server.end_job(job)
        return None

    cdef int grab(self, int assign_type) except -1:
        cdef QueuedJob job = self.next_job()
        self.sleeping = False
        if job is None:
            return self.send_bytes(NO_JOB_PACKET)
        (<object>job.function.queues[job.priority]).popleft()
        job.function.queued -= 1
        job.function.running += 1
        job.worker = self
        self.running[job.handle] = job
        limit_s = job.function.workers[self]
        if limit_s:
            job.timeout = self.server.loop.call_later(limit_s, self.server.job_timed_out, job)
        if assign_type == PacketType.JOB_ASSIGN:
            return self.send(assign_type, (job.handle, job.function.name), job.workload)
        return self.send(assign_type, (job.handle, job.function.name, job.unique), job.workload)

    cdef int pre_sleep(self) except -1:
        # A job that came after NO_JOB would otherwise wait for the next one's NOOP.
        if self.next_job() is not None:
            return self.send_bytes(NOOP_PACKET)
        self.sleeping = True
        return 0

    cdef int work(self, int packet_type) except -1:
        """Tell every client of the job, once a submit, and forget it if the packet ends it."""
        cdef bytes handle = self.reader.argument(0)
        cdef QueuedJob job = self.running.get(handle)
        cdef ServerConnection client
        cdef bytes packet
        cdef bytes beside = None
        cdef tuple leading = ()
        cdef bytes last = handle
        if job is None:
            return self.send_error(b"JOB_NOT_FOUND", b"Job given in work result not found")
        if packet_type == PacketType.WORK_STATUS:
            leading = (handle, self.reader.argument(1))
            last = self.reader.argument(2)
            job.numerator = wrapped_number(leading[1])
            job.denominator = wrapped_number(last)
        elif packet_type != PacketType.WORK_FAIL:
            leading = (handle,)
            last = self.reader.argument(1)
        elif self.reader.argument_count > 1:
            # A reason; gearmand passes on whatever follows the handle (server.cc, _server_queue_work_data).
            leading = (handle,)
            last = self.reader.argument(1)
        if job.clients:
            if len(last) > COPY_BYTES:
                packet = packet_head(Magic.RESPONSE, packet_type, leading, len(last))
                beside = last
            else:
                packet = pack(Magic.RESPONSE, packet_type, leading, last)
            for client in job.clients:
                if packet_type == PacketType.WORK_EXCEPTION and not client.exceptions:
                    client.send(PacketType.WORK_FAIL, (), handle)
                    continue
                client.send_bytes(packet)
                if beside is not None:
                    client.send_bytes(beside)
        if ends_job(packet_type):
            return self.server.end_job(job)
        return 0

    cdef bytes asked_name(self):
        """What GET_STATUS or GET_STATUS_UNIQUE asks for, as C reads it; None for what is too long.

        gearmand leaves such a question without an answer and closes the connection, unless nothing else comes over it
        meanwhile (libgearman-server/server.cc).
        """
        cdef bytes name = self.reader.argument(0)
        if len(name) > MAX_HANDLE_BYTES:
            self.hang_up()
            return None
        return name.partition(b"\0")[0]

    cdef int get_status(self) except -1:
        cdef bytes handle = self.asked_name()
        cdef QueuedJob job
        if handle is None:
            return 0
        job = self.server.jobs.get(handle)
        if job is None:
            return self.send(PacketType.STATUS_RES, (handle, b"0", b"0", b"0"), b"0")
        return self.send(
            PacketType.STATUS_RES,
            (handle, b"1", b"0" if job.worker is None else b"1", b"%d" % job.numerator),
            b"%d" % job.denominator,
        )

    cdef int get_status_unique(self) except -1:
        cdef bytes unique = self.asked_name()
        cdef QueuedJob job = None
        cdef Function function
        if unique is None:
            return 0
        # The packet names no function: gearmand, too, looks at every job (job_plus.cc, _get_by_unique).
        for function in self.server.functions.values():
            job = function.by_unique.get(unique)
            if job is not None:
                break
        if job is None:
            return self.send(PacketType.STATUS_RES_UNIQUE, (unique, b"0", b"0", b"0", b"0"), b"0")
        return self.send(
            PacketType.STATUS_RES_UNIQUE,
            (
                unique,
                b"1",
                b"0" if job.worker is None else b"1",
                b"%d" % job.numerator,
                b"%d" % job.denominator,
            ),
            b"%d" % len(job.clients),
        )

    cdef int set_option(self) except -1:
        cdef bytes option = self.reader.argument(0)
        if option.lower() != b"exceptions":
            return self.send_error(b"UNKNOWN_OPTION", b"Server does not recognize given option")
        self.exceptions = True
        return self.send(PacketType.OPTION_RES, (), option)

    cdef int cant_do(self, bytes name) except -1:
        cdef Function function = self.functions.pop(name, None)
        if function is not None:
            del function.workers[self]
            # gearmand queues a withdrawn function's running jobs again (worker.cc, gearman_server_worker_free).
            for job in [job for job in self.running.values() if (<QueuedJob>job).function is function]:
                self.server.requeue(job)
        return 0

    cdef int text_received(self, bytes data) except -1:
        """Run whole lines as text commands (PROTOCOL, "Administrative Protocol")."""
        cdef list lines = (self.line + data).split(b"\n")
        self.line = lines.pop()
        for line in lines:
            self.send_bytes(text.answer(self.server, (<bytes>line).split()))
        if len(self.line) > MAX_LINE_BYTES:
            self.hang_up()
        return 0

    cdef int hang_up(self) except -1:
        """Write what this turn has gathered, and close."""
        self.flush()
        if not self.closing:
            self.closing = True
            self.transport.close()
        return 0


cdef class JobServer:
    """The job server. `await start()`, then `address` is where clients and workers connect; `await close()` ends it.

    max_queue: jobs of one function, and clients of one job, at most.
    max_workload_bytes: workloads held at most, over all jobs.
    max_functions: function names remembered at most.
    max_body_bytes: one packet's body at most; a longer one closes its connection.
    max_output_bytes: bytes left unread by one peer at most; more closes its connection.
    """

    def __cinit__(
        self,
        *,
        Py_ssize_t max_queue=100_000,
        Py_ssize_t max_workload_bytes=1 << 30,
        Py_ssize_t max_functions=10_000,
        Py_ssize_t max_body_bytes=128 << 20,
        Py_ssize_t max_output_bytes=256 << 20,
    ):
        self.max_queue = max_queue
        self.max_workload_bytes = max_workload_bytes
        self.max_functions = max_functions
        self.max_body_bytes = max_body_bytes
        self.max_output_bytes = max_output_bytes
        self.open_connections = set()
        self.dirty = []
        self.functions = {}
        self.jobs = {}
        # ":" and ten digits follow.
        self.handle_prefix = b"H:" + socket.gethostname().encode("ascii", "replace")[: MAX_HANDLE_BYTES - 13]

    @property
    def connections(self):
        """Open connections, of clients, workers and text commands."""
        return len(self.open_connections)

    @property
    def job_count(self):
        """Jobs that have not ended, queued, running and dropped ones."""
        return len(self.jobs)

    @property
    def queued(self):
        """Jobs no worker has, dropped ones included."""
        cdef Function function
        cdef Py_ssize_t count = 0
        for function in self.functions.values():
            count += function.queued
        return count

    @property
    def running(self):
        """Jobs that a worker has."""
        return len(self.jobs) - self.queued

    async def start(self, host="127.0.0.1", port=0):
        """Listen; `port` 0 is any free one. Raises OSError if the address cannot be had."""
        self.loop = asyncio.get_running_loop()
        self.listener = await self.loop.create_server(self.new_connection, host, port)
        self.address = self.listener.sockets[0].getsockname()[:2]

    async def __aenter__(self):
        """`start()` on a free port of the loopback."""
        await self.start()
        return self

    async def __aexit__(self, *exception):
        """`close()`."""
        await self.close()

    def new_connection(self):
        """asyncio's protocol factory."""
        return ServerConnection(self)

    async def close(self):
        """Stop listening, drop every connection and every job; returns once the last connection is gone."""
        self.shut_down()
        if self.open_connections:
            self.closing = self.loop.create_future()
            await self.closing
        self.jobs.clear()
        self.functions.clear()
        self.workload_bytes = 0

    def shut_down(self):
        """Stop listening and drop every connection, without waiting for it; also the text command `shutdown`."""
        cdef ServerConnection connection
        if self.listener is not None:
            self.listener.close()
            self.listener = None
        for connection in self.open_connections:
            connection.hang_up()
            connection.transport.abort()

    cdef int connection_gone(self, ServerConnection connection) except -1:
        self.open_connections.discard(connection)
        if not self.open_connections and self.closing is not None and not self.closing.done():
            self.closing.set_result(None)
        return 0

    cdef int flush_later(self, ServerConnection connection) except -1:
        if not self.dirty:
            self.loop.call_soon(self.flush_all)
        self.dirty.append(connection)
        return 0

    def flush_all(self):
        """Write, once a loop turn, what every connection has to say."""
        cdef list dirty = self.dirty
        cdef ServerConnection connection
        self.dirty = []
        for connection in dirty:
            connection.flush()

    cdef Function function(self, bytes name):
        """The function of this name, remembered for good as in gearmand; None if there are too many."""
        cdef Function function = self.functions.get(name)
        if function is None and len(self.functions) < self.max_functions:
            function = Function(name)
            self.functions[name] = function
        return function

    cdef QueuedJob add_job(self, Function function, bytes unique, bytes workload, int priority):
        """A new job, not queued yet; None if a bound is reached."""
        cdef QueuedJob job
        cdef Py_ssize_t jobs = function.queued + function.running
        cdef Py_ssize_t limit = function.max_queue[priority]
        if (
            jobs >= self.max_queue
            or (limit and jobs >= limit)
            or self.workload_bytes + len(workload) > self.max_workload_bytes
        ):
            return None
        job = QueuedJob.__new__(QueuedJob)
        self.handles += 1
        job.handle = b"%b:%d" % (self.handle_prefix, self.handles)
        job.unique = unique
        job.workload = workload
        job.function = function
        job.priority = priority
        job.clients = []
        self.workload_bytes += len(workload)
        self.jobs[job.handle] = job
        function.index(job)
        return job

    cdef int queue(self, QueuedJob job) except -1:
        """Put the job last in its queue and wake every worker that sleeps (job.cc, gearman_server_job_queue)."""
        cdef ServerConnection worker
        (<object>job.function.queues[job.priority]).append(job)
        job.function.queued += 1
        for worker in job.function.workers:
            if worker.sleeping:
                worker.sleeping = False
                worker.send_bytes(NOOP_PACKET)
        return 0

    cdef int requeue(self, QueuedJob job) except -1:
        """The worker is gone: the clients hear nothing, the next worker starts from the beginning."""
        self.take_from_worker(job)
        job.retries += 1
        job.numerator = 0
        job.denominator = 0
        return self.queue(job)

    def job_timed_out(self, QueuedJob job not None):
        """A job ran longer than CAN_DO_TIMEOUT allows: it is queued again.

        Not what the PROTOCOL text says ("mark the job as failed") but what gearmand does.
        """
        self.requeue(job)

    cdef int take_from_worker(self, QueuedJob job) except -1:
        if job.worker is not None:
            del (<ServerConnection>job.worker).running[job.handle]
            job.worker = None
            job.function.running -= 1
            if job.timeout is not None:
                job.timeout.cancel()
                job.timeout = None
        return 0

    cdef int end_job(self, QueuedJob job) except -1:
        """Forget the job, which is in no queue."""
        cdef ServerConnection client
        self.take_from_worker(job)
        for client in job.clients:
            client.waiting.pop(job.handle, None)
        job.clients.clear()
        job.function.forget(job)
        del self.jobs[job.handle]
        self.workload_bytes -= len(job.workload)
        self.finished += 1
        return 0

    cdef int abandon(self, QueuedJob job, ServerConnection client) except -1:
        """A foreground client is gone; without any left the job is dropped, also one that began in the background
        (libgearman-server/client.cc, gearman_server_client_free)."""
        job.clients = [other for other in job.clients if other is not client]
        if not job.clients:
            job.dropped = True
        return 0

    def cancel(self, bytes handle not None):
        """Tell a job's clients WORK_FAIL, and drop it if no worker has it yet; False if there is no such job."""
        cdef QueuedJob job = self.jobs.get(handle)
        cdef ServerConnection client
        if job is None:
            return False
        for client in job.clients:
            client.send(PacketType.WORK_FAIL, (), handle)
        job.dropped = True
        return True

    def create_function(self, bytes name not None):
        """Remember a function before any job of it comes; False if its name is too long or too many are remembered."""
        return len(name) <= MAX_FUNCTION_BYTES and self.function(name) is not None
