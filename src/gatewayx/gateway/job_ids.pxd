"""Ids of jobs that outlive their request: made, signed, and read again."""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy

from gatewayx.core.base64url cimport LETTERS
from gatewayx.core.keyed_hash cimport SipState, word_at

cdef enum:
    # Of the id of a kept job: a letter, and 30 bytes in base64url.
    KEPT_ID_BYTES = 41
    # A longer text is no id.
    MOST_ID_BYTES = 1024
    # The first signs, the second only reads: the one that signed before it.
    MOST_ID_KEYS = 2
    # Of a tag, and as letters.
    TAG_BYTES = 8
    TAG_LETTERS = 11
    # Of a background job's id: the letter, and 18 bytes in base64url, of the job server's mark, the submitter's place
    # and mark, and the life; then what tells the process in the job's unique.
    FIXED_LETTERS = 25
    PROCESS_BYTES = 20
    # Of the number in its unique; the last of them, and of the handle's, are hashed together.
    NUMBER_DIGITS = 14
    LAST_DIGITS = 6
    SECOND_DIGITS = 10
    MOST_HANDLE_DIGITS = 10
    # What the hash takes of digits before its last word, and of everything else: the kind and the token's mark.
    DIGITS_BYTES = 24
    BEGUN_BYTES = 24
    # What ends the parts of it whose lengths differ: "~".
    PART_END = 0x7E


# What the id of a kept job tells: where it is kept, and the mark of the process that keeps it.
cdef struct KeptPlace:
    int place
    uint32_t mark


cdef class BackgroundId:
    """What the id of a background job tells."""
    # Of its job server's name, the keyed hash; and by which key, of those that there were when the id was read.
    cdef uint64_t server_mark
    cdef uint64_t[2] key
    # When it was submitted, since the epoch.
    cdef readonly long long created_s
    # The process that has submitted it, and which life of the job server that knew (gearman/job, JobCarrier.life).
    cdef KeptPlace submitter
    cdef readonly unsigned int life
    cdef readonly bytes unique
    cdef readonly bytes handle
    cdef readonly bytes function


cdef class JobIds:
    # Of KEY_BYTES (core/keyed_hash) each.
    cdef uint64_t[MOST_ID_KEYS][2] keys
    cdef int key_count
    # How often the keys have changed: what was made with others is not used any more.
    cdef unsigned int changes

    # A new id, of 128 random bits, for a job that the process with this place and mark keeps. token_mark: of its token
    # (gateway/owners), None without one; nobody else's token reads the id.
    cdef bytes new_kept(self, int place, uint32_t mark, bytes token_mark)
    # Whether the text is such an id for this token; what it tells.
    cdef bint read_kept(self, bytes text, bytes token_mark, KeptPlace* found) except -1
    # What the text tells, if it is the id of a background job for this token; None for anything else.
    cdef BackgroundId read_background(self, bytes text, bytes token_mark)
    # The mark of a job server's name, by the key that signs.
    cdef uint64_t server_mark(self, str name)
    # Whether the id tells of this job server.
    cdef bint is_of(self, BackgroundId found, str name)


# Begin the hash of an id of a kind, for a token.
cdef int begin_tag(SipState* state, const uint64_t* key, char kind, bytes token_mark) except -1
# The first so many letters of a background job's id, which tell where it was submitted.
cdef char* put_fixed(char* end, uint64_t server_mark, const KeptPlace* submitter, unsigned int life) noexcept
# How many digits the handle ends with that an id tells apart from the rest of it.
cdef int handle_digits_of(const char* handle, Py_ssize_t handle_bytes) noexcept nogil
# What the hash takes of digits before its last word: DIGITS_BYTES of them. second: the digits of that, which the
# number's follow. handle: the last digits of that.
cdef void put_first_digits(char* digits, const char* second, const char* handle, int handle_digits) noexcept nogil


cdef inline uint64_t hashed_bytes_of(Py_ssize_t handle_end, Py_ssize_t function_bytes) noexcept nogil:
    """How many bytes the hash of an id takes, whose part up to the handle's end and whose function have so many."""
    return BEGUN_BYTES + (handle_end + 7 & ~7) + (function_bytes + 7 & ~7) + DIGITS_BYTES + 7


# Each two letters of a tag at once.
cdef char[4096][2] PAIRS


cdef inline uint64_t last_word(uint64_t number, uint64_t handle, int handle_digits) noexcept nogil:
    """The last word that the hash takes. number, handle: the eight bytes that end with the digits of each."""
    cdef uint64_t word = number >> 16 & <uint64_t> 0x0F0F0F0F0F0F
    if handle_digits:
        word |= (handle >> (64 - 8 * min(handle_digits, <int> LAST_DIGITS)) & <uint64_t> 0x0F0F0F0F0F0F) << 4
    return word | <uint64_t> handle_digits << 48


cdef inline char* put_tag(char* end, uint64_t tag) noexcept nogil:
    """Write a tag as letters."""
    memcpy(end, PAIRS[tag >> 52], 2)
    memcpy(end + 2, PAIRS[tag >> 40 & 4095], 2)
    memcpy(end + 4, PAIRS[tag >> 28 & 4095], 2)
    memcpy(end + 6, PAIRS[tag >> 16 & 4095], 2)
    memcpy(end + 8, PAIRS[tag >> 4 & 4095], 2)
    end[10] = LETTERS[(tag & 15) << 2]
    return end + TAG_LETTERS
