"""A gateway without sockets and clocks: a loop that turns when it is told, and streams that only take notes."""

from __future__ import annotations

import asyncio
import enum
import logging
from collections import deque
from collections.abc import Coroutine

from gatewayx.embedded import encode
from gatewayx.gearman.errors import ProtocolError
from gatewayx.gearman.packet import Magic, PacketReader, PacketType, Taken
from gatewayx.net.dialing import Dialer
from gatewayx.net.names import NumericHost
from gatewayx.net.stream import Stream, StreamOwner

# A loop that has not come to rest after so many turns never does.
MAX_TURNS = 2000
FOREGROUND_TYPES = frozenset({PacketType.SUBMIT_JOB, PacketType.SUBMIT_JOB_LOW, PacketType.SUBMIT_JOB_HIGH})
# Types of packets from which a response learns how its job has ended.
END_TYPES = frozenset({PacketType.WORK_COMPLETE, PacketType.WORK_FAIL, PacketType.WORK_EXCEPTION})
WORK_TYPES = END_TYPES | {PacketType.WORK_DATA, PacketType.WORK_STATUS, PacketType.WORK_WARNING}
# The reader of what a job server has sent keeps packets up to this; the gateway may keep none that is larger.
MAX_KEPT_BYTES = 1 << 20
WRITE_LIMIT_DIVISOR = 32
# What may stand behind a name in these counts with its first bytes, however much of it is to come.
REASON_TYPES = frozenset({PacketType.JOB_CREATED, PacketType.WORK_FAIL, PacketType.ERROR, PacketType.OPTION_RES})
MAX_REASON_BYTES = 400


class Loop(asyncio.BaseEventLoop):
    """asyncio's own loop, whose time passes only by `now_s` and which waits for nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1000.0
        # What nobody handled; must stay empty.
        self.failures: list[dict[str, object]] = []
        self._selector = self

    def select(self, timeout_s: float | None) -> list[object]:
        """asyncio's selector: nothing ever comes by itself."""
        return []

    def _process_events(self, events: list[object]) -> None:
        """asyncio's base loop: no events."""

    def time(self) -> float:
        """asyncio."""
        return self.now_s

    def call_exception_handler(self, context: dict[str, object]) -> None:
        """asyncio."""
        self.failures.append(context)

    def turn(self) -> None:
        """Run what is ready, and what that makes ready not."""
        # As run_forever(), without what takes most of its time.
        asyncio._set_running_loop(self)
        try:
            self._run_once()
        finally:
            asyncio._set_running_loop(None)

    def settle(self) -> None:
        """Run until nothing is ready."""
        for _ in range(MAX_TURNS):
            self.turn()
            if not self._ready:
                return
        raise AssertionError("the loop does not come to rest")

    def run(self, work: Coroutine[object, object, object]) -> object:
        """The result of a coroutine that needs no time to pass."""
        task = self.create_task(work)
        self.settle()
        assert task.done(), "a coroutine waits for what never comes"
        return task.result()


class FakeStream(Stream):
    """What a connection writes to: as with sockets, the kernel takes at once what it has room for, and the rest waits.

    owner: the connection that stands on it, told once more than write_high_bytes wait. abort() drops what waits;
    close() and write_eof() take effect once it has left. As with sockets, a write to a closed one raises, and so does
    one after write_eof().
    """

    def __init__(self, loop: Loop, owner: StreamOwner, write_high_bytes: int = 0) -> None:
        self.loop = loop
        self.owner = owner
        self.host = "127.0.0.1"
        # All that was written; the kernel has taken taken_bytes of it for the peer, and drops nothing of that.
        self.written = bytearray()
        self.taken_bytes = 0
        # What the kernel still takes; None while the peer reads.
        self.room_bytes: int | None = None
        self.high_bytes = write_high_bytes
        self.told_to_pause = False
        self.reads = True
        # The peer has closed its sending side, and the owner is not told so yet since it reads no more.
        self.eof_waits = False
        self.closed = False
        self.wrote_eof = False
        self.gone = False
        # When the kernel last took something, or something began to wait.
        self.moved_at_s = loop.now_s
        # How long nothing had moved when something that waited was dropped; None if nothing was.
        self.dropped_after_s: float | None = None

    # What the owner calls.

    def write(self, data: bytes) -> int:
        """Stream."""
        return self.write_all([data])

    def write_all(self, pieces: list[bytes]) -> int:
        """Stream."""
        if self.closed or self.wrote_eof:
            raise RuntimeError("a write to a closed stream")
        if not self.pending_bytes():
            self.moved_at_s = self.loop.now_s
        before_bytes = len(self.written)
        for data in pieces:
            self.written += data
        assert len(self.written) > before_bytes, "an empty write"
        self._push()
        if self.pending_bytes() > self.high_bytes and not self.told_to_pause:
            self.told_to_pause = True
            self.owner.pause_writing()
        return 0

    def write_eof(self) -> int:
        """Stream."""
        if self.closed:
            raise RuntimeError("write_eof() on a closed stream")
        self.wrote_eof = True
        return 0

    def pause(self) -> int:
        """Stream."""
        if self.closed:
            raise RuntimeError("pause() on a closed stream")
        self.reads = False
        return 0

    def resume(self) -> int:
        """Stream."""
        if self.closed:
            raise RuntimeError("resume() on a closed stream")
        self.reads = True
        if self.eof_waits:
            self.loop.call_soon(self.receive_eof)
        return 0

    def close(self) -> int:
        """Stream."""
        if not self.closed:
            self.closed = True
            if not self.pending_bytes():
                self.loop.call_soon(self.lose, None)
        return 0

    def abort(self) -> int:
        """Stream."""
        self._drop()
        self.closed = True
        self.loop.call_soon(self.lose, None)
        return 0

    def closing(self) -> bool:
        """Stream."""
        return self.closed

    def pending_bytes(self) -> int:
        """Stream: what was written and not taken."""
        return 0 if self.dropped_after_s is not None else len(self.written) - self.taken_bytes

    def dropped_bytes(self) -> int:
        """Stream: what was written and never will be taken."""
        return len(self.written) - self.taken_bytes - self.pending_bytes()

    def unconfirmed_bytes(self) -> int:
        """Stream: the peer's kernel confirms at once."""
        return 0

    def incoming_bytes(self) -> int:
        """Stream: what comes while nobody reads is not sent yet."""
        return 0

    def peer(self) -> tuple[str, int]:
        """Stream."""
        return (self.host, 12345)

    # What happens at the other side.

    def open(self) -> None:
        """The connection is there."""
        self.owner.opened(self)

    def _push(self) -> None:
        """The kernel takes what it has room for."""
        size_bytes = self.give(self.pending_bytes())
        if not size_bytes:
            return
        self.taken_bytes += size_bytes
        self.moved_at_s = self.loop.now_s
        self.took(bytes(self.written[self.taken_bytes - size_bytes : self.taken_bytes]))
        if self.told_to_pause and self.pending_bytes() <= self.high_bytes // 4 and not self.gone:
            self.told_to_pause = False
            self.owner.resume_writing()
        if self.closed and not self.pending_bytes():
            self.loop.call_soon(self.lose, None)

    def give(self, size_bytes: int) -> int:
        """How many of the next so many bytes the kernel takes now."""
        if self.room_bytes is not None:
            size_bytes = min(size_bytes, self.room_bytes)
            self.room_bytes -= size_bytes
        return size_bytes

    def took(self, data: bytes) -> None:
        """For the other side."""

    def stop_taking(self, room_bytes: int) -> None:
        """The peer reads no more; the kernel takes so many bytes until its buffers are full."""
        self.room_bytes = room_bytes
        self._push()

    def take(self, size_bytes: int | None = None) -> None:
        """The peer reads so many bytes; None for all, and whatever comes."""
        if size_bytes is None or self.room_bytes is None:
            self.room_bytes = None
        else:
            self.room_bytes += size_bytes
        self._push()

    def lose(self, error: Exception | None) -> None:
        """The connection is gone."""
        self._drop()
        self.closed = True
        if not self.gone:
            self.gone = True
            self.owner.lost(error)

    def _drop(self) -> None:
        if self.pending_bytes():
            self.dropped_after_s = self.loop.now_s - self.moved_at_s

    def receive(self, data: bytes) -> None:
        """The peer has sent bytes."""
        if not self.closed:
            self.owner.receive(data)

    def receive_eof(self) -> None:
        """The peer has closed its sending side: the stream closes behind what was written, unless the owner goes on.

        An owner that reads no more is told that there is a hang-up, and of the end once it reads again.
        """
        if self.closed:
            return
        if not self.reads:
            if not self.eof_waits:
                self.eof_waits = True
                self.owner.hung_up()
            return
        self.eof_waits = False
        if not self.owner.ended():
            self.close()


def merged_by(submission: tuple[int, bytes, bytes, bytes]) -> tuple[bytes, ...] | None:
    """What jobs must have in common that gearmand merges; None for one that it never does."""
    _, function, unique, workload = submission
    if unique == b"-":
        return (function, unique, workload) if workload else None
    return (function, unique) if unique else None


class Job:
    """A job at the scripted job server. copies: how many foreground submits share it."""

    def __init__(self, handle: bytes, key: object, copies: int) -> None:
        self.handle = handle
        self.key = key
        self.copies = copies


class OptionAnswer(enum.Enum):
    """What a job server answers to OPTION_REQ, which others than gearmand need not know."""

    TAKEN = enum.auto()
    ERROR = enum.auto()
    NONE = enum.auto()
    CLOSED = enum.auto()


class ToldJob:
    """A job as the gateway must understand the packets that came: copies of each are counted as gearmand sends them."""

    def __init__(self) -> None:
        self.uniques: list[bytes] = []
        self.data = b""
        # Copies of the packet that is coming which have come.
        self.seen = 0
        self.ended = False


class Told:
    """What the bytes that the gateway got over one connection say, whoever made them and whatever he meant by them."""

    def __init__(self, server: JobServer) -> None:
        self.server = server
        self.reader = PacketReader(Magic.RESPONSE, announce_large=True)
        # Submissions that were written and have no answer, in the order in which they are answered.
        self.unanswered: deque[tuple[int, bytes, bytes, bytes]] = deque()
        # Jobs of which the gateway must still expect packets, by handle.
        self.jobs: dict[bytes, ToldJob] = {}

    @property
    def expects(self) -> int:
        """Most jobs and pins that the gateway may know of."""
        return len(self.unanswered) + sum(len(job.uniques) for job in self.jobs.values())

    def feed(self, data: bytes) -> None:
        """Bytes have come; what is no Gearman ends the connection."""
        reader = self.reader
        try:
            reader.feed(data)
            while (taken := reader.take()) != Taken.NEED_MORE:
                if taken == Taken.PACKET:
                    self._packet(reader.type, [reader.argument(index) for index in range(reader.argument_count)])
                elif reader.type in REASON_TYPES:
                    reader.keep_start(MAX_REASON_BYTES)
                elif reader.body_bytes <= MAX_KEPT_BYTES:
                    reader.keep()
                else:
                    reader.skip()
        except ProtocolError:
            return

    def _packet(self, packet_type: int, arguments: list[bytes]) -> None:
        if packet_type == PacketType.JOB_CREATED and self.unanswered:
            self._created(arguments[0])
        elif packet_type == PacketType.ERROR and self.unanswered:
            self.unanswered.popleft()
        elif packet_type in WORK_TYPES:
            self._work(packet_type, arguments[0], arguments[1] if len(arguments) > 1 else b"")

    def _created(self, handle: bytes) -> None:
        packet_type, _, unique, _ = self.unanswered.popleft()
        self.server.accepted.add(unique)
        if packet_type not in FOREGROUND_TYPES:
            self.server.told(handle, unique, PacketType.JOB_CREATED, b"")
            return
        job = self.jobs.get(handle)
        if job is None or job.ended:
            job = self.jobs[handle] = ToldJob()
        job.uniques.append(unique)

    def _work(self, packet_type: int, handle: bytes, data: bytes) -> None:
        job = self.jobs.get(handle)
        if job is None:
            return
        copies = len(job.uniques)
        job.seen += 1
        if job.seen == 1:
            if packet_type == PacketType.WORK_DATA:
                job.data += data
            elif packet_type in END_TYPES:
                job.ended = True
                result = job.data + data if packet_type == PacketType.WORK_COMPLETE else data
                for unique in job.uniques:
                    self.server.told(handle, unique, packet_type, result)
        if job.seen >= copies:
            job.seen = 0
            if job.ended:
                del self.jobs[handle]


class JobServer:
    """All connections of the gateway to its job servers, and what a script lets them answer."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.connections: list[JobServerStream] = []
        self.handle_number = 0
        # Every submission that came, in order: type, function, unique, workload.
        self.submissions: list[tuple[int, bytes, bytes, bytes]] = []
        # How the gateway was told that jobs have ended, by handle and unique: type of the packet and whole result.
        self.ends: dict[tuple[bytes, bytes], set[tuple[int, bytes]]] = {}
        # Uniques of the jobs that the gateway knows as accepted.
        self.accepted: set[bytes] = set()
        # Places of the worker processes that have submitted jobs, by what those are that are merged.
        self.submitted_by: dict[tuple[bytes, ...], set[int]] = {}
        # Ports of those that hang: they are connected to, and neither read nor answer.
        self.hanging_ports: set[int] = set()
        self.option_answer = OptionAnswer.TAKEN
        # Whether ECHO_REQ is answered.
        self.echoing = True
        # Answer all at once and by itself.
        self.automatic = False
        # Cut what is sent into pieces of so many bytes; 0 for none.
        self.cut_bytes = 0

    def submitted(self, place: int, submission: tuple[int, bytes, bytes, bytes]) -> None:
        """The worker process at a place has submitted a job."""
        self.submissions.append(submission)
        key = merged_by(submission)
        if key is not None:
            self.submitted_by.setdefault(key, set()).add(place)

    def open(self) -> list[JobServerStream]:
        """The connections for jobs that are open, to those that do not hang."""
        self.connections = [connection for connection in self.connections if not connection.closed]
        return [connection for connection in self.connections if connection.port not in self.hanging_ports]

    def told(self, handle: bytes, unique: bytes, packet_type: int, result: bytes) -> None:
        """The gateway was told that a job has ended, or for one in the background that it is queued."""
        self.ends.setdefault((handle, unique), set()).add((packet_type, result))


class PlaceDialer(Dialer):
    """Makes the connections of the worker process at a place."""

    def __init__(self, server: JobServer, place: int) -> None:
        self.server = server
        self.place = place

    async def dial(
        self, owner: StreamOwner, address: NumericHost, port: int, *, write_high_bytes: int, **more: object
    ) -> None:
        """Dialer."""
        JobServerStream(self.server.loop, owner, write_high_bytes, self.server, port, self.place).open()


class JobServerStream(FakeStream):
    """One connection of the gateway to a scripted job server."""

    def __init__(
        self, loop: Loop, owner: StreamOwner, write_high_bytes: int, server: JobServer, port: int, place: int
    ) -> None:
        # As workloads here are smaller than those that the limit is made for.
        super().__init__(loop, owner, write_high_bytes // WRITE_LIMIT_DIVISOR)
        self.server = server
        self.port = port
        self.place = place
        self.reader = PacketReader(Magic.REQUEST)
        self.told = Told(server)
        # Something else was sent than answers to what came: what comes next may be taken for a part of it.
        self.sent_garbage = False
        # Submissions without an answer, and jobs that have not ended.
        self.pending: deque[tuple[int, bytes, bytes, bytes]] = deque()
        self.jobs: list[Job] = []

    def took(self, data: bytes) -> None:
        """The job server gets bytes."""
        if self.port in self.server.hanging_ports:
            return
        if data.startswith(b"version\n"):
            self.loop.call_soon(self.receive, b"OK 1\n")
            return
        if data.startswith(b"cancel job "):
            assert data.endswith(b"\n")
            self.loop.call_soon(self.receive, b"OK\n" * data.count(b"\n"))
            return
        if data == b"status\n":
            self.loop.call_soon(self.receive, b"f\t1\t0\t1\n.\n")
            return
        if self not in self.server.connections:
            self.server.connections.append(self)
        self.reader.feed(data)
        for found in self.reader.packets():
            if found.type == PacketType.ECHO_REQ:
                if self.server.echoing:
                    self.loop.call_soon(self.send, PacketType.ECHO_RES, *found.arguments)
                continue
            if found.type == PacketType.OPTION_REQ:
                self._answer_option()
                if self.closed:
                    return
                continue
            if found.type in (PacketType.GET_STATUS, PacketType.GET_STATUS_UNIQUE):
                self._tell_status(found.type, found.arguments[0])
                continue
            assert found.type in encode.SUBMIT_TYPES, found
            submission = (int(found.type), *found.arguments)
            self.server.submitted(self.place, submission)
            self.pending.append(submission)
            self.told.unanswered.append(submission)
            if self.server.automatic:
                self.loop.call_soon(self.run_all)

    def _tell_status(self, packet_type: int, name: bytes) -> None:
        if packet_type == PacketType.GET_STATUS:
            known = any(job.handle == name for job in self.jobs)
            self.loop.call_soon(self.receive, encode.status_res(name, known, False, 0, 0))
        else:
            self.loop.call_soon(self.receive, encode.status_res_unique(name, False, False, 0, 0, 0))

    def _answer_option(self) -> None:
        if self.server.option_answer == OptionAnswer.TAKEN:
            self.loop.call_soon(self.receive, encode.option_res(b"exceptions"))
        elif self.server.option_answer == OptionAnswer.ERROR:
            self.loop.call_soon(
                self.send, PacketType.ERROR, b"UNKNOWN_OPTION", b"Server does not recognize given option"
            )
        elif self.server.option_answer == OptionAnswer.CLOSED:
            self.loop.call_soon(self.receive_eof)

    def receive(self, data: bytes) -> None:
        """The gateway gets bytes."""
        if self.port in self.server.hanging_ports:
            return
        if not self.closed:
            self.told.feed(data)
        super().receive(data)

    def send(self, packet_type: int, *arguments: bytes) -> None:
        """Send a packet, in pieces if the server cuts."""
        data = encode.packet(Magic.RESPONSE, packet_type, *arguments)
        size = self.server.cut_bytes or len(data)
        for begin in range(0, len(data), size):
            self.receive(data[begin : begin + size])

    def create(self) -> None:
        """Answer the oldest submission with JOB_CREATED; as gearmand, merge what has one function and unique."""
        submission = self.pending.popleft()
        key = merged_by(submission)
        foreground = submission[0] in FOREGROUND_TYPES
        job = next((job for job in self.jobs if job.key == key), None)
        if job is None or key is None:
            self.server.handle_number += 1
            job = Job(b"H:fuzz:%d" % self.server.handle_number, key, 0)
            self.jobs.append(job)
        job.copies += foreground
        self.send(PacketType.JOB_CREATED, job.handle)

    def refuse(self, *, full: bool) -> None:
        """Answer the oldest submission with ERROR, since its queue is full or for no reason."""
        self.pending.popleft()
        self.send(PacketType.ERROR, b"QUEUE_ERROR" if full else b"QUEUE_\xff", b"too \r\n many")

    def work(self, job: Job, packet_type: int, data: bytes) -> None:
        """Send a WORK_* packet of a job, once for each that waits."""
        if packet_type in END_TYPES:
            self.jobs.remove(job)
        arguments = [job.handle, *((b"1", b"2") if packet_type == PacketType.WORK_STATUS else (data,))]
        if packet_type == PacketType.WORK_FAIL:
            # As a worker may send it; gearmand passes it on.
            arguments = [b"\0".join(arguments)]
        for _ in range(job.copies):
            self.send(packet_type, *arguments)

    def run_all(self) -> None:
        """Create and complete all that was submitted, in order."""
        while self.pending and not self.closed:
            self.create()
        while self.jobs and not self.closed:
            job = self.jobs[0]
            self.work(job, PacketType.WORK_COMPLETE, b"result of " + job.handle)


class Failures(logging.Handler):
    """What was logged as an error: the gateway has failed, whatever its answer was."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """logging."""
        self.records.append(record)

    def __enter__(self) -> Failures:
        self.logger = logging.getLogger("gatewayx")
        self.before = (self.logger.level, self.logger.propagate)
        self.logger.setLevel(logging.ERROR)
        self.logger.propagate = False
        self.logger.addHandler(self)
        return self

    def __exit__(self, *exception: object) -> None:
        self.logger.removeHandler(self)
        self.logger.level, self.logger.propagate = self.before
        self.logger.setLevel(self.before[0])

    def check(self) -> None:
        """Fail with what was logged."""
        for record in self.records:
            if record.exc_info:
                raise AssertionError(record.getMessage()) from record.exc_info[1]
            raise AssertionError(record.getMessage())
