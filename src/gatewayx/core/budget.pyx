"""The bytes that a process holds for its clients, in three accounts: small things, bodies, results.

Theory of operation. Each thing that is held has an entry (`Held`) in whoever owns it: which account it counts in, and
its allocated room. An entry grows before its thing does, and what does not fit is refused. What changes hands (a body
into a packet, a result into an answer) leaves one entry and enters the next in the same call, so nothing counts twice
while room is asked for.

Shares of the whole: small things 1/8, bodies 3/8, results 1/2. Who is ended when an account is crowded or full is the
business of the entries' owners.
"""

cimport cython


@cython.final
cdef class ByteBudget:
    """max_bytes: the bound on all accounts together, above 0; the .pxd says what counts in which."""

    def __init__(self, long long max_bytes=256 * 1024 * 1024):
        self.max_bytes = max_bytes
        self.bounds[SMALL] = max_bytes // 8
        self.bounds[BODIES] = max_bytes * 3 // 8
        self.bounds[RESULTS] = max_bytes // 2

    def counters(self):
        """What is held now and was counted since the start, by name."""
        return {
            "held_bytes": self.held[SMALL] + self.held[BODIES] + self.held[RESULTS],
            "small_bytes": self.held[SMALL],
            "bodies_bytes": self.held[BODIES],
            "results_bytes": self.held[RESULTS],
            "refused": self.refused,
        }
