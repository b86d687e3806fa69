"""Gearman framing without I/O: bytes in, packets out; and what `serve` sends.

A packet is a 12-byte header (magic, type, body length; the two numbers big-endian) and a body of arguments
separated by NUL bytes, the last of which may hold any bytes (gearmand's PROTOCOL text, "Binary Packet").
"""

cimport cython

cpdef enum:
    HEADER_BYTES = 12
    MAX_ARGUMENTS = 8
    # A first argument is a handle (at most 64 bytes) or a function name (gearmand drops the connection above 8,190).
    MAX_FIRST_ARGUMENT_BYTES = 8192
    # Up to here a packet that has not fully arrived waits in the reader; above, its last arguments get storage of
    # their own, so that every byte is copied once however the packet is cut.
    LARGE_BYTES = 65536
    # gearmand truncates a unique of 64 bytes and refuses more (GEARMAN_MAX_UNIQUE_SIZE counts the final NUL).
    MAX_UNIQUE_BYTES = 63
    # "All job handle arguments must not be longer than 64 bytes, including NULL terminator" (PROTOCOL).
    MAX_HANDLE_BYTES = 63
    # gearmand drops the connection that sends a longer one.
    MAX_FUNCTION_BYTES = 8190
    # The size field of the header is a uint32.
    MAX_BODY_BYTES = 0xFFFFFFFF

cpdef enum Magic:
    REQUEST = 0x00524551   # "\0REQ"
    RESPONSE = 0x00524553  # "\0RES"

cpdef enum PacketType:
    CAN_DO = 1
    CANT_DO = 2
    RESET_ABILITIES = 3
    PRE_SLEEP = 4
    NOOP = 6
    SUBMIT_JOB = 7
    JOB_CREATED = 8
    GRAB_JOB = 9
    NO_JOB = 10
    JOB_ASSIGN = 11
    WORK_STATUS = 12
    WORK_COMPLETE = 13
    WORK_FAIL = 14
    GET_STATUS = 15
    ECHO_REQ = 16
    ECHO_RES = 17
    SUBMIT_JOB_BG = 18
    ERROR = 19
    STATUS_RES = 20
    SUBMIT_JOB_HIGH = 21
    SET_CLIENT_ID = 22
    CAN_DO_TIMEOUT = 23
    ALL_YOURS = 24
    WORK_EXCEPTION = 25
    OPTION_REQ = 26
    OPTION_RES = 27
    WORK_DATA = 28
    WORK_WARNING = 29
    GRAB_JOB_UNIQ = 30
    JOB_ASSIGN_UNIQ = 31
    SUBMIT_JOB_HIGH_BG = 32
    SUBMIT_JOB_LOW = 33
    SUBMIT_JOB_LOW_BG = 34
    SUBMIT_JOB_SCHED = 35
    SUBMIT_JOB_EPOCH = 36
    SUBMIT_REDUCE_JOB = 37
    SUBMIT_REDUCE_JOB_BACKGROUND = 38
    GRAB_JOB_ALL = 39
    JOB_ASSIGN_ALL = 40
    GET_STATUS_UNIQUE = 41
    STATUS_RES_UNIQUE = 42

cdef inline bint is_work(int packet_type) noexcept:
    """Whether the packet comes from the worker that runs a job: one of the six WORK types, the handle first."""
    return (
        packet_type == PacketType.WORK_COMPLETE
        or packet_type == PacketType.WORK_FAIL
        or packet_type == PacketType.WORK_EXCEPTION
        or packet_type == PacketType.WORK_DATA
        or packet_type == PacketType.WORK_WARNING
        or packet_type == PacketType.WORK_STATUS
    )

cdef inline bint ends_job(int packet_type) noexcept:
    """Whether the packet is the last one of its job: WORK_COMPLETE, WORK_FAIL or WORK_EXCEPTION."""
    return (
        packet_type == PacketType.WORK_COMPLETE
        or packet_type == PacketType.WORK_FAIL
        or packet_type == PacketType.WORK_EXCEPTION
    )

cdef inline bint is_background(int packet_type) noexcept:
    """Whether a submission is answered by JOB_CREATED alone: one of the three SUBMIT_JOB types that end in BG."""
    return (
        packet_type == PacketType.SUBMIT_JOB_BG
        or packet_type == PacketType.SUBMIT_JOB_HIGH_BG
        or packet_type == PacketType.SUBMIT_JOB_LOW_BG
    )

cpdef enum Taken:
    NEED_MORE = 0  # the rest of a packet has not come yet
    PACKET = 1     # a whole packet: `type` and the arguments are set until the next take() or feed()
    LARGE = 2      # only with announce_large: `type`, `body_bytes` and the first argument of a packet above
                   # LARGE_BYTES are set, the rest is still to come; the caller decides with keep(), keep_start() or
                   # skip()


cdef enum ReaderState:
    READ_HEADER = 0  # between packets, or in the middle of a header
    READ_BODY = 1    # a small body is being gathered in `partial`
    READ_FIRST = 2   # the first argument of a large packet is being gathered in `partial`
    DECIDE = 3       # LARGE was returned: keep(), keep_start() or skip() comes next
    FILL_LARGE = 4   # the rest of a kept packet, or the start of it, goes into `large_rest`
    SKIP_LARGE = 5   # `skip_bytes` of a refused packet are still to be dropped
    FAILED = 6       # the stream is broken; take() raises `failure` from now on


@cython.final
cdef class PacketReader:
    # What this side accepts: Magic.RESPONSE for a client or worker, Magic.REQUEST for a job server.
    cdef readonly unsigned int magic
    # A body above this is an error, or with announce_large never kept unless the caller says keep().
    cdef readonly Py_ssize_t max_body_bytes
    # Report LARGE packets before their body has come.
    cdef readonly bint announce_large
    # Offset in the whole stream of the packet being read, for error messages.
    cdef readonly unsigned long long stream_bytes

    # The packet in hand. A type that ends with a name (WORK_FAIL, JOB_CREATED, OPTION_RES) has one argument more when
    # something stands behind that name.
    cdef readonly int type
    cdef readonly Py_ssize_t body_bytes
    cdef readonly int argument_count
    cdef const char* starts[MAX_ARGUMENTS]
    cdef Py_ssize_t lengths[MAX_ARGUMENTS]

    # Bytes given by feed() and not yet taken; `data` owns what `cursor` and `end` point into.
    cdef bytes data
    cdef const char* cursor
    cdef const char* end
    # Offset in the stream of the packet after the one in hand.
    cdef unsigned long long next_packet_bytes

    # A header that came in pieces.
    cdef char header[HEADER_BYTES]
    cdef Py_ssize_t header_filled
    # A small body, or a large packet's first argument, that came in pieces: of its final size, filled as bytes come.
    cdef bytes partial
    cdef Py_ssize_t partial_filled

    # A large packet: its first argument, and the rest as one object of its final size, filled as bytes come.
    cdef bytes large_first
    cdef bytes large_rest
    cdef Py_ssize_t large_filled
    # How much of a large packet comes after its first argument, and while skipping, how much of it is still to come.
    cdef Py_ssize_t skip_bytes
    # Of a large packet of which only the start is kept: what comes behind that.
    cdef Py_ssize_t cut_bytes
    cdef ReaderState state
    # What broke the stream.
    cdef object failure

    cpdef int feed(self, bytes data) except -1
    # The same for bytes that the caller holds until take() has said NEED_MORE, or the reader is of no use any more; all
    # that was fed before is taken.
    cdef void lend(self, const char* data, Py_ssize_t size) noexcept
    cpdef int take(self) except -1
    cpdef int keep(self) except -1
    cpdef int keep_start(self, Py_ssize_t limit_bytes) except -1
    cpdef int skip(self) except -1
    cpdef bytes argument(self, int index)
    # Copy up to `wanted` fed bytes to `target`; returns how many there were.
    cdef Py_ssize_t move(self, char* target, Py_ssize_t wanted) noexcept
    # One transition each, from the state it is named after; returns what take() shall.
    cdef int read_header(self) except -1
    cdef int start_body(self, const unsigned char* header) except -1
    cdef int read_first(self) except -1
    cdef int announce(self) except -1
    # Point `starts` and `lengths` from argument `index` on at a body or the rest of one.
    cdef int split(self, int index, const char* start, Py_ssize_t size_bytes) except -1
    # The same for a type that ends with a name.
    cdef int split_name(self, int index, const char* start, const char* end) except -1
    # Break the stream: argument `index` lacks its NUL; anything else.
    cdef int fail_separator(self, int index) except -1
    cdef int fail(self, object error, str reason) except -1


# A SUBMIT_JOB* packet in one piece. workload: NULL to leave its bytes out: a large one is written beside the packet, not
# copied. Raises InvalidArgumentError for a function or unique that gearmand would misread or hang up on.
cdef bytes submit_packet(
    int packet_type,
    bytes function,
    const char* unique,
    Py_ssize_t unique_bytes,
    const char* workload,
    Py_ssize_t workload_bytes,
)
# Any packet but its last argument's own bytes; `leading` are the arguments before that one.
cdef bytes packet_head(unsigned int magic, int packet_type, tuple leading, Py_ssize_t last_bytes)
# A whole packet, its arguments unchecked: for those that came out of a packet or were checked before.
cdef bytes pack(unsigned int magic, int packet_type, tuple leading, bytes last)

# The name of a known packet type, for messages.
cdef str type_name(int packet_type)
# How many arguments a packet of a type has, the one that may hold any bytes included; -1 for what is no type.
cdef int count_arguments(int packet_type) noexcept

# Refuse a NUL, which would shift the arguments after it, and what gearmand would truncate or hang up on.
cdef int check_text(bytes value, str what, Py_ssize_t limit_bytes) except -1
# The same for the two arguments that every submission begins with.
cdef int check_submit(bytes function, bytes unique) except -1
