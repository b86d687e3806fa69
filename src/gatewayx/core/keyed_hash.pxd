"""A keyed hash of 128 bits over bytes that come in pieces: SipHash-2-4 with the long output."""

from libc.stdint cimport uint64_t

cdef enum:
    KEY_BYTES = 16
    DIGEST_BYTES = 16


cdef class KeyedHash:
    # The state between two words of 8 bytes.
    cdef uint64_t v0
    cdef uint64_t v1
    cdef uint64_t v2
    cdef uint64_t v3
    # Bytes that fill no word yet, the first in the lowest place.
    cdef unsigned char[8] tail
    cdef int tail_bytes
    # All bytes so far.
    cdef readonly unsigned long long hashed_bytes

    # Take so many bytes; copies at most 7 of them.
    cdef void take(self, const char* piece, Py_ssize_t piece_bytes) noexcept
    cpdef int update(self, bytes piece) except -1
    # The hash of all bytes so far, DIGEST_BYTES long; more may follow.
    cpdef bytes digest(self)


# The hash of a short text as two words, by half the rounds (SipHash-1-3), for what is asked with every request.
cdef void hash_short(const char* text, Py_ssize_t size, const uint64_t* key, uint64_t* words) noexcept nogil
