"""One pipelined socket to one job server.

Theory of operation. Submissions leave in the order of their calls, all of one loop turn in one write. gearmand
answers them in that order, so a JOB_CREATED or an ERROR belongs to the oldest submission that has neither
(`first_pending`). From then on the job is known by its handle, which is unique on this connection only.

Submissions with one function and unique on one connection are merged by the job server: each gets a JOB_CREATED with
the same handle, and every WORK_* packet comes once per JOB_CREATED. The first Job that got the handle stands in
`jobs` for all of them; the first copy of a packet is told to every listener and the others are let pass.

OPTION_REQ and ECHO_REQ leave first and together; whichever is answered shows that the job server lives. Since answers
keep their order, an ERROR before that is OPTION_REQ's, and after ECHO_RES no answer to OPTION_REQ is owed any more: there
are job servers that do not know it, and work otherwise.

A job that nobody waits for any more stays in `jobs` until its end, so that its copies are still counted right. One that
nobody waits for before it was written is never sent.

A job server that does not read is given WRITE_PORTION_BYTES and no more; the rest waits in `unsent`, bounded, and what
waits there when the connection ends goes to another one through the router, as does what the job server's full queue
refuses. So a packet is kept until it was answered, and counts in the byte budget until then; results count until their
listeners were told.

Every check sends an ECHO_REQ; a connection on which nothing at all has come by the next check is closed. Any byte is a
sign of life, as an echo may wait behind a large result. While the ECHO_REQ is on its way, behind large workloads, it is
enough that the other side's kernel takes something, and the answer has time until the check after the next: a frozen job
server's takes no more than its buffer.

A listener's exception is logged and ends nothing but that listener's part: the connection carries everybody's jobs.
"""

import fcntl
import logging
import sys
import termios
cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

from gatewayx.core.budget cimport BODIES, RESULTS, ByteBudget, account_for
from gatewayx.core.deadlines cimport DeadlineWheel, Expiring
from gatewayx.gearman.admin cimport AdminConnection, AdminSlot
from gatewayx.gearman.packet cimport (
    MAX_FIRST_ARGUMENT_BYTES,
    MAX_HANDLE_BYTES,
    Magic,
    PacketReader,
    PacketType,
    Taken,
    pack,
    submit_head,
    submit_packet,
    type_name,
)

from gatewayx.gearman.errors import ProtocolError

logger = logging.getLogger("gatewayx.gearman")

# Above this the kernel's buffer is full and the rest waits in `unsent`, where it is bounded and not yet "written".
cdef int WRITE_HIGH_WATER_BYTES = 65536

# The code of the ERROR by which gearmand says that it has not queued the job, since its queue is full or its persistent
# queue failed (libgearman-server/server.cc).
cdef bytes QUEUE_ERROR = b"QUEUE_ERROR"
cdef bytes ECHO_REQ = pack(Magic.REQUEST, PacketType.ECHO_REQ, (), b"gatewayx")
cdef bytes OPTION_REQ = pack(Magic.REQUEST, PacketType.OPTION_REQ, (), b"exceptions")
# The code of the ERROR by which gearmand says that it does not know an option.
cdef bytes UNKNOWN_OPTION = b"UNKNOWN_OPTION"

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

    cdef int job_failed(self, Job job, bytes reason) except -1:
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


cdef class JobRouter:
    """Who gave a connection its jobs; see the .pxd."""

    cdef bint move(self, Job job) except -1:
        return False

    cdef int background_settled(self, Job job, bint queued) except -1:
        return 0


@cython.final
cdef class Job(Expiring):
    """A submission and what the job server has said of it."""

    @property
    def connected(self):
        """Whether the connection it was submitted over still lives."""
        return not self.connection.closed

    cpdef int deadline_passed(self) except -1:
        cdef JobListener listener = self.listener
        if listener is None:
            return 0
        self.connection.abandon(self)
        try:
            return listener.job_timed_out(self)
        except Exception:
            return _listener_failed(listener, self)


@cython.final
cdef class JobServerConnection:
    """A connection to the job server `server_name`; an asyncio protocol, to be given to create_connection().

    loop: the event loop. wheel: where its jobs' deadlines hang. router: who gave it its jobs. admin_slot: the job
    server's text connection. server_number: which of the job servers it is, from 0 to 63. slot: which of the
    connections to this job server it is. max_result_bytes: most bytes of one job's result. budget: where packets and
    results are counted. It takes jobs once `came_up` is done: a connect to a frozen job server succeeds, only an answer
    proves life. `asks_option` may be changed before it is connected.
    """

    def __init__(
        self,
        loop,
        DeadlineWheel wheel,
        JobRouter router not None,
        AdminSlot admin_slot not None,
        ByteBudget budget not None,
        str server_name,
        int server_number,
        int slot,
        Py_ssize_t max_result_bytes,
    ):
        self.loop = loop
        self.wheel = wheel
        self.router = router
        self.admin_slot = admin_slot
        self.budget = budget
        self.server_name = server_name
        self.server_bit = <unsigned long long> 1 << server_number
        self.slot = slot
        self.max_result_bytes = max_result_bytes
        self.reader = PacketReader(
            Magic.RESPONSE, max_body_bytes=max_result_bytes + MAX_FIRST_ARGUMENT_BYTES, announce_large=True
        )
        self.asks_option = True
        self.came_up = loop.create_future()
        self.gone = loop.create_future()
        self.jobs = {}
        self.abandoned = {}
        self.pins = {}
        self.unsent = []

    def close(self, str reason):
        """Close at once; jobs that have not ended are lost."""
        self._close(reason)

    def retire(self):
        """Take no more jobs, but those that are merged with one that is under way here."""
        self.retired = True

    @property
    def idle(self):
        """Nobody waits for the end of a job here, and none is on its way."""
        return self.outstanding == 0 and self.first_pending is None and not self.unsent

    @property
    def unanswered(self):
        """What it must answer to come up and has not, in words; None if it is not connected."""
        if self.transport is None:
            return None
        return "ECHO_REQ" if self.option_answer is None else f"ECHO_REQ ({self.option_answer})"

    cdef bint accepts_jobs(self):
        return self.up and not self.retired and self.unsent_bytes < MAX_UNSENT_BYTES

    cdef bint has_room(self):
        return self.up and self.unsent_bytes < MAX_UNSENT_BYTES

    cdef bint has_open_write(self):
        return self.flush_scheduled and 0 < self.unsent_bytes < OPEN_WRITE_BYTES

    cdef bint has_pin(self, bytes identity):
        return identity in self.pins

    cdef unsigned long long refusals(self):
        cdef unsigned long long bits = 0
        cdef Job job = self.first_pending
        while job is not None:
            bits |= job.refused_by
            job = job.next_pending
        for item in self.unsent:
            bits |= (<Job> item).refused_by
        return bits

    def check(self, double silence_s):
        """Ask for a sign of life; closes when there was none since the last check, silence_s ago.

        While the question waits behind packets that leave slowly, those are signs enough; it has been there for as long
        as silence_s when it is missed.
        """
        cdef long long arrived
        cdef bint waits_behind
        if not self.up or self.closed or self.transport.is_closing():
            return
        arrived = self.written_bytes - <long long> self.transport.get_write_buffer_size() - _unacknowledged(self.transport)
        if self.echo_due and not self.heard:
            if self.arrived_bytes >= self.echo_end_bytes or arrived == self.arrived_bytes:
                self._close(f"the job server gave no sign of life within {silence_s:g} s")
                return
            self.arrived_bytes = arrived
            return
        waits_behind = arrived < self.written_bytes
        self.heard = False
        self.echo_due = True
        self.written_bytes += PyBytes_GET_SIZE(ECHO_REQ)
        self.echo_end_bytes = self.written_bytes
        self.transport.write(ECHO_REQ)
        # With nothing before it, it counts as arrived: until the next check there is time enough to answer.
        self.arrived_bytes = arrived if waits_behind else self.echo_end_bytes

    cdef int submit(self, Job job) except -1:
        self.unsent.append(job)
        self.unsent_bytes += job.packet_bytes
        job.connection = self
        if job.identity is not None:
            self.pins[job.identity] = self.pins.get(job.identity, 0) + 1
        self.outstanding += 1
        return self._schedule_flush()

    cdef int abandon(self, Job job) except -1:
        cdef Job first
        if job.listener is None:
            return 0
        self._release(job)
        if job.handle is None:
            if job.written:
                # It cannot go elsewhere any more.
                self._drop_packet(job)
            elif not self.closed:
                self.unsent_bytes -= job.packet_bytes
                self._drop_packet(job)
                self._unpin(job)
                self._settle(job, False)
                self.unsent_abandoned += 1
                if self.unsent_abandoned * 2 > len(self.unsent):
                    self.unsent = [item for item in self.unsent if (<Job> item).listener is not None]
                    self.unsent_abandoned = 0
            return 0
        first = <Job> self.jobs.get(job.handle)
        if first is not None:
            if first.merged is not None and job in first.merged:
                # As many copies are owed as before; for the job itself nothing is kept.
                del first.merged[job]
                self._unpin(job)
            first.waiting -= 1
            if first.waiting == 0:
                self._count_abandoned(first)
                self._cancel(first)
                if self.large_job is first:
                    self._drop_large()
        return 0

    cdef int _drop_packet(self, Job job) except -1:
        """The job server has answered the submission, or never will."""
        self.budget.release(&job.packet_held)
        job.packet = None
        job.workload = None
        job.packet_bytes = 0
        return 0

    cdef int _unpin(self, Job job) except -1:
        """The job server cannot merge anything with this job any more."""
        if job.identity is not None:
            left = self.pins.get(job.identity, 0) - 1
            if left > 0:
                self.pins[job.identity] = left
            else:
                self.pins.pop(job.identity, None)
        return 0

    cdef int _settle(self, Job job, bint queued) except -1:
        """Whether the submission was queued here is known, or with queued true never will be."""
        return 0 if job.background_note is None else self.router.background_settled(job, queued)

    cdef int _forget(self, Job first) except -1:
        """Nothing more is expected for its handle."""
        del self.jobs[first.handle]
        self.abandoned.pop(first.handle, None)
        self._unpin(first)
        if first.merged is not None:
            for merged in first.merged:
                self._unpin(<Job> merged)
        return 0

    cdef int _cancel(self, Job job) except -1:
        """Nobody waits for the job: no worker need begin it."""
        if job.cancellable and job.copies == 1 and job.admin is not None:
            return job.admin.cancel(job)
        return 0

    cdef int _release(self, Job job) except -1:
        """The job's listener is not to be called any more."""
        job.listener = None
        self.outstanding -= 1
        return self.wheel.disarm(job)

    cdef int _count_abandoned(self, Job first) except -1:
        if first.result_bytes > 0:
            first.incomplete = True
            first.gathered = None
            self._let_result_go(first)
        self.abandoned[first.handle] = None
        if len(self.abandoned) > MAX_ABANDONED_JOBS:
            self._forget(<Job> self.jobs[next(iter(self.abandoned))])
        return 0

    cdef bint _hold_result(self, Job first, Py_ssize_t size_bytes) noexcept:
        """Whether the budget has room for so many more bytes of the result."""
        cdef long long held_bytes = first.result_held.size_bytes + size_bytes
        if first.result_bytes <= SMALL_RESULT_BYTES:
            self.budget.hold(&first.result_held, account_for(RESULTS, held_bytes), held_bytes)
            return True
        return self.budget.resize(&first.result_held, account_for(RESULTS, held_bytes), held_bytes)

    cdef int _let_result_go(self, Job first) except -1:
        self.budget.release(&first.result_held)
        return 0

    # What the loop calls.

    def connection_made(self, transport):
        self.transport = transport
        transport.set_write_buffer_limits(high=WRITE_HIGH_WATER_BYTES)
        if self.closed:
            transport.abort()
            return
        self.peer = transport.get_extra_info("peername")
        self.option_due = self.asks_option
        if not self.asks_option:
            self.option_answer = "it hangs up on OPTION_REQ"
        greeting = OPTION_REQ + ECHO_REQ if self.asks_option else ECHO_REQ
        self.written_bytes += len(greeting)
        transport.write(greeting)

    def data_received(self, bytes data):
        self.heard = True
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
        self.hung_up_unanswered = not self.closed and not self.up
        self._close("the job server closed the connection")

    def connection_lost(self, error):
        if not self.closed:
            self.hung_up_unanswered = not self.up
        self._close("the connection was lost" if error is None else f"the connection was lost: {error}")
        self.transport = None

    def pause_writing(self):
        self.write_paused = True

    def resume_writing(self):
        self.write_paused = False
        if self.unsent:
            self._schedule_flush()

    # Writing.

    cdef int _schedule_flush(self) except -1:
        if not self.flush_scheduled and not self.write_paused:
            self.flush_scheduled = True
            self.loop.call_soon(self._flush)
        return 0

    def _flush(self):
        cdef list jobs = self.unsent
        cdef list buffers = []
        cdef Py_ssize_t size_bytes = 0
        cdef Py_ssize_t index
        cdef Job job
        self.flush_scheduled = False
        if self.closed or self.write_paused or not jobs or self.transport.is_closing():
            return
        self.unsent = []
        self.unsent_abandoned = 0
        for index in range(len(jobs)):
            job = <Job> jobs[index]
            if job.listener is None:
                continue
            job.written = True
            self._append_pending(job)
            self.unsent_bytes -= job.packet_bytes
            buffers.append(job.packet)
            if job.workload is not None:
                buffers.append(job.workload)
            size_bytes += job.packet_bytes
            if size_bytes >= WRITE_PORTION_BYTES:
                self._write(buffers, size_bytes)
                buffers = []
                size_bytes = 0
                if self.write_paused or self.transport.is_closing():
                    self.unsent = jobs[index + 1:]
                    return
        if buffers:
            self._write(buffers, size_bytes)

    cdef int _append_pending(self, Job job) except -1:
        if self.last_pending is None:
            self.first_pending = job
        else:
            self.last_pending.next_pending = job
        self.last_pending = job
        return 0

    cdef int _write(self, list buffers, Py_ssize_t size_bytes) except -1:
        self.written_bytes += size_bytes
        if size_bytes <= WRITE_HIGH_WATER_BYTES:
            # One buffer is cheaper to write than many small ones.
            self.transport.write(b"".join(buffers))
        else:
            self.transport.writelines(buffers)
        return 0

    # Reading.

    cdef int _packet(self) except -1:
        cdef PacketReader reader = self.reader
        cdef int packet_type = reader.type
        if self.large_job is not None:
            # A large packet was this one; what is done with it counts anew.
            self.large_job = None
            self.budget.release(&self.large_held)
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
            self._error(reader.argument(0)[:MAX_ERROR_CODE_BYTES], reader.argument(1)[:MAX_REASON_BYTES])
        elif packet_type == PacketType.OPTION_RES:
            self.option_due = False
            self.sends_exceptions = True
            self.option_answer = "it has answered OPTION_REQ"
            self._come_up()
        elif packet_type == PacketType.ECHO_RES:
            self._echoed()
        else:
            self._close(f"the job server sent an unexpected {type_name(packet_type)}")
        return 0

    cdef int _large_packet(self) except -1:
        """Decide by the handle whether a large packet is worth its memory; skipping is by length and costs none."""
        cdef PacketReader reader = self.reader
        cdef int packet_type = reader.type
        cdef bytes handle
        cdef Job first
        if (
            packet_type == PacketType.WORK_FAIL
            or packet_type == PacketType.ERROR
            or packet_type == PacketType.JOB_CREATED
            or packet_type == PacketType.OPTION_RES
        ):
            # What is known of it is known already; of the reason behind it the start is told.
            reader.keep_start(MAX_REASON_BYTES)
            return 0
        if packet_type == PacketType.ECHO_RES:
            reader.skip()
            return self._echoed()
        if (
            packet_type != PacketType.WORK_COMPLETE
            and packet_type != PacketType.WORK_DATA
            and packet_type != PacketType.WORK_EXCEPTION
            and packet_type != PacketType.WORK_STATUS
            and packet_type != PacketType.WORK_WARNING
        ):
            self._close(f"the job server sent a {type_name(packet_type)} of {reader.body_bytes} bytes")
            return 0
        handle = reader.argument(0)
        first = <Job> self.jobs.get(handle)
        if (
            packet_type != PacketType.WORK_STATUS
            and first is not None
            and first.waiting > 0
            and first.copies_seen == 0
            and not first.ended
            and first.result_bytes + reader.body_bytes - PyBytes_GET_SIZE(handle) - 1 <= self.max_result_bytes
        ):
            if self.budget.resize(&self.large_held, account_for(RESULTS, reader.body_bytes), reader.body_bytes):
                self.large_job = first
                reader.keep()
                return 0
            first.over_budget = True
            self.budget.refused += 1
        self._work(packet_type, handle, True)
        reader.skip()
        return 0

    cdef int _drop_large(self) except -1:
        """Nobody waits for the large packet that is being gathered any more: it is skipped from here on."""
        cdef bytes handle = self.large_job.handle
        self.large_job = None
        self.budget.release(&self.large_held)
        self._work(self.reader.type, handle, True)
        self.reader.skip()
        return 0

    cdef int _come_up(self) except -1:
        if not self.up:
            self.up = True
            self.came_up.set_result(None)
        return 0

    cdef int _echoed(self) except -1:
        if self.option_due and self.option_answer is None:
            self.option_answer = "it does not answer OPTION_REQ"
        return self._come_up()

    cdef int _error(self, bytes code, bytes text) except -1:
        """An ERROR belongs to OPTION_REQ, if that is the oldest without an answer, or to a submission."""
        if self.option_due and (not self.up or self.first_pending is None or code.upper() == UNKNOWN_OPTION):
            # Behind ECHO_RES it is out of order; where that can be told it is no submission's.
            self.option_due = False
            self.option_answer = f"it answers OPTION_REQ with ERROR {printable(code)}: {printable(text)}"
            return 0
        if not self.up:
            return self._close(f"the job server answers ECHO_REQ with ERROR {printable(code)}: {printable(text)}")
        return self._job_refused(code, text)

    cdef Job _take_pending(self, str packet_name):
        cdef Job job = self.first_pending
        if job is None:
            self._close(f"the job server sent {packet_name} without a pending submission")
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
            self._drop_packet(job)
            self._settle(job, True)
            return self._tell(job, LOST, None)
        self._drop_packet(job)
        job.handle = handle
        if job.background:
            self._unpin(job)
            self._settle(job, True)
            return self._tell(job, PacketType.JOB_CREATED, None)
        # A name may stand for several job servers; the text connection must be to the same one.
        if self.admin_slot.current is not None and self.admin_slot.current.peer == self.peer:
            job.admin = self.admin_slot.current
        first = <Job> self.jobs.get(handle)
        if first is not None and first.ended:
            self._forget(first)
            first = None
        if first is None:
            job.copies = 1
            self.jobs[handle] = job
            if job.listener is None:
                self._count_abandoned(job)
                return self._cancel(job)
            job.waiting = 1
            return self._tell(job, PacketType.JOB_CREATED, None)
        first.copies += 1
        if job.listener is None or first.incomplete:
            self._unpin(job)
            return self._tell(job, LOST, None)
        if first.merged is None:
            first.merged = {}
        first.merged[job] = None
        self.abandoned.pop(handle, None)
        first.waiting += 1
        return self._tell(job, PacketType.JOB_CREATED, None)

    cdef int _job_refused(self, bytes code, bytes text) except -1:
        cdef Job job = self._take_pending("ERROR")
        cdef JobListener listener
        if job is None:
            return 0
        listener = job.listener
        self._unpin(job)
        self._settle(job, False)
        if listener is None:
            return self._drop_packet(job)
        if code == QUEUE_ERROR:
            job.refused_by |= self.server_bit
            job.written = False
            self.outstanding -= 1
            if self.router.move(job):
                return 0
            self.outstanding += 1
        self._drop_packet(job)
        self._release(job)
        try:
            return listener.job_refused(job, code, text)
        except Exception:
            return _listener_failed(listener, job)

    cdef int _work(self, int packet_type, bytes handle, bint skipped) except -1:
        """A WORK_* packet of the job `handle`; with skipped, its data is not in the reader and never will be."""
        cdef Job first = <Job> self.jobs.get(handle)
        cdef bytes data = None
        cdef Py_ssize_t room_bytes
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
                        self._forget(first)
                return 0
        last = (
            packet_type == PacketType.WORK_COMPLETE
            or packet_type == PacketType.WORK_FAIL
            or packet_type == PacketType.WORK_EXCEPTION
        )
        if last:
            if first.copies == 1:
                self._forget(first)
            first.ended = True
        if first.waiting == 0:
            self.dropped_packets += 1
            if last:
                self.abandoned.pop(handle, None)
            elif packet_type == PacketType.WORK_DATA:
                first.incomplete = True
            return 0
        if skipped:
            if packet_type == PacketType.WORK_DATA:
                first.incomplete = True
            if packet_type != PacketType.WORK_WARNING and packet_type != PacketType.WORK_STATUS:
                self._tell_all(first, TOO_LARGE, None)
            return 0
        if packet_type == PacketType.WORK_STATUS:
            return self._tell_all(first, packet_type, None)
        if packet_type == PacketType.WORK_FAIL:
            data = self.reader.argument(1)[:MAX_REASON_BYTES] if self.reader.argument_count > 1 else b""
        else:
            data = self.reader.argument(1)
        if packet_type == PacketType.WORK_DATA or packet_type == PacketType.WORK_COMPLETE:
            room_bytes = PyBytes_GET_SIZE(data)
            first.result_bytes += room_bytes
            if first.result_bytes > self.max_result_bytes:
                return self._tell_all(first, TOO_LARGE, None)
            if packet_type == PacketType.WORK_DATA or first.gathered is not None:
                # A bytearray that grows takes an eighth more than it needs.
                room_bytes += room_bytes // 8
            if not self._hold_result(first, room_bytes):
                first.over_budget = True
                self.budget.refused += 1
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
        cdef list merged = None if first.merged is None else list(first.merged)
        if ends:
            first.waiting = 0
            if not first.ended:
                self._count_abandoned(first)
            # From here on the result counts as its listeners' answers.
            self._let_result_go(first)
        self._tell(first, event, data)
        if merged is not None:
            for job in merged:
                (<Job> job).gathered = first.gathered
                (<Job> job).over_budget = first.over_budget
                self._tell(<Job> job, event, data)
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
                listener.job_failed(job, data)
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
        self.large_job = None
        self.budget.release(&self.large_held)
        unsent, self.unsent, self.unsent_bytes = self.unsent, [], 0
        job, self.first_pending, self.last_pending = self.first_pending, None, None
        jobs, self.jobs = self.jobs, {}
        self.pins = {}
        self.abandoned = {}
        while job is not None:
            following = job.next_pending
            job.next_pending = None
            self._drop_packet(job)
            self._settle(job, True)
            self._tell(job, LOST, None)
            job = following
        for first in jobs.values():
            self._tell(<Job> first, LOST, None)
            if (<Job> first).merged is not None:
                for merged in list((<Job> first).merged):
                    self._tell(<Job> merged, LOST, None)
            self._let_result_go(<Job> first)
        for item in unsent:
            job = <Job> item
            if job.listener is None:
                self._drop_packet(job)
                continue
            self._settle(job, False)
            self.outstanding -= 1
            if not self.router.move(job):
                self.outstanding += 1
                self._drop_packet(job)
                self._tell(job, LOST, None)
        if self.transport is not None:
            self.transport.abort()
        if not self.came_up.done():
            self.came_up.cancel()
        if not self.gone.done():
            self.gone.set_result(None)
        return 0


cdef int make_packet(
    Job job, ByteBudget budget, int packet_type, bytes function, bytes unique, bytes workload
) except -1:
    cdef Py_ssize_t workload_bytes = PyBytes_GET_SIZE(workload)
    job.function = function
    if workload_bytes <= INLINE_WORKLOAD_BYTES:
        job.packet = submit_packet(packet_type, function, unique, workload)
        job.packet_bytes = PyBytes_GET_SIZE(job.packet)
    else:
        job.packet = submit_head(packet_type, function, unique, workload_bytes)
        job.workload = workload
        job.packet_bytes = PyBytes_GET_SIZE(job.packet) + workload_bytes
    budget.hold(&job.packet_held, account_for(BODIES, workload_bytes), job.packet_bytes)
    return 0


cdef int _listener_failed(JobListener listener, Job job) except -1:
    logger.exception("a job's listener failed")
    try:
        listener.job_broken(job)
    except Exception:
        logger.exception("a job's listener failed again")
    return 0


cdef str printable(bytes text):
    return text.decode("latin-1").encode("unicode_escape").decode("ascii")


cdef long long _unacknowledged(transport):
    """Bytes that the other side's kernel has not taken (tcp(7), SIOCOUTQ)."""
    return int.from_bytes(fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)


cdef bint _is_handle(bytes handle) noexcept:
    """1 to MAX_HANDLE_BYTES visible ASCII bytes, as gearmand's "H:<host>:<number>"."""
    cdef const char* byte = PyBytes_AS_STRING(handle)
    cdef Py_ssize_t length = PyBytes_GET_SIZE(handle)
    cdef Py_ssize_t index
    for index in range(length):
        if not 0x20 < byte[index] < 0x7F:
            return False
    return 0 < length <= MAX_HANDLE_BYTES
