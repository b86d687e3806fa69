"""How often an address, a token and a function may be asked for; the .pxd has the C-level interface."""

from typing import final

@final
class RateLimits:
    """The rates of a gateway."""
