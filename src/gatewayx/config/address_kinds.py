"""The kinds of settings that are addresses, names of hosts, or origins of pages."""

from __future__ import annotations

import re
import socket
from types import MappingProxyType

from gatewayx.address import (
    HIGHEST_PORT,
    LONGEST_UNIX_PATH_BYTES,
    Address,
    AddressError,
    ListenAddress,
    ServerAddress,
    UnixAddress,
    parse_listen,
)
from gatewayx.config.kinds import DisallowedValueError, FunctionList, Kind

AnyAddress = Address | ListenAddress | ServerAddress | UnixAddress


class AddressList(Kind):
    """One or more distinct HOST:PORT; as text, separated by commas."""

    metavar = "HOST:PORT"
    most = 64

    def __init__(self, lowest_port: int) -> None:
        self.lowest_port = lowest_port

    @property
    def allowed(self) -> str:
        """See Kind."""
        return (
            f"1 to {self.most} different HOST:PORT, an IPv6 host in brackets, the port from {self.lowest_port} to 65535"
        )

    def parse(self, value: object) -> tuple[AnyAddress, ...]:
        """See Kind."""
        texts = value.split(",") if isinstance(value, str) else value
        if not isinstance(texts, (list, tuple)) or not 1 <= len(texts) <= self.most:
            raise DisallowedValueError
        addresses = tuple(self._parse_one(text) for text in texts)
        fixed = [key for key in map(self._key, addresses) if key is not None]
        if len(set(fixed)) != len(fixed):
            raise DisallowedValueError
        return addresses

    def _parse_one(self, text: object) -> AnyAddress:
        if not isinstance(text, str):
            raise DisallowedValueError
        try:
            address = self._read(text.strip(" "))
        except AddressError as error:
            raise DisallowedValueError from error
        if not isinstance(address, UnixAddress) and address.port < self.lowest_port:
            raise DisallowedValueError
        return address

    def _read(self, text: str) -> AnyAddress:
        return Address.parse(text)

    def _key(self, address: AnyAddress) -> tuple[str, int] | None:
        """What no two of them may share; None for an address that is another one every time."""
        if isinstance(address, UnixAddress):
            return (address.path, -1)
        return (address.host, address.port) if address.port else None

    def show(self, value: object) -> str:
        """See Kind."""
        assert isinstance(value, tuple)
        return ",".join(str(address) for address in value)


class OptionalAddress(Kind):
    """One HOST:PORT, or the word `none`, which is None."""

    metavar = "HOST:PORT|none"
    _none = "none"

    @property
    def allowed(self) -> str:
        """See Kind."""
        return f"{self._none} or one HOST:PORT, an IPv6 host in brackets, the port from 0 to 65535"

    def parse(self, value: object) -> Address | None:
        """See Kind."""
        if value == self._none:
            return None
        if not isinstance(value, str):
            raise DisallowedValueError
        try:
            return Address.parse(value)
        except AddressError as error:
            raise DisallowedValueError from error

    def show(self, value: object) -> str:
        """See Kind."""
        return self._none if value is None else str(value)


class ListenList(AddressList):
    """One or more distinct HOST:PORT, with or without one of LISTEN_SCHEMES, or unix:/path."""

    metavar = "ADDRESS"

    @property
    def allowed(self) -> str:
        """See Kind."""
        return (
            f"{super().allowed}, https:// before it for TLS, proxy:// or proxy+https:// for proxies that send PROXY "
            f"headers; or unix: and an absolute path of at most {LONGEST_UNIX_PATH_BYTES} bytes without "
            "commas and control characters"
        )

    def _read(self, text: str) -> AnyAddress:
        return parse_listen(text)


class ServerList(AddressList):
    """One or more distinct HOST:PORT with or without one of SERVER_SCHEMES."""

    metavar = "[SCHEME://]HOST:PORT"

    @property
    def allowed(self) -> str:
        """See Kind."""
        return f"{super().allowed}, tls:// before it for TLS, each:// or each+tls:// for each address of a name"

    def _read(self, text: str) -> ServerAddress:
        return ServerAddress.parse(text)


class HostList(FunctionList):
    """None or several distinct names of hosts, in lower case; as text, separated by commas."""

    metavar = "NAME"
    most = 64
    _text = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63}){0,126}", re.ASCII)

    @property
    def allowed(self) -> str:
        """See Kind."""
        return f"1 to {self.most} different names of hosts, without ports"

    def _parse_one(self, text: object) -> object:
        name = text.strip(" ").lower() if isinstance(text, str) else ""
        if len(name) > 253 or not self._text.fullmatch(name):
            raise DisallowedValueError
        return name

    def from_flags(self, values: tuple[str, ...]) -> object:
        """See Kind."""
        return ",".join(values)


class ServedHostList(HostList):
    """As HostList, and addresses, IPv6 in brackets."""

    @property
    def allowed(self) -> str:
        """See Kind."""
        return f"1 to {self.most} different names of hosts or addresses, IPv6 in brackets, without ports"

    def _parse_one(self, text: object) -> object:
        if isinstance(text, str) and text.strip(" ").startswith("["):
            return _bracketed(text.strip(" "))
        return super()._parse_one(text)


class OriginList(FunctionList):
    """None or several distinct origins as browsers write them, or `*` alone; as text, separated by commas."""

    metavar = "ORIGIN"
    most = 256
    _text = re.compile(r"([a-z][a-z0-9+.-]*)://(\[[^\]]*\]|[^:\[]+)(?::([0-9]{1,5}))?", re.ASCII)
    _default_ports = MappingProxyType({"http": 80, "https": 443})
    _hosts = HostList()
    # Where the last part of a name is a number, browsers take all of it for an IPv4 address.
    _number_last = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)", re.ASCII)

    @property
    def allowed(self) -> str:
        """See Kind."""
        return (
            f"1 to {self.most} different SCHEME://HOST or SCHEME://HOST:PORT, without a path, a name that is not ASCII "
            "as xn--, never null; or * alone"
        )

    def parse(self, value: object) -> tuple[object, ...]:
        """See Kind."""
        origins = super().parse(value)
        if "*" in origins and len(origins) > 1:
            raise DisallowedValueError
        return origins

    def _parse_one(self, text: object) -> object:
        """One of them as the Fetch standard writes it: in lower case, the scheme's own port left out."""
        text = text.strip(" ").lower() if isinstance(text, str) and text.isascii() else ""
        if text == "*":
            return text
        found = self._text.fullmatch(text)
        if found is None:
            raise DisallowedValueError
        scheme, host, port = found.groups()
        if host.startswith("["):
            host = _bracketed(host)
        elif self._number_last.fullmatch(host):
            _packed(socket.AF_INET, host)
        else:
            [host] = self._hosts.parse([host])
        number = None if port is None else int(port)
        if number is None or number == self._default_ports.get(scheme):
            return f"{scheme}://{host}"
        if not 0 < number <= HIGHEST_PORT:
            raise DisallowedValueError
        return f"{scheme}://{host}:{number}"

    def from_flags(self, values: tuple[str, ...]) -> object:
        """See Kind."""
        return ",".join(values)


def _packed(family: int, text: str) -> bytes:
    try:
        return socket.inet_pton(family, text)
    except (OSError, ValueError):
        raise DisallowedValueError from None


def _bracketed(text: str) -> str:
    """An IPv6 address in brackets as browsers write it: as RFC 5952 has it, but never with an IPv4 address in it."""
    if not text.endswith("]"):
        raise DisallowedValueError
    address = socket.inet_ntop(socket.AF_INET6, _packed(socket.AF_INET6, text[1:-1]))
    before, _, last = address.rpartition(":")
    if "." in last:
        high, low = divmod(int.from_bytes(_packed(socket.AF_INET, last), "big"), 1 << 16)
        address = f"{before}:{high:x}:{low:x}"
    return f"[{address}]"
