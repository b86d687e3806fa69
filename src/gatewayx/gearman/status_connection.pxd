"""What one job server knows of a job by its unique, asked over a connection of its own that is there while it is used."""

from gatewayx.core.turns cimport Turn
from gatewayx.gearman.admin cimport Cancellation, ServerStatus
from gatewayx.gearman.job cimport StatusListener
from gatewayx.gearman.packet cimport PacketReader
from gatewayx.gearman.status_questions cimport StatusQuestions
from gatewayx.gearman.upstream cimport UpstreamConnection


cdef class StatusConnection(UpstreamConnection):
    cdef PacketReader reader
    cdef StatusQuestions questions
    # Loop time of the last question, and of the last byte, or of the last question when none was due.
    cdef double used_at_s
    cdef double heard_at_s
    # Loop time of the last look at what waits.
    cdef double looked_at_s

    cdef int ask(self, bytes unique, StatusListener listener) except -1
    cdef int _take_packet(self) except -1


cdef class StatusAsker:
    cdef object loop
    cdef Turn turn
    # Of the same job server, for its text connection.
    cdef ServerStatus status
    # Called with this object to have a StatusConnection made: a Keeper's keep_asking().
    cdef object connect
    # The one that is up, or the last one that was; None before the first.
    cdef StatusConnection connection
    # (unique, listener) pairs that wait for a connection: at most MAX_PENDING_STATUS. None while none is being made.
    cdef list waiting

    cdef int ask(self, bytes unique, StatusListener listener) except -1
    # See Pool.cancel_background.
    cdef str cancel(self, unsigned int life, bytes handle, bytes unique, StatusListener listener)


cdef class BackgroundCancellation(Cancellation):
    """A background job that is to be taken out of the queue; then it is asked for by its unique."""
    cdef StatusAsker asker
    cdef bytes unique
    cdef StatusListener listener
