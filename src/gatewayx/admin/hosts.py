"""Whether a request means this admin address: a page of another origin whose name was made to point here does not.

A browser that was led to such a page (DNS rebinding) sends the page's own name as Host. Names that nobody else can have
point here are addresses and `localhost`; all others have to be set. Caddy refuses the same way, with 403.
"""

from __future__ import annotations

import re
from collections.abc import Collection

_WITH_PORT = re.compile(r"(?P<host>\[[^\]]*\]|[^:]*)(?::[0-9]*)?")
# What the parser has let pass as a Host is sound but for the meaning of these.
_IPV4 = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}", re.ASCII)
_IPV6 = re.compile(r"\[[0-9a-f:.]{2,}(?:%25[0-9a-z._~-]+)?\]", re.ASCII)


def is_ours(host: bytes | None, names: Collection[str]) -> bool:
    """Whether a request with this Host may be answered.

    names: those that were set, in lower case. HTTP/1.0 has no Host: no browser sends that.
    """
    if host is None:
        return True
    # RFC 9110 5.5: white space around a value is no part of it, and the parser leaves what is behind it.
    found = _WITH_PORT.fullmatch(host.strip(b" \t").decode("latin-1").lower())
    if found is None:
        return False
    name = found["host"].removesuffix(".")
    return name == "localhost" or name in names or bool(_IPV4.fullmatch(name) or _IPV6.fullmatch(name))
