"""SipHash-2-4 with outputs of 128 and 64 bits (Aumasson and Bernstein, 2012, and the authors' reference code).

Who does not know the key can neither find two inputs of one hash nor tell anything of a hash before it is seen, and a
short input costs some tens of nanoseconds.

hash_short() is SipHash-1-3, which Rust and Python take for their tables: for hashes that nobody ever sees.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint64_t
from libc.string cimport memcpy

cdef inline void rounds(KeyedHash state, int count) noexcept:
    cdef uint64_t v0 = state.v0, v1 = state.v1, v2 = state.v2, v3 = state.v3
    for _ in range(count):
        v0 += v1
        v1 = turned(v1, 13) ^ v0
        v0 = turned(v0, 32)
        v2 += v3
        v3 = turned(v3, 16) ^ v2
        v0 += v3
        v3 = turned(v3, 21) ^ v0
        v2 += v1
        v1 = turned(v1, 17) ^ v2
        v2 = turned(v2, 32)
    state.v0, state.v1, state.v2, state.v3 = v0, v1, v2, v3


@cython.final
@cython.freelist(64)
cdef class KeyedHash:
    """The hash of what update() is given. key: KEY_BYTES bytes that nobody else knows; ValueError for another length."""

    def __cinit__(self, bytes key not None):
        cdef const char* start = PyBytes_AS_STRING(key)
        if PyBytes_GET_SIZE(key) != KEY_BYTES:
            raise ValueError(f"a key of {len(key)} bytes, not of {KEY_BYTES}")
        # The words of the reference code; 0xEE chooses the output of 128 bits.
        self.v0 = word_at(start) ^ <uint64_t> 0x736F6D6570736575
        self.v1 = word_at(start + 8) ^ <uint64_t> 0x646F72616E646F6D ^ 0xEE
        self.v2 = word_at(start) ^ <uint64_t> 0x6C7967656E657261
        self.v3 = word_at(start + 8) ^ <uint64_t> 0x7465646279746573

    cdef void take(self, const char* piece, Py_ssize_t piece_bytes) noexcept:
        cdef const char* end = piece + piece_bytes
        cdef uint64_t word
        cdef Py_ssize_t moved
        self.hashed_bytes += piece_bytes
        if self.tail_bytes:
            moved = min(8 - self.tail_bytes, piece_bytes)
            memcpy(&self.tail[self.tail_bytes], piece, moved)
            self.tail_bytes += moved
            piece += moved
            if self.tail_bytes < 8:
                return
            self.tail_bytes = 0
            word = word_at(&self.tail[0])
            self.v3 ^= word
            rounds(self, 2)
            self.v0 ^= word
        while end - piece >= 8:
            word = word_at(piece)
            self.v3 ^= word
            rounds(self, 2)
            self.v0 ^= word
            piece += 8
        self.tail_bytes = end - piece
        memcpy(&self.tail[0], piece, self.tail_bytes)

    cpdef int update(self, bytes piece) except -1:
        """Take more bytes."""
        self.take(PyBytes_AS_STRING(piece), PyBytes_GET_SIZE(piece))
        return 0

    cpdef bytes digest(self):
        """The hash of all bytes so far; more may follow."""
        cdef uint64_t v0 = self.v0, v1 = self.v1, v2 = self.v2, v3 = self.v3
        cdef uint64_t last = self.hashed_bytes << 56
        cdef uint64_t[2] out
        cdef int index
        for index in range(self.tail_bytes):
            last |= <uint64_t> self.tail[index] << (8 * index)
        self.v3 ^= last
        rounds(self, 2)
        self.v0 ^= last
        self.v2 ^= 0xEE
        rounds(self, 4)
        out[0] = htole64(self.v0 ^ self.v1 ^ self.v2 ^ self.v3)
        self.v1 ^= 0xDD
        rounds(self, 4)
        out[1] = htole64(self.v0 ^ self.v1 ^ self.v2 ^ self.v3)
        self.v0, self.v1, self.v2, self.v3 = v0, v1, v2, v3
        return PyBytes_FromStringAndSize(<const char*> &out[0], DIGEST_BYTES)


cdef void hash_short(const char* text, Py_ssize_t size, const uint64_t* key, uint64_t* words) noexcept nogil:
    cdef SipState state
    cdef const char* end = text + (size & ~<Py_ssize_t> 7)
    cdef uint64_t word = 0
    sip_begin(&state, key)
    state.v1 ^= 0xEE
    while text < end:
        word = word_at(text)
        text += 8
        state.v3 ^= word
        sip_round(&state)
        state.v0 ^= word
    word = 0
    memcpy(&word, text, size & 7)
    word = le64toh(word) | <uint64_t> size << 56
    state.v3 ^= word
    sip_round(&state)
    state.v0 ^= word
    state.v2 ^= 0xEE
    sip_round(&state)
    sip_round(&state)
    sip_round(&state)
    words[0] = state.v0 ^ state.v1 ^ state.v2 ^ state.v3
    state.v1 ^= 0xDD
    sip_round(&state)
    sip_round(&state)
    sip_round(&state)
    words[1] = state.v0 ^ state.v1 ^ state.v2 ^ state.v3


cdef uint64_t sip_hash(const char* text, Py_ssize_t size, const uint64_t* key) noexcept nogil:
    cdef SipState state
    cdef Py_ssize_t whole_bytes = size & ~<Py_ssize_t> 7
    cdef uint64_t last = 0
    sip_begin(&state, key)
    sip_padded(&state, text, whole_bytes)
    memcpy(&last, text + whole_bytes, size - whole_bytes)
    return sip_end(state, le64toh(last), size)


def sip_digest(bytes key not None, bytes text not None):
    """What sip_hash() tells, for tests."""
    cdef uint64_t[2] key_words
    memcpy(key_words, PyBytes_AS_STRING(key), KEY_BYTES)
    return sip_hash(PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text), key_words)


def short_digest(bytes key not None, bytes text not None):
    """What hash_short() tells, for tests."""
    cdef uint64_t[2] key_words
    cdef uint64_t[2] words
    memcpy(key_words, PyBytes_AS_STRING(key), KEY_BYTES)
    hash_short(PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text), key_words, words)
    return words[0], words[1]
