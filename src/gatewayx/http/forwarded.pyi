"""Whose request a proxy has passed on, by the header in which proxies say so. No I/O."""

from collections.abc import Iterable, Sequence
from typing import final

MOST_ENTRIES: int
MOST_NAME_BYTES: int

@final
class TrustedProxies:
    """The proxies that are believed, and where they say whose request they pass on.

    trusted: addresses, each with or without /LENGTH of its prefix, `unix:` for whoever connects to a unix socket,
    `unix:/path` for whoever connects to that one. client_address: "connection" where no header says whose request it
    is, else "forwarded" (RFC 7239) or "x-forwarded-for". Raises ValueError for what is none of these.
    """

    @property
    def serial(self) -> int: ...
    @property
    def reads_clients(self) -> bool:
        """Whether a header tells of clients' addresses."""
    def __init__(self, trusted: Iterable[str], client_address: str = "connection") -> None: ...
    def are(self, host: str | None, path: str | None = None) -> bool:
        """Whether the other side of a connection is one of them: its host, or None and the path of a unix socket."""
    def client_of(self, headers: Sequence[bytes]) -> str | None:
        """Whose request a proxy has passed on with these headers, names and values in turn; None for nobody's."""

def name_of(headers: Sequence[bytes]) -> bytes | None:
    """The name that these headers, names and values in turn, give a request; None for none that is taken."""
