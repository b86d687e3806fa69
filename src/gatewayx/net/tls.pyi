"""TLS to clients, over sockets of ours; the .pxd has the C-level interface."""

import logging
import ssl
from collections.abc import Callable
from typing import final

from gatewayx.core.counters import Counters
from gatewayx.net.poller import Polled, TurnPoller
from gatewayx.net.stream import Stream, StreamOwner
from gatewayx.net.tls_reasons import EXPIRED as EXPIRED
from gatewayx.net.tls_reasons import reason_of as reason_of
from gatewayx.net.tls_reasons import taken_up_too_late as taken_up_too_late

logger: logging.Logger

@final
class TlsServer:
    """TLS for the clients of a process. context: for servers. max_handshakes: those under way at once."""

    def __init__(
        self, poller: TurnPoller, counters: Counters, context: ssl.SSLContext, max_handshakes: int
    ) -> None: ...
    @property
    def context(self) -> ssl.SSLContext: ...
    @property
    def line(self) -> HandshakeLine: ...
    def change(self, context: ssl.SSLContext, max_handshakes: int) -> None:
        """Be as if it had been made with these."""
    def over(self, factory: Callable[..., StreamOwner]) -> Callable[..., StreamOwner]:
        """A factory of those who stand on accepted sockets, for one of those who stand on the streams over them."""
    def counters(self) -> dict[str, int]:
        """What is held now, by name."""

@final
class HandshakeLine(Polled):
    """Those whose handshake is to be begun; poller: the process's."""

    def __init__(self, poller: TurnPoller) -> None: ...
    @property
    def count(self) -> int: ...

@final
class Ciphertext(StreamOwner):
    """Stands on the socket for a TlsStream, and hands all to it."""

@final
class TlsStream(Stream):
    """A stream over a SocketStream to a client that speaks TLS."""

    def __init__(self, server: TlsServer, owner: StreamOwner) -> None: ...
    @property
    def owner(self) -> StreamOwner | None: ...
    def below(self) -> Ciphertext:
        """Who stands on the socket."""
