"""The PROXY header: bytes in, an address out; whole, byte by byte, and with trailing bytes."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayx.net.proxy import MOST_LINE_BYTES, MOST_REST_BYTES, ProxyError, ProxyHeader
from support.proxied import SIGNATURE, binary, crc32c, value

FOUR = ipaddress.IPv4Address("192.0.2.1").packed + ipaddress.IPv4Address("198.51.100.2").packed + b"\x12\x34\x01\xbb"
MAPPED = bytes(10) + b"\xff\xff" + FOUR[:4] + bytes(16) + FOUR[8:]
SIX = ipaddress.IPv6Address("2001:db8::1").packed + ipaddress.IPv6Address("2001:db8::2").packed + b"\x12\x34\x01\xbb"


LONG = binary(0x21, 0x11, FOUR + value(4, bytes(MOST_REST_BYTES - 15)))


def summed(rest: bytes) -> bytes:
    """A header for a client over IPv4 with these bytes and a checksum."""
    begun = binary(0x21, 0x11, FOUR + rest + value(0x03, bytes(4)))
    return begun[:-4] + crc32c(begun).to_bytes(4, "big")


def doubly_summed() -> bytes:
    """A header with two checksums, the first of which is right."""
    second = value(3, b"\xff" * 4)
    begun = binary(0x21, 0x11, FOUR + value(3, bytes(4)) + second)
    return begun.replace(value(3, bytes(4)), value(3, crc32c(begun).to_bytes(4, "big")))


def read(data: bytes, piece_bytes: int, behind: bytes = b"GET / HTTP/1.1") -> tuple[str | None, int]:
    """What a header says that comes in such pieces; fails unless it ends where it does."""
    header = ProxyHeader()
    whole = data + behind
    taken = 0
    while not header.is_complete:
        piece = whole[taken : taken + piece_bytes]
        assert piece, "it has no end"
        fed = header.feed(piece)
        taken += fed
        assert header.is_complete or fed == len(piece)
    assert taken == len(data)
    assert header.feed(b"more") == 0
    return header.host, header.port


def feed_all(header: ProxyHeader, data: bytes, piece_bytes: int) -> None:
    """Feed all of it in such pieces."""
    for begins in range(0, len(data), piece_bytes):
        header.feed(data[begins : begins + piece_bytes])


@pytest.mark.parametrize("piece_bytes", [1, 2, 7, 1000])
@pytest.mark.parametrize("behind", [b"", b"GET / HTTP/1.1", b"\x16\x03\x01", b"\r\n"])
@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 4660 443\r\n", ("192.0.2.1", 4660)),
        (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", ("255.255.255.255", 65535)),
        (b"PROXY TCP6 2001:db8::1 2001:DB8:0:0:0:0:0:2 0 1\r\n", ("2001:db8::1", 0)),
        (b"PROXY TCP6 " + 2 * (b"ffff:" * 7 + b"ffff ") + b"65535 65535\r\n", ("ffff:" * 7 + "ffff", 65535)),
        (b"PROXY UNKNOWN\r\n", (None, 0)),
        (b"PROXY TCP6 2001:0DB8:ABCD::00EF ::ffff:192.0.2.1 1 1\r\n", ("2001:db8:abcd::ef", 1)),
        (b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 1\r\n", ("192.0.2.1", 1)),
        (b"PROXY TCP6 :: :: 1 1\r\n", ("::", 1)),
        (b"PROXY UNKNOWN " + 2 * (b"ffff:" * 7 + b"ffff ") + b"65535 65535\r\n", (None, 0)),
        (b"PROXY UNKNOWN \r\n", (None, 0)),
        (b"PROXY UNKNOWN  TCP4 \0\x80 nothing of this\r\n", (None, 0)),
        (binary(0x21, 0x11, FOUR), ("192.0.2.1", 0x1234)),
        (binary(0x21, 0x21, SIX), ("2001:db8::1", 0x1234)),
        (binary(0x21, 0x12, FOUR), ("192.0.2.1", 0x1234)),
        (binary(0x21, 0x22, SIX), ("2001:db8::1", 0x1234)),
        (binary(0x21, 0x21, MAPPED), ("192.0.2.1", 0x1234)),
        (binary(0x21, 0x31, bytes(216)), (None, 0)),
        (binary(0x21, 0x32, b"/run/a" + bytes(210) + value(4, b"x")), (None, 0)),
        (binary(0x21, 0x00), (None, 0)),
        (binary(0x21, 0x00, value(4, b"nothing")), (None, 0)),
        (binary(0x20, 0x00), (None, 0)),
        (binary(0x20, 0x11, FOUR), (None, 0)),
        (binary(0x20, 0xFF, b"\xff" * 20), (None, 0)),
        (binary(0x21, 0x11, FOUR + value(1, b"http/1.1") + value(5, bytes(128))), ("192.0.2.1", 0x1234)),
        (LONG, ("192.0.2.1", 0x1234)),
        (summed(value(0x20, bytes(2000)) + value(4, bytes(2047))), ("192.0.2.1", 0x1234)),
        (binary(0x20, 0x00, b"\xff" * MOST_REST_BYTES), (None, 0)),
        (summed(b""), ("192.0.2.1", 0x1234)),
        (summed(value(1, b"h2")), ("192.0.2.1", 0x1234)),
    ],
)
def test_what_a_header_says(data, found, behind, piece_bytes):
    if behind:
        assert read(data, piece_bytes, behind) == found
    else:
        assert read(data, piece_bytes, b"") == found


@pytest.mark.parametrize("piece_bytes", [1, 1000])
@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "does not begin"),
        (b"\x16\x03\x01", "does not begin"),
        (b"proxy TCP4 ", "does not begin"),
        (b"PROXY\r\n", "does not begin"),
        (b"\r\n\r\nGET", "does not begin"),
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 4660 443\n", "CR and LF"),
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 4660 443\rx", "CR and LF"),
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 4660 443\r\r\n", "CR and LF"),
        (b"PROXY UNKNOWN a\n", "CR and LF"),
        (b"PROXY UNKNOWN a\rb\r\n", "CR and LF"),
        (b"PROXY TCP4\t192.0.2.1", "printable"),
        (b"PROXY TCP4 \xff", "printable"),
        (b"PROXY TCP4 192.0.2.1\0", "printable"),
        (b"PROXY UNKNOWN\0", "printable"),
        (b"PROXY UNKNOWNS a\r\n", "without a protocol"),
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 4660\r\n", "without a protocol"),
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 4660 443 \r\n", "without a protocol"),
        (b"PROXY TCP4  192.0.2.1 198.51.100.2 4660 443\r\n", "without a protocol"),
        (b"PROXY UDP4 192.0.2.1 198.51.100.2 4660 443\r\n", "without a protocol"),
        (b"PROXY tcp4 192.0.2.1 198.51.100.2 4660 443\r\n", "without a protocol"),
        (b"PROXY \r\n", "without a protocol"),
        (b"PROXY TCP4 2001:db8::1 2001:db8::2 4660 443\r\n", "address"),
        (b"PROXY TCP6 192.0.2.1 198.51.100.2 4660 443\r\n", "address"),
        (b"PROXY TCP4 192.0.2.01 198.51.100.2 4660 443\r\n", "address"),
        (b"PROXY TCP4 ::ffff:192.0.2.1 ::1 1 1\r\n", "address"),
        (b"PROXY TCP4 192.0.2.1 198.51.100.02 1 1\r\n", "address"),
        (b"PROXY TCP6 00001:: ::1 1 1\r\n", "address"),
        (b"PROXY TCP6 [::1] ::1 1 1\r\n", "address"),
        (b"PROXY TCP6 1::2::3 ::1 1 1\r\n", "address"),
        (b"PROXY TCP6 ::1 ::1%1 1 1\r\n", "address"),
        (b"PROXY TCP4 192.0.2 198.51.100.2 4660 443\r\n", "address"),
        (b"PROXY TCP6 fe80::1%1 2001:db8::2 4660 443\r\n", "address"),
        (b"PROXY TCP4 192.0.2.1 nowhere 4660 443\r\n", "address"),
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 04660 443\r\n", "port"),
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 65536 443\r\n", "port"),
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 1 65536\r\n", "port"),
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 +1 443\r\n", "port"),
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 00 443\r\n", "port"),
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 4660 -1\r\n", "port"),
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 4660 \r\n", "port"),
        (b"PROXY UNKNOWN " + b"x" * MOST_LINE_BYTES, "more than 107 bytes"),
        (SIGNATURE + b"\x11", "version or command"),
        (SIGNATURE + b"\x22", "version or command"),
        (SIGNATURE + b"\x23", "version or command"),
        (SIGNATURE + b"\x00", "version or command"),
        (binary(0x21, 0x01, FOUR), "family"),
        (binary(0x21, 0x10, FOUR), "family"),
        (binary(0x21, 0x13, FOUR), "family"),
        (binary(0x21, 0x41, FOUR), "family"),
        (binary(0x21, 0xFF, FOUR), "family"),
        (binary(0x21, 0x11, FOUR[:-1]), "too short"),
        (binary(0x21, 0x21, FOUR), "too short"),
        (binary(0x21, 0x31, bytes(215)), "too short"),
        (binary(0x21, 0x11, b"", MOST_REST_BYTES + 1), "of more than 4096 bytes"),
        (binary(0x20, 0x00, b"", 65_535), "of more than 4096 bytes"),
        (binary(0x21, 0x11, FOUR + b"\4\0"), "are cut"),
        (binary(0x21, 0x11, FOUR + b"\4\0\2x"), "are cut"),
        (binary(0x21, 0x11, FOUR + value(3, bytes(4))), "checksum"),
        (binary(0x21, 0x11, FOUR + value(3, bytes(3))), "checksum"),
        (summed(b"")[:-1] + b"\0", "checksum"),
        (summed(value(4, bytes(4055)))[:-1] + b"\0", "checksum"),
        (doubly_summed(), "two checksums"),
        (binary(0x21, 0x11, FOUR + value(4, bytes(MOST_REST_BYTES - 18)) + b"\4\0\1"), "are cut"),
    ],
)
def test_what_is_no_header_is_told_so(data, said, piece_bytes):
    header = ProxyHeader()
    with pytest.raises(ProxyError, match=said):
        feed_all(header, data, piece_bytes)
    assert not header.is_complete
    assert header.host is None


def test_what_is_not_whole_waits():
    for data in (b"PROXY TCP4 192.0.2.1 198.51.100.2 4660 443\r\n", binary(0x21, 0x21, SIX + value(4, b"x")), LONG):
        for size in (*range(min(len(data), 100)), *range(100, len(data), 511), len(data) - 1):
            header = ProxyHeader()
            assert header.feed(data[:size]) == size
            assert not header.is_complete


@given(st.binary(max_size=700), st.integers(1, 700))
def test_whatever_comes_is_a_header_an_error_or_waits(data, piece_bytes):
    found = []
    for size in (piece_bytes, 1):
        header = ProxyHeader()
        try:
            taken = 0
            for begins in range(0, len(data), size):
                taken += header.feed(data[begins : begins + size])
            found.append((header.is_complete, header.host, header.port, taken))
        except ProxyError as error:
            found.append(str(error))
    assert found[0] == found[1]
