"""The bytes that a process holds for its clients, in three accounts: small things, bodies, results.

Theory of operation. Each thing that is held has an entry (`Held`) in whoever owns it: which account it counts in, and
its allocated room. An entry grows before its thing does, and what does not fit is refused. What changes hands (a body
into a packet, a result into an answer) leaves one entry and enters the next in the same call, so nothing counts twice
while room is asked for.

Who is ended when an account is crowded or full is the
business of the entries' owners.
"""

cimport cython

from gatewayx.core.counters cimport Counters

# For the settings: whatever one request may have can be held only if max_bytes is at least so many times the largest body,
# the largest result, and the largest head with a small body. The room of a body grows by half, so it may be 1.5 times the
# body; a large packet of a result is held twice for a moment.
MAX_BYTES_PER_BODY = 3 * SHARES // (2 * BODIES_SHARE)
MAX_BYTES_PER_RESULT = 2 * SHARES // RESULTS_SHARE
MAX_BYTES_PER_SMALL = SHARES // SMALL_SHARE
# SMALL_BYTES, for Python.
LARGEST_SMALL_BYTES = SMALL_BYTES


@cython.final
cdef class ByteBudget:
    """The .pxd says what counts in which account.

    max_bytes: the bound on all accounts together, above 0. counters: where refusals are counted; None for counters of its
    own.
    """

    def __init__(self, long long max_bytes=256 * 1024 * 1024, Counters counters=None):
        self.counted_in = Counters() if counters is None else counters
        self.counts = self.counted_in.row
        self.max_bytes = max_bytes
        self.bounds[SMALL] = max_bytes * SMALL_SHARE // SHARES
        self.bounds[BODIES] = max_bytes * BODIES_SHARE // SHARES
        self.bounds[RESULTS] = max_bytes * RESULTS_SHARE // SHARES

    def counters(self):
        """What is held now and was counted since the start, by name."""
        return {
            "held_bytes": self.held[SMALL] + self.held[BODIES] + self.held[RESULTS],
            "small_bytes": self.held[SMALL],
            "bodies_bytes": self.held[BODIES],
            "results_bytes": self.held[RESULTS],
            "refused": self.counts.budget_refused,
        }
