"""Addresses in settings and messages: HOST:PORT, a scheme before it for some job servers, and unix:/path."""

from __future__ import annotations

import re
import socket
from typing import NamedTuple

# Underscores are not legal in DNS, but container networks hand out such names.
_HOST_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252})", re.ASCII)
_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)
_SCOPE = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
# RFC 1123 2.1: a name whose last label is a number can only be meant as an IPv4 address.
_ENDS_IN_NUMBER = re.compile(r"(?:^|\.)[0-9]+\.?$", re.ASCII)

HIGHEST_PORT = 65535
UNIX_SCHEME = "unix:"
# sockaddr_un has 108, the NUL at the end included (unix(7)).
LONGEST_UNIX_PATH_BYTES = 107
# What may stand before an address to listen on: whether clients speak TLS there, whether a PROXY header comes first.
LISTEN_SCHEMES = {
    "http://": (False, False),
    "https://": (True, False),
    "proxy://": (False, True),
    "proxy+https://": (True, True),
}
# What may stand before a job server's address: whether it is reached by TLS, whether each address of its host is one.
SERVER_SCHEMES = {"tls://": (True, False), "each://": (False, True), "each+tls://": (True, True)}


class AddressError(ValueError):
    """A text that is no address: the fault of its author."""


class Address(NamedTuple):
    """Where to listen or connect; unpacks as the host and port that asyncio takes.

    `host` is a name, an IPv4 address or an IPv6 address without brackets; `port` is 0 to 65535, where 0 lets
    the kernel choose.
    """

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read HOST:PORT, an IPv6 host in brackets. Raises AddressError."""
        host, colon, port_text = text.rpartition(":")
        if not colon or not _PORT.fullmatch(port_text) or int(port_text) > HIGHEST_PORT:
            raise AddressError("no port from 0 to 65535 after the last colon")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
            if not _is_ipv6(host):
                raise AddressError("no IPv6 address in the brackets")
        elif not _is_name_or_ipv4(host):
            raise AddressError("the host is neither a name nor an IPv4 address nor an IPv6 address in brackets")
        return cls(host, int(port_text))

    def __str__(self) -> str:
        """HOST:PORT as `parse` reads it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class ListenAddress(NamedTuple):
    """Where clients connect who do not speak plain HTTP from the first byte on. `host` and `port` are as in Address.

    With `tls` they speak TLS; with `proxy` the connection comes from a proxy, and begins with a PROXY header.
    """

    host: str
    port: int
    tls: bool = False
    proxy: bool = False

    def __str__(self) -> str:
        """What parse_listen() reads."""
        schemes = {meaning: scheme for scheme, meaning in LISTEN_SCHEMES.items()}
        return f"{schemes[self.tls, self.proxy]}{Address(self.host, self.port)}"


def parse_listen(text: str) -> Address | ListenAddress | UnixAddress:
    """Read unix:/path, or HOST:PORT with one of LISTEN_SCHEMES before it or none. Raises AddressError."""
    if text.startswith(UNIX_SCHEME):
        return UnixAddress.parse(text)
    for scheme, (tls, proxy) in LISTEN_SCHEMES.items():
        if text.startswith(scheme):
            address = Address.parse(text.removeprefix(scheme))
            return ListenAddress(*address, tls, proxy) if tls or proxy else address
    return Address.parse(text)


class UnixAddress(NamedTuple):
    """A unix socket, which is a file: `path` is absolute, without control characters, commas and steps back."""

    path: str

    @classmethod
    def parse(cls, text: str) -> UnixAddress:
        """Read unix:/path. Raises AddressError."""
        path = text.removeprefix(UNIX_SCHEME)
        if path == text or not path.startswith("/"):
            raise AddressError("no absolute path after unix:")
        # A comma would end the address where several stand in one text.
        if any(char < " " or char in ",\x7f" for char in path):
            raise AddressError("a control character or a comma in the path")
        # Two texts for one file would pass as two addresses.
        if any(part in ("", ".", "..") for part in path.split("/")[1:]):
            raise AddressError("the path has an empty part, one that is . or .., or a slash at its end")
        try:
            length = len(path.encode())
        except UnicodeEncodeError:
            raise AddressError("the path is not UTF-8") from None
        if length > LONGEST_UNIX_PATH_BYTES:
            raise AddressError(f"the path has more than {LONGEST_UNIX_PATH_BYTES} bytes")
        return cls(path)

    def __str__(self) -> str:
        """unix:/path as `parse` reads it."""
        return f"{UNIX_SCHEME}{self.path}"


class ServerAddress(NamedTuple):
    """Where a job server is, and whether it is reached by TLS. `host` and `port` are as in Address.

    With `each` every address that the host stands for is a job server of its own.
    """

    host: str
    port: int
    tls: bool = False
    each: bool = False

    @classmethod
    def parse(cls, text: str) -> ServerAddress:
        """Read HOST:PORT with one of SERVER_SCHEMES before it or none. Raises AddressError."""
        for scheme, (tls, each) in SERVER_SCHEMES.items():
            if text.startswith(scheme):
                return cls(*Address.parse(text.removeprefix(scheme)), tls, each)
        return cls(*Address.parse(text))

    def __str__(self) -> str:
        """What `parse` reads."""
        schemes = {meaning: scheme for scheme, meaning in SERVER_SCHEMES.items()}
        return f"{schemes.get((self.tls, self.each), '')}{Address(self.host, self.port)}"


def _is_ipv6(host: str) -> bool:
    number, percent, scope = host.partition("%")
    if percent and not _SCOPE.fullmatch(scope):
        return False
    return _is_number(socket.AF_INET6, number)


def _is_name_or_ipv4(host: str) -> bool:
    if _ENDS_IN_NUMBER.search(host):
        return _is_number(socket.AF_INET, host)
    return _HOST_NAME.fullmatch(host) is not None and ".." not in host


def _is_number(family: socket.AddressFamily, host: str) -> bool:
    try:
        socket.inet_pton(family, host)
    except (OSError, ValueError):
        return False
    return True
