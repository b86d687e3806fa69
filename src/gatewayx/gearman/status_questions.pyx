"""Questions to a job server for what it knows of its jobs, over one connection.

Theory of operation. GET_STATUS and GET_STATUS_UNIQUE are answered in their order, each with the name of the job that was
asked for, so an answer belongs to the oldest question that is due; another name breaks the order, and with it everything
that follows. A question is told once, whatever happens first: its answer, the end of the connection or of the one by which
it was to be cancelled before, or two looks without either. One that was given up stays due, as its answer may still come.

A listener's exception is logged and ends nothing but that listener's part.
"""

import logging
from collections import deque

cimport cython

from gatewayx.core.turns cimport Turn, TurnEnder
from gatewayx.gearman.admin cimport Cancellation
from gatewayx.gearman.job cimport StatusListener
from gatewayx.gearman.packet cimport Magic, PacketReader, pack, type_name

logger = logging.getLogger("gatewayx.gearman")


@cython.final
cdef class StatusQuestion(Cancellation):
    """What one listener wants to know of one job; see the .pxd."""

    cdef bint is_wanted(self):
        return self.listener is not None

    cdef int answered(self, bint is_cancelled) except -1:
        if self.listener is None:
            return 0
        try:
            self.listener.cancel_answered(is_cancelled)
        except Exception:
            logger.exception("a listener for what a job server knows failed")
        return self.among.ask(self)

    cdef int lost(self, str reason) except -1:
        return self.among.lose(self, reason)


@cython.final
cdef class StatusQuestions:
    """The questions over one connection.

    packet_type: GET_STATUS or GET_STATUS_UNIQUE. connection: the one that they are asked over, and that answers come over.
    turn: where it writes.
    """

    def __init__(self, int packet_type, TurnEnder connection not None, Turn turn not None):
        self.packet_type = packet_type
        self.connection = connection
        self.turn = turn
        self.untold = {}
        self.due = deque()

    cdef bint has_room(self):
        return len(self.untold) < MAX_PENDING_STATUS and len(self.due) < MAX_PENDING_STATUS

    cdef bint is_idle(self):
        return not self.untold and not self.due

    cdef StatusQuestion add(self, bytes handle, StatusListener listener):
        cdef StatusQuestion question = StatusQuestion.__new__(StatusQuestion)
        question.handle = handle
        question.among = self
        question.listener = listener
        question.looked_at = self.looks
        self.untold[question] = None
        return question

    cdef int ask(self, StatusQuestion question) except -1:
        if self.unwritten is None:
            self.unwritten = []
        self.unwritten.append(question)
        return self.turn.add_job_server(self.connection)

    cdef int forget(self, StatusQuestion question) except -1:
        question.listener = None
        del self.untold[question]
        return 0

    cdef bytes take_packets(self):
        cdef list questions
        questions, self.unwritten = self.unwritten, None
        self.due.extend(questions)
        return b"".join(
            [pack(Magic.REQUEST, self.packet_type, (), (<StatusQuestion> item).handle) for item in questions]
        )

    cdef str answer(self, PacketReader reader):
        cdef StatusQuestion question
        cdef StatusListener listener
        cdef unsigned int[4] numbers
        cdef int index
        cdef bint is_readable = True
        if not self.due:
            return f"the job server sent {type_name(reader.type)} without a question"
        question = <StatusQuestion> self.due.popleft()
        if reader.argument(0) != question.handle:
            return f"the job server sent {type_name(reader.type)} for another job than was asked for"
        if question.listener is None:
            return None
        for index in range(4):
            is_readable = is_readable and _read_number(
                reader.starts[index + 1], reader.lengths[index + 1], &numbers[index]
            )
        if not is_readable or numbers[0] > 1 or numbers[1] > 1:
            # It stands in its place and ends where it should: those behind it are not touched.
            self.lose(question, f"the job server sent a {type_name(reader.type)} that cannot be read")
            return None
        listener = question.listener
        self.forget(question)
        try:
            listener.status_told(numbers[0] == 1, numbers[1] == 1, numbers[2], numbers[3])
        except Exception:
            logger.exception("a listener for what a job server knows failed")
        return None

    cdef int refuse(self, str reason) except -1:
        return self.lose(<StatusQuestion> self.due.popleft(), reason)

    cdef int look(self, str reason) except -1:
        cdef StatusQuestion question
        self.looks += 1
        for item in list(self.untold):
            question = <StatusQuestion> item
            if question.looked_at + 1 >= self.looks:
                break
            self.lose(question, reason)
        return 0

    cdef int lose_all(self, str reason) except -1:
        self.unwritten = None
        self.due.clear()
        for question in list(self.untold):
            self.lose(<StatusQuestion> question, reason)
        return 0

    cdef int lose(self, StatusQuestion question, str reason) except -1:
        cdef StatusListener listener = question.listener
        if listener is None:
            return 0
        self.forget(question)
        try:
            listener.status_lost(reason)
        except Exception:
            logger.exception("a listener for what a job server knows failed")
        return 0


cdef bint _read_number(const char* start, Py_ssize_t size, unsigned int* number) noexcept:
    """Whether it is a decimal number within 32 bits; nothing at all is 0, as Perl's Gearman::Server has it."""
    cdef unsigned long long value = 0
    cdef Py_ssize_t index
    if size > 10:
        return False
    for index in range(size):
        if not c"0" <= start[index] <= c"9":
            return False
        value = value * 10 + <unsigned long long> (start[index] - c"0")
    if value > 0xFFFFFFFF:
        return False
    number[0] = <unsigned int> value
    return True
