"""An epoll descriptor of ours that the event loop watches as one of its own."""

from cpython.object cimport PyObject
from libc.stdint cimport uint32_t, uint64_t

from gatewayx.core.turns cimport Flag, Turn

cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        uint64_t u64
    cdef struct epoll_event:
        uint32_t events
        epoll_data_t data
    enum:
        EPOLLIN
        EPOLLPRI
        EPOLLOUT
        EPOLLERR
        EPOLLHUP
        EPOLLRDHUP

cdef enum:
    # Events that one call of epoll_wait() brings; the rest comes in the next.
    EVENTS_PER_CALL = 512
    # A turn asks the kernel for further events until there are none, or so often, for so many events, or for so long;
    # each time for so many at most, as their handlers are not interrupted.
    ASKS_PER_TURN = 16
    EVENTS_PER_TURN = 512
    EVENTS_PER_ASK = 64
    TURN_NS = 500_000


cdef class Polled:
    # Its place in the table of its poller; -1 while it has none.
    cdef int place
    # It stands in a line of its poller: of those that are ready though no event will tell, of those that leave (or, if
    # they listen, accept). And who is behind it in each.
    cdef Flag is_ready
    cdef Flag leaves
    cdef Polled next_ready
    cdef Polled next_leaving

    # Called with the EPOLL bits of its socket; 0 if it stood in the ready line.
    cdef int handle(self, unsigned int events) except -1
    # handle() or leave() has raised the exception that is being handled.
    cdef int failed(self) except -1
    # The turn is over in which it was told to leave: let go of the socket, and tell whoever has to know.
    cdef int left(self) except -1


# Who has a place. A place that is free again counts one generation more, and holds the number of the next free one.
cdef struct Place:
    # A reference of its own; NULL while it is free.
    PyObject* owner
    uint32_t generation
    int next_free


cdef class Poller:
    # The epoll descriptor that the loop watches: one callback of the loop for all the sockets that are ready.
    cdef readonly int descriptor
    # A timerfd in it; -1 until the first alarm.
    cdef int timer
    cdef object loop
    # As many as there were sockets at once; at most the process's open files.
    cdef Place* places
    cdef int places_made
    cdef int first_free
    # Sockets that are watched.
    cdef readonly int watched
    cdef epoll_event events[EVENTS_PER_CALL]

    # Tell the owner, which is kept alive, of every change of the socket's readiness. Below 0 with errno.
    cdef int add(self, int descriptor, Polled owner) except? -1
    # The same as long as a connection waits at a socket that listens: level-triggered.
    cdef int add_listening(self, int descriptor, Polled owner) except? -1
    # Tell the owner no more. Its descriptor is to be closed; until then it must not be duplicated.
    cdef void remove(self, Polled owner) noexcept
    # The same for a socket that stays open, or is duplicated.
    cdef void remove_open(self, int descriptor, Polled owner) noexcept
    # For the callback: let the owner of each socket that is ready handle it, of so many at most; returns how many there
    # were.
    cdef int serve(self, int most) except -1
    # Have the callback called at a time of `now_ns`: uvloop's own timers are a millisecond coarse.
    cdef int set_alarm(self, long long at_ns) noexcept
    cdef int _tell(self, int index, int count) except -1
    cdef int _watch(self, int descriptor, Polled owner, unsigned int events) except? -1
    cdef int _more_places(self) except -1


cdef class TurnPoller(Poller):
    # What is written at the end of each turn.
    cdef Turn turn
    # _resume(), bound once.
    cdef object resuming
    # A turn is due in the loop, or is under way; and whether the loop has a callback for one.
    cdef bint woken
    cdef bint queued
    # Called without arguments before the next turn that begins from then on, by now_ns(), once; None for nothing.
    cdef public object before_turn
    cdef public long long before_turn_from_ns
    # Counts the turns: a socket is read once in each.
    cdef readonly unsigned int number
    # Those that are ready though no event will tell, in the order in which they came. In a turn those are served that
    # were there when it began.
    cdef Polled first_ready
    cdef Polled last_ready
    # Those that accept at the end of the turn, and how many events have only said so.
    cdef Polled first_accepting
    cdef int accepting_events
    # Those that leave at the end of the turn.
    cdef Polled first_leaving
    cdef Polled last_leaving

    # Let it be handled in the next turn, which comes by itself.
    cdef int add_ready(self, Polled owner) except -1
    # Let it leave at the end of this turn, or of one of its own.
    cdef int add_leaving(self, Polled owner) except -1
    # Connections wait at its socket: let it leave() its line at the end of the turn, when those that leave have left.
    cdef int add_accepting(self, Polled owner) except -1
    cdef int _wake(self) except -1
    cdef int _prepare(self) except -1
    cdef int _serve_ready(self, long long ends_ns) except -1
    cdef int _gather(self, long long ends_ns) except -1
    cdef int _let_go(self) except -1
    cdef int _accept(self) except -1
