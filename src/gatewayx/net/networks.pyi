"""Addresses of hosts in text, and the networks that they are in; the .pxd has the C-level interface."""

from collections.abc import Sequence
from typing import final

MOST_NETWORKS: int
UNIX_SCHEME: str

@final
class Networks:
    """Networks of addresses that something is granted to.

    texts: each an IPv4 or IPv6 address, with or without /LENGTH of its prefix; those that begin with unix: are passed
    over. At most MOST_NETWORKS. Raises ValueError for a text that is none, or for too many.
    """

    def __init__(self, texts: Sequence[str] = ()) -> None: ...
    def __len__(self) -> int: ...
    def __contains__(self, host: str) -> bool:
        """Whether an address is in any of them; False for a text that is no address."""

def canonical_address(text: str) -> str | None:
    """An IPv4 or IPv6 address as it is written everywhere here, IPv4 never in its IPv6 form; None for no address.

    It is read as inet_pton(3) does: without port, brackets, scope and leading zeros.
    """
