"""Questions to a job server for what it knows of its jobs, over one connection."""

from gatewayx.core.turns cimport Turn, TurnEnder
from gatewayx.gearman.admin cimport Cancellation
from gatewayx.gearman.job cimport StatusListener
from gatewayx.gearman.packet cimport PacketReader

cdef enum:
    # Questions over one connection that somebody waits for, and those that were written and not answered, given up or not;
    # above either, no further one is asked.
    MAX_PENDING_STATUS = 1024


cdef class StatusQuestion(Cancellation):
    """What one listener wants to know of one job, from then until it is told. As a Cancellation it is asked once the job
    server has answered to that; `handle` is what the job server is asked for, of GET_STATUS_UNIQUE the unique."""
    cdef StatusQuestions among
    # None once it was told.
    cdef StatusListener listener
    # How often the questions had been looked at when it was new.
    cdef long long looked_at


cdef class StatusQuestions:
    # GET_STATUS or GET_STATUS_UNIQUE.
    cdef int packet_type
    # The connection, which writes what take_packets() returns at the end of its turn.
    cdef TurnEnder connection
    cdef Turn turn
    # StatusQuestions whose listener is not told, the oldest first; the values are of no use.
    cdef dict untold
    # Those whose packet leaves with this loop turn; None without.
    cdef list unwritten
    # Those that were written and not answered, in that order, those that were told meanwhile included.
    cdef object due
    # How often they were looked at.
    cdef long long looks

    # One more may be asked.
    cdef bint has_room(self)
    # No answer is due, and nobody waits.
    cdef bint is_idle(self)
    # A question that is to be asked later, or by ask() at once.
    cdef StatusQuestion add(self, bytes handle, StatusListener listener)
    cdef int ask(self, StatusQuestion question) except -1
    # It will not be asked, and its listener is told nothing of it.
    cdef int forget(self, StatusQuestion question) except -1
    # The packets that are to be written now; from here on answers to them are due.
    cdef bytes take_packets(self)
    # A STATUS_RES or STATUS_RES_UNIQUE has come. Returns None, or in words why nothing that follows can be trusted.
    cdef str answer(self, PacketReader reader)
    # The oldest that is due was answered otherwise.
    cdef int refuse(self, str reason) except -1
    # Those that were there at the last look, too, are told that they are lost.
    cdef int look(self, str reason) except -1
    # The connection is gone: so are all.
    cdef int lose_all(self, str reason) except -1
    cdef int lose(self, StatusQuestion question, str reason) except -1
