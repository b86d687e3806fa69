"""The jobs that a job server has created over one connection.

Theory of operation. From its JOB_CREATED on a job is known by its handle, which is unique on one connection only.
Submissions with one function and unique on one connection are merged by the job server: each gets a JOB_CREATED with
the same handle, and every WORK_* packet comes once per JOB_CREATED. The first Job that got the handle stands in `jobs`
for all of them; the first copy of a packet is told to every listener and the others are let pass.

A job that nobody waits for any more stays in `jobs` until its end, so that its copies are still counted right; its data
is not kept. Results count in the byte budget until their listeners were told.
"""

cimport cython
from cpython.bytes cimport PyBytes_GET_SIZE

from gatewayx.core.budget cimport RESULTS, ByteBudget, account_for
from gatewayx.gearman.job cimport MAX_REASON_BYTES, Job, JobState
from gatewayx.gearman.packet cimport PacketReader, PacketType, ends_job


@cython.final
cdef class JobTable:
    """The created jobs of one connection.

    budget: where results are counted. max_result_bytes: most bytes of one job's result.
    """

    def __init__(self, ByteBudget budget not None, Py_ssize_t max_result_bytes):
        self.budget = budget
        self.max_result_bytes = max_result_bytes
        self.jobs = {}
        self.abandoned = {}
        self.pins = {}

    cdef int pin(self, Job job) except -1:
        if job.identity is not None:
            self.pins[job.identity] = self.pins.get(job.identity, 0) + 1
        return 0

    cdef int unpin(self, Job job) except -1:
        if job.identity is not None:
            left = self.pins.get(job.identity, 0) - 1
            if left > 0:
                self.pins[job.identity] = left
            else:
                self.pins.pop(job.identity, None)
        return 0

    cdef int add(self, Job job) except -1:
        cdef Job first = <Job> self.jobs.get(job.handle)
        if first is not None and first.state == JobState.ENDED:
            # Copies of its last packet are owed no more: the handle is another job's now.
            self._forget(first)
            first = None
        if first is None:
            job.copies = 1
            self.jobs[job.handle] = job
            if not job.is_awaited():
                self._count_abandoned(job)
                return self._cancel(job)
            job.waiting = 1
            return job.tell(PacketType.JOB_CREATED, None, None)
        first.copies += 1
        if not job.is_awaited():
            return self.unpin(job)
        if first.incomplete:
            self.unpin(job)
            job.change(JobState.CREATED)
            return job.tell_lost()
        if first.merged is None:
            first.merged = {}
        first.merged[job] = None
        self.abandoned.pop(job.handle, None)
        first.waiting += 1
        return job.tell(PacketType.JOB_CREATED, None, None)

    cdef Job leave(self, Job job):
        cdef Job first = <Job> self.jobs.get(job.handle)
        if first is None:
            return None
        if first.merged is not None and job in first.merged:
            # As many copies are owed as before; for the job itself nothing is kept.
            del first.merged[job]
            self.unpin(job)
        first.waiting -= 1
        if first.waiting != 0:
            return None
        self._count_abandoned(first)
        self._cancel(first)
        return first

    cdef Job keeper_of(self, bytes handle, Py_ssize_t data_bytes):
        cdef Job first = <Job> self.jobs.get(handle)
        if (
            first is not None
            and first.waiting > 0
            and first.copies_seen == 0
            and first.state != JobState.ENDED
            and first.result_bytes + data_bytes <= self.max_result_bytes
        ):
            return first
        return None

    cdef int work(self, PacketReader reader, bytes handle, bint skipped) except -1:
        cdef Job first = <Job> self.jobs.get(handle)
        cdef int packet_type = reader.type
        cdef bytes data
        cdef Py_ssize_t room_bytes
        if first is None:
            self.dropped_packets += 1
            return 0
        if first.copies > 1:
            first.copies_seen += 1
            if first.copies_seen > 1:
                if first.copies_seen >= first.copies:
                    first.copies_seen = 0
                    if first.state == JobState.ENDED:
                        self._forget(first)
                return 0
        if ends_job(packet_type):
            if first.copies == 1:
                self._forget(first)
            if first.state == JobState.ABANDONED:
                first.change(JobState.ENDED)
        if first.waiting == 0:
            self.dropped_packets += 1
            if first.state == JobState.ENDED:
                self.abandoned.pop(handle, None)
            elif packet_type == PacketType.WORK_DATA:
                first.incomplete = True
            return 0
        if skipped:
            if packet_type == PacketType.WORK_DATA:
                first.incomplete = True
            if packet_type != PacketType.WORK_WARNING and packet_type != PacketType.WORK_STATUS:
                self._tell_all_too_large(first, packet_type)
            return 0
        if packet_type == PacketType.WORK_STATUS:
            return self._tell_all(first, packet_type, reader.argument(1), reader.argument(2))
        if packet_type == PacketType.WORK_FAIL:
            data = reader.argument(1)[:MAX_REASON_BYTES] if reader.argument_count > 1 else b""
        else:
            data = reader.argument(1)
        if packet_type == PacketType.WORK_DATA or packet_type == PacketType.WORK_COMPLETE:
            room_bytes = PyBytes_GET_SIZE(data)
            first.result_bytes += room_bytes
            if first.result_bytes > self.max_result_bytes:
                return self._tell_all_too_large(first, packet_type)
            if packet_type == PacketType.WORK_DATA or first.gathered is not None:
                # A bytearray that grows takes an eighth more than it needs.
                room_bytes += room_bytes // 8
            if not self._hold_result(first, room_bytes):
                first.over_budget = True
                self.budget.counts.budget_refused += 1
                return self._tell_all_too_large(first, packet_type)
            if packet_type == PacketType.WORK_DATA and first.gathered is None:
                first.gathered = bytearray()
            if first.gathered is not None:
                first.gathered.extend(data)
        return self._tell_all(first, packet_type, data, None)

    cdef int _tell_all(self, Job first, int packet_type, bytes data, bytes denominator) except -1:
        cdef list merged = None if first.merged is None else list(first.merged)
        if ends_job(packet_type):
            first.waiting = 0
            # From here on the result counts as its listeners' answers.
            self.budget.release(&first.result_held)
        first.tell(packet_type, data, denominator)
        if merged is not None:
            for job in merged:
                (<Job> job).gathered = first.gathered
                (<Job> job).tell(packet_type, data, denominator)
        return 0

    cdef int _tell_all_too_large(self, Job first, int packet_type) except -1:
        """The result is too large with this packet, which may be the last one."""
        cdef bint ended = ends_job(packet_type)
        cdef list merged = None if first.merged is None else list(first.merged)
        first.waiting = 0
        if ended:
            self.budget.release(&first.result_held)
        else:
            self._count_abandoned(first)
        first.tell_too_large(ended)
        if merged is not None:
            for job in merged:
                (<Job> job).over_budget = first.over_budget
                (<Job> job).tell_too_large(ended)
        return 0

    cdef int _forget(self, Job first) except -1:
        """Nothing more is expected for its handle."""
        del self.jobs[first.handle]
        if self.abandoned:
            self.abandoned.pop(first.handle, None)
        self.unpin(first)
        if first.merged is not None:
            for merged in first.merged:
                self.unpin(<Job> merged)
        return 0

    cdef int _count_abandoned(self, Job first) except -1:
        if first.result_bytes > 0:
            first.incomplete = True
            first.gathered = None
            self.budget.release(&first.result_held)
        self.abandoned[first.handle] = None
        if len(self.abandoned) > MAX_ABANDONED_JOBS:
            self._forget(<Job> self.jobs[next(iter(self.abandoned))])
        return 0

    cdef int _cancel(self, Job first) except -1:
        """Nobody waits for the job: no worker need begin it."""
        if first.cancellable and first.copies == 1 and first.admin is not None:
            return first.admin.cancel(first)
        return 0

    cdef bint _hold_result(self, Job first, Py_ssize_t size_bytes) noexcept:
        """Whether the budget has room for so many more bytes of the result."""
        cdef long long held_bytes = first.result_held.size_bytes + size_bytes
        if first.result_bytes <= SMALL_RESULT_BYTES:
            self.budget.hold(&first.result_held, account_for(RESULTS, held_bytes), held_bytes)
            return True
        return self.budget.resize(&first.result_held, account_for(RESULTS, held_bytes), held_bytes)

    cdef int lose_all(self) except -1:
        cdef dict jobs = self.jobs
        cdef Job first
        self.jobs = {}
        self.pins = {}
        self.abandoned = {}
        for item in jobs.values():
            first = <Job> item
            first.tell_lost()
            if first.merged is not None:
                for merged in list(first.merged):
                    (<Job> merged).tell_lost()
            self.budget.release(&first.result_held)
        return 0
