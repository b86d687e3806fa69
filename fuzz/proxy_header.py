"""Fuzzes gatewayx.net.proxy.ProxyHeader against an independent reading of PROXY headers, versions 1 and 2.

What must hold for any bytes:
- nothing but a ProxyError is raised, at the same byte and for the same reason however the bytes are cut;
- the client, and how many bytes the header has, are those of the model; what follows the header is never taken;
- kinds of errors are few and ASCII: they are told in the log, and counted by kind.

An input is a byte that seeds the cuts, and the first bytes of a connection.
"""

from __future__ import annotations

import ipaddress
import random
import struct
from typing import NamedTuple

from gatewayx.net.proxy import MOST_LINE_BYTES, MOST_REST_BYTES, ProxyError, ProxyHeader

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
LINE = b"PROXY "
UNKNOWN = b"PROXY UNKNOWN"
LOCAL, PROXY = 0x20, 0x21
# The bytes of the addresses, by family and transport.
ADDRESSES_BYTES = {0x00: 0, 0x11: 12, 0x12: 12, 0x21: 36, 0x22: 36, 0x31: 216, 0x32: 216}
CHECKSUM = 3
BEHIND = b"GET / HTTP/1.1\r\n\r\nPROXY TCP4 \n"
MOST_CUT_BYTES = 40
# All that a header may be refused for.
KINDS: set[str] = set()
MOST_KINDS = 14


Host = ipaddress.IPv4Address | ipaddress.IPv6Address


class Found(NamedTuple):
    """What a header says: the client's host and port, and how many bytes it has."""

    host: Host | None
    port: int
    size: int


class NoHeaderError(Exception):
    """The model has found something that no header has."""


def crc32c(data: bytes) -> int:
    """By the polynomial itself (RFC 3309)."""
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def plain(host: Host) -> Host:
    """The address, an IPv4 one never as IPv6."""
    return getattr(host, "ipv4_mapped", None) or host


def of_line(line: bytes) -> Found:
    """What a whole line says. Raises NoHeaderError."""
    size = len(line) + 2
    if line == UNKNOWN or line.startswith(UNKNOWN + b" "):
        return Found(None, 0, size)
    if not line.isascii():
        raise NoHeaderError
    parts = line.decode().split(" ")
    families = {"TCP4": ipaddress.IPv4Address, "TCP6": ipaddress.IPv6Address}
    if len(parts) != 6 or parts[1] not in families:
        raise NoHeaderError
    try:
        if "%" in line.decode():
            raise NoHeaderError
        hosts = [families[parts[1]](text) for text in parts[2:4]]
    except ValueError:
        raise NoHeaderError from None
    for text in parts[4:]:
        if text not in {str(int(text)) if text.isdigit() else None} or int(text) > 65535:
            raise NoHeaderError
    return Found(plain(hosts[0]), int(parts[4]), size)


def of_binary(data: bytes) -> Found | None:
    """What a header of version 2 says; None while it is not whole. Raises NoHeaderError."""
    if len(data) > 12 and data[12] not in (LOCAL, PROXY):
        raise NoHeaderError
    if len(data) < 16:
        return None
    [rest_bytes] = struct.unpack(">H", data[14:16])
    if rest_bytes > MOST_REST_BYTES:
        raise NoHeaderError
    if len(data) < 16 + rest_bytes:
        return None
    header = data[: 16 + rest_bytes]
    if header[12] == LOCAL:
        return Found(None, 0, len(header))
    addresses_bytes = ADDRESSES_BYTES.get(header[13])
    if addresses_bytes is None or rest_bytes < addresses_bytes:
        raise NoHeaderError
    cursor = 16 + addresses_bytes
    checksums = 0
    while cursor < len(header):
        if len(header) - cursor < 3:
            raise NoHeaderError
        kind, size = struct.unpack(">BH", header[cursor : cursor + 3])
        value = header[cursor + 3 : cursor + 3 + size]
        if len(value) < size:
            raise NoHeaderError
        if kind == CHECKSUM:
            blank = header[: cursor + 3] + bytes(4) + header[cursor + 7 :]
            checksums += 1
            if checksums > 1 or size != 4 or crc32c(blank).to_bytes(4, "big") != value:
                raise NoHeaderError
        cursor += 3 + size
    if addresses_bytes == 12:
        return Found(plain(ipaddress.IPv4Address(header[16:20])), int.from_bytes(header[24:26], "big"), len(header))
    if addresses_bytes == 36:
        return Found(plain(ipaddress.IPv6Address(header[16:32])), int.from_bytes(header[48:50], "big"), len(header))
    return Found(None, 0, len(header))


def expected(data: bytes) -> Found | None:
    """What the first bytes of a connection say; None while the header is not whole. Raises NoHeaderError."""
    if data[: len(SIGNATURE)] == SIGNATURE[: len(data)]:
        return of_binary(data)
    if data[: len(LINE)] != LINE[: len(data)]:
        raise NoHeaderError
    most = data[:MOST_LINE_BYTES]
    line, end, _ = most.partition(b"\r\n")
    is_unknown = line.startswith(UNKNOWN + b" ")
    # A CR at the end may have its LF yet.
    for byte in line if end or len(most) == MOST_LINE_BYTES else line.removesuffix(b"\r"):
        if byte in b"\r\n" or (not is_unknown and not 0x20 <= byte < 0x7F):
            raise NoHeaderError
    if end:
        return of_line(line)
    if len(most) == MOST_LINE_BYTES:
        raise NoHeaderError
    return None


def read(data: bytes, sizes: random.Random | None) -> tuple[Found | str | None, int]:
    """What the gateway finds, or why it is none, and how many bytes it has been given; in pieces, or whole."""
    header = ProxyHeader()
    given = 0
    while given < len(data):
        piece = data[given : given + (len(data) if sizes is None else sizes.randint(1, MOST_CUT_BYTES))]
        try:
            taken = header.feed(piece)
        except ProxyError as error:
            assert not header.is_complete
            assert header.host is None
            return str(error), given
        given += taken
        if header.is_complete:
            assert header.feed(BEHIND) == 0
            host = None if header.host is None else ipaddress.ip_address(header.host)
            return Found(host, header.port, given), given
        assert taken == len(piece)
    return None, given


def one_input(data: bytes) -> None:
    """Read the input whole, in pieces and byte by byte, and compare all with the model."""
    seed, stream = data[:1], data[1:]
    model: Found | str | None
    try:
        model = expected(stream)
    except NoHeaderError:
        model = "none"
    found, _ = read(stream, None)
    if isinstance(found, str):
        assert found.isascii()
        KINDS.add(found)
        assert len(KINDS) <= MOST_KINDS, f"too many kinds of errors: {KINDS}"
        assert model == "none", f"{stream!r} is refused, since {found}, and not {model}"
    else:
        assert found == model, f"{stream!r} is read as {found}, and not as {model}"
    pieces = read(stream, random.Random(seed))[0]
    assert pieces == found, f"{stream!r} in pieces is {pieces}, and not {found}"
    if isinstance(found, Found):
        # One byte less is no header yet, and what follows changes nothing.
        assert read(stream[: found.size - 1], None) == (None, found.size - 1)
        assert read(stream[: found.size] + BEHIND, random.Random(seed))[0] == found


def binary(command: int, family: int, rest: bytes) -> bytes:
    """A header of version 2."""
    return SIGNATURE + struct.pack(">BBH", command, family, len(rest)) + rest


def noop(size: int) -> bytes:
    """A value of so many bytes in all that means nothing (PP2_TYPE_NOOP)."""
    return struct.pack(">BH", 4, size - 3) + bytes(size - 3)


def twice_summed(addresses: bytes) -> bytes:
    """Two checksums behind these addresses, the first of which is right."""
    second = struct.pack(">BH", CHECKSUM, 4) + b"\xff" * 4
    blank = struct.pack(">BH", CHECKSUM, 4) + bytes(4)
    return blank[:3] + crc32c(binary(PROXY, 0x11, addresses + blank + second)).to_bytes(4, "big") + second


def seeds() -> list[bytes]:
    """Inputs to begin with."""
    lines = (
        b"PROXY TCP4 192.0.2.1 198.51.100.2 4660 443\r\n",
        b"PROXY TCP6 2001:db8::1 ::ffff:198.51.100.2 0 65535\r\n",
        b"PROXY TCP6 " + 2 * (b"ffff:" * 7 + b"ffff ") + b"65535 65535\r\n",
        b"PROXY UNKNOWN\r\n",
        b"PROXY UNKNOWN \0\xff TCP4\r\n",
        b"PROXY TCP4 192.0.2.01 198.51.100.2 04660 443\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 4660 443\n",
        b"PROXY UNKNOWN " + b"x" * MOST_LINE_BYTES,
        BEHIND,
    )
    four = bytes((192, 0, 2, 1, 198, 51, 100, 2)) + b"\x12\x34\x01\xbb"
    six = b"\x20\x01\x0d\xb8" + bytes(11) + b"\1" + b"\x20\x01\x0d\xb8" + bytes(11) + b"\2" + b"\x12\x34\x01\xbb"
    value = struct.pack(">BH", 4, 5) + b"value"
    begun = binary(PROXY, 0x11, four + value + struct.pack(">BH", CHECKSUM, 4) + bytes(4))
    long = binary(
        PROXY, 0x21, six + value + noop(MOST_REST_BYTES - 36 - 8 - 7) + struct.pack(">BH", CHECKSUM, 4) + bytes(4)
    )
    headers = (
        begun[:-4] + crc32c(begun).to_bytes(4, "big"),
        begun,
        long[:-4] + crc32c(long).to_bytes(4, "big"),
        binary(PROXY, 0x11, four + noop(MOST_REST_BYTES - 12)),
        binary(PROXY, 0x11, four + noop(MOST_REST_BYTES - 11)),
        binary(PROXY, 0x11, four + twice_summed(four)),
        binary(PROXY, 0x11, four),
        binary(PROXY, 0x12, four + value),
        binary(PROXY, 0x21, six + value * 3),
        binary(PROXY, 0x21, bytes(10) + b"\xff\xff" + six[12:]),
        binary(PROXY, 0x31, b"/run/a" + bytes(210)),
        binary(PROXY, 0x00, value),
        binary(PROXY, 0x21, four),
        binary(LOCAL, 0x11, four + value[:5]),
        binary(LOCAL, 0x00, b""),
        binary(LOCAL, 0xFF, bytes(MOST_REST_BYTES)),
        binary(LOCAL, 0x00, bytes(MOST_REST_BYTES + 1)),
        binary(0x11, 0x11, four),
    )
    return [bytes((len(data) % 256,)) + data + behind for data in (*lines, *headers) for behind in (b"", BEHIND)]


TOKENS = [
    SIGNATURE,
    *(b"\r", b"\n", b"\r\n", b" ", b"  ", b"\0", b":", b"::", b".", b"0", b"\xff", b"%", b"%1"),
    *(b"PROXY", b"TCP4", b"TCP6", b"UNKNOWN", b"192.0.2.1", b"2001:db8::1", b"::ffff:192.0.2.1", b"65535", b"65536"),
    *(bytes((command, family)) for command in (LOCAL, PROXY) for family in ADDRESSES_BYTES),
    *(struct.pack(">H", size) for size in (0, 12, 36, 216, MOST_REST_BYTES, MOST_REST_BYTES + 1, 65535)),
    struct.pack(">BH", CHECKSUM, 4),
]
