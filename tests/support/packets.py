"""Every packet type: what `embedded.encode` makes of its values, and what the PROTOCOL text says that is."""

from __future__ import annotations

import struct

from gatewayx.embedded import encode
from gatewayx.gearman.packet import Magic, PacketType

REQUEST, RESPONSE = Magic.REQUEST, Magic.RESPONSE
MAGIC_BYTES = {REQUEST: b"\0REQ", RESPONSE: b"\0RES"}


def wire(magic: int, packet_type: int, body: bytes) -> bytes:
    """The packet as the PROTOCOL text writes it, without the code under test."""
    return MAGIC_BYTES[magic] + struct.pack(">II", packet_type, len(body)) + body


HANDLE = b"H:host:1"

# (encoder's result, magic, type, body on the wire, arguments)
CASES = [
    (encode.can_do(b"f"), REQUEST, 1, b"f", (b"f",)),
    (encode.cant_do(b"f"), REQUEST, 2, b"f", (b"f",)),
    (encode.reset_abilities(), REQUEST, 3, b"", ()),
    (encode.pre_sleep(), REQUEST, 4, b"", ()),
    (encode.noop(), RESPONSE, 6, b"", ()),
    (encode.submit_job(7, b"f", b"u", b"w\0w"), REQUEST, 7, b"f\0u\0w\0w", (b"f", b"u", b"w\0w")),
    (encode.job_created(HANDLE), RESPONSE, 8, HANDLE, (HANDLE,)),
    (encode.grab_job(), REQUEST, 9, b"", ()),
    (encode.no_job(), RESPONSE, 10, b"", ()),
    (encode.job_assign(HANDLE, b"f", b"w"), RESPONSE, 11, HANDLE + b"\0f\0w", (HANDLE, b"f", b"w")),
    (encode.work_status(HANDLE, 1, 2), REQUEST, 12, HANDLE + b"\x001\x002", (HANDLE, b"1", b"2")),
    (encode.work_complete(HANDLE, b"\0d\0"), REQUEST, 13, HANDLE + b"\0\0d\0", (HANDLE, b"\0d\0")),
    (encode.work_fail(HANDLE), REQUEST, 14, HANDLE, (HANDLE,)),
    (encode.work_fail(HANDLE, RESPONSE), RESPONSE, 14, HANDLE, (HANDLE,)),
    (encode.get_status(HANDLE), REQUEST, 15, HANDLE, (HANDLE,)),
    (encode.echo_req(b"a\0b"), REQUEST, 16, b"a\0b", (b"a\0b",)),
    (encode.echo_res(b""), RESPONSE, 17, b"", (b"",)),
    (encode.submit_job(18, b"f", b"", b""), REQUEST, 18, b"f\0\0", (b"f", b"", b"")),
    (encode.error(b"CODE", b"some text"), RESPONSE, 19, b"CODE\0some text", (b"CODE", b"some text")),
    (
        encode.status_res(HANDLE, True, False, 3, 4),
        RESPONSE,
        20,
        HANDLE + b"\x001\x000\x003\x004",
        (HANDLE, b"1", b"0", b"3", b"4"),
    ),
    (encode.submit_job(21, b"f", b"u", b"w"), REQUEST, 21, b"f\0u\0w", (b"f", b"u", b"w")),
    (encode.set_client_id(b"me"), REQUEST, 22, b"me", (b"me",)),
    (encode.can_do_timeout(b"f", 30), REQUEST, 23, b"f\x0030", (b"f", b"30")),
    (encode.all_yours(), REQUEST, 24, b"", ()),
    (encode.work_exception(HANDLE, b"e"), REQUEST, 25, HANDLE + b"\0e", (HANDLE, b"e")),
    (encode.option_req(b"exceptions"), REQUEST, 26, b"exceptions", (b"exceptions",)),
    (encode.option_res(b"exceptions"), RESPONSE, 27, b"exceptions", (b"exceptions",)),
    (encode.work_data(HANDLE, b"d", RESPONSE), RESPONSE, 28, HANDLE + b"\0d", (HANDLE, b"d")),
    (encode.work_warning(HANDLE, b""), REQUEST, 29, HANDLE + b"\0", (HANDLE, b"")),
    (encode.grab_job_uniq(), REQUEST, 30, b"", ()),
    (
        encode.job_assign_uniq(HANDLE, b"f", b"u", b"w"),
        RESPONSE,
        31,
        HANDLE + b"\0f\0u\0w",
        (HANDLE, b"f", b"u", b"w"),
    ),
    (encode.submit_job(32, b"f", b"u", b"w"), REQUEST, 32, b"f\0u\0w", (b"f", b"u", b"w")),
    (encode.submit_job(33, b"f", b"u", b"w"), REQUEST, 33, b"f\0u\0w", (b"f", b"u", b"w")),
    (encode.submit_job(34, b"f", b"u", b"w"), REQUEST, 34, b"f\0u\0w", (b"f", b"u", b"w")),
    (
        encode.submit_job_sched(b"f", b"u", 1, 2, 3, 4, 5, b"w"),
        REQUEST,
        35,
        b"f\0u\x001\x002\x003\x004\x005\0w",
        (b"f", b"u", b"1", b"2", b"3", b"4", b"5", b"w"),
    ),
    (encode.submit_job_epoch(b"f", b"u", 99, b"w"), REQUEST, 36, b"f\0u\x0099\0w", (b"f", b"u", b"99", b"w")),
    (
        encode.submit_reduce_job(37, b"f", b"u", b"r", b"w"),
        REQUEST,
        37,
        b"f\0u\0r\x000\0w",
        (b"f", b"u", b"r", b"0", b"w"),
    ),
    (
        encode.submit_reduce_job(38, b"f", b"u", b"r", b"w"),
        REQUEST,
        38,
        b"f\0u\0r\x000\0w",
        (b"f", b"u", b"r", b"0", b"w"),
    ),
    (encode.grab_job_all(), REQUEST, 39, b"", ()),
    (
        encode.job_assign_all(HANDLE, b"f", b"u", b"r", b"w"),
        RESPONSE,
        40,
        HANDLE + b"\0f\0u\0r\0w",
        (HANDLE, b"f", b"u", b"r", b"w"),
    ),
    (encode.get_status_unique(b"u"), REQUEST, 41, b"u", (b"u",)),
    (
        encode.status_res_unique(b"u", False, True, 0, 0, 7),
        RESPONSE,
        42,
        b"u\x000\x001\x000\x000\x007",
        (b"u", b"0", b"1", b"0", b"0", b"7"),
    ),
]
CASE_NAMES = [f"{PacketType(case[2]).name}-{Magic(case[1]).name}" for case in CASES]
