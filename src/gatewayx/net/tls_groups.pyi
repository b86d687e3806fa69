"""Which groups keys are exchanged in; the .pxd has what it knows of Python and OpenSSL."""

import ssl
from typing import Final

GROUPS: Final[tuple[str, ...]]
EVERYBODYS: Final[str]

def limit_groups(context: ssl.SSLContext) -> bool:
    """Exchange keys in groups of GROUPS alone, of which each costs about as much as a signature.

    Returns whether OpenSSL could be told so; if not, only the group is left that every client has, and those that guess
    another one come in a round trip later.
    """
