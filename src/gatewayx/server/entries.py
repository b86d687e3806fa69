"""How clients come in at each socket that listens: plainly, by TLS, behind a PROXY header, or both."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

from gatewayx.address import Address, ListenAddress, UnixAddress
from gatewayx.net.stream import StreamOwner
from gatewayx.net.tls import HandshakeLine, TlsServer

# Makes who stands on the stream of one accepted socket.
Factory = Callable[[], StreamOwner]
# The same, given the path of the unix socket where it is one.
Connection = Callable[[str | None], StreamOwner]


class Entry(NamedTuple):
    """What comes first over the connections of a socket, in this order."""

    proxy: bool = False
    tls: bool = False
    # Of a unix socket.
    path: str | None = None


def entry_of(address: Address | ListenAddress | UnixAddress) -> Entry:
    """How clients come in who connect to this address."""
    if isinstance(address, UnixAddress):
        return Entry(path=address.path)
    return Entry(address.proxy, address.tls) if isinstance(address, ListenAddress) else Entry()


class Entries:
    """Makes who stands on the accepted sockets of a process. tls: None where nobody speaks it."""

    def __init__(self, tls: TlsServer | None) -> None:
        self._tls = tls

    def factory(self, entry: Entry, connection: Connection) -> Factory:
        """What stands on the sockets of an entry, and in the end the HTTP connection that `connection` makes."""
        made: Factory = functools.partial(connection, entry.path)
        if entry.tls:
            assert self._tls is not None
            made = self._tls.over(made)
        return made

    def line(self, entry: Entry) -> HandshakeLine | None:
        """Where handshakes of an entry's connections wait; None for no TLS."""
        return self._tls.line if entry.tls and self._tls is not None else None
