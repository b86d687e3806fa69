"""Bytes as letters that may stand in a URL; the .pxd has the C-level interface."""

def encoded(data: bytes) -> bytes:
    """The letters of these bytes."""

def decoded(letters: bytes) -> bytes | None:
    """The bytes of these letters; None if they are not what encoded() makes of any."""
