"""The alternative names (subjectAltName, RFC 5280 4.2.1.6) in a client's certificate, as one text each.

Two names are the same if their texts are equal: the host names of DNS are of any case (RFC 4343), addresses may be
written in several ways, and whatever else is compared byte by byte.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator

# By the kinds that ssl.SSLSocket.getpeercert() tells, those that OpenSSL writes before the colon (x509v3_config(5)).
KINDS = {"DNS": "DNS", "URI": "URI", "email": "email", "IP Address": "IP"}
# Names of one certificate that are looked at: a certificate may have any number of them.
MOST_NAMES = 64
# The longest name that is one, its kind included.
MOST_NAME_LENGTH = 1024


def canonical(kind: str, value: str) -> str | None:
    """The text of a name of this kind, as OpenSSL writes it; None for a value that is none, and for other kinds."""
    if not value.isascii():
        # All these are IA5String; what else a certificate may have there could become a letter as the case changes.
        return None
    if kind == "DNS":
        value = value.lower()
    elif kind == "IP":
        try:
            address = ipaddress.ip_address(value.strip())
        except ValueError:
            return None
        value = str(address)
        if "%" in value:
            # A link of one machine's is no part of a name.
            return None
    elif kind not in KINDS.values():
        return None
    text = f"{kind}:{value}"
    return text if value and len(text) <= MOST_NAME_LENGTH else None


def texts(names: Iterable[tuple[str, object]]) -> Iterator[str]:
    """The texts of a certificate's names, as ssl.SSLSocket.getpeercert() has them, in its order, MOST_NAMES at most."""
    for number, (kind, value) in enumerate(names):
        if number == MOST_NAMES:
            return
        # Of a directory's name the value is no text.
        text = canonical(KINDS.get(kind, ""), value) if isinstance(value, str) else None
        if text is not None:
            yield text
