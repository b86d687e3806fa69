"""Keyed hashes: SipHash-2-4 with the long output over bytes that come in pieces, and with the short one over words."""

from libc.stdint cimport uint64_t
from libc.string cimport memcpy

cdef extern from "<endian.h>" nogil:
    uint64_t le64toh(uint64_t word)
    uint64_t htole64(uint64_t word)

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


# The state of SipHash between two words. A copy goes on from where it was made: what many texts begin with is hashed
# once.
cdef struct SipState:
    uint64_t v0
    uint64_t v1
    uint64_t v2
    uint64_t v3


cdef inline uint64_t word_at(const void* source) noexcept nogil:
    """The eight bytes there, the first in the lowest place."""
    cdef uint64_t word
    memcpy(&word, source, 8)
    return le64toh(word)


cdef inline uint64_t turned(uint64_t word, int bits) noexcept nogil:
    return (word << bits) | (word >> (64 - bits))


cdef inline void sip_round(SipState* state) noexcept nogil:
    state.v0 += state.v1
    state.v1 = turned(state.v1, 13) ^ state.v0
    state.v0 = turned(state.v0, 32)
    state.v2 += state.v3
    state.v3 = turned(state.v3, 16) ^ state.v2
    state.v0 += state.v3
    state.v3 = turned(state.v3, 21) ^ state.v0
    state.v2 += state.v1
    state.v1 = turned(state.v1, 17) ^ state.v2
    state.v2 = turned(state.v2, 32)


cdef inline void sip_begin(SipState* state, const uint64_t* key) noexcept nogil:
    """Nothing was hashed yet. key: two words, the first bytes in the lowest places."""
    state.v0 = key[0] ^ <uint64_t> 0x736F6D6570736575
    state.v1 = key[1] ^ <uint64_t> 0x646F72616E646F6D
    state.v2 = key[0] ^ <uint64_t> 0x6C7967656E657261
    state.v3 = key[1] ^ <uint64_t> 0x7465646279746573


cdef inline void sip_word(SipState* state, uint64_t word) noexcept nogil:
    """Hash eight bytes more, the first of which is in the lowest place."""
    state.v3 ^= word
    sip_round(state)
    sip_round(state)
    state.v0 ^= word


cdef inline uint64_t sip_end(SipState state, uint64_t last, uint64_t hashed_bytes) noexcept nogil:
    """SipHash-2-4 with an output of 64 bits. last: up to seven bytes more. hashed_bytes: of all."""
    sip_word(&state, last | hashed_bytes << 56)
    state.v2 ^= 0xFF
    sip_round(&state)
    sip_round(&state)
    sip_round(&state)
    sip_round(&state)
    return state.v0 ^ state.v1 ^ state.v2 ^ state.v3


cdef inline void sip_padded(SipState* state, const char* text, Py_ssize_t size) noexcept nogil:
    """Hash a text and as many zeros as fill its last word."""
    cdef uint64_t word
    while size >= 8:
        sip_word(state, word_at(text))
        text += 8
        size -= 8
    if size:
        word = 0
        memcpy(&word, text, size)
        sip_word(state, le64toh(word))


# The hash of a text, with an output of 64 bits.
cdef uint64_t sip_hash(const char* text, Py_ssize_t size, const uint64_t* key) noexcept nogil
