"""Ids of jobs that outlive their request: made, signed, and read again.

An id carries what is needed to ask for its job, and a tag: a keyed hash (SipHash-2-4) over all of it and the mark of
the token that it is for. So an id that was guessed, cut or altered, or is another token's, is known to be none without
a look at any job, and all of them take the same work. Each id has one text.

A kept job's is "k" and, in base64url, its place (2 bytes), the mark of the process there (4), 16 random ones, and the
tag (8), all with the highest byte first.

A background job's begins with "b". Millions of them are made for few that are read, so it is made of parts which most
of them have in common, and ends with what differs:

    base64url of the job server's mark (8 bytes), the submitter's place (2) and mark (4), the life of the job server (4)
    the letters of the job's unique that tell the process
    base64url of the handle without its last digits, and "~"
    base64url of the function, and "~"
    the second of its submission, 10 digits; the number in its unique, 14; the last digits of its handle, up to 10
    the tag, in base64url

The tag's hash takes the kind of id and the token's mark; the first three parts as one text, with zeros up to eight
bytes; the seconds, the number without its last six digits and the handle's digits without their last six as 24 bytes;
the function's part, again with zeros; and at the end one word of what is left, with how many digits the handle has. No
two ids have the same words.
"""

import os

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memchr, memcpy

from gatewayx.core.base64url cimport LETTERS, put_letters, read_letters
from gatewayx.core.keyed_hash cimport KEY_BYTES, SipState, sip_begin, sip_end, sip_padded, sip_word, word_at
from gatewayx.gateway.headers cimport UNIQUE_PREFIX
from gatewayx.gateway.job_request cimport MARK_BYTES

cdef enum:
    # Place, mark and random bytes of a kept job's id.
    NAMED_BYTES = 22
    RANDOM_BYTES = 16
    # What the first letters of a background job's id stand for.
    FIXED_BYTES = 18

cdef void _fill_pairs() noexcept:
    cdef int value
    for value in range(4096):
        PAIRS[value][0] = LETTERS[value >> 6]
        PAIRS[value][1] = LETTERS[value & 63]


_fill_pairs()


@cython.final
cdef class BackgroundId:
    """What the id of a background job tells."""


@cython.final
cdef class JobIds:
    """Makes and reads ids.

    keys: by the first of which ids are signed, and by any of which they are read; one or two of KEY_BYTES bytes, else
    ValueError.
    """

    def __init__(self, tuple keys not None):
        self.change(keys)

    def change(self, tuple keys not None):
        """Be as if it had been made with these keys."""
        cdef int index
        if not 1 <= len(keys) <= MOST_ID_KEYS or any(len(key) != KEY_BYTES for key in keys):
            raise ValueError("one or two keys of 16 bytes are needed")
        for index in range(len(keys)):
            memcpy(self.keys[index], PyBytes_AS_STRING(<bytes> keys[index]), KEY_BYTES)
        self.key_count = len(keys)
        self.changes += 1

    cdef bytes new_kept(self, int place, uint32_t mark, bytes token_mark):
        cdef unsigned char[NAMED_BYTES + TAG_BYTES] told
        cdef bytes text = PyBytes_FromStringAndSize(NULL, KEPT_ID_BYTES)
        _put_number(told, place, 2)
        _put_number(told + 2, mark, 4)
        memcpy(told + 6, PyBytes_AS_STRING(<bytes> os.urandom(RANDOM_BYTES)), RANDOM_BYTES)
        _put_number(told + NAMED_BYTES, _kept_tag(self.keys[0], <const char*> told, token_mark), TAG_BYTES)
        PyBytes_AS_STRING(text)[0] = c"k"
        put_letters(PyBytes_AS_STRING(text) + 1, <const char*> told, sizeof(told))
        return text

    cdef bint read_kept(self, bytes text, bytes token_mark, KeptPlace* found) except -1:
        # Letters are read as whole groups.
        cdef unsigned char[NAMED_BYTES + TAG_BYTES] told
        cdef const char* start = PyBytes_AS_STRING(text)
        cdef uint64_t tag
        cdef bint is_good = False
        cdef int index
        if PyBytes_GET_SIZE(text) != KEPT_ID_BYTES or start[0] != c"k":
            return False
        if read_letters(<char*> told, start + 1, KEPT_ID_BYTES - 1) < 0:
            return False
        tag = _number_at(told + NAMED_BYTES, TAG_BYTES)
        for index in range(self.key_count):
            is_good |= _kept_tag(self.keys[index], <const char*> told, token_mark) == tag
        if is_good:
            found.place = <int> _number_at(told, 2)
            found.mark = <uint32_t> _number_at(told + 2, 4)
        return is_good

    cdef BackgroundId read_background(self, bytes text, bytes token_mark):
        cdef const char* start = PyBytes_AS_STRING(text)
        cdef const char* tag_at = start + PyBytes_GET_SIZE(text) - TAG_LETTERS
        cdef const char* handle_end
        cdef const char* function_end
        cdef const char* cursor
        cdef char[12] tag
        cdef int found = -1
        cdef int index
        if PyBytes_GET_SIZE(text) > MOST_ID_BYTES or start[0] != c"b":
            return None
        if tag_at - start < FIXED_LETTERS + PROCESS_BYTES + 2 + SECOND_DIGITS + NUMBER_DIGITS:
            return None
        if read_letters(tag, tag_at, TAG_LETTERS) < 0:
            return None
        cursor = start + FIXED_LETTERS + PROCESS_BYTES
        handle_end = <const char*> memchr(cursor, PART_END, tag_at - cursor)
        if handle_end == NULL:
            return None
        handle_end += 1
        function_end = <const char*> memchr(handle_end, PART_END, tag_at - handle_end)
        if function_end == NULL:
            return None
        function_end += 1
        index = <int> (tag_at - function_end - SECOND_DIGITS - NUMBER_DIGITS)
        if not 0 <= index <= MOST_HANDLE_DIGITS:
            return None
        cursor = function_end
        while cursor < tag_at:
            if not c"0" <= cursor[0] <= c"9":
                return None
            cursor += 1
        for index in range(self.key_count):
            if _background_tag(self.keys[index], token_mark, start, handle_end, function_end, tag_at) == _number_at(
                <const unsigned char*> tag, TAG_BYTES
            ):
                found = index
        if found < 0:
            return None
        return _background_of(self.keys[found], start, handle_end, function_end, tag_at)

    cdef uint64_t server_mark(self, str name):
        return _server_mark(self.keys[0], name)

    cdef bint is_of(self, BackgroundId found, str name):
        return _server_mark(found.key, name) == found.server_mark

    # For tests.

    def make_kept(self, int place, uint32_t mark, bytes token_mark=None):
        """A new id for a job that this process keeps."""
        return self.new_kept(place, mark, token_mark)

    def kept_place(self, bytes text not None, bytes token_mark=None):
        """The place and the mark that such an id tells; None if it is none for this token."""
        cdef KeptPlace found
        return (found.place, found.mark) if self.read_kept(text, token_mark, &found) else None

    def background(self, bytes text not None, bytes token_mark=None):
        """What an id of a background job tells; None if it is none for this token."""
        return self.read_background(text, token_mark)

    def tells_of(self, BackgroundId found not None, str name not None):
        """Whether the job is at the job server of this name."""
        return self.is_of(found, name)


cdef int begin_tag(SipState* state, const uint64_t* key, char kind, bytes token_mark) except -1:
    if token_mark is not None and PyBytes_GET_SIZE(token_mark) != MARK_BYTES:
        raise ValueError(f"a mark has {MARK_BYTES} bytes")
    sip_begin(state, key)
    if token_mark is None:
        sip_word(state, <unsigned char> kind)
        sip_word(state, 0)
        sip_word(state, 0)
    else:
        sip_word(state, <unsigned char> kind | 1 << 8)
        sip_word(state, word_at(PyBytes_AS_STRING(token_mark)))
        sip_word(state, word_at(PyBytes_AS_STRING(token_mark) + 8))
    return 0


cdef uint64_t _kept_tag(const uint64_t* key, const char* told, bytes token_mark) except? 0:
    cdef SipState state
    begin_tag(&state, key, c"k", token_mark)
    sip_word(&state, word_at(told))
    sip_word(&state, word_at(told + 8))
    # The last six of NAMED_BYTES.
    return sip_end(state, word_at(told + NAMED_BYTES - 8) >> 16, BEGUN_BYTES + NAMED_BYTES)


cdef uint64_t _server_mark(const uint64_t* key, str name):
    cdef SipState state
    cdef bytes text = name.encode()
    begin_tag(&state, key, c"s", None)
    sip_padded(&state, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
    return sip_end(state, 0, PyBytes_GET_SIZE(text))


cdef char* put_fixed(char* end, uint64_t server_mark, const KeptPlace* submitter, unsigned int life) noexcept:
    cdef unsigned char[FIXED_BYTES] told
    _put_number(told, server_mark, 8)
    _put_number(told + 8, submitter.place, 2)
    _put_number(told + 10, submitter.mark, 4)
    _put_number(told + 14, life, 4)
    end[0] = c"b"
    return put_letters(end + 1, <const char*> told, FIXED_BYTES)


cdef int handle_digits_of(const char* handle, Py_ssize_t handle_bytes) noexcept nogil:
    cdef int count = 0
    while count < min(handle_bytes, MOST_HANDLE_DIGITS) and c"0" <= handle[handle_bytes - 1 - count] <= c"9":
        count += 1
    return count


cdef uint64_t _background_tag(
    const uint64_t* key,
    bytes token_mark,
    const char* start,
    const char* handle_end,
    const char* function_end,
    const char* end,
) except? 0:
    """Of a text whose parts end there, the last of digits alone."""
    cdef SipState state
    cdef char[DIGITS_BYTES] digits
    cdef const char* number_end = function_end + SECOND_DIGITS + NUMBER_DIGITS
    cdef int count = <int> (end - number_end)
    begin_tag(&state, key, c"b", token_mark)
    sip_padded(&state, start, handle_end - start)
    put_first_digits(digits, function_end, number_end, count)
    sip_padded(&state, digits, DIGITS_BYTES)
    sip_padded(&state, handle_end, function_end - handle_end)
    return sip_end(
        state,
        last_word(word_at(number_end - 8), word_at(end - 8), count),
        hashed_bytes_of(handle_end - start, function_end - handle_end),
    )


cdef void put_first_digits(char* digits, const char* second, const char* handle, int handle_digits) noexcept nogil:
    cdef int count = handle_digits - LAST_DIGITS
    memcpy(digits, second, SECOND_DIGITS + NUMBER_DIGITS - LAST_DIGITS)
    digits += SECOND_DIGITS + NUMBER_DIGITS - LAST_DIGITS
    for index in range(MOST_HANDLE_DIGITS - LAST_DIGITS):
        digits[index] = handle[index] if index < count else 0
    digits[MOST_HANDLE_DIGITS - LAST_DIGITS] = 0
    digits[MOST_HANDLE_DIGITS - LAST_DIGITS + 1] = 0


cdef BackgroundId _background_of(
    const uint64_t* key, const char* start, const char* handle_end, const char* function_end, const char* end
):
    """Of a text that was signed with this key."""
    cdef BackgroundId found = BackgroundId.__new__(BackgroundId)
    cdef unsigned char[FIXED_BYTES] told
    cdef const char* process = start + FIXED_LETTERS
    cdef const char* number = function_end + SECOND_DIGITS
    if read_letters(<char*> told, start + 1, FIXED_LETTERS - 1) < 0:
        return None
    found.key[0] = key[0]
    found.key[1] = key[1]
    found.server_mark = _number_at(told, 8)
    found.submitter.place = <int> _number_at(told + 8, 2)
    found.submitter.mark = <uint32_t> _number_at(told + 10, 4)
    found.life = <unsigned int> _number_at(told + 14, 4)
    found.unique = UNIQUE_PREFIX + process[:PROCESS_BYTES] + b"-" + number[:NUMBER_DIGITS]
    found.created_s = int(function_end[:SECOND_DIGITS])
    found.function = _read(handle_end, function_end - 1)
    handle = _read(process + PROCESS_BYTES, handle_end - 1)
    if handle is None or found.function is None:
        return None
    found.handle = handle + number[NUMBER_DIGITS : end - number]
    return found


cdef bytes _read(const char* start, const char* end):
    """What these letters stand for; None if that is nothing."""
    cdef bytes data = PyBytes_FromStringAndSize(NULL, end - start)
    cdef Py_ssize_t size = read_letters(PyBytes_AS_STRING(data), start, end - start)
    return None if size < 0 else data[:size]


cdef inline void _put_number(unsigned char* end, uint64_t number, int size) noexcept:
    """Write its lowest bytes, the highest of them first."""
    cdef int index
    for index in range(size):
        end[size - 1 - index] = number >> 8 * index & 0xFF


cdef inline uint64_t _number_at(const unsigned char* start, int size) noexcept:
    cdef uint64_t number = 0
    cdef int index
    for index in range(size):
        number = number << 8 | start[index]
    return number
