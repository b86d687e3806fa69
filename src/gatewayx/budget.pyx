"""The bytes that a process holds for its clients, in one sum.

Admission, not a pause: what is about to come reserves its room before it comes, and is refused if there is none. What
changes hands (a body into a packet, a result into an answer) is held by the new hand before the old one releases it.
"""

cimport cython


@cython.final
cdef class ByteBudget:
    """max_bytes: the bound on what may still be refused, above 0; the .pxd says what counts."""

    def __init__(self, long long max_bytes=256 * 1024 * 1024):
        self.max_bytes = max_bytes

    def counters(self):
        """What is held now and was counted since the start, by name."""
        return {"held_bytes": self.held_bytes, "refused": self.refused}
