"""Names from strangers, as text."""

from __future__ import annotations

import re

# What in a name looks like the escape of a byte.
_LIKE_AN_ESCAPE = re.compile(rb"\\(?=x[0-9a-f]{2})")


def text_of(name: bytes) -> str:
    r"""A name that a stranger has made up, as the value of a label: what is not UTF-8 as `\xff`.

    No two names come to the same text, so no series is there twice: a backslash that would look like that is `\x5c`.
    """
    return _LIKE_AN_ESCAPE.sub(rb"\\x5c", name).decode("utf-8", "backslashreplace")
