"""The header lines of answers to background jobs, the Location of each among them, at little cost.

Theory of operation. A background job is the cheapest that there is, and few of its ids are ever asked for. So what the
lines of one have in common with those of the one before is kept as text, and with it the state of the hash that becomes
the tag (gateway/job_ids): what jobs of the same token have in common that the same job server has queued in the same
second (Origin), and, for each function, all of the lines (Template). For a job its number and the last digits of its
handle are put into that text, and their one word into the hash.
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
    LAST_DIGITS,
    MOST_HANDLE_DIGITS,
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
from gatewayx.gateway.job_request cimport HANDLE_NAME, JobRequest
from gatewayx.gearman.job cimport Job

cdef enum:
    # Digits are read and written as words.
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


cdef inline bint _are_digits(uint64_t word, uint64_t mask) noexcept nogil:
    """Whether those of its bytes are digits whose high bits are in the mask."""
    return word & mask == DIGIT_BITS & mask and word + ABOVE_NINE & mask == DIGIT_BITS & mask


cdef inline bint _begins_with(const char* text, const char* head, Py_ssize_t size) noexcept nogil:
    """Whether the text begins with these bytes; both have the memory of a word."""
    if size > WORD_BYTES:
        return memcmp(text, head, size) == 0
    return size == 0 or (word_at(text) ^ word_at(head)) << 8 * (WORD_BYTES - size) == 0


@cython.final
cdef class BackgroundLocations:
    """Makes these lines. ids: which sign. place, mark: of the process that submits."""

    def __cinit__(self):
        self.origins = <Origin*> calloc(ORIGINS, sizeof(Origin))
        self.templates = <Template*> calloc(TEMPLATES, sizeof(Template))
        if self.origins == NULL or self.templates == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.origins)
        free(self.templates)

    def __init__(self, JobIds ids not None, int place, uint32_t mark):
        self.ids = ids
        self.submitter.place = place
        self.submitter.mark = mark
        self.origins_of = [None] * ORIGINS
        self.functions = [None] * TEMPLATES

    cdef Py_ssize_t put_lines(
        self,
        JobRequest wanted,
        Job job,
        const char* handle,
        Py_ssize_t handle_bytes,
        long long now_ns,
        char** lines,
    ) except -1:
        cdef unsigned int life = job.carrier.life()
        cdef int origin_index = <int> (((<size_t> <void*> wanted.token_mark >> 5) + life) % ORIGINS)
        cdef int index = <int> (((<size_t> <void*> wanted.function >> 5) + origin_index) % TEMPLATES)
        cdef Origin* origin = &self.origins[origin_index]
        cdef Template* template = &self.templates[index]
        cdef const char* unique_end = wanted.own_unique.text + wanted.own_unique.size
        cdef char[64] padded
        cdef uint64_t handle_word
        cdef uint64_t number_word
        if handle_bytes < WORD_BYTES:
            # A word that ends where the handle does has what stands before it.
            handle = put(put_bytes(padded, HANDLE_NAME), handle, handle_bytes) - handle_bytes
        handle_word = word_at(handle + handle_bytes - WORD_BYTES)
        number_word = word_at(unique_end - WORD_BYTES)
        if (
            origin.life != life
            or origin.handle_bytes != handle_bytes
            or origin.token_mark != <void*> wanted.token_mark
            or not _are_digits(handle_word, origin.digits_mask)
            or not _begins_with(handle, origin.text + origin.handle_at, origin.handle_head_bytes)
            or origin.changes != self.ids.changes
            or (life == 0 and origin.server_name != <void*> job.carrier.server_name)
        ):
            if handle_bytes > MOST_HANDLE_BYTES:
                return 0
            self._make_origin(origin_index, wanted, job, handle, handle_bytes)
        if now_ns >= origin.second_ends_ns or origin.first_number != word_at(unique_end - NUMBER_DIGITS):
            self._begin_second(origin, wanted, now_ns)
        if template.function != <void*> wanted.function or template.stamp != origin.stamp:
            if not self._make_template(index, origin, wanted):
                return 0
        lines[0] = template.text
        # The id's digits first: a word of the handle reaches back over the number's end, which is put behind it.
        memcpy(template.text + template.digits_end - WORD_BYTES, &handle_word, WORD_BYTES)
        memcpy(template.text + template.number_end - WORD_BYTES, &number_word, WORD_BYTES)
        memcpy(template.text + origin.handle_end - WORD_BYTES, &handle_word, WORD_BYTES)
        memcpy(template.text + origin.unique_end - WORD_BYTES, &number_word, WORD_BYTES)
        put_tag(
            template.text + template.digits_end,
            sip_end(
                template.state,
                last_word(number_word, handle_word, origin.handle_digits),
                template.hashed_bytes,
            ),
        )
        return template.size

    cdef int _make_origin(
        self, int index, JobRequest wanted, Job job, const char* handle, Py_ssize_t handle_bytes
    ) except -1:
        """Make the Origin anew, for this job and those that are like it."""
        cdef Origin* origin = &self.origins[index]
        cdef str server_name = job.carrier.server_name
        cdef const char* process = wanted.own_unique.text + wanted.own_unique.size - NUMBER_DIGITS - 1 - PROCESS_BYTES
        cdef int digits = handle_digits_of(handle, handle_bytes)
        cdef int last_digits = min(digits, <int> LAST_DIGITS)
        cdef char* end
        origin.server_name = <void*> server_name
        origin.token_mark = <void*> wanted.token_mark
        self.origins_of[index] = (server_name, wanted.token_mark)
        origin.changes = self.ids.changes
        origin.life = job.carrier.life()
        origin.second_ends_ns = 0
        origin.handle_bytes = handle_bytes
        origin.handle_head_bytes = handle_bytes - last_digits
        origin.handle_digits = digits
        origin.digits_mask = HIGH_BITS << 8 * (WORD_BYTES - last_digits) if last_digits else 0

        end = put_bytes(origin.text, HANDLE_NAME)
        origin.handle_at = <int> (end - origin.text)
        end = put(end, handle, handle_bytes)
        origin.handle_end = <int> (end - origin.text)
        end = put(put_bytes(end, COMMAND_AND_UNIQUE), wanted.own_unique.text, wanted.own_unique.size)
        origin.unique_end = <int> (end - origin.text)
        end = put_bytes(end, LOCATION)
        origin.id_at = <int> (end - origin.text)
        end = put_fixed(end, self.ids.server_mark(server_name), &self.submitter, origin.life)
        end = put_letters(put(end, process, PROCESS_BYTES), handle, handle_bytes - digits)
        end[0] = PART_END
        origin.size = <int> (end + 1 - origin.text)
        memcpy(origin.digits + SECOND_DIGITS + NUMBER_DIGITS, handle + handle_bytes - digits, digits)

        begin_tag(&origin.begun, self.ids.keys[0], c"b", wanted.token_mark)
        sip_padded(&origin.begun, origin.text + origin.id_at, origin.size - origin.id_at)
        return 0

    cdef int _begin_second(self, Origin* origin, JobRequest wanted, long long now_ns) except -1:
        """The present second, and the first digits of this number, are those that it has from now on."""
        cdef char[DIGITS_BYTES] digits
        cdef char* number = origin.digits + SECOND_DIGITS
        cdef timespec now
        cdef long long left
        cdef int place
        clock_gettime(CLOCK_REALTIME, &now)
        origin.second_ends_ns = now_ns + SECOND_NS - now.tv_nsec
        left = now.tv_sec
        for place in range(SECOND_DIGITS - 1, -1, -1):
            origin.digits[place] = <char> (c"0" + left % 10)
            left //= 10
        memcpy(number, wanted.own_unique.text + wanted.own_unique.size - NUMBER_DIGITS, NUMBER_DIGITS)
        origin.first_number = word_at(number)
        put_first_digits(digits, origin.digits, number + NUMBER_DIGITS, origin.handle_digits)
        origin.state = origin.begun
        sip_padded(&origin.state, digits, DIGITS_BYTES)
        self.stamp += 1
        origin.stamp = self.stamp
        return 0

    cdef bint _make_template(self, int index, Origin* origin, JobRequest wanted) except -1:
        cdef Template* template = &self.templates[index]
        cdef bytes function = wanted.function
        cdef Py_ssize_t size = letters_of(PyBytes_GET_SIZE(function)) + 1
        cdef int digits_bytes = SECOND_DIGITS + NUMBER_DIGITS + origin.handle_digits
        cdef char* start = template.text + origin.size
        cdef char* end
        if origin.size - origin.id_at + size + digits_bytes + TAG_LETTERS > MOST_ID_BYTES:
            return False
        memcpy(template.text, origin.text, origin.size)
        end = put_letters(start, PyBytes_AS_STRING(function), PyBytes_GET_SIZE(function))
        end[0] = PART_END
        end = put(end + 1, origin.digits, digits_bytes)
        template.number_end = <int> (end - template.text) - origin.handle_digits
        template.digits_end = <int> (end - template.text)
        end = put(end + TAG_LETTERS, b"\r\n", 2)
        template.size = <int> (end - template.text)
        template.state = origin.state
        sip_padded(&template.state, start, size)
        template.hashed_bytes = hashed_bytes_of(origin.size - origin.id_at, size)
        template.stamp = origin.stamp
        template.function = <void*> function
        self.functions[index] = function
        return True
