"""Whose token a request carries, and what it reaches; the .pxd has the C-level interface."""

from typing import final

@final
class Token:
    """One token's name and reach."""

    name: bytes
    rate: float
    burst: int
    rate_key: int

@final
class Tokens:
    """All tokens."""
