"""Gearman framing without I/O: bytes in, packets out; the .pxd has the C-level interface."""

from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple, final

HEADER_BYTES: int
MAX_ARGUMENTS: int
MAX_FIRST_ARGUMENT_BYTES: int
LARGE_BYTES: int
MAX_UNIQUE_BYTES: int
MAX_HANDLE_BYTES: int
MAX_FUNCTION_BYTES: int
MAX_BODY_BYTES: int
DEFAULT_MAX_BODY_BYTES: int

class Magic(IntEnum):
    """The four bytes that a packet begins with."""

    REQUEST = 0x00524551
    RESPONSE = 0x00524553

class PacketType(IntEnum):
    """The types of the protocol, by their names in gearmand's PROTOCOL text."""

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

class Taken(IntEnum):
    """What PacketReader.take() came to."""

    NEED_MORE = 0
    PACKET = 1
    LARGE = 2

class Packet(NamedTuple):
    """One packet, for tests, tools and everything else that may be slow."""

    type: PacketType
    arguments: tuple[bytes, ...]

@final
class PacketReader:
    """Bytes of one connection in, packets out.

    magic: what each packet must begin with. max_body_bytes: a body above it is an error, or with announce_large left to
    the caller. announce_large: return LARGE for a large packet before its body has come.
    """

    def __new__(cls, magic: int, *, max_body_bytes: int = ..., announce_large: bool = False) -> PacketReader: ...
    @property
    def magic(self) -> int: ...
    @property
    def max_body_bytes(self) -> int: ...
    @property
    def announce_large(self) -> bool: ...
    @property
    def stream_bytes(self) -> int: ...
    @property
    def type(self) -> int: ...
    @property
    def body_bytes(self) -> int: ...
    @property
    def argument_count(self) -> int: ...
    def feed(self, data: bytes) -> int:
        """Give the reader bytes as they arrived."""

    def take(self) -> int:
        """Advance to the next packet and return a `Taken`. Raises ProtocolError, InvalidStateError."""

    def keep(self) -> int:
        """Gather the LARGE packet. Raises InvalidStateError."""

    def keep_start(self, limit_bytes: int) -> int:
        """Gather at most so many bytes of what follows the first argument, drop the rest. Raises InvalidStateError."""

    def skip(self) -> int:
        """Drop the LARGE packet without storing it. Raises InvalidStateError."""

    def argument(self, index: int) -> bytes:
        """Argument `index` (from 0) of the packet in hand. Raises InvalidArgumentError."""

    def packets(self) -> Iterator[Packet]:
        """Iterate over the whole packets that have been fed. Raises what take() raises."""
