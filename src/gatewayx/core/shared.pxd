"""Bounds that hold for a whole gateway: totals in memory that its processes share, exact also when one of them is killed."""

from libc.stdint cimport uint32_t, uint64_t

cdef enum:
    # So many connections are made room for in other processes at a time.
    MOST_WANTS = 64
    # A key of a table is looked for in so many words from its own on.
    WINDOW = 64
    # Which share an unfinished change is of: 1 + a Total, or FIRST_SLOT + a slot of a table.
    FIRST_SLOT = 16


# An index into the totals; Cython takes no enum as one.
ctypedef int Total

cpdef enum:
    # Clients' connections that count, jobs in flight, and bytes of the three accounts of core/budget.
    CONNECTIONS
    JOBS
    FIRST_ACCOUNT
    # Jobs that outlive their request, and the bytes that are held for them.
    KEPT_JOBS = 5
    KEPT_BYTES = 6
    # Idempotency keys whose answers are known, or will be.
    KEPT_KEYS = 7
    TOTALS = 8


cdef struct SharedWord:
    # What all have taken; in a cache line of its own.
    uint64_t taken
    uint64_t[7] apart


cdef struct Shares:
    # What the place is about to change, 0 for nothing: if its process dies, it is not known whether the total has changed.
    uint64_t intent
    # What it has of each total.
    uint64_t[TOTALS] of_totals


cdef class Shared:
    # Keeps the memory alive to which the rest points.
    cdef Py_buffer view
    cdef readonly int places
    cdef readonly int place
    cdef SharedWord* totals
    cdef uint64_t* wants
    cdef Shares* shares
    # The shares of this place.
    cdef Shares* own
    cdef readonly KeyTable functions
    cdef readonly KeyTable addresses

    # Take so much of a total that is to stay within the bound; False, and nothing changes, if it does not fit.
    cpdef bint take(self, Total which, uint64_t amount, uint64_t bound) noexcept
    # Give so much back.
    cpdef void give(self, Total which, uint64_t amount) noexcept
    # What all places have taken.
    cpdef uint64_t taken(self, Total which) noexcept
    # Connections that found no place, for which those may make room who have some that need theirs less; a few at most.
    cpdef void want_place(self) noexcept
    # Whether one of them is the caller's to make room for now.
    cpdef bint take_want(self) noexcept
    cpdef void forget_wants(self) noexcept
    cdef uint64_t* _word(self, uint64_t intent) noexcept
    cdef uint64_t _sum_of_shares(self, uint64_t intent) noexcept
    cdef bint _is_busy(self) noexcept


cdef class KeyTable:
    # Keeps the memory alive.
    cdef object memory
    # What the place is about to change.
    cdef uint64_t* intent
    # Each a key and how often it is taken, in one word; and the shares of each place of each word.
    cdef uint64_t* words
    cdef uint32_t* shares
    cdef uint32_t* own
    cdef int slots
    # What an intent to change slot 0 is.
    cdef uint64_t first_intent

    # Take one of what the key may have, which has a hash of 64 bits; returns the slot to give it back with, FULL if the
    # bound is reached, or NO_SLOT if the table has no room for the key.
    cpdef int take(self, uint64_t hashed, uint32_t bound) noexcept
    cpdef void give(self, int slot) noexcept
    # How many are taken of what the key may have.
    cpdef uint32_t taken(self, uint64_t hashed) noexcept
    cdef void give_back(self, int place) noexcept
    cdef bint _is_only(self, uint64_t key, int own, int first, int window) noexcept


# A hash of 64 bits by which nobody can choose which keys meet, the same in all processes that were forked from one.
cdef uint64_t hash_of(bytes key)

cpdef enum:
    FULL = -1
    NO_SLOT = -2
