"""Gearman framing without I/O: `PacketReader` turns bytes into packets, `pack` and `submit_*` values into bytes.

Theory of operation. A packet that lies whole in the bytes just fed is never copied: its arguments are pointers into
them. One that does not is gathered into storage of its final size, every byte copied once: a body of up to
LARGE_BYTES in `partial`; of a larger one the first argument (a handle or a function name, so that the reader's owner
can tell whose packet it is) and the rest as one object, which is handed out as it is. The work and the storage are
thus linear in the bytes received, however they are cut.

Which side may send which type is not a matter of framing: gearmand answers a known but unexpected type with ERROR
and goes on (libgearman-server/server.cc, gearman_server_run_command), so the reader's owner decides.

Bytes behind the last argument belong to it where it may hold any bytes. Where it is a name, which holds no NUL, they
are an argument of their own: workers put a reason behind the handle of a WORK_FAIL, and gearmand passes it on as it came.
"""

from typing import NamedTuple

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memchr, memcpy

from gatewayx.core.digits cimport put

from gatewayx.gearman.errors import (
    BadMagicError,
    InvalidArgumentError,
    InvalidStateError,
    MalformedPacketError,
    PacketTooLargeError,
    UnknownPacketTypeError,
)

cdef enum:
    LAST_PACKET_TYPE = PacketType.STATUS_RES_UNIQUE
    UNKNOWN = -1

# How many arguments a type has, opaque data included (libgearman/command.cc, gearmand_command_info_list).
cdef signed char[LAST_PACKET_TYPE + 1] ARGUMENT_COUNTS
ARGUMENT_COUNTS[:] = [
    UNKNOWN,  # a text command in gearmand's table, never a type on the wire
    1,  # CAN_DO
    1,  # CANT_DO
    0,  # RESET_ABILITIES
    0,  # PRE_SLEEP
    UNKNOWN,
    0,  # NOOP
    3,  # SUBMIT_JOB
    1,  # JOB_CREATED
    0,  # GRAB_JOB
    0,  # NO_JOB
    3,  # JOB_ASSIGN
    3,  # WORK_STATUS
    2,  # WORK_COMPLETE
    1,  # WORK_FAIL
    1,  # GET_STATUS
    1,  # ECHO_REQ
    1,  # ECHO_RES
    3,  # SUBMIT_JOB_BG
    2,  # ERROR
    5,  # STATUS_RES
    3,  # SUBMIT_JOB_HIGH
    1,  # SET_CLIENT_ID
    2,  # CAN_DO_TIMEOUT
    0,  # ALL_YOURS
    2,  # WORK_EXCEPTION
    1,  # OPTION_REQ
    1,  # OPTION_RES
    2,  # WORK_DATA
    2,  # WORK_WARNING
    0,  # GRAB_JOB_UNIQ
    4,  # JOB_ASSIGN_UNIQ
    3,  # SUBMIT_JOB_HIGH_BG
    3,  # SUBMIT_JOB_LOW
    3,  # SUBMIT_JOB_LOW_BG
    8,  # SUBMIT_JOB_SCHED
    4,  # SUBMIT_JOB_EPOCH
    5,  # SUBMIT_REDUCE_JOB
    5,  # SUBMIT_REDUCE_JOB_BACKGROUND
    0,  # GRAB_JOB_ALL
    5,  # JOB_ASSIGN_ALL
    1,  # GET_STATUS_UNIQUE
    6,  # STATUS_RES_UNIQUE
]

DEFAULT_MAX_BODY_BYTES = 64 * 1024 * 1024


class Packet(NamedTuple):
    """One packet, for tests, tools and everything else that may be slow."""

    type: PacketType
    arguments: tuple[bytes, ...]


cdef inline unsigned int read_uint32(const unsigned char* source) noexcept:
    return (<unsigned int>source[0] << 24) | (source[1] << 16) | (source[2] << 8) | source[3]


cdef inline void write_uint32(unsigned char* target, unsigned int value) noexcept:
    target[0] = value >> 24
    target[1] = (value >> 16) & 0xFF
    target[2] = (value >> 8) & 0xFF
    target[3] = value & 0xFF


cdef inline void write_header(
    unsigned char* target, unsigned int magic, int packet_type, Py_ssize_t body_bytes
) noexcept:
    write_uint32(target, magic)
    write_uint32(target + 4, packet_type)
    write_uint32(target + 8, <unsigned int> body_bytes)


cdef inline int check_body(Py_ssize_t head_bytes, Py_ssize_t last_bytes) except -1:
    if last_bytes > MAX_BODY_BYTES - head_bytes:
        raise InvalidArgumentError(f"a body above {MAX_BODY_BYTES} bytes does not fit in a packet")
    return 0


cdef inline bint ends_with_name(int packet_type) noexcept:
    """Its one argument is a name, and whatever stands behind it is no part of that."""
    return (
        packet_type == PacketType.WORK_FAIL
        or packet_type == PacketType.JOB_CREATED
        or packet_type == PacketType.OPTION_RES
    )


cdef int count_arguments(int packet_type) noexcept:
    return UNKNOWN if packet_type < 0 or packet_type > LAST_PACKET_TYPE else ARGUMENT_COUNTS[packet_type]


cdef str type_name(int packet_type):
    return PacketType(packet_type).name


@cython.final
cdef class PacketReader:
    """Bytes of one connection in, packets out.

    Call `feed()` with what arrived, then `take()` until it says NEED_MORE; only then feed again, so that nothing is
    copied twice. After an error every further `take()` raises that error again: framing is lost.

    magic: `Magic.REQUEST` in a job server, `Magic.RESPONSE` in a client or worker; any other raises
        InvalidArgumentError.
    max_body_bytes: a body above it raises PacketTooLargeError, or with `announce_large` is left to the caller.
    announce_large: return LARGE as soon as a packet above LARGE_BYTES that has not fully arrived, or one above
        `max_body_bytes`, has shown its first argument; the caller answers with `keep()`, `keep_start()` or `skip()`. A
        type whose one argument may hold any bytes (ECHO_RES) has none to show: it is announced at once,
        `argument_count` being 0.
    """

    def __cinit__(
        self,
        unsigned int magic,
        *,
        Py_ssize_t max_body_bytes=DEFAULT_MAX_BODY_BYTES,
        bint announce_large=False,
    ):
        if magic != Magic.REQUEST and magic != Magic.RESPONSE:
            raise InvalidArgumentError(f"magic {magic:#010x} is none of the protocol's")
        if max_body_bytes < 0:
            raise InvalidArgumentError(f"max_body_bytes {max_body_bytes} is below 0")
        self.magic = magic
        self.max_body_bytes = max_body_bytes
        self.announce_large = announce_large
        self.state = READ_HEADER

    cpdef int feed(self, bytes data) except -1:
        """Give the reader bytes as they arrived; they are kept, not copied, until they are taken."""
        if self.cursor != self.end:
            data = PyBytes_FromStringAndSize(self.cursor, self.end - self.cursor) + data
        self.data = data
        self.cursor = PyBytes_AS_STRING(data)
        self.end = self.cursor + len(data)
        return 0

    cdef void lend(self, const char* data, Py_ssize_t size) noexcept:
        self.cursor = data
        self.end = data + size

    cpdef int take(self) except -1:
        """Advance to the next packet and return a `Taken`.

        Raises BadMagicError, UnknownPacketTypeError, MalformedPacketError or PacketTooLargeError, the peer's fault;
        InvalidStateError if a LARGE packet was neither kept nor skipped.
        """
        cdef int taken = NEED_MORE
        while taken == NEED_MORE:
            if self.state == READ_HEADER:
                self.partial = None
                self.large_first = None
                self.large_rest = None
                self.argument_count = 0
                if self.cursor == self.end:
                    break
                taken = self.read_header()
            elif self.state == READ_BODY:
                self.partial_filled += self.move(
                    PyBytes_AS_STRING(self.partial) + self.partial_filled, self.body_bytes - self.partial_filled
                )
                if self.partial_filled < self.body_bytes:
                    break
                taken = self.split(0, PyBytes_AS_STRING(self.partial), self.body_bytes)
            elif self.state == READ_FIRST:
                if self.cursor == self.end:
                    break
                taken = self.read_first()
            elif self.state == FILL_LARGE:
                self.large_filled += self.move(
                    PyBytes_AS_STRING(self.large_rest) + self.large_filled, self.skip_bytes - self.large_filled
                )
                if self.large_filled < self.skip_bytes:
                    break
                taken = self.split(self.argument_count, PyBytes_AS_STRING(self.large_rest), self.skip_bytes)
                if self.cut_bytes:
                    self.skip_bytes, self.cut_bytes = self.cut_bytes, 0
                    self.state = SKIP_LARGE
            elif self.state == SKIP_LARGE:
                if self.skip_bytes > self.end - self.cursor:
                    self.skip_bytes -= self.end - self.cursor
                    self.cursor = self.end
                    break
                self.cursor += self.skip_bytes
                self.state = READ_HEADER
            elif self.state == DECIDE:
                raise InvalidStateError("take() before keep(), keep_start() or skip() of a LARGE packet")
            else:
                raise self.failure
        if taken == NEED_MORE:
            # Every byte was consumed: an idle connection holds on to none of what it received.
            self.data = None
            self.cursor = self.end = NULL
        return taken

    cpdef int keep(self) except -1:
        """Gather the LARGE packet; a later `take()` returns it as PACKET.

        Storage of the final size is taken now, on the peer's word: memory that the peer never fills is never touched.
        Raises InvalidStateError unless `take()` just returned LARGE.
        """
        if self.state != DECIDE:
            raise InvalidStateError("keep() without a LARGE packet")
        self.large_rest = PyBytes_FromStringAndSize(NULL, self.skip_bytes)
        self.large_filled = 0
        self.state = FILL_LARGE
        return 0

    cpdef int keep_start(self, Py_ssize_t limit_bytes) except -1:
        """Gather at most `limit_bytes` of what follows the LARGE packet's first argument, and drop what is behind them.

        A later `take()` returns the packet as PACKET once those bytes are here. For types with at most one argument
        behind the first: another one's separator might be among what is dropped. Raises InvalidStateError unless
        `take()` just returned LARGE.
        """
        if self.state == DECIDE and self.skip_bytes > limit_bytes:
            self.cut_bytes = self.skip_bytes - limit_bytes
            self.skip_bytes = limit_bytes
        return self.keep()

    cpdef int skip(self) except -1:
        """Drop the LARGE packet without storing it, also in the middle of one that was kept; the stream goes on.

        Raises InvalidStateError unless a LARGE packet is undecided or being gathered.
        """
        if self.state == FILL_LARGE:
            self.skip_bytes += self.cut_bytes - self.large_filled
            self.cut_bytes = 0
        elif self.state != DECIDE:
            raise InvalidStateError("skip() without a LARGE packet")
        self.large_first = None
        self.large_rest = None
        self.argument_count = 0
        self.state = SKIP_LARGE
        return 0

    cpdef bytes argument(self, int index):
        """Argument `index` (from 0) of the packet in hand; raises InvalidArgumentError if it has no such argument."""
        if index < 0 or index >= self.argument_count:
            raise InvalidArgumentError(f"argument {index} of a packet with {self.argument_count}")
        if (
            self.large_rest is not None
            and self.starts[index] == PyBytes_AS_STRING(self.large_rest)
            and self.lengths[index] == PyBytes_GET_SIZE(self.large_rest)
        ):
            return self.large_rest
        return PyBytes_FromStringAndSize(self.starts[index], self.lengths[index])

    def packets(self):
        """Iterate over the whole packets that have been fed, as `Packet`s.

        Raises what `take()` raises, and InvalidStateError on a reader that announces large packets.
        """
        if self.announce_large:
            raise InvalidStateError("packets() cannot decide about LARGE packets")
        while self.take() == PACKET:
            yield Packet(PacketType(self.type), tuple([self.argument(i) for i in range(self.argument_count)]))

    cdef Py_ssize_t move(self, char* target, Py_ssize_t wanted) noexcept:
        cdef Py_ssize_t moved = min(wanted, self.end - self.cursor)
        memcpy(target, self.cursor, moved)
        self.cursor += moved
        return moved

    cdef int read_header(self) except -1:
        cdef const unsigned char* header
        if self.header_filled == 0 and self.end - self.cursor >= HEADER_BYTES:
            header = <const unsigned char*>self.cursor
            self.cursor += HEADER_BYTES
        else:
            self.header_filled += self.move(&self.header[self.header_filled], HEADER_BYTES - self.header_filled)
            if self.header_filled < HEADER_BYTES:
                return NEED_MORE
            self.header_filled = 0
            header = <const unsigned char*>self.header
        return self.start_body(header)

    cdef int start_body(self, const unsigned char* header) except -1:
        cdef unsigned int magic = read_uint32(header)
        cdef unsigned int packet_type = read_uint32(header + 4)
        cdef Py_ssize_t body_bytes = read_uint32(header + 8)
        cdef const char* body
        cdef int count
        self.stream_bytes = self.next_packet_bytes
        self.next_packet_bytes += HEADER_BYTES + body_bytes
        self.type = UNKNOWN
        self.body_bytes = body_bytes
        if magic != self.magic:
            self.fail(BadMagicError, f"bad magic {magic:08x}, expected {self.magic:08x}")
        if packet_type > LAST_PACKET_TYPE or ARGUMENT_COUNTS[packet_type] == UNKNOWN:
            self.fail(UnknownPacketTypeError, f"unknown packet type {packet_type}")
        self.type = packet_type
        count = ARGUMENT_COUNTS[packet_type]
        if count == 0 and body_bytes != 0:
            self.fail(MalformedPacketError, f"body of {body_bytes} bytes in a type without arguments")
        if (
            count == 1
            and body_bytes > MAX_FIRST_ARGUMENT_BYTES
            and not ends_with_name(packet_type)
            and packet_type != PacketType.ECHO_REQ
            and packet_type != PacketType.ECHO_RES
        ):
            self.fail(MalformedPacketError, f"argument of {body_bytes} bytes, above {MAX_FIRST_ARGUMENT_BYTES}")
        if body_bytes > self.max_body_bytes and not self.announce_large:
            self.fail(PacketTooLargeError, f"body of {body_bytes} bytes, above {self.max_body_bytes}")

        if body_bytes <= self.end - self.cursor and body_bytes <= self.max_body_bytes:
            body = self.cursor
            self.cursor += body_bytes
            return self.split(0, body, body_bytes)
        self.partial_filled = 0
        if body_bytes <= LARGE_BYTES and body_bytes <= self.max_body_bytes:
            self.partial = PyBytes_FromStringAndSize(NULL, body_bytes)
            self.state = READ_BODY
            return NEED_MORE
        if count == 1 and not ends_with_name(packet_type):
            self.skip_bytes = body_bytes
            return self.announce()
        self.state = READ_FIRST
        return NEED_MORE

    cdef int read_first(self) except -1:
        cdef Py_ssize_t limit = min(self.body_bytes, MAX_FIRST_ARGUMENT_BYTES + 1) - self.partial_filled
        cdef Py_ssize_t scanned = min(limit, self.end - self.cursor)
        cdef const char* separator = <const char*>memchr(self.cursor, 0, scanned)
        cdef char* gathered
        # A name may be all there is.
        cdef bint ends = separator == NULL and scanned == limit and ends_with_name(self.type) and (
            self.body_bytes <= MAX_FIRST_ARGUMENT_BYTES
        )
        if ends:
            separator = self.cursor + scanned
        if separator == NULL and scanned == limit:
            self.fail_separator(0)
        if separator == NULL or self.partial_filled:
            if self.partial is None:
                self.partial = PyBytes_FromStringAndSize(NULL, MAX_FIRST_ARGUMENT_BYTES + 1)
            gathered = PyBytes_AS_STRING(self.partial)
            if separator == NULL:
                self.partial_filled += self.move(gathered + self.partial_filled, scanned)
                return NEED_MORE
            self.partial_filled += self.move(gathered + self.partial_filled, separator - self.cursor)
            self.large_first = PyBytes_FromStringAndSize(gathered, self.partial_filled)
            self.partial = None
        else:
            self.large_first = PyBytes_FromStringAndSize(self.cursor, separator - self.cursor)
        self.cursor = separator if ends else separator + 1
        self.starts[0] = PyBytes_AS_STRING(self.large_first)
        self.lengths[0] = PyBytes_GET_SIZE(self.large_first)
        self.argument_count = 1
        self.skip_bytes = 0 if ends else self.body_bytes - self.lengths[0] - 1
        return self.announce()

    cdef int announce(self) except -1:
        self.state = DECIDE
        if self.announce_large:
            return LARGE
        self.keep()
        return NEED_MORE

    cdef int split(self, int index, const char* start, Py_ssize_t size_bytes) except -1:
        cdef int last = ARGUMENT_COUNTS[self.type] - 1
        cdef const char* end = start + size_bytes
        cdef const char* separator
        if ends_with_name(self.type):
            return self.split_name(index, start, end)
        while index < last:
            separator = <const char*>memchr(start, 0, end - start)
            if separator == NULL or (index == 0 and separator - start > MAX_FIRST_ARGUMENT_BYTES):
                self.fail_separator(index)
            self.starts[index] = start
            self.lengths[index] = separator - start
            start = separator + 1
            index += 1
        if last >= 0:
            self.starts[last] = start
            self.lengths[last] = end - start
        self.argument_count = last + 1
        self.state = READ_HEADER
        return PACKET

    cdef int split_name(self, int index, const char* start, const char* end) except -1:
        cdef const char* separator
        if index == 0:
            separator = <const char*>memchr(start, 0, end - start)
            self.starts[0] = start
            self.lengths[0] = (end if separator == NULL else separator) - start
            if self.lengths[0] > MAX_FIRST_ARGUMENT_BYTES:
                self.fail_separator(0)
            start = end if separator == NULL else separator + 1
        # gearmand's WORK_FAIL in place of a WORK_EXCEPTION keeps the handle's NUL (server.cc, _server_queue_work_data),
        # and a sender in C may keep that of what follows.
        if end > start and (end - 1)[0] == 0:
            end -= 1
        self.argument_count = 1
        if end > start:
            self.starts[1] = start
            self.lengths[1] = end - start
            self.argument_count = 2
        self.state = READ_HEADER
        return PACKET

    cdef int fail_separator(self, int index) except -1:
        if index == 0 and self.body_bytes > MAX_FIRST_ARGUMENT_BYTES:
            return self.fail(MalformedPacketError, f"first argument above {MAX_FIRST_ARGUMENT_BYTES} bytes")
        return self.fail(
            MalformedPacketError, f"argument {index + 1} of {ARGUMENT_COUNTS[self.type]} is not terminated"
        )

    cdef int fail(self, object error, str reason) except -1:
        self.state = FAILED
        self.argument_count = 0
        if self.type == UNKNOWN:
            self.failure = error(reason, self.stream_bytes)
        else:
            self.failure = error(f"{type_name(self.type)}: {reason}", self.stream_bytes, self.type)
        raise self.failure


cdef inline bytes allocate_packet(
    unsigned int magic, int packet_type, tuple leading, Py_ssize_t last_bytes, bint whole
):
    """A new packet with the header and `leading` filled in, and if `whole` room for the last argument at its end."""
    cdef Py_ssize_t head_bytes = 0
    cdef Py_ssize_t length
    cdef bytes argument
    cdef bytes packet
    cdef unsigned char* target
    for item in leading:
        argument = item
        head_bytes += len(argument) + 1
    check_body(head_bytes, last_bytes)
    packet = PyBytes_FromStringAndSize(NULL, HEADER_BYTES + head_bytes + (last_bytes if whole else 0))
    target = <unsigned char*>PyBytes_AS_STRING(packet)
    write_header(target, magic, packet_type, head_bytes + last_bytes)
    target += HEADER_BYTES
    for item in leading:
        argument = item
        length = PyBytes_GET_SIZE(argument)
        memcpy(target, PyBytes_AS_STRING(argument), length)
        target[length] = 0
        target += length + 1
    return packet


cdef bytes packet_head(unsigned int magic, int packet_type, tuple leading, Py_ssize_t last_bytes):
    return allocate_packet(magic, packet_type, leading, last_bytes, False)


cdef bytes pack(unsigned int magic, int packet_type, tuple leading, bytes last):
    cdef Py_ssize_t last_bytes = PyBytes_GET_SIZE(last)
    cdef bytes packet = allocate_packet(magic, packet_type, leading, last_bytes, True)
    memcpy(PyBytes_AS_STRING(packet) + PyBytes_GET_SIZE(packet) - last_bytes, PyBytes_AS_STRING(last), last_bytes)
    return packet


cdef int check_text(bytes value, str what, Py_ssize_t limit_bytes) except -1:
    return check_slice(PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value), what, limit_bytes)


cdef int check_submit(bytes function, bytes unique) except -1:
    check_text(function, "function", MAX_FUNCTION_BYTES)
    return check_text(unique, "unique", MAX_UNIQUE_BYTES)


cdef inline int check_slice(const char* value, Py_ssize_t value_bytes, str what, Py_ssize_t limit_bytes) except -1:
    if value_bytes > limit_bytes:
        raise InvalidArgumentError(f"{what} of {value_bytes} bytes, at most {limit_bytes} are possible")
    if memchr(value, 0, value_bytes) != NULL:
        raise InvalidArgumentError(f"NUL byte in the {what}")
    return 0


cdef bytes submit_packet(
    int packet_type,
    bytes function,
    const char* unique,
    Py_ssize_t unique_bytes,
    const char* workload,
    Py_ssize_t workload_bytes,
):
    cdef Py_ssize_t function_bytes = PyBytes_GET_SIZE(function)
    cdef Py_ssize_t head_bytes = function_bytes + unique_bytes + 2
    cdef bytes packet
    cdef char* target
    check_slice(PyBytes_AS_STRING(function), function_bytes, "function", MAX_FUNCTION_BYTES)
    check_slice(unique, unique_bytes, "unique", MAX_UNIQUE_BYTES)
    check_body(head_bytes, workload_bytes)
    packet = PyBytes_FromStringAndSize(
        NULL, HEADER_BYTES + head_bytes + (0 if workload == NULL else workload_bytes)
    )
    target = PyBytes_AS_STRING(packet)
    write_header(<unsigned char*> target, Magic.REQUEST, packet_type, head_bytes + workload_bytes)
    target = put(target + HEADER_BYTES, PyBytes_AS_STRING(function), function_bytes + 1)
    target = put(target, unique, unique_bytes)
    target[0] = 0
    if workload != NULL:
        put(target + 1, workload, workload_bytes)
    return packet
