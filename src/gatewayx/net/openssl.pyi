"""What OpenSSL is told of a context that ssl.SSLContext has no way to tell it; the .pxd has what it knows of both."""

import ssl
from typing import Final

GROUPS: Final[tuple[str, ...]]
EVERYBODYS: Final[str]
MOST_CHAIN_BYTES: Final[int]

def limit_groups(context: ssl.SSLContext) -> bool:
    """Exchange keys in groups of GROUPS alone, of which each costs about as much as a signature.

    Returns whether OpenSSL could be told so; if not, only the group is left that every client has, and those that guess
    another one come in a round trip later.
    """

def keep_no_sessions(context: ssl.SSLContext) -> bool:
    """Have whoever takes no ticket make a full handshake each time, so that clients hold no memory once they are gone.

    Returns whether OpenSSL could be told so; if not, it keeps sessions as it does by default. Tickets are not kept by a
    server, and stay.
    """

def limit_chains(context: ssl.SSLContext) -> bool:
    """Read at most MOST_CHAIN_BYTES of certificates that a client shows; with more its handshake fails.

    None of them is decoded then. Returns whether OpenSSL could be told so; if not, it reads 100 KiB as it does by
    default.
    """
