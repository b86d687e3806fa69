"""One line of the access log; the .pxd has the C-level interface."""

from typing import Any

FIELDS: tuple[str, ...]
TEXT_BYTES: dict[str, int]
LINE_BYTES: int

def line_of(**fields: Any) -> bytes:
    """The line of an entry whose fields are given by name: texts as bytes or None, numbers as int; for tests."""

def in_sample(id: bytes, part: float) -> bool:
    """Whether a request of this id is in a sample of this part, as the access log decides it."""
