"""The header lines of answers to background jobs, the Location of each among them, at little cost.

Theory of operation. A background job is the cheapest that there is, and few of its ids are ever asked for. So what the lines of
one have in common with those of the one before, of the same function, token and life of its job server, is kept as text, and with it the
state of the hash that becomes the tag (gateway/job_ids): begun with all that they have in common, and gone on once a second, and once
a million jobs, with what changes then. For a job its number and the last digits of its handle are put into that text, and their one word into
the hash.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy
from posix.time cimport CLOCK_REALTIME, clock_gettime, timespec

from gatewayx.core.base64url cimport letters_of, put_letters
from gatewayx.core.digits cimport put, put_bytes
from gatewayx.core.keyed_hash cimport sip_end, sip_padded, word_at
from gatewayx.gateway.job_ids cimport (
    DIGITS_BYTES,
    FIXED_LETTERS,
    LAST_DIGITS,
    MOST_ID_BYTES,
    NUMBER_DIGITS,
    PART_END,
    PROCESS_BYTES,
    SECOND_DIGITS,
    TAG_LETTERS,
    JobIds,
    begin_tag,
    handle_digits_of,
    hashed_bytes_of,
    last_word,
    put_first_digits,
    put_fixed,
    put_tag,
)
from gatewayx.gateway.job_request cimport HANDLE_NAME, UniqueText
from gatewayx.gearman.job cimport Job

cdef enum:
    # A word is read at the end of a handle.
    WORD_BYTES = 8
    # A longer handle is none of gearmand's (GEARMAND_JOB_HANDLE_SIZE in libgearman-server/constants.h).
    MOST_HANDLE_BYTES = 63

cdef bytes COMMAND_AND_UNIQUE = b"\r\nX-Gearman-Command: JOB_CREATED\r\nX-Gearman-Unique: "
cdef bytes LOCATION = b"\r\nLocation: /v1/jobs/"

cdef long long SECOND_NS = 1_000_000_000
# Of eight bytes: what the high bits of digits are, what changes those of the six bytes above 9, and these bits.
cdef uint64_t DIGIT_BITS = 0x3030303030303030
cdef uint64_t ABOVE_NINE = 0x0606060606060606
cdef uint64_t HIGH_BITS = 0xF0F0F0F0F0F0F0F0


@cython.final
cdef class BackgroundLocations:
    """Makes these lines. ids: which sign. place, mark: of the process that submits."""

    def __cinit__(self):
        self.templates = <Template*> calloc(TEMPLATES, sizeof(Template))
        if self.templates == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.templates)

    def __init__(self, JobIds ids not None, int place, uint32_t mark):
        self.ids = ids
        self.submitter.place = place
        self.submitter.mark = mark
        self.made_of = [None] * TEMPLATES

    cdef Py_ssize_t put_lines(
        self,
        bytes function,
        const UniqueText* unique,
        bytes token_mark,
        Job job,
        const char* handle,
        Py_ssize_t handle_bytes,
        long long now_ns,
        char** lines,
    ) except -1:
        cdef unsigned int life = job.carrier.life()
        cdef int index = <int> ((<size_t> <void*> function ^ <size_t> <void*> token_mark) >> 5 ^ life) % TEMPLATES
        cdef Template* template = &self.templates[index]
        cdef const char* unique_end = unique.text + unique.size
        cdef char[64] padded
        cdef uint64_t last
        if handle_bytes < WORD_BYTES:
            # A word that ends where the handle does has what stands before the handle.
            handle = put(put_bytes(padded, HANDLE_NAME), handle, handle_bytes) - handle_bytes
        lines[0] = template.text
        if (
            template.function != <void*> function
            or template.token_mark != <void*> token_mark
            or template.life != life
            or template.server_name != <void*> job.carrier.server_name
            or template.changes != self.ids.changes
            or template.handle_bytes != handle_bytes
            or memcmp(template.text + template.handle_at, handle, template.handle_head_bytes) != 0
            or not _are_digits(word_at(handle + handle_bytes - WORD_BYTES), template.digits_mask)
        ):
            if self._remake(index, function, unique, token_mark, job, life, handle, handle_bytes) == 0:
                return 0
        if now_ns >= template.second_ends_ns or template.first_number != word_at(unique_end - NUMBER_DIGITS):
            self._begin_second(template, unique, now_ns)
        # The id's digits first: a word of the handle reaches back over the number's end, which is put behind it.
        memcpy(template.text + template.digits_end - WORD_BYTES, handle + handle_bytes - WORD_BYTES, WORD_BYTES)
        memcpy(template.text + template.number_end - WORD_BYTES, unique_end - WORD_BYTES, WORD_BYTES)
        memcpy(template.text + template.handle_end - WORD_BYTES, handle + handle_bytes - WORD_BYTES, WORD_BYTES)
        memcpy(template.text + template.unique_end - WORD_BYTES, unique_end - WORD_BYTES, WORD_BYTES)
        last = last_word(unique_end, handle + handle_bytes, template.handle_digits)
        put_tag(template.text + template.digits_end, sip_end(template.state, last, template.hashed_bytes))
        return template.size

    cdef Py_ssize_t _remake(
        self,
        int index,
        bytes function,
        const UniqueText* unique,
        bytes token_mark,
        Job job,
        unsigned int life,
        const char* handle,
        Py_ssize_t handle_bytes,
    ) except -1:
        """Make the template anew, for this job and those that are like it; returns 0, and leaves it, if that cannot be."""
        cdef Template* template = &self.templates[index]
        cdef str server_name = job.carrier.server_name
        cdef int digits = handle_digits_of(handle, handle_bytes)
        cdef int last_digits = min(digits, LAST_DIGITS)
        cdef char* end = template.text
        cdef const char* id_start
        cdef const char* handle_part_end
        cdef const char* function_end
        if (
            handle_bytes > MOST_HANDLE_BYTES
            or FIXED_LETTERS
            + PROCESS_BYTES
            + letters_of(handle_bytes - digits)
            + letters_of(PyBytes_GET_SIZE(function))
            + SECOND_DIGITS
            + NUMBER_DIGITS
            + digits
            + TAG_LETTERS
            + 2
            > MOST_ID_BYTES
        ):
            return 0
        # While it is made it is nobody's.
        template.function = NULL
        template.server_name = <void*> server_name
        template.token_mark = <void*> token_mark
        template.changes = self.ids.changes
        template.life = life
        template.second_ends_ns = 0
        template.handle_bytes = handle_bytes
        template.handle_head_bytes = handle_bytes - last_digits
        template.handle_digits = digits
        template.digits_mask = HIGH_BITS << 8 * (WORD_BYTES - last_digits) if last_digits else 0

        end = put_bytes(end, HANDLE_NAME)
        template.handle_at = <int> (end - template.text)
        end = put(end, handle, handle_bytes)
        template.handle_end = <int> (end - template.text)
        end = put(put_bytes(end, COMMAND_AND_UNIQUE), unique.text, unique.size)
        template.unique_end = <int> (end - template.text)
        end = put_bytes(end, LOCATION)

        id_start = end
        end = put_fixed(end, self.ids.server_mark(server_name), &self.submitter, life)
        end = put(end, unique.text + unique.size - NUMBER_DIGITS - 1 - PROCESS_BYTES, PROCESS_BYTES)
        end = put_letters(end, handle, handle_bytes - digits)
        end[0] = PART_END
        handle_part_end = end + 1
        end = put_letters(end + 1, PyBytes_AS_STRING(function), PyBytes_GET_SIZE(function))
        end[0] = PART_END
        function_end = end + 1
        template.second_at = <int> (function_end - template.text)
        end += 1 + SECOND_DIGITS + NUMBER_DIGITS
        template.number_end = <int> (end - template.text)
        end = put(end, handle + handle_bytes - digits, digits)
        template.digits_end = <int> (end - template.text)
        end = put(end + TAG_LETTERS, b"\r\n", 2)
        template.size = <int> (end - template.text)

        begin_tag(&template.begun, self.ids.keys[0], c"b", token_mark)
        sip_padded(&template.begun, id_start, handle_part_end - id_start)
        sip_padded(&template.begun, handle_part_end, function_end - handle_part_end)
        template.hashed_bytes = hashed_bytes_of(handle_part_end - id_start, function_end - handle_part_end)
        self.made_of[index] = (server_name, function, token_mark)
        template.function = <void*> function
        return template.size

    cdef int _begin_second(self, Template* template, const UniqueText* unique, long long now_ns) except -1:
        """The present second, and the first digits of this number, are those that the template has from now on."""
        cdef char[DIGITS_BYTES] digits
        cdef char* second = template.text + template.second_at
        cdef char* number = second + SECOND_DIGITS
        cdef timespec now
        cdef long long left
        cdef int place
        clock_gettime(CLOCK_REALTIME, &now)
        template.second_ends_ns = now_ns + SECOND_NS - now.tv_nsec
        left = now.tv_sec
        for place in range(SECOND_DIGITS - 1, -1, -1):
            second[place] = <char> (c"0" + left % 10)
            left //= 10
        memcpy(number, unique.text + unique.size - NUMBER_DIGITS, NUMBER_DIGITS)
        template.first_number = word_at(number)
        put_first_digits(digits, second, template.text + template.number_end, template.handle_digits)
        template.state = template.begun
        sip_padded(&template.state, digits, DIGITS_BYTES)
        return 0


cdef inline bint _are_digits(uint64_t word, uint64_t mask) noexcept nogil:
    """Whether those of its bytes are digits whose bits are in the mask."""
    return word & mask == DIGIT_BITS & mask and word + ABOVE_NINE & mask == DIGIT_BITS & mask
