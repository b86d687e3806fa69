"""The few pieces of the Gearman protocol that the benchmarks' own clients, workers and job server need.

Independent of gatewayx on purpose: what is measured must not also be the measure.
"""

import struct
from enum import IntEnum

REQUEST_MAGIC = b"\0REQ"
RESPONSE_MAGIC = b"\0RES"
HEADER = struct.Struct(">4sII")
"""Magic, packet type, size in bytes of what follows."""


class PacketType(IntEnum):
    """The packet types used here, by their names in gearmand's PROTOCOL text."""

    CAN_DO = 1
    PRE_SLEEP = 4
    NOOP = 6
    SUBMIT_JOB = 7
    JOB_CREATED = 8
    GRAB_JOB = 9
    NO_JOB = 10
    JOB_ASSIGN = 11
    WORK_COMPLETE = 13
    WORK_FAIL = 14
    ECHO_REQ = 16
    ECHO_RES = 17
    SUBMIT_JOB_BG = 18
    ERROR = 19
    SUBMIT_JOB_HIGH = 21
    OPTION_REQ = 26
    OPTION_RES = 27
    SUBMIT_JOB_HIGH_BG = 32
    SUBMIT_JOB_LOW = 33
    SUBMIT_JOB_LOW_BG = 34


def encode_request(packet_type: PacketType, *arguments: bytes) -> bytes:
    """One packet as a client or a worker sends it: the arguments joined by NUL bytes."""
    data = b"\0".join(arguments)
    return HEADER.pack(REQUEST_MAGIC, packet_type, len(data)) + data


def encode_response(packet_type: PacketType, *arguments: bytes) -> bytes:
    """One packet as a job server sends it: the arguments joined by NUL bytes."""
    data = b"\0".join(arguments)
    return HEADER.pack(RESPONSE_MAGIC, packet_type, len(data)) + data
