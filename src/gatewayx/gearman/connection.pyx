"""One pipelined socket to one job server.

Theory of operation. Submissions leave in the order of their calls, all of one loop turn in one write. gearmand
answers them in that order, so a JOB_CREATED or an ERROR belongs to the oldest submission that has neither
(`first_pending`). From then on the job is known by its handle, which is unique on this connection only.

Submissions with one function and unique on one connection are merged by the job server: each gets a JOB_CREATED with
the same handle, and every WORK_* packet comes once per JOB_CREATED. The first Job that got the handle stands in
`jobs` for all of them; the first copy of a packet is told to every listener and the others are let pass.

A job that nobody waits for any more stays in `jobs` until its end, so that its copies are still counted right.

What is held counts in the byte budget: packets until the kernel has them, results until their listeners were told.

A listener's exception is logged and ends nothing but that listener's part: the connection carries everybody's jobs.
"""

import logging
from collections import deque

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

from gatewayx.budget cimport ByteBudget
from gatewayx.deadlines cimport DeadlineWheel, Expiring
from gatewayx.gearman.admin cimport AdminConnection, AdminSlot
from gatewayx.gearman.packet cimport (
    MAX_FIRST_ARGUMENT_BYTES,
    MAX_HANDLE_BYTES,
    Magic,
    PacketReader,
    PacketType,
    Taken,
    submit_head,
    submit_packet,
    type_name,
)

from gatewayx.gearman.errors import ProtocolError
from gatewayx.gearman.packet import encode_option_req

logger = logging.getLogger("gatewayx.gearman")

# Above this the kernel's buffer is full and the rest waits in `unsent`, where it is bounded and not yet "written".
cdef int WRITE_HIGH_WATER_BYTES = 65536

# Ends of a job that no packet type stands for, beside PacketType in _tell.
cdef enum:
    TOO_LARGE = 1000
    LOST = 1001


cdef class JobListener:
    """Who waits for a job; see the .pxd for when each method is called."""

    cdef int job_created(self, Job job) except -1:
        return 0

    cdef int job_data(self, Job job, bytes data) except -1:
        return 0

    cdef int job_warning(self, Job job, bytes data) except -1:
        return 0

    cdef int job_status(self, Job job, bytes numerator, bytes denominator) except -1:
        return 0

    cdef int job_completed(self, Job job, object result) except -1:
        raise NotImplementedError

    cdef int job_failed(self, Job job) except -1:
        raise NotImplementedError

    cdef int job_exception(self, Job job, bytes data) except -1:
        raise NotImplementedError

    cdef int job_too_large(self, Job job) except -1:
        raise NotImplementedError

    cdef int job_refused(self, Job job, bytes code, bytes text) except -1:
        raise NotImplementedError

    cdef int job_timed_out(self, Job job) except -1:
        raise NotImplementedError

    cdef int job_lost(self, Job job) except -1:
        raise NotImplementedError

    cdef int job_broken(self, Job job) except -1:
        raise NotImplementedError


@cython.final
cdef class Job(Expiring):
    """A submission and what the job server has said of it."""

    cpdef int deadline_passed(self) except -1:
        cdef JobListener listener = self.listener
        if listener is None:
            return 0
        self.connection.abandon(self)
        return listener.job_timed_out(self)


@cython.final
cdef class JobServerConnection:
    """A connection to the job server `server_name`; an asyncio protocol, to be given to create_connection().

    loop: the event loop. wheel: where its jobs' deadlines hang. admin_slot: the job server's text connection.
    slot: which of the connections to this job server it is. max_result_bytes: most bytes of one job's result.
    budget: where packets and results are counted. It takes jobs once `came_up` is done: a connect to a frozen job server succeeds, only an answer proves life.
    """

    def __init__(
        self,
        loop,
        DeadlineWheel wheel,
        AdminSlot admin_slot,
        ByteBudget budget not None,
        str server_name,
        int slot,
        Py_ssize_t max_result_bytes,
    ):
        self.loop = loop
        self.wheel = wheel
        self.admin_slot = admin_slot
        self.budget = budget
        self.server_name = server_name
        self.slot = slot
        self.max_result_bytes = max_result_bytes
        self.reader = PacketReader(
            Magic.RESPONSE, max_body_bytes=max_result_bytes + MAX_FIRST_ARGUMENT_BYTES, announce_large=True
        )
        self.came_up = loop.create_future()
        self.gone = loop.create_future()
        self.jobs = {}
        self.abandoned_handles = deque()
        self.unsent = []
        self.unsent_jobs = []

    def close(self, str reason):
        """Close at once; jobs that have not ended are lost."""
        self._close(reason)

    cdef bint accepts_jobs(self):
        return self.up and self.unsent_bytes < MAX_UNSENT_BYTES

    cdef bint has_open_write(self):
        return self.flush_scheduled and 0 < self.unsent_bytes < OPEN_WRITE_BYTES

    cdef int submit(self, Job job, int packet_type, bytes function, bytes unique, bytes workload) except -1:
        cdef Py_ssize_t workload_bytes = PyBytes_GET_SIZE(workload)
        cdef Py_ssize_t packet_bytes = 0
        cdef bytes packet
        if workload_bytes <= INLINE_WORKLOAD_BYTES:
            packet = submit_packet(packet_type, function, unique, workload)
            self.unsent.append(packet)
        else:
            packet = submit_head(packet_type, function, unique, workload_bytes)
            self.unsent.append(packet)
            self.unsent.append(workload)
            packet_bytes = workload_bytes
        packet_bytes += PyBytes_GET_SIZE(packet)
        self.unsent_bytes += packet_bytes
        self.budget.hold(packet_bytes)
        self.unsent_jobs.append(job)
        job.connection = self
        if self.last_pending is None:
            self.first_pending = job
        else:
            self.last_pending.next_pending = job
        self.last_pending = job
        self.outstanding += 1
        return self._schedule_flush()

    cdef int abandon(self, Job job) except -1:
        cdef Job first
        if job.listener is None:
            return 0
        self._release(job)
        if job.handle is None:
            return 0
        first = <Job> self.jobs.get(job.handle)
        if first is not None:
            first.waiting -= 1
            if first.waiting == 0:
                self._count_abandoned(first)
                self._cancel(first)
        return 0

    cdef int _cancel(self, Job job) except -1:
        """Nobody waits for the job: no worker need begin it."""
        if job.cancellable and job.copies == 1 and job.admin is not None:
            return job.admin.cancel(job.handle)
        return 0

    cdef int _release(self, Job job) except -1:
        """The job's listener is not to be called any more."""
        job.listener = None
        self.outstanding -= 1
        return self.wheel.disarm(job)

    cdef int _count_abandoned(self, Job first) except -1:
        cdef Job oldest
        if first.result_bytes > 0:
            first.incomplete = True
            first.gathered = None
            self._let_result_go(first)
        self.abandoned_jobs += 1
        self.abandoned_handles.append(first.handle)
        if len(self.abandoned_handles) > MAX_ABANDONED_JOBS:
            oldest = <Job> self.jobs.get(self.abandoned_handles.popleft())
            if oldest is not None and oldest.waiting == 0 and not oldest.ended:
                del self.jobs[oldest.handle]
                self.abandoned_jobs -= 1
        return 0

    cdef bint _hold_result(self, Job first, Py_ssize_t size_bytes) noexcept:
        """Whether the budget has room for so many more bytes of the result."""
        if first.result_bytes <= SMALL_RESULT_BYTES:
            self.budget.hold(size_bytes)
        elif not self.budget.reserve(size_bytes):
            return False
        first.held_bytes += size_bytes
        return True

    cdef int _let_result_go(self, Job first) except -1:
        self.budget.release(first.held_bytes)
        first.held_bytes = 0
        return 0

    # What the loop calls.

    def connection_made(self, transport):
        self.transport = transport
        transport.set_write_buffer_limits(high=WRITE_HIGH_WATER_BYTES)
        if self.closed:
            transport.abort()
            return
        transport.write(encode_option_req(b"exceptions"))

    def data_received(self, bytes data):
        if self.closed:
            return
        cdef int taken
        try:
            self.reader.feed(data)
            while not self.closed:
                taken = self.reader.take()
                if taken == Taken.NEED_MORE:
                    break
                if taken == Taken.LARGE:
                    self._large_packet()
                else:
                    self._packet()
        except ProtocolError as error:
            self._close(str(error))

    def eof_received(self):
        self._close("the job server closed the connection")

    def connection_lost(self, error):
        self._close("the connection was lost" if error is None else f"the connection was lost: {error}")
        self.transport = None

    def pause_writing(self):
        self.write_paused = True

    def resume_writing(self):
        self.write_paused = False
        self._sent()
        if self.unsent:
            self._schedule_flush()

    # Writing.

    cdef int _schedule_flush(self) except -1:
        if not self.flush_scheduled and not self.write_paused:
            self.flush_scheduled = True
            self.loop.call_soon(self._flush)
        return 0

    def _flush(self):
        cdef list packets = self.unsent
        self.flush_scheduled = False
        if self.closed or self.write_paused or not packets or self.transport.is_closing():
            return
        for job in self.unsent_jobs:
            (<Job> job).written = True
        self.unsent_jobs = []
        self.unsent = []
        self.sending_bytes += self.unsent_bytes
        if self.unsent_bytes <= WRITE_HIGH_WATER_BYTES:
            # One buffer is cheaper to write than many small ones.
            self.transport.write(b"".join(packets))
        else:
            self.transport.writelines(packets)
        self.unsent_bytes = 0
        if not self.write_paused:
            self._sent()

    cdef int _sent(self) except -1:
        """The kernel has what the transport was given."""
        self.budget.release(self.sending_bytes)
        self.sending_bytes = 0
        return 0

    # Reading.

    cdef int _packet(self) except -1:
        cdef PacketReader reader = self.reader
        cdef int packet_type = reader.type
        if self.large_bytes:
            # This is it; what is done with it counts anew.
            self.budget.release(self.large_bytes)
            self.large_bytes = 0
        if packet_type == PacketType.JOB_CREATED:
            self._job_created(reader.argument(0))
        elif (
            packet_type == PacketType.WORK_COMPLETE
            or packet_type == PacketType.WORK_DATA
            or packet_type == PacketType.WORK_FAIL
            or packet_type == PacketType.WORK_EXCEPTION
            or packet_type == PacketType.WORK_STATUS
            or packet_type == PacketType.WORK_WARNING
        ):
            self._work(packet_type, reader.argument(0), False)
        elif packet_type == PacketType.ERROR:
            self._job_refused(reader.argument(0), reader.argument(1))
        elif packet_type == PacketType.OPTION_RES:
            if not self.up:
                self.up = True
                self.came_up.set_result(None)
        elif packet_type != PacketType.ECHO_RES:
            self._close(f"the job server sent an unexpected {type_name(packet_type)}")
        return 0

    cdef int _large_packet(self) except -1:
        """Decide by the handle whether a large packet is worth its memory; skipping is by length and costs none."""
        cdef PacketReader reader = self.reader
        cdef int packet_type = reader.type
        cdef bytes handle
        cdef Job first
        if (
            packet_type != PacketType.WORK_COMPLETE
            and packet_type != PacketType.WORK_DATA
            and packet_type != PacketType.WORK_EXCEPTION
            and packet_type != PacketType.WORK_WARNING
        ):
            self._close(f"the job server sent a {type_name(packet_type)} of {reader.body_bytes} bytes")
            return 0
        handle = reader.argument(0)
        first = <Job> self.jobs.get(handle)
        if (
            first is not None
            and first.waiting > 0
            and first.copies_seen == 0
            and not first.ended
            and first.result_bytes + reader.body_bytes - PyBytes_GET_SIZE(handle) - 1 <= self.max_result_bytes
        ):
            if self.budget.reserve(reader.body_bytes):
                self.large_bytes = reader.body_bytes
                reader.keep()
                return 0
            first.over_budget = True
        self._work(packet_type, handle, True)
        reader.skip()
        return 0

    cdef Job _take_pending(self, str packet_name):
        cdef Job job = self.first_pending
        if job is None:
            self._close(f"the job server sent {packet_name} without a pending submission")
            return None
        if not job.written:
            self._close(f"the job server sent {packet_name} for a submission that it has not been sent")
            return None
        self.first_pending = job.next_pending
        job.next_pending = None
        if self.first_pending is None:
            self.last_pending = None
        return job

    cdef int _job_created(self, bytes handle) except -1:
        cdef Job first
        cdef Job job = self._take_pending("JOB_CREATED")
        if job is None:
            return 0
        if not _is_handle(handle):
            # It goes into a response's head, among other things.
            self._close("the job server sent a malformed handle")
            return self._tell(job, LOST, None)
        job.handle = handle
        job.admin = self.admin_slot.current
        if job.background:
            return self._tell(job, PacketType.JOB_CREATED, None)
        first = <Job> self.jobs.get(handle)
        if first is None or first.ended:
            job.copies = 1
            self.jobs[handle] = job
            if job.listener is None:
                self._count_abandoned(job)
                return self._cancel(job)
            job.waiting = 1
            return self._tell(job, PacketType.JOB_CREATED, None)
        first.copies += 1
        if first.merged is None:
            first.merged = []
        first.merged.append(job)
        if job.listener is None:
            return 0
        if first.incomplete:
            return self._tell(job, LOST, None)
        if first.waiting == 0:
            self.abandoned_jobs -= 1
        first.waiting += 1
        return self._tell(job, PacketType.JOB_CREATED, None)

    cdef int _job_refused(self, bytes code, bytes text) except -1:
        cdef Job job = self._take_pending("ERROR")
        cdef JobListener listener
        if job is None:
            return 0
        listener = job.listener
        if listener is None:
            return 0
        self._release(job)
        try:
            return listener.job_refused(job, code, text)
        except Exception:
            return _listener_failed(listener, job)

    cdef int _work(self, int packet_type, bytes handle, bint skipped) except -1:
        """A WORK_* packet of the job `handle`; with skipped, its data is not in the reader and never will be."""
        cdef Job first = <Job> self.jobs.get(handle)
        cdef bytes data = None
        cdef bint last
        if first is None:
            self.dropped_packets += 1
            return 0
        if first.copies > 1:
            first.copies_seen += 1
            if first.copies_seen > 1:
                if first.copies_seen >= first.copies:
                    first.copies_seen = 0
                    if first.ended:
                        del self.jobs[handle]
                return 0
        last = (
            packet_type == PacketType.WORK_COMPLETE
            or packet_type == PacketType.WORK_FAIL
            or packet_type == PacketType.WORK_EXCEPTION
        )
        if last:
            if first.copies == 1:
                del self.jobs[handle]
            first.ended = True
        if first.waiting == 0:
            self.dropped_packets += 1
            if last:
                self.abandoned_jobs -= 1
            elif packet_type == PacketType.WORK_DATA:
                first.incomplete = True
            return 0
        if skipped:
            if packet_type == PacketType.WORK_DATA:
                first.incomplete = True
            if packet_type != PacketType.WORK_WARNING:
                self._tell_all(first, TOO_LARGE, None)
            return 0
        if packet_type == PacketType.WORK_STATUS:
            return self._tell_all(first, packet_type, None)
        if packet_type != PacketType.WORK_FAIL:
            data = self.reader.argument(1)
        if packet_type == PacketType.WORK_DATA or packet_type == PacketType.WORK_COMPLETE:
            first.result_bytes += PyBytes_GET_SIZE(data)
            if first.result_bytes > self.max_result_bytes:
                return self._tell_all(first, TOO_LARGE, None)
            # What grows piece by piece has room to spare.
            if not self._hold_result(first, PyBytes_GET_SIZE(data) + PyBytes_GET_SIZE(data) // 8):
                first.over_budget = True
                return self._tell_all(first, TOO_LARGE, None)
            if packet_type == PacketType.WORK_DATA and first.gathered is None:
                first.gathered = bytearray()
            if first.gathered is not None:
                first.gathered.extend(data)
        return self._tell_all(first, packet_type, data)

    cdef int _tell_all(self, Job first, int event, bytes data) except -1:
        cdef bint ends = (
            event == PacketType.WORK_COMPLETE
            or event == PacketType.WORK_FAIL
            or event == PacketType.WORK_EXCEPTION
            or event == TOO_LARGE
        )
        cdef list merged = first.merged
        if ends:
            first.waiting = 0
            if not first.ended:
                self._count_abandoned(first)
        self._tell(first, event, data)
        if merged is not None:
            for job in merged:
                (<Job> job).gathered = first.gathered
                (<Job> job).over_budget = first.over_budget
                self._tell(<Job> job, event, data)
        if ends:
            self._let_result_go(first)
        return 0

    cdef int _tell(self, Job job, int event, bytes data) except -1:
        """Tell one listener; what it raises ends its own part only."""
        cdef JobListener listener = job.listener
        if listener is None:
            return 0
        try:
            if event == PacketType.WORK_COMPLETE:
                self._release(job)
                listener.job_completed(job, data if job.gathered is None else job.gathered)
            elif event == PacketType.JOB_CREATED:
                if job.background:
                    self._release(job)
                listener.job_created(job)
            elif event == PacketType.WORK_DATA:
                listener.job_data(job, data)
            elif event == PacketType.WORK_WARNING:
                listener.job_warning(job, data)
            elif event == PacketType.WORK_STATUS:
                listener.job_status(job, self.reader.argument(1), self.reader.argument(2))
            elif event == PacketType.WORK_FAIL:
                self._release(job)
                listener.job_failed(job)
            elif event == PacketType.WORK_EXCEPTION:
                self._release(job)
                listener.job_exception(job, data)
            elif event == TOO_LARGE:
                self._release(job)
                listener.job_too_large(job)
            else:
                self._release(job)
                listener.job_lost(job)
        except Exception:
            if job.listener is not None:
                self.abandon(job)
            return _listener_failed(listener, job)
        return 0

    # Ending.

    cdef int _close(self, str reason) except -1:
        cdef Job job, following
        cdef dict jobs
        if self.closed:
            return 0
        self.closed = True
        self.up = False
        self.close_reason = reason
        self.sending_bytes += self.unsent_bytes + self.large_bytes
        self.unsent_bytes = self.large_bytes = 0
        self._sent()
        self.unsent = []
        self.unsent_jobs = []
        job, self.first_pending, self.last_pending = self.first_pending, None, None
        jobs, self.jobs = self.jobs, {}
        self.abandoned_jobs = 0
        while job is not None:
            following = job.next_pending
            job.next_pending = None
            self._tell(job, LOST, None)
            job = following
        for first in jobs.values():
            self._tell(<Job> first, LOST, None)
            if (<Job> first).merged is not None:
                for merged in (<Job> first).merged:
                    self._tell(<Job> merged, LOST, None)
            self._let_result_go(<Job> first)
        if self.transport is not None:
            self.transport.abort()
        if not self.came_up.done():
            self.came_up.cancel()
        if not self.gone.done():
            self.gone.set_result(None)
        return 0


cdef int _listener_failed(JobListener listener, Job job) except -1:
    logger.exception("a job's listener failed")
    try:
        listener.job_broken(job)
    except Exception:
        logger.exception("a job's listener failed again")
    return 0


cdef bint _is_handle(bytes handle) noexcept:
    """1 to MAX_HANDLE_BYTES visible ASCII bytes, as gearmand's "H:<host>:<number>"."""
    cdef const char* byte = PyBytes_AS_STRING(handle)
    cdef Py_ssize_t length = PyBytes_GET_SIZE(handle)
    cdef Py_ssize_t index
    for index in range(length):
        if not 0x20 < byte[index] < 0x7F:
            return False
    return 0 < length <= MAX_HANDLE_BYTES
