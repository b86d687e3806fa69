"""What one job server knows of a job by its unique, asked over a connection of its own that is there while it is used.

Theory of operation. gearmand closes the connection that asks with a unique of 64 bytes or more (libgearman-server/server.cc,
GET_STATUS_UNIQUE), and walks a hash chain for each question: neither is to touch the connections that carry jobs. The first
question has a Keeper make a connection, and waits until it is up, with those that come meanwhile; each later one leaves with
its loop turn. The Keeper looks at the connection at times, closes it when it is silent or unused, and makes none by itself:
the next question does.

What waits is told that it is lost with the connection or the attempt; nobody waits longer than two looks.
"""

import logging

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

from gatewayx.core.turns cimport Turn
from gatewayx.gearman.admin cimport AdminConnection, Cancellation, ServerStatus
from gatewayx.gearman.connection cimport is_handle
from gatewayx.gearman.job cimport MAX_ERROR_CODE_BYTES, MAX_REASON_BYTES, StatusListener, printable
from gatewayx.gearman.packet cimport MAX_UNIQUE_BYTES, PACKET, Magic, PacketReader, PacketType, pack, type_name
from gatewayx.gearman.status_questions cimport MAX_PENDING_STATUS, StatusQuestions
from gatewayx.gearman.upstream cimport UpstreamConnection

from gatewayx.gearman.errors import ProtocolError

logger = logging.getLogger("gatewayx.gearman")

cdef enum:
    # Of an answer: a unique and five numbers, or an ERROR with a text.
    MAX_ANSWER_BYTES = 16384

cdef bytes ECHO_REQ = pack(Magic.REQUEST, PacketType.ECHO_REQ, (), b"gatewayx")


@cython.final
cdef class StatusConnection(UpstreamConnection):
    """A connection for questions alone. loop: the event loop. turn: where questions are written."""

    def __init__(self, loop, Turn turn not None):
        super().__init__(loop, turn, "connection for questions")
        self.reader = PacketReader(Magic.RESPONSE, max_body_bytes=MAX_ANSWER_BYTES)
        self.questions = StatusQuestions(PacketType.GET_STATUS_UNIQUE, self, turn)
        self.used_at_s = self.looked_at_s = loop.time()

    @property
    def unanswered(self):
        """What it must answer to come up and has not, in words; None if it is not connected."""
        return None if self.stream is None else "ECHO_REQ"

    @property
    def idle_s(self):
        """For how long nothing was asked; 0 while an answer is due."""
        return self.loop.time() - self.used_at_s if self.questions.is_idle() else 0.0

    def check(self, double silence_s):
        """Close when nothing came for silence_s though an answer is due."""
        cdef double now_s = self.loop.time()
        cdef str reason = f"the job server gave no answer to GET_STATUS_UNIQUE within {silence_s:g} s"
        if self.questions.due and now_s - self.heard_at_s >= silence_s:
            self.close_for(reason)
        elif now_s - self.looked_at_s >= silence_s:
            # It sends something, and no answer.
            self.looked_at_s = now_s
            self.questions.look(reason)

    cdef int ask(self, bytes unique, StatusListener listener) except -1:
        self.used_at_s = self.loop.time()
        if not self.questions.has_room():
            return _lose(listener, "the job server has as many questions to answer as may wait")
        return self.questions.ask(self.questions.add(unique, listener))

    cdef int greet(self) except -1:
        return self.stream.write(ECHO_REQ)

    cdef int end_turn(self) except -1:
        if not self.is_up() or self.stream.closing() or self.questions.unwritten is None:
            return 0
        if not self.questions.due:
            self.heard_at_s = self.loop.time()
        return self.stream.write(self.questions.take_packets())

    cdef int received(self, const char* data, Py_ssize_t size) except -1:
        if self.is_closed():
            return 0
        self.heard_at_s = self.loop.time()
        try:
            self.reader.lend(data, size)
            while not self.is_closed() and self.reader.take() == PACKET:
                self._take_packet()
        except ProtocolError as error:
            self.close_for(str(error))
        return 0

    cdef int _take_packet(self) except -1:
        cdef PacketReader reader = self.reader
        if reader.type == PacketType.STATUS_RES_UNIQUE:
            reason = self.questions.answer(reader)
            return 0 if reason is None else self.close_for(reason)
        if reader.type == PacketType.ECHO_RES and not self.is_up():
            return self.come_up()
        if reader.type == PacketType.ERROR:
            code = printable(reader.argument(0)[:MAX_ERROR_CODE_BYTES])
            reason = f"ERROR {code}: {printable(reader.argument(1)[:MAX_REASON_BYTES])}"
            if self.questions.due:
                return self.questions.refuse(f"the job server answers GET_STATUS_UNIQUE with {reason}")
            return self.close_for(f"the job server sent {reason}")
        return self.close_for(f"the job server sent an unexpected {type_name(reader.type)}")

    cdef int end_all(self) except -1:
        return self.questions.lose_all(self.close_reason)


@cython.final
cdef class StatusAsker:
    """Asks one job server.

    loop: the event loop. turn: where questions are written. status: what its text connection has told. connect: called with
    this object when a connection is wanted; it calls came_up() or failed(), once.
    """

    def __init__(self, loop, Turn turn not None, ServerStatus status not None, connect):
        self.loop = loop
        self.turn = turn
        self.status = status
        self.connect = connect

    cdef int ask(self, bytes unique, StatusListener listener) except -1:
        if not 0 < PyBytes_GET_SIZE(unique) <= MAX_UNIQUE_BYTES or 0 in unique:
            return _lose(listener, "no job has such a unique")
        if self.connection is not None and self.connection.is_up():
            return self.connection.ask(unique, listener)
        if self.waiting is not None:
            if len(self.waiting) >= MAX_PENDING_STATUS:
                return _lose(listener, "as many questions wait for the job server as may")
            self.waiting.append((unique, listener))
            return 0
        self.waiting = [(unique, listener)]
        self.connect(self)
        return 0

    cdef str cancel(self, unsigned int life, bytes handle, bytes unique, StatusListener listener):
        cdef AdminConnection admin = self.status.connection
        cdef BackgroundCancellation cancellation
        if admin is None or not admin.is_up():
            return "the job server is not connected by text"
        if life == 0 or admin.number != life:
            return "the text connection is not the one that was up when the job was given its handle"
        if not is_handle(PyBytes_AS_STRING(handle), PyBytes_GET_SIZE(handle)):
            return "no job has such a handle"
        cancellation = BackgroundCancellation.__new__(BackgroundCancellation)
        cancellation.handle = handle
        cancellation.asker = self
        cancellation.unique = unique
        cancellation.listener = listener
        return admin.cancel_and_tell(cancellation)

    # What the keeper asks for and tells.

    def new_connection(self):
        """One that is to be connected."""
        return StatusConnection(self.loop, self.turn)

    def came_up(self, StatusConnection connection not None):
        """This one is up: what waits is asked over it."""
        if not connection.is_up():
            # It was lost before the keeper had its turn.
            return self.failed(connection.close_reason)
        waiting, self.waiting = self.waiting, None
        self.connection = connection
        for unique, listener in waiting or ():
            connection.ask(unique, <StatusListener> listener)

    def failed(self, str reason not None):
        """None comes up: what waits is told so."""
        waiting, self.waiting = self.waiting, None
        for _, listener in waiting or ():
            _lose(<StatusListener> listener, reason)


@cython.final
cdef class BackgroundCancellation(Cancellation):
    """A background job that is to be taken out of the queue; see the .pxd."""

    cdef int answered(self, bint is_cancelled) except -1:
        return self.asker.ask(self.unique, self.listener)

    cdef int lost(self, str reason) except -1:
        return _lose(self.listener, reason)


cdef int _lose(StatusListener listener, str reason) except -1:
    """Tell it so; what it raises ends its own part only."""
    try:
        listener.status_lost(reason)
    except Exception:
        logger.exception("a listener for what a job server knows failed")
    return 0
