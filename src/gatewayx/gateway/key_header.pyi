"""Idempotency-Key: what it says; the .pxd has the C-level interface."""

def key_of(headers: list[bytes]) -> bytes | None:
    """The key among these headers, names and values in turn; None without one. Raises RequestError."""
