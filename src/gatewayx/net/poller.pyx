"""An epoll descriptor of ours that the event loop watches as one of its own (epoll(7), "nested").

Theory of operation. A turn of the loop costs one callback, not one for each socket, and reading and writing is straight
system calls. Sockets are registered once, edge-triggered; those that listen are level-triggered. An event names a place
in a table and that place's generation: when the owner of a socket is removed the generation goes up, so an event that
was under way for it reaches nobody, whoever has the place or the descriptor by then.

A process that serves has one TurnPoller. A turn of it:

1. those that are ready though no event will tell: what they have to read was more than one turn's share;
2. events, and more of them, as long as there are any at once and the turn is short (ASKS_PER_TURN, EVENTS_PER_TURN,
   TURN_NS): what is gathered so is written together;
3. the end of the turn: job servers write, then clients (core/turns);
4. those that were told to leave let go of their sockets, for TURN_NS: a thousand that leave at once wait for the next turns;
5. once all of them have, those that listen accept: connections that have ended stand in nobody's way any more.
"""

import logging

cimport cython
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.errno cimport errno
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset
from posix.time cimport CLOCK_MONOTONIC, itimerspec
from posix.unistd cimport close, read

from gatewayx.core.clock cimport now_ns
from gatewayx.core.turns cimport Turn

logger = logging.getLogger("gatewayx")

cdef extern from "<sys/epoll.h>" nogil:
    int epoll_create1(int flags)
    int epoll_ctl(int descriptor, int operation, int target, epoll_event* event)
    int epoll_wait(int descriptor, epoll_event* events, int most, int timeout_ms)
    enum:
        EPOLL_CLOEXEC
        EPOLL_CTL_ADD
        EPOLL_CTL_DEL
        EPOLLET

cdef extern from "<sys/timerfd.h>" nogil:
    int timerfd_create(int clock, int flags)
    int timerfd_settime(int descriptor, int flags, const itimerspec* at, itimerspec* before)
    enum:
        TFD_NONBLOCK
        TFD_CLOEXEC
        TFD_TIMER_ABSTIME

cdef enum:
    FIRST_PLACES = 64
    NO_PLACE = -1

# What an event of the timer names: no place has so high a number.
cdef uint64_t ALARM = 0xFFFFFFFF


cdef class Polled:
    """What owns a socket that a `Poller` watches."""

    def __cinit__(self):
        self.place = NO_PLACE

    cdef int handle(self, unsigned int events) except -1:
        raise NotImplementedError

    cdef int failed(self) except -1:
        raise

    cdef int left(self) except -1:
        raise NotImplementedError


cdef class Poller:
    """An epoll descriptor that a running loop watches. callback: called without arguments when sockets are ready."""

    def __init__(self, loop, callback):
        self.timer = -1
        self.first_free = NO_PLACE
        self.descriptor = epoll_create1(EPOLL_CLOEXEC)
        if self.descriptor < 0:
            raise OSError(errno, "cannot make an epoll descriptor")
        self.loop = loop
        loop.add_reader(self.descriptor, callback)

    def __dealloc__(self):
        free(self.places)

    def close(self):
        """Watch no more."""
        cdef int number
        if self.descriptor >= 0:
            self.loop.remove_reader(self.descriptor)
            close(self.descriptor)
            self.descriptor = -1
        if self.timer >= 0:
            close(self.timer)
            self.timer = -1
        for number in range(self.places_made):
            if self.places[number].owner != NULL:
                self.remove(<Polled> self.places[number].owner)

    cdef int add(self, int descriptor, Polled owner) except? -1:
        return self._watch(descriptor, owner, EPOLLIN | EPOLLPRI | EPOLLOUT | EPOLLRDHUP | EPOLLET)

    cdef int add_listening(self, int descriptor, Polled owner) except? -1:
        return self._watch(descriptor, owner, EPOLLIN)

    cdef int _watch(self, int descriptor, Polled owner, unsigned int events) except? -1:
        cdef epoll_event event
        cdef Place* place
        if self.first_free == NO_PLACE:
            self._more_places()
        place = &self.places[self.first_free]
        event.events = events
        event.data.u64 = <uint64_t> place.generation << 32 | <uint64_t> self.first_free
        if epoll_ctl(self.descriptor, EPOLL_CTL_ADD, descriptor, &event) < 0:
            return -1
        owner.place = self.first_free
        self.first_free = place.next_free
        Py_INCREF(owner)
        place.owner = <PyObject*> owner
        self.watched += 1
        return 0

    cdef int _more_places(self) except -1:
        cdef int count = max(FIRST_PLACES, 2 * self.places_made)
        cdef int number
        cdef Place* places = <Place*> realloc(self.places, count * sizeof(Place))
        if places == NULL:
            raise MemoryError
        self.places = places
        for number in range(count - 1, self.places_made - 1, -1):
            places[number].owner = NULL
            places[number].generation = 0
            places[number].next_free = self.first_free
            self.first_free = number
        self.places_made = count
        return 0

    cdef void remove(self, Polled owner) noexcept:
        cdef Place* place
        if owner.place == NO_PLACE:
            return
        place = &self.places[owner.place]
        place.owner = NULL
        place.generation += 1
        place.next_free = self.first_free
        self.first_free = owner.place
        owner.place = NO_PLACE
        self.watched -= 1
        Py_DECREF(owner)

    cdef void remove_open(self, int descriptor, Polled owner) noexcept:
        cdef epoll_event event
        if owner.place != NO_PLACE and self.descriptor >= 0:
            epoll_ctl(self.descriptor, EPOLL_CTL_DEL, descriptor, &event)
        self.remove(owner)

    cdef int serve(self, int most) except -1:
        cdef int count = epoll_wait(self.descriptor, self.events, most, 0)
        cdef int index = 0
        while index < count:
            index = self._tell(index, count)
        return max(count, 0)

    cdef int _tell(self, int index, int count) except -1:
        """Tell the owners from the event `index` on, up to the first that fails; returns what is behind that one."""
        cdef uint64_t alarms, name
        cdef Place* place
        cdef Polled owner = None
        try:
            while index < count:
                name = self.events[index].data.u64
                index += 1
                if name == ALARM:
                    read(self.timer, &alarms, sizeof(alarms))
                    continue
                place = &self.places[<uint32_t> name]
                if place.owner != NULL and place.generation == name >> 32:
                    owner = <Polled> place.owner
                    owner.handle(self.events[index - 1].events)
        except Exception:
            owner.failed()
        return index

    cdef int set_alarm(self, long long at_ns) noexcept:
        cdef itimerspec when
        cdef epoll_event event
        if self.timer < 0:
            self.timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)
            event.events = EPOLLIN
            event.data.u64 = ALARM
            if self.timer < 0 or epoll_ctl(self.descriptor, EPOLL_CTL_ADD, self.timer, &event) < 0:
                return -1
        memset(&when, 0, sizeof(when))
        when.it_value.tv_sec = at_ns // 1_000_000_000
        when.it_value.tv_nsec = at_ns % 1_000_000_000
        return timerfd_settime(self.timer, TFD_TIMER_ABSTIME, &when, NULL)


@cython.final
cdef class TurnPoller(Poller):
    """The poller of a process that serves.

    loop: the event loop. turn: what the sockets gather in a turn is written by it.
    """

    def __init__(self, loop, Turn turn not None):
        self.turn = turn
        self.resuming = self._resume
        super().__init__(loop, self._turn)

    def close(self):
        """Let go of those that leave, and watch no more."""
        while self.first_leaving is not None:
            self._let_go()
        Poller.close(self)
        self.first_ready = None
        self.last_ready = None

    cdef int add_ready(self, Polled owner) except -1:
        if owner.is_ready:
            return 0
        owner.is_ready = True
        if self.first_ready is None:
            self.first_ready = owner
        else:
            self.last_ready.next_ready = owner
        self.last_ready = owner
        return self._wake()

    cdef int add_leaving(self, Polled owner) except -1:
        if owner.leaves:
            return 0
        owner.leaves = True
        if self.first_leaving is None:
            self.first_leaving = owner
        else:
            self.last_leaving.next_leaving = owner
        self.last_leaving = owner
        return self._wake()

    cdef int _wake(self) except -1:
        if not self.woken:
            self.woken = True
            self.queued = True
            self.loop.call_soon(self.resuming)
        return 0

    def _resume(self):
        self.queued = False
        self._turn()

    def _turn(self):
        if self.descriptor < 0:
            # It was closed when this turn was due already.
            return
        cdef long long began_ns = now_ns()
        if self.before_turn is not None and began_ns >= self.before_turn_from_ns:
            self._prepare()
            began_ns = now_ns()
        cdef long long ends_ns = began_ns + TURN_NS
        # Whoever wants a turn now is in this one.
        self.woken = True
        self.number += 1
        self.turn.begin(began_ns)
        try:
            self._serve_ready(ends_ns)
            self._gather(ends_ns)
        finally:
            self.turn.end()
            self._let_go()
            if self.first_leaving is None:
                self._accept()
            self.turn.over()
            # An event may have begun this turn before the callback that the loop has for it.
            self.woken = self.queued
            if self.first_ready is not None or self.first_leaving is not None:
                self._wake()

    cdef int _prepare(self) except -1:
        before_turn, self.before_turn = self.before_turn, None
        try:
            before_turn()
        except Exception:
            logger.exception("what is done before a turn failed")
        return 0

    cdef int _serve_ready(self, long long ends_ns) except -1:
        cdef Polled owner = self.first_ready
        cdef Polled last = self.last_ready
        cdef Polled following = None
        self.first_ready = None
        self.last_ready = None
        while owner is not None:
            if now_ns() >= ends_ns and following is not None:
                # The rest is first in the next turn.
                last.next_ready = self.first_ready
                if self.last_ready is None:
                    self.last_ready = last
                self.first_ready = owner
                return 0
            following = owner.next_ready
            owner.next_ready = None
            owner.is_ready = False
            try:
                owner.handle(0)
            except Exception:
                owner.failed()
            owner = following
        return 0

    cdef int _gather(self, long long ends_ns) except -1:
        """Serve what is ready, and what has become so meanwhile, within the bounds of a turn."""
        cdef int asks = 0
        cdef int events = 0
        cdef int here
        while True:
            self.accepting_events = 0
            here = self.serve(EVENTS_PER_ASK)
            events += here
            asks += 1
            # A socket that listens is told of again until it has accepted, which is not before the turn's end.
            if here == self.accepting_events:
                return 0
            self.turn.moment_ns = now_ns()
            if asks >= ASKS_PER_TURN or events + EVENTS_PER_ASK > EVENTS_PER_TURN or self.turn.moment_ns >= ends_ns:
                return 0

    cdef int add_accepting(self, Polled owner) except -1:
        self.accepting_events += 1
        if not owner.leaves:
            owner.leaves = True
            owner.next_leaving = self.first_accepting
            self.first_accepting = owner
        return 0

    cdef int _accept(self) except -1:
        cdef Polled owner = self.first_accepting
        while owner is not None:
            self.first_accepting = owner.next_leaving
            owner.next_leaving = None
            owner.leaves = False
            try:
                owner.left()
            except Exception:
                owner.failed()
            owner = self.first_accepting
        return 0

    cdef int _let_go(self) except -1:
        cdef Polled owner = self.first_leaving
        cdef long long ends_ns = 0 if owner is None else now_ns() + TURN_NS
        while owner is not None:
            self.first_leaving = owner.next_leaving
            if self.first_leaving is None:
                self.last_leaving = None
            owner.next_leaving = None
            owner.leaves = False
            self.remove(owner)
            try:
                owner.left()
            except Exception:
                logger.exception("the end of a connection could not be told")
            owner = self.first_leaving
            if owner is not None and now_ns() >= ends_ns:
                return 0
        return 0
