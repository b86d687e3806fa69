"""The bytes that a process holds for its clients, in three accounts: small things, bodies, results.

Theory of operation. Each thing that is held has an entry (`Held`) in whoever owns it: which account it counts in, and
its allocated room. An entry grows before its thing does, and what does not fit is refused. What changes hands (a body
into a packet, a result into an answer) leaves one entry and enters the next in the same call, so nothing counts twice
while room is asked for.

The processes of a gateway share the accounts. Each is granted portions of them, so that what it holds changes without a
word to the others for most of the time, and asks for what just fits when no portion is left. So what all of them hold is
never above the bound, except for what is here already and cannot be refused. While bytes change hands, between the release
of one entry and the growth of the next, the process keeps what it was granted: another would take it.

Who is ended when an account is crowded or full is the
business of the entries' owners.
"""

cimport cython
from libc.limits cimport LLONG_MAX, ULLONG_MAX

from gatewayx.core.counters cimport Counters
from gatewayx.core.shared cimport FIRST_ACCOUNT, Shared

# For the settings: whatever one request may have can be held only if max_bytes is at least so many times the largest body,
# the largest result, and the largest head with a small body. The room of a body grows by half, so it may be 1.5 times the
# body; a large packet of a result is held twice for a moment.
MAX_BYTES_PER_BODY = 3 * SHARES // (2 * BODIES_SHARE)
MAX_BYTES_PER_RESULT = 2 * SHARES // RESULTS_SHARE
MAX_BYTES_PER_SMALL = SHARES // SMALL_SHARE
cdef enum:
    # A process is granted at most so much beyond what it holds, at a time.
    PORTION_BYTES = 256 * 1024

def account_bounds(long long max_bytes):
    """What each account may hold when all of them together may hold so much, by name."""
    return {
        "small": max_bytes * SMALL_SHARE // SHARES,
        "bodies": max_bytes * BODIES_SHARE // SHARES,
        "results": max_bytes * RESULTS_SHARE // SHARES,
    }


# SMALL_BYTES, for Python.
LARGEST_SMALL_BYTES = SMALL_BYTES


@cython.final
cdef class ByteBudget:
    """The .pxd says what counts in which account.

    max_bytes: the bound on all accounts together, above 0. counters: where refusals are counted; None for counters of its
    own. shared: what all processes of the gateway have of the accounts; None if this one is alone.
    """

    def __init__(self, long long max_bytes=256 * 1024 * 1024, Counters counters=None, Shared shared=None):
        self.counted_in = Counters() if counters is None else counters
        self.counts = self.counted_in.row
        self.alone = shared is None or shared.places == 1
        self.shared = shared
        self.change(max_bytes)

    def change(self, long long max_bytes):
        """Have this bound from now on. If more is held already, it stays, and nothing more fits."""
        cdef Account account
        self.max_bytes = max_bytes
        self.bounds[SMALL] = max_bytes * SMALL_SHARE // SHARES
        self.bounds[BODIES] = max_bytes * BODIES_SHARE // SHARES
        self.bounds[RESULTS] = max_bytes * RESULTS_SHARE // SHARES
        for account in range(ACCOUNTS):
            if self.alone:
                self.granted[account] = self.bounds[account]
                self.most_spare[account] = LLONG_MAX
                continue
            # All spare portions together are a sixteenth of the account at most.
            self.portions[account] = max(1, min(<long long> PORTION_BYTES, self.bounds[account] // (32 * self.shared.places)))
            self.most_spare[account] = 2 * self.portions[account]
            # What was granted by another bound and is not held would fit although nothing more may.
            self.shared.give(FIRST_ACCOUNT + account, self.granted[account] - self.held[account])
            self.granted[account] = self.held[account]

    def counters(self):
        """What is held now and was counted since the start, by name."""
        return {
            "held_bytes": self.held[SMALL] + self.held[BODIES] + self.held[RESULTS],
            "small_bytes": self.held[SMALL],
            "bodies_bytes": self.held[BODIES],
            "results_bytes": self.held[RESULTS],
            "refused": self.counts.budget_refused,
        }

    cdef bint grow(self, Account account, long long more_bytes) noexcept:
        cdef long long missing_bytes = self.held[account] + more_bytes - self.granted[account]
        cdef long long wanted_bytes = missing_bytes + self.portions[account]
        if self.alone:
            return False
        # A portion more, or else what just fits.
        if not self.shared.take(FIRST_ACCOUNT + account, wanted_bytes, self.bounds[account]):
            wanted_bytes = missing_bytes
            if not self.shared.take(FIRST_ACCOUNT + account, wanted_bytes, self.bounds[account]):
                return False
        self.granted[account] += wanted_bytes
        return True

    cdef void overdraw(self, Account account) noexcept:
        cdef long long missing_bytes = self.held[account] - self.granted[account]
        if self.alone:
            return
        self.shared.take(FIRST_ACCOUNT + account, missing_bytes, ULLONG_MAX)
        self.granted[account] += missing_bytes

    cdef void give_spare(self) noexcept:
        cdef Account account
        for account in range(ACCOUNTS):
            if self.granted[account] - self.held[account] > self.most_spare[account]:
                self.give(account)

    cdef void give(self, Account account) noexcept:
        if self.moves:
            return
        cdef long long spare_bytes = self.granted[account] - self.held[account] - self.portions[account]
        self.shared.give(FIRST_ACCOUNT + account, spare_bytes)
        self.granted[account] -= spare_bytes
