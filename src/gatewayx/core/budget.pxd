"""The bytes that a process holds for its clients, in three accounts: small things, bodies, results.

The accounts never borrow from each other, so that whoever fills one of them stops nobody who needs another.
"""

from gatewayx.core.counters cimport Counters, Counts
from gatewayx.core.shared cimport FIRST_ACCOUNT, Shared

cdef enum:
    # What is at most so large counts in SMALL, whatever it is.
    SMALL_BYTES = 16384
    ACCOUNTS = 3
    # What each account has of the whole, in eighths.
    SMALL_SHARE = 1
    BODIES_SHARE = 3
    RESULTS_SHARE = 4
    SHARES = 8


# An index into what the budget counts; Cython takes no enum as one.
ctypedef int Account

cdef enum:
    # Heads, unfinished lines, and bodies, packets, results and answers of at most SMALL_BYTES.
    SMALL
    # Larger bodies with their packets.
    BODIES
    # Larger results with the answers that are not read yet.
    RESULTS


cdef struct Held:
    # The account in which an entry counts; it means something only while size_bytes is above 0.
    Account account
    # What the entry has of it: allocated room.
    long long size_bytes


cdef inline Account account_for(Account large, long long size_bytes) noexcept:
    """Where an entry counts that has so many bytes: SMALL, or `large` above SMALL_BYTES."""
    return large if size_bytes > SMALL_BYTES else SMALL


cdef class ByteBudget:
    # The bound on all accounts together.
    cdef readonly long long max_bytes
    # By Account: the bound on what may still be refused, for all processes together, and what this one holds now.
    cdef long long[ACCOUNTS] bounds
    cdef long long[ACCOUNTS] held
    # What this one may hold without asking; what it has of that and does not hold goes back beyond so much. It is all of the
    # bound in a process that shares it with nobody.
    cdef long long[ACCOUNTS] granted
    cdef long long[ACCOUNTS] most_spare
    # It is granted so much at a time.
    cdef long long[ACCOUNTS] portions
    cdef Shared shared
    cdef bint alone
    # Moves under way, in which bytes leave one entry and enter another: what is released is not given to others meanwhile.
    cdef int moves
    # Where refusals for want of room are counted, by whoever refuses.
    cdef Counters counted_in
    cdef Counts* counts

    # Let the entry have so many bytes in the account, which are here already and cannot be refused any more.
    cdef inline void hold(self, Held* entry, Account account, long long size_bytes) noexcept:
        self.held[entry.account] -= entry.size_bytes
        self.held[account] += size_bytes
        if self.granted[entry.account] - self.held[entry.account] > self.most_spare[entry.account]:
            self.give(entry.account)
        entry.account = account
        entry.size_bytes = size_bytes
        if self.held[account] > self.granted[account]:
            self.overdraw(account)

    # The same for what is still to come; False, and nothing changes, if the entry would grow and does not fit.
    cdef inline bint resize(self, Held* entry, Account account, long long size_bytes) noexcept:
        cdef long long more_bytes = size_bytes
        if entry.account == account:
            more_bytes -= entry.size_bytes
        if more_bytes > 0 and self.held[account] + more_bytes > self.granted[account] and not self.grow(account, more_bytes):
            return False
        self.hold(entry, account, size_bytes)
        return True

    cdef inline void release(self, Held* entry) noexcept:
        self.held[entry.account] -= entry.size_bytes
        entry.size_bytes = 0
        if self.granted[entry.account] - self.held[entry.account] > self.most_spare[entry.account]:
            self.give(entry.account)

    # Whether so many bytes more fit into the account.
    cdef inline bint fits(self, Account account, long long more_bytes) noexcept:
        return self.level(account) + more_bytes <= self.bounds[account]

    # The same, and they fit still when they are held before anything else is, whatever other processes do.
    cdef inline bint reserve(self, Account account, long long more_bytes) noexcept:
        if self.alone:
            return self.fits(account, more_bytes)
        return self.held[account] + more_bytes <= self.granted[account] or self.grow(account, more_bytes)

    # Above three quarters of its bound: whoever is slow is ended.
    cdef inline bint crowded(self, Account account) noexcept:
        return self.level(account) * 4 > self.bounds[account] * 3

    cdef inline bint full(self, Account account) noexcept:
        return self.level(account) >= self.bounds[account]

    # What counts as held, by this process and what is granted to the others.
    cdef inline long long level(self, Account account) noexcept:
        if self.alone:
            return self.held[account]
        return <long long> self.shared.taken(FIRST_ACCOUNT + account) - self.granted[account] + self.held[account]

    # Around the release of an entry and the hold of the next one that has its bytes, which takes no turn of the loop.
    cdef inline void begin_move(self) noexcept:
        self.moves += 1

    cdef inline void end_move(self) noexcept:
        self.moves -= 1
        if not self.moves and not self.alone:
            self.give_spare()

    # Be granted so much that more_bytes fit; False if they do not.
    cdef bint grow(self, Account account, long long more_bytes) noexcept
    # What is held is more than was granted, and cannot be refused.
    cdef void overdraw(self, Account account) noexcept
    # Give back what is not held, but for a portion; in a move, once it has ended.
    cdef void give(self, Account account) noexcept
    cdef void give_spare(self) noexcept
