"""A small pipelining Gearman worker: several jobs grabbed at once, answers written once a loop turn.

How many grabs are open follows the work: one after waking up, one more with each job that comes, up to
`concurrency`; a NO_JOB stops them, and once the last is answered the worker sends PRE_SLEEP and waits for NOOP. So an
idle worker costs the job server one packet a job, a busy one never waits for it.
"""

import asyncio
import inspect
import logging

from gatewayx.embedded.output cimport Output
from gatewayx.gearman.packet cimport PACKET, Magic, PacketReader, PacketType, pack

from gatewayx.embedded import encode
from gatewayx.gearman.errors import InvalidArgumentError, InvalidStateError, ProtocolError

logger = logging.getLogger(__name__)

# An ERROR's text is cut to this in the log.
cdef enum:
    LOGGED_BYTES = 200

cdef bytes GRAB_PACKET = pack(Magic.REQUEST, PacketType.GRAB_JOB_UNIQ, (), b"")
cdef bytes PRE_SLEEP_PACKET = pack(Magic.REQUEST, PacketType.PRE_SLEEP, (), b"")
cdef bytes ECHO_PACKET = pack(Magic.REQUEST, PacketType.ECHO_REQ, (), b"registered")


cdef class AssignedJob:
    """A job that this worker runs: `handle`, `function`, `unique` and `workload` are bytes.

    It ends with exactly one of `complete()`, `fail()` and `exception()`; what is sent after that, or after the
    connection was lost, raises InvalidStateError.
    """

    def send_data(self, bytes data not None):
        """Send a part of the result (WORK_DATA)."""
        self.connected().send(PacketType.WORK_DATA, (self.handle,), data)

    def send_warning(self, bytes data not None):
        """Send a warning (WORK_WARNING)."""
        self.connected().send(PacketType.WORK_WARNING, (self.handle,), data)

    def send_status(self, numerator, denominator):
        """Send how much is done (WORK_STATUS), two counts; raises InvalidArgumentError if one is no uint32."""
        self.connected().send_bytes(encode.work_status(self.handle, numerator, denominator))

    def complete(self, bytes data not None=b""):
        """End the job with the last part of its result (WORK_COMPLETE)."""
        self.end(PacketType.WORK_COMPLETE, data)

    def fail(self):
        """End the job as failed (WORK_FAIL)."""
        self.end(PacketType.WORK_FAIL, None)

    def exception(self, bytes data not None):
        """End the job as one that raised (WORK_EXCEPTION)."""
        self.end(PacketType.WORK_EXCEPTION, data)

    @property
    def ended(self):
        """Whether the job has ended or its connection is gone."""
        return self.worker is None or self.worker.transport is None

    cdef Worker connected(self):
        if self.worker is None or self.worker.transport is None:
            raise InvalidStateError("the job has ended or its connection is gone")
        return self.worker

    cdef int end(self, int packet_type, bytes data) except -1:
        cdef Worker worker = self.connected()
        self.worker = None
        if data is None:
            worker.send(packet_type, (), self.handle)
        else:
            worker.send(packet_type, (self.handle,), data)
        return worker.job_ended()


cdef class Worker(Output):
    """One connection to one job server that runs jobs. `await start()`, later `await close()`.

    address: (host, port) of the job server.
    functions: name (bytes) to a callable that takes the `AssignedJob`. It may end the job itself; otherwise the bytes
        it returns complete it (None: no bytes), and an exception it raises ends it as WORK_EXCEPTION. An `async def`
        runs beside the others; a plain function holds up the loop while it runs.
    concurrency: jobs in hand at most, at least 1.
    A lost connection is not made again: `lost` tells.
    """

    def __cinit__(self, address, functions, *, int concurrency=16):
        if concurrency < 1:
            raise InvalidArgumentError(f"concurrency {concurrency} is below 1")
        self.address = address
        self.functions = dict(functions)
        self.concurrency = concurrency
        self.magic = Magic.REQUEST
        self.reader = PacketReader(Magic.RESPONSE)
        self.window = 1
        self.tasks = set()

    async def start(self):
        """Connect and register; returns once the job server knows every function.

        Raises OSError if the connection cannot be made, ConnectionResetError if it is lost meanwhile.
        """
        self.loop = asyncio.get_running_loop()
        self.lost = self.loop.create_future()
        self.registered = self.loop.create_future()
        host, port = self.address
        await self.loop.create_connection(lambda: self, host, port)
        await self.registered

    async def close(self):
        """Cancel what runs, close the connection and return once it is gone; the job server queues those jobs again."""
        self.stopping = True
        for task in self.tasks:
            task.cancel()
        if self.transport is not None:
            self.flush()
            self.closing = True
            self.transport.close()
            await self.lost
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def connection_made(self, transport):
        """asyncio: connected."""
        self.transport = transport
        for name in self.functions:
            self.send_bytes(encode.can_do(name))
        # The answer comes after the CAN_DOs were seen.
        self.send_bytes(ECHO_PACKET)

    def data_received(self, bytes data not None):
        """asyncio: bytes came; a broken stream closes the connection."""
        try:
            self.reader.feed(data)
            while self.reader.take() == PACKET:
                self.dispatch()
        except ProtocolError as error:
            logger.warning("closing the connection to %s: %s", self.address, error)
            self.closing = True
            self.transport.abort()

    def eof_received(self):
        """asyncio: the job server has sent everything."""

    def pause_writing(self):
        """asyncio: the job server does not keep up: take no further job from it until it does."""
        self.transport.pause_reading()

    def resume_writing(self):
        """asyncio: the job server keeps up again."""
        self.transport.resume_reading()

    def connection_lost(self, error):
        """asyncio: the connection is gone; what runs is cancelled, its results have nowhere to go."""
        self.forget_transport()
        for task in self.tasks:
            task.cancel()
        if not self.registered.done():
            self.registered.set_exception(ConnectionResetError("the job server closed the connection"))
        if not self.lost.done():
            self.lost.set_result(None)

    cdef int flush_later(self) except -1:
        self.loop.call_soon(self.end_turn)
        return 0

    def end_turn(self):
        """Write what this loop turn has gathered."""
        self.flush()

    cdef int dispatch(self) except -1:
        cdef int packet_type = self.reader.type
        cdef AssignedJob job
        if packet_type == PacketType.JOB_ASSIGN_UNIQ:
            job = AssignedJob.__new__(AssignedJob)
            job.worker = self
            job.handle = self.reader.argument(0)
            job.function = self.reader.argument(1)
            job.unique = self.reader.argument(2)
            job.workload = self.reader.argument(3)
            self.grabs -= 1
            self.running += 1
            self.window = min(self.window + 1, self.concurrency)
            self.run(job)
            return self.grab()
        if packet_type == PacketType.NO_JOB:
            self.grabs -= 1
            self.window = 1
            self.dry = True
            return self.grab()
        if packet_type == PacketType.NOOP:
            self.dry = False
            self.asleep = False
            return self.grab()
        if packet_type == PacketType.ECHO_RES:
            if not self.registered.done():
                self.registered.set_result(None)
            return self.grab()
        if packet_type == PacketType.ERROR:
            self.errors += 1
            logger.warning("job server %s: %r", self.address, self.reader.argument(0)[:LOGGED_BYTES])
        return 0

    cdef int run(self, AssignedJob job) except -1:
        function = self.functions.get(job.function)
        if function is None:
            job.fail()
            return 0
        try:
            result = function(job)
        except Exception as error:
            self.function_raised(job, error)
            return 0
        if isinstance(result, bytes):
            if not job.ended:
                job.complete(result)
        elif inspect.iscoroutine(result):
            task = self.loop.create_task(self.finish(job, result))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
            # A task that is cancelled before its first turn awaits nothing.
            task.add_done_callback(lambda _: result.close())
        elif not job.ended:
            job.complete()
        return 0

    async def finish(self, AssignedJob job not None, running):
        """Wait for an asynchronous function and end its job."""
        try:
            result = await running
        except Exception as error:
            self.function_raised(job, error)
        else:
            if not job.ended:
                job.complete(result or b"")

    cdef int function_raised(self, AssignedJob job, object error) except -1:
        logger.warning("function %r raised %r", job.function, error)
        if not job.ended:
            job.exception(str(error).encode("utf-8", "replace"))
        return 0

    cdef int job_ended(self) except -1:
        self.running -= 1
        self.finished += 1
        return self.grab()

    cdef int grab(self) except -1:
        """Ask for as many jobs as the window lets, or sleep once it is known that there is none."""
        if self.stopping:
            return 0
        if self.dry:
            # A grab still open would end the sleep again: GRAB_JOB after PRE_SLEEP means awake to the job server.
            if self.grabs == 0 and self.running < self.concurrency and not self.asleep:
                self.asleep = True
                self.send_bytes(PRE_SLEEP_PACKET)
            return 0
        while self.grabs < self.window and self.grabs + self.running < self.concurrency:
            self.grabs += 1
            self.send_bytes(GRAB_PACKET)
        return 0
