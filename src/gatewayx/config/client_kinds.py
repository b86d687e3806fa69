"""The kinds of settings that say how clients come in: files of certificates, and proxies that are trusted."""

from __future__ import annotations

import ipaddress

from gatewayx.address import UNIX_SCHEME, AddressError, UnixAddress
from gatewayx.config.kinds import DisallowedValueError, FilePath, FunctionList


class FileList(FunctionList):
    """None or several paths of files; as text, separated by commas."""

    metavar = "FILE"
    most = 64
    _path = FilePath()

    @property
    def allowed(self) -> str:
        """See Kind."""
        which = "paths" if self.may_repeat else "different paths"
        return f"1 to {self.most} {which} of at most {self._path.longest} bytes, without control characters"

    def _parse_one(self, text: object) -> object:
        path = self._path.parse(text)
        if path is None:
            raise DisallowedValueError
        return path


class KeyFileList(FileList):
    """The same of keys, of which one may be that of several certificates."""

    may_repeat = True


class ProxyList(FunctionList):
    """None or several distinct networks, or unix: with or without a path; as text, separated by commas."""

    metavar = "NETWORK"
    most = 256

    @property
    def allowed(self) -> str:
        """See Kind."""
        return (
            f"1 to {self.most} different IPv4 or IPv6 addresses, each with or without /LENGTH of its prefix and "
            "without bits beyond that, or unix: with or without the path of a socket"
        )

    def _parse_one(self, text: object) -> object:
        if not isinstance(text, str):
            raise DisallowedValueError
        text = text.strip(" ")
        if text == UNIX_SCHEME:
            return text
        try:
            if text.startswith(UNIX_SCHEME):
                return str(UnixAddress.parse(text))
            if not text.isascii() or "%" in text:
                raise DisallowedValueError
            _, slash, length = text.partition("/")
            if slash and not length.isdigit():
                # A netmask, which ipaddress would take as well.
                raise DisallowedValueError
            return str(ipaddress.ip_network(text))
        except (AddressError, ValueError):
            raise DisallowedValueError from None

    def from_flags(self, values: tuple[str, ...]) -> object:
        """See Kind."""
        return ",".join(values)
