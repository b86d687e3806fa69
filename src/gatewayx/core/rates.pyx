"""How often each of many keys may have something: GCRA, in a table that processes share.

Of a key one time is known (GCRA, ITU-T I.371: the theoretical arrival time): when all of its burst can be had again. Whoever
takes one puts it off by an interval, and may as long as it is at most a burst of intervals away. A time that has passed is
as good as none, so an entry needs no end, and there are no tokens to be filled up.

A key has its entry in one of WAYS places, which its hash tells; the hash is keyed, so nobody can choose who meets there. A
newcomer has the place whose time is nearest, or longest past. If that is still to come its key is forgiven, so that it
may have its burst once more: it is the one of whom least is lost. Who is at the limit of a burst above one has a time
that is further away than that of anybody who asks for the first time at a rate that takes as long to come back, so strangers,
however many, do not free somebody of a rate.

Nothing is locked. A place has two words, key and time, which are never read or written as one:
- Whoever takes a place first sets its time to one that has passed, and then its key. If it is killed in between, the key that
  was there has its burst once more.
- A time has some bits of the key that it is of. One of somebody else, who has set it at the last moment, is known by them and is
  as good as one that has passed.
- A time is changed by compare-and-swap from the time by which it was decided, whose key was seen to be there after it.
- Two processes that bring in one key at once may find two places for it. The first of them is the one that counts.
So what goes wrong in these moments lets one request more pass, and what is tried in vain PATIENCE times passes as well. The
other way round there is one case: a key that takes a place, at the moment in which the one that had it asks for something,
takes over what that owes if their bits are alike, which is one time in 64. It is not refused for longer than twice its burst
lasts, and a second.
"""

cimport cython
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint64_t

from gatewayx.core.counters cimport Counters

cdef extern from *:
    """
    #include <stdint.h>
    static inline uint64_t rates_load(const uint64_t *word) { return __atomic_load_n(word, __ATOMIC_ACQUIRE); }
    static inline int rates_swap(uint64_t *word, uint64_t expected, uint64_t wanted) {
        return __atomic_compare_exchange_n(word, &expected, wanted, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
    }
    """
    uint64_t rates_load(const uint64_t* word) noexcept nogil
    bint rates_swap(uint64_t* word, uint64_t expected, uint64_t wanted) noexcept nogil

cdef enum:
    SETS = RATE_ENTRIES // WAYS
    # How often a change is tried that others are in the way of.
    PATIENCE = 64
    # Long before anything that is still to come.
    PAST_NS = 1
    # What one process takes for the time may be so much earlier than what another one does.
    MOST_EARLY_NS = 1_000_000_000

RATES_BYTES = RATE_ENTRIES // WAYS * sizeof(RateSet)


def alone(Counters counters=None):
    """The table of a process that shares it with nobody."""
    return Rates(bytearray(RATES_BYTES), Counters() if counters is None else counters)


cdef inline uint64_t _word(uint64_t key, long long time_ns) noexcept:
    return <uint64_t> time_ns << TAG_BITS | key >> (64 - TAG_BITS)


cdef inline long long _debt_ns(uint64_t key, uint64_t word, long long now_ns) noexcept:
    """How far away a time is."""
    if word & ((1 << TAG_BITS) - 1) != key >> (64 - TAG_BITS):
        return 0
    return max(0, <long long> (word >> TAG_BITS) - now_ns)


# The collector would drop the memory without releasing it; Rates are in no cycle of their own.
@cython.final
@cython.no_gc_clear
cdef class Rates:
    """Rates of a process.

    memory: a writable buffer with RATES_BYTES bytes from `offset` on, zeros at first, aligned to 64 bytes. counters: where it is
    counted when an entry is forgiven. Raises BufferError or ValueError if the memory cannot be it.
    """

    def __init__(self, memory, Counters counters not None, Py_ssize_t offset=0):
        if self.sets != NULL:
            raise ValueError("the shared memory is known already")
        PyObject_GetBuffer(memory, &self.view, PyBUF_WRITABLE)
        if offset < 0 or self.view.len - offset < <Py_ssize_t> RATES_BYTES:
            raise ValueError("the memory is too small")
        self.sets = <RateSet*> (<char*> self.view.buf + offset)
        self.counted_in = counters
        self.counts = counters.row

    def __dealloc__(self):
        PyBuffer_Release(&self.view)

    cdef long long take(self, uint64_t key, const Rate* rate, long long now_ns, long long* debt_ns) noexcept:
        cdef uint64_t* time
        cdef uint64_t word
        cdef long long debt = 0
        for _ in range(PATIENCE):
            time = self._time_of(key, &word)
            if time == NULL:
                time = self._claim(key, now_ns, &word)
                if time == NULL:
                    continue
                debt = 0
            else:
                debt = _debt_ns(key, word, now_ns)
                if debt + rate.interval_ns > rate.capacity_ns:
                    if debt > 2 * rate.capacity_ns + MOST_EARLY_NS:
                        # It was lower when this was written, and its burst is all that anybody owes.
                        rates_swap(time, word, _word(key, now_ns + rate.capacity_ns))
                        debt = rate.capacity_ns
                    if debt_ns != NULL:
                        debt_ns[0] = min(debt, rate.capacity_ns)
                    return debt + rate.interval_ns - rate.capacity_ns
            if rates_swap(time, word, _word(key, now_ns + debt + rate.interval_ns)):
                break
        if debt_ns != NULL:
            debt_ns[0] = debt + rate.interval_ns
        return 0

    cdef long long wait_ns(self, uint64_t key, const Rate* rate, long long now_ns) noexcept:
        cdef uint64_t word
        if self._time_of(key, &word) == NULL:
            return 0
        return max(0, _debt_ns(key, word, now_ns) + rate.interval_ns - rate.capacity_ns)

    cdef long long give_back(self, uint64_t key, const Rate* rate, long long now_ns) noexcept:
        cdef uint64_t* time
        cdef uint64_t word
        cdef long long debt = 0
        for _ in range(PATIENCE):
            time = self._time_of(key, &word)
            if time == NULL:
                return 0
            debt = max(0, _debt_ns(key, word, now_ns) - rate.interval_ns)
            if rates_swap(time, word, _word(key, now_ns + debt)):
                break
        return min(debt, rate.capacity_ns)

    cdef uint64_t* _time_of(self, uint64_t key, uint64_t* found) noexcept:
        """Where the time of a key is, and that; NULL if it has none."""
        cdef RateSet* place = &self.sets[key % SETS]
        cdef int way
        for way in range(WAYS):
            if rates_load(&place.keys[way]) == key:
                found[0] = rates_load(&place.times[way])
                # It may have become another's.
                if rates_load(&place.keys[way]) == key:
                    return &place.times[way]
        return NULL

    cdef uint64_t* _claim(self, uint64_t key, long long now_ns, uint64_t* found) noexcept:
        """Bring in a key: where its time is, and what stands there; NULL if another one was quicker."""
        cdef RateSet* place = &self.sets[key % SETS]
        cdef uint64_t before, word
        cdef uint64_t nearest = ~<uint64_t> 0
        cdef int way
        cdef int chosen = 0
        for way in range(WAYS):
            word = rates_load(&place.times[way])
            if word < nearest:
                nearest = word
                chosen = way
        before = rates_load(&place.keys[chosen])
        found[0] = _word(key, PAST_NS)
        if before == key or not rates_swap(&place.times[chosen], nearest, found[0]):
            return NULL
        if <long long> (nearest >> TAG_BITS) > now_ns:
            self.counts.rates_forgiven += 1
        return &place.times[chosen] if rates_swap(&place.keys[chosen], before, key) else NULL

    # For those who do not ask for each request.

    def take_at(self, uint64_t key, long long interval_ns, long long burst, long long now_ns):
        """Take one; returns the nanoseconds to wait, 0 if one was taken, and how many more can be had at once."""
        cdef Rate rate = Rate(interval_ns, interval_ns * burst)
        cdef long long debt_ns
        cdef long long wait_ns = self.take(key, &rate, now_ns, &debt_ns)
        return wait_ns, left_of(&rate, debt_ns)

    def wait_at(self, uint64_t key, long long interval_ns, long long burst, long long now_ns):
        """What take_at() would return first."""
        cdef Rate rate = Rate(interval_ns, interval_ns * burst)
        return self.wait_ns(key, &rate, now_ns)

    def give_back_at(self, uint64_t key, long long interval_ns, long long burst, long long now_ns):
        """Give back one; returns how many can be had at once."""
        cdef Rate rate = Rate(interval_ns, interval_ns * burst)
        return left_of(&rate, self.give_back(key, &rate, now_ns))

    def keys(self, long long now_ns):
        """How many keys have not all of their burst at this time."""
        cdef int entry
        cdef int found = 0
        for entry in range(RATE_ENTRIES):
            if self.sets[entry // WAYS].keys[entry % WAYS] and (
                <long long> (self.sets[entry // WAYS].times[entry % WAYS] >> TAG_BITS) > now_ns
            ):
                found += 1
        return found
