"""Names from strangers, as text."""

from __future__ import annotations

import re

# What in a name looks like an escape, and what would end a line or command a terminal: C0, DEL, C1 (as UTF-8), U+2028
# and U+2029.
_ESCAPED = re.compile(rb"\\(?=x[0-9a-f]{2})|[\x00-\x1f\x7f]|\xc2[\x80-\x9f]|\xe2\x80[\xa8\xa9]")


def text_of(name: bytes) -> str:
    r"""A name that a stranger has made up, as the value of a label: control characters and what is no UTF-8 as `\xff`.

    No two names come to the same text, so no series is there twice: a backslash that would look like that is `\x5c`.
    """
    return _ESCAPED.sub(_escape, name).decode("utf-8", "backslashreplace")


def _escape(found: re.Match[bytes]) -> bytes:
    return b"".join(rb"\x%02x" % byte for byte in found[0])
