"""PROXY headers as proxies send them (proxy-protocol.txt), and a gateway that expects them."""

from __future__ import annotations

import ipaddress
import json
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from gatewayx.address import Address, ListenAddress
from support.gateway import RunningGateway, eventually, running_gateway
from support.tls import authority

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
LOCAL = 0x20
PROXY = 0x21
DESTINATIONS = {4: "198.51.100.2", 6: "2001:db8:ffff::2"}


def line(host: str, port: int = 4660) -> bytes:
    """Version 1, for a client at this address."""
    version = ipaddress.ip_address(host).version
    return f"PROXY TCP{version} {host} {DESTINATIONS[version]} {port} 443\r\n".encode()


def binary(command: int, family: int, rest: bytes = b"", length: int | None = None) -> bytes:
    """Version 2. length: what it says that the rest has."""
    return SIGNATURE + struct.pack(">BBH", command, family, len(rest) if length is None else length) + rest


def value(kind: int, data: bytes) -> bytes:
    """One of the values behind the addresses of version 2."""
    return struct.pack(">BH", kind, len(data)) + data


def packed(host: str, port: int = 4660, *values: bytes) -> bytes:
    """Version 2, for a client at this address."""
    source = ipaddress.ip_address(host)
    destination = ipaddress.ip_address(DESTINATIONS[source.version])
    rest = source.packed + destination.packed + struct.pack(">HH", port, 443) + b"".join(values)
    return binary(PROXY, {4: 0x11, 6: 0x21}[source.version], rest)


def crc32c(data: bytes) -> int:
    """By the polynomial itself (RFC 3309)."""
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def summed(host: str, port: int = 4660, *values: bytes) -> bytes:
    """The same with a checksum."""
    begun = packed(host, port, *values, value(0x03, bytes(4)))
    return begun[:-4] + crc32c(begun).to_bytes(4, "big")


@asynccontextmanager
async def proxied_gateway(
    server: tuple[str, int],
    *,
    tls: bool = False,
    trusted: tuple[str, ...] = ("127.0.0.1/32",),
    listen: tuple[Address | ListenAddress, ...] = (),
    **settings: object,
) -> AsyncIterator[RunningGateway]:
    """A gateway whose clients come through a proxy at 127.0.0.1, with or without TLS behind the header.

    listen: where it listens, if not there alone.
    """
    if tls:
        settings["tls_certificate"] = (str(authority().certificate("127.0.0.1")),)
    listen = listen or (ListenAddress("127.0.0.1", 0, tls=tls, proxy=True),)
    async with running_gateway([server], listen, trusted_proxy=trusted, **settings) as gateway:
        yield gateway


def lines_of(log: Path) -> list[dict[str, object]]:
    """The whole lines of an access log."""
    lines = log.read_bytes().splitlines(keepends=True) if log.exists() else []
    return [json.loads(each) for each in lines if each.endswith(b"\n")]


async def line_of(log: Path, number: int = 0) -> dict[str, object]:
    """The line of an access log with this number from 0, once it is there."""
    await eventually(lambda: len(lines_of(log)) > number)
    return lines_of(log)[number]
