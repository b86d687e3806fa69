"""One pipelined socket to one job server.

Theory of operation. Submissions leave in the order of their calls, all of one loop turn in one write. gearmand
answers them in that order, so a JOB_CREATED or an ERROR belongs to the oldest submission that has neither
(`oldest_pending`). A created job is in the `table`.

OPTION_REQ and ECHO_REQ leave first and together; whichever is answered shows that the job server lives. Since answers
keep their order, an ERROR before that is OPTION_REQ's, and after ECHO_RES no answer to OPTION_REQ is owed any more: there
are job servers that do not know it, and work otherwise.

A job that nobody waits for before it was written is never sent.

A job that is cancelled while somebody waits for it is asked for by GET_STATUS once the text connection has answered
(`questions`). Answers to that keep an order of their own: STATUS_RES is told from what answers submissions by its type.

A job server that does not read is given GATHERED_BYTES or one large packet and no more; the rest waits unsent,
bounded, and what waits there when the connection ends goes to another one through the router, as does what the job
server's full queue refuses. So a packet is kept until it was answered, and counts in the byte budget until then.

Every check sends an ECHO_REQ; a connection on which nothing at all has come by the next check is closed. Any byte is a
sign of life, as an echo may wait behind a large result. While the ECHO_REQ is on its way, behind large workloads, it is
enough that the other side's kernel takes something, and the answer has time until the check after the next: a frozen job
server's takes no more than its buffer.
"""

import logging
cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memcpy

from gatewayx.core.budget cimport RESULTS, ByteBudget, account_for
from gatewayx.core.digits cimport put_bytes
from gatewayx.core.turns cimport Turn
from gatewayx.core.deadlines cimport DeadlineWheel
from gatewayx.gearman.admin cimport AdminConnection, ServerStatus
from gatewayx.gearman.job cimport (
    MAX_ERROR_CODE_BYTES,
    MAX_REASON_BYTES,
    Job,
    JobCarrier,
    JobRouter,
    JobState,
    StatusListener,
    drop_packet,
    printable,
)
from gatewayx.gearman.job_table cimport JobTable
from gatewayx.gearman.packet cimport (
    MAX_FIRST_ARGUMENT_BYTES,
    MAX_HANDLE_BYTES,
    Magic,
    PacketReader,
    PacketType,
    Taken,
    is_work,
    pack,
    type_name,
)
from gatewayx.gearman.status_questions cimport StatusQuestions
from gatewayx.gearman.upstream cimport UpstreamState

from gatewayx.gearman.errors import ProtocolError

logger = logging.getLogger("gatewayx.gearman")

# The code of the ERROR by which gearmand says that it has not queued the job, since its queue is full or its persistent
# queue failed (libgearman-server/server.cc).
cdef bytes QUEUE_ERROR = b"QUEUE_ERROR"
cdef bytes ECHO_REQ = pack(Magic.REQUEST, PacketType.ECHO_REQ, (), b"gatewayx")
cdef bytes OPTION_REQ = pack(Magic.REQUEST, PacketType.OPTION_REQ, (), b"exceptions")
# The code of the ERROR by which gearmand says that it does not know an option.
cdef bytes UNKNOWN_OPTION = b"UNKNOWN_OPTION"

# What a connection hands to its stream at once, of whichever connection: it is empty again when end_turn() returns.
cdef char[GATHERED_BYTES] gathered

# Eight bytes of one value.
cdef unsigned long long EACH_01 = 0x0101010101010101
cdef unsigned long long EACH_5F = 0x5F5F5F5F5F5F5F5F
cdef unsigned long long EACH_80 = 0x8080808080808080


@cython.final
cdef class JobServerConnection(JobCarrier):
    """A connection to the job server `server_name`.

    loop: the event loop. turn: where its submissions are written. wheel: where its jobs' deadlines hang. router: who gave
    it its jobs. status: what the job server's text connection has told. server_number: which of the job servers it is, from
    0 to 63. number: which of the connections to this job server it is. max_result_bytes: most bytes of one job's result.
    budget: where packets and results are counted. It takes jobs once `came_up` is done: a connect to a frozen job server
    succeeds, only an answer proves life. `asks_option` may be changed before it is connected.
    """

    def __init__(
        self,
        loop,
        Turn turn not None,
        DeadlineWheel wheel,
        JobRouter router not None,
        ServerStatus status not None,
        ByteBudget budget not None,
        str server_name,
        int server_number,
        int number,
        Py_ssize_t max_result_bytes,
    ):
        super().__init__(loop, turn)
        self.wheel = wheel
        self.router = router
        self.status = status
        self.budget = budget
        self.server_name = server_name
        self.server_bit = <unsigned long long> 1 << server_number
        self.number = number
        self.table = JobTable(budget, max_result_bytes)
        self.questions = StatusQuestions(PacketType.GET_STATUS, self, turn)
        self.reader = PacketReader(
            Magic.RESPONSE, max_body_bytes=max_result_bytes + MAX_FIRST_ARGUMENT_BYTES, announce_large=True
        )
        self.asks_option = True

    def bound_results(self, Py_ssize_t max_result_bytes):
        """From now on a job's result has at most so many bytes."""
        self.table.max_result_bytes = max_result_bytes
        self.reader.max_body_bytes = max_result_bytes + MAX_FIRST_ARGUMENT_BYTES

    def retire(self):
        """Take no more jobs, but those that are merged with one that is under way here."""
        if not self.is_closed():
            self.change(UpstreamState.RETIRED)

    @property
    def idle(self):
        """Nobody waits for a job here, and none is on its way."""
        return (
            self.outstanding == 0
            and self.oldest_pending is None
            and self.first_unsent is None
            and self.questions.is_idle()
        )

    @property
    def unanswered(self):
        """What it must answer to come up and has not, in words; None if it is not connected."""
        if self.stream is None:
            return None
        return "ECHO_REQ" if self.option_answer is None else f"ECHO_REQ ({self.option_answer})"

    cdef bint accepts_jobs(self):
        return self.state == UpstreamState.UP and self.unsent_bytes < MAX_UNSENT_BYTES

    cdef bint has_room(self):
        return self.is_up() and self.unsent_bytes < MAX_UNSENT_BYTES

    cdef bint has_open_write(self):
        return self.ends_turn and 0 < self.unsent_bytes < OPEN_WRITE_BYTES

    cdef bint has_pin(self, bytes identity):
        return identity in self.table.pins

    cdef unsigned long long refusals(self):
        cdef unsigned long long bits = 0
        cdef Job job = self.oldest_pending
        while job is not None:
            bits |= job.refused_by
            job = job.next_pending
        job = self.first_unsent
        while job is not None:
            bits |= job.refused_by
            job = job.next_pending
        return bits

    def check(self, double silence_s):
        """Ask for a sign of life; closes when there was none since the last check, silence_s ago.

        While the question waits behind packets that leave slowly, those are signs enough; it has been there for as long
        as silence_s when it is missed.
        """
        cdef long long arrived
        cdef bint waits_behind
        if not self.is_up() or self.stream.closing():
            return
        self.questions.look(f"the job server gave no answer to GET_STATUS within {silence_s:g} s")
        arrived = self.written_bytes - self.stream.pending_bytes() - self.stream.unconfirmed_bytes()
        if self.echo_due and not self.heard:
            if self.arrived_bytes >= self.echo_end_bytes or arrived == self.arrived_bytes:
                self.close_for(f"the job server gave no sign of life within {silence_s:g} s")
                return
            self.arrived_bytes = arrived
            return
        waits_behind = arrived < self.written_bytes
        self.heard = False
        self.echo_due = True
        self.written_bytes += PyBytes_GET_SIZE(ECHO_REQ)
        self.echo_end_bytes = self.written_bytes
        self.stream.write(ECHO_REQ)
        # With nothing before it, it counts as arrived: until the next check there is time enough to answer.
        self.arrived_bytes = arrived if waits_behind else self.echo_end_bytes

    cdef int submit(self, Job job) except -1:
        self._append_unsent(job)
        self.unsent_bytes += job.packet_bytes
        job.carrier = self
        if job.identity is not None:
            self.table.pin(job)
        self.outstanding += 1
        return 0 if self.write_paused else self.turn.add_job_server(self)

    cdef int _append_unsent(self, Job job) except -1:
        if self.last_unsent is None:
            self.first_unsent = job
        else:
            self.last_unsent.next_pending = job
        self.last_unsent = job
        self.unsent_count += 1
        return 0

    cdef int abandon(self, Job job) except -1:
        cdef JobState state = job.state
        cdef Job original
        if not job.is_awaited():
            return 0
        job.change(JobState.ABANDONED)
        if state == JobState.CREATED:
            original = self.table.leave(job)
            if original is not None and original is self.large_job:
                self._drop_large()
        elif state == JobState.WRITTEN:
            # It cannot go elsewhere any more.
            drop_packet(job, self.budget)
        elif not self.is_closed():
            self.unsent_bytes -= job.packet_bytes
            drop_packet(job, self.budget)
            self.table.unpin(job)
            self._settle(job, False)
            self.unsent_abandoned += 1
            if self.unsent_abandoned * 2 > self.unsent_count:
                self._forget_abandoned()
        return 0

    cdef str cancel(self, Job job, StatusListener listener):
        if job.state != JobState.CREATED:
            return "the job is not known to be queued or running"
        if job.identity is not None:
            return "others may wait for the same job"
        if job.admin is None:
            return "the job server was not connected by text when it was given the job"
        if not self.is_up() or self.stream.closing():
            return "the job's connection is closed"
        if self.write_paused:
            return "the job server does not read"
        if not self.questions.has_room():
            return "the job server has as many questions to answer as may wait"
        question = self.questions.add(job.handle, listener)
        refusal = job.admin.cancel_and_tell(question)
        if refusal is not None:
            self.questions.forget(question)
        return refusal

    cdef unsigned int life(self) noexcept:
        return 0 if self._admin() is None else self.same_admin.number

    cdef AdminConnection _admin(self):
        """The text connection that is up to the same job server: a name may stand for several of them."""
        cdef AdminConnection admin = self.status.connection
        if admin is None or not admin.is_up() or (admin is not self.same_admin and admin.peer != self.peer):
            return None
        self.same_admin = admin
        return admin

    cdef int _forget_abandoned(self) except -1:
        """Let go of those among the unsent that nobody waits for."""
        cdef Job job
        for _ in range(self.unsent_count):
            job = self._take_unsent()
            if job.state == JobState.UNSENT:
                self._append_unsent(job)
        self.unsent_abandoned = 0
        return 0

    cdef int _settle(self, Job job, bint queued) except -1:
        """Whether the submission was queued here is known, or with queued true never will be."""
        return 0 if job.background_note is None else self.router.background_settled(job, queued)

    # What the stream tells.

    cdef int greet(self) except -1:
        self.option_due = self.asks_option
        if not self.asks_option:
            self.option_answer = "it hangs up on OPTION_REQ"
        greeting = OPTION_REQ + ECHO_REQ if self.asks_option else ECHO_REQ
        self.written_bytes += len(greeting)
        self.stream.write(greeting)
        return 0

    cdef int received(self, const char* data, Py_ssize_t size) except -1:
        cdef int taken
        self.heard = True
        if self.is_closed():
            return 0
        try:
            self.reader.lend(data, size)
            while not self.is_closed():
                taken = self.reader.take()
                if taken == Taken.NEED_MORE:
                    break
                if taken == Taken.LARGE:
                    self._large_packet()
                else:
                    self._packet()
        except ProtocolError as error:
            self.close_for(str(error))
        return 0

    cpdef int pause_writing(self) except -1:
        self.write_paused = True
        return 0

    cpdef int resume_writing(self) except -1:
        self.write_paused = False
        return 0 if self.first_unsent is None else self.turn.add_job_server(self)

    # Writing.

    cdef int end_turn(self) except -1:
        """Hand what is unsent to the stream as long as the kernel takes it; the rest waits on, whatever becomes of that."""
        cdef Py_ssize_t gathered_bytes = 0
        cdef Job job = self.first_unsent
        if self.questions.unwritten is not None:
            self._ask_questions()
        if job is None or self.is_closed() or self.write_paused or self.stream.closing():
            return 0
        while job is not None:
            if gathered_bytes + job.packet_bytes > GATHERED_BYTES:
                self._flush(gathered_bytes)
                gathered_bytes = 0
                if self.write_paused or self.stream.closing():
                    return 0
            self._take_unsent()
            if job.state == JobState.UNSENT:
                job.change(JobState.WRITTEN)
                self._append_pending(job)
                self.unsent_bytes -= job.packet_bytes
                self.written_bytes += job.packet_bytes
                if job.packet_bytes > GATHERED_BYTES:
                    self._write(job)
                    if self.write_paused or self.stream.closing():
                        return 0
                else:
                    gathered_bytes = _gather(job, gathered_bytes)
            else:
                self.unsent_abandoned -= 1
            job = self.first_unsent
        return self._flush(gathered_bytes)

    cdef int _ask_questions(self) except -1:
        """What is asked behind cancellations leaves even while the kernel takes nothing: it is bounded, and jobs wait on."""
        cdef bytes packets
        if not self.is_up() or self.stream.closing():
            return 0
        packets = self.questions.take_packets()
        self.written_bytes += PyBytes_GET_SIZE(packets)
        return self.stream.write(packets)

    cdef Job _take_unsent(self):
        """The first that is unsent is so no more, or goes elsewhere."""
        cdef Job job = self.first_unsent
        self.first_unsent = job.next_pending
        job.next_pending = None
        if self.first_unsent is None:
            self.last_unsent = None
        self.unsent_count -= 1
        return job

    cdef int _append_pending(self, Job job) except -1:
        if self.newest_pending is None:
            self.oldest_pending = job
        else:
            self.newest_pending.next_pending = job
        self.newest_pending = job
        return 0

    cdef int _flush(self, Py_ssize_t gathered_bytes) except -1:
        return self.stream.send(gathered, gathered_bytes) if gathered_bytes else 0

    cdef int _write(self, Job job) except -1:
        """Hand over a packet that is too large to be copied."""
        return self.stream.write_all([job.packet, job.workload])

    # Reading.

    cdef int _packet(self) except -1:
        if self.large_job is None:
            return self._take_packet()
        # This is the large packet that was gathered: from here on its bytes count as the job's result.
        self.large_job = None
        self.budget.begin_move()
        try:
            self.budget.release(&self.large_held)
            return self._take_packet()
        finally:
            self.budget.end_move()

    cdef int _take_packet(self) except -1:
        cdef PacketReader reader = self.reader
        cdef int packet_type = reader.type
        if packet_type == PacketType.JOB_CREATED:
            self._job_created(reader.starts[0], reader.lengths[0])
        elif is_work(packet_type):
            self.table.work(reader, reader.argument(0), False)
        elif packet_type == PacketType.STATUS_RES:
            reason = self.questions.answer(reader)
            if reason is not None:
                self.close_for(reason)
        elif packet_type == PacketType.ERROR:
            self._error(reader.argument(0)[:MAX_ERROR_CODE_BYTES], reader.argument(1)[:MAX_REASON_BYTES])
        elif packet_type == PacketType.OPTION_RES:
            self.option_due = False
            self.sends_exceptions = True
            self.option_answer = "it has answered OPTION_REQ"
            self.come_up()
        elif packet_type == PacketType.ECHO_RES:
            self._echoed()
        else:
            self.close_for(f"the job server sent an unexpected {type_name(packet_type)}")
        return 0

    cdef int _large_packet(self) except -1:
        """Decide by the handle whether a large packet is worth its memory; skipping is by length and costs none."""
        cdef PacketReader reader = self.reader
        cdef int packet_type = reader.type
        cdef bytes handle
        cdef Job original
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
        if not is_work(packet_type):
            self.close_for(f"the job server sent a {type_name(packet_type)} of {reader.body_bytes} bytes")
            return 0
        handle = reader.argument(0)
        if packet_type != PacketType.WORK_STATUS:
            original = self.table.keeper_of(handle, reader.body_bytes - PyBytes_GET_SIZE(handle) - 1)
            if original is not None:
                if self.budget.resize(&self.large_held, account_for(RESULTS, reader.body_bytes), reader.body_bytes):
                    self.large_job = original
                    reader.keep()
                    return 0
                original.over_budget = True
                self.budget.counts.budget_refused += 1
        self.table.work(reader, handle, True)
        reader.skip()
        return 0

    cdef int _drop_large(self) except -1:
        """Nobody waits for the large packet that is being gathered any more: it is skipped from here on."""
        cdef bytes handle = self.large_job.handle
        self.large_job = None
        self.budget.release(&self.large_held)
        self.table.work(self.reader, handle, True)
        self.reader.skip()
        return 0

    cdef int _echoed(self) except -1:
        if self.option_due and self.option_answer is None:
            self.option_answer = "it does not answer OPTION_REQ"
        return self.come_up()

    cdef int _error(self, bytes code, bytes text) except -1:
        """An ERROR belongs to OPTION_REQ, if that is the oldest without an answer, or to a submission."""
        if self.option_due and (not self.is_up() or self.oldest_pending is None or code.upper() == UNKNOWN_OPTION):
            # Behind ECHO_RES it is out of order; where that can be told it is no submission's.
            self.option_due = False
            self.option_answer = f"it answers OPTION_REQ with ERROR {printable(code)}: {printable(text)}"
            return 0
        if not self.is_up():
            return self.close_for(f"the job server answers ECHO_REQ with ERROR {printable(code)}: {printable(text)}")
        if self.oldest_pending is None and self.questions.due:
            return self.questions.refuse(
                f"the job server answers GET_STATUS with ERROR {printable(code)}: {printable(text)}"
            )
        return self._job_refused(code, text)

    cdef Job _take_pending(self, str packet_name):
        cdef Job job = self.oldest_pending
        if job is None:
            self.close_for(f"the job server sent {packet_name} without a pending submission")
            return None
        self.oldest_pending = job.next_pending
        job.next_pending = None
        if self.oldest_pending is None:
            self.newest_pending = None
        return job

    cdef int _job_created(self, const char* handle, Py_ssize_t handle_bytes) except -1:
        cdef Job job = self._take_pending("JOB_CREATED")
        if job is None:
            return 0
        if not is_handle(handle, handle_bytes):
            # It goes into a response's head, among other things.
            self.close_for("the job server sent a malformed handle")
            drop_packet(job, self.budget)
            self._settle(job, True)
            return job.tell_lost()
        drop_packet(job, self.budget)
        if job.background:
            if job.identity is not None:
                self.table.unpin(job)
            self._settle(job, True)
            return job.tell_created(handle, handle_bytes)
        job.handle = PyBytes_FromStringAndSize(handle, handle_bytes)
        job.admin = self._admin()
        return self.table.add(job)

    cdef int _job_refused(self, bytes code, bytes text) except -1:
        cdef Job job = self._take_pending("ERROR")
        if job is None:
            return 0
        self.table.unpin(job)
        self._settle(job, False)
        if job.is_awaited() and code == QUEUE_ERROR:
            job.refused_by |= self.server_bit
            if self._move(job):
                return 0
        drop_packet(job, self.budget)
        return job.tell_refused(code, text)

    cdef bint _move(self, Job job) except -1:
        """Whether another connection has the job now, which is queued nowhere."""
        if job.state != JobState.UNSENT:
            job.change(JobState.UNSENT)
        self.outstanding -= 1
        if self.router.move(job):
            return True
        self.outstanding += 1
        return False

    # Ending.

    cdef int end_all(self) except -1:
        cdef Job job, following
        self.large_job = None
        self.budget.release(&self.large_held)
        unsent = [self._take_unsent() for _ in range(self.unsent_count)]
        self.unsent_bytes = 0
        self.unsent_abandoned = 0
        job, self.oldest_pending, self.newest_pending = self.oldest_pending, None, None
        while job is not None:
            following = job.next_pending
            job.next_pending = None
            drop_packet(job, self.budget)
            self._settle(job, True)
            job.tell_lost()
            job = following
        self.table.lose_all()
        self.questions.lose_all(self.close_reason)
        for item in unsent:
            job = <Job> item
            self._settle(job, False)
            if not job.is_awaited():
                drop_packet(job, self.budget)
                continue
            if not self._move(job):
                drop_packet(job, self.budget)
                job.tell_lost()
        return 0


cdef Py_ssize_t _gather(Job job, Py_ssize_t gathered_bytes) noexcept:
    """Put the job's packet behind what was gathered; returns how much there is now."""
    cdef char* end = put_bytes(gathered + gathered_bytes, job.packet)
    if job.workload is not None:
        put_bytes(end, job.workload)
    return gathered_bytes + job.packet_bytes


cdef bint is_handle(const char* byte, Py_ssize_t handle_bytes) noexcept:
    cdef const char* end = byte + handle_bytes
    cdef unsigned long long eight
    if not 0 < end - byte <= MAX_HANDLE_BYTES:
        return False
    while end - byte >= 8:
        memcpy(&eight, byte, 8)
        # The highest bit of a byte tells: it is set in 0x80 and above, 1 more sets it in 0x7F, 0x5F more does not below 0x21.
        if (eight | eight + EACH_01 | ~(eight + EACH_5F)) & EACH_80:
            return False
        byte += 8
    while byte < end:
        if not 0x20 < byte[0] < 0x7F:
            return False
        byte += 1
    return True
