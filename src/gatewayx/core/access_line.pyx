"""One line of the access log, composed from a struct without any object of Python.

Theory of operation. A line is an object of JSON in UTF-8 whose keys have a fixed order, and a line end. No text in it
needs an escape of JSON: what would is written as `%XX`, as in a URL, and so is each byte that is no part of valid UTF-8.
So what stands between two quotes is what was there, once it is percent-decoded. Where a text is a name as it was decoded
(`function`, `handle`, `unique`, `client_id`) a percent sign is written as `%25`, and decoding gives the very bytes. Where
it is as it was sent (`path`) a percent sign stays what it is, and decoding gives what decoding the original gives.

Each text has a bound of its own, and all bounds with all numbers at their longest are less than a line. A text is cut
before the first character or `%XX` that does not fit, and `"cut":true` at the end of the line says that one was.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint64_t
from libc.string cimport memcpy, memset, strlen

from gatewayx.core.digits cimport put_decimal

# The fields in the order of the line.
FIELDS = (
    "time",
    "id",
    "client_id",
    "trace",
    "client",
    "token",
    "method",
    "path",
    "function",
    "status",
    "outcome",
    "bytes_in",
    "bytes_out",
    "duration_s",
    "job_s",
    "server",
    "handle",
    "unique",
    "connection",
    "request",
    "cut",
)
# Bytes of each text at most.
TEXT_BYTES = {
    "id": MAX_ID_TEXT_BYTES,
    "client_id": MAX_CLIENT_ID_TEXT_BYTES,
    "trace": MAX_TRACE_TEXT_BYTES,
    "client": MAX_CLIENT_TEXT_BYTES,
    "token": MAX_TOKEN_TEXT_BYTES,
    "method": MAX_WORD_TEXT_BYTES,
    "path": MAX_PATH_TEXT_BYTES,
    "function": MAX_FUNCTION_TEXT_BYTES,
    "outcome": MAX_WORD_TEXT_BYTES,
    "server": MAX_SERVER_TEXT_BYTES,
    "handle": MAX_HANDLE_TEXT_BYTES,
    "unique": MAX_HANDLE_TEXT_BYTES,
}
LINE_BYTES = MAX_LINE_BYTES

cdef enum:
    NS_PER_S = 1_000_000_000
    NS_PER_US = 1_000
    S_PER_DAY = 86_400
    # "2026-11-27T17:48:05"
    SECOND_BYTES = 19
    # The longest character as %XX.
    LONGEST_ESCAPE_BYTES = 12

# The last second of the year 9999: RFC 3339 has no later one.
cdef long long LAST_S = 253_402_300_799

cdef enum:
    PLAIN = 0
    PERCENT = 1
    # Written as %XX wherever it is: control bytes, the quote and the backslash.
    ESCAPED = 2
    # The beginning of a character of several bytes, or no part of any.
    LEADING = 3

cdef unsigned char[256] KINDS
cdef const char* HEX = "0123456789ABCDEF"

# The second that was written last: most lines have the one before them's.
cdef long long written_s = -1
cdef char[SECOND_BYTES] written_second


cdef void _begin() noexcept:
    cdef int byte
    for byte in range(256):
        KINDS[byte] = LEADING if byte >= 0x80 else ESCAPED if byte < 0x20 or byte == 0x7F else PLAIN
    KINDS[c'"'] = KINDS[c"\\"] = ESCAPED
    KINDS[c"%"] = PERCENT


_begin()


cdef inline char* put_key(char* end, const char* key) noexcept nogil:
    cdef size_t key_bytes = strlen(key)
    memcpy(end, key, key_bytes)
    return end + key_bytes


cdef inline char* put_padded(char* end, unsigned long long number, int digits) noexcept nogil:
    """Exactly so many digits."""
    cdef int place
    for place in range(digits - 1, -1, -1):
        end[place] = <char> (c"0" + number % 10)
        number //= 10
    return end + digits


cdef inline char* put_count(char* end, long long count) noexcept nogil:
    return put_decimal(end, <unsigned long long> count if count > 0 else 0)


cdef inline char* put_seconds(char* end, long long time_ns) noexcept nogil:
    """Seconds with six decimals."""
    if time_ns < 0:
        time_ns = 0
    end = put_decimal(end, <unsigned long long> (time_ns // NS_PER_S))
    end[0] = c"."
    return put_padded(end + 1, <unsigned long long> (time_ns % NS_PER_S // NS_PER_US), 6)


cdef void write_second(long long time_s) noexcept nogil:
    """Write the date and time of this second, as of RFC 3339, in UTC, to `written_second`."""
    global written_s
    # Howard Hinnant, "chrono-compatible low-level date algorithms", civil_from_days, for days since 1970.
    cdef long long days = time_s // S_PER_DAY + 719_468
    cdef long long era = days // 146_097
    cdef long long day_of_era = days % 146_097
    cdef long long year_of_era = (day_of_era - day_of_era // 1_460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    cdef long long day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    cdef long long shifted_month = (5 * day_of_year + 2) // 153
    cdef long long month = shifted_month + 3 if shifted_month < 10 else shifted_month - 9
    cdef long long second_of_day = time_s % S_PER_DAY
    cdef char* end = written_second
    end = put_padded(end, <unsigned long long> (year_of_era + era * 400 + (1 if month <= 2 else 0)), 4)
    end[0] = c"-"
    end = put_padded(end + 1, <unsigned long long> month, 2)
    end[0] = c"-"
    end = put_padded(end + 1, <unsigned long long> (day_of_year - (153 * shifted_month + 2) // 5 + 1), 2)
    end[0] = c"T"
    end = put_padded(end + 1, <unsigned long long> (second_of_day // 3_600), 2)
    end[0] = c":"
    end = put_padded(end + 1, <unsigned long long> (second_of_day // 60 % 60), 2)
    end[0] = c":"
    put_padded(end + 1, <unsigned long long> (second_of_day % 60), 2)
    written_s = time_s


cdef inline char* put_time(char* end, long long time_ns) noexcept nogil:
    cdef long long time_s
    if time_ns < 0:
        time_ns = 0
    time_s = time_ns // NS_PER_S
    if time_s > LAST_S:
        time_s = LAST_S
    if time_s != written_s:
        write_second(time_s)
    memcpy(end, written_second, SECOND_BYTES)
    end += SECOND_BYTES
    end[0] = c"."
    end = put_padded(end + 1, <unsigned long long> (time_ns % NS_PER_S // NS_PER_US), 6)
    end[0] = c"Z"
    return end + 1


cdef inline bint is_following(unsigned char byte) noexcept nogil:
    return byte & 0xC0 == 0x80


cdef int character_bytes(const unsigned char* text, Py_ssize_t size) noexcept nogil:
    """How long the character is that begins here, with a byte above 0x7F; 0 if none of valid UTF-8 does (RFC 3629)."""
    cdef unsigned char first = text[0]
    cdef unsigned char lowest = 0x80
    cdef unsigned char highest = 0xBF
    if 0xC2 <= first <= 0xDF:
        return 2 if size >= 2 and is_following(text[1]) else 0
    # Neither what has a shorter form, nor surrogates, nor beyond U+10FFFF.
    if first == 0xE0:
        lowest = 0xA0
    elif first == 0xED:
        highest = 0x9F
    elif first == 0xF0:
        lowest = 0x90
    elif first == 0xF4:
        highest = 0x8F
    if 0xE0 <= first <= 0xEF:
        return 3 if size >= 3 and lowest <= text[1] <= highest and is_following(text[2]) else 0
    if 0xF0 <= first <= 0xF4 and size >= 4:
        return 4 if lowest <= text[1] <= highest and is_following(text[2]) and is_following(text[3]) else 0
    return 0


cdef bint is_unseen(const unsigned char* text, int length) noexcept nogil:
    """Whether a character drives a terminal, ends a line for some reader, or turns the direction of what stands by it."""
    if length == 2:
        # C1 controls; ARABIC LETTER MARK.
        return (text[0] == 0xC2 and text[1] <= 0x9F) or (text[0] == 0xD8 and text[1] == 0x9C)
    if length != 3:
        return False
    if text[0] == 0xE2 and text[1] == 0x80:
        # U+200E, U+200F; U+2028 to U+202E.
        return 0x8E <= text[2] <= 0x8F or 0xA8 <= text[2] <= 0xAE
    # U+2066 to U+2069; U+FEFF.
    return (text[0] == 0xE2 and text[1] == 0x81 and 0xA6 <= text[2] <= 0xA9) or (
        text[0] == 0xEF and text[1] == 0xBB and text[2] == 0xBF
    )


cdef inline char* put_escaped(char* end, const unsigned char* text, int size) noexcept nogil:
    cdef int place
    for place in range(size):
        end[0] = c"%"
        end[1] = HEX[text[place] >> 4]
        end[2] = HEX[text[place] & 15]
        end += 3
    return end


cdef char* put_text(char* end, Slice text, int most_bytes, bint is_name, bint* cut) noexcept nogil:
    """Write a text and the quote behind it. is_name: a percent sign in it means itself."""
    cdef const unsigned char* place = <const unsigned char*> text.start
    cdef const unsigned char* text_end = place + text.size
    cdef const unsigned char* run_end
    cdef char* last = end + most_bytes
    cdef unsigned char as_it_is = PLAIN if is_name else PERCENT
    cdef int length
    while True:
        run_end = text_end if text_end - place < last - end else place + (last - end)
        while place < run_end and KINDS[place[0]] <= as_it_is:
            end[0] = <char> place[0]
            end += 1
            place += 1
        if place == text_end:
            break
        length = character_bytes(place, text_end - place) if KINDS[place[0]] == LEADING else 0
        if length and not is_unseen(place, length):
            if last - end < length:
                cut[0] = True
                break
            memcpy(end, place, length)
            end += length
        else:
            # A byte alone, if it belongs to no character.
            length = length or 1
            if last - end < 3 * length:
                cut[0] = True
                break
            end = put_escaped(end, place, length)
        place += length
    end[0] = c'"'
    return end + 1


cdef inline char* put_field(
    char* end, const char* key, Slice text, int most_bytes, bint is_name, bint* cut
) noexcept nogil:
    """Write a field with its text; nothing if there is none."""
    return end if text.start == NULL else put_text(put_key(end, key), text, most_bytes, is_name, cut)


cdef Py_ssize_t compose(char* line, const AccessEntry* entry) noexcept nogil:
    cdef bint cut = False
    cdef char* end = put_key(line, b'{"time":"')
    end = put_time(end, entry.time_ns)
    end[0] = c'"'
    end += 1
    end = put_field(end, b',"id":"', entry.id, MAX_ID_TEXT_BYTES, False, &cut)
    end = put_field(end, b',"client_id":"', entry.client_id, MAX_CLIENT_ID_TEXT_BYTES, True, &cut)
    end = put_field(end, b',"trace":"', entry.trace, MAX_TRACE_TEXT_BYTES, False, &cut)
    end = put_field(end, b',"client":"', entry.client, MAX_CLIENT_TEXT_BYTES, False, &cut)
    end = put_field(end, b',"token":"', entry.token, MAX_TOKEN_TEXT_BYTES, False, &cut)
    end = put_field(end, b',"method":"', entry.method, MAX_WORD_TEXT_BYTES, False, &cut)
    end = put_field(end, b',"path":"', entry.path, MAX_PATH_TEXT_BYTES, False, &cut)
    end = put_field(end, b',"function":"', entry.function, MAX_FUNCTION_TEXT_BYTES, True, &cut)
    end = put_count(put_key(end, b',"status":'), entry.status)
    end = put_field(end, b',"outcome":"', entry.outcome, MAX_WORD_TEXT_BYTES, False, &cut)
    end = put_count(put_key(end, b',"bytes_in":'), entry.bytes_in)
    end = put_count(put_key(end, b',"bytes_out":'), entry.bytes_out)
    end = put_seconds(put_key(end, b',"duration_s":'), entry.duration_ns)
    if entry.job_ns >= 0:
        end = put_seconds(put_key(end, b',"job_s":'), entry.job_ns)
    end = put_field(end, b',"server":"', entry.server, MAX_SERVER_TEXT_BYTES, False, &cut)
    end = put_field(end, b',"handle":"', entry.handle, MAX_HANDLE_TEXT_BYTES, True, &cut)
    end = put_field(end, b',"unique":"', entry.unique, MAX_HANDLE_TEXT_BYTES, True, &cut)
    end = put_decimal(put_key(end, b',"connection":'), entry.connection)
    end = put_decimal(put_key(end, b',"request":'), entry.request)
    if cut:
        end = put_key(end, b',"cut":true')
    end = put_key(end, b"}\n")
    return end - line


cdef bint is_sampled(const char* id, Py_ssize_t id_bytes, unsigned long long threshold) noexcept nogil:
    # FNV-1a; its upper bits hardly depend on the last bytes, so they are mixed as at the end of MurmurHash3.
    cdef uint64_t hashed = 0xCBF29CE484222325
    cdef Py_ssize_t place
    for place in range(id_bytes):
        hashed = (hashed ^ <unsigned char> id[place]) * <uint64_t> 0x100000001B3
    hashed = (hashed ^ (hashed >> 33)) * <uint64_t> 0xFF51AFD7ED558CCD
    hashed = (hashed ^ (hashed >> 33)) * <uint64_t> 0xC4CEB9FE1A85EC53
    return (hashed ^ (hashed >> 33)) < threshold


cdef unsigned long long threshold_of(double part) noexcept nogil:
    if part <= 0:
        return 0
    # The product of a part below 1 is a double below 2**64.
    return 0xFFFFFFFFFFFFFFFF if part >= 1 else <unsigned long long> (part * 18446744073709551616.0)


cdef Slice _slice(dict fields, str name) except *:
    cdef Slice found
    text = fields.get(name)
    found.start = NULL
    found.size = 0
    if text is not None:
        found.start = PyBytes_AS_STRING(text)
        found.size = PyBytes_GET_SIZE(text)
    return found


cdef int fill(AccessEntry* entry, dict fields) except -1:
    for name, value in fields.items():
        if name in TEXT_BYTES and value is not None and not isinstance(value, bytes):
            raise TypeError(f"{name} must be bytes")
    memset(entry, 0, sizeof(AccessEntry))
    entry.time_ns = fields.get("time_ns", 0)
    entry.id = _slice(fields, "id")
    entry.client_id = _slice(fields, "client_id")
    entry.trace = _slice(fields, "trace")
    entry.client = _slice(fields, "client")
    entry.token = _slice(fields, "token")
    entry.method = _slice(fields, "method")
    entry.path = _slice(fields, "path")
    entry.function = _slice(fields, "function")
    entry.status = fields.get("status", 0)
    entry.outcome = _slice(fields, "outcome")
    entry.bytes_in = fields.get("bytes_in", 0)
    entry.bytes_out = fields.get("bytes_out", 0)
    entry.duration_ns = fields.get("duration_ns", 0)
    entry.job_ns = fields.get("job_ns", -1)
    entry.server = _slice(fields, "server")
    entry.handle = _slice(fields, "handle")
    entry.unique = _slice(fields, "unique")
    entry.connection = fields.get("connection", 0)
    entry.request = fields.get("request", 0)
    return 0


def line_of(**fields):
    """The line of an entry whose fields are given by name: texts as bytes or None, numbers as int; for tests."""
    cdef AccessEntry entry
    cdef char[MAX_LINE_BYTES] line
    fill(&entry, fields)
    return PyBytes_FromStringAndSize(line, compose(line, &entry))


def in_sample(bytes id not None, double part):
    """Whether a request of this id is in a sample of this part, as the access log decides it."""
    return part >= 1 or is_sampled(PyBytes_AS_STRING(id), PyBytes_GET_SIZE(id), threshold_of(part))
