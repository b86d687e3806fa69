"""How clients come in at each socket that listens: plainly, by TLS, behind a PROXY header, or both."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from gatewayx.address import Address, ListenAddress, UnixAddress
from gatewayx.core.counters import Counters
from gatewayx.core.deadlines import DeadlineWheel
from gatewayx.net.networks import Networks
from gatewayx.net.proxied import ProxyServer
from gatewayx.net.stream import StreamOwner
from gatewayx.net.tls import HandshakeLine, TlsServer

if TYPE_CHECKING:
    from gatewayx.config.settings import Settings

# Makes who stands on the stream of one accepted socket.
Factory = Callable[..., StreamOwner]
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


def listens_to_proxies(settings: Settings) -> bool:
    """Whether any address is for proxies that send PROXY headers."""
    return any(entry_of(address).proxy for address in settings.listen)


def proxy_server(settings: Settings, wheel: DeadlineWheel, counters: Counters) -> ProxyServer | None:
    """What reads PROXY headers in a process; None where nobody sends any."""
    if not listens_to_proxies(settings):
        return None
    return ProxyServer(wheel, counters, Networks(settings.trusted_proxy), settings.first_byte_timeout_s)


class Entries:
    """Makes who stands on the accepted sockets of a process.

    tls: None where nobody speaks it. proxies: None where nobody sends PROXY headers. late: makes the HTTP connections
    of clients who were there, or had waited to be accepted, when the stop began.
    """

    def __init__(self, tls: TlsServer | None, proxies: ProxyServer | None, late: Connection) -> None:
        self._tls = tls
        self._proxies = proxies
        self._late = late

    def factory(self, entry: Entry, connection: Connection) -> Factory:
        """What stands on the sockets of an entry, and in the end the HTTP connection that `connection` makes."""
        if not entry.proxy:
            return self._over_tls(entry, connection)
        assert self._proxies is not None
        return self._proxies.before(self._over_tls(entry, connection), self._over_tls(entry, self._late))

    def _over_tls(self, entry: Entry, connection: Connection) -> Factory:
        made: Factory = functools.partial(connection, entry.path)
        if not entry.tls:
            return made
        assert self._tls is not None
        return self._tls.over(made)

    def line(self, entry: Entry) -> HandshakeLine | None:
        """Where handshakes of an entry's connections wait; None for no TLS."""
        return self._tls.line if entry.tls and self._tls is not None else None
