"""The few pieces of the Gearman protocol that the benchmarks' own clients and workers need.

Independent of gatewayx on purpose: what is measured must not also be the measure.
"""

import struct
from enum import IntEnum

REQUEST_MAGIC = b"\0REQ"
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


def encode_request(packet_type: PacketType, *arguments: bytes) -> bytes:
    """One packet as a client or a worker sends it: the arguments joined by NUL bytes."""
    data = b"\0".join(arguments)
    return HEADER.pack(REQUEST_MAGIC, packet_type, len(data)) + data
