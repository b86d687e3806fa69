"""The bytes that a process holds for its clients, in one sum: bodies, their packets, results, answers not yet read."""


cdef class ByteBudget:
    # The bound on held_bytes for whatever may still be refused.
    cdef readonly long long max_bytes
    # Held now, by whoever has called reserve() or hold() and not release().
    cdef readonly long long held_bytes
    # Refused reservations so far.
    cdef readonly unsigned long long refused

    # Take room for what is not here yet; False, and nothing is taken, if it does not fit.
    cdef inline bint reserve(self, long long size_bytes) noexcept:
        if self.held_bytes + size_bytes > self.max_bytes:
            self.refused += 1
            return False
        self.held_bytes += size_bytes
        return True

    # Count what is here already and cannot be refused any more.
    cdef inline void hold(self, long long size_bytes) noexcept:
        self.held_bytes += size_bytes

    cdef inline void release(self, long long size_bytes) noexcept:
        self.held_bytes -= size_bytes

    cdef inline bint exhausted(self) noexcept:
        return self.held_bytes >= self.max_bytes
