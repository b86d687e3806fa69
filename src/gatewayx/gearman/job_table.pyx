"""The jobs that a job server has created over one connection.

Theory of operation. From its JOB_CREATED on a job is known by its handle, which is unique on one connection only.
Submissions with one function and unique on one connection are merged by the job server: each gets a JOB_CREATED with
the same handle, and every WORK_* packet comes once per JOB_CREATED. The Job that got the handle before the others, the
original, stands in `jobs` for all of them. One copy of a packet is told to every listener, the others are let pass.

A job that nobody waits for any more stays in `jobs` until its end, so that its copies are still counted right; its data
is not kept. Results count in the byte budget until their listeners were told. Of a streamed job nothing is gathered: each
packet is its listener's.
"""

from collections import OrderedDict

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

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
        self.abandoned = OrderedDict()
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
        cdef Job original = <Job> self.jobs.setdefault(job.handle, job)
        if original.state == JobState.ENDED:
            # Copies of its last packet are owed no more: the handle is another job's now.
            self._forget(original)
            self.jobs[job.handle] = original = job
        if original is job:
            job.copies = 1
            if not job.is_awaited():
                self._count_abandoned(job)
                return self._cancel(job)
            job.waiting = 1
            return _tell_created(job)
        original.copies += 1
        if not job.is_awaited():
            return self.unpin(job)
        if original.incomplete:
            self.unpin(job)
            job.change(JobState.CREATED)
            return job.tell_lost()
        if original.merged is None:
            original.merged = {}
        original.merged[job] = None
        self.abandoned.pop(job.handle, None)
        original.waiting += 1
        return _tell_created(job)

    cdef Job leave(self, Job job):
        cdef Job original = <Job> self.jobs.get(job.handle)
        if original is None:
            return None
        if original.merged is not None and job in original.merged:
            # As many copies are owed as before; for the job itself nothing is kept.
            del original.merged[job]
            self.unpin(job)
        original.waiting -= 1
        if original.waiting != 0:
            return None
        self._count_abandoned(original)
        self._cancel(original)
        return original

    cdef Job keeper_of(self, bytes handle, Py_ssize_t data_bytes):
        cdef Job original = <Job> self.jobs.get(handle)
        if (
            original is not None
            and original.waiting > 0
            and original.copies_seen == 0
            and original.state != JobState.ENDED
            and original.result_bytes + data_bytes <= self.max_result_bytes
        ):
            return original
        return None

    cdef int work(self, PacketReader reader, bytes handle, bint skipped) except -1:
        cdef int packet_type = reader.type
        cdef bint last = ends_job(packet_type)
        # The last packet's entry is put back if copies of it are owed.
        cdef Job original = <Job> (self.jobs.pop(handle, None) if last else self.jobs.get(handle))
        cdef bytes data
        cdef Py_ssize_t room_bytes
        if original is None:
            self.budget.counts.dropped_packets += 1
            return 0
        if original.copies > 1:
            if last:
                self.jobs[handle] = original
            original.copies_seen += 1
            if original.copies_seen > 1:
                if original.copies_seen >= original.copies:
                    original.copies_seen = 0
                    if original.state == JobState.ENDED:
                        self._forget(original)
                return 0
        if last:
            if original.copies == 1:
                self._forgotten(original)
            if original.state == JobState.ABANDONED:
                original.change(JobState.ENDED)
        if original.waiting == 0:
            self.budget.counts.dropped_packets += 1
            if original.state == JobState.ENDED:
                self.abandoned.pop(handle, None)
            elif packet_type == PacketType.WORK_DATA:
                original.incomplete = True
            return 0
        if skipped:
            if packet_type == PacketType.WORK_DATA:
                original.incomplete = True
            if packet_type != PacketType.WORK_WARNING and packet_type != PacketType.WORK_STATUS:
                self._tell_all_too_large(original, packet_type)
            return 0
        if packet_type == PacketType.WORK_STATUS:
            return self._tell_all(original, packet_type, reader.argument(1), reader.argument(2))
        if packet_type == PacketType.WORK_FAIL:
            data = reader.argument(1)[:MAX_REASON_BYTES] if reader.argument_count > 1 else b""
        else:
            data = reader.argument(1)
        if original.streamed:
            # What comes is its listener's to hold; the bound is of each packet alone.
            if PyBytes_GET_SIZE(data) > self.max_result_bytes:
                return self._tell_all_too_large(original, packet_type)
        elif packet_type == PacketType.WORK_DATA or packet_type == PacketType.WORK_COMPLETE:
            room_bytes = PyBytes_GET_SIZE(data)
            original.result_bytes += room_bytes
            if original.result_bytes > self.max_result_bytes:
                return self._tell_all_too_large(original, packet_type)
            if packet_type == PacketType.WORK_DATA or original.gathered is not None:
                # A bytearray that grows takes an eighth more than it needs.
                room_bytes += room_bytes // 8
            if not self._hold_result(original, room_bytes):
                original.over_budget = True
                self.budget.counts.budget_refused += 1
                return self._tell_all_too_large(original, packet_type)
            if packet_type == PacketType.WORK_DATA and original.gathered is None:
                original.gathered = bytearray()
            if original.gathered is not None:
                original.gathered.extend(data)
        return self._tell_all(original, packet_type, data, None)

    cdef int _tell_all(self, Job original, int packet_type, bytes data, bytes denominator) except -1:
        if not ends_job(packet_type):
            return self._tell_each(original, packet_type, data, denominator)
        original.waiting = 0
        self.budget.begin_move()
        try:
            # From here on the result counts as its listeners' answers.
            self.budget.release(&original.result_held)
            return self._tell_each(original, packet_type, data, denominator)
        finally:
            self.budget.end_move()

    cdef int _tell_each(self, Job original, int packet_type, bytes data, bytes denominator) except -1:
        cdef list merged
        if original.merged is None:
            return original.tell(packet_type, data, denominator)
        merged = list(original.merged)
        original.tell(packet_type, data, denominator)
        for job in merged:
            (<Job> job).gathered = original.gathered
            (<Job> job).tell(packet_type, data, denominator)
        return 0

    cdef int _tell_all_too_large(self, Job original, int packet_type) except -1:
        """The result is too large with this packet, which may be the last one."""
        cdef bint ended = ends_job(packet_type)
        cdef list merged = None if original.merged is None else list(original.merged)
        original.waiting = 0
        if ended:
            self.budget.release(&original.result_held)
        else:
            self._count_abandoned(original)
        original.tell_too_large(ended)
        if merged is not None:
            for job in merged:
                (<Job> job).over_budget = original.over_budget
                (<Job> job).tell_too_large(ended)
        return 0

    cdef int _forget(self, Job original) except -1:
        """Nothing more is expected for its handle."""
        del self.jobs[original.handle]
        return self._forgotten(original)

    cdef int _forgotten(self, Job original) except -1:
        """Its handle is in `jobs` no more."""
        if self.abandoned:
            self.abandoned.pop(original.handle, None)
        if original.identity is not None:
            self.unpin(original)
        if original.merged is not None:
            for merged in original.merged:
                self.unpin(<Job> merged)
        return 0

    cdef int _count_abandoned(self, Job original) except -1:
        if original.result_bytes > 0:
            original.incomplete = True
            original.gathered = None
            self.budget.release(&original.result_held)
        self.abandoned[original.handle] = None
        if len(self.abandoned) > MAX_ABANDONED_JOBS:
            self._forget(<Job> self.jobs[next(iter(self.abandoned))])
        return 0

    cdef int _cancel(self, Job original) except -1:
        """Nobody waits for the job: no worker need begin it."""
        if original.cancellable and original.copies == 1 and original.admin is not None:
            return original.admin.cancel(original)
        return 0

    cdef bint _hold_result(self, Job original, Py_ssize_t size_bytes) noexcept:
        """Whether the budget has room for so many more bytes of the result."""
        cdef long long held_bytes = original.result_held.size_bytes + size_bytes
        if original.result_bytes <= SMALL_RESULT_BYTES:
            self.budget.hold(&original.result_held, account_for(RESULTS, held_bytes), held_bytes)
            return True
        return self.budget.resize(&original.result_held, account_for(RESULTS, held_bytes), held_bytes)

    cdef int lose_all(self) except -1:
        cdef dict jobs = self.jobs
        cdef Job original
        self.jobs = {}
        self.pins = {}
        self.abandoned = OrderedDict()
        for item in jobs.values():
            original = <Job> item
            original.tell_lost()
            if original.merged is not None:
                for merged in list(original.merged):
                    (<Job> merged).tell_lost()
            self.budget.release(&original.result_held)
        return 0


cdef int _tell_created(Job job) except -1:
    return job.tell_created(PyBytes_AS_STRING(job.handle), PyBytes_GET_SIZE(job.handle))
