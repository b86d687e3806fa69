"""Bounds that hold for a whole gateway: totals in memory that its processes share, exact also when one of them is killed.

Theory of operation. A total is one word, taken by compare-and-swap, so that it never passes its bound. Beside it each
place notes its share, and before either changes, its intent. When a worker process has died, the master gives its shares
back (`give_back`). If it died between total and share, the total is one change too high, never too low: it is taken first
and given back last. The intent tells which word that is, and the master corrects it (`reconcile`) at a moment when nobody
changes it: twice the same words, without an intent of anybody, and a compare-and-swap at the end.

A KeyTable has such a total for each of many keys, functions or addresses: a word holds the key's hash, in 43 bits, and the
count, so that both change in one swap and a word whose count is 0 can be another key's at any time. Two processes that
want a new key at once must not make two words of it: a word is claimed first, with count 0 and a mark, and counts once
nobody else is seen to have one. Two keys of one hash share a bound: the hash is keyed, so nobody can bring that about.
"""

import os

cimport cython
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy

from gatewayx.core.keyed_hash cimport KEY_BYTES, KeyedHash

cdef extern from *:
    """
    #include <stdint.h>
    #include <time.h>
    static inline uint64_t shared_load(const uint64_t *word) { return __atomic_load_n(word, __ATOMIC_SEQ_CST); }
    static inline void shared_store(uint64_t *word, uint64_t value) { __atomic_store_n(word, value, __ATOMIC_SEQ_CST); }
    static inline int shared_swap(uint64_t *word, uint64_t expected, uint64_t wanted) {
        return __atomic_compare_exchange_n(word, &expected, wanted, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    }
    static inline void shared_subtract(uint64_t *word, uint64_t amount) {
        __atomic_sub_fetch(word, amount, __ATOMIC_SEQ_CST);
    }
    static inline void shared_rest(long ns) { nanosleep(&(struct timespec) {.tv_nsec = ns}, NULL); }
    """
    uint64_t shared_load(const uint64_t* word) noexcept nogil
    void shared_store(uint64_t* word, uint64_t value) noexcept nogil
    bint shared_swap(uint64_t* word, uint64_t expected, uint64_t wanted) noexcept nogil
    void shared_subtract(uint64_t* word, uint64_t amount) noexcept nogil
    void shared_rest(long ns) noexcept nogil

cdef enum:
    COUNT_BITS = 20
    # How often a word that others change is tried before it passes for full.
    PATIENCE = 10_000
    # A claim is held for some nanoseconds, or for as long as who holds it has no processor: after so many looks at it
    # each further one comes so much later, so that the holder may have this one. After so many of those it is full.
    LOOKS = 100
    RESTS = 1000
    REST_NS = 50_000

cdef uint64_t CLAIMED = (<uint64_t> 1) << COUNT_BITS
cdef uint64_t COUNTS = CLAIMED - 1
cdef uint64_t KEYS = ~(CLAIMED | COUNTS)

# Chosen before any process is forked.
cdef bytes HASH_KEY = os.urandom(KEY_BYTES)

# Functions with a bound that have jobs in flight at one time.
FUNCTION_SLOTS = 65536

# In the order of the totals.
NAMES = ("connections", "jobs", "small_bytes", "bodies_bytes", "results_bytes", "kept_jobs", "kept_bytes", "kept_keys")


def shared_bytes(int places, int function_slots, int address_slots):
    """What the memory of so many places takes, with tables of so many functions and addresses."""
    return (
        (TOTALS + 1) * sizeof(SharedWord)
        + places * sizeof(Shares)
        + (function_slots + address_slots) * (sizeof(uint64_t) + places * sizeof(uint32_t))
    )


def address_slots(int connections):
    """How large a table is to be for the addresses of so many connections; 0 for none.

    It is there whether an address has a bound or not, since it may get one while the gateway runs. What is never used of
    it takes no memory.
    """
    return max(2 * connections, 2 * WINDOW) if connections else 0


def alone(int connections=0):
    """The totals of a process that shares them with nobody.

    connections: of at most how many the addresses may be counted; 0 for none.
    """
    slots = address_slots(connections)
    return Shared(bytearray(shared_bytes(1, FUNCTION_SLOTS, slots)), 1, 0, FUNCTION_SLOTS, slots)


cdef uint64_t hash_of(bytes key):
    cdef uint64_t found
    hashed = KeyedHash(HASH_KEY)
    hashed.update(key)
    memcpy(&found, PyBytes_AS_STRING(hashed.digest()), sizeof(found))
    return found


# The collector would drop the memory without releasing it; a Shared is in no cycle of its own.
@cython.final
@cython.no_gc_clear
cdef class Shared:
    """What the processes of a gateway have taken of its bounds.

    memory: a writable buffer with shared_bytes() bytes from `offset` on, zeros at first, aligned to 64 bytes. place: whose
    shares this process changes. Raises BufferError or ValueError if the memory cannot be it.
    """

    def __init__(
        self, memory, int places, int place, int function_slots, int address_slots, Py_ssize_t offset=0
    ):
        if self.totals != NULL:
            raise ValueError("the shared memory is known already")
        PyObject_GetBuffer(memory, &self.view, PyBUF_WRITABLE)
        if offset < 0 or self.view.len - offset < <Py_ssize_t> shared_bytes(places, function_slots, address_slots):
            raise ValueError("the memory is too small")
        if not 0 <= place < places:
            raise ValueError(f"there is no place {place} among {places}")
        cdef char* start = <char*> self.view.buf + offset
        self.places = places
        self.place = place
        self.totals = <SharedWord*> start
        self.wants = &self.totals[TOTALS].taken
        start += (TOTALS + 1) * sizeof(SharedWord)
        self.shares = <Shares*> start
        self.own = &self.shares[place]
        start += places * sizeof(Shares)
        self.functions = _table(self, memory, start, function_slots, FIRST_SLOT)
        start += function_slots * (sizeof(uint64_t) + places * sizeof(uint32_t))
        self.addresses = _table(self, memory, start, address_slots, FIRST_SLOT + function_slots)

    def __dealloc__(self):
        PyBuffer_Release(&self.view)

    cpdef bint take(self, Total which, uint64_t amount, uint64_t bound) noexcept:
        cdef uint64_t* word = &self.totals[which].taken
        cdef uint64_t before
        shared_store(&self.own.intent, which + 1)
        while True:
            before = shared_load(word)
            if amount > bound or before > bound - amount:
                shared_store(&self.own.intent, 0)
                return False
            if shared_swap(word, before, before + amount):
                break
        self.own.of_totals[which] += amount
        shared_store(&self.own.intent, 0)
        return True

    cpdef void give(self, Total which, uint64_t amount) noexcept:
        shared_store(&self.own.intent, which + 1)
        shared_store(&self.own.of_totals[which], self.own.of_totals[which] - amount)
        shared_subtract(&self.totals[which].taken, amount)
        shared_store(&self.own.intent, 0)

    cpdef uint64_t taken(self, Total which) noexcept:
        return shared_load(&self.totals[which].taken)

    cpdef void want_place(self) noexcept:
        cdef uint64_t wants = shared_load(self.wants)
        # If another changes it meanwhile there is a want already.
        if wants < MOST_WANTS:
            shared_swap(self.wants, wants, wants + 1)

    cpdef bint take_want(self) noexcept:
        cdef uint64_t wants = shared_load(self.wants)
        return wants > 0 and shared_swap(self.wants, wants, wants - 1)

    cpdef void forget_wants(self) noexcept:
        shared_store(self.wants, 0)

    def read(self):
        """What all places together have taken of each total."""
        return {name: self.totals[which].taken for which, name in enumerate(NAMES)}

    def give_back(self, int place):
        """What the process at a place has taken, which has ended; returns what it was about to change, 0 for nothing.

        For the master alone. What is returned is for `reconcile`.
        """
        cdef Shares* shares = &self.shares[place]
        cdef Total which
        cdef uint64_t share
        for which in range(TOTALS):
            share = shares.of_totals[which]
            shares.of_totals[which] = 0
            shared_subtract(&self.totals[which].taken, share)
        self.functions.give_back(place)
        self.addresses.give_back(place)
        cdef uint64_t intent = shares.intent
        shares.intent = 0
        return intent

    def reconcile(self, uint64_t intent):
        """Correct the word that a process was about to change when it died; False if it must be tried again later."""
        cdef uint64_t before
        cdef uint64_t shares
        cdef uint64_t* word = self._word(intent)
        if word == NULL:
            return True
        before = shared_load(word)
        shares = self._sum_of_shares(intent)
        if self._is_busy() or self._sum_of_shares(intent) != shares or self._is_busy() or shared_load(word) != before:
            return False
        if intent < FIRST_SLOT:
            return before == shares or shared_swap(word, before, shares)
        # A word that was only claimed has a count of 0.
        return before & (CLAIMED | COUNTS) == shares or shared_swap(word, before, (before & KEYS) | shares)

    cdef uint64_t* _word(self, uint64_t intent) noexcept:
        if 0 < intent <= TOTALS:
            return &self.totals[intent - 1].taken
        for table in (self.functions, self.addresses):
            if (<KeyTable> table).first_intent <= intent < (<KeyTable> table).first_intent + (<KeyTable> table).slots:
                return &(<KeyTable> table).words[intent - (<KeyTable> table).first_intent]
        return NULL

    cdef uint64_t _sum_of_shares(self, uint64_t intent) noexcept:
        cdef uint64_t found = 0
        cdef int place
        cdef KeyTable table
        if intent <= TOTALS:
            for place in range(self.places):
                found += shared_load(&self.shares[place].of_totals[intent - 1])
            return found
        table = self.functions if intent < self.addresses.first_intent else self.addresses
        for place in range(self.places):
            found += table.shares[place * table.slots + <int> (intent - table.first_intent)]
        return found

    cdef bint _is_busy(self) noexcept:
        cdef int place
        for place in range(self.places):
            if shared_load(&self.shares[place].intent):
                return True
        return False


cdef KeyTable _table(Shared shared, memory, char* start, int slots, uint64_t first_intent):
    cdef KeyTable table = KeyTable.__new__(KeyTable)
    table.memory = memory
    table.intent = &shared.own.intent
    table.slots = slots
    table.words = <uint64_t*> start
    table.shares = <uint32_t*> (start + slots * sizeof(uint64_t))
    table.own = &table.shares[shared.place * slots]
    table.first_intent = first_intent
    return table


@cython.final
cdef class KeyTable:
    """One count for each of many keys; the .pxd says what each method does."""

    cpdef int take(self, uint64_t hashed, uint32_t bound) noexcept:
        cdef uint64_t key = hashed & KEYS
        cdef uint64_t* intent = self.intent
        cdef uint64_t seen
        cdef int window = min(WINDOW, self.slots)
        cdef int first
        cdef int slot
        cdef int found
        cdef int free
        cdef int step
        cdef int looks = 0
        if self.slots == 0 or bound == 0:
            return NO_SLOT if self.slots == 0 else FULL
        # A word of zeros is nobody's.
        if key == 0:
            key = CLAIMED << 1
        first = <int> ((hashed ^ hashed >> 32) % <uint64_t> self.slots)
        for _ in range(PATIENCE):
            found = -1
            free = -1
            for step in range(window):
                slot = (first + step) % self.slots
                seen = shared_load(&self.words[slot])
                if seen & KEYS == key and (seen & (CLAIMED | COUNTS) or found < 0):
                    found = slot
                    if seen & (CLAIMED | COUNTS):
                        break
                elif free < 0 and not seen & (CLAIMED | COUNTS):
                    free = slot
            if found >= 0:
                seen = shared_load(&self.words[found])
                if seen & KEYS != key:
                    # It became another's.
                    continue
                if seen & CLAIMED:
                    # Somebody is about to have it.
                    looks += 1
                    if looks == LOOKS + RESTS:
                        return NO_SLOT
                    if looks > LOOKS:
                        shared_rest(REST_NS)
                    continue
                if seen & COUNTS:
                    if seen & COUNTS >= bound or seen & COUNTS == COUNTS:
                        return FULL
                    shared_store(intent, self.first_intent + found)
                    if shared_swap(&self.words[found], seen, seen + 1):
                        self.own[found] += 1
                        shared_store(intent, 0)
                        return found
                    shared_store(intent, 0)
                    continue
                free = found
            if free < 0:
                return NO_SLOT
            seen = shared_load(&self.words[free])
            if seen & (CLAIMED | COUNTS):
                continue
            shared_store(intent, self.first_intent + free)
            if shared_swap(&self.words[free], seen, key | CLAIMED):
                if self._is_only(key, free, first, window):
                    shared_store(&self.words[free], key | 1)
                    self.own[free] += 1
                    shared_store(intent, 0)
                    return free
                shared_store(&self.words[free], key)
            shared_store(intent, 0)
        return NO_SLOT

    cdef bint _is_only(self, uint64_t key, int own, int first, int window) noexcept:
        """Whether nobody else has the key, or claims it."""
        cdef uint64_t seen
        cdef int slot
        cdef int step
        for step in range(window):
            slot = (first + step) % self.slots
            seen = shared_load(&self.words[slot])
            if slot != own and seen & KEYS == key and seen & (CLAIMED | COUNTS):
                return False
        return True

    cpdef void give(self, int slot) noexcept:
        cdef uint64_t* intent = self.intent
        shared_store(intent, self.first_intent + slot)
        self.own[slot] -= 1
        shared_subtract(&self.words[slot], 1)
        shared_store(intent, 0)

    cpdef uint32_t taken(self, uint64_t hashed) noexcept:
        cdef uint64_t key = hashed & KEYS
        cdef uint64_t seen
        cdef int step
        if self.slots == 0:
            return 0
        if key == 0:
            key = CLAIMED << 1
        cdef int first = <int> ((hashed ^ hashed >> 32) % <uint64_t> self.slots)
        for step in range(min(WINDOW, self.slots)):
            seen = shared_load(&self.words[(first + step) % self.slots])
            if seen & KEYS == key and seen & COUNTS:
                return <uint32_t> (seen & COUNTS)
        return 0

    def keys(self):
        """How many keys have a count."""
        cdef int slot
        cdef int found = 0
        for slot in range(self.slots):
            if shared_load(&self.words[slot]) & COUNTS:
                found += 1
        return found

    cdef void give_back(self, int place) noexcept:
        cdef uint32_t* shares = &self.shares[place * self.slots]
        cdef uint32_t share
        cdef int slot
        for slot in range(self.slots):
            share = shares[slot]
            if share:
                shares[slot] = 0
                shared_subtract(&self.words[slot], share)
