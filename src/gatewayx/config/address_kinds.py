"""The kinds of settings that are addresses, or names of hosts."""

from __future__ import annotations

import re

from gatewayx.address import LONGEST_UNIX_PATH_BYTES, UNIX_SCHEME, Address, AddressError, ServerAddress, UnixAddress
from gatewayx.config.kinds import DisallowedValueError, FunctionList, Kind


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

    def parse(self, value: object) -> tuple[Address | ServerAddress | UnixAddress, ...]:
        """See Kind."""
        texts = value.split(",") if isinstance(value, str) else value
        if not isinstance(texts, (list, tuple)) or not 1 <= len(texts) <= self.most:
            raise DisallowedValueError
        addresses = tuple(self._parse_one(text) for text in texts)
        fixed = [key for key in map(self._key, addresses) if key is not None]
        if len(set(fixed)) != len(fixed):
            raise DisallowedValueError
        return addresses

    def _parse_one(self, text: object) -> Address | ServerAddress | UnixAddress:
        if not isinstance(text, str):
            raise DisallowedValueError
        try:
            address = self._read(text.strip(" "))
        except AddressError as error:
            raise DisallowedValueError from error
        if not isinstance(address, UnixAddress) and address.port < self.lowest_port:
            raise DisallowedValueError
        return address

    def _read(self, text: str) -> Address | ServerAddress | UnixAddress:
        return Address.parse(text)

    def _key(self, address: Address | ServerAddress | UnixAddress) -> tuple[str, int] | None:
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
    """One or more distinct HOST:PORT or unix:/path."""

    metavar = "ADDRESS"

    @property
    def allowed(self) -> str:
        """See Kind."""
        return (
            f"{super().allowed}, or unix: and an absolute path of at most {LONGEST_UNIX_PATH_BYTES} bytes without "
            "commas and control characters"
        )

    def _read(self, text: str) -> Address | UnixAddress:
        return UnixAddress.parse(text) if text.startswith(UNIX_SCHEME) else Address.parse(text)


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
